"""Laws of the losses: what they see, what they cannot see, and slow loops over Eqs. 3 to 6."""

from dataclasses import replace

import pytest
import torch
from synthetic_scene import disturbed, random, random_rotations, scene, turned, uniform
from torch.autograd import gradcheck
from torch.testing import assert_close

from canonlift.geometry.rotations import from_axis_angle
from canonlift.geometry.scale import norm, unit_scale
from canonlift.methods import frame_losses
from canonlift.types import Lifted, Target, Views

DEPTH = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)


def refinement(views, lifted):
    """Against a repair that depends on what was lifted: nearer to the reprojection."""
    image = unit_scale(lifted.in_camera[..., :2], views.observed)
    image = image * norm(views.keypoints, views.observed)
    return frame_losses.refinement(views, replace(views, keypoints=(views.keypoints + image) / 2))


def target_pose(views, lifted):
    return frame_losses.target_pose(views, views.target, lifted)


def consistency_3d(views, lifted):
    return frame_losses.consistency_3d(views, lifted.pose)


LOSSES = {
    "reprojection": frame_losses.reprojection,
    "refinement": refinement,
    "consistency_3d": consistency_3d,
    "target_pose": target_pose,
    "camera_consistency": frame_losses.camera_consistency,
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_self_supervised_loss = pytest.mark.parametrize(
    "loss",
    [f for f in LOSSES.values() if f is not target_pose],
    ids=[n for n in LOSSES if n != "target_pose"],
)


@pytest.fixture
def exact():
    """A static rig, and a target that is right but for its size."""
    views, truth = scene()
    fixed = truth.rotation[:1].expand(3, -1, -1, -1)
    truth = Lifted(truth.pose, fixed)
    keypoints = uniform(3, 4, 1, 1) * truth.in_camera[..., :2]
    target = Target(5.0 * truth.in_camera, torch.ones_like(views.confidence))
    return Views(keypoints, views.confidence, torch.zeros(3, dtype=torch.long), target), truth


@pytest.fixture
def noisy(exact):
    """Two rigs, and a target that is as wrong as everything else."""
    views, lifted = disturbed(*exact)
    target = views.target.pose + random(3, 4, 17, 3, seed=7)
    target = Target(target, uniform(3, 4, 17, seed=8))
    return replace(views, rig=torch.tensor([4, 2, 4]), target=target), lifted


def unseen(views, share=0.2, seed=0):
    """The same with a share of the joints and one whole view not observed."""
    seen = uniform(*views.confidence.shape, seed=seed) >= share
    seen[1, 2] = False
    return replace(views, confidence=views.confidence * seen)


@each_loss
def test_zero_where_everything_is_right(loss, exact):
    assert loss(*exact) < 1e-12
    assert loss(unseen(exact[0]), exact[1]) < 1e-12


@each_loss
def test_positive_where_it_is_not(loss, noisy):
    assert loss(*noisy) > 0.01


@each_loss
def test_blind_to_what_uncalibrated_cameras_cannot_tell(loss, noisy):
    """Neither the size of the person nor the choice of canonical frame is observable."""
    views, lifted = noisy
    turn = random_rotations(1, seed=9)[0]
    size = torch.tensor([0.01, 1.0, 30.0], dtype=torch.float64)[:, None, None, None]
    for other in (
        Lifted(size * lifted.pose, lifted.rotation),
        Lifted(lifted.pose @ turn.mT, lifted.rotation @ turn.mT),
    ):
        # L1 of canonical coordinates depends on their axes, but not by much.
        loose = {"rtol": 0.1, "atol": 0} if loss is consistency_3d else {}
        assert_close(loss(views, other), loss(views, lifted), **loose)


@each_loss
def test_blind_to_the_size_of_each_image(loss, noisy):
    views, lifted = noisy
    size = 0.01 + 100 * uniform(3, 4, 1, 1, seed=5)
    larger = replace(views, keypoints=size * views.keypoints)
    assert_close(loss(larger, lifted), loss(views, lifted))


@each_self_supervised_loss
def test_blind_to_the_mirrored_world(loss, noisy):
    """Trap 1: why `mirror` has to decide."""
    views, lifted = noisy
    mirrored = Lifted(lifted.pose * DEPTH, DEPTH[:, None] * lifted.rotation * DEPTH)
    assert_close(loss(views, mirrored), loss(views, lifted))


def test_a_target_sees_the_mirrored_world(exact):
    views, truth = exact
    mirrored = Lifted(truth.pose * DEPTH, DEPTH[:, None] * truth.rotation * DEPTH)
    assert target_pose(views, mirrored) > 0.1
    target = Target(views.target.pose * DEPTH, views.target.trust)
    assert target_pose(replace(views, target=target), mirrored) < 1e-12


def test_only_another_view_sees_a_wrong_depth(exact):
    """Why every pair of views is compared: flattening along the axis costs nothing at home."""
    views, truth = exact
    flat = truth.in_camera * torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64)
    wrong = Lifted(torch.einsum("bvcr,bvjc->bvjr", truth.rotation, flat), truth.rotation)
    alone = [
        frame_losses.reprojection(
            Views(views.keypoints[:, v : v + 1], views.confidence[:, v : v + 1], views.rig),
            Lifted(wrong.pose[:, v : v + 1], wrong.rotation[:, v : v + 1]),
        )
        for v in range(4)
    ]
    assert max(alone) < 1e-12
    assert frame_losses.reprojection(views, wrong) > 0.03
    assert target_pose(views, wrong) > 0.03


