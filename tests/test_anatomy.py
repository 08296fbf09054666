"""Which way people fold: the sign itself, the vote by it, and the targets made with it."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from conftest import random, random_rotations, uniform
from torch import nn
from torch.testing import assert_close

from canonlift.body.anatomy import asymmetry, handedness
from canonlift.body.skeleton import COCO17, H36M17, ROOT, SKELETONS, mirrored
from canonlift.data.recording import save
from canonlift.data.samples import Session, to_views
from canonlift.geometry.alignment import align_similarity
from canonlift.models.mlp import Lifter, LifterConfig
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.motions import MOTIONS
from canonlift.simulation.session import SimulateConfig, session
from canonlift.solve import closed_form
from canonlift.training.mirror import Vote, vote
from canonlift.types import Lifted, Views

DEPTH = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
each_motion = pytest.mark.parametrize("motion", MOTIONS)


@cache
def take(motion, n_frames=90):
    """One person doing one motion (T, 17, 3), metres."""
    generator = np.random.default_rng(5)
    return torch.from_numpy(perform(sample_person(generator), [motion], n_frames, 30.0, generator))


@cache
def filmed(n_views=6, error_scale=1.0, distance=(8.0, 20.0), n_frames=60):
    """A recording of every motion by moving cameras."""
    config = SimulateConfig(
        seed=3,
        n_train=1,
        n_test=0,
        n_frames=n_frames,
        cameras=CameraConfig(n_views=n_views, distance_m=distance),
        detector=DetectorConfig(error_scale=error_scale),
    )
    ((_, recording),) = session(config)
    return recording


# The sign


@each_motion
def test_people_fold_like_people(motion):
    fold = handedness(take(motion), H36M17)
    assert (fold > 0).double().mean() > 0.98
    assert fold.abs().max() <= 4


def test_the_fold_does_not_depend_on_frame_position_or_unit():
    pose = random(50, 17, 3)
    expected = handedness(pose, H36M17)
    turned = pose @ random_rotations(50, seed=1).mT
    assert_close(handedness(turned, H36M17), expected)
    assert_close(handedness(1000 * pose + random(50, 1, 3, seed=2), H36M17), expected)


def test_the_fold_changes_sign_in_a_mirror_and_with_the_names_of_left_and_right():
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
    """A body in a plane has no fold; bending one limb out of it makes some, of the right sign."""
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


def test_a_body_without_limbs_or_extent_has_no_fold():
    assert (handedness(random(3, 2, 3), ("pelvis", "head")) == 0).all()
    nowhere = torch.zeros(3, 17, 3, dtype=torch.float64, requires_grad=True)
    fold = handedness(nowhere, H36M17)
    assert (fold == 0).all()
    fold.sum().backward()
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


# The vote


class Recites(Lifter):
    """Lifts into poses that it was given, found again by their first coordinate."""

    def __init__(self, poses):
        super().__init__(LifterConfig(width=1), 17, 0)
        self.recital = nn.Parameter(poses)

    def forward(self, views):
        pose = self.recital[views.keypoints[:, 0, 0, 0].long()]
        return Lifted(pose, random_rotations(*pose.shape[:2]))


def recited(worlds, n_frames=40, n_views=3):
    """A session of one recording per entry, and a lifter that sits in that world in it."""
    pose = torch.stack([take(m)[:n_frames] for m in list(MOTIONS)[: len(worlds)]])
    sign = torch.tensor(worlds, dtype=torch.float64)[:, None, None, None]
    pose = (pose * torch.cat([sign.abs(), sign.abs(), sign], -1)).flatten(0, 1)
    n_samples = len(pose)
    pose = pose[:, None].expand(-1, n_views, -1, -1) @ random_rotations(n_samples, n_views).mT
    keypoints = torch.zeros(n_samples, n_views, 17, 2, dtype=torch.float64)
    keypoints[:, 0, 0, 0] = torch.arange(n_samples)
    views = Views(keypoints, uniform(n_samples, n_views, 17), torch.full((n_samples,), -1))
    recording = torch.arange(len(worlds)).repeat_interleave(n_frames)
    return Recites(pose), Session(views, recording, tuple(f"r{i}" for i in range(len(worlds))))


@pytest.mark.parametrize(
    ("worlds", "expected"),
    [((-1, -1, 1), Vote(2, 1)), ((1, 1, 1, -1), Vote(1, 3)), ((-1,), Vote(1, 0))],
)
def test_every_recording_votes_once(worlds, expected):
    assert vote(*recited(worlds), H36M17) == expected


def test_long_recordings_are_sampled_over_their_whole_length():
    lifter, takes = recited((1, 1))
    with torch.no_grad():
        lifter.recital[15:40] *= DEPTH  # most of the first recording, but not its start
    assert vote(lifter, takes, H36M17) == Vote(1, 1)
    assert vote(lifter, takes, H36M17, most_frames=8) == Vote(1, 1)


def test_what_was_not_observed_does_not_vote():
    lifter, takes = recited((1, 1))
    confidence = takes.views.confidence.clone()
    confidence[:, 1] = 0.0
    confidence[5] = 0.0
    with torch.no_grad():
        lifter.recital[:, 1] *= 100 * DEPTH
        lifter.recital[5] *= DEPTH
    blind = replace(takes, views=replace(takes.views, confidence=confidence))
    assert vote(lifter, blind, H36M17) == Vote(0, 2)
    nothing = replace(takes.views, confidence=torch.zeros_like(confidence))
    assert vote(lifter, replace(takes, views=nothing), H36M17) == Vote(0, 0)


def test_a_mirrored_network_loses_the_vote_and_its_mirror_wins_it():
    torch.manual_seed(1)
    network = Lifter(LifterConfig(width=16), 17, 0).double()
    recording = filmed(n_views=3)
    views = to_views(recording).to(torch.float64)
    takes = Session(views, torch.arange(len(views)) % 3, ("a", "b", "c"))
    before = vote(network, takes, H36M17)
    network.mirror()
    after = vote(network, takes, H36M17)
    assert before.mirrored + before.upright == 3
    assert (after.mirrored, after.upright) == (before.upright, before.mirrored)
    assert after.turn_round != before.turn_round
    assert after.certainty == before.certainty


def test_the_winner_and_its_share_by_hand():
    assert Vote(3, 1).turn_round
    assert not Vote(2, 2).turn_round
    assert not Vote(0, 0).turn_round
    assert Vote(3, 1).certainty == Vote(1, 3).certainty == 0.75
    assert Vote(0, 0).certainty == 0.5


# Targets


def pa_errors_mm(pose, recording):
    truth = torch.from_numpy(recording.pose3d).double()
    pose = pose.double()
    return 1000 * (align_similarity(pose, truth)(pose) - truth).norm(dim=-1).mean(-1)


@pytest.mark.parametrize("n_views", [4, 6])
def test_closed_form_is_right_where_it_is_trusted_and_never_mirrored(n_views):
    recording = filmed(n_views=n_views, n_frames=120)
    target = closed_form.closed_form(to_views(recording), H36M17)
    error = pa_errors_mm(target.pose, recording)
    assert ((target.trust >= 0) & (target.trust <= 1)).all()
    seen = to_views(recording).observed.any(-1)
    trusted = (target.trust.amax(-1) > 0.5) & seen
    assert trusted.double().mean() > 0.1
    assert error[trusted].mean() < 60
    assert error[trusted].mean() < error[seen & ~trusted].mean()
    wrong = pa_errors_mm(target.pose * DEPTH.float(), recording) < error
    assert not wrong[trusted].any()
    assert wrong[seen].double().mean() < 0.1


def test_closed_form_is_exact_without_detector_errors_from_far_away():
    recording = filmed(error_scale=0.0, distance=(200.0, 300.0))
    views = to_views(recording)
    # Without swapped and missed joints, which stay even in a detector without other errors.
    exact = torch.from_numpy(recording.keypoints_true - recording.keypoints_true[:, :, :1])
    views = replace(views, keypoints=exact, confidence=torch.ones_like(views.confidence))
    target = closed_form.closed_form(views, H36M17)
    assert pa_errors_mm(target.pose, recording).max() < 10
    assert (target.trust > 0.2).double().mean() > 0.9


def test_closed_form_takes_each_sample_by_itself_and_in_blocks():
    views = to_views(filmed())[:20]
    together = closed_form.closed_form(views, H36M17)
    blocks = closed_form.closed_form(views, H36M17, block=7)
    assert torch.equal(together.pose.isfinite(), torch.ones_like(together.pose) > 0)
    assert_close(blocks.trust, together.trust)
    sure = together.trust > 0.1  # elsewhere the cameras may be degenerate
    assert_close(blocks.pose[sure], together.pose[sure])
    assert_close(closed_form.closed_form(views[3:4], H36M17).trust, together.trust[3:4])


def test_a_window_knows_better_than_an_instant():
    recording = filmed(n_frames=120)
    views = to_views(recording)
    seen = views.observed.any(-1)
    truth = torch.from_numpy(recording.pose3d).double()
    truth = (truth - truth[:, :, :1])[seen]

    def error(target):
        """In camera axes, in any size: wrong orientations count too."""
        pose = target.pose.double()[seen]
        scale = (pose * truth).sum((1, 2)) / pose.square().sum((1, 2))
        return (scale[:, None, None] * pose - truth).norm(dim=-1).mean()

    instants, windows = (closed_form.closed_form(views, H36M17, window) for window in (1, 40))
    assert error(windows) < 0.75 * error(instants)
    assert windows.trust.mean() > instants.trust.mean()


@pytest.mark.parametrize("window", [2, 7, 20, 50])
def test_a_window_is_worked_on_alike_in_blocks_and_cannot_be_longer_than_the_take(window):
    views = to_views(filmed())[:23]
    together = closed_form.closed_form(views, H36M17, window)
    assert together.pose.shape == (*views.confidence.shape, 3)
    blocks = closed_form.closed_form(views, H36M17, window, block=11)
    assert_close(blocks.trust, together.trust)
    assert_close(blocks.pose, together.pose, atol=1e-3, rtol=1e-3)
    if window >= len(views):
        assert_close(closed_form.closed_form(views, H36M17, len(views)).pose, together.pose)


def test_the_windows_of_a_scene_without_errors_are_exact():
    recording = filmed(error_scale=0.0, distance=(200.0, 300.0))
    views = to_views(recording)
    exact = torch.from_numpy(recording.keypoints_true - recording.keypoints_true[:, :, :1])
    views = replace(views, keypoints=exact, confidence=torch.ones_like(views.confidence))
    target = closed_form.closed_form(views, H36M17, window=8)
    # The cameras follow, so they turn a little within a window.
    assert pa_errors_mm(target.pose, recording).max() < 20


def test_there_is_no_trust_with_fewer_than_three_views_nor_in_empty_ones():
    views = to_views(filmed())
    confidence = views.confidence.clone()
    confidence[:20, 2:] = 0.0
    confidence[20:40, 3:] = 0.0
    confidence[40:50] = 0.0
    partial = replace(views, confidence=confidence)
    target = closed_form.closed_form(partial, H36M17)
    assert (target.trust[:20] == 0).all()
    assert (target.trust[20:40, :3].amax((1, 2)) > 0).any()
    assert (target.trust[~partial.observed.any(-1)] == 0).all()
    assert target.pose.isfinite().all()
    two = Views(confidence[:, :2, :, None] * views.keypoints[:, :2], confidence[:, :2], views.rig)
    assert (closed_form.closed_form(two, H36M17).trust == 0).all()


@pytest.mark.parametrize("window", [1, 20])
def test_no_trust_in_a_frame_of_two_views_nor_in_a_joint_of_one(window):
    views = to_views(filmed())
    confidence = views.confidence.clone()
    confidence[5, 2:] = 0.0
    confidence[7, 1:, 6] = 0.0
    trust = closed_form.closed_form(replace(views, confidence=confidence), H36M17, window).trust
    assert (trust[5] == 0).all()
    assert (trust[7, :, 6] == 0).all()
    assert (trust[7, :, 7] > 0).any()
    assert (trust[[4, 6, 8]] > 0).any()


def test_unobserved_detections_do_not_reach_the_target():
    views = to_views(filmed())[:10]
    confidence = views.confidence.clone()
    confidence[:, 1, 4:8] = 0.0
    expected = closed_form.closed_form(replace(views, confidence=confidence), H36M17)
    for poison in (1e6, torch.nan):
        keypoints = views.keypoints.masked_fill((confidence == 0)[..., None], poison)
        found = closed_form.closed_form(Views(keypoints, confidence, views.rig), H36M17)
        assert torch.equal(found.pose, expected.pose)
        assert torch.equal(found.trust, expected.trust)


def test_the_true_target_is_the_recorded_pose_about_its_root(tmp_path):
    recording = filmed(n_views=3)
    pose3d = recording.pose3d.copy()
    pose3d[0, 1, 4] = np.nan
    save(replace(recording, pose3d=pose3d), tmp_path / "take.npz")
    target = closed_form.true(tmp_path / "take.npz", H36M17, n_views=5)
    root = pose3d[:, :, [H36M17.index(ROOT)]]
    expected = torch.from_numpy(np.nan_to_num(pose3d - root))
    assert_close(target.pose[:, :3], expected)
    assert (target.trust[:, 3:] == 0).all()
    assert target.trust[0, 1, 4] == 0
    assert target.trust[:, :3].sum() == 60 * 3 * 17 - 1


def test_without_truth_there_is_no_true_target(tmp_path):
    save(replace(filmed(n_views=3), pose3d=None), tmp_path / "take.npz")
    with pytest.raises(ValueError, match="closed_form"):
        closed_form.true(tmp_path / "take.npz", H36M17, n_views=3)
