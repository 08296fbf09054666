"""Frames of several cameras are matched by number, by time and by rate."""

import json

import numpy as np
import pytest
from detector_files import COCO17, FPS, assert_read, film, mmpose_video, person, table_wide

from canonlift.readers.detectors import person_choice
from canonlift.readers.detectors.parsing import InputError
from canonlift.readers.detectors.to_recording import Options, read

SOME = Options(fps=(FPS,))


def straight(n_frames, fps, start=0.0):
    """One view of a person who walks evenly: linear in time."""
    body = person(COCO17, confidence=0.5).astype(float)
    frames = np.stack([body] * n_frames)
    frames[..., 0] += 40 * (start + np.arange(n_frames) / fps)[:, None]
    return frames[:, None]


@pytest.mark.parametrize("resample", [True, False])
def test_different_frame_rates_meet_at_the_slower_one(tmp_path, resample):
    slow = mmpose_video(tmp_path / "slow", straight(20, 25.0))
    fast = mmpose_video(tmp_path / "fast", straight(24, 30.0))
    options = Options(fps=(25.0, 30.0), resample=resample)
    recording, report = read([*slow, *fast], "mmpose", options)
    assert (recording.fps, recording.n_frames) == (25.0, 20)
    assert recording.views == ("slow", "fast")
    assert any("WARNING: frames per second: slow 25, fast 30" in line for line in report)
    exact = straight(20, 25.0)[:, 0, :, :2]
    np.testing.assert_allclose(recording.keypoints[:, 0], exact, atol=1e-3)
    seen = recording.confidence[:, 1, 0] > 0
    gap = np.abs(recording.keypoints[seen, 1] - exact[seen]).max()
    assert seen[:19].all()
    assert gap < 1e-3 if resample else 0.2 < gap <= 40 / 60 + 1e-3


def test_nothing_is_interpolated_across_a_frame_that_is_missing(tmp_path):
    points = straight(24, 30.0)
    points[10] = 0
    slow = mmpose_video(tmp_path / "slow", straight(20, 25.0))
    fast = mmpose_video(tmp_path / "fast", points)
    recording, _ = read([*slow, *fast], "mmpose", Options(fps=(25.0, 30.0)))
    lost = np.flatnonzero(recording.confidence[:19, 1, 0] == 0) / 25
    assert lost.tolist() == [0.32, 0.36]  # frames 9 to 11 of the faster are at 0.30 to 0.37 s


def test_an_interpolated_joint_has_the_lower_of_two_confidences(tmp_path):
    points = straight(24, 30.0)
    points[..., 2] = np.random.default_rng(0).uniform(0.2, 0.9, (24, 1, 1))
    slow = mmpose_video(tmp_path / "slow", straight(20, 25.0))
    fast = mmpose_video(tmp_path / "fast", points)
    recording, _ = read([*slow, *fast], "mmpose", Options(fps=(25.0, 30.0)))
    at = np.arange(19) * 30 / 25
    sure = points[:, 0, 0, 2]
    least = np.minimum(sure[np.floor(at + 1e-9).astype(int)], sure[np.ceil(at - 1e-9).astype(int)])
    np.testing.assert_allclose(recording.confidence[:19, 1, 0], least, atol=1e-6)


def test_a_camera_whose_numbers_begin_later_is_seen_later(tmp_path):
    points = film(COCO17, missed=0)
    cameras = mmpose_video(tmp_path, points)
    cameras[1].write_text(json.dumps(json.loads(cameras[1].read_text())[4:]))
    points[:4, 1] = 0
    assert_read(read(cameras, "mmpose", SOME)[0], points)


def test_a_person_who_returns_after_a_second_is_in_the_same_track(tmp_path):
    points = straight(45, FPS)
    points[10:35] = 0
    recording, _ = read(mmpose_video(tmp_path, points), "mmpose", SOME)
    assert (recording.confidence[:, 0, 0] > 0).sum() == 20


@pytest.mark.parametrize(("gap", "tracks"), [(50, 1), (51, 2), (5000, 2)])
def test_missing_frames_count_as_empty_ones(gap, tracks):
    people = [person(COCO17)[None]] * 4
    assert (
        len(person_choice.tracks_by_motion(people, [0, 1, 1 + gap, 2 + gap], fps=25.0)) == tracks
    )


def test_frames_that_only_have_times_are_matched_by_them(tmp_path):
    """The second camera starts 0.2 s later, by a clock that both share."""
    body = [{"x": 100.0 + j, "y": 200.0 + j, "visibility": 0.5} for j in range(33)]

    def frames(first):
        return [
            {"timestamp_ms": 40 * t, "landmarks": [[{**p, "x": p["x"] + t} for p in body]]}
            for t in range(first, 20)
        ]

    for camera, first in (("a", 0), ("b", 5)):
        (tmp_path / f"{camera}.json").write_text(json.dumps(frames(first)))
    recording, _ = read([tmp_path / "a.json", tmp_path / "b.json"], "auto")
    assert recording.n_frames == 20
    assert np.flatnonzero(recording.confidence[:, 1, 0] == 0).tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(recording.keypoints[5:, 0], recording.keypoints[5:, 1], atol=1e-3)


def test_times_that_run_back_are_refused(tmp_path):
    (path, _) = table_wide(tmp_path, film(COCO17))
    text = path.read_text().replace("\n4;0.16", "\n4;0.09")
    path.write_text(text)
    with pytest.raises(InputError, match="frame 4: its time is not after that of the frame"):
        read([path], "csv")
    assert read([path], "csv", SOME)[0].n_frames == 9


def test_without_times_the_rate_has_to_be_given(tmp_path):
    with pytest.raises(InputError, match="how many frames make a second; say --fps"):
        read(mmpose_video(tmp_path, film(COCO17)), "mmpose")
    with pytest.raises(ValueError, match="3 frame rates for 2 cameras"):
        read(mmpose_video(tmp_path, film(COCO17)), "mmpose", Options(fps=(1.0, 2.0, 3.0)))


def test_frames_are_where_their_numbers_say(tmp_path):
    """Neither frames that are missing nor the order of the others matter."""
    points = film(COCO17, missed=0)
    for path in mmpose_video(tmp_path, points):
        content = json.loads(path.read_text())
        path.write_text(json.dumps([content[t] for t in (8, 2, 0, 5, 3)]))
    recording, report = read(sorted(tmp_path.glob("*.json")), "mmpose", SOME)
    points[[1, 4, 6, 7]] = 0
    assert_read(recording, points)
    assert "frames of 9 of which a camera has no record, unobserved: cam0 4, cam1 4" in report
