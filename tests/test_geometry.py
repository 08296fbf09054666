"""Laws of rotations, alignment, epipolar lines, scale and factorisation."""

import pytest
import torch
from kornia.geometry.epipolar import symmetrical_epipolar_distance
from scipy.spatial.transform import Rotation
from synthetic_scene import random, random_rotations, uniform
from torch.autograd import gradcheck
from torch.testing import assert_close

from canonlift.geometry.alignment import align_similarity
from canonlift.geometry.epipolar import epipolar_lines
from canonlift.geometry.rotations import from_axis_angle, from_six, nearest_rotation
from canonlift.geometry.scale import norm, unit_scale

EYE = torch.eye(3, dtype=torch.float64)
MIRROR = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
each_head = pytest.mark.parametrize(("make", "size"), [(from_axis_angle, 3), (from_six, 6)])


def assert_rotations(matrices, atol=1e-12):
    assert_close(matrices @ matrices.mT, EYE.to(matrices).expand_as(matrices), atol=atol, rtol=0)
    assert_close(
        torch.linalg.det(matrices), torch.ones_like(matrices[..., 0, 0]), atol=atol, rtol=0
    )


# Rotations


@each_head
@pytest.mark.parametrize("size_of_input", [1e-3, 1.0, 30.0])
def test_any_input_gives_a_rotation(make, size, size_of_input):
    assert_rotations(make(size_of_input * random(5, 7, size)))


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 1e-3, 1.1e-3, 0.1, 3.0])
def test_axis_angle_agrees_with_scipy_and_is_orthogonal_at_small_angles(angle):
    axis = torch.nn.functional.normalize(random(20, 3), dim=-1)
    found = from_axis_angle(angle * axis)
    expected = Rotation.from_rotvec((angle * axis).numpy()).as_matrix()
    assert_close(found, torch.from_numpy(expected), atol=1e-12, rtol=0)
    assert_rotations(found)


@pytest.mark.parametrize("vector", [(0.0, 0.0, 0.0), (1e-5, 0.0, 0.0), (0.3, -2.0, 0.7)])
def test_gradient_of_axis_angle(vector):
    vector = torch.tensor([vector], dtype=torch.float64, requires_grad=True)
    assert gradcheck(from_axis_angle, vector)


def test_gradient_of_six():
    assert gradcheck(from_six, random(3, 6).requires_grad_())


def test_six_returns_the_columns_of_a_rotation_as_they_are():
    rotation = random_rotations(8)
    stretched = torch.cat([3.0 * rotation[..., 0], 0.1 * rotation[..., 1]], dim=-1)
    assert_close(from_six(stretched), rotation)


@pytest.mark.parametrize(
    "columns", [(0, 0, 0, 0, 0, 0), (1, 2, 3, -2, -4, -6), (0, 0, 0, 1, 0, 0)]
)
def test_six_stays_finite_where_the_rotation_is_undetermined(columns):
    columns = torch.tensor([columns], dtype=torch.float64, requires_grad=True)
    found = from_six(columns)
    found.sum().backward()
    assert found.isfinite().all()
    assert columns.grad.isfinite().all()


def test_the_nearest_rotation_to_a_sum_is_scipys_mean():
    rotations, weight = random_rotations(5, 7), uniform(5, 7)
    found = nearest_rotation((weight[..., None, None] * rotations).sum(1))
    for i in range(5):
        mean = Rotation.from_matrix(rotations[i].numpy()).mean(weight[i].numpy())
        assert_close(found[i], torch.from_numpy(mean.as_matrix()))


def test_the_nearest_rotation_is_never_a_reflection_and_nothing_is_nearer():
    matrix = random(20, 3, 3)
    assert (torch.linalg.det(matrix) < 0).any()
    found = nearest_rotation(matrix)
    assert_rotations(found)
    others = from_axis_angle(0.05 * random(20, 30, 3)) @ found[:, None]
    gap = (others - matrix[:, None]).flatten(2).norm(dim=-1)
    assert (gap > (found - matrix).flatten(1).norm(dim=-1)[:, None]).all()
    assert_close(nearest_rotation(3 * found), found)


# Alignment


