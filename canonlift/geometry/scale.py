"""Scale and projection in the canonical camera, where every view sees a pose at one size."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SMALLEST_NORM = 1e-12


def orthographic(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 2"]:
    """Image of points in camera axes: depth is dropped (CVSF, Eq. 1)."""
    return points[..., :2]


def norm(
    points: Float[Tensor, "*#batch J D"], observed: Bool[Tensor, "*#batch J"]
) -> Float[Tensor, "*batch 1 1"]:
    """Euclidean norm of all observed coordinates together, never below 1e-12."""
    squares = torch.where(observed[..., None], points, 0.0).square()
    return squares.sum(dim=(-2, -1), keepdim=True).clamp_min(SMALLEST_NORM**2).sqrt()


def unit_scale(
    points: Float[Tensor, "*#batch J D"], observed: Bool[Tensor, "*#batch J"]
) -> Float[Tensor, "*batch J D"]:
    """Points divided by their `norm`: the canonical plane of CVSF.

    Only joints observed in both count, so that a view with a missing arm is not magnified
    against a prediction that has one. (The papers do not treat missing joints.)
    """
    return points / norm(points, observed)
