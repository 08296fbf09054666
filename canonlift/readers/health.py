"""What looks wrong in a recording; it is reported, never repaired."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import median_filter

from canonlift.data.recording import Recording
from canonlift.readers.tracking import size

SPARSE = 0.3  # share unobserved above which it is reported
ROOTLESS = 0.1  # share of frames without hips, likewise
JITTER = 0.015  # body sizes, likewise
GAP_S = 0.5  # longest gap across which a joint is compared with its position before
SWAP_S = 2.0  # longest swap whose two ends are assumed to belong together
SHORTER = 0.6  # share by which exchanging left and right shortens the way between frames
APART = 0.06  # body sizes; left and right joints closer than this cannot be distinguished
REPEATED = 3  # identical frames in a row from which on they are reported

LIMBS: Mapping[str, tuple[str, ...]] = {
    "legs": ("hip", "knee", "ankle", "heel", "bigtoe", "smalltoe"),
    "arms": ("shoulder", "elbow", "wrist"),
}

# The longest that a bone appears in a view is about its length.
_BONES: Mapping[str, tuple[str, str]] = {
    "thigh": ("hip", "knee"),
    "shank": ("knee", "ankle"),
    "upper arm": ("shoulder", "elbow"),
    "forearm": ("elbow", "wrist"),
    "flank": ("shoulder", "hip"),
}
# Ratio of one length to another, least and greatest: of children and athletes, and as detectors
# see them.
_RATIOS: Sequence[tuple[str, str, float, float]] = (
    ("thigh", "shank", 0.6, 1.7),
    ("upper arm", "forearm", 0.6, 2.0),
    ("flank", "thigh", 0.7, 2.2),
    ("thigh", "upper arm", 0.85, 2.6),
    ("flank", "upper arm", 1.1, 3.2),
)
SIDES_DIFFER = 2.0  # ratio of left and right bones above which they are reported


class Finding(NamedTuple):
    """One thing that looks wrong."""

    alarm: float  # 0: curious, 1: nothing learned from this will be right
    what: str  # where and how much
    remedy: str  # what to do


@dataclass(frozen=True, eq=False)
class Health:
    """What was found in a recording, the most alarming first."""

    joints: tuple[str, ...]
    views: tuple[str, ...]
    fps: float
    findings: tuple[Finding, ...]
    unobserved: Float[np.ndarray, "V J"]  # share of frames
    jitter: Float[np.ndarray, "V J"]  # body sizes; NaN where too little was observed
    swapped: Bool[np.ndarray, "T V"]  # left and right appear to be exchanged
    frozen: Bool[np.ndarray, "T V"]  # identical to the frame before
    seen: Float[np.ndarray, "T V"]  # share of joints

    def lines(self) -> list[str]:
        """The findings as text."""
        if not self.findings:
            return ["health: nothing suspicious"]
        n = len(self.findings)
        marks = [
            "!!" if f.alarm >= 0.6 else "! " if f.alarm >= 0.3 else "  " for f in self.findings
        ]
        return [
            f"health: {n} thing{'s look' if n > 1 else ' looks'} wrong, the most alarming first",
            *(f"{m} {f.what}; {f.remedy}" for m, f in zip(marks, self.findings, strict=True)),
        ]


class _Detections(NamedTuple):
    recording: Recording
    observed: Bool[np.ndarray, "T V J"]
    points: Float[np.ndarray, "T V J 2"]  # NaN where unobserved
    scale: Float[np.ndarray, "T V"]  # size of the person, pixels
    seen: Bool[np.ndarray, "T V"]  # any joint is observed


def examine(recording: Recording) -> Health:
    """Look for missing, swapped, misnamed, frozen and jittering joints, and odd confidences.

    Works on any joints and any number of views; checks of joints that the recording does not
    have are left out.
    """
    observed = np.asarray(recording.confidence > 0)
    points = np.where(observed[..., None], recording.keypoints, np.nan).astype(np.float64)
    scale = _body_size(points, observed)
    detections = _Detections(recording, observed, points, scale, np.asarray(observed.any(-1)))
    flips = {limbs: _flips(detections, parts) for limbs, parts in LIMBS.items()}
    longest = round(SWAP_S * recording.fps)
    swapped = {limbs: _between(when, longest) for limbs, when in flips.items()}
    frozen, jitter = _frozen(points, observed), _jitter(points, scale)
    unobserved = 1 - observed.sum(0) / max(len(points), 1)
    findings = [
        *_missing(detections, unobserved),
        *_rootless(detections),
        *(f for limbs in LIMBS for f in _swaps(detections, limbs, flips[limbs], swapped[limbs])),
        *_odd_bones(detections),
        *_repeats(detections, frozen),
        *_jittering(recording, jitter),
        *_odd_confidences(detections),
        *_odd_places(detections),
    ]
    findings = [f._replace(alarm=float(min(f.alarm, 1.0))) for f in findings]
    return Health(
        recording.joints,
        recording.views,
        recording.fps,
        tuple(sorted(findings, key=lambda finding: -finding.alarm)),
        unobserved,
        jitter,
        np.any(list(swapped.values()), axis=0),
        frozen,
        observed.mean(-1),
    )


def _body_size(
    points: Float[np.ndarray, "T V J 2"], observed: Bool[np.ndarray, "T V J"]
) -> Float[np.ndarray, "T V"]:
    """Diagonal of the person's box, in pixels, without the outliers of single frames."""
    found = np.where(observed.sum(-1) > 2, size(points, observed), np.nan)
    usual = np.array([_quantile(view, 0.5) for view in found.T])
    found = np.where(np.isfinite(found), found, np.where(np.isfinite(usual), usual, 1.0))
    return median_filter(found, (min(15, len(found)), 1), mode="nearest") if len(found) else found


