"""The similarity between two sets of points that correspond."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Similarity(NamedTuple):
    """x -> scale * rotation @ x + translation."""

    scale: Float[Tensor, "*batch"]
    rotation: Float[Tensor, "*batch 3 3"]
    translation: Float[Tensor, "*batch 3"]

    def __call__(self, points: Float[Tensor, "*batch J 3"]) -> Float[Tensor, "*batch J 3"]:
        """Move points."""
        turned = points @ self.rotation.mT
        return self.scale[..., None, None] * turned + self.translation[..., None, :]


def align_similarity(
    source: Float[Tensor, "*batch J 3"],
    target: Float[Tensor, "*batch J 3"],
    weight: Float[Tensor, "*batch J"] | None = None,
) -> Similarity:
    """Find the similarity that best maps `source` onto `target` (Umeyama 1991, Eqs. 40-42).

    Reflections are never returned: a left-right mirrored pose must cost error, not be
    forgiven. Points on a line leave the turn about it open; one of the equally good answers
    is returned.

    Args:
        source: points to move.
        target: points to meet, in the same joint order.
        weight: importance of each joint; 0 leaves it out. None: all the same.

    Raises:
        ValueError: if a source set is a single repeated point, whose scale is undefined.
    """
    weight = torch.ones_like(source[..., 0]) if weight is None else weight
    weight = (weight / weight.sum(-1, keepdim=True).clamp_min(1e-12))[..., None]
    source_mean = (weight * source).sum(-2, keepdim=True)
    target_mean = (weight * target).sum(-2, keepdim=True)
    source_centred, target_centred = source - source_mean, target - target_mean
    variance = (weight * source_centred.square()).sum(dim=(-2, -1))
    # The mean of equal points is off by rounding, so their variance need not be exactly 0.
    rounding = 16 * torch.finfo(source.dtype).eps
    if (variance <= rounding**2 * (weight * source.square()).sum(dim=(-2, -1))).any():
        raise ValueError("cannot align: a source point set is a single repeated point")

    u, singular, vt = torch.linalg.svd((weight * target_centred).mT @ source_centred)
    sign = torch.ones_like(singular)
    sign[..., -1] = torch.det(u @ vt).sign()  # -1 where the best orthogonal map is a mirror
    rotation = u @ (sign[..., None] * vt)
    scale = (singular * sign).sum(-1) / variance
    translation = target_mean - scale[..., None, None] * source_mean @ rotation.mT
    return Similarity(scale, rotation, translation.squeeze(-2))
