"""The highest point of a sum of ridges and one Gaussian, without a grid.

The maps are the last axis, unlike elsewhere, because operations on a short last axis are slow.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from math import ceil, inf, log, sqrt
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Stage(NamedTuple):
    """Part of the ascent."""

    climbers: float  # points kept per ridge, the highest ones; at least 2 and at most MOST a map
    steps: int
    # Largest fraction of the curvature that Newton's correction may take away from a step of
    # reweighted least squares. Larger ones converge faster, but may step over a maximum.
    newton_limit: float


SCHEDULE = (Stage(inf, 1, 0.7), Stage(2.6, 3, 0.85), Stage(0.6, 8, 0.95))
MOST = 16  # points per map: crossings grow as the square of the ridges, high ones do not
BLOCK = 2**17  # numbers in one tensor on a CPU, so that intermediate results fit its cache
ROOM = 2**24  # the same on a GPU
LN4 = 2 * log(2)
HALF_WIDTH = sqrt(LN4)  # sigmas at which a Gaussian has half its height


class Ridges(NamedTuple):
    """K maps of N ridges along `normal . x == offset` and one Gaussian at `centre`."""

    normal: Float[Tensor, "2 N K"]  # unit length
    offset: Float[Tensor, "N K"]
    height: Float[Tensor, "N K"]
    centre: Float[Tensor, "2 K"]
    centre_height: Float[Tensor, " K"]


class Widths(NamedTuple):
    """Standard deviations, across the ridges and of the Gaussian."""

    ridge: float
    centre: float


def highest_points(ridges: Ridges, widths: Widths, extent: float) -> Float[Tensor, "2 K"]:
    """Where each map is highest in the square [-extent, extent]^2, border included.

    A maximum lies near the Gaussian, near its foot on a ridge, near the crossing of two ridges, or
    near the crossing of a ridge and the border; the ascent starts from all of these. That no other
    place is higher is measured, not proven: `benchmarks/fusion.py proof`.

    The result is differentiable by the implicit function theorem, as the point where the gradient
    of the map is zero. On the border, where it need not be zero, the derivative is that of one
    Newton step.
    """
    with torch.no_grad():
        unit = HALF_WIDTH * widths.ridge
        scaled = Ridges(
            ridges.normal,
            ridges.offset / unit,
            ridges.height,
            ridges.centre / unit,
            ridges.centre_height,
        )
        spread = (widths.ridge / widths.centre) ** 2
        parts = _blocks(scaled, n_climbers(SCHEDULE[-1], len(scaled.offset)))
        places = [_highest(Ridges(*part), spread, extent / unit) for part in parts]
        place = torch.cat(places, dim=-1).mul_(unit)
        # Scaling may have moved points off the border by rounding, where the map can be steep.
        place = torch.where(place.abs() > (1 - 1e-6) * extent, extent * place.sign(), place)
    if torch.is_grad_enabled() and any(part.requires_grad for part in ridges):
        step = _step_to_level(ridges, place, widths)
        return place + (step - step.detach())
    return place


def n_candidates(n_ridges: int) -> int:
    """Starting points of a map: centre, feet, ends on the border, and crossings."""
    return 1 + 3 * n_ridges + n_ridges * (n_ridges - 1) // 2


def n_climbers(stage: Stage, n_ridges: int) -> int:
    """Points of a map from which a stage ascends."""
    wanted = max(2, ceil(min(stage.climbers, MOST) * n_ridges))
    return min(n_candidates(n_ridges), MOST, wanted)


def _blocks(parts: Iterable[Tensor], climbers: int) -> Iterator[tuple[Tensor, ...]]:
    """Blocks of maps, with tensors of about BLOCK or ROOM numbers at so many points per map."""
    parts = tuple(parts)
    n_ridges = parts[0].shape[1]
    room = BLOCK if parts[0].device.type == "cpu" else ROOM
    size = max(1, room // (n_ridges * climbers))
    return zip(*(part.split(size, dim=-1) for part in parts), strict=True)


def _highest(ridges: Ridges, spread: float, extent: float) -> Float[Tensor, "2 K"]:
    """`highest_points` in units in which a ridge is 2^(-distance^2), without a gradient."""
    points = _candidates(ridges, extent)
    for stage in SCHEDULE:
        keep = n_climbers(stage, len(ridges.offset))
        blocks = _blocks((*ridges, points), keep)
        ascended = []
        for *part, start in blocks:
            block = Ridges(*part)
            x, y = _best(block, start, keep, spread)
            for _ in range(stage.steps):
                x, y = _step_up(block, x, y, spread, extent, stage.newton_limit)
            ascended.append(torch.stack([x, y]))
        points = torch.cat(ascended, dim=-1)
    return _best(ridges, points, 1, spread)[:, 0]


def _best(
    ridges: Ridges, points: Float[Tensor, "2 C K"], keep: int, spread: float
) -> Float[Tensor, "2 D K"]:
    """The highest `keep` of the points of each map, in any order."""
    if keep >= points.shape[1]:
        return points
    height = _height(ridges, points[0], points[1], spread)
    if keep == 1:
        best = height.max(0, keepdim=True).indices
    else:
        best = height.topk(keep, dim=0, sorted=False).indices
    return points.gather(1, best.expand(2, -1, -1))


def _candidates(ridges: Ridges, extent: float) -> Float[Tensor, "2 C K"]:
    """Centre, its feet on the ridges, their crossings, and their two ends on the border."""
    (nx, ny), (cx, cy), offset = ridges.normal, ridges.centre, ridges.offset
    gap = cx * nx + cy * ny - offset
    first, second = torch.triu_indices(len(offset), len(offset), 1, device=offset.device)
    determinant = nx[first] * ny[second] - ny[first] * nx[second]
    inverse = determinant / (determinant.square() + 1e-12)  # parallel lines: any finite point
    crossing_x = (offset[first] * ny[second] - offset[second] * ny[first]) * inverse
    crossing_y = (offset[second] * nx[first] - offset[first] * nx[second]) * inverse

    # Distances along a ridge, from its point nearest to 0, to the sides of the square.
    near_x, near_y = offset * nx, offset * ny
    per_x, per_y = -ny / (ny.square() + 1e-12), nx / (nx.square() + 1e-12)
    mid_x, mid_y = -near_x * per_x, -near_y * per_y
    half_x, half_y = extent * per_x.abs(), extent * per_y.abs()
    start = torch.maximum(mid_x - half_x, mid_y - half_y)
    end = torch.minimum(mid_x + half_x, mid_y + half_y)

    x = [cx[None], cx - gap * nx, crossing_x, near_x - start * ny, near_x - end * ny]
    y = [cy[None], cy - gap * ny, crossing_y, near_y + start * nx, near_y + end * nx]
    return torch.stack([torch.cat(x), torch.cat(y)]).clamp_(-extent, extent)


def distances_and_heights(
    ridges: Ridges, x: Tensor, y: Tensor, spread: float
) -> tuple[Tensor, ...]:
    """Distance from each ridge and its height at points (C, K), then the same for the Gaussian."""
    nx, ny = ridges.normal[:, :, None]
    across = torch.addcmul(-ridges.offset[:, None], x, nx).addcmul_(y, ny)
    # 2^x takes a quarter of the time of e^x.
    ridge = across.square().neg_().exp2_().mul_(ridges.height[:, None])
    dx, dy = ridges.centre[0] - x, ridges.centre[1] - y
    square = (dx * dx).addcmul_(dy, dy)
    own = square.mul_(-spread).exp2_().mul_(ridges.centre_height)
    return across, ridge, dx, dy, own


def _height(
    ridges: Ridges, x: Float[Tensor, "C K"], y: Float[Tensor, "C K"], spread: float
) -> Float[Tensor, "C K"]:
    _, ridge, _, _, own = distances_and_heights(ridges, x, y, spread)
    return ridge.sum(0).add_(own)


def _step_up(
    ridges: Ridges,
    x: Float[Tensor, "C K"],
    y: Float[Tensor, "C K"],
    spread: float,
    extent: float,
    newton_limit: float,
) -> tuple[Float[Tensor, "C K"], Float[Tensor, "C K"]]:
    """One step to the maximum of a paraboloid that is tangent to the map, within the square.

    Reweighted least squares never step downwards but converge slowly. Newton's Hessian is theirs
    minus a term from the change of the weights. That term is subtracted in full, or scaled so that
    the fraction `1 - newton_limit` of the curvature remains in every direction.
    """
    across, ridge, dx, dy, own = distances_and_heights(ridges, x, y, spread)
    nx, ny = ridges.normal[:, :, None]
    weighted = partial(_weighted_sum, torch.empty_like(ridge))
    nxx, nxy = nx * nx, nx * ny
    total, pull, own = ridge.sum(0), across.mul(ridge), own.mul_(spread)
    gx = (own * dx).sub_(weighted(pull, nx))
    gy = (own * dy).sub_(weighted(pull, ny))

    # Least squares, damped because a single ridge does not determine the step along it.
    damped = (total + own).mul_(1e-4).add_(own).add_(1e-12)
    xx, xy = weighted(ridge, nxx), weighted(ridge, nxy)
    yy = (total - xx).add_(damped)
    xx.add_(damped)

    bend, own = pull.mul_(across).mul_(LN4), own * (LN4 * spread)
    bend_xx, bend_xy = weighted(bend, nxx), weighted(bend, nxy)
    bend_yy = bend.sum(0).sub_(bend_xx).addcmul_(own * dy, dy)
    bend_xx.addcmul_(own * dx, dx)
    bend_xy.addcmul_(own * dx, dy)

    # Coordinates held at the border are left out: 0 where held, else 1.
    free_x = (x + gx).clamp_(-extent, extent).sub_(x).sign_().abs_()
    free_y = (y + gy).clamp_(-extent, extent).sub_(y).sign_().abs_()
    both = free_x * free_y
    xy.mul_(both)
    bend_xy.mul_(both)
    bend_xx.mul_(free_x)
    bend_yy.mul_(free_y)

    largest = _largest_eigenvalue((bend_xx, bend_xy, bend_yy), (xx, xy, yy))
    factor = -newton_limit / largest.clamp_min_(newton_limit)
    xx.addcmul_(factor, bend_xx)
    xy.addcmul_(factor, bend_xy)
    yy.addcmul_(factor, bend_yy)

    step_x, step_y = _bounded_step((x, y), (gx, gy), (xx, xy, yy), extent, min(1.0, spread**-0.5))
    return step_x.add_(x), step_y.add_(y)


def _weighted_sum(buffer: Tensor, weight: Tensor, value: Tensor) -> Tensor:
    """Over the ridges; to allocate the buffer takes longer than the product."""
    return torch.mul(weight, value, out=buffer).sum(0)


def _largest_eigenvalue(
    matrix: tuple[Tensor, Tensor, Tensor], unit: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Of symmetric 2 x 2 matrices (xx, xy, yy), relative to positive definite ones."""
    (bend_xx, bend_xy, bend_yy), (xx, xy, yy) = matrix, unit
    determinant = xx * yy - xy * xy
    half = (xx * bend_yy + yy * bend_xx - 2 * xy * bend_xy) / (2 * determinant)
    ratio = (bend_xx * bend_yy - bend_xy * bend_xy) / determinant
    return half + (half * half - ratio).clamp_min_(0).sqrt_()


