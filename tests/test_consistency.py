"""Laws of the similarities between the views of a window, and of what sequences learn from."""

from dataclasses import replace
from itertools import permutations, product

import pytest
import torch
from conftest import HOME, random, random_rotations, uniform
from test_simulate import action
from torch.testing import assert_close

from canonlift.body.skeleton import H36M17
from canonlift.geometry.alignment import align_both_ways, align_similarity, procrustes
from canonlift.geometry.rotations import nearest_rotation
from canonlift.methods import consistency, sequence_losses
from canonlift.methods.consistency import align, rotations, segments
from canonlift.methods.fusion import FusionConfig, fuse
from canonlift.methods.sequences import lift_recording, mend
from canonlift.methods.stages import STAGES, MotionPass, RemendPass, Repair, least_stage
from canonlift.methods.terms import MEASURES, TERMS, Objective
from canonlift.models.temporal import SequenceConfig, SequenceLifter
from canonlift.types import Lifted, Motion, Target, Views, Windows

LOSSES = {"relative": consistency.consistency, "printed": consistency.consistency_as_printed}
RIG = torch.full((60,), -1)
each_segment = pytest.mark.parametrize("segment", [0, 1, 4])
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


class Saying(SequenceLifter):
    """Says what it is told to, whatever it is shown."""

    def __init__(self, motion):
        torch.nn.Module.__init__(self)
        self.motion = motion

    def forward(self, windows):  # noqa: ARG002
        return self.motion


class Recalling(SequenceLifter):
    """Knows the true pose of each frame of a recording by what was seen in it."""

    def __init__(self, windows, motion):
        torch.nn.Module.__init__(self)
        self.anything = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.pose = windows.keypoints[0], motion.in_camera[0]

    def forward(self, windows):
        gap = windows.keypoints[:, :, :, None] - self.seen[:, None]
        frame = gap.abs().amax((-2, -1)).argmin(-1)
        return Motion(self.pose[torch.arange(len(self.pose))[:, None], frame])


