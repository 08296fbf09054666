"""What looks wrong in a recording: said, never repaired."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import median_filter

from canonlift.data.recording import Recording
from canonlift.readers.tracking import size

SPARSE = 0.3  # share unobserved from which on it is worth a word
ROOTLESS = 0.1  # share of frames without hips, likewise
RESTLESS = 0.015  # jitter in body sizes
BLINK_S = 0.5  # longest gap across which left and right can be told apart
SWAP_S = 2.0  # longest swap whose two ends are taken to belong together
EXCHANGED = 0.6  # a swap makes the way from frame to frame at least this much shorter
APART = 0.06  # body sizes; left and right joints closer than this cannot be told apart
REPEATED = 3  # frames in a row that are exactly alike before it counts

LIMBS: Mapping[str, tuple[str, ...]] = {
    "legs": ("hip", "knee", "ankle", "heel", "bigtoe", "smalltoe"),
    "arms": ("shoulder", "elbow", "wrist"),
}

# Lengths that are measured: the longest a bone appears is about how long it is.
_BONES: Mapping[str, tuple[str, str]] = {
    "thigh": ("hip", "knee"),
    "shank": ("knee", "ankle"),
    "upper arm": ("shoulder", "elbow"),
    "forearm": ("elbow", "wrist"),
    "flank": ("shoulder", "hip"),
}
# What one may be of another; a child's, an athlete's and a detector's idea of it included.
_RATIOS: Sequence[tuple[str, str, float, float]] = (
    ("thigh", "shank", 0.6, 1.7),
    ("upper arm", "forearm", 0.6, 2.0),
    ("flank", "thigh", 0.7, 2.2),
    ("thigh", "upper arm", 0.85, 2.6),
    ("flank", "upper arm", 1.1, 3.2),
)
SIDES_DIFFER = 2.0  # a left bone is never so many times as long as the right one


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
    swapped: Bool[np.ndarray, "T V"]  # suspected: left and right exchanged
    frozen: Bool[np.ndarray, "T V"]  # the very same detection as in the frame before
    seen: Float[np.ndarray, "T V"]  # share of joints

    def lines(self) -> list[str]:
        """Short readable text."""
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


def examine(recording: Recording) -> Health:
    """Look for missing, swapped, misnamed, frozen and restless joints, and odd confidences.

    Works on any joints and any number of views; what needs names that the recording does not
    have is not looked for.
    """
    observed = recording.confidence > 0
    points = np.where(observed[..., None], recording.keypoints, np.nan).astype(np.float64)
    scale = _body_size(points, observed)
    flips = {limbs: _flips(recording, points, scale, parts) for limbs, parts in LIMBS.items()}
    longest = round(SWAP_S * recording.fps)
    swapped = {limbs: _between(when, longest) for limbs, when in flips.items()}
    frozen = _frozen(points, observed)
    n_frames = max(len(points), 1)
    unobserved = 1 - observed.sum(0) / n_frames
    jitter = _jitter(points, scale)
    findings = [
        *_missing(recording, observed, unobserved),
        *_rootless(recording, observed),
        *(
            finding
            for limbs in LIMBS
            for finding in _swap_findings(recording, limbs, flips[limbs], swapped[limbs], observed)
        ),
        *_odd_bones(recording, points, scale),
        *_frozen_findings(recording, frozen, observed),
        *_restless(recording, jitter),
        *_odd_confidences(recording, observed),
        *_odd_places(recording, observed),
    ]
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
    flat = size(points.reshape(-1, *points.shape[2:]), observed.reshape(-1, observed.shape[2]))
    found = np.where(observed.sum(-1) > 2, flat.reshape(observed.shape[:2]), np.nan)
    usual = np.array([_quantile(view, 0.5) for view in found.T])
    filled = np.where(np.isfinite(found), found, np.where(np.isfinite(usual), usual, 1.0))
    return (
        median_filter(filled, (min(15, len(filled)), 1), mode="nearest") if len(filled) else filled
    )


def _quantile(values: Float[np.ndarray, "*shape"], q: float, least: int = 1) -> float:
    """Of the values that are known; NaN where there are fewer than `least`."""
    known = values[np.isfinite(values)]
    return float(np.quantile(known, q)) if len(known) >= max(least, 1) else np.nan


def _flips(
    recording: Recording,
    points: Float[np.ndarray, "T V J 2"],
    scale: Float[np.ndarray, "T V"],
    parts: Sequence[str],
) -> Bool[np.ndarray, "T V"]:
    """Frames at which left and right of these limbs seem to change places, per view.

    From frame to frame joints go the shortest way. Where all of them together go a much shorter
    one with left and right exchanged, a swap begins or ends. Limbs that cross look alike both
    ways and say nothing.
    """
    joints = recording.joints
    pairs = [(f"l_{p}", f"r_{p}") for p in parts if {f"l_{p}", f"r_{p}"} <= set(joints)]
    if not pairs:
        return np.zeros(points.shape[:2], dtype=bool)
    track = points[:, :, [[joints.index(name) for name in pair] for pair in pairs]]  # T V P 2 2
    both = np.isfinite(track).all((-1, -2))
    time = np.arange(len(points))[:, None, None]
    last = np.full(both.shape, -1)
    last[1:] = np.maximum.accumulate(np.where(both, time, -1))[:-1]
    known = both & (last >= 0) & (time - last <= max(1, round(BLINK_S * recording.fps)))
    before = np.take_along_axis(track, last.clip(0)[..., None, None], axis=0)
    unit = scale[..., None]
    keep = np.linalg.norm(track - before, axis=-1).sum(-1) / unit
    cross = np.linalg.norm(track - before[..., ::-1, :], axis=-1).sum(-1) / unit
    apart = np.linalg.norm(before[..., 0, :] - before[..., 1, :], axis=-1) / unit
    clear = known & (apart > APART)
    keep, cross = (np.where(clear, way, 0.0).sum(-1) for way in (keep, cross))
    return (cross < (1 - EXCHANGED) * keep) & (keep > 2 * APART)


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
    if len(points) < 3:
        return np.full(points.shape[1:3], np.nan)
    away = np.linalg.norm(points[1:-1] - (points[2:] + points[:-2]) / 2, axis=-1)
    away = away / scale[1:-1, :, None]
    return np.array(
        [[_quantile(joint, 0.5, 10) for joint in view.T] for view in away.swapaxes(0, 1)]
    )


def _rootless(recording: Recording, observed: Bool[np.ndarray, "T V J"]) -> Iterator[Finding]:
    """Frames without hips, to which poses are relative: lifting and training leave them out."""
    place = {name: joint for joint, name in enumerate(recording.joints)}
    middle = [place[name] for name in ("pelvis", "mid_hip") if name in place]
    hips = [place[name] for name in ("l_hip", "r_hip") if name in place]
    if not middle and len(hips) < 2:
        return
    known = observed[..., middle].any(-1) | (observed[..., hips].all(-1) & (len(hips) == 2))
    seen = observed.any(-1)
    for view, name in enumerate(recording.views):
        share = (seen & ~known)[:, view].sum() / max(seen[:, view].sum(), 1)
        if share > ROOTLESS:
            what = f"{name}: {100 * share:.0f} % of the frames show no hips and will not be used"
            remedy = "poses are relative to the hips; film the whole person"
            yield Finding(min(1.0, 0.3 + 0.6 * share), what, remedy)


def _missing(
    recording: Recording,
    observed: Bool[np.ndarray, "T V J"],
    unobserved: Float[np.ndarray, "V J"],
) -> Iterator[Finding]:
    remedy = "check that the camera saw the person, and that this person was followed"
    for view, name in enumerate(recording.views):
        share = unobserved[view].mean() if observed.size else 1.0
        if share > SPARSE:
            what = f"{name}: {100 * share:.0f} % of all joints are unobserved"
            yield Finding(min(1.0, 0.2 + 0.8 * share), what, remedy)
            continue
        bad = np.flatnonzero(unobserved[view] > SPARSE)
        if len(bad):
            worst = unobserved[view][bad].max()
            what = (
                f"{name}: {_some(recording.joints, bad)} unobserved in up to {100 * worst:.0f} %"
            )
            yield Finding(
                0.2 + 0.3 * worst, what, "expect little of these joints, or leave them out"
            )
    if len(recording.views) > 1 and len(observed):
        alone = 1 - (observed.any(-1).sum(1) >= 2).mean()
        if alone > 0.1:
            what = f"{100 * alone:.0f} % of the frames are seen by fewer than two views"
            yield Finding(
                0.2 + 0.6 * alone, what, "check the offsets and frame numbers of the views"
            )
    for first in range(len(recording.views)):
        for second in range(first + 1, len(recording.views)):
            one, other = recording.keypoints[:, first], recording.keypoints[:, second]
            if observed[:, first].any() and np.array_equal(one, other, equal_nan=True):
                views = f"{recording.views[first]} and {recording.views[second]}"
                what = f"{views} hold the same detections"
                yield Finding(1.0, what, "give every camera its own files")


def _swap_findings(
    recording: Recording,
    limbs: str,
    flips: Bool[np.ndarray, "T V"],
    swapped: Bool[np.ndarray, "T V"],
    observed: Bool[np.ndarray, "T V J"],
) -> Iterator[Finding]:
    for view, name in enumerate(recording.views):
        times = np.flatnonzero(flips[:, view])
        if len(times):
            n_seen = max(observed[:, view].any(-1).sum(), 1)
            share, rate = swapped[:, view].sum() / n_seen, len(times) / (n_seen / recording.fps)
            what = (
                f"{name}: left and right {limbs} change places {len(times)} times, first at frame "
                f"{times[0]}; exchanged in {100 * share:.1f} % of the frames or more"
            )
            remedy = "a few are repaired from the other views; for many, use a better detector"
            yield Finding(float(min(0.9, 0.1 + 2 * share + 0.5 * rate)), what, remedy)


def _odd_bones(
    recording: Recording, points: Float[np.ndarray, "T V J 2"], scale: Float[np.ndarray, "T V"]
) -> Iterator[Finding]:
    """Ratios of bone lengths that no person has; the longest appearance stands for the length."""
    joints = recording.joints
    length: dict[tuple[str, str], float] = {}
    for bone, ends in _BONES.items():
        for side in "lr":
            a, b = (f"{side}_{end}" for end in ends)
            if a in joints and b in joints:
                gap = points[:, :, joints.index(a)] - points[:, :, joints.index(b)]
                along = np.linalg.norm(gap, axis=-1) / scale
                views = [_quantile(view, 0.9, 10) for view in along.T]
                length[bone, side] = max((v for v in views if np.isfinite(v)), default=np.nan)
    odd = []
    for bone in _BONES:
        left, right = (max(length.get((bone, side), np.nan), 1e-6) for side in "lr")
        ratio = max(left / right, right / left)
        if ratio > SIDES_DIFFER:
            odd.append(
                (np.log(ratio), f"the left {bone} is {left / right:.2f} times the right one")
            )
    for one, other, low, high in _RATIOS:
        lengths = [[length.get((bone, side), np.nan) for side in "lr"] for bone in (one, other)]
        ratio = np.divide(*(max(_quantile(np.array(row), 0.5), 1e-6) for row in lengths))
        if ratio < low or ratio > high:
            excess = np.log(max(low / ratio, ratio / high))
            odd.append((0.4 + excess, f"the {one} is {ratio:.2f} times the {other}"))
    if odd:
        odd.sort(reverse=True)
        text = ", ".join(text for _, text in odd[:3])
        more = f", and {len(odd) - 3} more" if len(odd) > 3 else ""
        yield Finding(
            float(np.clip(0.35 + 0.6 * odd[0][0] + 0.1 * (len(odd) - 1), 0, 1)),
            f"bones as no person has them: {text}{more}",
            "check the order and the names of the joints; or they are hidden, and guessed",
        )


def _frozen_findings(
    recording: Recording, frozen: Bool[np.ndarray, "T V"], observed: Bool[np.ndarray, "T V J"]
) -> Iterator[Finding]:
    for view, name in enumerate(recording.views):
        still = frozen[:, view]
        starts = np.flatnonzero(np.diff(still.astype(int), prepend=0, append=0) > 0)
        ends = np.flatnonzero(np.diff(still.astype(int), prepend=0, append=0) < 0)
        runs = ends - starts  # repeats of one detection
        share = still.sum() / max(observed[:, view].any(-1).sum(), 1)
        if share > 0.15 and np.median(runs) < REPEATED:
            what = f"{name}: {100 * share:.0f} % of the frames repeat the one before"
            remedy = "the video has fewer frames per second than was said; convert it with its own"
            yield Finding(min(1.0, 0.4 + share), what, remedy)
        elif len(runs) and runs.max() >= REPEATED - 1:
            longest = runs.argmax()
            what = (
                f"{name}: frozen for {runs[longest] + 1} frames from frame {starts[longest] - 1} "
                f"on, {100 * share:.1f} % of the frames in all"
            )
            remedy = "the video or the detector stood still; cut these frames out"
            yield Finding(min(0.9, 0.3 + share), what, remedy)


def _restless(recording: Recording, jitter: Float[np.ndarray, "V J"]) -> Iterator[Finding]:
    for view, name in enumerate(recording.views):
        bad = np.flatnonzero(jitter[view] > RESTLESS)
        if len(bad):
            worst = jitter[view][bad].max()
            what = (
                f"{name}: {_some(recording.joints, bad)} tremble by up to {100 * worst:.1f} % of "
                "the person's size from frame to frame"
            )
            yield Finding(
                min(0.8, 0.2 + 5 * worst), what, "film nearer, sharper or with more light"
            )


def _odd_confidences(
    recording: Recording, observed: Bool[np.ndarray, "T V J"]
) -> Iterator[Finding]:
    found: dict[tuple[float, str, str], list[str]] = {}
    for view, name in enumerate(recording.views):
        sure = recording.confidence[:, view][observed[:, view]]
        if not len(sure):
            continue
        kinds, high = np.unique(sure), np.quantile(sure, 0.95)
        if len(kinds) == 1:
            remedy = "the detector does not say how sure it is; repair relies on that"
            row = 0.1, f"every confidence is {kinds[0]:.2g}", remedy
        elif len(kinds) <= 3:
            values = ", ".join(f"{kind:.2g}" for kind in kinds)
            remedy = "these are flags, not degrees; check how they were converted"
            row = 0.2, f"the only confidences are {values}", remedy
        elif high < 0.3:
            remedy = "check the scale of the detector's scores"
            row = 0.4, f"95 % of the confidences are below {high:.2f}", remedy
        else:
            continue
        found.setdefault(row, []).append(name)
    for (alarm, what, remedy), views in found.items():
        yield Finding(alarm, f"{', '.join(views)}: {what}", remedy)


def _odd_places(recording: Recording, observed: Bool[np.ndarray, "T V J"]) -> Iterator[Finding]:
    at_zero = observed & (recording.keypoints == 0).all(-1)
    for view, name in enumerate(recording.views):
        share = at_zero[:, view].sum() / max(observed[:, view].sum(), 1)
        if share > 0:
            what = f"{name}: {100 * share:.2g} % of the observed joints lie at exactly (0, 0)"
            yield Finding(
                min(1.0, 0.5 + 5 * share), what, "these are missing; give them confidence 0"
            )
        if recording.image_size is not None:
            beyond = (recording.keypoints < 0) | (
                recording.keypoints > recording.image_size[:, None]
            )
            share = (beyond.any(-1) & observed)[:, view].sum() / max(observed[:, view].sum(), 1)
            if share > 0.02:
                what = f"{name}: {100 * share:.0f} % of the observed joints lie outside the image"
                yield Finding(
                    min(1.0, 0.3 + share), what, "check image_size and the keypoints' scale"
                )


def _some(names: Sequence[str], which: Int[np.ndarray, " _"], most: int = 4) -> str:
    text = ", ".join(names[index] for index in which[:most])
    return f"{text} and {len(which) - most} more" if len(which) > most else text
