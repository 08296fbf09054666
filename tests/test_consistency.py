"""Laws of the similarities between the views of a window, and of the losses made of them."""

from dataclasses import replace
from itertools import permutations, product

import pytest
import torch
from synthetic_scene import random, random_rotations, uniform
from torch.testing import assert_close
from window_scenes import RIG, Fixed, Recalling, disturbed, scene

from canonlift.body.skeleton import H36M17
from canonlift.data.windows import WindowConfig
from canonlift.geometry.alignment import align_both_ways, align_similarity
from canonlift.geometry.rotations import nearest_rotation
from canonlift.inference.predict import lift_windows
from canonlift.methods import consistency
from canonlift.methods.consistency import align, rotations
from canonlift.methods.fusion import FusionConfig, fuse
from canonlift.methods.passes import Method, Pass
from canonlift.methods.relations import RelationConfig
from canonlift.time_windows import window_frames
from canonlift.types import Lifted, Views

LOSSES = {"relative": consistency.consistency, "printed": consistency.consistency_as_printed}
each_segment = pytest.mark.parametrize("segment", [0, 1, 4])
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture
def noisy():
    return disturbed(*scene()[:2])


# The similarity


def matrices():
    """Random ones, and some with equal, nearly equal and vanishing singular values."""
    u, v = random_rotations(2, 6, seed=3)
    values = [[1, 1, 1], [2, 1, 1], [1, 1, 1e-9], [2, 1, 0], [3, 1 + 1e-9, 1], [2, 1, -0.3]]
    given = u @ torch.diag_embed(torch.tensor(values, dtype=torch.float64)) @ v
    return torch.cat([given, random(4, 3, 3, seed=4)])


def test_the_gradient_of_the_rotation_is_exact_in_a_batch_however_near_the_singular_values():
    given = matrices().requires_grad_()
    assert torch.autograd.gradcheck(nearest_rotation, given, atol=1e-5)
    assert_close(torch.linalg.det(nearest_rotation(given)), torch.ones(10, dtype=torch.float64))


def test_what_is_free_to_turn_gets_no_gradient():
    for values in ([0.0, 0, 0], [1, 0, 0], [2, 1, -1]):
        matrix = torch.diag(torch.tensor(values, dtype=torch.float64)).requires_grad_()
        (nearest_rotation(matrix) * random(3, 3)).sum().backward()
        assert matrix.grad.isfinite().all()
        assert matrix.grad.abs().max() < 1e3


def test_both_ways_are_the_best_similarities_and_their_gradients_exact():
    first, second = random(2, 3, 7, 3)
    weight = uniform(3, 7)
    weight[1, :3] = 0

    def moved(first, second, weight):
        there, back, _ = align_both_ways(first, second, weight)
        return there(first), back(second)

    found = moved(first, second, weight)
    assert_close(found[0], align_similarity(first, second, weight)(first))
    assert_close(found[1], align_similarity(second, first, weight)(second))
    inputs = [x.clone().requires_grad_() for x in (first, second, weight + 0.1)]
    assert torch.autograd.gradcheck(moved, inputs, fast_mode=True)


def test_what_cannot_be_aligned_is_told_and_harms_no_other():
    first, second = random(2, 5, 7, 3)
    weight = torch.ones(5, 7, dtype=torch.float64)
    weight[1, 2:] = 0  # two points
    weight[2] = 0
    first[3] = 2.0  # a still point
    second[4] = -3.0
    inputs = [x.requires_grad_() for x in (first, second)]
    there, back, exists = align_both_ways(*inputs, weight)
    assert exists.tolist() == [True, False, False, False, False]
    gap = (there(first) - second).square() + (back(second) - first).square()
    (gap * exists[:, None, None]).sum().backward()
    for given in inputs:
        assert given.grad.isfinite().all()
        assert (given.grad[1:] == 0).all()
    assert_close(there(first)[0], align_similarity(first[:1], second[:1])(first[:1])[0])


# Consistency


def test_segments_by_hand():
    assert window_frames(5, 5).tolist() == [[0, 1, 2, 3, 4]]
    assert window_frames(3, 1).tolist() == [[0], [1], [2]]
    assert window_frames(7, 4).tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6]]
    assert window_frames(3, 4).tolist() == [[0, 1, 2]]


def pairs(windows, motion, segment):
    """Sample, both views, frames, points of the one moved onto those of the other, weight."""
    n_samples, n_views, n_frames = windows.confidence.shape[:3]
    for frames in window_frames(n_frames, segment or n_frames):
        for b, (u, v) in product(range(n_samples), permutations(range(n_views), 2)):
            x, y = (motion.in_camera[b, w, frames].flatten(0, 1) for w in (u, v))
            both = windows.confidence[b, u] * windows.confidence[b, v]
            weight = both[frames].flatten()
            if (weight > 0).sum() >= 3:
                yield b, u, v, frames, align_similarity(x, y, weight)(x), y, weight


