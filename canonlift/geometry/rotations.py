"""Rotation matrices from numbers that a network can predict, and from sums of rotations."""

import torch
from jaxtyping import Float
from torch import Tensor


def from_axis_angle(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation about `vector` by its length in radians; differentiable at zero too.

    With the half angle h and v = axis * sin(h), Rodrigues' formula is e + 2 cos(h) v x e
    + 2 v x (v x e): no difference of nearly equal numbers at small angles.
    """
    half = 0.5 * torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    v = (0.5 * torch.sinc(half / torch.pi) * vector)[..., None, :]
    eye = torch.eye(3, dtype=vector.dtype, device=vector.device)
    # Row r is the unit vector r under the inverse rotation, which is row r of the rotation.
    twice = 2.0 * torch.linalg.cross(eye.expand(*v.shape[:-2], 3, 3), v)
    return torch.addcmul(eye + torch.linalg.cross(twice, v), half.cos()[..., None], twice)


def from_six(columns: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation whose first two columns span the two given ones (Zhou et al. 2019, Eq. 15).

    Parallel or zero columns do not determine a rotation; the result is then finite but arbitrary.
    """
    first, second = columns[..., :3], columns[..., 3:]
    x = torch.nn.functional.normalize(first, dim=-1)
    y = torch.nn.functional.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)


def nearest_rotation(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation nearest to a matrix in least squares: the mean of rotations, from their sum."""
    u, _, vt = torch.linalg.svd(matrix)
    sign = torch.ones_like(matrix[..., 0])
    sign[..., -1] = torch.det(u @ vt).sign()
    return u @ (sign[..., None] * vt)
