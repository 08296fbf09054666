"""Structure and rotations from several uncalibrated views of one body, in closed form.

Tomasi and Kanade (1992) factor orthographic images of a rigid body. Here the images are the views,
each with its own scale (scaled orthography), and joints may be missing or have little weight.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Factors(NamedTuple):
    """A pose and its cameras, up to one rotation and one reflection of everything."""

    pose: Float[Tensor, "B J 3"]
    rotation: Float[Tensor, "B V 3 3"]  # pose frame -> camera
    scale: Float[Tensor, "B V"]
    residual: Float[Tensor, " B"]  # weighted root mean square, relative to that of the images


def factorise(
    points: Float[Tensor, "B V J 2"],
    weight: Float[Tensor, "B V J"],
    iterations: int = 10,
) -> Factors:
    """Pose and cameras that best fit centred images, by a rank-3 factorisation.

    Three views with different optical axes are needed. With two, the angle between the axes is
    undetermined, and one of the equally good results is returned. Points of weight 0 may have any
    value.

    Args:
        points: images, each centred on the same joint.
        weight: of each point, 0 to 1.
        iterations: how often points are replaced by the current solution, as far as their weight
            is below 1.
    """
    n_samples, n_views, n_joints, _ = points.shape
    observed = torch.where((weight > 0)[..., None], points, 0.0)
    observed = observed.transpose(-1, -2).reshape(n_samples, 2 * n_views, n_joints)
    of_row = weight.repeat_interleave(2, dim=1)
    filled = of_row * observed
    for _ in range(iterations):
        u, singular, vt = torch.linalg.svd(filled, full_matrices=False)
        low_rank = (u[..., :3] * singular[..., None, :3]) @ vt[..., :3, :]
        filled = of_row * observed + (1 - of_row) * low_rank
    u, singular, vt = torch.linalg.svd(filled, full_matrices=False)
    root = singular[..., :3].clamp_min(1e-12).sqrt()
    motion, shape = u[..., :3] * root[..., None, :], root[..., None] * vt[..., :3, :]

    upgrade = metric_upgrade(motion.unflatten(1, (n_views, 2)))
    pose = torch.linalg.solve(upgrade, shape).mT
    axes = (motion @ upgrade).unflatten(1, (n_views, 2))
    left, stretch, right = torch.linalg.svd(axes, full_matrices=False)
    x, y = (left @ right).unbind(-2)
    rotation = torch.stack([x, y, torch.linalg.cross(x, y)], dim=-2)
    scale = stretch.mean(-1)
    image = scale[..., None, None] * torch.einsum("bvrc,bjc->bvjr", rotation[:, :, :2], pose)
    gap = weight * (image - points.masked_fill((weight == 0)[..., None], 0.0)).square().sum(-1)
    size = weight * observed.view(n_samples, n_views, 2, n_joints).square().sum(-2)
    residual = (gap.sum((1, 2)) / size.sum((1, 2)).clamp_min(1e-24)).sqrt()
    return Factors(pose, rotation, scale, residual)


def metric_upgrade(motion: Float[Tensor, "B V 2 3"]) -> Float[Tensor, "B 3 3"]:
    """Matrix A for which the two rows of every `motion @ A` are equally long and perpendicular.

    A A^T is the null vector of those linear conditions. It is made positive definite, with no
    eigenvalue below a hundredth of the largest.
    """
    x, y = motion.unbind(-2)
    conditions = torch.cat([_symmetric(x, x) - _symmetric(y, y), _symmetric(x, y)], dim=1)
    vt = torch.linalg.svd(conditions, full_matrices=True).Vh
    q = vt[:, -1]
    q = torch.stack([q[:, [0, 1, 2]], q[:, [1, 3, 4]], q[:, [2, 4, 5]]], dim=1)
    trace = torch.diagonal(q, dim1=1, dim2=2).sum(-1)
    q = (
        q * torch.where(trace < 0, -1.0, 1.0).to(q.dtype)[:, None, None]
    )  # 0 where nothing was observed
    values, vectors = torch.linalg.eigh(q)
    values = torch.maximum(values, 1e-2 * values[:, -1:])
    return vectors * values.sqrt()[:, None, :]


def _symmetric(a: Float[Tensor, "B V 3"], b: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 6"]:
    """Coefficients of a^T Q b in the six entries of a symmetric Q."""
    a0, a1, a2 = a.unbind(-1)
    b0, b1, b2 = b.unbind(-1)
    return torch.stack(
        [a0 * b0, a0 * b1 + a1 * b0, a0 * b2 + a2 * b0, a1 * b1, a1 * b2 + a2 * b1, a2 * b2], -1
    )
