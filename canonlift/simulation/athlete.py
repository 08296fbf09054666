"""A procedural athlete: people of different build, and forward kinematics of their motions.

World axes are metres, y up, the floor at y = 0. The tracks of the motions are blended, given
band-limited random posture, held within the joint limits, balanced over the feet, put on the floor
and moved through the world, in that order, so every motion obeys the same laws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d, maximum_filter1d
from scipy.spatial.transform import Rotation

from canonlift.body.skeleton import H36M17
from canonlift.simulation.motions import ANGLES, LIMB_ANGLES, MOTIONS, SIDES, TRAVEL, Angle, ease
from canonlift.simulation.noise import smooth_noise

ANKLE_HEIGHT = 0.08
CLEARANCE = np.array([ANKLE_HEIGHT if name.endswith("ankle") else 0.05 for name in H36M17])
ARENA = 4.0  # metres from the origin beyond which the athlete is steered back


@dataclass(frozen=True)
class Person:
    """Build of one person, in metres; left and right are alike."""

    hip: float  # pelvis to hip joint
    thigh: float
    shank: float
    lower_back: float  # pelvis to spine
    upper_back: float  # spine to thorax
    shoulder: float  # thorax to shoulder joint
    shoulder_drop: float  # of which downwards
    upper_arm: float
    forearm: float
    neck: float  # thorax to nose
    nose_forward: float  # of which forwards
    skull: float  # nose to top of the head

    @property
    def height(self) -> float:
        """Standing upright, from the floor to the top of the head."""
        return ANKLE_HEIGHT + (
            self.shank + self.thigh + self.lower_back + self.upper_back
            + np.sqrt(self.neck**2 - self.nose_forward**2)
            + np.sqrt(self.skull**2 - self.nose_forward**2)
        )  # fmt: skip


def sample_person(generator: np.random.Generator) -> Person:
    """Draw a person 1.55 to 1.95 m tall whose proportions vary by about 4 %."""
    typical = {
        "hip": 0.135, "thigh": 0.435, "shank": 0.425, "lower_back": 0.225, "upper_back": 0.26,
        "shoulder": 0.18, "shoulder_drop": 0.03, "upper_arm": 0.285, "forearm": 0.245,
        "neck": 0.135, "nose_forward": 0.07, "skull": 0.15,
    }  # fmt: skip
    varied = {
        name: length * np.exp(0.04 * np.clip(generator.standard_normal(), -2, 2))
        for name, length in typical.items()
    }
    height = np.clip(generator.normal(1.75, 0.09), 1.56, 1.94)
    scale = (height - ANKLE_HEIGHT) / (Person(**varied).height - ANKLE_HEIGHT)
    return Person(**{name: float(scale * length) for name, length in varied.items()})


def perform(
    person: Person,
    motions: Sequence[str],
    n_frames: int,
    fps: float,
    generator: np.random.Generator,
) -> Float[np.ndarray, "T 17 3"]:
    """Joints of a person who does the named motions in turn, repeatedly; metres, world axes."""
    check_motions(motions)
    if n_frames < 2:
        raise ValueError(f"a motion needs at least 2 frames, got {n_frames}")
    tracks = _blend(motions, n_frames, fps, generator)
    angles = _posture(tracks, fps, generator)
    pose = _balance(_joints(person, angles), angles, fps)
    return _travel(pose, tracks, fps, generator)


def check_motions(names: Sequence[str]) -> None:
    """Refuse an unknown motion, and none."""
    unknown = [name for name in names if name not in MOTIONS]
    if unknown or not names:
        raise ValueError(f"no motion {unknown}; choose from {', '.join(MOTIONS)}")


def _blend(
    motions: Sequence[str], n_frames: int, fps: float, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Tracks of the motions in turn, each for 3 to 7 seconds, blended at the transitions."""
    rest = {name: angle.rest for name, angle in ANGLES.items()} | dict.fromkeys(TRAVEL, 0.0)
    total = {name: np.zeros(n_frames) for name in rest}
    time = np.arange(n_frames) / fps
    fade, start = 0.8, -1.0  # seconds
    for name in cycle(motions):
        end = start + generator.uniform(3.0, 7.0)
        part = slice(*np.searchsorted(time, [start, end + fade]))
        weight = ease((time[part] - start) / fade) - ease((time[part] - end) / fade)
        tracks = rest | MOTIONS[name](time[part] - start, generator)
        for key, track in tracks.items():
            total[key][part] += weight * track
        start = end
        if start > time[-1]:
            return total
    raise AssertionError("a cycle does not end")


