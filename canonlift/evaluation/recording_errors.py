"""Errors of one recording: against truth, between views, and over time; formulas: `metrics`."""

import warnings

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from canonlift import metrics
from canonlift.body import skeleton
from canonlift.data.frames import centre, to_views
from canonlift.data.prediction import Prediction
from canonlift.data.recording import Recording
from canonlift.types import Lifted

BASELINES = ("mean_pose", "flat")


def pose_errors(
    prediction: Prediction, mean_pose: Float[Tensor, "J 3"]
) -> dict[str, metrics.JointErrors]:
    """Errors in mm of the predicted poses and of two trivial baselines, over frames and views."""
    recording = prediction.recording
    poses = {
        "canonlift": torch.from_numpy(prediction.pose),
        "mean_pose": mean_pose.cpu().expand(prediction.pose.shape),
        "flat": torch.nn.functional.pad(to_views(recording).keypoints, (0, 1)),
    }
    return {name: joint_errors(recording, pose) for name, pose in poses.items()}


def joint_errors(recording: Recording, pose: Float[Tensor, "T V J 3"]) -> metrics.JointErrors:
    """Errors in mm of poses in camera axes, in one size for the whole recording."""
    return metrics.joint_errors(*_in_mm(recording, pose))


def motion_errors(prediction: Prediction) -> metrics.MotionErrors:
    """Errors in mm of the predicted motion, in one size for the whole recording."""
    shape, recording = prediction.pose.shape, prediction.recording
    sized, truth, root = _in_mm(recording, torch.from_numpy(prediction.pose))
    return metrics.motion_errors(sized.view(shape), truth.view(shape), root, prediction.fps)


def _in_mm(
    recording: Recording, pose: Float[Tensor, "T V J 3"]
) -> tuple[Float[Tensor, "N J 3"], Float[Tensor, "N J 3"], int]:
    """Poses in one size, true ones, NaN where the view observed nothing; and the root."""
    assert recording.pose3d is not None  # called where there is truth
    root = recording.joints.index(skeleton.ROOT)
    unobserved = ~to_views(recording).observed.any(-1)[..., None, None]
    truth = 1000 * torch.from_numpy(recording.pose3d).double()
    truth = truth.masked_fill(unobserved, torch.nan).flatten(0, 1)
    return metrics.in_one_size(pose.double().flatten(0, 1), truth, root), truth, root


def refinement_errors(prediction: Prediction, threshold: float) -> metrics.RefinementErrors:
    """2D errors in pixels before and after repair, over frames and views."""
    recording = prediction.recording
    truth = recording.keypoints_true
    assert truth is not None
    detected, _, _, _ = centre(recording)
    observed = to_views(recording).observed.numpy()
    in_two = (observed.any(-1).sum(-1) >= 2)[:, None, None]
    parts = (
        np.linalg.norm(detected - truth, axis=-1).astype(np.float64),
        np.linalg.norm(prediction.keypoints_refined - truth, axis=-1).astype(np.float64),
        head_size(recording).astype(np.float64),
        observed & np.isfinite(truth).all(-1) & in_two,
        recording.confidence < threshold,
    )
    return metrics.RefinementErrors(*(torch.from_numpy(x).flatten(0, 1) for x in parts))


def view_gaps(prediction: Prediction) -> tuple[Float[Tensor, " N"], Float[Tensor, " M"]]:
    """Distances of lifted poses from the detections, in their own view and in the others.

    Needs no truth. In units of the longer side of the person's box, for every observed joint.
    """
    return _gaps(prediction.recording, prediction.pose, prediction.rotation)


def fused_gaps(prediction: Prediction) -> Float[Tensor, " N"]:
    """Distances of the fused sequence from the detections of all views, as in `view_gaps`."""
    fused = prediction.fused
    assert fused is not None
    return _gaps(prediction.recording, fused.in_camera, fused.rotation)[0]


def _gaps(
    recording: Recording,
    pose: Float[np.ndarray, "T V J 3"],
    rotation: Float[np.ndarray, "T V 3 3"],
) -> tuple[Float[Tensor, " N"], Float[Tensor, " M"]]:
    turn = torch.from_numpy(np.nan_to_num(rotation))
    in_camera = torch.from_numpy(np.nan_to_num(pose))
    lifted = Lifted(torch.einsum("tvrc,tvjr->tvjc", turn, in_camera), turn)
    share = metrics.reprojection_gaps(to_views(recording), lifted)
    counted = share.isfinite()
    own = torch.eye(len(recording.views), dtype=torch.bool)[None, :, :, None]
    return share[counted & own], share[counted & ~own]


def bone_spread(pose: Float[np.ndarray, "T J 3"], joints: tuple[str, ...]) -> float:
    """How much bones change their length over time: mean over bones of deviation over mean."""
    start, end = (list(side) for side in zip(*skeleton.bones(joints), strict=True))
    known = np.isfinite(pose).all((-1, -2))
    length = np.linalg.norm(pose[known][:, start] - pose[known][:, end], axis=-1)
    return float((length.std(0) / np.maximum(length.mean(0), 1e-12)).mean())


def head_size(recording: Recording) -> Float[np.ndarray, "T V"]:
    """Distance from thorax to head in pixels, as if it lay in the image plane.

    Median length in space times the scale of the image, so that a bowed head does not shrink it;
    where there is no `pose3d`, the distance in the image. NaN without these joints.
    """
    joints, truth, pose = recording.joints, recording.keypoints_true, recording.pose3d
    assert truth is not None
    if not {"thorax", "head"} <= set(joints):
        return np.full(truth.shape[:2], np.nan)
    ends = joints.index("head"), joints.index("thorax")
    if pose is None:
        return np.linalg.norm(truth[:, :, ends[0]] - truth[:, :, ends[1]], axis=-1)
    known = np.asarray(np.isfinite(truth).all(-1) & np.isfinite(pose).all(-1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where nothing is known, NaN is right
        length = np.nanmedian(np.linalg.norm(pose[:, :, ends[0]] - pose[:, :, ends[1]], axis=-1))
        extent = [
            np.sqrt(np.nanvar(np.where(known[..., None], p[..., :2], np.nan), axis=2).sum(-1))
            for p in (truth, pose)
        ]
        return length * extent[0] / extent[1]