class Telling(SequenceLifter):
    """Says what was seen, with a depth that is linear in it."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.anything = torch.nn.Parameter(torch.zeros(()))

    def forward(self, windows):
        x, y = windows.keypoints.unbind(-1)
        return Motion(torch.stack([x, y, x - 2 * y], -1))


def scene(n_samples=2, n_views=3, n_frames=10, seed=0):
    """Detections without error of moving people by still cameras, and the true motion."""
    world = random(n_samples, 1, n_frames, 17, 3, seed=seed)
    world = world - world[..., HOME : HOME + 1, :]
    rotation = random_rotations(n_samples, n_views, seed=seed + 1)
    size = 50 + 100 * uniform(n_samples, n_views, 1, 1, 1, seed=seed + 2)
    in_camera = size * torch.einsum(
        "bvrc,bvtjc->bvtjr", rotation, world.expand(-1, n_views, -1, -1, -1)
    )
    confidence = torch.ones(in_camera.shape[:-1], dtype=torch.float64)
    rig = torch.full((n_samples,), -1)
    return Windows(in_camera[..., :2], confidence, rig), Motion(in_camera), rotation


def disturbed(windows, motion, seed=5):
    """The same with nothing special about it, and joints, frames and a view unobserved."""
    unit = windows.unit
    noise = 0.1 * unit * random(*motion.in_camera.shape, seed=seed)
    confidence = uniform(*windows.confidence.shape, seed=seed + 1)
    confidence = confidence * (confidence > 0.2)
    confidence[0, 1, 7:] = 0
    confidence[1, 2] = 0
    keypoints = windows.keypoints + 0.1 * unit * random(*windows.keypoints.shape, seed=seed + 2)
    return replace(windows, keypoints=keypoints, confidence=confidence), Motion(
        motion.in_camera + noise
    )


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
    assert torch.autograd.gradcheck(procrustes, given, atol=1e-5)
    assert_close(torch.linalg.det(procrustes(given)), torch.ones(10, dtype=torch.float64))


def test_what_is_free_to_turn_gets_no_gradient():
    for values in ([0.0, 0, 0], [1, 0, 0], [2, 1, -1]):
        matrix = torch.diag(torch.tensor(values, dtype=torch.float64)).requires_grad_()
        (procrustes(matrix) * random(3, 3)).sum().backward()
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
    assert segments(5, 0).tolist() == [[0, 1, 2, 3, 4]]
    assert segments(3, 1).tolist() == [[0], [1], [2]]
    assert segments(7, 4).tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6]]
    assert segments(3, 4).tolist() == [[0, 1, 2]]


def pairs(windows, motion, segment):
    """Sample, both views, frames, points of the one moved onto those of the other, weight."""
    n_samples, n_views, n_frames = windows.confidence.shape[:3]
    for frames in segments(n_frames, segment):
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
    found = consistency.cross_image(windows, align(motion, windows, segment))
    assert_close(found, total / count)


def test_a_body_that_hardly_moves_agrees_with_itself_but_not_with_what_was_seen(noisy):
    """Why there is `cross_image`: agreement alone would rather that nobody moved."""
    windows, motion = noisy
    mean = motion.in_camera.mean(2, keepdim=True)
    found = []
    for motionless in (0.0, 0.5, 0.9):
        slower = Motion(torch.lerp(motion.in_camera, mean, motionless))
        aligned = align(slower, windows, 0)
        found.append([consistency.consistency(aligned), consistency.cross_image(windows, aligned)])
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
            aligned = align(Motion(moved), windows, segment)
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
    assert_close(loss(align(Motion(depth * motion.in_camera), windows, segment)), before)
    exact, true, _ = scene()
    one = true.in_camera.clone()
    one[:, 0] *= depth
    assert loss(align(Motion(one), exact, segment)) > 0.1


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
    assert_close(loss(align(Motion(motion.in_camera[:, order]), shuffled, 4)), before)
    size = torch.tensor([3.0, 0.1, 40.0], dtype=torch.float64)[:, None, None, None]
    larger = replace(windows, keypoints=size * windows.keypoints)
    assert_close(loss(align(Motion(size * motion.in_camera), larger, 4)), before)


@each_segment
@each_loss
def test_what_was_not_observed_is_free(loss, segment, noisy):
    windows, motion = noisy
    hidden = (windows.confidence == 0)[..., None]
    other = torch.where(hidden, 1e4, motion.in_camera)
    found = loss(align(Motion(other), windows, segment))
    assert_close(found, loss(align(motion, windows, segment)))


def test_only_the_loss_as_printed_rewards_shrinking(noisy):
    windows, motion = noisy
    half, whole = (align(Motion(s * motion.in_camera), windows, 0) for s in (0.5, 1.0))
    assert_close(consistency.consistency(half), consistency.consistency(whole))
    printed = consistency.consistency_as_printed
    assert_close(printed(half), 0.5 * printed(whole))


def test_a_rod_along_the_optical_axis_is_not_consistent(noisy):
    """Were the unit the size in space, depth without end would make all views agree."""
    windows, motion = noisy
    long = motion.in_camera * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    long[..., 2] = 1e4 * random(17, seed=9)
    found = consistency.consistency(align(Motion(long), windows, 0))
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
        aligned = align(Motion(points), windows, segment)
        alone = [loss(aligned) for loss in LOSSES.values()]
        return [*alone, consistency.cross_image(windows, aligned)]

    assert torch.autograd.gradcheck(both, given, atol=1e-5, fast_mode=True)


def test_what_does_not_align_is_counted():
    windows, motion, _ = scene(1, 3, 4)
    confidence = windows.confidence.clone()
    confidence[0, 0, 1, 2:] = 0  # two joints: with views 1 and 2
    confidence[0, 0, 2] = 0  # nothing, which is no failure
    still = motion.in_camera.clone()
    still[0, 1, 3] = 1.0  # a still point: with views 0 and 2
    aligned = align(Motion(still), replace(windows, confidence=confidence), 1)
    assert_close(consistency.degenerate(aligned).item(), 4 / 10)
    assert consistency.degenerate(align(motion, windows, 0)) == 0


def test_too_little_is_no_similarity_however_many_frames_show_it():
    """Two joints in all frames, and poses that have shrunk to points."""
    windows, motion, _ = scene(2, 2, 10)
    confidence, pose = windows.confidence.clone(), motion.in_camera.clone()
    confidence[0, 0, :, 2:] = 0
    pose[1, 0] *= 1e-20
    aligned = align(Motion(pose), replace(windows, confidence=confidence), 0)
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
        consistency.cross_image(windows, align(Motion(given), windows, 1)).backward()
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
        loss(align(Motion(small), windows, 0)).backward()
        assert small.grad.isfinite().all()


def test_a_single_view_is_consistent_with_itself():
    windows, motion, _ = scene(2, 1)
    given = motion.in_camera.requires_grad_()
    aligned = align(Motion(given), windows, 4)
    for loss in LOSSES.values():
        assert loss(aligned) == 0
    assert consistency.cross_image(windows, aligned) == 0


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
        config = SequenceConfig(length=9, gap=30)
        views = Views(windows.keypoints[0].transpose(0, 1), confidence[0].transpose(0, 1), RIG)
        found = lift_recording(Recalling(windows, motion), config, views, 25.0, 200).rotation
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
    both = Motion(torch.cat([motion.in_camera[:, :1], panned], dim=1))
    two = replace(windows, keypoints=both.in_camera[..., :2], confidence=windows.confidence[:, :2])
    errors = []
    for segment in (1, 4, 0):
        found = rotations(align(both, two, segment), two.confidence.sum(-1))
        errors.append((found[:, 1] - turn).norm(dim=(-2, -1)).max().item())
    assert errors[0] < 1e-9
    assert errors[0] < errors[1] < 0.1 < errors[2]


def test_mending_is_the_repair_of_every_frame_by_the_true_rotations():
    windows, motion, rotation = scene(2, 4, 3)
    keypoints = windows.keypoints.clone()
    keypoints[0, 1, 2, 3] += 0.7 * windows.unit[0, 1, 0, 0]
    confidence = torch.where(keypoints == windows.keypoints, 1.0, 0.2).amin(-1).double()
    wrong = replace(windows, keypoints=keypoints, confidence=confidence)
    repair = Repair(FusionConfig(method="triangulate", extent=5.0), H36M17)
    aligned = align(motion, windows, 0)
    mended = mend(wrong, motion, aligned, repair)

    frame = Views(keypoints[:1, :, 2], confidence[:1, :, 2], windows.rig[:1])
    world = torch.einsum("bvrc,bvjr->bvjc", rotation[:1], motion.in_camera[:1, :, 2])
    lifted = Lifted(world / windows.unit[:1, :, 0], rotation[:1])
    expected = fuse(frame, lifted, repair.config, H36M17).keypoints
    assert_close(mended.keypoints[:1, :, 2], expected, atol=1e-3, rtol=1e-3)
    error = (mended.keypoints - windows.keypoints)[0, 1, 2, 3].norm() / windows.unit[0, 1, 0, 0]
    assert error < 0.2
    assert_close(mended.keypoints[1], wrong.keypoints[1])


# What else sequences learn from


@pytest.fixture
def taught(noisy):
    """Windows with a target in a unit of its own in every view."""
    windows, motion = noisy
    size = 1 + uniform(2, 3, 1, 1, 1, seed=20)
    trust = uniform(*windows.confidence.shape, seed=21)
    trust = trust * (trust > 0.2)
    pose = size * random(*motion.in_camera.shape, seed=22) + 0.02 * motion.in_camera
    return replace(windows, target=Target(pose, trust)), motion


def result(windows, motion):
    """A pass of everything, of a lifter that says what it was told to."""
    repair = Repair(FusionConfig(method="triangulate"), H36M17, 4)
    return STAGES["remend"].run(Saying(motion), repair, windows)


OF_WINDOWS = [name for name, term in TERMS.items() if issubclass(term.reads, MotionPass)]
LEARNT = ("position", "velocity", "scale_free")


@pytest.mark.parametrize("name", OF_WINDOWS)
def test_every_term_moves_the_poses_and_reads_no_more_than_it_says(name, taught):
    windows, motion = taught
    given = motion.in_camera.clone().requires_grad_()
    stage = least_stage(TERMS[name].reads)
    repair = Repair(FusionConfig(method="triangulate"), H36M17, 4)
    found = stage.run(Saying(Motion(given)), repair, windows)
    assert type(found) is TERMS[name].reads
    TERMS[name].compute(found).backward()
    assert given.grad.isfinite().all()
    assert given.grad.abs().max() > 1e-6


@pytest.mark.parametrize("name", [*OF_WINDOWS, *MEASURES])
def test_terms_do_not_depend_on_the_size_of_images_or_targets(name, taught):
    windows, motion = taught
    row = {**TERMS, **MEASURES}[name]
    before = row.compute(result(windows, motion))
    size = torch.tensor([3.0, 0.1, 40.0], dtype=torch.float64)[:, None, None, None]
    target = replace(windows.target, pose=windows.target.pose * size.flip(0))
    larger = replace(windows, keypoints=size * windows.keypoints, target=target)
    found = row.compute(result(larger, Motion(size * motion.in_camera)))
    assert_close(found, before, rtol=1e-5, atol=1e-7)


def test_the_true_motion_costs_nothing_and_its_size_matters_where_it_should():
    windows, motion, _ = scene()
    size = torch.tensor([3.0, 0.1, 40.0], dtype=torch.float64)[:, None, None, None]
    target = Target(size * motion.in_camera, torch.ones_like(windows.confidence))
    windows = replace(windows, target=target)
    small = result(windows, Motion(0.5 * motion.in_camera))
    true = result(windows, motion)
    for name in ("image", "cross_image", "consistency", *LEARNT):
        assert TERMS[name].compute(true) < 1e-9
        shrunk = TERMS[name].compute(small)
        assert (shrunk > 0.05) == (name in ("image", "cross_image", "position", "velocity"))


def test_losses_by_hand(taught):
    windows, motion = taught
    b, v = 1, 0
    one = [slice(b, b + 1), slice(v, v + 1)]
    windows = Windows(
        windows.keypoints[*one], windows.confidence[*one], windows.rig[:1],
        Target(windows.target.pose[*one], windows.target.trust[*one]),
    )  # fmt: skip
    pose, seen = motion.in_camera[b, v], windows.confidence[0, 0]
    points, trust = windows.keypoints[0, 0], windows.target.trust[0, 0]
    observed = points[seen > 0]
    unit = 2 * observed.square().sum(-1).mean().sqrt()
    assert_close(windows.unit[0, 0, 0, 0, 0], unit)
    target = windows.target.pose[0, 0]
    both = (seen * trust)[..., None]
    target = target * (both * target[..., :2] * points).sum() / (both * target[..., :2] ** 2).sum()

    def mean(gap, weight):
        return (gap.norm(dim=-1) / unit * weight).sum() / weight.sum()

    scaled = torch.stack(
        [
            p * torch.clamp((w[:, None] * p * t).sum() / (w[:, None] * p * p).sum(), min=0)
            for p, t, w in zip(pose, target, trust, strict=True)
        ]
    )
    expected = {
        "image": mean(pose[..., :2] - points, seen),
        "position": mean(pose - target, trust),
        "velocity": mean(pose.diff(dim=0) - target.diff(dim=0), trust[1:] * trust[:-1]),
        "scale_free": mean(scaled - target, trust),
    }
    found = MotionPass(windows, Motion(pose[None, None]), joints=H36M17)
    for name, value in expected.items():
        assert_close(TERMS[name].compute(found), value)


def test_people_fold_nothing_the_wrong_way_and_mirror_images_do():
    world = torch.from_numpy(action(60, seed=3))
    world = world - world[:, HOME : HOME + 1]
    pose = 80 * torch.einsum("vrc,tjc->vtjr", random_rotations(3, seed=1), world)[None]
    confidence = torch.ones(pose.shape[:-1], dtype=torch.float64)
    confidence[0, 1, 7:] = 0
    pose[0, 1, 9] = 0.0  # of a frame that nobody saw there is nothing to say, and no slope
    windows = Windows(pose[..., :2], confidence, torch.tensor([-1]))
    assert sequence_losses.fold(windows, Motion(pose), H36M17) < 0.02
    mirrored = (pose * torch.tensor([1.0, 1.0, -1.0])).requires_grad_()
    wrong = sequence_losses.fold(windows, Motion(mirrored), H36M17)
    assert wrong > 0.3
    wrong.backward()
    assert mirrored.grad.isfinite().all()
    assert (mirrored.grad[0, 1, 7:] == 0).all()
    assert sequence_losses.fold(windows, Motion(mirrored - 1e-2 * mirrored.grad), H36M17) < wrong
    # Seen from behind, the same.
    turned = pose * torch.tensor([-1.0, 1.0, -1.0])
    assert sequence_losses.fold(windows, Motion(turned), H36M17) < 0.02


def test_measures_by_hand():
    windows, motion, _ = scene()
    flat = Motion(motion.in_camera * torch.tensor([0.3, 0.3, 0.06], dtype=torch.float64))
    assert_close(sequence_losses.spread(windows, motion).item(), 1.0)
    assert_close(sequence_losses.spread(windows, flat).item(), 0.3)
    ratio = [sequence_losses.depth(windows, m) for m in (flat, motion)]
    assert_close(ratio[0] / ratio[1], torch.tensor(0.2, dtype=torch.float64))


def test_movement_is_about_what_a_body_does_not_how_it_stands(noisy):
    windows, motion = noisy
    exact, true, _ = scene()
    assert_close(sequence_losses.movement(exact, true).item(), 1.0)
    seen = windows.confidence[..., None]
    mean = (seen * motion.in_camera).sum(2, keepdim=True) / seen.sum(2, keepdim=True).clamp_min(1)
    before = sequence_losses.movement(windows, motion)
    for share in (0.0, 0.3):
        slower = Motion(torch.lerp(mean.expand_as(motion.in_camera), motion.in_camera, share))
        assert_close(sequence_losses.movement(windows, slower), share * before)
        moved = Motion(motion.in_camera + 7 * windows.unit)
        assert_close(sequence_losses.movement(windows, moved), before)


def test_the_objective_measures_beside_its_terms_what_its_pass_can_tell(noisy):
    windows, motion = noisy
    run = Objective({"image": 1.0, "consistency": 0.5}, RemendPass)
    total, terms = run(result(windows, motion))
    assert list(terms) == ["image", "consistency", "spread", "depth", "movement", "degenerate"]
    assert_close(total, terms["image"] + 0.5 * terms["consistency"])
    assert Objective({"image": 1.0}, RemendPass).measures == ["spread", "depth", "movement"]
    assert Objective({"reprojection": 1.0}, STAGES["relift"].produces).measures == []


def test_a_term_that_learns_wants_a_target(noisy):
    for name in LEARNT:
        with pytest.raises(ValueError, match="no target; see data.target"):
            TERMS[name].compute(result(*noisy))


# Whole recordings


@pytest.mark.parametrize("fps", [None, 25.0, 40.0, 15.0])
def test_a_recording_is_what_its_windows_say_at_any_rate(fps):
    """Of motions at constant speed; also beside a pause, and in frames that nobody saw."""
    time = torch.arange(60.0)[:, None, None, None]
    keypoints = random(1, 3, 17, 2).float() * (1 + 0.1 * time)
    confidence = torch.ones(60, 3, 17)
    confidence[20:32] = 0
    confidence[5, 1] = 0
    views = Views(keypoints, confidence, torch.full((60,), -1))
    config = SequenceConfig(length=8, gap=4, fps=fps)
    found = lift_recording(Telling(), config, views, 25.0, block=50)
    in_camera = found.in_camera
    seen = views.observed.any(-1)
    seen[[18, 19, 32, 33, 34, 59]] = False  # beside the cut, where a rate may have no frame
    x, y = keypoints.unbind(-1)
    assert_close(in_camera[seen], torch.stack([x, y, x - 2 * y], -1)[seen], atol=2e-3, rtol=1e-4)
    assert_close(torch.linalg.det(found.rotation), torch.ones(60, 3), atol=1e-4, rtol=0)
    assert in_camera.isfinite().all()


class Numbering(Telling):
    """Says of every frame of a window how far to the right the first was."""

    def forward(self, windows):
        x = windows.keypoints[..., :1]
        return Motion(torch.cat([windows.keypoints, x[:, :, :1].expand_as(x)], -1))


def overlapping(n_frames, length):
    """First frames of windows half a length apart, and how much each of their frames counts."""
    starts = [*range(0, n_frames - length, length // 2), n_frames - length]
    share = torch.tensor([min(i + 1, length - i) for i in range(length)], dtype=torch.float64)
    return starts, share


def test_where_windows_overlap_poses_are_a_mean_that_counts_their_middle_most():
    keypoints = random(30, 2, 17, 2)
    views = Views(keypoints, torch.ones(30, 2, 17, dtype=torch.float64), torch.full((30,), -1))
    found = lift_recording(Numbering(), SequenceConfig(length=8), views, 25.0, 20).in_camera
    starts, share = overlapping(30, 8)
    expected, weight = torch.zeros(30, 2, 17, dtype=torch.float64), torch.zeros(30)
    for start in starts:
        expected[start : start + 8] += share[:, None, None] * keypoints[start, ..., 0]
        weight[start : start + 8] += share
    assert_close(found[..., 2], expected / weight[:, None, None])


@pytest.mark.parametrize("segment", [0, 6])
def test_rotations_of_a_recording_are_a_mean_over_its_segments(segment):
    """Of a camera that pans, each segment knows one rotation."""
    n_frames, length = 40, segment or 10
    windows, motion, _ = scene(1, 1, n_frames)
    angle = torch.linspace(0, 1, n_frames, dtype=torch.float64)
    turn = torch.eye(3, dtype=torch.float64).repeat(n_frames, 1, 1)
    turn[:, 0, 0] = turn[:, 2, 2] = angle.cos()
    turn[:, 0, 2], turn[:, 2, 0] = angle.sin(), -angle.sin()
    still = motion.in_camera
    both = torch.cat([still, torch.einsum("trc,bvtjc->bvtjr", turn, still)], dim=1)
    confidence = windows.confidence * torch.tensor([1.0, 0.5])[:, None, None]
    two = replace(windows, keypoints=both[..., :2], confidence=confidence)
    views = Views(two.keypoints[0].transpose(0, 1), confidence[0].transpose(0, 1), RIG[:n_frames])
    config = SequenceConfig(length=10, segment=segment)
    found = lift_recording(Recalling(two, Motion(both)), config, views, 25.0, 100).rotation

    total = torch.zeros(n_frames, 3, 3, dtype=torch.float64)
    starts, share = overlapping(n_frames, length)
    for start in starts:
        part = slice(start, start + length)
        sets = [both[:1, view, part].flatten(1, 2) for view in (0, 1)]
        total[part] += share[:, None, None] * align_similarity(*sets).rotation
    assert_close(between(found, 1, 0), nearest_rotation(total))


def test_a_recording_in_which_nothing_was_seen_gets_finite_poses():
    views = Views(torch.zeros(9, 2, 17, 2), torch.zeros(9, 2, 17), torch.full((9,), -1))
    once = Views(views.keypoints, views.confidence.clone(), views.rig)
    once.confidence[3] = 1.0  # between two frames of the windows
    for given, fps in ((views, None), (once, None), (once, 12.5)):
        config = SequenceConfig(length=8, fps=fps)
        found = lift_recording(Telling(), config, given, 25.0, block=50)
        assert len(found.pose) == 9
        assert found.in_camera.isfinite().all()
        assert found.rotation.isfinite().all()
