"""Rotation matrices from numbers that a network can predict, and from sums of rotations."""

from typing import Any

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
    """The rotation R nearest to a matrix M in least squares, never a reflection.

    It maximises trace(R^T M): of a sum of rotations it is the mean, and of the product of two
    centred sets of points it aligns them (Procrustes). R as a quaternion is the eigenvector of
    the largest eigenvalue of a symmetric 4 x 4 matrix (Horn 1987), which is found by squaring
    that matrix SQUARINGS times; a CPU would wait for a GPU's SVD. It is as accurate as an SVD down
    to points within 0.1 % of their extent from a line. Of equally good rotations one is returned.

    With M = R P and P symmetric, the differential of R divides by the sums x of two eigenvalues
    of P. A rotation in a plane whose sum is nearly 0 depends on noise only, and gets no gradient:
    1 / x is multiplied by x^4 / (x^4 + t^4) with t = UNDETERMINED |M|.
    """
    return _NearestRotation.apply(matrix)


# Relative to the norm of M: for points within 3 % of their extent from a line, half the gradient
# of the turn about the line is left.
UNDETERMINED = 1e-3
SQUARINGS = 24


class _NearestRotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(_wide(matrix), dim=(-2, -1), keepdim=True)
        size = size.clamp_min(torch.finfo(size.dtype).tiny)
        scaled = matrix / size
        # No eigenvalue is below -sqrt(3), so now the largest is also the one of greatest size.
        power = _horn(scaled) + 3**0.5 * torch.eye(4, dtype=size.dtype, device=size.device)
        for _ in range(SQUARINGS // 3):
            power = torch.linalg.matrix_power(power / _trace(power), 2**3)
        # A multiple of q q^T, of which the longest row is taken.
        longest = torch.diagonal(power, dim1=-2, dim2=-1).argmax(-1)[..., None, None]
        quaternion = torch.nn.functional.normalize(power.take_along_dim(longest, -2), dim=-1)
        rotation = _of_products(quaternion.mT @ quaternion)
        ctx.save_for_backward(scaled, size, rotation)
        return rotation.to(matrix.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]: one output, one gradient
        ctx: Any, gradient: Tensor
    ) -> Tensor:
        scaled, size, rotation = ctx.saved_tensors
        symmetric = rotation.mT @ scaled
        eye = torch.eye(3, dtype=size.dtype, device=size.device)
        sums = _trace(symmetric) * eye - symmetric  # its eigenvalues are sums of two of those
        inner = rotation.mT @ _wide(gradient)
        third = torch.linalg.matrix_power(sums, 3)
        turn = torch.linalg.solve_ex(  # which does not wait for the device
            third @ sums + UNDETERMINED**4 * eye, third @ _axis(inner - inner.mT)[..., None]
        ).result
        return (rotation @ _cross(turn[..., 0] / size[..., 0])).to(gradient.dtype)


def _wide(values: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """In double precision, which costs nothing on so few numbers; Metal has none."""
    return values if values.device.type == "mps" else values.double()


def _trace(matrix: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch 1 1"]:
    return torch.diagonal(matrix, dim1=-2, dim2=-1).sum(-1)[..., None, None]


def _horn(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4 4"]:
    """The matrix K for which q^T K q is trace(R(q)^T M) of a unit quaternion q = (w, x, y, z)."""
    trace, axis = _trace(matrix), _axis(matrix - matrix.mT)[..., None]
    eye = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    lower = torch.cat([axis, matrix + matrix.mT - trace * eye], dim=-1)
    return torch.cat([torch.cat([trace, axis.mT], dim=-1), lower], dim=-2)


def _of_products(products: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation of a unit quaternion (w, v), of its products with itself."""
    squares = products[..., 1:, 1:]
    eye = torch.eye(3, dtype=products.dtype, device=products.device)
    along = (products[..., :1, :1] - _trace(squares)) * eye + 2 * squares
    return along + 2 * _cross(products[..., 0, 1:])


def _axis(skew: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """The vector w of a matrix that maps v to w x v."""
    return torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], dim=-1)


def _cross(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The matrix that maps v to `vector` x v."""
    eye = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return torch.linalg.cross(eye.expand(*vector.shape, 3), vector[..., None, :])
