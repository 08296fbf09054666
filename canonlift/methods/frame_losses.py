"""Losses of single frames: how well the poses lifted from all views fit the detections of all.

All take `instants`, in which every frame is a sample and there is no axis of time.

Every pair of views weighs the same, a view with itself included (CVSF, Eq. 7). All distances
are means per joint, weighted by confidence, so that a batch in which many joints are unseen does
not count less. The papers sum instead: there the terms that confidences weigh shrink with the mean
confidence of a batch, beside `consistency_3d`, which has no weights.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from canonlift import distributed
from canonlift.geometry.scale import norm, unit_scale
from canonlift.types import Lifted, Target, Views


def reprojection(views: Views, lifted: Lifted) -> Float[Tensor, ""]:
    """L1 distance of the pose lifted from each view, projected into each view (CVSF, Eq. 3 and 5).

    With views as detected this is `rep`; with repaired views, `ref-rep`.
    """
    seen = unit_scale(lifted.in_every_image, views.observed[:, None])
    gap = unit_scale(views.keypoints, views.observed)[:, None] - seen
    from_seen_view = views.observed.any(-1)[:, :, None, None]  # an empty view has no pose
    weight = views.confidence[:, None] * from_seen_view
    return weighted_mean(gap.abs().sum(-1), weight)


def refinement(views: Views, fused: Views) -> Float[Tensor, ""]:
    """L1 distance between detected and repaired joints, in units of the pose (CVSF, Eq. 4).

    The paper prints the repaired pose of view n beside the input of view m; poses of different
    views are not comparable in 2D, so n is read as m.
    """
    gap = (views.keypoints - fused.keypoints) / norm(views.keypoints, views.observed)
    return weighted_mean(gap.abs().sum(-1), views.confidence)


def consistency_3d(views: Views, pose: Float[Tensor, "B V J 3"]) -> Float[Tensor, ""]:
    """L1 distance between the canonical poses lifted from any two views (CVSF, Eq. 6).

    Poses are brought to unit norm first. Reprojection does not depend on their scale, so as
    printed the loss could be made zero by shrinking every pose to a point.
    """
    n_joints = pose.shape[-2]
    points = unit_scale(pose, torch.ones_like(pose[..., 0], dtype=torch.bool)).flatten(-2)
    gap = torch.cdist(points, points, p=1.0) / n_joints
    seen = views.observed.any(-1)
    return weighted_mean(gap, (seen[:, :, None] & seen[:, None]).to(gap.dtype))


def target_pose(views: Views, target: Target | None, lifted: Lifted) -> Float[Tensor, ""]:
    """L1 distance of the pose lifted from each view, in each camera, from a 3D target.

    `reprojection` with a third dimension, and as independent of size. The network is free to
    choose the canonical frame. Not in the papers: from a random start, reprojection alone can
    settle on flat poses (see `targets.solved`).

    Raises:
        ValueError: if there is no target.
    """
    if target is None:
        raise ValueError("there is nothing to learn: the views have no target; see data.target")
    known = target.trust > 0
    gap = unit_scale(target.pose, known)[:, None] - unit_scale(
        lifted.in_every_camera, known[:, None]
    )
    seen = views.observed.any(-1)[:, :, None, None]
    return weighted_mean(gap.abs().sum(-1), target.trust[:, None] * seen)


def camera_consistency(views: Views, lifted: Lifted) -> Float[Tensor, ""]:
    """L1 distance of the relative rotations of a fixed rig between two times (CanonPose, Eq. 8).

    Each sample is compared with the next one of the same rig in the batch, and the last with the
    first; batches are shuffled, so these are random pairs. Samples of moving cameras
    (rig -1), and of a rig that is alone in the batch, cost nothing. Where several processes
    share a batch, each pairs the samples of its own part.
    """
    order = views.rig.argsort(stable=True)
    rig = views.rig[order]
    first = torch.searchsorted(rig, rig)  # where this rig starts in `order`
    position = torch.arange(len(rig), device=rig.device)
    last = torch.searchsorted(rig, rig, right=True) - 1
    partner = torch.where(position == last, first, position + 1)

    rotation = lifted.to_camera[order]
    relative = torch.einsum("bmrk,bnck->bmnrc", rotation, rotation)
    seen = views.observed[order].any(-1)
    seen = seen & seen[partner] & (rig >= 0)[:, None]
    weight = (seen[:, :, None] & seen[:, None]).to(relative.dtype)
    gap = (relative - relative[partner]).abs().sum(dim=(-2, -1))
    return weighted_mean(gap, weight)


def weighted_mean(
    value: Float[Tensor, "*batch"], weight: Float[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """Weighted mean over the whole batch, however many processes share it; 0 without weight."""
    total, count = distributed.over_all((value * weight).sum(), weight.sum())
    return total / count.clamp_min(1e-12)
