"""Laws of the highest point of a sum of ridges and one Gaussian."""

import math

import pytest
import torch
from synthetic_scene import random, uniform
from torch.autograd import gradcheck
from torch.testing import assert_close

from canonlift.geometry import ridges as module
from canonlift.geometry.ridges import Ridges, Widths, highest_points

EXTENT = 0.5
WIDTHS = Widths(2 / 64, 3 / 64)
each_number = pytest.mark.parametrize("n_ridges", range(1, 8))


def some(n_maps, n_ridges, seed=0):
    """Ridges through the neighbourhood of the centres, which may lie outside of the square."""
    angle = math.pi * uniform(n_ridges, n_maps, seed=seed)
    normal = torch.stack([angle.cos(), angle.sin()])
    centre = 0.3 * random(2, n_maps, seed=seed + 1)
    miss = 0.06 * random(n_ridges, n_maps, seed=seed + 2)
    offset = (normal * centre[:, None]).sum(0) + miss
    height = uniform(n_ridges + 1, n_maps, seed=seed + 3)
    return Ridges(normal, offset, height[:-1], centre, height[-1])


def heights(ridges, points, widths=WIDTHS):
    """Height of each map at P points of its own (2, P, K)."""
    across = (points[:, None] * ridges.normal[:, :, None]).sum(0) - ridges.offset[:, None]
    own = (points - ridges.centre[:, None]).square().sum(0)
    lines = ridges.height[:, None] * (-across.square() / (2 * widths.ridge**2)).exp()
    return lines.sum(0) + ridges.centre_height * (-own / (2 * widths.centre**2)).exp()


def found(ridges, widths=WIDTHS, extent=EXTENT):
    return heights(ridges, highest_points(ridges, widths, extent)[:, None], widths)[0]


def dense(ridges, widths=WIDTHS, n=129):
    """Height and place of the best of n^2 points of the closed square."""
    side = torch.linspace(-EXTENT, EXTENT, n, dtype=torch.float64)
    points = torch.cartesian_prod(side, side).T[:, :, None]
    height, index = heights(ridges, points, widths).max(0)
    return height, points[:, index, 0]


def as_type(ridges, dtype):
    return Ridges(*(part.to(dtype) for part in ridges))


@each_number
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_point_of_a_grid_is_higher(n_ridges, dtype):
    ridges = as_type(some(24, n_ridges, seed=n_ridges), dtype)
    place = highest_points(ridges, WIDTHS, EXTENT)
    assert place.dtype == dtype
    assert place.abs().max() <= EXTENT
    ridges = as_type(ridges, torch.float64)
    best, _ = dense(ridges)
    assert (heights(ridges, place[:, None].double())[0] > (1 - 1e-6) * best).all()


@pytest.mark.parametrize("widths", [Widths(0.05, 0.02), Widths(0.02, 0.1)])
def test_no_point_of_a_grid_is_higher_whatever_the_widths(widths):
    ridges = some(40, 4)
    best, _ = dense(ridges, widths)
    assert (found(ridges, widths) > (1 - 1e-6) * best).all()


# Found among 700,000 random maps. Of three ridges that all but meet, one peak hides another from
# long steps; and a climb along the border is held back by the direction that the border stops.
HIDDEN = Ridges(
    torch.tensor([[-0.57352638, 0.31803486, 0.99412355], [0.81918710, 0.94807905, -0.10825131]]),
    torch.tensor([-0.21401328, -0.28803268, 0.06126445]),
    torch.tensor([0.99810690, 0.99232268, 0.65741992]),
    torch.tensor([0.05155424, -0.24121057]),
    torch.tensor(0.63649720),
)
HELD_BACK = Ridges(
    torch.tensor([[-0.02432617, -0.17872700, -0.00635486], [0.99970406, -0.98389864, 0.99997979]]),
    torch.tensor([-0.02719500, -0.20326528, 0.05211298]),
    torch.tensor([0.99999261, 0.99700856, 0.99193776]),
    torch.tensor([0.40261644, 0.04275752]),
    torch.tensor(0.12015359),
)


@pytest.mark.parametrize("hard", [HIDDEN, HELD_BACK], ids=["hidden", "held back"])
def test_no_point_of_a_grid_is_higher_on_maps_that_are_hard_to_climb(hard):
    ridges = Ridges(*(part[..., None].double() for part in hard))
    best, _ = dense(ridges, n=1025)
    assert found(ridges) > (1 - 1e-6) * best


