"""Laws of what holds for every body: which way knees and elbows flex, left equal to right."""

import numpy as np
import pytest
import torch
from simulated import take
from synthetic_scene import random, random_rotations
from torch.testing import assert_close

from canonlift.body.anatomy import asymmetry, handedness
from canonlift.body.skeleton import COCO17, H36M17, SKELETONS, mirrored
from canonlift.simulation.motions import MOTIONS

DEPTH = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
each_motion = pytest.mark.parametrize("motion", MOTIONS)


@each_motion
def test_upright_people_have_positive_handedness(motion):
    flexion = handedness(take(motion), H36M17)
    assert (flexion > 0).double().mean() > 0.98
    assert flexion.abs().max() <= 4


def test_handedness_does_not_depend_on_orientation_position_or_unit():
    pose = random(50, 17, 3)
    expected = handedness(pose, H36M17)
    turned = pose @ random_rotations(50, seed=1).mT
    assert_close(handedness(turned, H36M17), expected)
    assert_close(handedness(1000 * pose + random(50, 1, 3, seed=2), H36M17), expected)


def test_handedness_changes_sign_in_a_mirror_and_when_left_and_right_are_swapped():
    pose = random(50, 17, 3)
    expected = handedness(pose, H36M17)
    assert expected.abs().min() > 1e-4
    through_any_plane = pose @ (random_rotations(50) * DEPTH).mT
    assert_close(handedness(through_any_plane, H36M17), -expected)
    renamed = [H36M17[i] for i in mirrored(H36M17)]
    assert_close(handedness(pose, renamed), -expected)
    both = (pose * DEPTH)[:, list(mirrored(H36M17))]
    assert_close(handedness(both, H36M17), expected)


def test_each_limb_counts_on_its_own():
    """A flat body has handedness 0; flexing one limb out of the plane gives the right sign."""
    pose = take("run")[:1]
    joints = {name: i for i, name in enumerate(H36M17)}
    straight = pose.clone()
    for a, b, c in (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist")):
        for side in "lr":
            start = straight[:, joints[f"{side}_{a}"]]
            down = torch.tensor([0.0, -0.4, 0.0], dtype=torch.float64)
            straight[:, joints[f"{side}_{b}"]] = start + down
            straight[:, joints[f"{side}_{c}"]] = start + 2 * down
    assert handedness(straight, H36M17).abs() < 1e-9
    left = straight[:, joints["l_hip"]] - straight[:, joints["r_hip"]]
    up = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    forward = torch.linalg.cross(left, up)
    for end, way in (("l_ankle", -1), ("r_ankle", -1), ("l_wrist", 1), ("r_wrist", 1)):
        bent = straight.clone()
        bent[:, joints[end]] += way * forward / forward.norm() * 0.2
        assert handedness(bent, H36M17) > 0.1
        bent[:, joints[end]] -= 2 * way * forward / forward.norm() * 0.2
        assert handedness(bent, H36M17) < -0.1


@pytest.mark.parametrize("joints", [*SKELETONS.values(), COCO17])
def test_skeletons_with_the_same_limbs_agree(joints):
    """The order of the joints and those that are not limbs do not matter."""
    pose = take("squat")
    kept = [name for name in joints if name in H36M17]
    found = handedness(pose[:, [H36M17.index(name) for name in kept]], kept)
    assert_close(found, handedness(pose, H36M17))


def test_a_body_without_limbs_or_extent_has_handedness_0():
    assert (handedness(random(3, 2, 3), ("pelvis", "head")) == 0).all()
    nowhere = torch.zeros(3, 17, 3, dtype=torch.float64, requires_grad=True)
    flexion = handedness(nowhere, H36M17)
    assert (flexion == 0).all()
    flexion.sum().backward()
    assert nowhere.grad.isfinite().all()


def test_asymmetry_is_the_mean_log_ratio_of_left_and_right():
    pose = take("slalom")
    assert asymmetry(pose, H36M17).max() < 1e-9
    assert_close(asymmetry(3.0 * pose @ random_rotations(90).mT, H36M17), asymmetry(pose, H36M17))
    longer = pose.clone()
    hip, knee, ankle = (H36M17.index(f"l_{name}") for name in ("hip", "knee", "ankle"))
    thigh = pose[:, knee] - pose[:, hip]
    longer[:, [knee, ankle]] += thigh[:, None]  # twice the thigh, the same shank
    expected = torch.full((90,), float(np.log(2) / 4), dtype=torch.float64)
    assert_close(asymmetry(longer, H36M17), expected)
    assert (asymmetry(random(3, 2, 3), ("pelvis", "head")) == 0).all()
