"""Every defect is found where it was planted, and nowhere else."""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from test_simulate import action

from canonlift.body.skeleton import H36M17, mirrored
from canonlift.output.figures.health import draw_health
from canonlift.readers.health import LIMBS, examine
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.session import film

STEADY = DetectorConfig(leg_swap_rate=0.0, arm_swap_rate=0.0, joint_miss_rate=0.005)


@cache
def sound(seed=0, n_views=3):
    """A recording as a good detector leaves it."""
    cameras = CameraConfig(n_views=n_views)
    generator = np.random.default_rng(seed)
    return film(action(400, seed), H36M17, 30.0, cameras, STEADY, generator)


def spoiled(change):
    """A sound recording after `change(data)` has changed its arrays."""
    names = ("keypoints", "confidence")
    data = SimpleNamespace(**{name: getattr(sound(), name).copy() for name in names})
    change(data)
    return replace(sound(), **vars(data))


def said(recording):
    return [finding.what for finding in examine(recording).findings]


def one(texts, *words):
    """The single text that holds all the words."""
    found = [text for text in texts if all(word in text for word in words)]
    assert len(found) == 1, texts
    return found[0]


@pytest.mark.parametrize("seed", range(2))
def test_a_sound_recording_causes_no_alarm(seed):
    assert all(finding.alarm < 0.3 for finding in examine(sound(seed)).findings)


@pytest.mark.parametrize("limbs", LIMBS)
def test_finds_when_left_and_right_were_exchanged(limbs):
    rows = [j for j, name in enumerate(H36M17) if name[2:] in LIMBS[limbs]]
    spans = [(40, 48), (130, 155), (300, 303)]

    def swap(data):
        for start, end in spans:
            partners = [mirrored(H36M17)[j] for j in rows]
            for values in (data.keypoints, data.confidence):
                values[start:end, 1, rows] = values[start:end, 1, partners]

    truth = np.zeros((400, 3), bool)
    for start, end in spans:
        truth[start:end, 1] = True
    before = examine(sound()).swapped
    assert before.mean() < 0.01
    found = examine(spoiled(swap))
    new = found.swapped & ~before
    assert (new & ~truth).sum() <= 2
    assert (new & truth).sum() >= 0.6 * truth.sum()
    one([f.what for f in found.findings], "cam1", f"left and right {limbs} change places")


@pytest.mark.parametrize("order", ["reversed", "rolled", "arms for legs"])
def test_suspects_joints_in_the_wrong_order(order):
    rows = np.arange(17)
    permutation = {
        "reversed": rows[::-1],
        "rolled": np.roll(rows, 1),
        "arms for legs": np.r_[0, 14:17, 11:14, 7:11, 4:7, 1:4],
    }[order]
    wrong = sound()
    wrong = replace(
        wrong,
        keypoints=wrong.keypoints[:, :, permutation],
        confidence=wrong.confidence[:, :, permutation],
    )
    first = examine(wrong).findings[0]
    assert "bone lengths that no person has" in first.what
    assert first.alarm > 0.6
    assert "names of the joints" in first.remedy


def test_finds_a_detector_that_froze():
    def freeze(data):
        data.keypoints[100:140, 2], data.confidence[100:140, 2] = (
            data.keypoints[100, 2],
            data.confidence[100, 2],
        )

    report = examine(spoiled(freeze))
    assert "cam2: frozen for 40 frames from frame 100" in one(said(spoiled(freeze)), "frozen")
    expected = np.zeros((400, 3), bool)
    expected[101:140, 2] = True
    np.testing.assert_array_equal(report.frozen, expected)


def test_finds_frames_that_were_doubled():
    def double(data):
        data.keypoints[1::2], data.confidence[1::2] = data.keypoints[::2], data.confidence[::2]

    texts = said(spoiled(double))
    assert sum("50 % of the frames repeat the one before" in text for text in texts) == 3


def test_finds_what_was_not_observed():
    def lose(data):
        data.confidence[:, 0] *= np.random.default_rng(0).random(data.confidence[:, 0].shape) < 0.4
        data.confidence[100:, 1, 5] = 0

    texts = said(spoiled(lose))
    one(texts, "cam0: 60 % of all joints are unobserved")
    one(texts, "cam1: l_knee unobserved in up to 75 %")
    report = examine(spoiled(lose))
    np.testing.assert_allclose(report.unobserved[0].mean(), 0.6, atol=0.02)


