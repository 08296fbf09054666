"""Robust least squares over all views of a sample: poses from rotations, rotations from poses.

Orthographic cameras, each with its own scale. In the canonical frame each view's detection says
two of the three coordinates of a joint.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from canonlift.geometry.scale import norm, unit_scale
from canonlift.types import Lifted, Views

TOLERANCE = 0.05  # 2D distance at which a detection has lost half its say, units of the pose
PRIOR = 0.1  # say of the lifted poses, against that of one sure detection
LEASH = 0.05  # how much a rotation is held back by the one it starts from
REWEIGHTINGS = 8


class Sight(NamedTuple):
    """Detections of all views in the scale of one pose."""

    points: Float[Tensor, "B V J 2"]  # 0 where unobserved
    confidence: Float[Tensor, "B V J"]
    size: Float[Tensor, "B V 1 1"]  # units of the pose per unit of the view's norm
    prior: Float[Tensor, "B J 3"]  # mean of the poses lifted from each view, at unit norm

    @classmethod
    def of(cls, views: Views, lifted: Lifted) -> "Sight":
        """Scale every view as the mean lifted pose appears in it."""
        seen = views.observed.any(-1)[..., None, None].to(lifted.pose.dtype)
        pose = unit_scale(lifted.pose, torch.ones_like(views.observed))
        prior = (pose * seen).sum(1) / seen.sum(1).clamp_min(1.0)
        image = torch.einsum("bvrc,bjc->bvjr", lifted.rotation[:, :, :2], prior)
        size = norm(image, views.observed).detach()
        points = unit_scale(views.keypoints, views.observed) * size
        points = torch.where(views.observed[..., None], points, 0.0)
        return cls(points, views.confidence, size, prior)


def triangulate(
    seen: Sight,
    rotation: Float[Tensor, "B V 3 3"],
    prior: Float[Tensor, "B J 3"],
    tolerance: float = TOLERANCE,
    reweightings: int = REWEIGHTINGS,
    trust: float = PRIOR,
) -> tuple[Float[Tensor, "B J 3"], Float[Tensor, "B V J"]]:
    """Pose that fits the detections, and the say that each of them had in the end.

    Detections far from the common solution lose their say (Cauchy weights, reweighted a fixed
    number of times). The gradient is that of the last least squares, its weights held fixed.
    `trust` is the say of `prior`, against that of one sure detection.
    """
    axes = rotation[:, :, :2]
    n_views = axes.shape[1]
    row, column = torch.triu_indices(3, 3, device=axes.device)
    # Per unit of say: what a view adds to the normal matrix of any joint, and to the right side.
    bends = (axes.mT @ axes)[..., row, column].mT  # B 6 V
    pulls = torch.einsum("bvrc,bvjr->bvcj", axes, seen.points)
    leash = trust * (row == column).to(prior.dtype)[:, None]
    prior_pull = trust * prior.mT
    points = seen.points.mT.flatten(1, 2)  # B 2V J

    def solve(say: Tensor) -> Tensor:
        right = (say[:, :, None] * pulls).sum(1) + prior_pull
        return _solve_symmetric(bends @ say + leash, right)

    with torch.no_grad():
        say = seen.confidence
        for _ in range(reweightings):
            gap = (axes.flatten(1, 2) @ solve(say)).sub_(points).div_(tolerance).square_()
            say = seen.confidence / gap.unflatten(1, (n_views, 2)).sum(2).add_(1)
    return solve(say).mT, say


def _solve_symmetric(
    upper: Float[Tensor, "B 6 J"], right: Float[Tensor, "B 3 J"]
) -> Float[Tensor, "B 3 J"]:
    """Solve 3 x 3 systems, given row by row from the diagonal on, by cofactors.

    LAPACK, called once per system, would take most of the time, and a device would be waited for.
    `PRIOR` and `LEASH` bound the condition.
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


def adjust(
    seen: Sight,
    rotation: Float[Tensor, "B V 3 3"],
    pose: Float[Tensor, "B J 3"],
    tolerance: float,
    rounds: int = 10,
    trust: float | None = None,
) -> tuple[Float[Tensor, "B J 3"], Float[Tensor, "B V 3 3"]]:
    """Pose and rotations that fit the detections together: each in turn, and the views' scales.

    Without `trust` the pose given is where to start; with it, it keeps that say to the end, as two
    or three views alone say too little.
    """
    say, prior = seen.confidence, pose
    for _ in range(rounds):
        if trust is None:
            pose, say = triangulate(seen, rotation, pose, tolerance, reweightings=1)
        else:
            pose, say = triangulate(seen, rotation, prior, tolerance, 3, trust)
        rotation = resect(seen, rotation, pose, say)
        image = torch.einsum("bvrc,bjc->bvjr", rotation[:, :, :2], pose)
        fit = (say[..., None] * seen.points * image).sum((2, 3), keepdim=True)
        own = (say[..., None] * seen.points.square()).sum((2, 3), keepdim=True)
        seen = seen._replace(points=seen.points * (fit / own.clamp_min(1e-12)).clamp(0.5, 2.0))
    return pose, rotation


def resect(
    seen: Sight,
    rotation: Float[Tensor, "B V 3 3"],
    pose: Float[Tensor, "B J 3"],
    say: Float[Tensor, "B V J"],
) -> Float[Tensor, "B V 3 3"]:
    """Rotations near the given ones that fit the detections of a known pose.

    The best two rows are found by linear least squares and then made orthonormal.
    """
    turned = torch.einsum("bvrc,bjc->bvjr", rotation, pose)
    row, column = torch.triu_indices(3, 3, device=pose.device)
    moments = torch.einsum("bvj,bvjc->bcv", say, turned[..., row] * turned[..., column])
    cross = torch.einsum("bvj,bvjr,bvjc->bcvr", say, seen.points, turned)
    diagonal = (row == column).to(pose.dtype)[:, None]
    leash = (LEASH * (moments * diagonal).sum(1, keepdim=True)).clamp_min(1e-6)
    moments = moments + leash * diagonal
    eye = torch.eye(3, 2, dtype=pose.dtype, device=pose.device)
    cross = cross + leash[..., None] * eye[:, None]
    rows = _solve_symmetric(moments.repeat_interleave(2, dim=2), cross.flatten(2))
    x, y = _orthonormal(*rows.unflatten(2, (-1, 2)).permute(3, 0, 2, 1))
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-2) @ rotation


def _orthonormal(
    x: Float[Tensor, "*batch 3"], y: Float[Tensor, "*batch 3"]
) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch 3"]]:
    """The nearest orthonormal pair: (A A^T)^(-1/2) A, without the SVD that a device waits for.

    Rows that are all but parallel come out shorter.
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
