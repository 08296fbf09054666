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
from scipy.ndimage import gaussian_filter1d, minimum_filter1d
from scipy.stats import t as student

from canonlift.data.recording import Recording

SMOOTH_S = 0.05  # standard deviation of the Gaussian that velocities are measured with
FASTEST = 4.0  # multiples of a view's median speed; what is faster is mostly an error
WINDOW_S = 5.0  # over which cameras keep their rotations relative to each other
RIVAL_S = 0.2  # offsets at least this far from the best one are tested against it
VAGUE_S = 0.05  # standard error above which an offset is of no use
SURE = 0.98  # confidence from which on offsets are used


Pairs = tuple[tuple[int, int], ...]  # of views


@dataclass(frozen=True, eq=False)
class Synchrony:
    """When each view of a recording started.

    Frame t of a view was filmed `t / fps + offset_s` seconds after frame 0 of the first view.
    """

    views: tuple[str, ...]
    offset_s: Float[np.ndarray, " V"]  # how much later than the first view; 0 for the first
    error_s: Float[np.ndarray, " V"]  # standard error of each; inf where nothing was found
    confidence: float  # in [0, 1]: that no offset is a false peak
    doubts: tuple[str, ...]  # why not to use it, and what to do; empty: use it
    lag_s: Float[np.ndarray, " L"]
    curves: Float[np.ndarray, "P L"]  # per pair and lag: the share of motion in common
    pairs: Pairs  # views of each curve

    @property
    def ambiguous(self) -> bool:
        """Whether another set of offsets explains the recording about as well: refuse it."""
        return bool(self.doubts)

    def lines(self) -> list[str]:
        """Offsets, errors and doubts as text."""
        rows = zip(self.views, self.offset_s, self.error_s, strict=True)
        found = [
            f"{view}: started {abs(offset):.3f} s {'later' if offset >= 0 else 'earlier'} than "
            f"{self.views[0]}, standard error {max(1000 * error, 1):.0f} ms"
            for view, offset, error in list(rows)[1:]
            if np.isfinite(error)
        ]
        return [*found, f"confidence {self.confidence:.3f}", *self.doubts]


class _Motion(NamedTuple):
    velocity: Float[np.ndarray, "T V J D"]  # of the joints relative to the body, per frame
    second: Float[np.ndarray, "T V J D"]  # derivatives of the positions
    third: Float[np.ndarray, "T V J D"]
    weight: Float[np.ndarray, "T V J"]


def estimate(
    recording: Recording,
    longest_s: float = 10.0,
    pose: Float[np.ndarray, "T V J 3"] | None = None,
) -> Synchrony:
    """Find a constant offset per view, to a fraction of a frame.

    A recording from which no offsets can be found (periodic or too little motion, views that
    have nothing in common) raises nothing: the result is `ambiguous`, and its `doubts` give the
    reasons.

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

    Between two frames, keypoints are interpolated where both observe the joint, with the lower of
    the two confidences; a view is unobserved before it started and after it ended. Ground truth
    is resampled with its view. ValueError if there is not one finite offset per view.
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

    confidence = recording.confidence
    confidence = np.minimum(confidence[before, view], confidence[after, view]) * filmed[..., None]
    arrays = {"confidence": confidence.astype(np.float32)}
    for name in ("keypoints", "pose3d", "keypoints_true"):
        points = getattr(recording, name)
        if points is not None:
            first, second = points[before, view], points[after, view]
            mixed = np.where(part == 0, first, (1 - part) * first + part * second)
            arrays[name] = np.where(filmed[..., None, None], mixed, np.nan).astype(np.float32)
    return replace(recording, **arrays)


def _motion(
    points: Float[np.ndarray, "T V J D"], confidence: Float[np.ndarray, "T V J"], fps: float
) -> _Motion:
    """Velocities without the camera's pan and zoom; weight 0 near gaps."""
    seen = (confidence > 0) & np.isfinite(points).all(-1)
    points = _filled(points, seen)
    often = (seen.mean(0) > 0.3).all(0)  # a body that every view sees: no joints come and go
    body = often if often.sum() >= 3 else np.ones_like(often)
    points = points - points[:, :, body].mean(2, keepdims=True)
    size = np.median(np.linalg.norm(points[:, :, body], axis=-1), axis=2)
    size = gaussian_filter1d(size, 0.5 * fps, axis=0, mode="nearest")
    points = points / np.maximum(size, 1e-9)[..., None, None]

    smooth = max(SMOOTH_S * fps, 1.0)
    weight = minimum_filter1d(np.where(seen, confidence, 0.0), 2 * round(smooth) + 1, axis=0)
    velocity, second, third = (
        gaussian_filter1d(points, smooth, axis=0, order=order, mode="nearest")
        for order in (1, 2, 3)
    )
    speed = np.linalg.norm(velocity, axis=-1)
    views = zip(speed.swapaxes(0, 1), (weight > 0).swapaxes(0, 1), strict=True)
    usual = np.array([np.median(view[known]) if known.any() else 0.0 for view, known in views])
    fast = speed / np.maximum(FASTEST * usual[:, None], 1e-12)
    return _Motion(velocity, second, third, weight / np.maximum(fast, 1.0))