# Slow loops over the equations


def unit(points, observed):
    return points / points[observed].norm()


def weighted_mean(values, weights):
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)


def pairs(views):
    """Every (sample, m, n) such that view n saw something."""
    n_samples, n_views = views.confidence.shape[:2]
    return [
        (b, m, n)
        for b in range(n_samples)
        for m in range(n_views)
        for n in range(n_views)
        if views.observed[b, n].any()
    ]


def test_reprojection_equals_a_loop_over_all_pairs(noisy):
    views, lifted = noisy
    views = unseen(views)
    values, weights = [], []
    for b, m, n in pairs(views):
        seen = (lifted.rotation[b, m] @ lifted.pose[b, n].mT).mT[:, :2]
        observed = views.observed[b, m]
        if observed.any():
            gap = unit(views.keypoints[b, m], observed) - unit(seen, observed)
            values += list(gap.abs().sum(-1))
            weights += list(views.confidence[b, m])
    assert_close(frame_losses.reprojection(views, lifted), weighted_mean(values, weights))


def test_refinement_equals_a_loop_over_views(noisy):
    views, _ = noisy
    views = unseen(views)
    fused = replace(views, keypoints=views.keypoints + 0.1 * random(*views.keypoints.shape))
    values, weights = [], []
    for b, m in views.observed.any(-1).nonzero().tolist():
        gap = (views.keypoints - fused.keypoints)[b, m].abs().sum(-1)
        values += list(gap / views.keypoints[b, m][views.observed[b, m]].norm())
        weights += list(views.confidence[b, m])
    assert_close(frame_losses.refinement(views, fused), weighted_mean(values, weights))


def test_consistency_3d_equals_a_loop_over_all_pairs(noisy):
    views, lifted = noisy
    views = unseen(views)
    values = []
    for b, m, n in pairs(views):
        if views.observed[b, m].any():
            one, other = lifted.pose[b, m], lifted.pose[b, n]
            values += list((one / one.norm() - other / other.norm()).abs().sum(-1))
    assert_close(frame_losses.consistency_3d(views, lifted.pose), sum(values) / len(values))


def test_imitation_equals_a_loop_over_all_pairs(noisy):
    views, lifted = noisy
    views = unseen(views)
    views.target.trust[0, 1, 4:9] = 0.0
    values, weights = [], []
    for b, m, n in pairs(views):
        seen = (lifted.rotation[b, m] @ lifted.pose[b, n].mT).mT
        known = views.target.trust[b, m] > 0
        gap = unit(views.target.pose[b, m], known) - unit(seen, known)
        values += list(gap.abs().sum(-1))
        weights += list(views.target.trust[b, m])
    assert_close(target_pose(views, lifted), weighted_mean(values, weights))


