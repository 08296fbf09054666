"""Which frames of a recording are worth a figure, and what the repair of 2D joints changed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from canonlift import metrics
from canonlift.body.skeleton import ROOT
from canonlift.data.prediction import Prediction
from canonlift.output.figures.style import short

SMALLEST_MOVE = 1e-3  # in units of the person's size; less is rounding


class Notable(NamedTuple):
    """A view of a frame, and the title of its figure."""

    frame: int
    view: int
    title: str


class Repair(NamedTuple):
    """Detected and repaired joints side by side; NaN where there is none."""

    detected: Float[np.ndarray, "*views J 2"]
    refined: Float[np.ndarray, "*views J 2"]
    size: Float[np.ndarray, "*views"]  # longer side of the person's box, pixels
    moved: Bool[np.ndarray, "*views J"]
    placed: Bool[np.ndarray, "*views J"]  # repaired without having been observed

    def errors(self, truth: Float[np.ndarray, "*views J 2"]) -> list[Float[np.ndarray, "*views"]]:
        """Mean 2D error before and after, over the same joints: those detected."""
        gaps = (np.linalg.norm(p - truth, axis=-1) for p in (self.detected, self.refined))
        return [mean(np.where(np.isnan(self.detected[..., 0]), np.nan, gap)) for gap in gaps]


class _Measure(NamedTuple):
    """A number per view by which views are ranked, and the title of a figure of one of them."""

    rank: Float[np.ndarray, "T V"]  # NaN: not ranked
    title: str
    values: tuple[Float[np.ndarray, "T V"], ...]

    def pick(self, quantile: float, name: str, views: Sequence[str]) -> dict[str, Notable]:
        """The view at a quantile of the ranking, under its name; nothing if none is ranked."""
        n_ranked = int(np.isfinite(self.rank).sum())
        if n_ranked == 0:
            return {}
        place = self.rank.argsort(axis=None, kind="stable")[round(quantile * (n_ranked - 1))]
        frame, view = map(int, np.unravel_index(place, self.rank.shape))
        values = (value[frame, view] for value in self.values)
        title = self.title.format(*values, name=name.replace("_", " ").capitalize(), n=n_ranked)
        return {name: Notable(frame, view, f"{title} ({short(views[view])}, frame {frame})")}


def notable_frames(prediction: Prediction) -> dict[str, Notable]:
    """The `most_repaired` view of a recording, and the `median` and the `worst` of all views.

    Most repaired: the largest decrease of the mean 2D error in units of the person's size, or
    without truth the largest mean movement; absent where nothing was moved. Median and worst:
    by PA-MPJPE, without `pose3d` by the repaired 2D error, and without any truth by how badly
    the lifted pose fits the repaired joints; absent where nothing was lifted.
    """
    repair, views = compare(prediction), prediction.views
    gain, badness = _gain(prediction, repair), _badness(prediction, repair)
    return (
        gain.pick(1.0, "most_repaired", views)
        | badness.pick(0.5, "median", views)
        | badness.pick(1.0, "worst", views)
    )


def compare(prediction: Prediction, frames: slice = slice(None)) -> Repair:
    """What the repair of some frames changed."""
    recording = prediction.recording
    observed = recording.confidence[frames] > 0
    raw, refined = recording.keypoints[frames], prediction.keypoints_refined[frames]
    # An unobserved joint has no place, unless the repair has given it one.
    placed = ~observed & np.isfinite(refined).all(-1) & ~np.isclose(refined, raw).all(-1)
    detected = np.where(observed[..., None], raw, np.nan)
    refined = np.where((observed | placed)[..., None], refined, np.nan)
    both = np.concatenate([detected, refined], axis=2)
    size = (np.fmax.reduce(both, axis=2) - np.fmin.reduce(both, axis=2)).max(-1)
    size = np.where(size > 0, size, np.nan)
    moved = np.linalg.norm(refined - detected, axis=-1) > SMALLEST_MOVE * size[..., None]
    return Repair(detected, refined, size, moved, placed)


def _gain(prediction: Prediction, repair: Repair) -> _Measure:
    share = np.where(repair.moved.any(-1), 1 / repair.size, np.nan)
    truth = prediction.recording.keypoints_true
    if truth is None or np.isnan(truth).all():
        move = mean(np.linalg.norm(repair.refined - repair.detected, axis=-1))
        return _Measure(share * move, "{name} view: joints moved by {:.0f} px on average", (move,))
    before, after = repair.errors(truth)
    title = "{name} view: mean 2D error {:.0f} → {:.0f} px"
    return _Measure(share * (before - after), title, (before, after))


def _badness(prediction: Prediction, repair: Repair) -> _Measure:
    prefix, recording = "{name} of {n:,} views: ", prediction.recording
    if recording.pose3d is not None and np.isfinite(recording.pose3d).any():
        pose, truth = (
            torch.from_numpy(p.astype(np.float64)).flatten(0, 1)
            for p in (prediction.pose, 1000 * recording.pose3d)
        )
        errors = metrics.joint_errors(pose, truth, prediction.joints.index(ROOT))
        error = errors.pa_mpjpe.nanmean(-1).numpy().reshape(repair.size.shape)
        return _Measure(error, prefix + "PA-MPJPE {:.0f} mm", (error,))
    truth = recording.keypoints_true
    if truth is not None and np.isfinite(truth).any():
        error = repair.errors(truth)[1]
        return _Measure(error / repair.size, prefix + "mean 2D error {:.0f} px", (error,))
    both = prediction.pose[..., :2], repair.refined
    known = np.isfinite(both[0] + both[1])
    seen, refined = (np.where(known, points, np.nan) for points in both)
    seen, refined = (points - mean(points, axis=-2)[..., None, :] for points in (seen, refined))
    error = mean(np.linalg.norm(scaled(seen, refined) - refined, axis=-1))
    title = prefix + "lifted pose {:.0f} px off the joints"
    return _Measure(error / repair.size, title, (error,))


def scaled(
    source: Float[np.ndarray, "*batch J D"], target: Float[np.ndarray, "*batch J D"]
) -> Float[np.ndarray, "*batch J D"]:
    """`source` times the factor, at least 0, that is best in least squares; NaN do not count."""
    both = np.where(np.isnan(target), np.nan, source)
    product = np.nansum(both * target, axis=(-2, -1), keepdims=True)
    square = np.nansum(both * both, axis=(-2, -1), keepdims=True)
    return source * np.maximum(product, 0.0) / np.maximum(square, 1e-24)


def mean(values: Float[np.ndarray, "..."], axis: int = -1) -> Float[np.ndarray, "..."]:
    """Mean of the values that are known; NaN where none is."""
    count = np.isfinite(values).sum(axis)
    return np.where(count > 0, np.nansum(values, axis) / np.maximum(count, 1), np.nan)


def or_nan(array: np.ndarray | None, like: np.ndarray) -> np.ndarray:
    """The array, or NaN where there is none."""
    return np.full_like(like, np.nan) if array is None else array
