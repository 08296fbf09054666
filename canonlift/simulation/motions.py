"""Athletic motions: joint angles and travel over time.

A motion is a set of *tracks*: the name of a degree of freedom (`ANGLES`, or one of `TRAVEL`) and
its value over time. A track that a motion does not name stays at its angle's `rest`, or at 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from canonlift.simulation.noise import smooth_noise

Track = np.ndarray | float | int
Tracks = dict[str, Track]
Motion = Callable[[np.ndarray, np.random.Generator], Tracks]  # of the time in seconds

SIDES = {"l": 1.0, "r": -1.0}  # the body's own axes: x left, y up, z forward


@dataclass(frozen=True)
class Angle:
    """One degree of freedom, in degrees."""

    low: int
    high: int
    rest: int  # of motions without a track of this name
    spread: int  # standard deviation of the random posture added to every motion


# Flexion is forwards (knees: backwards), bend and twist to the left, and for the limbs
# abduction and turn away from the body. Below 90 degrees of abduction and turn, knees and
# elbows can flex only as they do in people.
TRUNK_ANGLES = {
    "lean": Angle(-35, 60, 0, 4),  # of the whole body out of balance
    "roll": Angle(-50, 50, 0, 3),
    "pelvis_tilt": Angle(-20, 40, 5, 6),
    "pelvis_bend": Angle(-15, 15, 0, 4),
    "pelvis_twist": Angle(-30, 30, 0, 6),
    "back_flex": Angle(-25, 65, 8, 9),
    "back_bend": Angle(-30, 30, 0, 7),
    "back_twist": Angle(-50, 50, 0, 9),
    "neck_flex": Angle(-40, 40, 0, 9),
    "neck_bend": Angle(-25, 25, 0, 6),
    "neck_twist": Angle(-65, 65, 0, 16),
}
LIMB_ANGLES = {
    "hip_flex": Angle(-25, 120, 5, 5),
    "hip_abd": Angle(-12, 50, 5, 4),
    "hip_turn": Angle(-30, 40, 6, 7),
    "knee": Angle(3, 145, 10, 6),
    "shoulder_flex": Angle(-55, 175, 10, 15),
    "shoulder_abd": Angle(-8, 85, 10, 9),
    "shoulder_turn": Angle(-70, 60, 0, 16),
    "elbow": Angle(4, 145, 30, 15),
    "shrug": Angle(-5, 25, 3, 4),
    "protract": Angle(-15, 25, 0, 5),
}
ANGLES: Mapping[str, Angle] = TRUNK_ANGLES | {
    f"{side}_{name}": angle for side in SIDES for name, angle in LIMB_ANGLES.items()
}
TRAVEL = ("glide", "turn", "rise")  # m/s forwards, degrees/s to the left, metres of flight


def ease(x: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at 0 to 1 at 1; its first two derivatives are 0 at both."""
    x = np.clip(x, 0.0, 1.0)
    return x**3 * (10.0 - 15.0 * x + 6.0 * x**2)


def _keys(phase: np.ndarray, *keys: tuple[float, float | int]) -> np.ndarray:
    """Periodic smooth interpolation of (phase, value) keys, with phases in [0, 1)."""
    at, values = np.array(keys).T
    at, values = np.append(at, at[0] + 1.0), np.append(values, values[0])
    phase = (phase - at[0]) % 1.0 + at[0]
    i = np.clip(np.searchsorted(at, phase, side="right") - 1, 0, len(keys) - 1)
    return values[i] + np.diff(values)[i] * ease((phase - at[i]) / np.diff(at)[i])


def _phase(time: np.ndarray, period: float, generator: np.random.Generator) -> np.ndarray:
    """Number of cycles at each time, from a random start and at a slightly uneven tempo."""
    a, b = generator.uniform(0.0, 0.06), generator.uniform(0.0, 6.28)
    return time / period + generator.uniform() + a * np.sin(2.2 * time / period + b)


def _leg(side: str, extension: Track, swing: Track) -> Tracks:
    """A leg at the fraction `extension` of its full length, swung forwards by `swing` degrees."""
    knee = 2.0 * np.degrees(np.arccos(np.clip(extension, 0.3, 0.998)))
    return {f"{side}_knee": knee, f"{side}_hip_flex": knee / 2 + swing}


def _arm(side: str, flex: Track, abd: Track, elbow: Track, turn: Track = 0.0) -> Tracks:
    names = ("shoulder_flex", "shoulder_abd", "elbow", "shoulder_turn")
    return {f"{side}_{n}": v for n, v in zip(names, (flex, abd, elbow, turn), strict=True)}


