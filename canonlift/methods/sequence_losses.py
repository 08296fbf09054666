"""What a sequence model may be trained by, beside the consistency of its views.

As in `losses`, distances are means per joint, weighted by confidence or trust. They are in the
unit of each window, about half the height of a person, so none depends on the size of the image.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from canonlift import distributed
from canonlift.body.anatomy import handedness
from canonlift.geometry.scale import SMALLEST_NORM
from canonlift.methods.frame_losses import weighted_mean
from canonlift.types import Motion, Target, Windows


def reprojection(windows: Windows, motion: Motion) -> Float[Tensor, ""]:
    """Distance between joints and predictions in the image (Ingwersen et al., Eq. 7).

    Weak perspective, with one scale for a view of a window: that of its keypoints, which the
    prediction is in. So the size of the poses is tied to that of the input.
    """
    gap = motion.in_camera[..., :2] - windows.keypoints
    return weighted_mean(_length(gap, windows), windows.confidence)


def position(windows: Windows, motion: Motion) -> Float[Tensor, ""]:
    """Distance from the target (Eq. 5, `pos`), in the size in which it fits the image.

    An uncalibrated camera does not know the unit of the target. One factor per view of a window
    brings it to that of the keypoints.
    """
    target, trust = _target(windows)
    return weighted_mean(_length(motion.in_camera - target, windows), trust)


def velocity(windows: Windows, motion: Motion) -> Float[Tensor, ""]:
    """Distance between the differences of consecutive frames and the target's (Eq. 5, `vel`)."""
    target, trust = _target(windows)
    gap = motion.in_camera.diff(dim=2) - target.diff(dim=2)
    return weighted_mean(_length(gap, windows), trust[:, :, 1:] * trust[:, :, :-1])


def scale_free(windows: Windows, motion: Motion) -> Float[Tensor, ""]:
    """`position` after the best factor for every pose (Rhodin et al. 2018; Eq. 5, `scale`)."""
    target, trust = _target(windows)
    pose, weight = motion.in_camera, trust[..., None]
    fit = (weight * pose * target).sum((-2, -1), keepdim=True).clamp_min(0.0)
    square = (weight * pose.square()).sum((-2, -1), keepdim=True)
    factor = fit / square.clamp_min(SMALLEST_NORM)
    return weighted_mean(_length(factor * pose - target, windows), trust)


def fold(windows: Windows, motion: Motion, joints: Sequence[str]) -> Float[Tensor, ""]:
    """How far knees and elbows fold the wrong way: 0 for people (see `anatomy.handedness`).

    All other losses without 3D have the same value for a pose and its mirror image, and every
    frame in which anything was seen counts alike here. One vote at the end of a
    phase turns all recordings round or none, which is too late where some windows began as
    people and others as mirror images: the network has learned to tell them apart. Not in the
    papers.
    """
    seen = windows.observed.any(-1)
    pose = motion.in_camera / windows.unit
    pose = torch.where(seen[..., None, None], pose, pose.detach())
    return weighted_mean((-handedness(pose, joints)).relu(), seen.to(pose.dtype))


def spread(windows: Windows, motion: Motion) -> Float[Tensor, ""]:
    """Size of the predictions in the image, relative to what was seen: 1 if all is well.

    Poses that have collapsed to a point have 0, however consistent they are.
    """
    weight = windows.confidence[..., None] / windows.unit.square()
    sizes = [
        (weight * points.square()).sum()
        for points in (motion.in_camera[..., :2].detach(), windows.keypoints)
    ]
    predicted, seen = distributed.over_all(*sizes)
    return (predicted / seen.clamp_min(SMALLEST_NORM)).sqrt()


def depth(windows: Windows, motion: Motion) -> Float[Tensor, ""]:
    """Depth of the predictions relative to their width: around 1 for people seen from all sides.

    Flat poses have 0.
    """
    weight = windows.confidence[..., None] / windows.unit.square()
    pose = motion.in_camera.detach()
    wide, deep = distributed.over_all(
        *((weight * pose[..., axis : axis + 1].square()).sum() for axis in (0, 2))
    )
    return (deep / wide.clamp_min(SMALLEST_NORM)).sqrt()


def movement(windows: Windows, motion: Motion) -> Float[Tensor, ""]:
    """How far the predictions depart from their own mean over a window, relative to what was seen.

    What was seen trembles, so the truth has less than 1. Poses that stay the same have 0: they
    agree with each other, however large they are.
    """
    weight = windows.confidence[..., None]
    total = weight.sum(2, keepdim=True).clamp_min(SMALLEST_NORM)
    sizes = []
    for points in (motion.in_camera[..., :2].detach(), windows.keypoints):
        mean = (weight * points).sum(2, keepdim=True) / total
        sizes.append((weight * ((points - mean) / windows.unit).square()).sum())
    predicted, seen = distributed.over_all(*sizes)
    return (predicted / seen.clamp_min(SMALLEST_NORM)).sqrt()


def _target(windows: Windows) -> tuple[Float[Tensor, "B V T J 3"], Float[Tensor, "B V T J"]]:
    """The target in the size of the keypoints, and the trust in it; none where that is unknown.

    Raises:
        ValueError: if there is no target.
    """
    target: Target | None = windows.target
    if target is None:
        raise ValueError("nothing to learn from: the windows have no target; see data.target")
    both = (target.trust * windows.confidence)[..., None]
    image, every = target.pose[..., :2], (2, 3, 4)
    fit = (both * image * windows.keypoints).sum(every, keepdim=True)
    square = (both * image.square()).sum(every, keepdim=True)
    fits = (fit > 0) & (square > SMALLEST_NORM)
    factor = torch.where(fits, fit / torch.where(fits, square, 1.0), 0.0)
    return factor * target.pose, target.trust * fits[..., 0]


def _length(gap: Float[Tensor, "B V T J D"], windows: Windows) -> Float[Tensor, "B V T J"]:
    return torch.linalg.vector_norm(gap, dim=-1) / windows.unit[..., 0]