@each_segment
@each_loss
def test_agrees_with_one_pair_after_another(loss, segment, noisy):
    windows, motion = noisy
    total = count = 0.0
    image = replace(windows, keypoints=motion.in_camera[..., :2])
    unit = (image if loss is consistency.consistency else windows).unit[..., 0, 0, 0]
    for b, _, v, _, moved, onto, weight in pairs(windows, motion, segment):
        gap = (moved - onto).norm(dim=-1) / unit[b, v]
        total, count = total + (weight * gap).sum(), count + weight.sum()
    assert_close(loss(align(motion, windows, segment)), total / count)


@each_segment
def test_agreement_with_the_images_of_other_views_by_one_pair_after_another(segment, noisy):
    windows, motion = noisy
    total = count = 0.0
    for b, _, v, frames, moved, _, _ in pairs(windows, motion, segment):
        weight = windows.confidence[b, v, frames].flatten()
        seen = windows.keypoints[b, v, frames].flatten(0, 1)
        gap = (moved[:, :2] - seen).norm(dim=-1) / windows.unit[b, v].squeeze()
        total, count = total + (weight * gap).sum(), count + weight.sum()
    found = consistency.other_views(windows, align(motion, windows, segment))
    assert_close(found, total / count)


def test_a_body_that_hardly_moves_agrees_with_itself_but_not_with_what_was_seen(noisy):
    """Why there is `other_views`: agreement alone would rather that nobody moved."""
    windows, motion = noisy
    mean = motion.in_camera.mean(2, keepdim=True)
    found = []
    for motionless in (0.0, 0.5, 0.9):
        slower = Lifted(torch.lerp(motion.in_camera, mean, motionless), None)
        aligned = align(slower, windows, 0)
        found.append([consistency.consistency(aligned), consistency.other_views(windows, aligned)])
    agreeing, seen = torch.tensor(found).T
    assert agreeing[0] > agreeing[1] > agreeing[2]
    assert seen[0] < seen[1] < seen[2]


@each_segment
@each_loss
def test_is_zero_for_one_motion_seen_by_still_cameras_of_any_size_and_heading(loss, segment):
    windows, motion, _ = scene()
    assert loss(align(motion, windows, segment)) < 1e-12


def test_a_segment_forgives_what_turns_no_more_than_it_is_long():
    windows, motion, _ = scene()
    turn = random_rotations(10, seed=8)  # another heading in every frame
    halves = turn[[0] * 5 + [1] * 5]
    found = {}
    for name, rotation in (("panning", turn), ("cut", halves)):
        moved = motion.in_camera.clone()
        moved[:, 0] = torch.einsum("trc,btjc->btjr", rotation, moved[:, 0])
        for segment in (0, 1, 5):
            aligned = align(Lifted(moved, None), windows, segment)
            found[name, segment] = consistency.consistency(aligned).item()
    assert found["panning", 1] < 1e-12
    assert min(found["panning", 0], found["panning", 5]) > 0.1
    assert found["cut", 1] < 1e-12
    assert 1e-3 < found["cut", 5] < 0.6 * found["cut", 0]


@each_segment
@each_loss
def test_a_mirrored_view_is_not_forgiven_but_a_mirrored_world_is(loss, segment, noisy):
    windows, motion = noisy
    depth = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    before = loss(align(motion, windows, segment))
    assert_close(loss(align(Lifted(depth * motion.in_camera, None), windows, segment)), before)
    exact, true, _ = scene()
    one = true.in_camera.clone()
    one[:, 0] *= depth
    assert loss(align(Lifted(one, None), exact, segment)) > 0.1


@each_loss
def test_does_not_depend_on_the_order_of_views_nor_on_the_size_of_the_images(loss, noisy):
    windows, motion = noisy
    before = loss(align(motion, windows, 4))
    order = [2, 0, 1]
    shuffled = replace(
        windows,
        keypoints=windows.keypoints[:, order],
        confidence=windows.confidence[:, order],
    )
    assert_close(loss(align(Lifted(motion.in_camera[:, order], None), shuffled, 4)), before)
    size = torch.tensor([3.0, 0.1, 40.0], dtype=torch.float64)[:, None, None, None]
    larger = replace(windows, keypoints=size * windows.keypoints)
    assert_close(loss(align(Lifted(size * motion.in_camera, None), larger, 4)), before)


