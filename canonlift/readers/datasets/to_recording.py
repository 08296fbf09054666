"""Make recordings of the arrays that a data set holds.

Whatever is wrong with the arrays is a ValueError that names the file (`where`).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from canonlift.body import skeleton
from canonlift.data.recording import Recording


def stack_views(views: Sequence[np.ndarray | None], where: object) -> Float[np.ndarray, "T V J C"]:
    """One (T, J, C) array per view, as long as the longest; NaN where a view has no frame."""
    present = [view for view in views if view is not None]
    columns = sorted({view.shape[-1] for view in present})
    if len(columns) > 1:
        raise ValueError(f"{where}: views of {columns} columns; write all with or without scores")
    n_frames = max(len(view) for view in present)
    stacked = np.full((n_frames, len(views), *present[0].shape[1:]), np.nan, dtype=np.float32)
    for index, view in enumerate(views):
        if view is not None:
            stacked[: len(view), index] = view
    return stacked


def detected(
    keypoints: Float[np.ndarray, "T V J C"],
    joints: tuple[str, ...],
    views: Sequence[str],
    fps: float,
    rig: str,
    image_size: Sequence[tuple[int, int]] | None,
    where: object,
) -> Recording:
    """A recording without ground truth.

    Args:
        keypoints: (x, y) in pixels, of confidence 1 where finite, or (x, y, score); a score
            above 1 counts as 1. NaN: unobserved.
        joints: their names.
        views: names of the cameras.
        fps: frames per second.
        rig: name of the fixed cameras; empty if they may move.
        image_size: width and height per view.
        where: the file to name in errors.
    """
    observed = np.isfinite(keypoints.sum(axis=-1))
    score = keypoints[..., 2] if keypoints.shape[-1] == 3 else np.ones_like(keypoints[..., 0])
    for index, view in enumerate(views):
        middle = np.median(score[:, index][observed[:, index]]) if observed[:, index].any() else 0
        if not 0 <= middle <= 1:
            raise ValueError(
                f"{where}: half of the scores of {view} are above {middle:.3g}; scale them so "
                "that 0 is missed and 1 is certain"
            )
    return Recording(
        keypoints=np.where(observed[..., None], keypoints[..., :2], np.nan).astype(np.float32),
        confidence=np.where(observed, np.clip(score, 0.0, 1.0), 0.0).astype(np.float32),
        joints=joints,
        views=tuple(views),
        fps=fps,
        rig=rig,
        image_size=None if image_size is None else np.array(image_size, dtype=np.int32),
    )


def with_truth(
    recording: Recording,
    joints: tuple[str, ...],
    pose3d: Float[np.ndarray, "T V J 3"],
    keypoints_true: Float[np.ndarray, "T V J 2"],
    where: object,
) -> Recording:
    """The recording and its ground truth, on those of its joints that the detected ones make.

    The pose is in metres and camera axes. Refused are another unit, a pose that does not project
    onto the true keypoints, and keypoints of which most lie outside the image.
    """
    lacking = skeleton.lacking(recording.joints, joints)
    kept = [index for index, name in enumerate(joints) if name not in lacking]
    pose3d = pose3d[:, :, kept].astype(np.float32)
    keypoints_true = keypoints_true[:, :, kept].astype(np.float32)
    size = body_size(pose3d)
    if not is_metres(size):
        raise ValueError(
            f"{where}: joints are {size:.3g} m from the body's middle, which is no person; is the "
            "3D in another unit than the data set's?"
        )
    _check_axes(pose3d, keypoints_true, where)
    if recording.image_size is not None:
        # NaN lies behind the camera, and so not inside
        image = recording.image_size[:, None]
        within = (keypoints_true >= 0) & (keypoints_true <= image)
        inside = (within[..., 0] & within[..., 1])[np.isfinite(pose3d.sum(axis=-1))]
        if inside.size and inside.mean() < 0.5:
            raise ValueError(
                f"{where}: {100 * inside.mean():.0f} % of the true joints lie inside of the "
                "images; other cameras, or cameras with other conventions or units?"
            )
    recording = recording.on_skeleton(tuple(joints[index] for index in kept))
    return replace(recording, pose3d=pose3d, keypoints_true=keypoints_true)


def body_size(pose: Float[np.ndarray, "T V J 3"]) -> float:
    """Median distance of a joint from the middle of its body; NaN if no pose is known."""
    pose = pose[np.isfinite(pose).all(axis=(-2, -1))].astype(np.float64)
    spread = np.linalg.norm(pose - pose.mean(axis=1, keepdims=True), axis=-1)
    return float(np.median(spread)) if spread.size else np.nan


def is_metres(size: float) -> bool:
    """Whether a `body_size` is a person's in metres, or unknown."""
    return bool(np.isnan(size)) or 0.1 < size < 2.0


def _check_axes(pose3d: np.ndarray, keypoints: np.ndarray, where: object) -> None:
    known = np.isfinite(pose3d).all((-2, -1)) & np.isfinite(keypoints).all((-2, -1))
    for axis, direction in enumerate(("x is right", "y is down")):
        pose, image = (a[known][..., axis].astype(np.float64) for a in (pose3d, keypoints))
        pose, image = (a - a.mean(axis=-1, keepdims=True) for a in (pose, image))
        size = np.sqrt((pose**2).sum() * (image**2).sum())
        if size > 0 and (pose * image).sum() < 0.5 * size:
            raise ValueError(
                f"{where}: the 3D poses do not project onto the 2D ones: they correlate by "
                f"{(pose * image).sum() / size:.2f} where {direction} in both. World instead of "
                "camera axes, other cameras, or joints in another order?"
            )
