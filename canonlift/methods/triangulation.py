"""Robust least squares over all views of a sample: poses from rotations, rotations from poses.

The cameras are orthographic, each with its own scale. In the canonical frame the detection of a
joint in one view gives two linear equations for the joint's three coordinates.
"""

from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from canonlift.geometry.scale import norm, unit_scale
from canonlift.types import Lifted, Views

TOLERANCE = 0.05  # 2D residual at which the weight of a detection is halved, in units of the pose
PRIOR_WEIGHT = 0.1  # of the lifted pose, relative to one detection of confidence 1
# Of a rotation towards the one it starts from, relative to the sum of the squared coordinates.
DAMPING = 0.05
REWEIGHTINGS = 8  # of the detections, for one triangulation


class Observations(NamedTuple):
    """Detections of all views in the scale of one pose."""

    points: Float[Tensor, "B V J 2"]  # 0 where unobserved
    confidence: Float[Tensor, "B V J"]
    scale: Float[Tensor, "B V 1 1"]  # units of the pose per unit of the view's norm
    prior: Float[Tensor, "B J 3"]  # mean of the poses lifted from each view, each of norm 1

    @classmethod
    def of(cls, views: Views, lifted: Lifted) -> "Observations":
        """Scale every view to the size that the mean lifted pose has in it."""
        observed = views.observed.any(-1)[..., None, None].to(lifted.pose.dtype)
        pose = unit_scale(lifted.pose, torch.ones_like(views.observed))
        prior = (pose * observed).sum(1) / observed.sum(1).clamp_min(1.0)
        image = torch.einsum("bvrc,bjc->bvjr", lifted.to_camera[:, :, :2], prior)
        scale = norm(image, views.observed).detach()
        points = unit_scale(views.keypoints, views.observed) * scale
        points = torch.where(views.observed[..., None], points, 0.0)
        return cls(points, views.confidence, scale, prior)


def triangulate(
    observations: Observations,
    rotation: Float[Tensor, "B V 3 3"],
    prior: Float[Tensor, "B J 3"],
    tolerance: float = TOLERANCE,
    reweightings: int = REWEIGHTINGS,
    prior_weight: float = PRIOR_WEIGHT,
) -> tuple[Float[Tensor, "B J 3"], Float[Tensor, "B V J"]]:
    """Pose that fits the detections for given rotations, and the final weight of each detection.

    Detections far from the common solution lose weight (Cauchy weights, recomputed a fixed number
    of times). The gradient is that of the last least squares with its weights held constant.
    `prior_weight` is relative to one detection of confidence 1.
    """
    axes = rotation[:, :, :2]
    n_views = axes.shape[1]
    row, column = torch.triu_indices(3, 3, device=axes.device)
    # What a view of weight 1 adds to the normal matrix and the right-hand side of any joint.
    normal_of_view = (axes.mT @ axes)[..., row, column].mT  # B 6 V
    right_of_view = torch.einsum("bvrc,bvjr->bvcj", axes, observations.points)
    normal_of_prior = prior_weight * (row == column).to(prior.dtype)[:, None]
    of_prior = normal_of_prior, prior_weight * prior.mT
    solve = partial(_solve_weighted, (normal_of_view, right_of_view), of_prior)
    points = observations.points.mT.flatten(1, 2)  # B 2V J

    with torch.no_grad():
        weight = observations.confidence
        for _ in range(reweightings):
            residual = (axes.flatten(1, 2) @ solve(weight)).sub_(points).div_(tolerance).square_()
            residual = residual.unflatten(1, (n_views, 2)).sum(2)
            weight = observations.confidence / residual.add_(1)
    return solve(weight).mT, weight


def _solve_weighted(
    of_view: tuple[Tensor, Tensor], of_prior: tuple[Tensor, Tensor], weight: Tensor
) -> Tensor:
    """Poses (B, 3, J) from normal matrices and right-hand sides, and the weights of the views."""
    right = (weight[:, :, None] * of_view[1]).sum(1) + of_prior[1]
    return _solve_symmetric(of_view[0] @ weight + of_prior[0], right)


def _solve_symmetric(
    upper: Float[Tensor, "B 6 J"], right: Float[Tensor, "B 3 J"]
) -> Float[Tensor, "B 3 J"]:
    """Solve 3 x 3 systems, given by the rows of their upper triangles, by cofactors.

    LAPACK, called once per system, would take most of the time, and would make the CPU wait for
    a GPU. `PRIOR_WEIGHT` and `DAMPING` bound the condition number.
    """
    xx, xy, xz, yy, yz, zz = upper.transpose(0, 1).contiguous()
    a, b, c = right.transpose(0, 1).contiguous()
    co_xx, co_xy, co_xz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    co_yy, co_yz, co_zz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    solved = torch.stack(
        [
            co_xx * a + co_xy * b + co_xz * c,
            co_xy * a + co_yy * b + co_yz * c,
            co_xz * a + co_yz * b + co_zz * c,
        ],
        dim=1,
    )
    return solved / (xx * co_xx + xy * co_xy + xz * co_xz)[:, None]


def resect(
    observations: Observations,
    rotation: Float[Tensor, "B V 3 3"],
    pose: Float[Tensor, "B J 3"],
    weight: Float[Tensor, "B V J"],
) -> Float[Tensor, "B V 3 3"]:
    """Rotations near the given ones that fit the weighted detections of a known pose.

    The first two rows are found by damped linear least squares and then made orthonormal.
    """
    turned = torch.einsum("bvrc,bjc->bvjr", rotation, pose)
    row, column = torch.triu_indices(3, 3, device=pose.device)
    normal = torch.einsum("bvj,bvjc->bcv", weight, turned[..., row] * turned[..., column])
    right = torch.einsum("bvj,bvjr,bvjc->bcvr", weight, observations.points, turned)
    diagonal = (row == column).to(pose.dtype)[:, None]
    damping = (DAMPING * (normal * diagonal).sum(1, keepdim=True)).clamp_min(1e-6)
    normal = normal + damping * diagonal
    eye = torch.eye(3, 2, dtype=pose.dtype, device=pose.device)
    right = right + damping[..., None] * eye[:, None]
    rows = _solve_symmetric(normal.repeat_interleave(2, dim=2), right.flatten(2))
    x, y = nearest_orthonormal_pair(*rows.unflatten(2, (-1, 2)).permute(3, 0, 2, 1))
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-2) @ rotation


def nearest_orthonormal_pair(
    x: Float[Tensor, "*batch 3"], y: Float[Tensor, "*batch 3"]
) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch 3"]]:
    """The orthonormal pair nearest to (x, y): (A A^T)^(-1/2) A, where x and y are the rows of A.

    It takes no SVD, for which the CPU would wait for a GPU. Nearly parallel rows give shorter
    vectors than 1, zero rows give zeros.
    """
    xx, xy, yy = (x * x).sum(-1), (x * y).sum(-1), (y * y).sum(-1)
    area = torch.linalg.vector_norm(torch.linalg.cross(x, y), dim=-1)
    area = torch.maximum(area, 1e-4 * (xx + yy)).clamp_min(1e-12)
    factor = 1 / (area * (xx + yy + 2 * area).sqrt())
    to_x, both, to_y = ((yy + area) * factor, xy * factor, (xx + area) * factor)
    return (
        to_x[..., None] * x - both[..., None] * y,
        to_y[..., None] * y - both[..., None] * x,
    )
