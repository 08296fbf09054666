"""Solve a recording: poses and cameras of every frame, from the 2D joints of all views.

No calibration, no training, no 3D label: cameras with perspective, moving or fixed.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from canonlift.body.skeleton import H36M17, ROOT, bones, conversion, lacking
from canonlift.data.calibration import Calibration
from canonlift.data.recording import Recording
from canonlift.data.solution import Solution
from canonlift.solver.joints import Finished, finish
from canonlift.solver.observed import observe
from canonlift.solver.pose_library import LEAST_JOINTS
from canonlift.solver.rig import Rig, placed_rig, solve_rig
from canonlift.solver.tracks import Track, track

ADDED = ("pelvis", "thorax")  # joints that are computed where they were not detected
UNSURE = 0.02  # standard deviation of joints, in body units, at which trust is halved
ABSURD_PX = 1e6  # beyond which nothing is seen
KEPT = 0.5  # share of their confidence that detections keep at least where all is well


@torch.no_grad()
def solve(
    recording: Recording,
    *,
    focal_px: float | Sequence[float] | np.ndarray | None = None,
    same_focal: bool = False,
    calibration: Calibration | None = None,
    device: str | torch.device = "cpu",
) -> Solution:
    """Solve for the poses, the cameras and the repaired joints of a recording.

    Needs two views or more, and of the joints of a known body at least half a dozen. A pelvis and
    a thorax are added where they follow from other joints.

    Args:
        recording: one with a `rig` has fixed cameras; else each may move and zoom.
        focal_px: of each camera, or of all; estimated where not given.
        same_focal: cameras are of one kind, with one focal length.
        calibration: known lenses; of fixed cameras also where they stand, if it says so. Cameras
            are found by the names of the views, or else by their order, with a warning.
        device: where to compute.

    Raises:
        ValueError: if there are too few views or joints, or focal lengths do not fit the views.
    """
    n_views = len(recording.views)
    if n_views < 2:
        raise ValueError(
            f"{n_views} view ({', '.join(recording.views)}) cannot be solved; lift it by a "
            "network: canonlift eval RUN --recordings FILE"
        )
    focal, straight = None, recording
    if calibration is not None:
        if focal_px is not None or same_focal:
            raise ValueError("focal lengths are those of the calibration; give nothing else")
        calibration, note = calibration.matched(recording.views)
        if note:
            warnings.warn(note, stacklevel=2)
        calibration = calibration.resized(recording)
        focal, straight = calibration.focal_px, _straightened(recording, calibration)
    if focal_px is not None:
        focal = _of_views(focal_px, recording.views)
    observed = observe(straight, focal, device=device)
    known = [index for index, name in enumerate(recording.joints) if name in H36M17]
    names = [recording.joints[index] for index in known]
    some, fps, rig = observed.pick(known), recording.fps, None
    if recording.rig and calibration is not None and calibration.rotation is not None:
        place = (calibration.rotation, calibration.position)
        rotation, position = (torch.tensor(x).to(observed.keypoints) for x in place)
        rig, tracked = placed_rig(some, rotation, position)
    else:
        fixed, given = bool(recording.rig), focal is not None
        tracked = track(some, names, fps, fixed, given, same_focal)
        if fixed:
            rig = solve_rig(some, names, tracked, fps, given, same_focal)
            tracked = tracked if rig is None else rig.of(tracked)
    found = finish(observed, tracked, known, recording.joints, fps, rig)
    solution = _solution(recording, tracked, found, rig)
    return solution if calibration is None else _bent(solution, calibration)


def _of_views(
    focal_px: float | Sequence[float] | np.ndarray, views: Sequence[str]
) -> Float[np.ndarray, " V"]:
    """Focal lengths of the views; one number serves all."""
    focal = np.array(focal_px, dtype=float)
    if focal.shape not in ((), (len(views),)) or not (focal > 0).all():
        raise ValueError(
            f"focal_px must be one positive number, or one for each of the views "
            f"{', '.join(views)}; got {focal_px}"
        )
    return np.broadcast_to(focal, (len(views),)).copy()


def _straightened(recording: Recording, calibration: Calibration) -> Recording:
    """What cameras without distortion see; where that is nowhere, nothing was observed."""
    with np.errstate(over="ignore", invalid="ignore"):
        keypoints = calibration.straightened(recording.keypoints)
        keypoints = np.where(np.abs(keypoints) < ABSURD_PX, keypoints, np.nan).astype(np.float32)
    somewhere = np.isfinite(keypoints).all(-1)
    return replace(
        recording,
        keypoints=keypoints,
        confidence=np.where(somewhere, recording.confidence, 0).astype(np.float32),
        image_size=calibration.size.round().astype(np.int32),
        pose3d=None,
        keypoints_true=None,
    )


def _bent(solution: Solution, calibration: Calibration) -> Solution:
    """Places in the image as the lenses distort them."""
    return replace(
        solution,
        keypoints_refined=calibration.bent(solution.keypoints_refined).astype(np.float32),
        root_px=calibration.bent(solution.root_px[:, :, None])[:, :, 0].astype(np.float32),
    )


def _solution(recording: Recording, tracked: Track, found: Finished, rig: Rig | None) -> Solution:
    """The same in the units and with the joints of a solution; NaN where nothing was observed."""
    added = [
        name
        for name in ADDED
        if name not in recording.joints and not lacking(recording.joints, (name,))
    ]
    joints = (*recording.joints, *added)
    whole = recording.on_skeleton(joints)
    mix = torch.from_numpy(conversion(recording.joints, joints)).to(found.pose)
    pose, refined, inlier = mix @ found.pose, mix @ found.refined, found.inlier @ mix.mT
    covariance = torch.einsum("ij,tjcd->ticd", mix.square(), found.covariance)

    observed = torch.from_numpy(whole.confidence > 0).to(pose.device)
    views = observed.any(-1)
    size = _body_unit(pose, joints, views.sum(-1) >= 2)
    middle = pose[:, joints.index(ROOT)] if ROOT in joints else pose.mean(1)
    depth = torch.einsum("tvc,tc->tv", tracked.rotation[..., 2, :], middle)
    distance = (1 / found.log_nearness.exp() + depth) / size
    root = refined[:, :, joints.index(ROOT)] if ROOT in joints else found.origin
    blind, empty = ~views, ~views.any(-1)
    covariance = covariance / size.square()
    located = rig if rig is not None and rig.sure else None
    placed = observed | (observed.sum(1, keepdim=True) >= 2)
    refined = refined.masked_fill(~placed[..., None], torch.nan)
    return Solution(
        whole,
        pose=_array((pose - middle[:, None]) / size, empty),
        rotation=_array(tracked.rotation, blind),
        focal_px=_array(tracked.log_focal.exp(), blind),
        distance=_array(distance, blind),
        root_px=_array(root, blind),
        keypoints_refined=_array(refined, blind),
        inlier=_array(inlier),
        covariance=_array(covariance, empty),
        trust=_array(_trust(covariance, inlier, observed)),
        swapped=found.swapped.numpy(force=True),
        position=None if located is None else _array(located.position / size, blind.all(0)),
        root=None if located is None else _array(middle / size, empty),
    )


def _body_unit(
    pose: Float[Tensor, "T J 3"], joints: Sequence[str], sure: Tensor
) -> Float[Tensor, ""]:
    """Median sum of the lengths of all bones, over frames of two views or more."""
    start, end = (list(side) for side in zip(*bones(joints), strict=True))
    length = torch.linalg.vector_norm(pose[:, start] - pose[:, end], dim=-1).sum(-1)
    return (length[sure] if sure.any() else length).median().clamp_min(1e-9)


def _trust(covariance: Tensor, inlier: Tensor, observed: Tensor) -> Float[Tensor, " T"]:
    """From 0 to 1: how sure the joints of two views are, and whether views agree."""
    variance = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    by_two = (observed.sum(1) >= 2).to(variance.dtype)
    variance = (variance * by_two).sum(-1) / by_two.sum(-1).clamp_min(1)
    sure = 1 / (1 + (variance / UNSURE**2) ** 2)
    count = observed.sum((1, 2)).clamp_min(1)
    kept = (inlier * observed).sum((1, 2)) / count
    enough = by_two.sum(-1) >= LEAST_JOINTS
    return sure * (kept / KEPT).clamp_max(1.0) * enough


def _array(values: Tensor, missing: Tensor | None = None) -> np.ndarray:
    if missing is not None:
        shape = missing.shape + (1,) * (values.ndim - missing.ndim)
        values = values.masked_fill(missing.view(shape), torch.nan)
    return values.float().numpy(force=True)
