"""Laws of lifting whole recordings window by window."""

from dataclasses import replace

import pytest
import torch
from synthetic_scene import random
from torch.testing import assert_close
from window_scenes import RIG, Linear, Recalling, scene

from canonlift.data.windows import WindowConfig
from canonlift.geometry.alignment import align_similarity
from canonlift.geometry.rotations import nearest_rotation
from canonlift.inference.predict import lift_windows
from canonlift.types import Lifted, Views


@pytest.mark.parametrize("fps", [None, 25.0, 40.0, 15.0])
def test_a_recording_is_what_its_windows_give_at_any_rate(fps):
    """Of motions at constant speed; also beside a pause, and in frames that nobody saw."""
    time = torch.arange(60.0)[:, None, None, None]
    keypoints = random(1, 3, 17, 2).float() * (1 + 0.1 * time)
    confidence = torch.ones(60, 3, 17)
    confidence[20:32] = 0
    confidence[5, 1] = 0
    views = Views(keypoints, confidence, torch.full((60,), -1))
    found = lift_windows(Linear(), WindowConfig(8, fps=fps, gap=4), 0, views, 25.0, block=50)
    in_camera = found.in_camera
    seen = views.observed.any(-1)
    seen[[18, 19, 32, 33, 34, 59]] = False  # beside the cut, where a rate may have no frame
    x, y = keypoints.unbind(-1)
    assert_close(in_camera[seen], torch.stack([x, y, x - 2 * y], -1)[seen], atol=2e-3, rtol=1e-4)
    assert_close(torch.linalg.det(found.rotation), torch.ones(60, 3), atol=1e-4, rtol=0)
    assert in_camera.isfinite().all()


class Numbering(Linear):
    """Returns, as the depth of every frame of a window, x of the first."""

    def forward(self, windows):
        x = windows.keypoints[..., :1]
        return Lifted(torch.cat([windows.keypoints, x[:, :, :1].expand_as(x)], -1), None)


def overlapping(n_frames, length):
    """First frames of windows half a length apart, and how much each of their frames counts."""
    starts = [*range(0, n_frames - length, length // 2), n_frames - length]
    share = torch.tensor([min(i + 1, length - i) for i in range(length)], dtype=torch.float64)
    return starts, share


def test_where_windows_overlap_poses_are_a_mean_that_counts_their_middle_most():
    keypoints = random(30, 2, 17, 2)
    views = Views(keypoints, torch.ones(30, 2, 17, dtype=torch.float64), torch.full((30,), -1))
    found = lift_windows(Numbering(), WindowConfig(8), 0, views, 25.0, 20).in_camera
    starts, share = overlapping(30, 8)
    expected, weight = torch.zeros(30, 2, 17, dtype=torch.float64), torch.zeros(30)
    for start in starts:
        expected[start : start + 8] += share[:, None, None] * keypoints[start, ..., 0]
        weight[start : start + 8] += share
    assert_close(found[..., 2], expected / weight[:, None, None])


@pytest.mark.parametrize("segment", [0, 6])
def test_rotations_of_a_recording_are_a_mean_over_its_segments(segment):
    """Of a camera that pans, each segment has one rotation."""
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
    network = Recalling(two, Lifted(both, None))
    found = lift_windows(network, WindowConfig(10), segment, views, 25.0, 100).to_camera

    total = torch.zeros(n_frames, 3, 3, dtype=torch.float64)
    starts, share = overlapping(n_frames, length)
    for start in starts:
        part = slice(start, start + length)
        sets = [both[:1, view, part].flatten(1, 2) for view in (0, 1)]
        total[part] += share[:, None, None] * align_similarity(*sets).rotation
    assert_close(found[..., 1, :, :] @ found[..., 0, :, :].mT, nearest_rotation(total))


def test_a_recording_in_which_nothing_was_seen_gets_finite_poses():
    views = Views(torch.zeros(9, 2, 17, 2), torch.zeros(9, 2, 17), torch.full((9,), -1))
    once = Views(views.keypoints, views.confidence.clone(), views.rig)
    once.confidence[3] = 1.0  # between two frames of the windows
    for given, fps in ((views, None), (once, None), (once, 12.5)):
        found = lift_windows(Linear(), WindowConfig(8, fps=fps), 0, given, 25.0, block=50)
        assert len(found.pose) == 9
        assert found.in_camera.isfinite().all()
        assert found.rotation.isfinite().all()
