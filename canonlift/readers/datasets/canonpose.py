"""The pickles of 2D detections on Human3.6M that come with CanonPose and with CVSF.

CanonPose: `subjects`, and per camera `poses_2d_pred` (N, 32), all x before all y, and
`confidences` (N, 16). CVSF: (N, 16, 2) under the same name, and `p2d_gt`, `p3d_gt`. Neither says
in which order the joints are; it is found by which joint lies between the hips.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from canonlift.body.skeleton import SKELETONS
from canonlift.data.recording import Recording
from canonlift.readers.datasets.checks import integers, need, numbers
from canonlift.readers.datasets.human36m import VIEWS, split_of
from canonlift.readers.datasets.joint_orders import layout as named_layout
from canonlift.readers.datasets.to_recording import body_size, detected, is_metres, with_truth
from canonlift.readers.datasets.unpickle import load_pickle

JOINTS = SKELETONS["h36m16"]
# How the arrays that may be flat are flattened: CanonPose all x first, CVSF joint by joint.
FLAT: Mapping[str, tuple[int, int]] = {"poses_2d_pred": (2, 16), "p3d_gt": (16, 3)}
DETECTED_ORDERS = ("h36m16", "canonpose16", "mpii16")
TRUE_ORDERS = ("h36m16", "canonpose16")


def read(
    path: Path, layout: str | None = None, fps: float = 50.0
) -> Iterator[tuple[str, Recording]]:
    """Yield each subject as `train_s5`, on the joints of h36m16, with truth where there is one.

    Args:
        path: `detections.pickle`, `alphapose_2d3dgt_img_h36m.pickle` or the like.
        layout: the order of the detected joints (`joint_orders.LAYOUTS`); None finds out.
        fps: frames per second. The pickles do not say; 50 is that of the videos.
    """
    content = load_pickle(path, "give the pickle of detections")
    need(content, ("subjects", "poses_2d_pred", "confidences"), path)
    subjects = integers(content["subjects"], (None,), f"{path}, subjects")
    n_rows = len(subjects)
    if n_rows == 0:
        raise ValueError(f"{path}: has no rows; fetch it again")
    points = _views(content, "poses_2d_pred", (n_rows, 16, 2), path)
    scores = _views(content, "confidences", (n_rows, 16), path)
    joints = named_layout(layout, path) if layout else _order(points, DETECTED_ORDERS, path)
    points = np.concatenate([points, scores[..., None]], axis=-1)

    truth = _truth(content, n_rows, path) if "p3d_gt" in content else None
    for subject in np.unique(subjects):
        rows = subjects == subject
        rig = f"human36m_s{subject}"
        recording = detected(points[rows], joints, tuple(VIEWS), fps, rig, None, path)
        if truth is None:
            recording = recording.on_skeleton(JOINTS)
        else:
            recording = with_truth(recording, JOINTS, truth[0][rows], truth[1][rows], path)
        yield f"{split_of(int(subject))}_s{subject}", recording


def _truth(
    content: Mapping[str, Any], n_rows: int, path: Path
) -> tuple[Float[np.ndarray, "N V J 3"], Float[np.ndarray, "N V J 2"]]:
    """The pose in metres and the true keypoints, in the order of `JOINTS`."""
    true = _views(content, "p2d_gt", (n_rows, 16, 2), path)
    order = _order(true, TRUE_ORDERS, f"{path}, p2d_gt")
    index = [order.index(joint) for joint in JOINTS]
    pose = _views(content, "p3d_gt", (n_rows, 16, 3), path)
    size = body_size(pose)
    unit = next((unit for unit in (1, 1000) if is_metres(size / unit)), None)
    if unit is None:
        raise ValueError(
            f"{path}: joints of p3d_gt are {size:.3g} from their centre, neither m nor mm"
        )
    return pose[:, :, index] / np.float32(unit), true[:, :, index]


def _views(
    content: Mapping[str, Any], key: str, shape: tuple[int, ...], path: Path
) -> Float[np.ndarray, "N V J *C"]:
    """One array of all cameras."""
    cameras = need(need(content, (key,), path)[key], (), f"{path}, {key}")
    cameras = need({str(view): array for view, array in cameras.items()}, VIEWS, f"{path}, {key}")
    views = []
    for view in VIEWS:
        array, where = cameras[view], f"{path}, {key} of camera {view}"
        if key in FLAT and np.ndim(array) == 2:
            array = numbers(array, (shape[0], math.prod(FLAT[key])), where)
            array = array.reshape(-1, *FLAT[key])
            array = array if FLAT[key][0] == shape[1] else array.swapaxes(1, 2)
        views.append(numbers(array, shape, where))
    return np.stack(views, axis=1)


def _order(
    points: Float[np.ndarray, "N V J 2"], orders: tuple[str, ...], where: object
) -> tuple[str, ...]:
    """The one order in which the pelvis lies between the hips."""
    size = np.linalg.norm(points - points.mean(axis=2, keepdims=True), axis=-1).mean(axis=-1)
    gaps = {}
    for name in orders:
        joints = named_layout(name, where)
        pelvis, left, right = (
            points[:, :, joints.index(joint)] for joint in ("pelvis", "l_hip", "r_hip")
        )
        gap = np.linalg.norm((left + right) / 2 - pelvis, axis=-1)
        gap = (gap / np.maximum(size, 1e-9))[np.isfinite(gap)]
        gaps[name] = float(np.median(gap)) if gap.size else math.inf
    best, second = sorted(gaps, key=gaps.__getitem__)[:2]
    if gaps[best] > min(0.3, gaps[second] / 2):
        found = ", ".join(f"{name} {gap:.2f}" for name, gap in gaps.items())
        raise ValueError(
            f"{where}: in no known order of joints is the pelvis between the hips (off by, of the "
            f"body's size: {found}); name the layout"
        )
    return named_layout(best, where)
