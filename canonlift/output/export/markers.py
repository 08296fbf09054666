"""Joints over time as other programs read them: y up, in metres where a length is known, smoothed.

Predictions are not changed by it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.signal import butter, sosfiltfilt

from canonlift import suggestions
from canonlift.data.recording import Recording
from canonlift.data.windows import runs

BODY_UNITS = "body_units"  # 1 is the length of all bones of the person together
METRES = "m"
LONGEST_GAP = 10  # frames that a filter fills


@dataclass(frozen=True, eq=False)
class Markers:
    """Positions relative to the root joint: x right, y up, z towards the viewer.

    The place of the root in the room is not known from uncalibrated cameras.
    """

    positions: Float[np.ndarray, "T J 3"]  # NaN where missing
    joints: tuple[str, ...]
    fps: float
    unit: str = BODY_UNITS
    notes: tuple[str, ...] = ()  # what the numbers are, in sentences

    @property
    def time(self) -> Float[np.ndarray, " T"]:
        """Seconds."""
        return np.arange(len(self.positions)) / self.fps

    @property
    def known(self) -> Bool[np.ndarray, "T J"]:
        """Which joints have a position."""
        return np.asarray(np.isfinite(self.positions).all(-1))

    def middle(self, *joints: str) -> Float[np.ndarray, "T 3"]:
        """The mean of some joints."""
        for name in joints:
            if name not in self.joints:
                raise suggestions.unknown("a joint", name, self.joints)
        return self.positions[:, [self.joints.index(name) for name in joints]].mean(1)

    def become(self, positions: Float[np.ndarray, "T J 3"], note: str, **change: Any) -> "Markers":
        """The same with other positions, and a note on what was done to them."""
        return replace(self, positions=positions, notes=(*self.notes, note), **change)


Y_UP = np.array([1.0, -1.0, -1.0])  # half a turn about x, from x right, y down, z away


def from_camera(
    pose: Float[np.ndarray, "T J 3"],
    observed: Bool[np.ndarray, "T J"],
    recording: Recording,
    note: str,
) -> Markers:
    """Poses of a recording in the axes of a camera, turned so that y is up.

    Joints that were not observed are missing, though the pose has a guess of them.
    """
    positions = np.where(observed[..., None], pose.astype(np.float64), np.nan) * Y_UP
    return Markers(positions, recording.joints, recording.fps, notes=(note,))


# ------------------------------------------------------------------------------- size

# Shares of a person's height between joint centres (Drillis and Contini 1966).
LIMBS = {
    ("hip", "knee"): 0.245,
    ("knee", "ankle"): 0.246,
    ("shoulder", "elbow"): 0.186,
    ("elbow", "wrist"): 0.146,
}
SEGMENTS: Sequence[tuple[tuple[str, ...], tuple[str, ...], float]] = (
    *(((f"{s}_{a}",), (f"{s}_{b}",), share) for s in "lr" for (a, b), share in LIMBS.items()),
    (("l_hip", "r_hip"), ("l_shoulder", "r_shoulder"), 0.288),
)


class Size(NamedTuple):
    """What is known of a person's size."""

    metres: float
    between: tuple[str, str] | None = None  # two joints; None: from head to toe

    @classmethod
    def of_person(cls, height: float) -> "Size":
        """A height in metres."""
        if not 0.4 <= height <= 2.8:
            raise ValueError(
                f"height {height:g} m is that of no person; give metres, such as 1.80"
            )
        return cls(height)

    @classmethod
    def of_bone(cls, text: str) -> "Size":
        """The distance between two joints, such as `l_hip-l_knee=0.42`."""
        between, _, metres = text.partition("=")
        ends = tuple(between.split("-"))
        try:
            length = float(metres)
        except ValueError:
            length = 0.0
        if len(ends) != 2 or not 0.01 <= length <= 2.8:
            raise ValueError(
                f"bone {text!r}: give two joints and metres, such as l_hip-l_knee=0.42"
            )
        return cls(length, (ends[0], ends[1]))


