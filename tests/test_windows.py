"""Laws of windows: every observed frame is in one, and none reaches over a cut."""

from dataclasses import replace

import pytest
import torch
from synthetic_scene import random, uniform
from torch.testing import assert_close

from canonlift.body.skeleton import H36M17
from canonlift.data.batches import flip, stream
from canonlift.data.frames import FramesInMemory
from canonlift.data.windows import WindowConfig, cut, resample, runs
from canonlift.types import Target, Views

LENGTH = 8
CONFIG = WindowConfig(LENGTH, stride=3, gap=4)


def take(n_frames, n_views=2, seed=0, blank=()):
    keypoints = random(n_frames, n_views, 17, 2, seed=seed).float()
    confidence = uniform(n_frames, n_views, 17, seed=seed + 1).float()
    confidence[:, 1, 3] = 0
    for frames in blank:
        confidence[frames] = 0
    target = Target(
        random(n_frames, n_views, 17, 3, seed=seed + 2).float(),
        uniform(n_frames, n_views, 17, seed=seed + 3).float(),
    )
    return Views(keypoints, confidence, torch.full((n_frames,), seed), target)


def session(*parts):
    """Recordings of equally many views in memory."""
    views = Views(
        torch.cat([p.keypoints for p in parts]),
        torch.cat([p.confidence for p in parts]),
        torch.cat([p.rig for p in parts]),
        Target(
            torch.cat([p.target.pose for p in parts]), torch.cat([p.target.trust for p in parts])
        ),
    )
    bounds = torch.tensor([0, *map(len, parts)]).cumsum(0)
    return FramesInMemory(views, bounds, tuple("abc"[: len(parts)]))


@pytest.fixture
def frames():
    """A long take with a cut and a pause, a short one, and one that begins and ends unseen."""
    return session(
        take(40, seed=1, blank=(slice(15, 22), slice(30, 33))),
        take(5, seed=2),
        take(19, seed=3, blank=(slice(0, 2), slice(18, 19))),
    )


@pytest.fixture
def windows(frames):
    return cut(frames, CONFIG)


def test_runs_by_hand():
    seen = torch.tensor([0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 0], dtype=torch.bool)
    assert runs(seen, 0) == [(1, 3), (5, 6), (9, 10)]
    assert runs(seen, 2) == [(1, 6), (9, 10)]
    assert runs(seen, 3) == [(1, 10)]
    assert runs(seen[:1], 3) == []


def test_every_frame_that_was_seen_is_in_a_window_and_no_window_crosses_a_cut(frames, windows):
    seen = frames.views.observed.any(-1).any(-1)
    covered = torch.zeros(len(frames), dtype=torch.bool)
    pieces = [(0, 15), (22, 40), (40, 45), (47, 63)]  # between cuts
    for first, end in zip(windows.first.tolist(), windows.end.tolist(), strict=True):
        last = min(first + LENGTH, end)
        covered[first:last] = True
        assert any(begin <= first and last <= stop for begin, stop in pieces)
    assert covered[seen].all()


def test_windows_are_a_stride_apart_and_end_with_their_run(windows):
    first = windows.first[windows.of(0)].tolist()
    assert first == [0, 3, 6, 7, 22, 25, 28, 31, 32]
    assert windows.first[windows.of(1)].tolist() == [40]
    assert windows.origin(torch.arange(len(windows))).tolist() == [0] * 9 + [1] + [2] * 4


def test_a_window_holds_its_frames_and_nothing_beyond_them(frames, windows):
    found = windows[torch.arange(len(windows))]
    for n, (first, end) in enumerate(
        zip(windows.first.tolist(), windows.end.tolist(), strict=True)
    ):
        some = frames.views[first : min(first + LENGTH, end)]
        length = len(some)
        assert_close(found.keypoints[n, :, :length], some.keypoints.transpose(0, 1))
        assert_close(found.confidence[n, :, :length], some.confidence.transpose(0, 1))
        assert_close(found.target.pose[n, :, :length], some.target.pose.transpose(0, 1))
        assert_close(found.target.trust[n, :, :length], some.target.trust.transpose(0, 1))
        assert (found.confidence[n, :, length:] == 0).all()
        assert (found.target.trust[n, :, length:] == 0).all()
        assert found.rig[n] == some.rig[0]


def test_single_frames_are_windows_of_one(frames):
    """All of them, whether anything was observed or not, without a list of where they begin."""
    samples = cut(frames, WindowConfig())
    assert samples.first is None
    assert len(samples) == len(frames)
    some = torch.tensor([41, 3, 3, 16])
    found = samples[some]
    assert found.keypoints.shape == (4, 2, 1, 17, 2)
    assert torch.equal(found.keypoints[:, :, 0], frames.views.keypoints[some])
    assert torch.equal(found.target.pose[:, :, 0], frames.views.target.pose[some])
    assert torch.equal(found.rig, frames.views.rig[some])
    assert samples.origin(some).tolist() == [1, 0, 0, 0]
    assert samples.of(1).tolist() == [40, 41, 42, 43, 44]


def test_frames_of_windows_come_back_one_by_one(windows):
    """`instants` is the inverse of putting frames together."""
    some = windows[torch.tensor([2, 9])]
    instants = some.instants
    assert len(instants) == 2 * LENGTH
    for n in range(2):
        for t in range(LENGTH):
            assert torch.equal(instants.keypoints[n * LENGTH + t], some.keypoints[n, :, t])
            assert torch.equal(instants.target.trust[n * LENGTH + t], some.target.trust[n, :, t])
    assert instants.as_windows.keypoints.shape == (2 * LENGTH, 2, 1, 17, 2)


def test_the_shuffled_batches_are_of_these_windows(windows):
    for _, (samples, batch) in zip(range(7), stream(windows, 4, 0, 0), strict=False):
        assert_close(batch.keypoints, windows[samples].keypoints)


def test_a_mirror_is_the_same_for_a_window_as_for_its_frames(frames, windows):
    mirrored = replace(frames, views=flip(frames.views, H36M17))
    every = torch.arange(len(windows))
    one, other = flip(windows[every], H36M17), cut(mirrored, CONFIG)[every]
    for name in ("keypoints", "confidence"):
        assert_close(getattr(one, name), getattr(other, name))
    assert_close(one.target.pose, other.target.pose)


@pytest.mark.parametrize("ratio", [0.5, 2.0, 1.2, 25 / 30])
def test_resampling_keeps_time_and_invents_no_observation(ratio):
    """Of a motion at constant speed it is exact."""
    views = take(31, blank=(slice(10, 14),))
    time = torch.arange(31.0)[:, None, None, None]
    views.keypoints[:] = 2.0 * time + views.keypoints[:1]
    found = resample(views, ratio)
    moments = torch.arange(len(found)) / ratio
    assert len(found) == int(30 * ratio + 1e-6) + 1
    expected = views.keypoints[:1] + 2.0 * moments[:, None, None, None]
    assert_close(found.keypoints, expected.float(), atol=1e-4, rtol=1e-5)
    inside = (moments > 9.001) & (moments < 13.999)
    assert (found.confidence[inside] == 0).all()
    assert (found.confidence[:, 1, 3] == 0).all()
    both = (found.confidence[0] > 0) == (views.confidence[0] > 0)
    assert both.all()
    assert resample(views, 1.0) is views