def _hold_arms(generator: np.random.Generator) -> Tracks:
    """Arms held in one of six typical ways, varied at random."""
    ways = [(85, 10, 15), (60, 20, 90), (20, 45, 100), (165, 25, 20), (15, 15, 20), (30, 75, 20)]
    tracks: Tracks = {}
    way = ways[generator.integers(len(ways))]
    for side in SIDES:
        if generator.uniform() < 0.2:  # the arms may differ
            way = ways[generator.integers(len(ways))]
        tracks |= _arm(side, *(generator.normal(value, 10.0) for value in way))
    return tracks


def slalom(time: np.ndarray, generator: np.random.Generator) -> Tracks:
    """Linked ski turns: inclined into the turn, angulated, flexed between turns."""
    g = generator.uniform
    phase = 2 * np.pi * _phase(time, g(1.8, 3.6), generator)
    sharp = g(0.5, 2.0)
    turn = np.tanh(sharp * np.sin(phase)) / np.tanh(sharp)  # 1: to the left
    edge = g(15, 48) * turn
    length = g(0.68, 0.9) - g(0.0, 0.16) * np.cos(2 * phase + g(-0.6, 0.6))
    tracks: Tracks = {
        "roll": edge, "lean": g(-4, 10), "turn": g(15, 70) * turn, "glide": g(2.0, 4.5),
        "back_bend": -g(0.2, 0.8) * edge, "back_twist": -g(0.0, 0.6) * edge,
        "pelvis_twist": g(-0.2, 0.2) * edge, "pelvis_tilt": g(0, 20), "back_flex": g(8, 40),
        "neck_bend": -g(0.2, 0.6) * edge, "neck_flex": -g(0, 30),
    }  # fmt: skip
    stance, hinge = g(2, 14), g(0, 30)
    plant, reach = g(0, 30), g(10, 60)
    for side, sign in SIDES.items():
        # The inclination leaves less room under the inner leg, which is shorter by as much.
        inner = 0.33 * np.sin(np.radians(np.maximum(sign * edge, 0.0)))
        tracks |= _leg(side, np.clip(length - inner, 0.42, 0.97), hinge + sign * g(0, 8) * turn)
        tracks[f"{side}_hip_abd"] = stance + g(0, 0.2) * edge * -sign
        swing = plant * np.maximum(np.sin(phase + 1.2 + (sign > 0) * np.pi), 0.0) ** 2
        tracks |= _arm(side, reach + swing, g(5, 45), g(25, 85) - swing, g(-30, 10))
    return tracks


def tuck(time: np.ndarray, generator: np.random.Generator) -> Tracks:
    """Downhill tuck: crouched, arms in front of the face, legs absorbing bumps."""
    g = generator.uniform
    phase = 2 * np.pi * _phase(time, g(1.0, 3.0), generator)
    length = g(0.55, 0.75) + g(0.0, 0.1) * np.sin(phase)
    edge = g(0, 15) * np.sin(phase / g(1.5, 3.0))
    tracks: Tracks = {
        "glide": g(3, 5), "turn": g(0, 2) * edge, "roll": edge, "lean": g(-3, 8),
        "pelvis_tilt": g(10, 30), "back_flex": g(25, 60), "neck_flex": -g(20, 40),
    }  # fmt: skip
    hinge = g(20, 50)
    flex, abd, elbow, inward = g(45, 110), g(0, 20), g(70, 135), g(-60, -10)
    if g() < 0.25:  # poles back
        flex, elbow, inward = g(-30, 20), g(10, 60), 0.0
    for side, sign in SIDES.items():
        tracks |= _leg(side, length - g(0.0, 0.004) * sign * edge, hinge + g(-3, 3))
        tracks |= _arm(side, flex + g(-8, 8), abd, elbow + g(-8, 8), inward)
        tracks[f"{side}_hip_abd"] = g(3, 18)
    return tracks


