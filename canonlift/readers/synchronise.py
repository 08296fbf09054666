"""How much later than the first camera the others started, found in the detections themselves.

Two views of the same instants share a coordinate: the one along the normal of their epipolar
lines. Joints that move in one view move along it in the other as well, at the same time, and at
no other time. How much two views share at any offset is a matter of correlations; which offsets
of all views go together is one problem for all pairs; and to a fraction of a frame, the offset
is where the detections of both views fit one 3D motion best.

The loss that sequences are trained by, the consistency of lifted poses, could do the last step.
It needs a network first, and is no more exact than whole frames (`benchmarks/sync.py --run`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Complex, Float, Int
from scipy.fft import irfft, next_fast_len, rfft
from scipy.ndimage import gaussian_filter1d, minimum_filter1d
from scipy.stats import t as student

from canonlift.data.recording import Recording

SMOOTH_S = 0.05  # standard deviation of the Gaussian that velocities are measured with
FASTEST = 4.0  # multiples of a view's median speed; what is faster is mostly an error
WINDOW_S = 5.0  # over which cameras keep their rotations relative to each other
RIVAL_S = 0.2  # offsets at least this far from the best one compete with it
VAGUE_S = 0.05  # standard error from which on an offset is of no use
SURE = 0.98  # confidence from which on offsets are used


@dataclass(frozen=True, eq=False)
class Synchrony:
    """When each view of a recording started, and how far to trust it.

    What a view shows in its frame t happened `t / fps + offset_s` seconds after the first
    view's frame 0.
    """

    views: tuple[str, ...]
    offset_s: Float[np.ndarray, " V"]  # how much later than the first view; 0 for the first
    error_s: Float[np.ndarray, " V"]  # standard error of each; inf where nothing was found
    confidence: float  # in [0, 1]: that no offset is a false peak
    doubts: tuple[str, ...]  # why not to use it, and what to do; empty: use it
    lag_s: Float[np.ndarray, " L"]
    curves: Float[np.ndarray, "P L"]  # of each pair: share of motion in common, were it this late
    pairs: tuple[tuple[int, int], ...]  # views of each curve

    @property
    def ambiguous(self) -> bool:
        """Whether another set of offsets explains the recording about as well: refuse it."""
        return bool(self.doubts)

    def lines(self) -> list[str]:
        """Offsets, errors and doubts as text."""
        rows = zip(self.views, self.offset_s, self.error_s, strict=True)
        found = [
            f"{view}: started {abs(offset):.3f} s {'later' if offset >= 0 else 'earlier'} than "
            f"{self.views[0]}, give or take {max(1000 * error, 1):.0f} ms"
            for view, offset, error in list(rows)[1:]
            if np.isfinite(error)
        ]
        return [*found, f"confidence {self.confidence:.3f}", *self.doubts]


class _Motion(NamedTuple):
    """Velocity of the joints relative to the body, and its derivatives by frames."""

    velocity: Float[np.ndarray, "T V J D"]
    second: Float[np.ndarray, "T V J D"]
    third: Float[np.ndarray, "T V J D"]
    say: Float[np.ndarray, "T V J"]


def estimate(
    recording: Recording,
    longest_s: float = 10.0,
    pose: Float[np.ndarray, "T V J 3"] | None = None,
) -> Synchrony:
    """Find a constant offset per view, to a fraction of a frame.

    Never raises over what was filmed: a recording that does not say enough (periodic or too
    little motion, views that share nothing) is `ambiguous`, and says why.

    Args:
        recording: detections of one person, in any number of views.
        longest_s: offsets between two views are looked for up to this many seconds.
        pose: poses lifted from each view alone (`Prediction.pose`), to be compared instead of
            the detections.
    """
    fps, n_frames, n_views = recording.fps, recording.n_frames, len(recording.views)
    pairs = tuple(combinations(range(n_views), 2))
    if n_frames < 2 or not pairs:
        reason = (f"{n_frames} frames are too few to compare; film longer",) if pairs else ()
        nothing = np.zeros(n_views)
        return Synchrony(
            recording.views, nothing, nothing, float(not pairs), reason, np.zeros(1),
            np.zeros((len(pairs), 1)), pairs,
        )  # fmt: skip
    longest = max(1, min(round(longest_s * fps), n_frames - 1))
    motion = _motion(recording.keypoints if pose is None else pose, recording.confidence, fps)
    block = max(1, round(np.clip(n_frames / fps / 12, 0.5, 3.0) * fps))
    evidence, compared = _evidence(motion, pairs, longest, block)
    total = evidence.sum(0)
    frames = _best_together(total, pairs, n_views)
    rival = _strongest_rival(evidence, pairs, frames, max(2, round(RIVAL_S * fps)))
    offset, error = _refined(motion, pairs, frames, fps)
    return Synchrony(
        views=recording.views,
        offset_s=offset / fps,
        error_s=error / fps,
        confidence=rival.confidence,
        doubts=tuple(_doubts(recording, frames, error, rival, longest)),
        lag_s=np.arange(-longest, longest + 1) / fps,
        curves=1.0 - np.exp(-2.0 * total / np.maximum(compared, 1e-9)[:, None]),
        pairs=pairs,
    )


def apply(recording: Recording, offset_s: Sequence[float] | Float[np.ndarray, " V"]) -> Recording:
    """The recording with every view resampled to the frames of the first.

    Between two frames, keypoints are interpolated where both observed the joint, and as sure as
    the less sure; a view is unobserved before it started and after it ended. Truth is resampled
    with the view that it belongs to.

    Raises:
        ValueError: if there is not one finite offset per view.
    """
    offset = np.asarray(offset_s, dtype=np.float64)
    if offset.shape != (len(recording.views),) or not np.isfinite(offset).all():
        raise ValueError(
            f"need one finite offset for each of {', '.join(recording.views)}, got {offset_s}"
        )
    n_frames = recording.n_frames
    source = np.arange(n_frames)[:, None] - (offset - offset[0]) * recording.fps
    whole = np.rint(source)
    source = np.where(np.abs(source - whole) < 1e-6, whole, source)  # 0.1 s at 30 fps is 3 frames
    filmed = (source >= 0) & (source <= n_frames - 1)
    before = np.clip(np.floor(source), 0, n_frames - 1).astype(int)
    after = np.clip(np.ceil(source), 0, n_frames - 1).astype(int)
    part = (source - before)[..., None, None]
    view = np.arange(len(offset))

    def between(points: np.ndarray | None) -> np.ndarray | None:
        if points is None:
            return None
        first, second = points[before, view], points[after, view]
        mixed = np.where(part == 0, first, (1 - part) * first + part * second)
        return np.where(filmed[..., None, None], mixed, np.nan).astype(np.float32)

    confidence = recording.confidence
    confidence = np.minimum(confidence[before, view], confidence[after, view]) * filmed[..., None]
    return replace(
        recording,
        keypoints=between(recording.keypoints),
        confidence=confidence.astype(np.float32),
        pose3d=between(recording.pose3d),
        keypoints_true=between(recording.keypoints_true),
    )


def _motion(
    points: Float[np.ndarray, "T V J D"], confidence: Float[np.ndarray, "T V J"], fps: float
) -> _Motion:
    """Velocities without the camera's pan and zoom; what is near a gap has no say."""
    seen = (confidence > 0) & np.isfinite(points).all(-1)
    points = _filled(points, seen)
    often = (seen.mean(0) > 0.3).all(0)  # a body that every view sees: no joints come and go
    body = often if often.sum() >= 3 else np.ones_like(often)
    points = points - points[:, :, body].mean(2, keepdims=True)
    size = np.median(np.linalg.norm(points[:, :, body], axis=-1), axis=2)
    size = gaussian_filter1d(size, 0.5 * fps, axis=0, mode="nearest")
    points = points / np.maximum(size, 1e-9)[..., None, None]

    smooth = max(SMOOTH_S * fps, 1.0)
    say = minimum_filter1d(np.where(seen, confidence, 0.0), 2 * round(smooth) + 1, axis=0)
    velocity, second, third = (
        gaussian_filter1d(points, smooth, axis=0, order=order, mode="nearest")
        for order in (1, 2, 3)
    )
    speed = np.linalg.norm(velocity, axis=-1)
    known = np.where(say > 0, speed, np.nan).transpose(1, 0, 2).reshape(speed.shape[1], -1)
    usual = np.array([np.nanmedian(view) if np.isfinite(view).any() else 0.0 for view in known])
    fast = speed / np.maximum(FASTEST * usual[:, None], 1e-12)
    return _Motion(velocity, second, third, say / np.maximum(fast, 1.0))


