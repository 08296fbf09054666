"""Everyday motion: people who sit, stand still, do things slowly; made of motion capture.

Motion capture for benchmarks is of sport and walks. Slowed down, held, and with the legs of a
person who sits, it has the windows of almost one pose that everyday recordings are full of.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline

from canonlift.body.skeleton import H36M17
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.noise import smooth_noise

SECONDS, FPS = 20.0, 30.0
SLOWER = 3.0  # times slower than it was captured, on average
# Clips that each kind is made of; those of the motion capture that are there.
SITTING = ("asf/02_10", "expmap/test/washwindow/washwindow_1", "asf/02_05")
STANDING = ("asf/02_09", "asf/02_10", "expmap/test/jumping/jumping_1")
SLOW = ("asf/02_08", "expmap/test/soccer/soccer_1", "expmap/test/basketball/basketball_1")
DESK = ("asf/02_10", "expmap/test/washwindow/washwindow_1", "asf/02_07", "asf/02_08")
Motions = Mapping[str, Float[np.ndarray, "T J 3"]]


def room(motions: Motions, seed: int) -> dict[str, np.ndarray]:
    """Clips of a living room: three of a person who sits, stands, and moves slowly, each."""
    made: dict[str, np.ndarray] = {}
    for kind, names, how in (
        ("sit", SITTING, sitting),
        ("stand", STANDING, standing),
        ("slow", SLOW, slow),
    ):
        for index, name in enumerate(_there(names, motions), 1):
            generator = np.random.default_rng([seed, index])
            made[f"everyday/{kind}_{index}"] = how(motions[name], generator)
    for index, actions in enumerate((["squat"], ["throw", "squat"], ["drill"]), 1):
        generator = np.random.default_rng([seed, 100 + index])
        n_frames, person = round(SECONDS * FPS), sample_person(generator)
        # Filmed at 75 fps and shown at 30.
        made[f"everyday/athlete_{index}"] = perform(
            person, actions, n_frames, 2.5 * FPS, generator
        )
    return made


def desk(motions: Motions, seed: int) -> dict[str, np.ndarray]:
    """Clips of people who sit and use their hands, facing +z."""
    return {
        f"everyday/desk_{index}": sitting(motions[name], np.random.default_rng([seed, index]))
        for index, name in enumerate(_there(DESK, motions), 1)
    }


def slow(
    motion: Float[np.ndarray, "T J 3"], generator: np.random.Generator
) -> Float[np.ndarray, "F J 3"]:
    """The motion slowed down unevenly, to and fro where it is too short; now and then it halts."""
    n_frames = round(SECONDS * FPS)
    pace = np.maximum(0.0, 1 + smooth_noise(n_frames, (), 4 * FPS, generator)) / SLOWER
    return _at(motion, np.cumsum(pace) - pace[0])


def standing(
    motion: Float[np.ndarray, "T J 3"], generator: np.random.Generator
) -> Float[np.ndarray, "F J 3"]:
    """A person who stands still and sways: the motion's own sway about its quietest moment."""
    speed = np.linalg.norm(np.gradient(motion, axis=0), axis=-1).mean(1)
    quiet = np.convolve(speed, np.ones(9) / 9, mode="valid").argmin() + 4
    sway = smooth_noise(round(SECONDS * FPS), (), 3 * FPS, generator)
    return _at(motion, quiet + 3.0 * sway)


def sitting(
    motion: Float[np.ndarray, "T J 3"], generator: np.random.Generator
) -> Float[np.ndarray, "F J 3"]:
    """The motion `slow` of a person on a chair, who faces +z and stays there."""
    pose = slow(motion, generator)
    joint = {name: index for index, name in enumerate(H36M17)}
    pose = pose - pose[:, :1]
    left = pose[:, joint["l_hip"]] - pose[:, joint["r_hip"]]
    # Whoever sits does not turn on the chair: the heading is taken away, but for a little.
    heading = np.arctan2(left[:, 2], left[:, 0])
    pose = pose @ _about_y(heading).swapaxes(-1, -2)
    pose = pose @ _about_y(0.15 * smooth_noise(len(pose), (), 5 * FPS, generator))
    wander = 0.15 * smooth_noise(len(pose), (2, 3), 4 * FPS, generator)
    for side, part in (("l", 0), ("r", 1)):
        hip, knee, ankle = (joint[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
        thigh, shank = (
            np.linalg.norm(motion[:, a] - motion[:, b], axis=-1).mean()
            for a, b in ((hip, knee), (knee, ankle))
        )
        out = 0.12 if side == "l" else -0.12
        ahead = np.array([out, -0.1, 1.0]) + wander[:, part] * [0.5, 0.5, 0.0]
        down = np.array([0.0, -1.0, 0.0]) + wander[:, part] * [0.3, 0.0, 1.5]
        pose[:, knee] = pose[:, hip] + thigh * _unit(ahead)
        pose[:, ankle] = pose[:, knee] + shank * _unit(down)
    pose[..., 1] += 0.08 - pose[..., 1].min()
    return pose


def _at(motion: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The motion at fractional frames, to and fro beyond its ends."""
    last = len(motion) - 1
    frame = last - np.abs(frame % (2 * last) - last)
    return CubicSpline(np.arange(len(motion)), motion)(frame)


def _about_y(angle: np.ndarray) -> np.ndarray:
    """Matrices (T, 3, 3) that turn (x, z) by an angle from x to z."""
    cos, sin, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    rows = [[cos, zero, sin], [zero, zero + 1, zero], [-sin, zero, cos]]
    return np.moveaxis(np.array(rows), -1, 0)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def _there(names: tuple[str, ...], motions: Motions) -> list[str]:
    """Those that there are; where there are none, the first clips of what there is."""
    return [name for name in names if name in motions] or sorted(motions)[: len(names)]