def _quantile(values: Float[np.ndarray, "*shape"], q: float, least: int = 1) -> float:
    """Of the values that are known; NaN where there are fewer than `least`."""
    known = values[np.isfinite(values)]
    return float(np.quantile(known, q)) if len(known) >= least else np.nan


def _share(part: Bool[np.ndarray, "T V"], whole: Bool[np.ndarray, "T V"]) -> list[float]:
    """How much of the whole is the part, per view."""
    return (part.sum(0) / np.maximum(whole.sum(0), 1)).tolist()


def _flips(detections: _Detections, parts: Sequence[str]) -> Bool[np.ndarray, "T V"]:
    """Frames at which left and right of these limbs appear to change places, per view.

    From frame to frame joints move little. Where all of them together move much less with left
    and right exchanged, a swap begins or ends. Limbs that cross are left out.
    """
    recording, _, points, scale, _ = detections
    joints = recording.joints
    pairs = [(f"l_{p}", f"r_{p}") for p in parts if {f"l_{p}", f"r_{p}"} <= set(joints)]
    if not pairs:
        return np.zeros(points.shape[:2], dtype=bool)
    track = points[:, :, [[joints.index(name) for name in pair] for pair in pairs]]  # T V P 2 2
    both = np.isfinite(track).all((-1, -2))
    time = np.arange(len(points))[:, None, None]
    last = np.full(both.shape, -1)
    last[1:] = np.maximum.accumulate(np.where(both, time, -1))[:-1]
    known = both & (last >= 0) & (time - last <= max(1, round(GAP_S * recording.fps)))
    before = np.take_along_axis(track, last.clip(0)[..., None, None], axis=0)
    apart = np.linalg.norm(before[..., 0, :] - before[..., 1, :], axis=-1)
    clear = known & (apart > APART * scale[..., None])
    kept, exchanged = (
        np.where(clear, np.linalg.norm(track - other, axis=-1).sum(-1), 0.0).sum(-1) / scale
        for other in (before, before[..., ::-1, :])
    )
    return (exchanged < (1 - SHORTER) * kept) & (kept > 2 * APART)


def _between(flips: Bool[np.ndarray, "T V"], longest: int) -> Bool[np.ndarray, "T V"]:
    """Frames from one flip to the next, the closest together first, none of them used twice.

    Flips with no other within `longest` frames have no known extent.
    """
    inside = np.zeros_like(flips)
    for view in range(flips.shape[1]):
        left = np.flatnonzero(flips[:, view]).tolist()
        while len(left) > 1:
            first = int(np.argmin(np.diff(left)))
            if left[first + 1] - left[first] > longest:
                break
            inside[left[first] : left[first + 1], view] = True
            del left[first : first + 2]
    return inside


def _frozen(
    points: Float[np.ndarray, "T V J 2"], observed: Bool[np.ndarray, "T V J"]
) -> Bool[np.ndarray, "T V"]:
    """Detections that are exactly those of the frame before."""
    frozen = np.zeros(observed.shape[:2], dtype=bool)
    same = (points[1:] == points[:-1]).all(-1) | ~(observed[1:] | observed[:-1])
    frozen[1:] = same.all(-1) & (observed[1:].sum(-1) > 2)
    return frozen


def _jitter(
    points: Float[np.ndarray, "T V J 2"], scale: Float[np.ndarray, "T V"]
) -> Float[np.ndarray, "V J"]:
    """Median distance of a joint from the middle between the frames before and after."""
    away = np.linalg.norm(points[1:-1] - (points[2:] + points[:-2]) / 2, axis=-1)
    away = away / scale[1:-1, :, None]
    return np.apply_along_axis(_quantile, 0, away, 0.5, 10)