def _posture(
    tracks: Mapping[str, np.ndarray], fps: float, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Every angle with a constant and a slowly varying random part, within its limits."""
    n_frames = len(tracks["lean"])
    constant = generator.standard_normal(len(ANGLES))
    slow = smooth_noise(n_frames, (len(ANGLES),), 3.0 * fps, generator)
    fast = smooth_noise(n_frames, (len(ANGLES),), 1.0 * fps, generator)
    amount = generator.uniform(0.5, 1.3)
    angles = {}
    for i, (name, angle) in enumerate(ANGLES.items()):
        noise = amount * angle.spread * (0.7 * constant[i] + 0.7 * slow[:, i] + 0.3 * fast[:, i])
        smooth = gaussian_filter1d(tracks[name], 0.04 * fps, mode="nearest")
        angles[name] = _within(smooth + noise, angle)
    return angles


def _within(value: np.ndarray, angle: Angle) -> np.ndarray:
    """Clamp smoothly: values near a limit approach it without a corner."""
    soft = 4.0
    value = angle.low + soft * np.logaddexp(0.0, (value - angle.low) / soft)
    value = angle.high - soft * np.logaddexp(0.0, (angle.high - value) / soft)
    return np.maximum(value, angle.low)  # the second step may fall slightly below the lower limit


def _joints(person: Person, angles: Mapping[str, np.ndarray]) -> np.ndarray:
    """Forward kinematics in the body's own axes; the pelvis does not move (T, 17, 3)."""

    def turn(axes: str, *tracks: np.ndarray) -> Rotation:
        return Rotation.from_euler(axes, np.stack(tracks, -1), degrees=True)

    def trunk(part: str, share: float) -> Rotation:
        flex, bend, twist = (share * angles[f"{part}_{way}"] for way in ("flex", "bend", "twist"))
        return turn("YZX", twist, -bend, flex)

    at = {"pelvis": np.zeros((len(angles["lean"]), 3))}
    pelvis = turn("YZX", angles["pelvis_twist"], -angles["pelvis_bend"], angles["pelvis_tilt"])
    lower = pelvis * trunk("back", 0.4)
    upper = lower * trunk("back", 0.6)
    skull = upper * trunk("neck", 1.0)
    at["spine"] = lower.apply([0.0, person.lower_back, 0.0])
    at["thorax"] = at["spine"] + upper.apply([0.0, person.upper_back, 0.0])
    front = person.nose_forward
    at["nose"] = at["thorax"] + skull.apply([0.0, np.sqrt(person.neck**2 - front**2), front])
    at["head"] = at["nose"] + skull.apply([0.0, np.sqrt(person.skull**2 - front**2), -front])
    wide = np.sqrt(person.shoulder**2 - person.shoulder_drop**2)
    for side, sign in SIDES.items():
        of = {name: angles[f"{side}_{name}"] for name in LIMB_ANGLES}
        thigh = pelvis * turn("XZY", -of["hip_flex"], sign * of["hip_abd"], sign * of["hip_turn"])
        shank = thigh * turn("X", of["knee"])
        at[f"{side}_hip"] = pelvis.apply([sign * person.hip, 0.0, 0.0])
        at[f"{side}_knee"] = at[f"{side}_hip"] + thigh.apply([0.0, -person.thigh, 0.0])
        at[f"{side}_ankle"] = at[f"{side}_knee"] + shank.apply([0.0, -person.shank, 0.0])
        girdle = upper * turn("ZY", sign * of["shrug"], -sign * of["protract"])
        raised, spread, turned = (of[f"shoulder_{way}"] for way in ("flex", "abd", "turn"))
        arm = upper * turn("XZY", -raised, sign * spread, sign * turned)
        forearm = arm * turn("X", -of["elbow"])
        shoulder = [sign * wide, -person.shoulder_drop, 0.0]
        at[f"{side}_shoulder"] = at["thorax"] + girdle.apply(shoulder)
        at[f"{side}_elbow"] = at[f"{side}_shoulder"] + arm.apply([0.0, -person.upper_arm, 0.0])
        at[f"{side}_wrist"] = at[f"{side}_elbow"] + forearm.apply([0.0, -person.forearm, 0.0])
    return np.stack([at[name] for name in H36M17], axis=1)


# Relative mass of the body parts at a joint; the centre of mass is the joints' weighted mean.
_MASS = np.array([
    {"pelvis": 4.0, "spine": 5.0, "thorax": 5.0, "head": 2.0}.get(name, 0.7) for name in H36M17
])  # fmt: skip
_ANKLES = [H36M17.index("l_ankle"), H36M17.index("r_ankle")]


def _balance(pose: np.ndarray, angles: Mapping[str, np.ndarray], fps: float) -> np.ndarray:
    """Turn the body so that its centre of mass is above its feet, then apply lean and roll."""
    centre = np.einsum("tjc,j->tc", pose, _MASS / _MASS.sum()) - pose[:, _ANKLES].mean(1)
    centre = gaussian_filter1d(centre, 0.15 * fps, axis=0, mode="nearest")
    pitch = np.degrees(np.arctan2(centre[:, 2], centre[:, 1]))
    roll = np.degrees(np.arctan2(centre[:, 0], centre[:, 1]))
    upright = np.stack([roll - angles["roll"], angles["lean"] - pitch], -1)
    matrix = Rotation.from_euler("ZX", upright, degrees=True).as_matrix()
    return np.einsum("trc,tjc->tjr", matrix, pose)


def _ground(pose: np.ndarray, rise: np.ndarray, fps: float) -> np.ndarray:
    """Put the lowest joint on the floor, then lift the body by `rise` metres."""
    # A smooth maximum is never below the maximum, nor a mean of the running maximum below its
    # middle. So no joint is below the floor, and the height changes smoothly from step to step.
    sharp, reach = 60.0, round(0.08 * fps)
    lift = np.logaddexp.reduce(sharp * (CLEARANCE - pose[..., 1]), axis=1) / sharp
    lift = maximum_filter1d(lift, 2 * reach + 1, mode="nearest")
    lift = gaussian_filter1d(lift, reach / 2 + 0.1, radius=reach, mode="nearest")
    return pose + (lift + rise)[:, None, None] * [0.0, 1.0, 0.0]


def _travel(
    pose: np.ndarray, tracks: Mapping[str, np.ndarray], fps: float, generator: np.random.Generator
) -> np.ndarray:
    """Put the body on the floor and move it as the standing foot pushes, or as skis glide."""
    rise = gaussian_filter1d(tracks["rise"], 0.04 * fps, mode="nearest")
    pose = _ground(pose, rise, fps)
    feet = pose[:, _ANKLES]
    # A standing foot does not slide, so the body moves against it; `load` is near 1 on the floor.
    load = np.exp(-80.0 * (feet[..., 1] - ANKLE_HEIGHT))
    push = -np.einsum("tf,tfc->tc", load, np.gradient(feet, axis=0)) * fps
    push, load = (gaussian_filter1d(x, 0.15 * fps, 0) for x in (push, load.sum(1) + 1e-6))
    push /= load[:, None]
    velocity = tracks["glide"] + push[:, 2] + 1j * push[:, 0]  # forwards + i leftwards

    turn = np.radians(tracks["turn"])
    heading, place = np.empty(len(pose)), np.empty((len(pose), 2))
    angle, here = generator.uniform(-np.pi, np.pi), complex(*generator.uniform(-1.0, 1.0, 2))
    for t in range(len(pose)):  # a loop, because the steering depends on the position
        heading[t], place[t] = angle, (here.imag, here.real)
        step = velocity[t] * np.exp(1j * angle)
        here += step / fps
        # Direction of the origin, in radians to the left of straight ahead.
        home = np.angle(-here * np.exp(-1j * angle))
        steering = 1.5 * min(abs(step) / 2.0, 1.0) * min(abs(here) / ARENA, 1.5) ** 3
        angle += (turn[t] + steering * np.tanh(home)) / fps
    about_y = Rotation.from_rotvec(heading[:, None] * [0.0, 1.0, 0.0]).as_matrix()
    moved = np.stack([place[:, 0], np.zeros(len(pose)), place[:, 1]], -1)
    return np.einsum("trc,tjc->tjr", about_y, pose) + moved[:, None]