def jump(time: np.ndarray, generator: np.random.Generator) -> Tracks:
    """Jumps: crouch, swing the arms, fly on a parabola, land softly, repeat."""
    g = generator.uniform
    height = g(0.12, 0.6)
    flight = 2 * np.sqrt(2 * height / 9.81)  # seconds
    period = flight + g(1.3, 2.4)
    phase = _phase(time, period, generator) % 1.0
    land = 0.78
    start = land - flight / period
    crouch, mid = 0.55 * start, (start + land) / 2
    airborne = np.clip((phase - start) / (land - start), 0.0, 1.0)
    spread = np.sin(np.pi * airborne) ** 3
    style = generator.integers(4)  # stretched, tucked, straddled, scissored
    straddle = g(15, 45) * (style == 2) * spread
    split = g(15, 45) * (style == 3) * generator.choice([-1, 1]) * spread
    length = _keys(phase, (0.0, 0.95), (crouch, g(0.45, 0.85)), (start, 0.99), (land, 0.97),
                   (land + 0.1, g(0.5, 0.85)))  # fmt: skip
    length -= g(0.25, 0.5) * (style == 1) * spread
    bow = _keys(phase, (0.0, 0), (crouch, g(0, 40)), (start, 0), (land, 0), (0.9, g(0, 30)))
    # Legs drawn up in flight lift the feet and leave the height of the body as it is.
    drawn = 1.0 - length * np.cos(np.radians(split)) * np.cos(np.radians(straddle))
    tracks: Tracks = {
        "rise": 4 * height * airborne * (1 - airborne) + 0.86 * drawn * spread,
        "turn": (g() < 0.4) * g(-180, 180) * spread,
        "glide": (g() < 0.6) * g(0, 1.5),
        "back_flex": _keys(phase, (0.0, 8), (crouch, g(15, 45)), (start, g(-15, 5)),
                           (mid, g(-15, 40)), (land, 15)),
        "back_twist": g(-25, 25) * spread,
        "pelvis_tilt": _keys(phase, (0.0, 5), (crouch, 15), (start, 0)),
    }  # fmt: skip
    up, back = g(50, 165), -g(10, 50)
    for side, sign in SIDES.items():
        tracks |= _leg(side, length, bow + sign * split + g(0, 12) * (style == 1) * spread)
        tracks[f"{side}_hip_abd"] = g(3, 14) + straddle
        flex = _keys(phase, (0.0, 15), (0.5 * start, back), (start, up), (land, up * g(0.4, 0.9)))
        tracks |= _arm(side, flex, g(8, 35) + g(0, 45) * spread, g(10, 60), g(-20, 20))
    return tracks


def run(time: np.ndarray, generator: np.random.Generator) -> Tracks:
    """Walk, run or sprint: legs and arms in opposition, the trunk twisting between them."""
    g = generator.uniform
    effort = g(-0.4, 1.0)  # a walk below zero
    phase = 2 * np.pi * _phase(time, g(0.95, 1.15) * (0.85 - 0.25 * effort), generator)
    swing = 18 + 18 * effort + g(-4, 4)
    fold = max(0.04, 0.12 + 0.38 * effort + g(-0.04, 0.06))
    twist, pump = g(4, 14), g(14, 26) + 28 * effort
    tracks: Tracks = {
        "lean": g(1, 5) + 9 * max(effort, 0), "back_flex": g(3, 14), "pelvis_tilt": g(2, 12),
        "pelvis_twist": -0.6 * twist * np.sin(phase), "back_twist": 1.6 * twist * np.sin(phase),
        "pelvis_bend": g(0, 5) * np.cos(phase), "turn": g(-35, 35),
        "rise": 0.07 * max(effort, 0) * (1 - np.cos(2 * phase + g(-0.5, 0.5))) / 2,
    }  # fmt: skip
    bent = g(60, 115) if effort > 0 else g(10, 50)
    for side, sign in SIDES.items():
        step = phase + (sign < 0) * np.pi  # sin: how far forward; cos > 0: swinging forwards
        length = 0.99 - fold * (0.5 + 0.5 * np.cos(step + 0.35)) ** 1.5
        tracks |= _leg(side, length, 2 + 5 * effort + swing * np.sin(step))
        tracks[f"{side}_hip_abd"] = g(-1, 4)
        flex = g(-12, 12) - pump * np.sin(step)
        tracks |= _arm(side, flex, g(2, 22), bent - 15 * np.sin(step), g(-45, 5))
    return tracks


def squat(time: np.ndarray, generator: np.random.Generator) -> Tracks:
    """Squats on both legs, or lunges with one leg in front of the other."""
    g = generator.uniform
    depth = _keys(_phase(time, g(1.6, 4.0), generator), (0.0, 0.0), (g(0.4, 0.5), 1.0), (0.6, 1.0))
    length = 0.99 - g(0.03, 0.62) * depth
    stride = g(10, 38) * (g() < 0.45) * generator.choice([-1, 1])
    tracks: Tracks = {
        "back_flex": g(0, 12) + g(-5, 35) * depth, "pelvis_tilt": g(-5, 10) + g(0, 25) * depth,
        "back_twist": g(-30, 30) * depth, "neck_flex": -g(0, 25) * depth, "turn": g(-10, 10),
    }  # fmt: skip
    held, moved = _hold_arms(generator), _hold_arms(generator)
    tracks |= {name: held[name] + depth * (moved[name] - held[name]) for name in held}
    wide, out, hinge = g(2, 25), g(0, 25), g(-5, 60)
    for side, sign in SIDES.items():
        tracks |= _leg(
            side, np.maximum(length, 0.36), hinge * depth + sign * stride * (0.3 + 0.7 * depth)
        )
        tracks |= {f"{side}_hip_abd": wide + g(0, 4), f"{side}_hip_turn": out + g(-5, 5)}
    return tracks