def test_the_border_belongs_to_the_square():
    ridges = some(300, 3)
    best, grid_place = dense(ridges)
    on_border = grid_place.abs().amax(0) == EXTENT
    assert on_border.sum() > 10
    place = highest_points(ridges, WIDTHS, EXTENT)
    sure = (best > found(ridges, extent=0.99 * EXTENT) + 1e-3) & on_border
    assert sure.sum() > 5
    assert_close(place.abs().amax(0)[sure], torch.full_like(best[sure], EXTENT))


def test_turns_and_mirrors_with_the_map():
    ridges = some(100, 4)
    expected = highest_points(ridges, WIDTHS, EXTENT)
    for matrix in ([[0, -1], [1, 0]], [[-1, 0], [0, 1]], [[0, 1], [1, 0]]):
        turn = torch.tensor(matrix, dtype=torch.float64)
        moved = ridges._replace(
            normal=torch.einsum("cd,dnk->cnk", turn, ridges.normal), centre=turn @ ridges.centre
        )
        gap = (highest_points(moved, WIDTHS, EXTENT) - turn @ expected).norm(dim=0)
        assert (gap < 1e-6).double().mean() > 0.98  # two peaks may be all but equally high
        assert_close(found(moved), found(ridges))


def test_blind_to_how_a_map_is_written():
    ridges = some(100, 4)
    order = [2, 0, 3, 1]
    flip = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)[:, None]
    reordered = Ridges(
        ridges.normal[:, order], ridges.offset[order], ridges.height[order], *ridges[3:]
    )
    flipped = ridges._replace(normal=flip * ridges.normal, offset=flip * ridges.offset)
    higher = ridges._replace(height=7 * ridges.height, centre_height=7 * ridges.centre_height)
    for other in (reordered, flipped):
        assert_close(found(other), found(ridges))
    assert_close(found(higher), 7 * found(ridges), rtol=1e-5, atol=0)


@pytest.mark.parametrize("block", [1, 100, 1000])
def test_maps_do_not_see_each_other(block, monkeypatch):
    ridges = some(50, 4)
    expected = highest_points(ridges, WIDTHS, EXTENT)
    monkeypatch.setattr(module, "BLOCK", block)
    assert_close(highest_points(ridges, WIDTHS, EXTENT), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 1e-2])
def test_ridges_all_but_parallel(angle, dtype):
    ridges = some(30, 4)
    close = ridges.normal[:, :1] + angle * random(2, 4, 30)
    ridges = ridges._replace(normal=close / close.norm(dim=0))
    offset = (ridges.normal * ridges.centre[:, None]).sum(0) + 0.03 * random(4, 30)
    ridges = as_type(ridges._replace(offset=offset), dtype)
    place = highest_points(ridges, WIDTHS, EXTENT)
    ridges = as_type(ridges, torch.float64)
    best, _ = dense(ridges)
    assert (heights(ridges, place[:, None].double())[0] > (1 - 1e-6) * best).all()


def test_what_has_no_height_has_no_say():
    ridges = some(50, 3)
    nothing = ridges._replace(
        height=torch.zeros_like(ridges.height),
        centre_height=torch.zeros_like(ridges.centre_height),
    )
    assert (highest_points(nothing, WIDTHS, EXTENT).abs() <= EXTENT).all()
    alone = nothing._replace(centre_height=ridges.centre_height)
    gap = highest_points(alone, WIDTHS, EXTENT) - ridges.centre.clamp(-EXTENT, EXTENT)
    assert gap.abs().max() < 1e-6


def test_the_gradient_of_the_place(monkeypatch):
    deep = (module.Stage(float("inf"), 40, 0.95),)  # as level as float64 can be
    monkeypatch.setattr(module, "SCHEDULE", deep)
    ridges = Ridges(*(part.requires_grad_() for part in some(10, 3, seed=4)))
    place = highest_points(ridges, WIDTHS, EXTENT)
    slope = torch.autograd.grad(place.sum(), ridges.offset)[0].abs().sum(0)
    # On the border the place is not level, and where the map is flat it runs away.
    plain = (place.abs().amax(0) < 0.98 * EXTENT) & (slope < 5)
    assert plain.double().mean() > 0.5
    ridges = Ridges(*(part[..., plain].detach().requires_grad_() for part in ridges))
    assert gradcheck(
        lambda *parts: highest_points(Ridges(*parts), WIDTHS, EXTENT),
        tuple(ridges),
        atol=1e-4,
        fast_mode=True,
    )


def test_the_place_is_the_same_with_and_without_a_gradient():
    ridges = some(50, 3)
    expected = highest_points(ridges, WIDTHS, EXTENT)
    leaves = Ridges(*(part.clone().requires_grad_() for part in ridges))
    place = highest_points(leaves, WIDTHS, EXTENT)
    assert_close(place, expected, atol=1e-12, rtol=0)
    place.sum().backward()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)
    assert (leaves.centre.grad != 0).any()