@each_segment
@each_loss
def test_what_was_not_observed_is_free(loss, segment, noisy):
    windows, motion = noisy
    hidden = (windows.confidence == 0)[..., None]
    other = torch.where(hidden, 1e4, motion.in_camera)
    found = loss(align(Lifted(other, None), windows, segment))
    assert_close(found, loss(align(motion, windows, segment)))


def test_only_the_loss_as_printed_rewards_shrinking(noisy):
    windows, motion = noisy
    half, whole = (align(Lifted(s * motion.in_camera, None), windows, 0) for s in (0.5, 1.0))
    assert_close(consistency.consistency(half), consistency.consistency(whole))
    printed = consistency.consistency_as_printed
    assert_close(printed(half), 0.5 * printed(whole))


def test_a_rod_along_the_optical_axis_is_not_consistent(noisy):
    """Were the unit the size in space, depth without end would make all views agree."""
    windows, motion = noisy
    long = motion.in_camera * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    long[..., 2] = 1e4 * random(17, seed=9)
    found = consistency.consistency(align(Lifted(long, None), windows, 0))
    assert found > consistency.consistency(align(motion, windows, 0))


@each_segment
def test_the_gradient_is_exact_through_a_batch_with_gaps(segment):
    windows, motion, _ = scene(2, 3, 4)
    windows, motion = disturbed(windows, motion)
    given = (motion.in_camera[..., :5, :] / 50).clone().requires_grad_()
    windows = replace(
        windows, keypoints=windows.keypoints[..., :5, :], confidence=windows.confidence[..., :5]
    )

    def both(points):
        aligned = align(Lifted(points, None), windows, segment)
        alone = [loss(aligned) for loss in LOSSES.values()]
        return [*alone, consistency.other_views(windows, aligned)]

    assert torch.autograd.gradcheck(both, given, atol=1e-5, fast_mode=True)


def test_what_does_not_align_is_counted():
    windows, motion, _ = scene(1, 3, 4)
    confidence = windows.confidence.clone()
    confidence[0, 0, 1, 2:] = 0  # two joints: with views 1 and 2
    confidence[0, 0, 2] = 0  # nothing, which is no failure
    still = motion.in_camera.clone()
    still[0, 1, 3] = 1.0  # a still point: with views 0 and 2
    aligned = align(Lifted(still, None), replace(windows, confidence=confidence), 1)
    assert_close(consistency.degenerate(aligned).item(), 4 / 10)
    assert consistency.degenerate(align(motion, windows, 0)) == 0


def test_too_little_is_no_similarity_however_many_frames_show_it():
    """Two joints in all frames, and poses that have shrunk to points."""
    windows, motion, _ = scene(2, 2, 10)
    confidence, pose = windows.confidence.clone(), motion.in_camera.clone()
    confidence[0, 0, :, 2:] = 0
    pose[1, 0] *= 1e-20
    aligned = align(Lifted(pose, None), replace(windows, confidence=confidence), 0)
    assert consistency.degenerate(aligned) == 1
    assert (aligned.weight == 0).all()


def test_three_joints_as_good_as_on_a_line_do_not_swing_the_whole_body():
    """The turn about the line follows their noise, with a slope that grows without end."""
    windows, motion, _ = scene(1, 2, 1)
    confidence = windows.confidence.clone()
    confidence[0, 0, :, 3:] = 0  # all that both views saw are the three
    windows = replace(windows, confidence=confidence)

    def steepest(off):
        pose = motion.in_camera + 10 * random(*motion.in_camera.shape, seed=9)
        line = torch.tensor([[0.0, 0, 0], [30, 80, 20], [-24, -64, -16]])
        pose[0, :, :, :3] = line + 80 * off * random(2, 1, 3, 3, seed=9)
        given = pose.requires_grad_()
        consistency.other_views(windows, align(Lifted(given, None), windows, 1)).backward()
        return given.grad.norm()

    usual = steepest(1.0)
    for off in (0.01, 0.003, 1e-3, 1e-5):
        assert steepest(off) < 10 * usual


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-4, 1e-8, 1e-16, 1e-22])
def test_gradients_are_finite_however_small_the_poses_are(size, dtype):
    windows, motion, _ = scene(1, 3, 4)
    windows = windows.to(dtype)
    given = (size * (motion.in_camera + random(1, 3, 4, 17, 3, seed=9))).to(dtype)
    for loss in LOSSES.values():
        small = given.clone().requires_grad_()
        loss(align(Lifted(small, None), windows, 0)).backward()
        assert small.grad.isfinite().all()


