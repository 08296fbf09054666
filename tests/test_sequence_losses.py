"""Laws of the losses of windows, and of what is measured beside them."""

from dataclasses import replace

import pytest
import torch
from synthetic_scene import HOME, random, random_rotations, uniform
from test_simulate import action
from torch.testing import assert_close
from window_scenes import Fixed, disturbed, scene

from canonlift.body.skeleton import H36M17
from canonlift.methods import sequence_losses
from canonlift.methods.fusion import FusionConfig
from canonlift.methods.passes import Method, Pass
from canonlift.methods.relations import RelationConfig
from canonlift.methods.terms import MEASURES, TERMS
from canonlift.types import Lifted, Target, Views


@pytest.fixture
def noisy():
    return disturbed(*scene()[:2])


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
    """A pass of a network that returns these poses."""
    how = Method(H36M17, RelationConfig("procrustes", 4), FusionConfig(method="triangulate"))
    return Pass(windows, Fixed(motion), how)


OF_WINDOWS = [name for name, term in TERMS.items() if "image_scale" in term.needs]
LEARNT = ("target_position", "target_velocity", "target_scale_free")


@pytest.mark.parametrize("name", OF_WINDOWS)
def test_every_term_moves_the_poses(name, taught):
    windows, motion = taught
    given = motion.in_camera.clone().requires_grad_()
    TERMS[name].compute(result(windows, Lifted(given, None))).backward()
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
    found = row.compute(result(larger, Lifted(size * motion.in_camera, None)))
    assert_close(found, before, rtol=1e-5, atol=1e-7)


def test_the_true_motion_costs_nothing_and_its_size_matters_where_it_should():
    windows, motion, _ = scene()
    size = torch.tensor([3.0, 0.1, 40.0], dtype=torch.float64)[:, None, None, None]
    target = Target(size * motion.in_camera, torch.ones_like(windows.confidence))
    windows = replace(windows, target=target)
    small = result(windows, Lifted(0.5 * motion.in_camera, None))
    true = result(windows, motion)
    for name in ("own_view", "other_views", "consistency", *LEARNT):
        assert TERMS[name].compute(true) < 1e-9
        shrunk = TERMS[name].compute(small)
        assert (shrunk > 0.05) == (
            name in ("own_view", "other_views", "target_position", "target_velocity")
        )


def test_losses_by_hand(taught):
    windows, motion = taught
    b, v = 1, 0
    one = [slice(b, b + 1), slice(v, v + 1)]
    windows = Views(
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
        "own_view": mean(pose[..., :2] - points, seen),
        "target_position": mean(pose - target, trust),
        "target_velocity": mean(pose.diff(dim=0) - target.diff(dim=0), trust[1:] * trust[:-1]),
        "target_scale_free": mean(scaled - target, trust),
    }
    found = result(windows, Lifted(pose[None, None], None))
    for name, value in expected.items():
        assert_close(TERMS[name].compute(found), value)


def test_people_fold_nothing_the_wrong_way_and_mirror_images_do():
    world = torch.from_numpy(action(60, seed=3))
    world = world - world[:, HOME : HOME + 1]
    pose = 80 * torch.einsum("vrc,tjc->vtjr", random_rotations(3, seed=1), world)[None]
    confidence = torch.ones(pose.shape[:-1], dtype=torch.float64)
    confidence[0, 1, 7:] = 0
    pose[0, 1, 9] = 0.0  # of a frame that nobody saw there is nothing to say, and no slope
    windows = Views(pose[..., :2], confidence, torch.tensor([-1]))
    assert sequence_losses.flexion(windows, Lifted(pose, None), H36M17) < 0.02
    mirrored = (pose * torch.tensor([1.0, 1.0, -1.0])).requires_grad_()
    wrong = sequence_losses.flexion(windows, Lifted(mirrored, None), H36M17)
    assert wrong > 0.3
    wrong.backward()
    assert mirrored.grad.isfinite().all()
    assert (mirrored.grad[0, 1, 7:] == 0).all()
    assert (
        sequence_losses.flexion(windows, Lifted(mirrored - 1e-2 * mirrored.grad, None), H36M17)
        < wrong
    )
    # Seen from behind, the same.
    turned = pose * torch.tensor([-1.0, 1.0, -1.0])
    assert sequence_losses.flexion(windows, Lifted(turned, None), H36M17) < 0.02


def test_measures_by_hand():
    windows, motion, _ = scene()
    flat = Lifted(motion.in_camera * torch.tensor([0.3, 0.3, 0.06], dtype=torch.float64), None)
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
        slower = Lifted(
            torch.lerp(mean.expand_as(motion.in_camera), motion.in_camera, share), None
        )
        assert_close(sequence_losses.movement(windows, slower), share * before)
        moved = Lifted(motion.in_camera + 7 * windows.unit, None)
        assert_close(sequence_losses.movement(windows, moved), before)


def test_a_term_that_learns_wants_a_target(noisy):
    for name in LEARNT:
        with pytest.raises(ValueError, match="no target; see data.target"):
            TERMS[name].compute(result(*noisy))
