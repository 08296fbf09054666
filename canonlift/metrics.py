"""The formulas: MPJPE and the other errors of 3D poses and 2D joints, in the unit of the target.

Poses are compared per view, in camera axes. Joints whose truth is unknown (NaN) do not count;
a pose with fewer than three known joints counts nowhere.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from canonlift.geometry.alignment import align_similarity
from canonlift.geometry.scale import norm, unit_scale
from canonlift.types import Lifted, Views

PCK_THRESHOLDS_MM = tuple(range(0, 151, 5))  # of the AUC of MPI-INF-3DHP
JDR_JOINTS = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")


class JointErrors(NamedTuple):
    """Error of each joint of each pose; NaN where it does not count."""

    n_mpjpe: Float[Tensor, "N J"]  # root-relative, one scale per pose
    pa_mpjpe: Float[Tensor, "N J"]  # after the best similarity per pose, never a mirror
    mpjpe: Float[Tensor, "N J"]  # root-relative, in the given size


def joint_errors(
    pose: Float[Tensor, "N J 3"], truth: Float[Tensor, "N J 3"], root: int
) -> JointErrors:
    """Compare poses with true ones; only `mpjpe` depends on the size of the poses.

    N-MPJPE scales each pose by the factor that is best in least squares (Rhodin et al. 2018).
    """
    pose, truth, known = _rooted(pose, truth, root)
    weight = known.to(truth.dtype)
    normalised = (_scale(pose, truth, (-2, -1)) * pose - truth).norm(dim=-1)
    given = (pose - truth).norm(dim=-1)

    # A pose that has collapsed to a point can only be moved: its error is the size of the truth.
    centre = (weight[..., None] * truth).sum(-2, keepdim=True)
    centre = centre / weight.sum(-1, keepdim=True)[..., None].clamp_min(1.0)
    aligned = (truth - centre).norm(dim=-1)
    usable = known.any(-1) & (pose.square().sum((-2, -1)) > 1e-24)
    if usable.any():
        move = align_similarity(pose[usable], truth[usable], weight[usable])
        aligned[usable] = (move(pose[usable]) - truth[usable]).norm(dim=-1)
    return JointErrors(*(x.masked_fill(~known, torch.nan) for x in (normalised, aligned, given)))


class MotionErrors(NamedTuple):
    """Error of the motion of each joint of each pose; NaN where it does not count."""

    velocity: Float[Tensor, "N J"]  # between this frame and the next, per second
    acceleration: Float[Tensor, "N J"]  # between this frame and the next but one, per second^2


def motion_errors(
    pose: Float[Tensor, "T V J 3"], truth: Float[Tensor, "T V J 3"], root: int, fps: float
) -> MotionErrors:
    """Compare the motion of the poses of a recording with the true one, in the given size.

    Differences of frames next to each other: MPJVE (Pavllo et al. 2019) and acceleration error
    (Kanazawa et al. 2019), per second and not per frame. They show jitter that the mean error of
    the poses hardly shows.
    """
    flat = pose.flatten(0, 1), truth.flatten(0, 1)
    pose, truth, known = (x.view(*truth.shape[:2], *x.shape[1:]) for x in _rooted(*flat, root))
    gap = (pose - truth).masked_fill(~known[..., None], torch.nan)
    errors = []
    for order in (1, 2):
        step = gap.diff(n=order, dim=0).norm(dim=-1) * fps**order
        lost = torch.full_like(gap[:order, ..., 0], torch.nan)
        errors.append(torch.cat([step, lost])[: len(gap)].flatten(0, 1))
    return MotionErrors(*errors)


def in_one_size(
    pose: Float[Tensor, "N J 3"], truth: Float[Tensor, "N J 3"], root: int
) -> Float[Tensor, "N J 3"]:
    """Poses of one person in the unit of the truth, all scaled by the one best factor.

    The height of a person is not known from an uncalibrated camera, but it does not change.
    """
    return _scale(*_rooted(pose, truth, root)[:2], (-3, -2, -1)) * pose


def _rooted(
    pose: Float[Tensor, "N J 3"], truth: Float[Tensor, "N J 3"], root: int
) -> tuple[Float[Tensor, "N J 3"], Float[Tensor, "N J 3"], Bool[Tensor, "N J"]]:
    """Both relative to the root, 0 where a joint does not count, and where it does."""
    known = truth.isfinite().all(-1) & pose.isfinite().all(-1)
    known &= known[:, root : root + 1] & (known.sum(-1, keepdim=True) >= 3)
    truth = torch.where(known[..., None], truth - truth[:, root : root + 1], 0.0)
    pose = torch.where(known[..., None], pose - pose[:, root : root + 1], 0.0)
    return pose, truth, known


def _scale(
    pose: Float[Tensor, "N J 3"], truth: Float[Tensor, "N J 3"], over: tuple[int, ...]
) -> Float[Tensor, "*shape"]:
    """Factor on poses that is best in least squares over some axes.

    Never negative: that would turn a pose inside out, and a mirrored one would cost nothing.
    """
    fit = (pose * truth).sum(over, keepdim=True).clamp_min(0.0)
    return fit / pose.square().sum(over, keepdim=True).clamp_min(1e-24)


def summary(errors_mm: JointErrors) -> dict[str, float]:
    """Means over joints and poses, N-PCK at 150 mm in %, and its AUC in %."""
    known = errors_mm.n_mpjpe[errors_mm.n_mpjpe.isfinite()]
    thresholds = torch.tensor(PCK_THRESHOLDS_MM, dtype=known.dtype)
    within = (known[:, None] <= thresholds).to(known.dtype).mean(0)
    return {
        "n_mpjpe_mm": float(known.mean()),
        "pa_mpjpe_mm": float(errors_mm.pa_mpjpe.nanmean()),
        "mpjpe_mm": float(errors_mm.mpjpe.nanmean()),
        "n_pck_150": float(100 * within[-1]),
        "auc": float(100 * within.mean()),
    }


def motion_summary(errors_mm: MotionErrors) -> dict[str, float]:
    """Means over joints and poses: MPJVE, and the acceleration error in metres."""
    return {
        "mpjve_mm_s": float(errors_mm.velocity.nanmean()),
        "acceleration_m_s2": float(errors_mm.acceleration.nanmean()) / 1000,
    }


class RefinementErrors(NamedTuple):
    """2D error of every joint before and after repair, and which of them count."""

    detected: Float[Tensor, "N J"]  # pixels
    refined: Float[Tensor, "N J"]
    head: Float[Tensor, " N"]  # head size in pixels
    counted: Bool[Tensor, "N J"]  # observed, with known truth, and seen by another view too
    unsure: Bool[Tensor, "N J"]  # confidence below the threshold of repair


def refinement_summary(errors: RefinementErrors, joints: Sequence[str]) -> dict[str, Any]:
    """Mean 2D error and joint detection rate, before and after repair (CVSF, Table 2).

    JDR is the share of joints nearer to the truth than half of the head size, in %.
    """
    columns = {
        name: [j for j, joint in enumerate(joints) if joint in (f"l_{name}", f"r_{name}")]
        for name in JDR_JOINTS
    }
    results: dict[str, Any] = {}
    for kind, error in (("detected", errors.detected), ("refined", errors.refined)):
        found = errors.counted & (error < 0.5 * errors.head[:, None])
        results[f"{kind}_px"] = float(error[errors.counted].mean())
        results[f"{kind}_unsure_px"] = float(error[errors.counted & errors.unsure].mean())
        results[f"jdr_{kind}"] = {
            name: float(100 * found[:, c].sum() / errors.counted[:, c].sum().clamp_min(1))
            for name, c in columns.items()
            if c
        }
    results["unsure_share"] = float((errors.counted & errors.unsure).sum() / errors.counted.sum())
    return results


def reprojection_gaps(views: Views, lifted: Lifted) -> Float[Tensor, "B V V J"]:
    """Distance of the pose of each view (first V) from the detections of each view (second V).

    Needs no truth. In units of the longer side of the person's box; NaN where the joint was not
    observed, or nothing was observed in the view that the pose is from.
    """
    observed = views.observed[:, None]
    image = unit_scale(lifted.in_every_image, observed)
    gap = image * norm(views.keypoints, views.observed)[:, None] - views.keypoints[:, None]
    low = views.keypoints.masked_fill(~views.observed[..., None], torch.inf).amin(-2)
    high = views.keypoints.masked_fill(~views.observed[..., None], -torch.inf).amax(-2)
    share = gap.norm(dim=-1) / (high - low).amax(-1)[:, None, :, None]
    counted = observed & views.observed.any(-1)[:, :, None, None] & (share < torch.inf)
    return share.masked_fill(~counted, torch.nan)