def test_a_single_view_is_consistent_with_itself():
    windows, motion, _ = scene(2, 1)
    given = motion.in_camera.requires_grad_()
    aligned = align(Lifted(given, None), windows, 4)
    for loss in LOSSES.values():
        assert loss(aligned) == 0
    assert consistency.other_views(windows, aligned) == 0


# Rotations, and repair by them


@each_segment
def test_finds_how_still_cameras_are_turned_from_the_one_that_saw_most(segment):
    windows, motion, truth = scene()
    windows.confidence[0, :2] *= 0.9
    windows.confidence[1, 1:] *= 0.9
    found = rotations(align(motion, windows, segment), windows.confidence.sum(-1))
    expected = truth @ truth[torch.arange(2), [2, 0]][:, None].mT
    assert_close(found, expected[:, :, None].expand_as(found))


def between(rotation, one, other):
    return rotation[..., one, :, :] @ rotation[..., other, :, :].mT


@pytest.mark.parametrize("whole", [False, True])
def test_reaches_views_by_way_of_others_and_goes_on_without_the_one_that_saw_most(whole):
    """Views 0 and 3 share no joint with each other, and view 0 loses sight for a while."""
    windows, motion, truth = scene(1, 4, 60)
    confidence = windows.confidence.clone()
    confidence[:, 1:] *= 0.3
    confidence[0, 0, :, 9:] = 0
    confidence[0, 3, :, :9] = 0
    confidence[0, 0, 20:45] = 0
    windows = replace(windows, confidence=confidence)
    if whole:
        views = Views(windows.keypoints[0].transpose(0, 1), confidence[0].transpose(0, 1), RIG)
        found = lift_windows(
            Recalling(windows, motion), WindowConfig(9, gap=30), 0, views, 25.0, 200
        ).to_camera
    else:
        found = rotations(align(motion, windows, 9), confidence.sum(-1))[0].transpose(0, 1)
    lost = (torch.arange(60) > 20) & (torch.arange(60) < 44)
    for one, other in permutations(range(4), 2):
        error = between(found, one, other) - between(truth[0], one, other)
        known = ~lost if 0 in (one, other) else slice(None)
        assert error[known].abs().max() < 1e-4


def test_follows_a_turning_camera_and_blends_between_segments():
    windows, motion, _ = scene()
    angle = torch.linspace(0, 0.3, 10, dtype=torch.float64)
    turn = torch.eye(3, dtype=torch.float64).repeat(10, 1, 1)
    turn[:, 0, 0] = turn[:, 2, 2] = angle.cos()
    turn[:, 0, 2], turn[:, 2, 0] = angle.sin(), -angle.sin()
    panned = torch.einsum("trc,bvtjc->bvtjr", turn, motion.in_camera[:, :1])
    both = Lifted(torch.cat([motion.in_camera[:, :1], panned], dim=1), None)
    two = replace(windows, keypoints=both.in_camera[..., :2], confidence=windows.confidence[:, :2])
    errors = []
    for segment in (1, 4, 0):
        found = rotations(align(both, two, segment), two.confidence.sum(-1))
        errors.append((found[:, 1] - turn).norm(dim=(-2, -1)).max().item())
    assert errors[0] < 1e-9
    assert errors[0] < errors[1] < 0.1 < errors[2]


def test_windows_are_repaired_frame_by_frame_with_the_rotations_of_their_similarities():
    windows, motion, rotation = scene(2, 4, 3)
    keypoints = windows.keypoints.clone()
    keypoints[0, 1, 2, 3] += 0.7 * windows.unit[0, 1, 0, 0]
    confidence = torch.where(keypoints == windows.keypoints, 1.0, 0.2).amin(-1).double()
    wrong = replace(windows, keypoints=keypoints, confidence=confidence)
    fusion = FusionConfig(method="triangulate", extent=5.0)
    result = Pass(wrong, Fixed(motion), Method(H36M17, RelationConfig("procrustes"), fusion))
    repaired = result.repaired

    frame = Views(keypoints[:1, :, 2], confidence[:1, :, 2], windows.rig[:1])
    world = torch.einsum("bvrc,bvjr->bvjc", rotation[:1], motion.in_camera[:1, :, 2])
    lifted = Lifted(world / windows.unit[:1, :, 0], rotation[:1])
    expected = fuse(frame, lifted, fusion, H36M17).keypoints
    assert_close(repaired.keypoints[:1, :, 2], expected, atol=1e-3, rtol=1e-3)
    error = (repaired.keypoints - windows.keypoints)[0, 1, 2, 3].norm()
    assert error / windows.unit[0, 1, 0, 0] < 0.2
    assert_close(repaired.keypoints[1], wrong.keypoints[1])
