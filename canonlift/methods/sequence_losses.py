"""Losses of windows, one view at a time: its own detections, a target, and anatomy.

As in `frame_losses`, distances are means per joint, weighted by confidence or trust. They are in
the unit of each window, about half the height of a person, so none depends on the size of the
image.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from canonlift import distributed
from canonlift.body.anatomy import handedness
from canonlift.geometry.scale import SMALLEST_NORM
from canonlift.methods.frame_losses import weighted_mean
from canonlift.types import Lifted, Target, Views


def own_view(views: Views, lifted: Lifted) -> Float[Tensor, ""]:
    """Distance between joints and predictions in the image (Ingwersen et al., Eq. 7).

    Weak perspective, with one scale for a view of a window: that of its keypoints, which the
    prediction is in. So the size of the poses is tied to that of the input.
    """
    gap = lifted.in_camera[..., :2] - views.keypoints
    return weighted_mean(_length(gap, views), views.confidence)


def target_position(views: Views, lifted: Lifted) -> Float[Tensor, ""]:
    """Distance from the target (Eq. 5, `pos`), in the size in which it fits the image.

    An uncalibrated camera has no unit in common with the target. One factor per view of a window
    brings the target to the unit of the keypoints.
    """
    target, trust = _target(views)
    return weighted_mean(_length(lifted.in_camera - target, views), trust)


def target_velocity(views: Views, lifted: Lifted) -> Float[Tensor, ""]:
    """Distance between the differences of consecutive frames and the target's (Eq. 5, `vel`)."""
    target, trust = _target(views)
    gap = lifted.in_camera.diff(dim=2) - target.diff(dim=2)
    return weighted_mean(_length(gap, views), trust[:, :, 1:] * trust[:, :, :-1])


def target_scale_free(views: Views, lifted: Lifted) -> Float[Tensor, ""]:
    """`target_position` after the best factor per pose (Rhodin et al. 2018; Eq. 5, `scale`)."""
    target, trust = _target(views)
    pose, weight = lifted.in_camera, trust[..., None]
    fit = (weight * pose * target).sum((-2, -1), keepdim=True).clamp_min(0.0)
    square = (weight * pose.square()).sum((-2, -1), keepdim=True)
    factor = fit / square.clamp_min(SMALLEST_NORM)
    return weighted_mean(_length(factor * pose - target, views), trust)


def flexion(views: Views, lifted: Lifted, joints: Sequence[str]) -> Float[Tensor, ""]:
    """How far knees and elbows bend the wrong way: 0 for people (see `anatomy.handedness`).

    All other losses without 3D have the same value for a pose and its mirror image. The mirror
    check at the end of a phase mirrors all recordings or none, which is too late where a random
    start left some windows mirrored and others not. Every frame with a detection counts alike.
    Not in the papers.
    """
    seen = views.observed.any(-1)
    pose = lifted.in_camera / views.unit
    pose = torch.where(seen[..., None, None], pose, pose.detach())
    return weighted_mean((-handedness(pose, joints)).relu(), seen.to(pose.dtype))


def spread(views: Views, lifted: Lifted) -> Float[Tensor, ""]:
    """Size of the predictions in the image, relative to the detections: 1 if all is well.

    Poses that have collapsed to a point have 0, however consistent they are.
    """
    weight = views.confidence[..., None] / views.unit.square()
    sizes = [
        (weight * points.square()).sum()
        for points in (lifted.in_camera[..., :2].detach(), views.keypoints)
    ]
    predicted, seen = distributed.over_all(*sizes)
    return (predicted / seen.clamp_min(SMALLEST_NORM)).sqrt()


def depth(views: Views, lifted: Lifted) -> Float[Tensor, ""]:
    """Depth of the predictions relative to their width: around 1 for people filmed from all sides.

    Flat poses have 0.
    """
    weight = views.confidence[..., None] / views.unit.square()
    pose = lifted.in_camera.detach()
    wide, deep = distributed.over_all(
        *((weight * pose[..., axis : axis + 1].square()).sum() for axis in (0, 2))
    )
    return (deep / wide.clamp_min(SMALLEST_NORM)).sqrt()


def movement(views: Views, lifted: Lifted) -> Float[Tensor, ""]:
    """How far predictions depart from their own mean over a window, relative to the detections.

    Detections are noisy, so true poses have less than 1. Poses that stay the same have 0, however
    large they are.
    """
    weight = views.confidence[..., None]
    total = weight.sum(2, keepdim=True).clamp_min(SMALLEST_NORM)
    sizes = []
    for points in (lifted.in_camera[..., :2].detach(), views.keypoints):
        mean = (weight * points).sum(2, keepdim=True) / total
        sizes.append((weight * ((points - mean) / views.unit).square()).sum())
    predicted, seen = distributed.over_all(*sizes)
    return (predicted / seen.clamp_min(SMALLEST_NORM)).sqrt()


def _target(views: Views) -> tuple[Float[Tensor, "B V T J 3"], Float[Tensor, "B V T J"]]:
    """The target in the size of the keypoints, and the trust in it; none where that is unknown.

    Raises:
        ValueError: if there is no target.
    """
    target: Target | None = views.target
    if target is None:
        raise ValueError("there is nothing to learn: the views have no target; see data.target")
    both = (target.trust * views.confidence)[..., None]
    image, every = target.pose[..., :2], (2, 3, 4)
    fit = (both * image * views.keypoints).sum(every, keepdim=True)
    square = (both * image.square()).sum(every, keepdim=True)
    fits = (fit > 0) & (square > SMALLEST_NORM)
    factor = torch.where(fits, fit / torch.where(fits, square, 1.0), 0.0)
    return factor * target.pose, target.trust * fits[..., 0]


def _length(gap: Float[Tensor, "B V T J D"], views: Views) -> Float[Tensor, "B V T J"]:
    return torch.linalg.vector_norm(gap, dim=-1) / views.unit[..., 0]