def test_alignment_agrees_with_scipy_on_noisy_points():
    source, target = random(2, 5, 17, 3)
    found = align_similarity(source, target)
    for i in range(5):
        a, b = source[i] - source[i].mean(0), target[i] - target[i].mean(0)
        expected, _ = Rotation.align_vectors(b.numpy(), a.numpy())
        expected = torch.from_numpy(expected.as_matrix())
        assert_close(found.rotation[i], expected)
        scale = ((a @ expected.mT) * b).sum() / a.square().sum()
        assert_close(found.scale[i], scale)
        assert_close(
            found.translation[i], target[i].mean(0) - scale * expected @ source[i].mean(0)
        )


def test_no_nearby_similarity_is_better():
    source, target, weight = random(9, 3), random(9, 3, seed=1), uniform(9, seed=2)
    best = align_similarity(source[None], target[None], weight[None])

    def cost(scale, rotation, translation):
        moved = scale * source @ rotation.mT + translation
        return (weight[:, None] * (moved - target).square()).sum()

    least = cost(best.scale[0], best.rotation[0], best.translation[0])
    for step in 1e-3 * random(20, 7, seed=3):
        rotation = from_axis_angle(step[None, :3])[0] @ best.rotation[0]
        moved = cost(best.scale[0] + step[3], rotation, best.translation[0] + step[4:])
        assert moved > least


def test_alignment_undoes_a_known_similarity():
    source, rotation = random(4, 6, 3), random_rotations(4)
    target = 2.5 * source @ rotation.mT + random(4, 1, 3, seed=1)
    found = align_similarity(source, target)
    assert_close(found.rotation, rotation)
    assert_close(found.scale, torch.full((4,), 2.5, dtype=torch.float64))
    assert_close(found(source), target)


