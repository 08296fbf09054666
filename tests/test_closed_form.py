"""Laws of the closed-form poses of many uncalibrated views."""

from dataclasses import replace

import pytest
import torch
from simulated import filmed
from torch.testing import assert_close

from canonlift.body.skeleton import H36M17
from canonlift.data.frames import to_views
from canonlift.geometry.alignment import align_similarity
from canonlift.solver.closed_form import closed_form
from canonlift.types import Views

DEPTH = torch.tensor([1.0, 1.0, -1.0])


def pa_errors_mm(pose, recording):
    truth = torch.from_numpy(recording.pose3d).double()
    pose = pose.double()
    return 1000 * (align_similarity(pose, truth)(pose) - truth).norm(dim=-1).mean(-1)


@pytest.mark.parametrize("n_views", [4, 6])
def test_closed_form_is_right_where_it_is_trusted_and_never_mirrored(n_views):
    recording = filmed(n_views=n_views, n_frames=120)
    target = closed_form(to_views(recording), H36M17)
    error = pa_errors_mm(target.pose, recording)
    assert ((target.trust >= 0) & (target.trust <= 1)).all()
    seen = to_views(recording).observed.any(-1)
    trusted = (target.trust.amax(-1) > 0.5) & seen
    assert trusted.double().mean() > 0.1
    assert error[trusted].mean() < 60
    assert error[trusted].mean() < error[seen & ~trusted].mean()
    wrong = pa_errors_mm(target.pose * DEPTH, recording) < error
    assert not wrong[trusted].any()
    assert wrong[seen].double().mean() < 0.1


def test_closed_form_is_exact_without_detector_errors_from_far_away():
    recording = filmed(error_scale=0.0, distance=(200.0, 300.0))
    views = to_views(recording)
    # Without swapped and missed joints, which stay even in a detector without other errors.
    exact = torch.from_numpy(recording.keypoints_true - recording.keypoints_true[:, :, :1])
    views = replace(views, keypoints=exact, confidence=torch.ones_like(views.confidence))
    target = closed_form(views, H36M17)
    assert pa_errors_mm(target.pose, recording).max() < 10
    assert (target.trust > 0.2).double().mean() > 0.9


def test_single_frames_are_independent_of_each_other_and_of_the_block_size():
    views = to_views(filmed())[:20]
    together = closed_form(views, H36M17)
    blocks = closed_form(views, H36M17, block=7)
    assert torch.equal(together.pose.isfinite(), torch.ones_like(together.pose) > 0)
    assert_close(blocks.trust, together.trust)
    sure = together.trust > 0.1  # elsewhere the cameras may be degenerate
    assert_close(blocks.pose[sure], together.pose[sure])
    assert_close(closed_form(views[3:4], H36M17).trust, together.trust[3:4])


def test_a_window_is_more_accurate_than_single_frames():
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

    single, windows = (closed_form(views, H36M17, window) for window in (1, 40))
    assert error(windows) < 0.75 * error(single)
    assert windows.trust.mean() > single.trust.mean()


@pytest.mark.parametrize("window", [2, 7, 20, 50])
def test_windows_do_not_depend_on_the_block_size_and_cannot_exceed_the_recording(window):
    views = to_views(filmed())[:23]
    together = closed_form(views, H36M17, window)
    assert together.pose.shape == (*views.confidence.shape, 3)
    blocks = closed_form(views, H36M17, window, block=11)
    assert_close(blocks.trust, together.trust)
    assert_close(blocks.pose, together.pose, atol=1e-3, rtol=1e-3)
    if window >= len(views):
        assert_close(closed_form(views, H36M17, len(views)).pose, together.pose)


def test_the_windows_of_a_scene_without_errors_are_exact():
    recording = filmed(error_scale=0.0, distance=(200.0, 300.0))
    views = to_views(recording)
    exact = torch.from_numpy(recording.keypoints_true - recording.keypoints_true[:, :, :1])
    views = replace(views, keypoints=exact, confidence=torch.ones_like(views.confidence))
    target = closed_form(views, H36M17, window=8)
    # The cameras follow, so they turn a little within a window.
    assert pa_errors_mm(target.pose, recording).max() < 20


def test_there_is_no_trust_with_fewer_than_three_views_nor_in_empty_ones():
    views = to_views(filmed())
    confidence = views.confidence.clone()
    confidence[:20, 2:] = 0.0
    confidence[20:40, 3:] = 0.0
    confidence[40:50] = 0.0
    partial = replace(views, confidence=confidence)
    target = closed_form(partial, H36M17)
    assert (target.trust[:20] == 0).all()
    assert (target.trust[20:40, :3].amax((1, 2)) > 0).any()
    assert (target.trust[~partial.observed.any(-1)] == 0).all()
    assert target.pose.isfinite().all()
    two = Views(confidence[:, :2, :, None] * views.keypoints[:, :2], confidence[:, :2], views.rig)
    assert (closed_form(two, H36M17).trust == 0).all()


@pytest.mark.parametrize("window", [1, 20])
def test_no_trust_in_a_frame_of_two_views_nor_in_a_joint_of_one(window):
    views = to_views(filmed())
    confidence = views.confidence.clone()
    confidence[5, 2:] = 0.0
    confidence[7, 1:, 6] = 0.0
    trust = closed_form(replace(views, confidence=confidence), H36M17, window).trust
    assert (trust[5] == 0).all()
    assert (trust[7, :, 6] == 0).all()
    assert (trust[7, :, 7] > 0).any()
    assert (trust[[4, 6, 8]] > 0).any()


def test_unobserved_detections_do_not_reach_the_target():
    views = to_views(filmed())[:10]
    confidence = views.confidence.clone()
    confidence[:, 1, 4:8] = 0.0
    expected = closed_form(replace(views, confidence=confidence), H36M17)
    for poison in (1e6, torch.nan):
        keypoints = views.keypoints.masked_fill((confidence == 0)[..., None], poison)
        found = closed_form(Views(keypoints, confidence, views.rig), H36M17)
        assert torch.equal(found.pose, expected.pose)
        assert torch.equal(found.trust, expected.trust)
