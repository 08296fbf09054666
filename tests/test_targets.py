"""Laws of the targets of training: the consensus of all views, and ground truth."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from simulated import filmed
from synthetic_scene import disturbed, random, scene, turned, uniform
from torch.testing import assert_close

from canonlift.body.skeleton import H36M17, ROOT, mirrored
from canonlift.data.recording import save
from canonlift.geometry.alignment import align_similarity
from canonlift.geometry.rotations import from_axis_angle
from canonlift.geometry.scale import unit_scale
from canonlift.methods.targets import TRUSTED, consensus, empty, ground_truth, solved
from canonlift.types import Lifted, Target, Views

HOME = H36M17.index(ROOT)


def pose_error(pose, truth):
    """Mean distance after the best similarity, in units of the truth's norm."""
    truth = truth / truth.norm(dim=(-2, -1), keepdim=True)
    return (align_similarity(pose, truth)(pose) - truth).norm(dim=-1).mean()


def test_the_consensus_is_nearer_to_the_truth_than_what_it_starts_from():
    views, truth = scene(n_samples=16, n_views=5, seed=3)
    views, _ = disturbed(views, truth, seed=4)
    pose = truth.pose + 0.3 * random(*truth.pose.shape, seed=6)
    lifted = turned(Lifted(pose, truth.rotation), 0.1, seed=7)
    target = consensus(views, lifted)
    start = pose_error(lifted.in_camera, truth.in_camera)
    mean = unit_scale(pose, torch.ones_like(views.observed)).mean(1, keepdim=True)
    assert pose_error(target.pose, truth.in_camera) < 0.5 * start
    assert pose_error(target.pose[:, :1], truth.in_camera[:, :1]) < 0.9 * pose_error(
        mean, truth.pose[:, :1]
    )


def test_the_consensus_is_the_target_of_the_views_where_that_is_trusted(noisy):
    """Whole poses of a view, in which the target's own joints count: their sizes differ."""
    views, lifted = noisy
    trust = uniform(*views.confidence.shape) * (
        uniform(*views.confidence.shape[:2], 1, seed=1) > 0.5
    )
    trust = trust * (uniform(*views.confidence.shape, seed=2) > 0.3)
    trust = trust * torch.where(uniform(*views.confidence.shape[:2], 1, seed=3) > 0.3, 1.0, 0.4)
    target = Target(random(*views.confidence.shape, 3), trust)
    expected = consensus(views, lifted)
    found = consensus(replace(views, target=target), lifted)
    known = target.trust.amax(-1) > TRUSTED
    assert 0.2 < known.double().mean() < 0.8
    assert_close(found.pose[known], target.pose[known])
    assert_close(found.trust[known], (trust[known] > 0).double())
    assert_close(found.pose[~known], expected.pose[~known])
    assert_close(found.trust[~known], expected.trust[~known])


def test_the_consensus_needs_two_views_and_carries_no_gradient(exact):
    views, truth = exact
    alone = torch.zeros_like(views.confidence)
    alone[:, 0] = 1
    target = consensus(Views(views.keypoints, alone, views.rig), truth)
    assert (target.trust == 0).all()
    leaf = Lifted(truth.pose.clone().requires_grad_(), truth.rotation)
    assert not consensus(views, leaf).pose.requires_grad


def test_the_true_target_is_the_recorded_pose_about_its_root(tmp_path):
    recording = filmed(n_views=3)
    pose3d = recording.pose3d.copy()
    pose3d[0, 1, 4] = np.nan
    save(replace(recording, pose3d=pose3d), tmp_path / "take.npz")
    target = ground_truth(tmp_path / "take.npz", H36M17, n_views=5)
    root = pose3d[:, :, [H36M17.index(ROOT)]]
    expected = torch.from_numpy(np.nan_to_num(pose3d - root))
    assert_close(target.pose[:, :3], expected)
    assert (target.trust[:, 3:] == 0).all()
    assert target.trust[0, 1, 4] == 0
    assert target.trust[:, :3].sum() == 60 * 3 * 17 - 1


def test_without_truth_there_is_no_true_target(tmp_path):
    save(replace(filmed(n_views=3), pose3d=None), tmp_path / "take.npz")
    with pytest.raises(ValueError, match="solved"):
        ground_truth(tmp_path / "take.npz", H36M17, n_views=3)


def test_an_empty_target_is_zero_without_trust(exact):
    views, _ = exact
    target = empty(views)
    assert target.pose.shape == (*views.confidence.shape, 3)
    assert not target.pose.any()
    assert not target.trust.any()


def test_solved_targets_are_near_the_truth_of_cameras_that_face_the_person():
    recording = filmed(n_views=4, n_frames=90)
    target = solved(recording, 4)
    seen = torch.from_numpy(recording.confidence) > 0
    known = target.trust > 0.5
    assert known.double().mean() > 0.9
    assert not known[~seen.any(-1)].any()
    # Without turning, the cameras would be off by where the person is in the image.
    root = torch.from_numpy(recording.pose3d[:, :, HOME])
    away = torch.rad2deg(torch.atan2(root[..., :2].norm(dim=-1), root[..., 2]))
    assert away.max() > 2
    truth = torch.from_numpy(recording.pose3d) - root[:, :, None]
    facing = turn_onto_axis(root) @ truth.mT
    everything = torch.ones_like(seen)
    gap = unit_scale(target.pose, everything) - unit_scale(facing.mT, everything)
    assert gap.norm(dim=-1)[known].mean() < 0.03


def turn_onto_axis(ray):
    """The smallest turn of a ray onto the z axis, by its axis and angle."""
    axis = torch.linalg.cross(ray, torch.tensor([0.0, 0.0, 1.0]).expand_as(ray))
    angle = torch.atan2(axis.norm(dim=-1, keepdim=True), ray[..., 2:])
    return from_axis_angle(angle * torch.nn.functional.normalize(axis, dim=-1))


def test_solved_targets_of_flipped_recordings_are_flipped():
    recording = filmed(n_views=4, n_frames=60, error_scale=0.0)
    partner = list(mirrored(H36M17))
    flip = torch.tensor([-1.0, 1.0, 1.0])
    width = recording.image_size[:, 0]
    keypoints = recording.keypoints[:, :, partner].copy()
    keypoints[..., 0] = width[:, None] - keypoints[..., 0]
    other = solved(
        replace(recording, keypoints=keypoints, confidence=recording.confidence[:, :, partner]), 4
    )
    target = solved(recording, 4)
    sure = (target.trust > 0.5) & (other.trust[:, :, partner] > 0.5)
    gap = (other.pose * flip)[:, :, partner] - target.pose
    assert gap.norm(dim=-1)[sure].mean() < 0.01


def test_a_single_view_has_no_solved_target_and_missing_views_are_padded():
    recording = filmed(n_views=2, n_frames=30)
    alone = replace(
        recording,
        keypoints=recording.keypoints[:, :1],
        confidence=recording.confidence[:, :1],
        views=recording.views[:1],
        image_size=None,
        pose3d=None,
        keypoints_true=None,
    )
    assert (solved(alone, 3).trust == 0).all()
    padded, target = solved(recording, 5), solved(recording, 2)
    assert (padded.trust[:, 2:] == 0).all()
    assert_close(padded.pose[:, :2], target.pose)
