"""Rotations from what a network can predict."""

import torch
from jaxtyping import Float
from kornia.geometry.conversions import axis_angle_to_rotation_matrix
from torch import Tensor


def from_axis_angle(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation about `vector` by its length in radians; differentiable at zero too."""
    return axis_angle_to_rotation_matrix(vector.reshape(-1, 3)).reshape(*vector.shape[:-1], 3, 3)


def from_six(columns: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation whose first two columns span the two given ones (Zhou et al. 2019, Eq. 15).

    Parallel or zero columns leave a turn open; the result is then finite but arbitrary.
    """
    first, second = columns[..., :3], columns[..., 3:]
    x = torch.nn.functional.normalize(first, dim=-1)
    y = torch.nn.functional.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)


def nearest_rotation(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation nearest to a matrix in least squares; of a sum of rotations, their mean."""
    u, _, vt = torch.linalg.svd(matrix)
    sign = torch.ones_like(matrix[..., 0])
    sign[..., -1] = torch.det(u @ vt).sign()
    return u @ (sign[..., None] * vt)