def test_finds_frames_that_are_of_no_use_without_hips():
    """One hip is not enough, but both make up for a pelvis."""
    pelvis, hip = H36M17.index("pelvis"), H36M17.index("l_hip")

    def hide(data):
        data.confidence[:100, 1, [pelvis, hip]] = 0
        data.confidence[:, 2, pelvis] = 0

    text = one(said(spoiled(hide)), "show no hips")
    assert text.startswith("cam1: 2")  # 25 %, and what the detector missed


def test_finds_frames_that_too_few_views_saw():
    def leave(data):
        data.confidence[200:300, 1:] = 0

    one(said(spoiled(leave)), "25 % of the frames are seen by fewer than two views")


def test_finds_the_joint_that_jitters():
    def shake(data):
        noise = np.random.default_rng(0).normal(0, 60, (400, 2))
        data.keypoints[:, 1, 13] += noise

    text = one(said(spoiled(shake)), "jitter")
    assert text.startswith("cam1: jitter of l_wrist, up to")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (np.ceil, "every confidence is 1"),
        (lambda c: np.ceil(2 * c) / 2, "the only confidences are 0.5, 1"),
        (lambda c: c / 5, "95 % of the confidences are below 0.2"),
    ],
)
def test_finds_confidences_without_information(change, text):
    def recode(data):
        data.confidence[:] = change(data.confidence)

    assert one(said(spoiled(recode)), text).startswith("cam0, cam1, cam2: ")


def test_finds_joints_that_a_detector_put_at_zero():
    def zero(data):
        data.keypoints[::20, 1, 3], data.confidence[::20, 1, 3] = 0, 0.4

    one(said(spoiled(zero)), "cam1", "(0, 0)")


def test_finds_keypoints_in_another_unit_than_the_image():
    def enlarge(data):
        data.keypoints[:, 0] *= 3

    one(said(spoiled(enlarge)), "cam0", "outside the image")


def test_finds_one_camera_given_twice():
    def copy(data):
        data.keypoints[:, 2], data.confidence[:, 2] = data.keypoints[:, 0], data.confidence[:, 0]

    report = examine(spoiled(copy))
    assert report.findings[0].what == "cam0 and cam2 hold the same detections"


def test_the_most_alarming_comes_first_with_what_to_do():
    def spoil(data):
        data.confidence[:] = np.ceil(data.confidence)
        data.keypoints[:, 2], data.confidence[:, 2] = data.keypoints[:, 0], data.confidence[:, 0]

    report = examine(spoiled(spoil))
    alarms = [finding.alarm for finding in report.findings]
    assert alarms == sorted(alarms, reverse=True)
    assert all(0 <= alarm <= 1 for alarm in alarms)
    lines = report.lines()
    assert " wrong, the most alarming first" in lines[0]
    assert lines[1].startswith("!! cam0 and cam2")
    assert lines[1].endswith("give every camera its own files")
    assert lines[-1].startswith("   ")


def test_never_edits_the_data():
    recording = sound()
    before = recording.keypoints.copy(), recording.confidence.copy()
    examine(recording)
    np.testing.assert_array_equal(recording.keypoints, before[0])
    np.testing.assert_array_equal(recording.confidence, before[1])


@pytest.mark.parametrize("n_frames", [0, 1, 5])
def test_short_unnamed_and_unseen_recordings_are_examined_too(n_frames, tmp_path):
    recording = sound()
    short = {k: getattr(recording, k)[:n_frames] for k in ("keypoints", "confidence")}
    names = tuple(f"marker {j}" for j in range(17))
    recording = replace(recording, **short, joints=names, pose3d=None, keypoints_true=None)
    blind = replace(recording, confidence=np.zeros_like(recording.confidence))
    for examined in (recording, blind):
        report = examine(examined)
        assert report.lines()
    if n_frames == 0:
        draw_health(report, tmp_path / "health.png")


def test_the_picture_shows_every_view_and_joint(tmp_path):
    path = draw_health(examine(sound()), tmp_path / "health.png")
    assert path.stat().st_size > 20_000