def _missing(detections: _Detections, unobserved: Float[np.ndarray, "V J"]) -> Iterator[Finding]:
    recording, observed = detections[:2]
    for view, name in enumerate(recording.views):
        share = unobserved[view].mean() if observed.size else 1.0
        bad = np.flatnonzero(unobserved[view] > SPARSE)
        if share > SPARSE:
            what = f"{name}: {100 * share:.0f} % of all joints are unobserved"
            remedy = "check that the camera saw the person, and that this person was followed"
            yield Finding(0.2 + 0.8 * share, what, remedy)
        elif len(bad):
            worst, joints = unobserved[view][bad].max(), _some(recording.joints, bad)
            what = f"{name}: {joints} unobserved in up to {100 * worst:.0f} %"
            remedy = "expect little of these joints, or leave them out"
            yield Finding(0.2 + 0.3 * worst, what, remedy)
    if len(recording.views) > 1 and len(observed):
        alone = 1 - (detections.seen.sum(1) >= 2).mean()
        if alone > 0.1:
            what = f"{100 * alone:.0f} % of the frames are seen by fewer than two views"
            remedy = "check the offsets and frame numbers of the views"
            yield Finding(0.2 + 0.6 * alone, what, remedy)
    for one, other in combinations(range(len(recording.views)), 2):
        pair = recording.keypoints[:, one], recording.keypoints[:, other]
        if detections.seen[:, one].any() and np.array_equal(*pair, equal_nan=True):
            what = f"{recording.views[one]} and {recording.views[other]} hold the same detections"
            yield Finding(1.0, what, "give every camera its own files")


def _rootless(detections: _Detections) -> Iterator[Finding]:
    """Frames without hips, to which poses are relative: lifting and training leave them out."""
    recording, observed, _, _, seen = detections
    joint = {name: observed[..., index] for index, name in enumerate(recording.joints)}
    known = [joint[name] for name in ("pelvis", "mid_hip") if name in joint]
    if {"l_hip", "r_hip"} <= set(joint):
        known.append(joint["l_hip"] & joint["r_hip"])
    if not known:
        return
    missing = seen & ~np.any(known, axis=0)
    for name, share in zip(recording.views, _share(missing, seen), strict=True):
        if share > ROOTLESS:
            what = f"{name}: {100 * share:.0f} % of the frames show no hips and will not be used"
            remedy = "poses are relative to the hips; film the whole person"
            yield Finding(0.3 + 0.6 * share, what, remedy)


def _swaps(
    detections: _Detections,
    limbs: str,
    flips: Bool[np.ndarray, "T V"],
    swapped: Bool[np.ndarray, "T V"],
) -> Iterator[Finding]:
    recording, seen = detections.recording, detections.seen
    shares = zip(_share(swapped, seen), _share(flips, seen), strict=True)
    for view, (share, per_frame) in enumerate(shares):
        times = np.flatnonzero(flips[:, view])
        if len(times):
            what = (
                f"{recording.views[view]}: left and right {limbs} change places {len(times)} "
                f"times, first at frame {times[0]}; exchanged in {100 * share:.1f} % of the "
                "frames or more"
            )
            remedy = "a few are repaired from the other views; for many, use a better detector"
            alarm = 0.1 + 2 * share + 0.5 * per_frame * recording.fps
            yield Finding(min(0.9, alarm), what, remedy)


def _odd_bones(detections: _Detections) -> Iterator[Finding]:
    """Ratios of bone lengths that no person has."""
    length = {
        bone: np.array([_length(detections, *(f"{side}_{end}" for end in ends)) for side in "lr"])
        for bone, ends in _BONES.items()
    }
    odd = []
    for bone, sides in length.items():
        left, right = np.maximum(sides, 1e-6)
        excess = abs(np.log(left / right))
        if excess > np.log(SIDES_DIFFER):
            odd.append((excess, f"the left {bone} is {left / right:.2f} times the right one"))
    for one, other, low, high in _RATIOS:
        first, second = (max(_quantile(length[bone], 0.5), 1e-6) for bone in (one, other))
        ratio = first / second
        if ratio < low or ratio > high:
            excess = np.log(max(low / ratio, ratio / high))
            odd.append((0.4 + excess, f"the {one} is {ratio:.2f} times the {other}"))
    if odd:
        odd.sort(reverse=True)
        text = _some([text for _, text in odd], np.arange(len(odd)), 3)
        yield Finding(
            max(0.35 + 0.6 * odd[0][0] + 0.1 * (len(odd) - 1), 0.0),
            f"bone lengths that no person has: {text}",
            "check the order and the names of the joints; or they are hidden, and guessed",
        )


