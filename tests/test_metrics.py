"""Metrics against scipy, and against cases worked out by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from scipy.spatial.transform import Rotation
from synthetic_scene import HOME, random, random_rotations, uniform
from torch.testing import assert_close

from canonlift.body.skeleton import H36M17
from canonlift.metrics import (
    JDR_JOINTS,
    PCK_THRESHOLDS_MM,
    JointErrors,
    RefinementErrors,
    in_one_size,
    joint_errors,
    refinement_summary,
    summary,
)

DEPTH = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
ROOT = 0


def poses(*shape, seed=0):
    return 300 * random(*shape, 3, seed=seed)


def procrustes_by_scipy(pose, truth):
    """Distances after the best rotation, scale and translation, by scipy's rotation."""
    a, b = pose - pose.mean(0), truth - truth.mean(0)
    rotation, _ = Rotation.align_vectors(b, a)
    a = rotation.apply(a)
    return np.linalg.norm((a * b).sum() / (a * a).sum() * a - b, axis=-1)


def scaled_by_search(pose, truth):
    """Distances after the best of many scales."""
    a, b = pose - pose[ROOT], truth - truth[ROOT]
    scales = np.linspace(0, 3, 30001)[:, None, None]
    best = np.square(scales * a - b).sum((1, 2)).argmin()
    return np.linalg.norm(scales[best] * a - b, axis=-1)


# One pose


def test_agrees_with_scipy_and_with_a_search_over_scales():
    truth = poses(6, 17)
    pose = 0.002 * (truth + poses(6, 17, seed=1)) @ random_rotations(6, seed=2).mT
    pose[3] = 0.8 * truth[3] + 30 * random(17, 3, seed=5)
    found = joint_errors(pose, truth, ROOT)
    for i in range(6):
        expected = procrustes_by_scipy(pose[i].numpy(), truth[i].numpy())
        assert_close(found.pa_mpjpe[i], torch.from_numpy(expected))
    expected = scaled_by_search(pose[3].numpy(), truth[3].numpy())
    assert_close(found.n_mpjpe[3], torch.from_numpy(expected), rtol=1e-3, atol=0.1)


def test_agrees_with_scipy_on_the_joints_whose_truth_is_known():
    truth, known = poses(6, 17), uniform(6, 17) > 0.3
    known[:, ROOT] = True
    pose = truth + poses(6, 17, seed=1) / 5
    found = joint_errors(pose, truth.masked_fill(~known[..., None], torch.nan), ROOT)
    for i in range(6):
        kept = known[i]
        part = pose[i, kept].numpy(), truth[i, kept].numpy()
        assert_close(found.pa_mpjpe[i, kept], torch.from_numpy(procrustes_by_scipy(*part)))
        scaled = torch.from_numpy(scaled_by_search(*part))
        assert_close(found.n_mpjpe[i, kept], scaled, rtol=1e-3, atol=0.1)
        assert found.pa_mpjpe[i, ~kept].isnan().all()
        assert found.n_mpjpe[i, ~kept].isnan().all()