def _filled(
    points: Float[np.ndarray, "T V J D"], seen: Bool[np.ndarray, "T V J"]
) -> Float[np.ndarray, "T V J D"]:
    """Tracks with straight lines across their gaps; 0 where a joint was never seen."""
    last = len(points) - 1
    time = np.arange(len(points))[:, None, None]
    before = np.maximum.accumulate(np.where(seen, time, -1))
    after = np.minimum.accumulate(np.where(seen, time, last + 1)[::-1])[::-1]
    before, after = np.where(before < 0, after, before), np.where(after > last, before, after)
    part = (time - before) / np.maximum(after - before, 1)
    known = np.where(seen[..., None], points, 0.0).astype(np.float64)
    first, second = (
        np.take_along_axis(known, end.clip(0, last)[..., None], axis=0) for end in (before, after)
    )
    return first + part[..., None] * (second - first)


def _evidence(
    motion: _Motion, pairs: tuple[tuple[int, int], ...], longest: int, block: int
) -> tuple[Float[np.ndarray, "N P L"], Float[np.ndarray, " P"]]:
    """How much more likely motions in common are, in each block of time, than separate ones.

    Log likelihood ratio of Gaussians with and without correlation, at each offset: the sum of
    -1/2 log(1 - r^2) over the canonical correlations r of the two views' velocities. That is blind
    to how the cameras stand. Second, how much was compared of each pair: joints times frames,
    weighted by confidence.
    """
    velocity, say = motion.velocity, motion.say
    n_axes = velocity.shape[-1]
    n_lags = 2 * longest + 1
    size = next_fast_len(block + 2 * longest, real=True)
    row, column = np.triu_indices(n_axes)
    square = velocity[..., row] * velocity[..., column]
    ones = np.ones_like(velocity[..., :1])
    parts = say[..., None] * np.concatenate([ones, velocity, square], axis=-1)
    parts = np.pad(parts, ((longest, longest + block), (0, 0), (0, 0), (0, 0)))
    one, flow, squares = slice(0, 1), slice(1, 1 + n_axes), slice(1 + n_axes, None)
    left, right = np.array(pairs, dtype=int).reshape(-1, 2).T

    # Lags in the order of offsets: a view that starts later shows everything earlier.
    evidence = np.zeros((-(-len(velocity) // block), len(pairs), n_lags))
    compared = np.zeros(len(pairs))
    for index in range(len(evidence)):
        start = index * block
        near = rfft(parts[start + longest : start + longest + block], size, axis=0).conj()
        wide = rfft(parts[start : start + block + 2 * longest], size, axis=0)
        near, wide = near[:, left], wide[:, right]

        common, cross, first, second = (
            _lagged(near[..., a], wide[..., b], size)[:, :n_lags][:, ::-1]
            for a, b in ((one, one), (flow, flow), (squares, one), (one, squares))
        )
        common = np.maximum(common[..., 0, 0], 0.0)
        first, second = _symmetric(first[..., 0], n_axes), _symmetric(second[..., 0, :], n_axes)
        explained = np.linalg.solve(first, cross) @ np.linalg.solve(second, cross.mT)
        unexplained = np.linalg.det(np.eye(n_axes) - explained).clip(1e-6, 1.0)
        most = common.max(1)
        enough = common > 0.25 * np.maximum(most, 1e-9)[:, None]
        evidence[index] = np.where(enough, -0.5 * common * np.log(unexplained), 0.0)
        compared += most
    return evidence, compared


def _lagged(
    near: Complex[np.ndarray, "F P J R"], wide: Complex[np.ndarray, "F P J C"], size: int
) -> Float[np.ndarray, "P L R C"]:
    """Sums of products over all joints and frames, of conjugate and plain spectra."""
    return np.moveaxis(irfft(np.einsum("fpjr,fpjc->fprc", near, wide), size, axis=0), 0, 1)


def _symmetric(triangle: Float[np.ndarray, "P L E"], n: int) -> Float[np.ndarray, "P L n n"]:
    """Positive definite matrices, of their upper triangles."""
    row, column = np.triu_indices(n)
    matrix = np.empty((*triangle.shape[:-1], n, n))
    matrix[..., row, column] = matrix[..., column, row] = triangle
    spare = 1e-3 * np.trace(matrix, axis1=-2, axis2=-1).clip(0.0) + 1e-9
    return matrix + spare[..., None, None] * np.eye(n)


def _best_together(
    total: Float[np.ndarray, "P L"], pairs: tuple[tuple[int, int], ...], n_views: int
) -> Int[np.ndarray, " V"]:
    """Offsets in whole frames that all pairs together agree on best; 0 for the first view.

    Each view in turn is put where it agrees best with all others, from as many starts as there
    are views: everything where it agrees best with one of them.
    """
    longest = total.shape[1] // 2
    curve = np.zeros((n_views, n_views, total.shape[1]))  # [a, b]: by how much later b is than a
    for (a, b), row in zip(pairs, total, strict=True):
        curve[a, b], curve[b, a] = row, row[::-1]
    lags = np.arange(-longest, longest + 1)

    def agreement(view: int, frames: np.ndarray) -> np.ndarray:
        others = [other for other in range(n_views) if other != view]
        rows = [np.interp(lags - frames[u], lags, curve[u, view], 0.0, 0.0) for u in others]
        return np.sum(rows, axis=0)

    best, highest = np.zeros(n_views, dtype=int), -1.0
    for start in range(n_views):
        frames = lags[curve[start].argmax(-1)]
        frames[start] = 0
        for view in [*range(n_views)] * 5:
            frames[view] = lags[agreement(view, frames).argmax()]
        height = sum(agreement(view, frames)[frames[view] + longest] for view in range(n_views))
        if height > highest:
            best, highest = frames - frames[0], height
    return best


def _doubts(
    recording: Recording,
    frames: Int[np.ndarray, " V"],
    error: Float[np.ndarray, " V"],
    rival: "_Rival",
    longest: int,
) -> Iterator[str]:
    """Why the offsets should not be used, and what to do."""
    fps, views = recording.fps, recording.views
    remedy = "give the offsets by hand, or film longer, with something that happens only once"
    for view in np.flatnonzero(np.isinf(error)):
        yield f"{views[view]} shows no motion that other views show as well; {remedy}"
    for view in np.flatnonzero(np.isfinite(error) & (error > VAGUE_S * fps)):
        yield f"{views[view]}: known to {1000 * error[view] / fps:.0f} ms only; {remedy}"
    if rival.confidence < SURE:
        moved = ", ".join(views[view] for view in rival.moved)
        when = f"{abs(rival.frames) / fps:.2f} s {'later' if rival.frames > 0 else 'earlier'}"
        yield (
            f"{moved} might as well have started {when} (confidence {rival.confidence:.2f}): the "
            f"motion is too little, too short or repeats itself; {remedy}"
        )
    for view in np.flatnonzero(np.abs(frames) >= longest - 1):
        yield (
            f"{views[view]}: no offset up to {longest / fps:.1f} s fits better than the longest; "
            "look further (longest_s), or give the offsets by hand"
        )


class _Rival(NamedTuple):
    """Other offsets that might be the true ones."""

    confidence: float  # that they are not
    moved: tuple[int, ...]  # views that start later or earlier by
    frames: int


def _strongest_rival(
    evidence: Float[np.ndarray, "N P L"],
    pairs: tuple[tuple[int, int], ...],
    frames: Int[np.ndarray, " V"],
    margin: int,
) -> _Rival:
    """The offsets, at least `margin` frames from those found, that are hardest to exclude.

    The views are split in two in every way, and one part is moved against the other. Were both
    offsets equally good, the evidence for one would be above that for the other in as many blocks
    of time as below; how sure the mean lead is, Student's t says.
    """
    n_blocks, _, n_lags = evidence.shape
    n_views, longest = len(frames), n_lags // 2
    lags = np.arange(n_lags) - longest
    far = np.flatnonzero(np.abs(lags) >= margin)
    strongest = _Rival(1.0, (), 0)
    if n_blocks < 2:
        return _Rival(0.0, tuple(range(1, n_views)), 0)
    for code in range(1, 2 ** (n_views - 1)):
        moved = tuple(view for view in range(1, n_views) if code >> (view - 1) & 1)
        shifted = np.zeros((n_blocks, n_lags))
        for pair, (a, b) in enumerate(pairs):
            if (a in moved) != (b in moved):
                at = frames[b] - frames[a] + (lags if b in moved else -lags) + longest
                inside = (at >= 0) & (at < n_lags)
                shifted += np.where(inside, evidence[:, pair, at.clip(0, n_lags - 1)], 0.0)
        lead = shifted[:, longest, None] - shifted[:, far]
        error = np.sqrt(lead.var(0, ddof=1) / n_blocks)
        score = lead.mean(0) / np.maximum(error, 1e-9)
        worst = int(score.argmin())
        confidence = float(student.cdf(score[worst], n_blocks - 1))
        if confidence < strongest.confidence:
            strongest = _Rival(confidence, moved, int(lags[far[worst]]))
    return strongest


class _Slopes(NamedTuple):
    """Of half the squared misfit of two views over their lag, for frames of the first view."""

    time: Int[np.ndarray, " N"]
    pull: Float[np.ndarray, " N"]  # towards a larger lag
    bend: Float[np.ndarray, " N"]  # curvature where nothing is wrong
    bend_robust: Float[np.ndarray, " N"]  # less what outliers take from it


def _refined(
    motion: _Motion,
    pairs: tuple[tuple[int, int], ...],
    frames: Int[np.ndarray, " V"],
    fps: float,
    rounds: int = 8,
) -> tuple[Float[np.ndarray, " V"], Float[np.ndarray, " V"]]:
    """Offsets in frames at which each two views fit one 3D motion best, and standard errors.

    Newton's method over all pairs together. The errors follow from how much one second of the
    recording disagrees with the next.
    """
    n_views, window = len(frames), round(WINDOW_S * fps)
    offset = frames.astype(np.float64)
    for turn in range(rounds):
        bends = np.zeros((2, n_views, n_views))
        pulls = np.zeros((int(2 * len(motion.say) / fps) + 2, n_views))
        for a, b in pairs:
            slopes = _misfit(motion, a, b, offset[b] - offset[a], window)
            for bend, part in zip(bends, (slopes.bend, slopes.bend_robust), strict=True):
                bend[np.ix_((a, b), (a, b))] += part.sum() * np.array([[1, -1], [-1, 1]])
            second = ((slopes.time + offset[a] - offset.min()) / fps).astype(int)
            np.add.at(pulls[:, b], second, slopes.pull)
            np.add.at(pulls[:, a], second, -slopes.pull)
        inverse = np.zeros_like(bends)
        inverse[:, 1:, 1:] = np.linalg.pinv(bends[:, 1:, 1:], hermitian=True)
        # The robust curvature holds near the minimum only.
        step = np.clip(inverse[int(turn >= 3)] @ pulls.sum(0), -0.5, 0.5)
        offset = offset + step
        if np.abs(step).max() < 1e-3:
            break
    known = (bends[0].diagonal() > 0) & (bends[0, 0, 0] > 0)
    variance = (inverse[1] @ (pulls.T @ pulls) @ inverse[1]).diagonal()
    error = np.where(known, np.sqrt(variance.clip(0.0)), np.inf)
    return offset, np.append(0.0, error[1:])


def _misfit(motion: _Motion, a: int, b: int, lag: float, window: int) -> _Slopes:
    """How badly two views fit one 3D motion if the second starts `lag` frames later.

    Over a window, velocities of 3D points in the axes of two views have rank 3 (Tomasi and Kanade
    1992), so of 2D detections one coordinate is left over, and of lifted poses three. What is left
    over, in units of its usual size, is the misfit; large ones count little (Cauchy).
    """
    n_frames, n_axes = len(motion.say), motion.velocity.shape[-1]
    whole = round(-lag)
    rest = -lag - whole
    time = np.arange(max(0, -whole), min(n_frames, n_frames - whole))
    velocity, second, third = (track[time + whole, b] for track in motion[:3])
    moved = velocity + rest * second + rest**2 / 2 * third
    both = np.concatenate([motion.velocity[time, a], moved], axis=-1)
    slope = second + rest * third
    say = np.minimum(motion.say[time, a], motion.say[time + whole, b])
    slopes = _Slopes(time, *np.zeros((3, len(time))))
    for start in range(0, len(time), window):
        part = slice(start, start + window)
        weight, points = say[part], both[part]
        if np.count_nonzero(weight) < 4 * n_axes:
            continue
        for _ in range(4):
            _, axes = np.linalg.eigh(np.einsum("tj,tjr,tjc->rc", weight, points, points))
            left_over, kept = np.split(axes, [2 * n_axes - 3], axis=1)
            misfit = points @ left_over
            square = np.square(misfit).sum(-1)
            usual = max(np.median(square[say[part] > 0]), 1e-12)
            weight = say[part] / (1 + square / (2 * usual))
        change, curve = (track[part] @ left_over[n_axes:] for track in (slope, third))
        # Less what the cameras can make up for by standing otherwise.
        shown = points @ kept
        share = np.einsum("tj,tjk,tjl->kl", weight, shown, change)
        size = np.einsum("tj,tjk->k", weight, np.square(shown))
        change = change - shown @ (share / np.maximum(size, 1e-12)[:, None])

        scale = max((weight * square).sum() / weight.sum(), 1e-12)
        along = (misfit * change).sum(-1)
        steep = weight * np.square(change).sum(-1)
        bend = steep + weight * (misfit * curve).sum(-1)
        lost = np.square(weight * along) / (np.maximum(say[part], 1e-12) * usual)
        # Far from the minimum a curvature may be negative.
        for total, kind in ((bend, slopes.bend), (bend - lost, slopes.bend_robust)):
            least = 0.1 * steep.sum() / steep.size
            kind[part] = np.where(total.mean() > least, total, least).sum(-1) / scale
        slopes.pull[part] = (weight * along).sum(-1) / scale
    return slopes
