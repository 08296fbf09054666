"""Put what a data set holds together as recordings."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from canonlift.body import skeleton
from canonlift.data.recording import Recording


def stack_views(views: Sequence[np.ndarray | None], where: object) -> Float[np.ndarray, "T V J C"]:
    """One (T, J, C) array per view, as long as the longest; NaN where a view has no frame.

    Raises:
        ValueError: naming `where`, if some views have a score in the third column and some none.
    """
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
    """A recording without truth; NaN is what was not seen.

    Args:
        keypoints: (x, y) in pixels, sure wherever finite, or (x, y, score); scores above 1
            are clipped.
        joints: their names.
        views: names of the cameras.
        fps: frames per second.
        rig: name of the fixed cameras; empty if they may move.
        image_size: width and height per view.
        where: the file to name in errors.

    Raises:
        ValueError: if half of a view's scores are not between 0 and 1.
    """
    seen = np.isfinite(keypoints).all(axis=-1)
    score = keypoints[..., 2] if keypoints.shape[-1] == 3 else np.ones_like(keypoints[..., 0])
    for index, view in enumerate(views):
        middle = np.median(score[:, index][seen[:, index]]) if seen[:, index].any() else 0.0
        if not 0 <= middle <= 1:
            raise ValueError(
                f"{where}: half of the scores of {view} are above {middle:.3g}; scale them so "
                "that 0 is missed and 1 is sure"
            )
    return Recording(
        keypoints=np.where(seen[..., None], keypoints[..., :2], np.nan).astype(np.float32),
        confidence=np.where(seen, np.clip(score, 0.0, 1.0), 0.0).astype(np.float32),
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
    keypoints_true: Float[np.ndarray, "T V J 2"] | None,
    where: object,
) -> Recording:
    """The recording on the joints of its truth, as far as they can be made of those detected.

    Args:
        recording: what was detected.
        joints: names of the joints of the truth.
        pose3d: metres, camera axes.
        keypoints_true: pixels.
        where: the file to name in errors.

    Raises:
        ValueError: if the pose is not in metres, if its axes are not those of the image, or if
            most of it lies outside of the image.
    """
    joints_made = tuple(name for name in joints if _can_make(name, recording.joints))
    index = [joints.index(name) for name in joints_made]
    pose3d = pose3d[:, :, index].astype(np.float32)
    size = body_size(pose3d)
    if not is_metres(size):
        raise ValueError(
            f"{where}: joints are {size:.3g} m from the body's middle, which is no person; is the "
            "3D in another unit than the data set's?"
        )
    if keypoints_true is not None:
        keypoints_true = keypoints_true[:, :, index].astype(np.float32)
        _check_axes(pose3d, keypoints_true, where)
        if recording.image_size is not None:
            _check_image(pose3d, keypoints_true, recording.image_size, where)
    return replace(
        recording.on_skeleton(joints_made), pose3d=pose3d, keypoints_true=keypoints_true
    )


def body_size(pose: Float[np.ndarray, "T V J 3"]) -> float:
    """Median distance of a joint from the middle of its body; NaN if no pose is known."""
    pose = pose[np.isfinite(pose).all(axis=(-2, -1))].astype(np.float64)
    spread = np.linalg.norm(pose - pose.mean(axis=1, keepdims=True), axis=-1)
    return float(np.median(spread)) if spread.size else np.nan


def is_metres(size: float) -> bool:
    """Whether a `body_size` is a person's in metres, or unknown."""
    return np.isnan(size) or 0.1 < size < 2.0


def _can_make(name: str, joints: tuple[str, ...]) -> bool:
    try:
        skeleton.conversion(joints, (name,))
    except ValueError:
        return False
    return True


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


def _check_image(
    pose3d: np.ndarray, keypoints: np.ndarray, image_size: np.ndarray, where: object
) -> None:
    known = np.isfinite(pose3d).all(axis=-1)
    # False for NaN, which is what lies behind the camera
    inside = ((keypoints >= 0) & (keypoints <= image_size[:, None])).all(axis=-1)
    if known.any() and inside[known].mean() < 0.5:
        raise ValueError(
            f"{where}: {100 * inside[known].mean():.0f} % of the true joints lie inside of the "
            "images; other cameras, or cameras with other conventions or units?"
        )
