"""Epipolar lines between canonical views: where a point of one view lies in another."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Lines(NamedTuple):
    """Lines in an image: the points x with `normal . x == offset`."""

    normal: Float[Tensor, "*batch 2"]  # unit length
    offset: Float[Tensor, "*batch J"]
    sine: Float[Tensor, "*batch"]  # of the angle between the optical axes, in [0, 1]


class Normals(NamedTuple):
    """Point x of view n lies on the line `target . x_m == source . x` in view m."""

    target: Float[Tensor, "*batch 2"]  # unit length
    source: Float[Tensor, "*batch 2"]
    sine: Float[Tensor, "*batch"]  # of the angle between the optical axes, in [0, 1]


def epipolar_normals(m_from_n: Float[Tensor, "*batch 3 3"]) -> Normals:
    """Normals of the epipolar lines in view m of all points of view n, orthographic cameras.

    Without perspective all rays of a view are parallel, so their images in another view share one
    normal (CVSF, Sec. 3.3). Both views must have the same scale. Where both optical axes are
    parallel, a ray's image is a point: `sine` is 0 and the line is any through that point.

    CVSF prints the relative rotation as R_n R_m^T; the one from view n to view m is
    m_from_n = R_m R_n^T.
    """
    direction = m_from_n[..., :2, 2]
    sine = direction.square().sum(-1).clamp_min(1e-24).sqrt()
    target = torch.stack([-direction[..., 1], direction[..., 0]], dim=-1) / sine[..., None]
    along_x = torch.eye(2, dtype=target.dtype, device=target.device)[0]
    target = torch.where((sine > 1e-6)[..., None], target, along_x)
    return Normals(target, torch.einsum("...r,...rc->...c", target, m_from_n[..., :2, :2]), sine)


def epipolar_lines(
    points: Float[Tensor, "*batch J 2"], m_from_n: Float[Tensor, "*batch 3 3"]
) -> Lines:
    """Lines in view m of points in view n; see `epipolar_normals`."""
    target, source, sine = epipolar_normals(m_from_n)
    return Lines(target, torch.einsum("...jc,...c->...j", points, source), sine)