def test_weight_0_leaves_a_point_out_and_2_counts_it_twice():
    source, target = random(2, 3, 8, 3)
    weight = torch.tensor([1.0, 2.0, 0.0, 1.0, 3.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    times = weight.long()
    source[:, times == 0] = 1e6
    expected = align_similarity(
        source.repeat_interleave(times, 1), target.repeat_interleave(times, 1)
    )
    for total in (1.0, 0.01):
        found = align_similarity(source, target, total * weight.expand(3, -1))
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b)


def test_never_a_reflection_with_or_without_weights():
    source = random(8, 17, 3)
    mirrored = source * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    for weight in (None, uniform(8, 17)):
        found = align_similarity(source, mirrored, weight)
        assert_rotations(found.rotation)
        assert (found(source) - mirrored).norm(dim=-1).mean() > 0.1


def test_flat_points_are_aligned_by_a_rotation():
    flat = random(6, 17, 3) * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    rotation = random_rotations(6)
    found = align_similarity(flat, flat @ rotation.mT)
    assert_rotations(found.rotation)
    assert_close(found(flat), flat @ rotation.mT)


def test_gradient_of_alignment_in_a_batch():
    source, target = random(2, 3, 6, 3)
    weight = uniform(3, 6)
    source.requires_grad_()
    assert gradcheck(lambda s, t: align_similarity(s, t, weight)(s), (source, target))


def test_a_repeated_point_cannot_be_aligned():
    source, target = random(2, 3, 6, 3)
    source[1] = source[1, :1]
    with pytest.raises(ValueError, match="repeated point"):
        align_similarity(source, target)
    only_one = torch.zeros(3, 6, dtype=torch.float64)
    only_one[:, 0] = 1.0
    with pytest.raises(ValueError, match="repeated point"):
        align_similarity(target, target, only_one)


# Epipolar lines


def orthographic_pair(n_pairs=20, n_points=9):
    """Images of the same points in two views of one scale, and R_m R_n^T."""
    points = random(n_pairs, n_points, 3)
    m, n = random_rotations(2, n_pairs, seed=1)
    return (points @ n.mT)[..., :2], (points @ m.mT)[..., :2], m @ n.mT


def misses(lines, points):
    return (torch.einsum("bjc,bc->bj", points, lines.normal) - lines.offset).abs()


def test_corresponding_points_lie_on_the_lines_of_m_from_n():
    """And not on those of the transposed rotation, which the paper prints."""
    in_n, in_m, m_from_n = orthographic_pair()
    lines = epipolar_lines(in_n, m_from_n)
    assert misses(lines, in_m).max() < 1e-12
    assert_close(lines.normal.norm(dim=-1), torch.ones(20, dtype=torch.float64))
    assert misses(epipolar_lines(in_n, m_from_n.mT), in_m).mean() > 0.3


def test_lines_agree_with_the_orthographic_fundamental_matrix():
    """Kornia's distance is the sum of the squared distances to both lines."""
    in_n, _, r = orthographic_pair()
    other = random(*in_n.shape, seed=5)
    zero = torch.zeros_like(r[:, 0, 0])
    f = torch.stack(
        [zero, zero, r[:, 1, 2], zero, zero, -r[:, 0, 2], r[:, 2, 1], -r[:, 2, 0], zero], -1
    ).unflatten(-1, (3, 3))
    there, back = epipolar_lines(in_n, r), epipolar_lines(other, r.mT)
    expected = symmetrical_epipolar_distance(in_n, other, f, squared=True)
    assert_close(misses(there, other).square() + misses(back, in_n).square(), expected)


def test_sine_is_that_of_the_angle_between_the_optical_axes():
    _, _, m_from_n = orthographic_pair()
    lines = epipolar_lines(torch.zeros(20, 1, 2, dtype=torch.float64), m_from_n)
    cosine = m_from_n[:, 2, 2]
    assert_close(lines.sine, (1 - cosine.square()).sqrt())


@pytest.mark.parametrize("axis_of_n", [1.0, -1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_views_with_parallel_axes_give_a_finite_line_through_the_point_itself(axis_of_n, dtype):
    turn = from_axis_angle(torch.tensor([[0.0, 0.0, 0.4]], dtype=dtype))
    m_from_n = turn * torch.tensor([1.0, axis_of_n, axis_of_n], dtype=dtype)
    m_from_n.requires_grad_()
    points = random(1, 5, 2).to(dtype)
    lines = epipolar_lines(points, m_from_n)
    assert lines.sine.max() < 1e-6
    assert_close(lines.normal.norm(dim=-1), torch.ones(1, dtype=dtype))
    assert misses(lines, points @ m_from_n[..., :2, :2].mT).max() < 1e-6
    sum(part.sum() for part in lines).backward()
    assert m_from_n.grad.isfinite().all()


def test_gradient_of_lines():
    in_n, _, m_from_n = orthographic_pair(3, 4)
    inputs = in_n.requires_grad_(), m_from_n.requires_grad_()
    assert gradcheck(lambda p, r: tuple(epipolar_lines(p, r)), inputs)


# Scale


def test_norm_is_that_of_the_observed_coordinates():
    points, observed = random(4, 17, 3), uniform(4, 17) > 0.3
    for i in range(4):
        expected = points[i][observed[i]].flatten().square().sum().sqrt()
        assert_close(norm(points, observed)[i, 0, 0], expected)


def test_unit_scale_is_independent_of_size_and_of_unobserved_points():
    points, observed = random(4, 17, 2), uniform(4, 17) > 0.3
    size = torch.tensor([1e-3, 1.0, 7.0, 1e4], dtype=torch.float64)[:, None, None]
    poisoned = torch.where(observed[..., None], size * points, torch.nan)
    expected, found = unit_scale(points, observed), unit_scale(poisoned, observed)
    assert_close(found[observed], expected[observed])
    assert_close(norm(found, observed), torch.ones(4, 1, 1, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unit_scale_of_a_point_is_finite_and_so_is_its_gradient(dtype):
    points = torch.zeros(1, 17, 2, dtype=dtype, requires_grad=True)
    scaled = unit_scale(points, torch.ones(1, 17, dtype=torch.bool))
    assert (scaled == 0).all()
    scaled.sum().backward()
    assert points.grad.isfinite().all()


def test_gradient_of_unit_scale():
    observed = uniform(2, 5) > 0.3
    assert gradcheck(lambda p: unit_scale(p, observed), random(2, 5, 3).requires_grad_())
