"""Scale in the canonical camera, in which a pose has the same size in every view."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SMALLEST_NORM = 1e-12


def norm(
    points: Float[Tensor, "*#batch J D"], observed: Bool[Tensor, "*#batch J"]
) -> Float[Tensor, "*batch 1 1"]:
    """Euclidean norm of all observed coordinates together, never below 1e-12."""
    seen = torch.where(observed[..., None], points, 0.0)
    # One pass forward and one backward; the gradient is 0 at exactly zero.
    size = torch.linalg.vector_norm(seen, dim=(-2, -1), keepdim=True)
    return size.clamp_min(SMALLEST_NORM)


def unit_scale(
    points: Float[Tensor, "*#batch J D"], observed: Bool[Tensor, "*#batch J"]
) -> Float[Tensor, "*batch J D"]:
    """Points divided by their `norm`: the canonical plane of CVSF.

    Only observed joints count, so that a view with a missing arm has the same scale as a
    prediction restricted to the same joints. (The papers do not treat missing joints.)
    """
    return points * norm(points, observed).reciprocal()
