"""Offsets between views: found where the motion determines them, refused where it does not."""

from dataclasses import replace

import numpy as np
import pytest
from test_simulate import action

from benchmarks import sync as benchmark
from canonlift.body.skeleton import H36M17
from canonlift.data.prediction import Prediction
from canonlift.data.recording import Recording
from canonlift.output.figures.synchrony import draw_synchrony
from canonlift.readers import synchronise
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.session import film

FPS = 30.0
N_JOINTS = 9
OFFSETS = np.array([0.0, 0.8134, -1.2671])


def waves(seed=0, period_s=None):
    """Smooth random motion of some joints, as a function of time in seconds."""
    g = np.random.default_rng(seed)
    hertz = g.uniform(0.3, 3.0, (12, 1, N_JOINTS, 1))
    if period_s:
        hertz = np.maximum(np.rint(hertz * period_s), 1) / period_s
    size = g.normal(size=(2, 12, 1, N_JOINTS, 3)) / hertz
    rest = 3 * g.normal(size=(N_JOINTS, 3))

    def at(time):
        angle = 2 * np.pi * hertz * np.asarray(time)[:, None, None]
        return rest + 0.2 * (size[0] * np.sin(angle) + size[1] * np.cos(angle)).sum(0)

    return at


def filmed(at, offsets=OFFSETS, seconds=12.0, noise=0.0, seed=0):
    """Orthographic cameras that look from anywhere, with any zoom, and start late."""
    g = np.random.default_rng(seed)
    time = 20 + np.arange(round(seconds * FPS)) / FPS
    views = []
    for offset in offsets:
        turn = np.linalg.qr(g.normal(size=(3, 3)))[0]
        seen = g.uniform(30, 300) * at(time + offset) @ turn[:, :2] + g.uniform(0, 999, 2)
        size = np.linalg.norm(seen - seen.mean(1, keepdims=True), axis=-1).mean()
        views.append(seen + noise * size * g.normal(size=seen.shape))
    keypoints = np.stack(views, 1).astype(np.float32)
    names = tuple(f"joint{j}" for j in range(N_JOINTS)), tuple("abcdefgh"[: len(views)])
    return Recording(keypoints, np.ones(keypoints.shape[:3], np.float32), *names, FPS)


def hidden(recording, mask):
    """The same with some detections unobserved."""
    mask = np.broadcast_to(mask, recording.confidence.shape)
    return replace(
        recording,
        keypoints=np.where(mask[..., None], np.nan, recording.keypoints).astype(np.float32),
        confidence=np.where(mask, 0, recording.confidence).astype(np.float32),
    )


# --- what is found


@pytest.mark.parametrize("n_views", [2, 3])
def test_is_exact_where_detections_are(n_views):
    found = synchronise.estimate(filmed(waves(), OFFSETS[:n_views]), 5.0)
    np.testing.assert_allclose(found.offset_s, OFFSETS[:n_views], atol=2e-4)
    assert not found.ambiguous


def test_standard_errors_match_the_actual_errors():
    scores = []
    for seed in range(4):
        found = synchronise.estimate(filmed(waves(seed), OFFSETS, 8.0, 0.03, seed), 3.0)
        scores += list((found.offset_s - OFFSETS)[1:] / found.error_s[1:])
        assert found.error_s[1:].max() < 0.02
    assert 0.4 < np.std(scores) < 2.5


def test_copies_of_a_joint_do_not_lower_the_standard_error():
    """Four times the same joints: the same offsets, known as well as before."""
    once = filmed(waves(), OFFSETS, 8.0, 0.03)
    names = tuple(f"joint{j}" for j in range(4 * N_JOINTS))
    often = replace(
        once,
        keypoints=np.tile(once.keypoints, (1, 1, 4, 1)),
        confidence=np.tile(once.confidence, (1, 1, 4)),
        joints=names,
    )
    one, other = (synchronise.estimate(recording, 3.0) for recording in (once, often))
    np.testing.assert_allclose(other.offset_s, one.offset_s, atol=1e-4)
    np.testing.assert_allclose(other.error_s, one.error_s, rtol=0.02)


def test_rotation_zoom_and_pan_of_the_cameras_make_no_difference():
    plain = filmed(waves(), noise=0.02)
    turned = plain.keypoints.copy()
    turned[:, 1] = 3.0 * turned[:, 1, :, ::-1] * [1, -1]
    turned[:, 2] += 400 * np.sin(np.arange(len(turned)) / 40)[:, None, None]
    one, other = (synchronise.estimate(r, 3.0) for r in (plain, replace(plain, keypoints=turned)))
    np.testing.assert_allclose(other.offset_s, one.offset_s, atol=1e-4)
    np.testing.assert_allclose(other.confidence, one.confidence, atol=1e-3)


