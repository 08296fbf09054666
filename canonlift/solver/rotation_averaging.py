"""Rotations of cameras from many estimates of how each is turned."""

import torch
from jaxtyping import Float
from torch import Tensor

from canonlift.geometry.rotations import nearest_rotation


def average_cameras(relations: Float[Tensor, "N W W"]) -> Float[Tensor, "N V 3 3"]:
    """Rotations from one frame to every camera, from sums of those between the cameras.

    The sums are 3 x 3 blocks of one symmetric matrix, v from u. Its leading eigenvectors are the
    rotations, up to the choice of the frame, exactly where all sums agree.
    """
    leading = torch.linalg.eigh(relations).eigenvectors[..., -3:]
    blocks = leading.unflatten(1, (-1, 3))
    mirrored = torch.det(blocks).sum(-1) < 0
    return nearest_rotation(torch.where(mirrored[:, None, None, None], -blocks, blocks))


def relations(
    rotation: Float[Tensor, "*N T V 3 3"], seen: Float[Tensor, "*N T V"]
) -> Float[Tensor, "*N W W"]:
    """Mean over time of the rotations between all cameras with detections, in blocks."""
    stacked = (rotation * seen[..., None, None]).movedim(-4, -2).flatten(-4, -3).flatten(-2)
    return stacked @ stacked.mT / seen.shape[-2]