def _bounded_step(
    place: tuple[Tensor, Tensor],
    gradient: tuple[Tensor, Tensor],
    matrix: tuple[Tensor, Tensor, Tensor],
    extent: float,
    longest: float,
) -> tuple[Tensor, Tensor]:
    """Solution of matrix (xx, xy, yy) * step = gradient, within the square and not too long.

    Where one coordinate is held at a limit, the step of the other is optimal for that.
    """
    (x, y), (gx, gy), (xx, xy, yy) = place, gradient, matrix
    low_x, high_x = (-extent - x).clamp_min_(-longest), (extent - x).clamp_max_(longest)
    low_y, high_y = (-extent - y).clamp_min_(-longest), (extent - y).clamp_max_(longest)
    step_x = (yy * gx).sub_(xy * gy).div_(xx * yy - xy * xy).clamp_(low_x, high_x)
    step_y = torch.addcmul(gy, xy, step_x, value=-1).div_(yy).clamp_(low_y, high_y)
    step_x = torch.addcmul(gx, xy, step_y, value=-1).div_(xx).clamp_(low_x, high_x)
    return step_x, step_y


def _step_to_level(
    ridges: Ridges, place: Float[Tensor, "2 K"], widths: Widths
) -> Float[Tensor, "2 K"]:
    """Newton's step from a fixed point, as a differentiable function of the map."""
    nx, ny = ridges.normal
    across = (place[0] * nx + place[1] * ny - ridges.offset) / widths.ridge
    ridge = ridges.height * (-0.5 * across.square()).exp()
    away = (place - ridges.centre) / widths.centre
    own = ridges.centre_height * (-0.5 * away.square().sum(0)).exp()
    pull = ridge * across / widths.ridge
    pull_x, pull_y = -own * away / widths.centre
    gradient = torch.stack([pull_x - (pull * nx).sum(0), pull_y - (pull * ny).sum(0)])
    with torch.no_grad():
        bend = ridge * (across.square() - 1) / widths.ridge**2
        own, (dx, dy) = own / widths.centre**2, away
        xx = own * (dx.square() - 1) + (bend * nx.square()).sum(0)
        yy = own * (dy.square() - 1) + (bend * ny.square()).sum(0)
        xy = own * dx * dy + (bend * nx * ny).sum(0)
    return newton_step(gradient, xx, yy, xy)


def newton_step(
    gradient: Float[Tensor, "2 K"],
    xx: Float[Tensor, " K"],
    yy: Float[Tensor, " K"],
    xy: Float[Tensor, " K"],
) -> Float[Tensor, "2 K"]:
    """-H^-1 g, with H made negative definite where it is not."""
    with torch.no_grad():  # along a single ridge the map is flat, so a small curvature is added
        middle, radius = 0.5 * (xx + yy), (0.25 * (xx - yy).square() + xy.square()).sqrt()
        damping = (middle + radius + 1e-3 * (radius - middle)).clamp_min(0.0) + 1e-12
    xx, yy = xx - damping, yy - damping
    determinant = (xx * yy - xy.square()).clamp_min(1e-24)
    x, y = gradient
    return torch.stack([xy * y - yy * x, xy * x - xx * y]) / determinant