def test_offsets_are_relative_to_the_first_view():
    recording = filmed(waves(), noise=0.02)
    found = synchronise.estimate(recording, 3.0)
    order = [2, 0, 1]
    again = synchronise.estimate(
        replace(
            recording, keypoints=recording.keypoints[:, order], views=("c", "a", "b")
        ), 3.0,
    )  # fmt: skip
    np.testing.assert_allclose(
        again.offset_s, found.offset_s[order] - found.offset_s[2], atol=3e-4
    )


def test_views_that_share_no_joint_are_joined_by_a_third():
    mask = np.zeros((3, N_JOINTS), bool)
    mask[0, :4] = mask[2, 4:] = True
    found = synchronise.estimate(hidden(filmed(waves(), noise=0.01), mask), 3.0)
    np.testing.assert_allclose(found.offset_s, OFFSETS, atol=0.005)


def test_outliers_gaps_and_swaps_do_no_harm():
    g = np.random.default_rng(1)
    recording = filmed(waves(), noise=0.02)
    keypoints = recording.keypoints.copy()
    wild = g.random(keypoints.shape[:3]) < 0.02
    keypoints[wild] += g.normal(0, 500, (wild.sum(), 2)).astype(np.float32)
    keypoints[100:130, 1] = keypoints[100:130, 1, ::-1]
    gaps = np.repeat(g.random((len(keypoints) // 10, 3, N_JOINTS)) < 0.15, 10, axis=0)
    found = synchronise.estimate(hidden(replace(recording, keypoints=keypoints), gaps), 3.0)
    np.testing.assert_allclose(found.offset_s, OFFSETS, atol=0.01)
    assert not found.ambiguous


def test_finds_the_offsets_of_lifted_poses_too():
    at, g = waves(), np.random.default_rng(0)
    time = 20 + np.arange(240) / FPS
    turns = [np.linalg.qr(g.normal(size=(3, 3)))[0] for _ in OFFSETS]
    pose = np.stack([at(time + o) @ r for o, r in zip(OFFSETS, turns, strict=True)], 1)
    blank = filmed(at, seconds=8.0)
    blank = replace(blank, keypoints=np.zeros_like(blank.keypoints))
    found = synchronise.estimate(blank, 3.0, pose.astype(np.float32))
    np.testing.assert_allclose(found.offset_s, OFFSETS, atol=2e-4)


def test_the_consistency_of_true_poses_finds_the_offsets_too():
    """That the benchmark finds it less exact is not for want of looking."""
    starts = (0.0, 0.517)
    cameras = CameraConfig(n_views=2, starts_s=starts)
    world = action(240, seed=3)
    late = film(world, H36M17, FPS, cameras, DetectorConfig(), np.random.default_rng(0))
    pose = late.pose3d - late.pose3d[:, :, :1]
    true = Prediction(late, pose, np.zeros((*pose.shape[:2], 3, 3)), late.keypoints)
    found = benchmark.by_consistency(lambda _: true, late)
    np.testing.assert_allclose(found.offset_s, starts, atol=0.002)


@pytest.mark.parametrize("n_views", [2, 4])
def test_simulated_recordings_are_synchronised(n_views):
    """Perspective, cameras that follow, a detector that errs: the whole way, and back in step."""
    starts = (0.0, 0.517, -0.741, 1.203)[:n_views]
    cameras = CameraConfig(n_views=n_views, starts_s=starts)
    world = action(400, seed=3)
    late = film(world, H36M17, FPS, cameras, DetectorConfig(), np.random.default_rng(0))
    found = synchronise.estimate(late, 4.0)
    np.testing.assert_allclose(found.offset_s, starts, atol=0.012)
    assert not found.ambiguous
    together = synchronise.apply(late, starts)
    pose = together.pose3d[together.confidence.min((1, 2)) > 0]
    gap = np.linalg.norm(pose[..., 1:, :] - pose[..., :-1, :], axis=-1)
    assert len(pose) > 100
    assert np.abs(gap - gap[:, :1]).max() < 0.02
    assert np.abs(gap - gap[:, :1]).mean() < 5e-4


# --- what is refused


def refused(recording, **options):
    found = synchronise.estimate(recording, **options)
    assert found.ambiguous
    return " ".join(found.doubts)


def test_refuses_motion_that_repeats_itself():
    text = refused(filmed(waves(period_s=1.1), (0.0, 0.4), noise=0.02), longest_s=3.0)
    assert "b might as well" in text
    assert "1.10 s" in text or "2.20 s" in text


def test_names_the_view_that_is_ambiguous_and_its_other_offset():
    """The middle view saw one of two rounds: it may be the other, three seconds later."""
    recording = filmed(waves(period_s=3.0), (0.0, 0.0, 0.0), seconds=6.0, noise=0.01)
    mask = np.zeros((180, 3, 1), bool)
    mask[85:, 1] = True
    text = refused(hidden(recording, mask), longest_s=4.0)
    assert "b might as well have started 3.00 s later" in text


def test_refuses_a_person_who_stands_still():
    def still(time):
        return np.repeat(waves()([0.0]), len(time), axis=0)

    assert "by hand" in refused(filmed(still, noise=0.02), longest_s=3.0)
    refused(filmed(still, noise=0.0), longest_s=3.0)


def test_refuses_views_of_different_motions():
    one, other = filmed(waves(0), (0.0, 0.0)), filmed(waves(1), (0.0, 0.0))
    keypoints = np.stack([one.keypoints[:, 0], other.keypoints[:, 1]], 1)
    refused(replace(one, keypoints=keypoints), longest_s=3.0)


def test_refuses_offsets_beyond_its_reach():
    refused(filmed(waves(1), (0.0, 2.5)), longest_s=1.0)


def test_names_the_view_without_detections():
    mask = np.zeros((3, N_JOINTS), bool)
    mask[1] = True
    found = synchronise.estimate(hidden(filmed(waves()), mask), 3.0)
    assert any(doubt.startswith("b shows no motion") for doubt in found.doubts)
    np.testing.assert_array_equal(np.isinf(found.error_s), [False, True, False])
    np.testing.assert_allclose(found.offset_s[2], OFFSETS[2], atol=1e-3)
    assert found.lines()[0].startswith("c: started 1.267 s earlier than a")


@pytest.mark.parametrize("n_frames", [0, 1, 2, 5, 20])
def test_a_few_frames_are_refused_not_fatal(n_frames):
    recording = filmed(waves())
    short = {k: getattr(recording, k)[:n_frames] for k in ("keypoints", "confidence")}
    refused(replace(recording, **short))


def test_one_view_alone_has_offset_0():
    found = synchronise.estimate(filmed(waves(), (0.0,)))
    assert found.offset_s.tolist() == [0.0]
    assert not found.ambiguous


# --- what applying them does


def test_whole_frames_are_moved_and_nothing_else():
    recording = filmed(waves(), (0.0, 0.3, -4.1))
    confidence = np.random.default_rng(0).uniform(0.1, 1, recording.confidence.shape)
    recording = replace(recording, confidence=confidence.astype(np.float32))
    moved = synchronise.apply(recording, [0.0, 0.3, -4.1])  # 4.1 * 30 is a little less than 123
    for view, shift in enumerate((0, 9, -123)):
        filmed_ = slice(max(0, shift), min(360, 360 + shift))
        source = slice(max(0, -shift), min(360, 360 - shift))
        np.testing.assert_array_equal(
            moved.keypoints[filmed_, view], recording.keypoints[source, view]
        )
        unseen = np.ones(360, bool)
        unseen[filmed_] = False
        assert (moved.confidence[unseen, view] == 0).all()
        np.testing.assert_array_equal(
            moved.confidence[filmed_, view], recording.confidence[source, view]
        )
        assert np.isnan(moved.keypoints[unseen, view]).all()


def test_between_frames_the_lower_confidence_counts():
    g = np.random.default_rng(0)
    recording = filmed(waves(), (0.0, 0.0))
    confidence = g.uniform(0.1, 1, recording.confidence.shape).astype(np.float32)
    recording = hidden(replace(recording, confidence=confidence), g.random(confidence.shape) < 0.2)
    moved = synchronise.apply(recording, [0.0, 0.25 / FPS])
    np.testing.assert_array_equal(moved.keypoints[:, 0], recording.keypoints[:, 0])
    first, second = recording.keypoints[:-1, 1], recording.keypoints[1:, 1]
    np.testing.assert_allclose(moved.keypoints[1:, 1], 0.25 * first + 0.75 * second, rtol=1e-5)
    pair = np.minimum(recording.confidence[:-1, 1], recording.confidence[1:, 1])
    np.testing.assert_array_equal(moved.confidence[1:, 1], pair)


def test_only_differences_of_offsets_count():
    recording = filmed(waves())
    one, other = synchronise.apply(recording, OFFSETS), synchronise.apply(recording, OFFSETS + 7.0)
    np.testing.assert_allclose(one.keypoints, other.keypoints, rtol=1e-5)


@pytest.mark.parametrize("offsets", [[0.0], [0.0, np.nan, 1.0], [0.0, 1.0, 2.0, 3.0]])
def test_refuses_offsets_that_do_not_fit_the_views(offsets):
    with pytest.raises(ValueError, match="one finite offset for each of a, b, c"):
        synchronise.apply(filmed(waves()), offsets)


def test_the_picture_shows_every_view(tmp_path):
    found = synchronise.estimate(filmed(waves(), seconds=4.0), 2.0)
    assert draw_synchrony(found, tmp_path / "sync.png").stat().st_size > 10_000
