"""The similarity between two sets of points that correspond."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from canonlift.geometry.rotations import nearest_rotation


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
    """The similarity that best maps `source` onto `target` (Umeyama 1991, Eqs. 40-42).

    Reflections are never returned, so a mirrored pose keeps its error. For points on a line the
    rotation about it is undetermined, and one of the equally good ones is returned.

    Args:
        source: points to move.
        target: where to move them, in the same joint order.
        weight: of each joint; 0 leaves it out. None: equal weights.

    Raises:
        ValueError: if a source set is a single repeated point, whose scale is undefined.
    """
    weight = torch.ones_like(source[..., 0]) if weight is None else weight
    sets = _Sets.of(source, target, weight)
    if sets.constant_source.any():
        raise ValueError("cannot align: a source point set is a single repeated point")
    return _similarity(sets, nearest_rotation(sets.cross))


def align_both_ways(
    first: Float[Tensor, "*batch J 3"],
    second: Float[Tensor, "*batch J 3"],
    weight: Float[Tensor, "*batch J"],
) -> tuple[Similarity, Similarity, Bool[Tensor, "*batch"]]:
    """`align_similarity` of first onto second, of second onto first, and where these exist.

    They do not exist where fewer than three points have weight or a set is a single repeated
    point. The result there is the identity, without a gradient.
    """
    sets = _Sets.of(first, second, weight)
    exists = ~(sets.constant_source | sets.constant_target) & ((weight > 0).sum(-1) >= 3)
    some = exists[..., None, None]
    eye = torch.eye(3, dtype=first.dtype, device=first.device)
    sets = sets._replace(
        cross=torch.where(some, sets.cross, eye),
        source_mean=torch.where(some, sets.source_mean, 0.0),
        target_mean=torch.where(some, sets.target_mean, 0.0),
        source_variance=torch.where(exists, sets.source_variance, 3.0),
        target_variance=torch.where(exists, sets.target_variance, 3.0),
    )
    rotation = nearest_rotation(sets.cross)
    return _similarity(sets, rotation), _similarity(sets.swapped, rotation.mT), exists


class _Sets(NamedTuple):
    """Moments of two weighted sets of points, which determine the similarity between them."""

    cross: Float[Tensor, "*batch 3 3"]  # target times source, about their means
    source_mean: Float[Tensor, "*batch 1 3"]
    target_mean: Float[Tensor, "*batch 1 3"]
    source_variance: Float[Tensor, "*batch"]
    target_variance: Float[Tensor, "*batch"]
    constant_source: Bool[Tensor, "*batch"]  # a single repeated point
    constant_target: Bool[Tensor, "*batch"]

    @classmethod
    def of(cls, source: Tensor, target: Tensor, weight: Tensor) -> "_Sets":
        weight = (weight / weight.sum(-1, keepdim=True).clamp_min(1e-12))[..., None]
        means = [(weight * points).sum(-2, keepdim=True) for points in (source, target)]
        centred = [points - mean for points, mean in zip((source, target), means, strict=True)]
        variances = [(weight * points.square()).sum(dim=(-2, -1)) for points in centred]
        # The mean of equal points is off by rounding, so their variance need not be exactly 0.
        rounding = 16 * torch.finfo(source.dtype).eps
        constant = [
            variance <= rounding**2 * (weight * points.square()).sum(dim=(-2, -1))
            for points, variance in zip((source, target), variances, strict=True)
        ]
        return cls((weight * centred[1]).mT @ centred[0], *means, *variances, *constant)

    @property
    def swapped(self) -> "_Sets":
        cross, source, target, of_source, of_target, constant_source, constant_target = self
        return _Sets(
            cross.mT, target, source, of_target, of_source, constant_target, constant_source
        )


def _similarity(sets: _Sets, rotation: Float[Tensor, "*batch 3 3"]) -> Similarity:
    # The rotation maximises the trace, so its own gradient is zero there.
    scale = (rotation.detach() * sets.cross).sum((-2, -1)) / sets.source_variance
    moved = scale[..., None, None] * sets.source_mean @ rotation.mT
    return Similarity(scale, rotation, (sets.target_mean - moved).squeeze(-2))