def throw(time: np.ndarray, generator: np.random.Generator) -> Tracks:
    """Wind up, stride and throw, overarm or sidearm, with either hand."""
    g = generator.uniform
    phase = _phase(time, g(1.8, 3.2), generator)
    hand, other = generator.permutation(["l", "r"])
    sign = SIDES[str(hand)]
    back = g(0.6, 1.2)
    high = g(0.5, 1.0)  # sidearm to overarm
    twist = sign * back * _keys(phase, (0.0, 5), (0.35, 40), (0.55, -35), (0.75, -25))
    length = _keys(phase, (0.0, 0.99), (0.35, g(0.85, 0.99)), (0.55, g(0.7, 0.95)), (0.75, 0.93))
    stride = _keys(phase, (0.0, 4), (0.35, g(-5, 10)), (0.5, g(12, 32)), (0.75, g(8, 25)))
    tracks: Tracks = {
        "back_twist": twist, "pelvis_twist": 0.4 * twist, "turn": g(-15, 15),
        "back_flex": back * _keys(phase, (0.0, 8), (0.35, -15), (0.55, 22), (0.7, 38)),
        "back_bend": -sign * high * _keys(phase, (0.0, 0), (0.35, -8), (0.5, 18), (0.7, 5)),
        "lean": _keys(phase, (0.0, 0), (0.35, -8), (0.55, 8), (0.7, 12)),
        "neck_twist": -0.8 * twist,
    }  # fmt: skip
    tracks |= _leg(str(other), length, stride) | _leg(str(hand), length, -stride)
    tracks |= _arm(
        str(hand),
        _keys(phase, (0.0, 40), (0.3, g(20, 60)), (0.42, 80 + 60 * high), (0.55, 95), (0.75, 20)),
        _keys(phase, (0.0, 20), (0.3, 75), (0.45, 70), (0.58, 30), (0.75, 0)),
        _keys(phase, (0.0, 90), (0.35, g(60, 110)), (0.45, 100), (0.55, 12), (0.75, 40)),
        _keys(phase, (0.0, 0), (0.35, 50), (0.45, 30), (0.55, -30), (0.75, -40)),
    )
    tracks |= _arm(
        str(other),
        _keys(phase, (0.0, 40), (0.35, g(60, 100)), (0.55, g(0, 40)), (0.75, -15)),
        _keys(phase, (0.0, 20), (0.35, g(20, 60)), (0.6, 30)),
        _keys(phase, (0.0, 90), (0.35, g(10, 60)), (0.55, 100)),
    )
    return tracks


def drill(time: np.ndarray, generator: np.random.Generator) -> Tracks:
    """Random warm-up: every joint varies independently over its whole range."""
    period = generator.uniform(1.2, 3.0) / np.diff(time, append=time[-1] + 0.03)[0]
    noise = smooth_noise(len(time), (len(ANGLES) + 4,), period, generator).T
    tracks: Tracks = {}
    for (name, angle), part in zip(ANGLES.items(), noise[4:], strict=True):
        middle = (angle.low + angle.high + 2 * angle.rest) / 4
        tracks[name] = middle + 0.27 * (angle.high - angle.low) * part
    tracks |= {"lean": 0.0, "roll": 0.0, "turn": 40.0 * noise[0]}
    deep, bow = generator.uniform(0.02, 0.2), generator.uniform(0.0, 50.0)
    for side, sign in SIDES.items():
        length = 0.99 - deep * np.abs(noise[1] + 0.5 * sign * noise[2]) ** 1.5
        swing = bow * np.abs(noise[3]) + 14 * sign * noise[2]
        tracks |= _leg(side, np.maximum(length, 0.4), swing)
    return tracks


MOTIONS: Mapping[str, Motion] = {
    "slalom": slalom,
    "tuck": tuck,
    "jump": jump,
    "run": run,
    "squat": squat,
    "throw": throw,
    "drill": drill,
}