def test_a_known_scale_and_a_known_turn_by_hand():
    """Right but for size: no error. Turned by 90 degrees: N sees it, PA does not."""
    truth = torch.tensor([[[0, 0, 0], [100, 0, 0], [0, 200, 0], [0, 0, 50]]], dtype=torch.float64)
    same = joint_errors(0.004 * truth + 7, truth, ROOT)
    assert_close(same.n_mpjpe, torch.zeros(1, 4, dtype=torch.float64), atol=1e-9, rtol=0)
    assert_close(same.pa_mpjpe, torch.zeros(1, 4, dtype=torch.float64), atol=1e-9, rtol=0)

    quarter = truth[..., [1, 0, 2]] * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    turned = joint_errors(quarter, truth, ROOT)
    # <pose, truth> = 50 * 50 of 100^2 + 200^2 + 50^2, so the best scale is 1 / 21.
    scale = 1 / 21
    expected = [0, math.hypot(100, 100 * scale), math.hypot(200, 200 * scale), 50 - 50 * scale]
    assert_close(turned.n_mpjpe, torch.tensor([expected], dtype=torch.float64))
    assert_close(turned.pa_mpjpe, torch.zeros(1, 4, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_neither_size_nor_position_of_the_pose_matters(size):
    truth = poses(5, 17)
    pose = truth + poses(5, 17, seed=1) / 5
    expected = joint_errors(pose, truth, ROOT)
    found = joint_errors(size * (pose + poses(5, 1, seed=2)), truth + poses(5, 1, seed=3), ROOT)
    for a, b in zip(found[:2], expected[:2], strict=True):
        assert_close(a, b)


def test_one_size_for_a_person_is_the_least_squares_of_all_poses_together():
    truth, known = poses(6, 17), uniform(6, 17) > 0.3
    known[:, ROOT] = True
    truth[~known] = torch.nan
    sizes = torch.linspace(0.8, 1.2, 6, dtype=torch.float64)[:, None, None]
    pose = sizes * (truth.nan_to_num() + poses(6, 17, seed=1) / 5)
    a, b = (x - x[:, ROOT : ROOT + 1] for x in (pose, truth))
    factor, _ = nnls(a[known].reshape(-1, 1).numpy(), b[known].flatten().numpy())
    expected = (factor[0] * a - b).norm(dim=-1)
    for size in (1.0, 1e-3, 1e4):
        sized = in_one_size(size * pose, truth, ROOT)
        found = joint_errors(sized, truth, ROOT).mpjpe
        assert_close(found, expected, equal_nan=True)
        assert found[known].mean() > joint_errors(sized, truth, ROOT).n_mpjpe[known].mean()


def test_mpjpe_takes_the_size_as_given():
    truth = poses(3, 17)
    found = joint_errors(1.1 * truth + 7, truth, ROOT).mpjpe
    assert_close(found, 0.1 * (truth - truth[:, ROOT : ROOT + 1]).norm(dim=-1))


def test_errors_have_the_unit_of_the_truth():
    truth, pose = poses(5, 17), poses(5, 17, seed=1)
    metres = joint_errors(pose / 1000, truth / 1000, ROOT)
    for a, b in zip(metres, joint_errors(pose, truth, ROOT), strict=True):
        assert_close(1000 * a, b)


def test_a_mirrored_pose_is_never_forgiven():
    """scipy.spatial.procrustes would; nor is one turned inside out, by a negative scale."""
    truth = poses(8, 17)
    for pose in (truth * DEPTH, -truth):
        found = joint_errors(pose, truth, ROOT)
        assert found.pa_mpjpe.mean(-1).min() > 50
        assert found.n_mpjpe[:, 1:].mean(-1).min() > 50


def test_a_pose_is_no_better_for_shrinking_to_a_point():
    """A collapsed pose may be moved, and that is all: it costs the spread of the truth."""
    truth = poses(4, 17)
    collapsed = torch.zeros(4, 17, 3, dtype=torch.float64) + poses(4, 1, seed=3)
    found = joint_errors(collapsed, truth, ROOT)
    rooted = truth - truth[:, :1]
    assert_close(found.n_mpjpe, rooted.norm(dim=-1))
    assert_close(found.pa_mpjpe, (truth - truth.mean(1, keepdim=True)).norm(dim=-1))
    almost = joint_errors(collapsed + 1e-9 * poses(4, 17, seed=4), truth, ROOT)
    assert almost.n_mpjpe.mean() > 0.9 * found.n_mpjpe.mean()


def test_procrustes_costs_no_more_than_one_scale_in_squares():
    truth, pose = poses(20, 17), poses(20, 17, seed=1)
    found = joint_errors(pose, truth, ROOT)
    assert (found.pa_mpjpe.square().sum(-1) <= found.n_mpjpe.square().sum(-1) + 1e-6).all()


def test_a_pose_without_root_or_with_two_known_joints_counts_nowhere():
    truth, pose = poses(4, 17), poses(4, 17, seed=1)
    truth[0, ROOT] = torch.nan
    truth[1, 2:] = torch.nan
    truth[2, 3:] = torch.nan
    pose[3] = torch.nan  # a view in which nothing was observed
    found = joint_errors(pose, truth, ROOT)
    assert found.n_mpjpe.isfinite().sum(-1).tolist() == [0, 0, 3, 0]
    assert found.pa_mpjpe.isfinite().sum(-1).tolist() == [0, 0, 3, 0]


def test_a_pose_does_not_depend_on_the_others():
    truth, pose = poses(4, 17), poses(4, 17, seed=1)
    truth[0, 5] = torch.nan
    pose[1] = 0.0
    together = joint_errors(pose, truth, ROOT)
    for i in range(4):
        alone = joint_errors(pose[i : i + 1], truth[i : i + 1], ROOT)
        for a, b in zip(alone, together, strict=True):
            assert_close(a, b[i : i + 1], equal_nan=True)


def test_float32_agrees_with_float64():
    truth, pose = poses(20, 17), poses(20, 17, seed=1)
    single = joint_errors(pose.float(), truth.float(), HOME)
    for a, b in zip(single, joint_errors(pose, truth, HOME), strict=True):
        assert_close(a.double(), b, rtol=1e-4, atol=1e-2)


# Tables


def test_summary_by_hand():
    """Errors 0, 100, 150, 151 and an unknown one."""
    nan = math.nan
    n_mpjpe = torch.tensor([[0.0, 100.0, 150.0], [151.0, nan, nan]], dtype=torch.float64)
    pa_mpjpe = torch.tensor([[10.0, 20.0, 30.0], [60.0, nan, nan]], dtype=torch.float64)
    found = summary(JointErrors(n_mpjpe, pa_mpjpe, 2 * pa_mpjpe))
    assert found["n_mpjpe_mm"] == pytest.approx(401 / 4)
    assert found["pa_mpjpe_mm"] == pytest.approx(30.0)
    assert found["mpjpe_mm"] == pytest.approx(60.0)
    assert found["n_pck_150"] == pytest.approx(75.0)
    # 31 thresholds 0, 5, ... 150: within all of them, within 11 (from 100 on), within 1, none.
    assert len(PCK_THRESHOLDS_MM) == 31
    assert found["auc"] == pytest.approx(100 * (31 + 11 + 1 + 0) / 4 / 31)


def test_perfect_and_hopeless_summaries():
    zero = torch.zeros(2, 17)
    assert summary(JointErrors(zero, zero, zero)) == {
        "n_mpjpe_mm": 0.0, "pa_mpjpe_mm": 0.0, "mpjpe_mm": 0.0, "n_pck_150": 100.0, "auc": 100.0
    }  # fmt: skip
    found = summary(JointErrors(zero + 500, zero + 400, zero))
    assert (found["n_pck_150"], found["auc"]) == (0.0, 0.0)


def test_nothing_known_is_not_a_perfect_score():
    unknown = torch.full((2, 17), torch.nan)
    assert all(math.isnan(value) for value in summary(JointErrors(*3 * (unknown,))).values())


def test_refinement_by_hand():
    """Two poses with heads of 20 and 40 pixels: joints count as found within 10 and 20."""
    joints = ("pelvis", "l_knee", "r_knee", "l_wrist")
    nan = math.nan
    errors = RefinementErrors(
        detected=torch.tensor([[1.0, 9.0, 11.0, 30.0], [2.0, 19.0, 21.0, 500.0]]),
        refined=torch.tensor([[1.0, 9.0, 8.0, 6.0], [2.0, 25.0, 5.0, nan]]),
        head=torch.tensor([20.0, 40.0]),
        counted=torch.tensor([[True, True, True, True], [True, True, True, False]]),
        unsure=torch.tensor([[False, False, True, True], [False, True, False, True]]),
    )
    found = refinement_summary(errors, joints)
    assert found["detected_px"] == pytest.approx((1 + 9 + 11 + 30 + 2 + 19 + 21) / 7)
    assert found["refined_px"] == pytest.approx((1 + 9 + 8 + 6 + 2 + 25 + 5) / 7)
    assert found["detected_unsure_px"] == pytest.approx((11 + 30 + 19) / 3)
    assert found["refined_unsure_px"] == pytest.approx((8 + 6 + 25) / 3)
    assert found["unsure_share"] == pytest.approx(3 / 7)
    assert found["jdr_detected"] == {"knee": 50.0, "wrist": 0.0}
    assert found["jdr_refined"] == {"knee": 75.0, "wrist": 100.0}


def test_both_sides_of_every_limb_joint_are_counted():
    error = torch.zeros(1, 17)
    everything = torch.ones(1, 17, dtype=torch.bool)
    for name in JDR_JOINTS:
        missed = error.clone()
        missed[0, H36M17.index(f"r_{name}")] = 99.0
        errors = RefinementErrors(error, missed, torch.tensor([20.0]), everything, everything)
        found = refinement_summary(errors, H36M17)
        assert set(found["jdr_detected"].values()) == {100.0}
        expected = {other: 50.0 if other == name else 100.0 for other in JDR_JOINTS}
        assert found["jdr_refined"] == expected