def in_metres(markers: Markers, size: Size) -> Markers:
    """The same in metres: one factor for the whole recording, from median lengths.

    The note holds how much the parts of the body, or for a single bone the frames, differ in this
    factor. Average proportions are wrong by about 3 % for a person. Where nothing of known length
    was observed, the unit is not changed, as the note states.
    """
    if size.between is None:
        length, wanted = _parts(markers, size.metres)
        source = f"a height of {size.metres:g} m and average proportions"
        what = "parts of the body"
    else:
        length = _distance(markers, *((name,) for name in size.between))
        wanted = np.full(length.shape, size.metres)
        source, what = f"{' to '.join(size.between)} of {size.metres:g} m", "frames"
    if not (length > 0).any():
        return markers.become(markers.positions, f"no size: {source}, but that was never observed")
    # Proportions that are too long balance others that are too short; frames may be outliers.
    typical = np.sum if size.between is None else np.median
    factor = typical(wanted) / typical(length)
    low, high = np.quantile(length / wanted, [0.16, 0.84])
    note = (
        f"1 body unit is {factor:.3f} m, from {source}; {len(length)} {what} differ by "
        f"{factor * (high - low) / 2:.1%}"
    )
    return markers.become(factor * markers.positions, note, unit=METRES)


def _parts(
    markers: Markers, height: float
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Median lengths of the parts of the body that were observed, and the expected ones."""
    parts = [part for part in SEGMENTS if {*part[0], *part[1]} <= set(markers.joints)]
    if not parts:
        raise ValueError(
            f"height needs legs or arms, but the joints are {', '.join(markers.joints)}; give the "
            "length of a bone instead"
        )
    lengths = [_distance(markers, start, end) for start, end, _ in parts]
    seen = np.array([len(each) > 0 for each in lengths])
    wanted = height * np.array([share for _, _, share in parts])
    return np.array([np.median(each) for each in lengths if len(each)]), wanted[seen]


def _distance(
    markers: Markers, start: Sequence[str], end: Sequence[str]
) -> Float[np.ndarray, " N"]:
    """Distances in the frames that have one."""
    distance = np.linalg.norm(markers.middle(*start) - markers.middle(*end), axis=-1)
    return distance[np.isfinite(distance)]


# --------------------------------------------------------------------------- vertical

STRETCHED = 0.9  # of the greatest distance from head to ankles: the person stands
# What should be level: the sine of the slope at which it has a quarter of its weight, and its
# weight relative to that of the body. People step up, and phones are held on edge.
FEET, FEET_WEIGHT = 0.15, 2.0
CAMERAS, CAMERAS_WEIGHT = 0.3, 10.0
HEADS = ("head", "nose", "thorax")


def upright(markers: Markers, across: Float[np.ndarray, "V 3"]) -> Markers:
    """The same, turned so that y points up, estimated from body and cameras.

    A stretched body mostly stands, from ankles to head; the line from one ankle to the other is
    mostly level; and so are most cameras from their left to their right, `across`. z points
    towards the camera as before, but level. Nothing is turned where a person was never observed
    from head to ankles, as the note states.
    """
    seen = [markers.joints[joint] for joint in np.flatnonzero(markers.known.any(0))]
    heads = (name for joints in (seen, markers.joints) for name in HEADS if name in joints)
    top = next(heads, HEADS[0])
    body = markers.middle(top) - markers.middle("l_ankle", "r_ankle")
    step = markers.middle("l_ankle") - markers.middle("r_ankle")
    whole = np.isfinite(body).all(-1) & np.isfinite(step).all(-1)
    length = np.linalg.norm(body[whole], axis=-1)
    if not (length > 0).any():
        note = "y is that of the camera, not up: no person was observed from head to ankles"
        return markers.become(markers.positions, note)
    stretched = length >= STRETCHED * np.quantile(length, 0.95)
    standing = _unit(body[whole][stretched])
    wide = np.linalg.norm(step[whole], axis=-1) > 0.1 * length.max()
    feet = _unit(step[whole][wide])
    up = first = _unit(np.median(standing, axis=0))
    for _ in range(20):
        level = FEET_WEIGHT * _normals(feet, up, FEET) * len(feet) / len(length)
        level = level + CAMERAS_WEIGHT * _normals(_unit(across), up, CAMERAS)
        up = _unit(np.linalg.solve(level + np.eye(3), first))

    lean = np.median(np.degrees(np.arccos(np.clip(standing @ up, -1, 1))))
    note = (
        "y is an estimate of up, from a standing body, and level feet and cameras; in "
        f"{stretched.sum()} stretched frames the body leans by {lean:.0f} degrees in the median"
    )
    return markers.become(markers.positions @ level_axes(up).T, note)


def _normals(
    lines: Float[np.ndarray, "N 3"], up: Float[np.ndarray, "3"], slope: float
) -> Float[np.ndarray, "3 3"]:
    """Mean normal matrix of directions that should be level; steep ones have little weight."""
    weight = 1 / (1 + np.square(lines @ up / slope)) ** 2
    return np.einsum("n,ni,nj->ij", weight, lines, lines) / max(len(lines), 1)


def _unit(vector: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N 3"]:
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-12)


def level_axes(up: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Rotation that turns `up` to y, and keeps the direction of z but for its slope."""
    z = np.array([0.0, 0.0, 1.0])
    if abs(up @ z) > 1 - 1e-6:  # a camera right above: z follows the top of its image
        z = np.array([0.0, -up[2], 0.0])
    z = _unit(z - (z @ up) * up)
    return np.stack([np.cross(up, z), up, z])


# ----------------------------------------------------------------------------- filter


class Filter(NamedTuple):
    """A way to smooth, and its parameter."""

    name: str
    value: float

    @classmethod
    def parse(cls, text: str) -> "Filter":
        """Such as `butterworth:6`."""
        name, _, value = text.partition(":")
        if name not in FILTERS:
            raise suggestions.unknown("a filter", name, FILTERS)
        try:
            return cls(name, float(value))
        except ValueError as error:
            raise ValueError(f"filter {text!r} lacks its number, such as {name}:6") from error


def butterworth(
    series: Float[np.ndarray, "T ..."], cutoff_hz: float, fps: float
) -> Float[np.ndarray, "T ..."]:
    """Low-pass of second order, run forwards and backwards: fourth order without a delay."""
    if not 0 < cutoff_hz < fps / 2:
        raise ValueError(
            f"filter butterworth:{cutoff_hz:g} must lie between 0 and {fps / 2:g} Hz, half the "
            "frame rate"
        )
    sections = butter(2, cutoff_hz, fs=fps, output="sos")
    return sosfiltfilt(sections, series, axis=0, padlen=min(9, len(series) - 1))


FILTERS: Mapping[str, Callable[[np.ndarray, float, float], np.ndarray]] = {
    "butterworth": butterworth
}


def smoothed(markers: Markers, wanted: Filter) -> Markers:
    """Filter each joint over time.

    Gaps of up to 10 frames are filled by straight lines. A longer gap stays, and what lies beyond
    it has no influence.
    """
    positions = markers.positions.copy()
    bridged = 0
    for joint, known in enumerate(markers.known.T):
        for start, end in runs(torch.from_numpy(known), LONGEST_GAP):
            inside = np.flatnonzero(known[start:end])
            piece = positions[start:end, joint]
            everywhere = np.arange(end - start)
            filled = [np.interp(everywhere, inside, piece[inside, axis]) for axis in range(3)]
            series = np.stack(filled, axis=-1)
            positions[start:end, joint] = FILTERS[wanted.name](series, wanted.value, markers.fps)
            bridged += end - start - len(inside)
    note = (
        f"filtered by {wanted.name}, {wanted.value:g} Hz, without delay; {bridged} positions in "
        f"gaps of up to {LONGEST_GAP} frames filled in"
    )
    return markers.become(positions, note)