def _filled(
    points: Float[np.ndarray, "T V J D"], seen: Bool[np.ndarray, "T V J"]
) -> Float[np.ndarray, "T V J D"]:
    """Tracks with straight lines across their gaps; 0 where a joint was never seen."""
    filled = np.zeros(points.shape)
    for view, joint, axis in np.ndindex(points.shape[1:]):
        known = np.flatnonzero(seen[:, view, joint])
        if len(known):
            track = points[known, view, joint, axis]
            filled[:, view, joint, axis] = np.interp(np.arange(len(points)), known, track)
    return filled


def _evidence(
    motion: _Motion, pairs: Pairs, longest: int, block: int
) -> tuple[Float[np.ndarray, "N P L"], Float[np.ndarray, " P"]]:
    """Log likelihood ratio of common and separate motion, per block of time, pair and lag.

    Of Gaussians with and without correlation, the sum of -1/2 log(1 - r^2) over the canonical
    correlations r of the two views' velocities, which do not depend on the cameras' rotations.
    Second, how much was compared of each pair: the sum of weights over joints and frames.
    """
    velocity = motion.velocity
    n_axes = velocity.shape[-1]
    n_lags = 2 * longest + 1
    size = -(-(block + 2 * longest) // 64) * 64  # a multiple of 64 is transformed fast
    row, column = np.triu_indices(n_axes)
    square = velocity[..., row] * velocity[..., column]
    ones = np.ones_like(velocity[..., :1])
    parts = motion.weight[..., None] * np.concatenate([ones, velocity, square], axis=-1)
    parts = np.pad(parts, ((longest, longest + block), (0, 0), (0, 0), (0, 0)))
    one, flow, squares = slice(0, 1), slice(1, 1 + n_axes), slice(1 + n_axes, None)
    left, right = np.array(pairs, dtype=int).reshape(-1, 2).T

    # Lags in the order of offsets: a view that starts later shows everything earlier.
    evidence = np.zeros((-(-len(velocity) // block), len(pairs), n_lags))
    compared = np.zeros(len(pairs))
    for index in range(len(evidence)):
        start = index * block
        near = np.fft.rfft(parts[start + longest : start + longest + block], size, axis=0).conj()
        wide = np.fft.rfft(parts[start : start + block + 2 * longest], size, axis=0)
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
    """Cross-correlations summed over joints, of a conjugate and a plain spectrum."""
    return np.moveaxis(np.fft.irfft(np.einsum("fpjr,fpjc->fprc", near, wide), size, axis=0), 0, 1)


def _symmetric(triangle: Float[np.ndarray, "P L E"], n: int) -> Float[np.ndarray, "P L n n"]:
    """Positive definite matrices, made of their upper triangles."""
    row, column = np.triu_indices(n)
    matrix = np.empty((*triangle.shape[:-1], n, n))
    matrix[..., row, column] = matrix[..., column, row] = triangle
    spare = 1e-3 * np.trace(matrix, axis1=-2, axis2=-1).clip(0.0) + 1e-9
    return matrix + spare[..., None, None] * np.eye(n)


def _best_together(
    total: Float[np.ndarray, "P L"], pairs: Pairs, n_views: int
) -> Int[np.ndarray, " V"]:
    """Offsets in whole frames with the greatest sum over all pairs; 0 for the first view.

    Each view in turn is set to its best offset given all others, starting once for each view from
    the best offsets relative to that one.
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


class _Rival(NamedTuple):
    """Other offsets that might be the true ones."""

    confidence: float  # that they are not
    moved: tuple[int, ...]  # the views that would start later
    frames: int  # by so many frames; negative: earlier


def _doubts(
    recording: Recording,
    frames: Int[np.ndarray, " V"],
    error: Float[np.ndarray, " V"],
    rival: _Rival,
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


def _strongest_rival(
    evidence: Float[np.ndarray, "N P L"],
    pairs: Pairs,
    frames: Int[np.ndarray, " V"],
    margin: int,
) -> _Rival:
    """The offsets, at least `margin` frames from those found, that are hardest to exclude.

    The views are split in two in every way, and one part is moved against the other. The lead of
    the offsets found is the difference in evidence; that its mean over the blocks of time is
    positive has the confidence of a Student's t test.
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


def _refined(
    motion: _Motion, pairs: Pairs, frames: Int[np.ndarray, " V"], fps: float
) -> tuple[Float[np.ndarray, " V"], Float[np.ndarray, " V"]]:
    """Offsets in frames at which each two views fit one 3D motion best, and standard errors.

    Newton's method over all pairs together. The errors follow from how much the gradient differs
    from one second of the recording to the next.
    """
    offset = frames.astype(np.float64)
    gradient, curvature, inverse = _normal_equations(motion, pairs, offset, fps)
    for iteration in range(8):
        # The robust curvature holds near the minimum only.
        step = np.clip(-inverse[int(iteration >= 3)] @ gradient.sum(0), -0.5, 0.5)
        offset = offset + step
        if np.abs(step).max() < 1e-3:
            break
        gradient, curvature, inverse = _normal_equations(motion, pairs, offset, fps)
    compared = curvature[0].diagonal() > 0
    variance = (inverse[1] @ (gradient.T @ gradient) @ inverse[1]).diagonal()
    error = np.where(compared & compared[0], np.sqrt(variance.clip(0.0)), np.inf)
    return offset, np.append(0.0, error[1:])


def _normal_equations(
    motion: _Motion, pairs: Pairs, offset: Float[np.ndarray, " V"], fps: float
) -> tuple[Float[np.ndarray, "S V"], Float[np.ndarray, "2 V V"], Float[np.ndarray, "2 V V"]]:
    """Gradient per second of the recording, curvature (plain, robust) and its pseudo-inverse."""
    curvature = np.zeros((2, len(offset), len(offset)))
    gradient = np.zeros((int(2 * len(motion.weight) / fps) + 2, len(offset)))
    window = round(WINDOW_S * fps)
    for a, b in pairs:
        time, (slope, *of_pair) = _derivatives(motion, a, b, offset[b] - offset[a], window)
        total = np.sum(of_pair, axis=-1)[:, None, None]
        curvature[:, [[a], [b]], [a, b]] += total * np.array([[1, -1], [-1, 1]])
        second = ((time + offset[a] - offset.min()) / fps).astype(int)
        np.add.at(gradient[:, b], second, slope)
        np.add.at(gradient[:, a], second, -slope)
    inverse = np.zeros_like(curvature)  # the first view's offset is fixed
    inverse[:, 1:, 1:] = np.linalg.pinv(curvature[:, 1:, 1:], hermitian=True)
    return gradient, curvature, inverse


def _derivatives(
    motion: _Motion, a: int, b: int, lag: float, window: int
) -> tuple[Int[np.ndarray, " T"], Float[np.ndarray, "3 T"]]:
    """Slope, curvature and robust curvature of the fit of two views to one 3D motion, by the lag.

    Of half the squared residuals in each frame of the first view, if the second starts `lag`
    frames later. Over a window, velocities of 3D points in the axes of two views have rank 3
    (Tomasi and Kanade 1992), so 2D detections leave a residual of one coordinate, and lifted poses
    of three. In units of its usual size it is weighted as by Cauchy.
    """
    n_frames, n_axes = len(motion.weight), motion.velocity.shape[-1]
    whole = round(-lag)
    rest = -lag - whole
    time = np.arange(max(0, -whole), min(n_frames, n_frames - whole))
    velocity, second, third = (track[time + whole, b] for track in motion[:3])
    moved = velocity + rest * second + rest**2 / 2 * third
    both = np.concatenate([motion.velocity[time, a], moved], axis=-1)
    moving = np.stack([second + rest * third, third])
    weight = np.minimum(motion.weight[time, a], motion.weight[time + whole, b])
    found = np.zeros((3, len(time)))
    for start in range(0, len(time), window):
        part = slice(start, start + window)
        if np.count_nonzero(weight[part]) >= 4 * n_axes:
            found[:, part] = _window_derivatives(both[part], moving[:, part], weight[part])
    return time, found


def _window_derivatives(
    points: Float[np.ndarray, "T J R"],
    moving: Float[np.ndarray, "2 T J D"],
    weight: Float[np.ndarray, "T J"],
) -> Float[np.ndarray, "3 T"]:
    """`_derivatives` within a window.

    `moving` are the first two derivatives of the second half of the points by time, and so, but
    for the sign of the first, by the lag.
    """
    n_residual = points.shape[-1] - 3
    axes, robust, usual = np.eye(points.shape[-1]), weight, 1.0
    for _ in range(4):
        axes = np.linalg.eigh(np.einsum("tj,tjr,tjc->rc", robust, points, points))[1]
        square = np.square(points @ axes[:, :n_residual]).sum(-1)
        usual = max(np.median(square[weight > 0]), 1e-12)
        robust = weight / (1 + square / (2 * usual))
    residual, kept = np.split(points @ axes, [n_residual], axis=-1)
    change, curve = moving @ axes[-moving.shape[-1] :, :n_residual]
    # Less what other rotations of the cameras could make up for.
    share = np.einsum("tj,tjk,tjl->kl", robust, kept, change)
    size = np.einsum("tj,tjk->k", robust, np.square(kept))
    change = change - kept @ (share / np.maximum(size, 1e-12)[:, None])

    scale = max((robust * np.square(residual).sum(-1)).sum() / robust.sum(), 1e-12)
    along = robust * (residual * change).sum(-1)
    steep = robust * np.square(change).sum(-1)
    curvature = steep + robust * (residual * curve).sum(-1)
    lost = np.square(along) / (np.maximum(weight, 1e-12) * usual)
    # Far from the minimum a curvature may be negative.
    least = 0.1 * steep.mean()
    plain, full = (
        np.where(total.mean() > least, total, least) for total in (curvature, curvature - lost)
    )
    return np.stack([-along, plain, full]).sum(-1) / scale