def test_camera_consistency_equals_a_loop_over_all_pairs(noisy):
    """Samples 0 and 2 are of one rig, each the partner of the other; 1 is alone."""
    views, lifted = noisy
    views = unseen(views)  # of sample 1
    views.confidence[2, 3] = 0.0
    rotation, seen = lifted.rotation, views.observed.any(-1)
    values = []
    for b, partner in ((0, 2), (2, 0), (1, 1)):
        both = (seen[b] & seen[partner]).nonzero()[:, 0].tolist()
        for m in both:
            for n in both:
                then = rotation[b, m] @ rotation[b, n].mT
                now = rotation[partner, m] @ rotation[partner, n].mT
                values.append((then - now).abs().sum())
    assert_close(frame_losses.camera_consistency(views, lifted), sum(values) / len(values))


# What counts


@each_loss
def test_what_was_not_observed_does_not_matter(loss, noisy):
    views, lifted = noisy
    views = unseen(views)
    empty = ~views.observed.any(-1)
    poisoned = views.keypoints.masked_fill(~views.observed[..., None], 1e6)
    other = Lifted(
        torch.where(empty[..., None, None], 1e3, lifted.pose),
        torch.where(empty[..., None, None], random_rotations(3, 4), lifted.rotation),
    )
    expected = loss(views, lifted)
    assert_close(loss(replace(views, keypoints=poisoned), lifted), expected)
    if loss is not target_pose:  # a target says where the person is even in an empty view
        assert_close(loss(views, other), expected)


def test_an_unknown_part_of_a_target_does_not_matter(noisy):
    views, lifted = noisy
    trust = views.target.trust * (uniform(3, 4, 17, seed=3) > 0.3)
    pose = views.target.pose.masked_fill((trust == 0)[..., None], 1e6)
    expected = frame_losses.target_pose(views, Target(views.target.pose, trust), lifted)
    assert_close(frame_losses.target_pose(views, Target(pose, trust), lifted), expected)


def test_an_unsure_joint_counts_less(exact):
    views, truth = exact
    wrong = views.keypoints.clone()
    wrong[:, :, 5] *= 1.5
    values = []
    for confidence in (0.0, 0.1, 0.5, 1.0):
        views.confidence[:, :, 5] = confidence
        values.append(frame_losses.reprojection(replace(views, keypoints=wrong), truth))
    assert values[0] < 1e-12
    assert values == sorted(values)


@pytest.mark.parametrize("n_views", [1, 2, 5])
def test_every_pair_of_views_weighs_the_same(n_views):
    """Eq. 7 sums over all (m, n), a view with itself included."""
    views, truth = scene(1, n_views)
    lifted = turned(truth, 0.3)
    values = []
    for m in range(n_views):
        for n in range(n_views):
            one = Views(views.keypoints[:, [m]], views.confidence[:, [m]], views.rig)
            seen = Lifted(lifted.pose[:, [n]], lifted.rotation[:, [m]])
            values.append(frame_losses.reprojection(one, seen))
    assert_close(frame_losses.reprojection(views, lifted), sum(values) / n_views**2)


@each_loss
def test_zero_and_finite_where_nothing_was_observed(loss, noisy):
    views, lifted = noisy
    nothing = torch.zeros_like(views.confidence)
    blind = replace(views, confidence=nothing, target=Target(views.target.pose, nothing))
    pose = lifted.pose.clone().requires_grad_()
    value = loss(blind, Lifted(pose, lifted.rotation))
    assert value == 0
    if value.requires_grad:
        value.backward()
        assert pose.grad.isfinite().all()


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_pose_at_a_single_point_costs_something_finite(loss, dtype, noisy):
    """At exactly zero every norm is zero."""
    views, lifted = noisy
    pose = torch.zeros(3, 4, 17, 3, dtype=dtype, requires_grad=True)
    rotation = lifted.rotation.to(dtype).requires_grad_()
    value = loss(views.to(dtype), Lifted(pose, rotation))
    value.backward()
    assert value.isfinite()
    assert all(x.grad is None or x.grad.isfinite().all() for x in (pose, rotation))