def _length(detections: _Detections, one: str, other: str) -> float:
    """The longest that a bone appears in any view, in body sizes; NaN where it is not known."""
    joints, points = detections.recording.joints, detections.points
    if one not in joints or other not in joints:
        return np.nan
    gap = points[:, :, joints.index(one)] - points[:, :, joints.index(other)]
    length = np.linalg.norm(gap, axis=-1) / detections.scale
    return np.fmax.reduce([_quantile(view, 0.9, 10) for view in length.T])


def _repeats(detections: _Detections, frozen: Bool[np.ndarray, "T V"]) -> Iterator[Finding]:
    views = detections.recording.views
    for view, share in enumerate(_share(frozen, detections.seen)):
        edges = np.flatnonzero(np.diff(frozen[:, view], prepend=False, append=False))
        starts, ends = edges.reshape(-1, 2).T
        runs = ends - starts  # repeats of one detection
        if share > 0.15 and np.median(runs) < REPEATED:
            what = f"{views[view]}: {100 * share:.0f} % of the frames repeat the one before"
            remedy = "the video has fewer frames per second than given; convert it with its own"
            yield Finding(0.4 + share, what, remedy)
        elif len(runs) and runs.max() >= REPEATED - 1:
            longest = runs.argmax()
            what = (
                f"{views[view]}: frozen for {runs[longest] + 1} frames from frame "
                f"{starts[longest] - 1} on, {100 * share:.1f} % of the frames in all"
            )
            remedy = "the video or the detector stopped; cut these frames out"
            yield Finding(min(0.9, 0.3 + share), what, remedy)


def _jittering(recording: Recording, jitter: Float[np.ndarray, "V J"]) -> Iterator[Finding]:
    for name, of_joints in zip(recording.views, jitter, strict=True):
        bad = np.flatnonzero(of_joints > JITTER)
        if len(bad):
            worst, joints = of_joints[bad].max(), _some(recording.joints, bad)
            what = f"{name}: jitter of {joints}, up to {100 * worst:.1f} % of the person's size"
            remedy = "film nearer, sharper or with more light"
            yield Finding(min(0.8, 0.2 + 5 * worst), what, remedy)


def _odd_confidences(detections: _Detections) -> Iterator[Finding]:
    recording, observed = detections[:2]
    found: dict[tuple[float, str, str], list[str]] = {}
    for view, name in enumerate(recording.views):
        confidence = recording.confidence[:, view][observed[:, view]]
        if not len(confidence):
            continue
        values, high = np.unique(confidence), np.quantile(confidence, 0.95)
        if len(values) == 1:
            remedy = "the detector gives no confidence; repair relies on it"
            row = 0.1, f"every confidence is {values[0]:.2g}", remedy
        elif len(values) <= 3:
            remedy = "these are flags, not degrees; check how they were converted"
            text = ", ".join(f"{value:.2g}" for value in values)
            row = 0.2, f"the only confidences are {text}", remedy
        elif high < 0.3:
            remedy = "check the scale of the detector's scores"
            row = 0.4, f"95 % of the confidences are below {high:.2f}", remedy
        else:
            continue
        found.setdefault(row, []).append(name)
    for (alarm, what, remedy), views in found.items():
        yield Finding(alarm, f"{', '.join(views)}: {what}", remedy)


def _odd_places(detections: _Detections) -> Iterator[Finding]:
    recording, observed = detections[:2]
    keypoints, image = recording.keypoints, recording.image_size
    at_zero = observed & (keypoints == 0).all(-1)
    outside = np.zeros_like(observed)
    if image is not None:
        outside = observed & ((keypoints < 0) | (keypoints > image[:, None])).any(-1)
    zeros = at_zero.sum((0, 2)) / np.maximum(observed.sum((0, 2)), 1)
    outsides = outside.sum((0, 2)) / np.maximum(observed.sum((0, 2)), 1)
    for name, zero, beyond in zip(recording.views, zeros, outsides, strict=True):
        if zero > 0:
            what = f"{name}: {100 * zero:.2g} % of the observed joints lie at exactly (0, 0)"
            yield Finding(0.5 + 5 * zero, what, "these are missing; give them confidence 0")
        if beyond > 0.02:
            what = f"{name}: {100 * beyond:.0f} % of the observed joints lie outside the image"
            yield Finding(0.3 + beyond, what, "check image_size and the keypoints' scale")


def _some(names: Sequence[str], which: Int[np.ndarray, " _"], most: int = 4) -> str:
    text = ", ".join(names[int(index)] for index in which[:most])
    return f"{text} and {len(which) - most} more" if len(which) > most else text
