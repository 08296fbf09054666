"""Lines that a point seen in one canonical view draws in another."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Lines(NamedTuple):
    """The points x of an image with `normal . x == offset`."""

    normal: Float[Tensor, "*batch 2"]  # unit length
    offset: Float[Tensor, "*batch J"]
    sine: Float[Tensor, "*batch"]  # of the angle between the optical axes, in [0, 1]


def epipolar_lines(
    points: Float[Tensor, "*batch J 2"], m_from_n: Float[Tensor, "*batch 3 3"]
) -> Lines:
    """Lines in view m of points in view n, under orthographic projection (CVSF, Sec. 3.3).

    Without perspective all rays of a view are parallel, so its lines in another view share one
    normal. Both views must have one scale. The rays of views that look along one axis are points
    in each other: `sine` is 0 there, and the line an arbitrary one through that point.

    CVSF prints the relative rotation as R_n R_m^T; what takes view n's rays to view m is
    m_from_n = R_m R_n^T.
    """
    direction = m_from_n[..., :2, 2]
    sine = direction.square().sum(-1).clamp_min(1e-24).sqrt()
    normal = torch.stack([-direction[..., 1], direction[..., 0]], dim=-1) / sine[..., None]
    fallback = torch.tensor([1.0, 0.0], dtype=normal.dtype, device=normal.device)
    normal = torch.where((sine > 1e-6)[..., None], normal, fallback)
    through = torch.einsum("...rc,...jc->...jr", m_from_n[..., :2, :2], points)
    return Lines(normal, torch.einsum("...jr,...r->...j", through, normal), sine)