def test_consistency_is_not_bought_by_shrinking(noisy):
    """Reprojection is blind to size, so as Eq. 6 is printed shrinking would cost nothing."""
    views, lifted = noisy
    pose = lifted.pose.clone().requires_grad_()
    value = frame_losses.consistency_3d(views, pose)
    (slope,) = torch.autograd.grad(value, pose)
    assert slope.abs().max() > 1e-3
    along_size = (slope * pose).sum((-2, -1))
    assert along_size.abs().max() < 1e-12
    for size in (1e-3, 1e-6):
        assert_close(frame_losses.consistency_3d(views, size * pose), value)


def test_consistency_sees_views_that_disagree(exact):
    views, truth = exact
    before = consistency_3d(views, turned(truth, 0.5))
    assert before < 1e-12  # of the poses, not of the rotations
    pose = truth.pose.clone()
    pose[:, 1, 3] += 0.5
    assert frame_losses.consistency_3d(views, pose) > 1e-3


def test_imitation_needs_a_target(exact):
    views, truth = exact
    with pytest.raises(ValueError, match=r"data\.target"):
        frame_losses.target_pose(views, None, truth)


# The rig


def rig_of(numbers, rotation):
    """As many samples of the rigs of these numbers, with nothing else to say."""
    views, truth = scene(len(numbers), rotation.shape[1])
    return replace(views, rig=torch.tensor(numbers)), Lifted(truth.pose, rotation)


def test_a_static_rig_costs_nothing_though_people_turn_and_a_moving_one_does():
    """The canonical frame turns with the person; relative rotations do not."""
    rig = random_rotations(2, 4)  # two rigs of four cameras
    body = random_rotations(6, 1, seed=1)
    static = rig[[0, 1, 1, 0, 0, 1]] @ body
    assert frame_losses.camera_consistency(*rig_of([3, 7, 7, 3, 3, 7], static)) < 1e-12
    assert frame_losses.camera_consistency(*rig_of([3, 7, 3, 7, 3, 7], static)) > 0.1
    moving = random_rotations(6, 4, seed=2)
    assert frame_losses.camera_consistency(*rig_of([3, 7, 7, 3, 3, 7], moving)) > 0.1


def test_moving_cameras_and_a_rig_alone_in_the_batch_cost_nothing():
    moving = random_rotations(5, 4)
    assert frame_losses.camera_consistency(*rig_of([-1, -1, -1, -1, -1], moving)) == 0
    assert frame_losses.camera_consistency(*rig_of([0, 1, 2, 3, 4], moving)) == 0
    with_moving = rig_of([0, -1, 0, -1, -1], moving)
    alone = rig_of([0, 0], moving[[0, 2]])
    assert_close(
        frame_losses.camera_consistency(*with_moving), frame_losses.camera_consistency(*alone)
    )


# Gradients


@each_loss
def test_gradient(loss, noisy):
    views, lifted = noisy
    views = unseen(views)
    inputs = lifted.pose.clone().requires_grad_(), random(3, 4, 3).requires_grad_()
    assert gradcheck(
        lambda p, w: loss(views, Lifted(p, from_axis_angle(w))), inputs, fast_mode=True
    )


def test_gradient_of_fused_reprojection_and_refinement_to_the_repair(noisy):
    views, lifted = noisy
    views = unseen(views)

    def both(keypoints):
        fused = replace(views, keypoints=keypoints)
        return frame_losses.refinement(views, fused), frame_losses.reprojection(fused, lifted)

    moved = views.keypoints + 0.1 * random(*views.keypoints.shape)
    assert gradcheck(both, moved.requires_grad_(), fast_mode=True)
