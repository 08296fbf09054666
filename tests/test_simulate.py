"""Laws of the simulated session: perspective cameras, a detector with the measured errors."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from omegaconf import OmegaConf
from scipy.spatial.transform import Rotation

from canonlift.body.skeleton import H36M17, mirrored
from canonlift.data import recording
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.cameras import CameraConfig, place_cameras
from canonlift.simulation.detector import ERRORS, DetectorConfig
from canonlift.simulation.motions import MOTIONS
from canonlift.simulation.session import SimulateConfig, film, session, write_session

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

PERFECT = DetectorConfig(
    error_scale=0.0, leg_swap_rate=0.0, arm_swap_rate=0.0, joint_miss_rate=0.0, frame_miss_rate=0.0
)
HAND_HELD = CameraConfig(n_views=3, distance_m=(4.0, 8.0), roll_deg=8.0, drift_m=0.3, zoom=False)
SMALL = SimulateConfig(seed=7, n_train=2, n_test=2, n_people_test=1, n_frames=20)


def action(n_frames, seed=0, fps=30.0):
    g = np.random.default_rng(seed)
    return perform(sample_person(g), list(g.permutation(list(MOTIONS))), n_frames, fps, g)


def filmed(cameras=CameraConfig(), detector=PERFECT, n_frames=60, seed=0, fps=30.0):  # noqa: B008
    g = np.random.default_rng(seed)
    return film(action(n_frames, seed, fps), H36M17, fps, cameras, detector, g)


def joint(name):
    return H36M17.index(name)


# --- cameras


@pytest.mark.parametrize("cameras", [CameraConfig(), HAND_HELD, CameraConfig(fixed=True)])
def test_projects_as_a_homogeneous_camera_matrix_does(cameras):
    """K [R | t] on homogeneous points, with a rotation that scipy accepts as one."""
    world = action(30)
    placed = place_cameras(world, 30.0, cameras, np.random.default_rng(1))
    found = placed.project(placed.in_axes(world))
    width, height = cameras.image_size
    for t in (0, 11, 29):
        for v in range(cameras.n_views):
            turn = Rotation.from_matrix(placed.rotation[t, v])
            np.testing.assert_allclose(turn.as_matrix(), placed.rotation[t, v], atol=1e-12)
            focal = placed.focal_px[t, v]
            inner = [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]
            shift = -turn.apply(placed.position[t, v])
            matrix = np.array(inner) @ np.column_stack([turn.as_matrix(), shift])
            points = matrix @ np.column_stack([world[t], np.ones(17)]).T
            assert (points[2] > 1.0).all()
            np.testing.assert_allclose(found[t, v], (points[:2] / points[2]).T, atol=1e-8)


@pytest.mark.parametrize("cameras", [CameraConfig(), HAND_HELD])
def test_pose3d_lands_on_the_true_keypoints_whatever_the_zoom(cameras):
    seen = filmed(cameras)
    half = seen.image_size[None, :, None] / 2
    ray = seen.pose3d[..., :2] / seen.pose3d[..., 2:]
    pixel = seen.keypoints_true - half
    focal = (ray * pixel).sum((2, 3)) / np.square(ray).sum((2, 3))
    np.testing.assert_allclose(focal[..., None, None] * ray, pixel, atol=0.01)
    assert (focal > 200).all()
    assert (np.ptp(focal, axis=0) > 1).all() == cameras.zoom
    np.testing.assert_array_equal(seen.keypoints[seen.confidence > 0],
                                  seen.keypoints_true[seen.confidence > 0])  # fmt: skip


def test_every_camera_sees_the_same_body():
    seen = filmed(HAND_HELD)
    gap = np.linalg.norm(seen.pose3d[..., :, None, :] - seen.pose3d[..., None, :, :], axis=-1)
    np.testing.assert_allclose(gap, gap[:, :1].repeat(3, 1), atol=1e-5)


def test_left_is_left_and_up_is_up():
    """The left side of a person who faces the camera is on the right side of the image.

    Nearly always: the nose gives the direction, and people also look over a shoulder.
    """
    seen = filmed(CameraConfig(n_views=8), n_frames=300)
    neck = (seen.pose3d[:, :, joint("thorax")] + seen.pose3d[:, :, joint("head")]) / 2
    faces = seen.pose3d[:, :, joint("nose")] - neck
    facing = -faces[..., 2] / np.linalg.norm(faces, axis=-1)
    for name in ("shoulder", "hip"):
        x = seen.keypoints_true[..., 0]
        left = x[..., joint(f"l_{name}")] - x[..., joint(f"r_{name}")]
        assert (left[facing > 0.85] > 0).mean() > 0.93
        assert (left[facing < -0.85] < 0).mean() > 0.93
    y = seen.keypoints_true[..., 1]
    assert (y[..., joint("head")] < y[..., joint("l_ankle")]).all()


@pytest.mark.parametrize("n_views", range(2, 9))
def test_any_number_of_cameras_from_two_to_eight(n_views):
    seen = filmed(CameraConfig(n_views=n_views), DetectorConfig(), n_frames=5)
    assert seen.keypoints.shape == (5, n_views, 17, 2)
    assert len(set(seen.views)) == n_views


def test_fixed_cameras_never_move_and_have_the_whole_action_in_the_image():
    world = action(400)
    for cameras, moves in ((CameraConfig(fixed=True), False), (CameraConfig(), True)):
        placed = place_cameras(world, 30.0, cameras, np.random.default_rng(1))
        for track in (placed.rotation, placed.focal_px):
            assert (np.ptp(track, axis=0).max() > 1e-2) == moves
        assert np.ptp(placed.position, axis=0).max() == 0  # both stand on tripods
    seen = film(world, H36M17, 30.0, CameraConfig(fixed=True), PERFECT, np.random.default_rng(1))
    assert (seen.confidence > 0).all()
    first, second = seen.pose3d[:, 0].reshape(-1, 3), seen.pose3d[:, 1].reshape(-1, 3)
    turn, residual = Rotation.align_vectors(second - second.mean(0), first - first.mean(0))
    assert residual < 0.05  # metres, summed over 6,800 points


def test_cameras_follow_smoothly_and_keep_the_athlete_in_the_image():
    seen = filmed(CameraConfig(drift_m=0.2), n_frames=600)
    assert (seen.confidence > 0).mean() > 0.99
    size = (seen.keypoints_true.max(2) - seen.keypoints_true.min(2)).max(-1) / 1080
    assert np.quantile(size, 0.05) > 0.2
    assert np.quantile(size, 0.95) < 0.85
    step = np.linalg.norm(np.diff(seen.keypoints_true[:, :, 0], axis=0), axis=-1)
    assert step.max() < 80  # pixels a frame


def test_cameras_stand_where_the_config_says():
    world = action(30) - action(30)[:1, :1] * [1, 0, 1]
    middle = (world.min((0, 1)) + world.max((0, 1))) / 2

    def bearings(**given):
        cameras = CameraConfig(azimuth_jitter_deg=0.0, **given)
        off = place_cameras(world, 30.0, cameras, np.random.default_rng(0)).position[0] - middle
        return np.degrees(np.arctan2(off[:, 0], off[:, 2])), np.hypot(off[:, 0], off[:, 2])

    angle, distance = bearings(n_views=2, azimuths_deg=(0.0, 90.0), distance_m=(6.0, 12.0))
    assert np.cos(np.radians(angle[1] - angle[0] - 90)) > 1 - 1e-9
    assert ((distance >= 6) & (distance <= 12)).all()
    angle, _ = bearings(n_views=5, arc_deg=120.0, centre_deg=10.0)
    np.testing.assert_allclose(angle, [-50, -20, 10, 40, 70], atol=1e-9)
    angle, _ = bearings(n_views=4, centre_deg=0.0)
    np.testing.assert_allclose(np.sort(angle % 360), [0, 90, 180, 270], atol=1e-9)


# --- detector


@cache
def detected():
    """48,000 images at 10 fps, and the error of each joint in units of the box (T, V, J, 2)."""
    seen = filmed(CameraConfig(n_views=8), DetectorConfig(), n_frames=6000, fps=10.0)
    box = (seen.keypoints_true.max(2) - seen.keypoints_true.min(2)).max(-1)
    return seen, (seen.keypoints - seen.keypoints_true) / box[..., None, None]


def correlation(error, lag):
    """Sum of e(t) . e(t + lag) over the mean of the two sums of squares, per joint."""
    first, second = error[:-lag], error[lag:]
    both = ~np.isnan(first + second).any(-1, keepdims=True)
    first, second = np.where(both, first, 0.0), np.where(both, second, 0.0)
    power = (np.square(first) + np.square(second)).sum((0, 1, 3)) / 2
    return (first * second).sum((0, 1, 3)) / power


@pytest.mark.parametrize("name", H36M17)
def test_errors_have_the_measured_size_and_correlation(name):
    _, error = detected()
    size = np.linalg.norm(error[:, :, joint(name)], axis=-1)
    size = size[~np.isnan(size)]
    expected = ERRORS[name]
    median, p90, p99 = np.quantile(size, [0.5, 0.9, 0.99])
    assert median == pytest.approx(expected.median, rel=0.15)
    assert p90 == pytest.approx(expected.p90, rel=0.15)
    assert p99 == pytest.approx(expected.p99, rel=0.3)
    found = correlation(error[:, :, [joint(name)]], lag=1)
    assert found[0] == pytest.approx(expected.correlation, abs=0.1)


def test_errors_last_as_long_at_any_frame_rate():
    seen = filmed(CameraConfig(n_views=8), DetectorConfig(), n_frames=3000, fps=60.0)
    box = (seen.keypoints_true.max(2) - seen.keypoints_true.min(2)).max(-1)
    found = correlation((seen.keypoints - seen.keypoints_true) / box[..., None, None], lag=6)
    expected = np.array([ERRORS[name].correlation for name in H36M17])
    assert abs((found - expected).mean()) < 0.05


def test_the_first_frame_has_errors_of_the_same_size():
    gaps = []
    for seed in range(60):
        seen = filmed(CameraConfig(n_views=8), DetectorConfig(), n_frames=2, seed=seed)
        box = (seen.keypoints_true.max(2) - seen.keypoints_true.min(2)).max(-1)
        error = np.linalg.norm(seen.keypoints - seen.keypoints_true, axis=-1)
        gaps.append(error[0] / box[0, :, None] / [ERRORS[name].median for name in H36M17])
    assert np.nanmedian(gaps) == pytest.approx(1.0, rel=0.1)


def test_errors_do_not_depend_on_how_large_the_person_is_in_the_image():
    near = filmed(CameraConfig(share=(0.7, 0.7)), DetectorConfig(), n_frames=20)
    far = filmed(CameraConfig(share=(0.35, 0.35)), DetectorConfig(), n_frames=20)
    gap = [seen.keypoints - seen.keypoints_true for seen in (near, far)]
    both = (near.confidence > 0) & (far.confidence > 0)
    np.testing.assert_allclose(gap[0][both], 2 * gap[1][both], atol=0.02)


def test_left_and_right_are_swapped_as_often_as_measured_and_in_bursts():
    rates = replace(PERFECT, leg_swap_rate=0.0079, arm_swap_rate=0.0037)
    seen = filmed(CameraConfig(n_views=8), rates, n_frames=6000, fps=5.0)
    mirror = seen.keypoints_true[:, :, list(mirrored(H36M17))]
    swapped = (seen.keypoints == mirror).all(-1)
    kept = (seen.keypoints == seen.keypoints_true).all(-1)
    for limb, rate in (("leg", 0.0079), ("arm", 0.0037)):
        ends = {"leg": ("hip", "knee", "ankle"), "arm": ("shoulder", "elbow", "wrist")}[limb]
        joints = [joint(f"{side}_{end}") for side in "lr" for end in ends]
        away = swapped[..., joints].all(-1)
        assert rate / 1.3 < away.mean() < rate * 1.3
        assert (away[1:] & away[:-1]).sum() > 0.3 * away.sum()
        assert (away | kept[..., joints].all(-1) | (seen.confidence == 0).any(-1)).all()


def test_joints_that_are_far_or_hidden_have_larger_errors():
    seen, error = detected()
    size = np.linalg.norm(error, axis=-1)
    depth = seen.pose3d[..., 2] - seen.pose3d[..., :1, 2]
    for name in ("l_wrist", "r_elbow", "l_knee", "r_ankle", "r_shoulder"):
        j = joint(name)
        far = np.nanmean(size[..., j][depth[..., j] > 0.15])
        near = np.nanmean(size[..., j][depth[..., j] < -0.15])
        assert far > 1.25 * near
        other = joint("lr"[name[0] == "l"] + name[1:])
        behind = np.nanmean(size[..., j][depth[..., j] > depth[..., other] + 0.1])
        assert behind > 1.15 * np.nanmean(size[..., j][depth[..., j] < depth[..., other] - 0.1])


def test_confidence_falls_with_the_error_but_not_reliably():
    seen, error = detected()
    found = seen.confidence > 0
    size, sure = np.linalg.norm(error[found], axis=-1), seen.confidence[found]
    assert sure.max() <= 1
    assert 0.25 < (sure < 0.85).mean() < 0.35
    assert (sure[size < 0.02] > 0.85).mean() > 0.8
    assert 0.02 < (sure[size > 0.1] > 0.85).mean() < 0.25  # confidently wrong
    assert 0.05 < (sure[size < 0.02] < 0.85).mean() < 0.2  # right but unsure
    bins = np.digitize(size, [0.02, 0.05, 0.1, 0.3])
    medians = [np.median(sure[bins == b]) for b in range(5)]
    assert (np.diff(medians) < -0.05).all()


def test_misses_joints_and_whole_frames():
    seen, _ = detected()
    missed = seen.confidence == 0
    assert (np.isnan(seen.keypoints).all(-1) == missed).all()
    gone = missed.all(-1)
    assert 0.003 < gone.mean() < 0.007
    assert 0.01 < missed[~gone].mean() < 0.02


def test_a_detector_without_confidences_gives_the_same_keypoints():
    with_scores = filmed(CameraConfig(), DetectorConfig())
    blind = filmed(CameraConfig(), DetectorConfig(confidences=False))
    np.testing.assert_array_equal(blind.keypoints, with_scores.keypoints)
    np.testing.assert_array_equal(blind.keypoints_true, with_scores.keypoints_true)
    np.testing.assert_array_equal(blind.confidence, (with_scores.confidence > 0).astype("f4"))


def test_nothing_is_detected_outside_the_image():
    seen = filmed(CameraConfig(share=(1.5, 1.5)), DetectorConfig(), n_frames=100)
    outside = ((seen.keypoints_true < -20) | (seen.keypoints_true > [1940, 1100])).any(-1)
    assert outside.mean() > 0.1
    found = seen.keypoints[seen.confidence > 0]
    assert (found >= 0).all()
    assert (found <= [1920, 1080]).all()


# --- session


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    first, second = (write_session(SMALL, tmp_path / name) for name in "ab")
    for mine, other in zip(first, second, strict=True):
        assert [p.name for p in mine] == [p.name for p in other]
        assert [p.read_bytes() for p in mine] == [p.read_bytes() for p in other]
    assert [p.name for p in first[0]] == ["train_00.npz", "train_01.npz"]
    assert [p.name for p in first[1]] == ["test_00.npz", "test_01.npz"]
    assert recording.load(first[1][0]).joints == H36M17
    other = write_session(replace(SMALL, seed=8), tmp_path / "c")[0][0]
    assert other.read_bytes() != first[0][0].read_bytes()


def test_a_recording_does_not_depend_on_how_many_are_made():
    few, many = dict(session(SMALL)), dict(session(replace(SMALL, n_train=4, n_test=3)))
    for name, one in few.items():
        np.testing.assert_array_equal(one.keypoints, many[name].keypoints)
        np.testing.assert_array_equal(one.confidence, many[name].confidence)


def test_test_people_are_never_in_training():
    def build(seen):  # thigh over shank does not depend on camera or frame
        hip, knee, ankle = (seen.pose3d[0, 0, joint(f"l_{n}")] for n in ("hip", "knee", "ankle"))
        return round(float(np.linalg.norm(hip - knee) / np.linalg.norm(knee - ankle)), 4)

    made = {name: build(seen) for name, seen in session(replace(SMALL, n_train=8))}
    train = {build for name, build in made.items() if name.startswith("train")}
    test = {build for name, build in made.items() if name.startswith("test")}
    assert len(train) == SMALL.n_people_train
    assert len(test) == SMALL.n_people_test
    assert not train & test


def test_only_fixed_cameras_make_a_rig():
    assert {seen.rig for _, seen in session(SMALL)} == {""}
    still = dict(session(replace(SMALL, cameras=CameraConfig(n_views=4, fixed=True))))
    assert [seen.rig for seen in still.values()] == list(still)


def test_the_config_is_read_from_yaml():
    text = """
    seed: 3
    n_train: 1
    n_test: 0
    n_frames: 4
    motions: [run]
    cameras: {n_views: 2, azimuths_deg: [0, 90], distance_m: [6, 12], centre_deg: 20}
    detector: {confidences: false}
    """
    merged = OmegaConf.merge(OmegaConf.structured(SimulateConfig), OmegaConf.create(text))
    config = OmegaConf.to_object(merged)
    assert isinstance(config, SimulateConfig)
    (seen,) = (seen for _, seen in session(config))
    assert seen.keypoints.shape == (4, 2, 17, 2)
    assert set(np.unique(seen.confidence)) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: CameraConfig(n_views=9), "n_views must be 2 to 8, got 9"),
        (lambda: CameraConfig(n_views=3, azimuths_deg=(0.0,)), "1 directions for 3 cameras"),
        (lambda: CameraConfig(distance_m=(9.0, 8.0)), "distance_m must be"),
        (lambda: SimulateConfig(motions=("fly",)), r"no motion \['fly'\]; choose from slalom"),
        (lambda: SimulateConfig(n_people_train=0), "n_people_train must be at least 1, got 0"),
        (lambda: SimulateConfig(fps=0.0), "fps must be positive"),
        (lambda: SimulateConfig(seed=-1), "seed must be at least 0, got -1"),
        (lambda: DetectorConfig(joint_miss_rate=2.0), r"joint_miss_rate must be in .*, got 2"),
        (lambda: DetectorConfig(leg_swap_rate=-0.1), "leg_swap_rate must be in"),
        (lambda: DetectorConfig(error_scale=-1.0), "error_scale must not be negative, got -1"),
        (
            lambda: film(action(5), H36M17[::-1], 30.0, CameraConfig(), PERFECT,
                         np.random.default_rng(0)),
            "joints must be h36m17",
        ),
    ],
)  # fmt: skip
def test_refuses_impossible_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


# --- cameras that start at different times


def test_a_start_a_whole_number_of_frames_later_shifts_the_view_by_as_many_frames():
    together = filmed(n_frames=60)
    starts = (0.0, 0.5, -0.2, 0.0, 0.1, 0.3)
    late = filmed(CameraConfig(starts_s=starts), n_frames=60)
    assert late.n_frames == 60 - 21
    for view, start in enumerate(starts):
        first = round((start + 0.2) * 30)
        for name in ("keypoints_true", "pose3d"):
            expected = getattr(together, name)[first : first + 39, view]
            np.testing.assert_allclose(
                getattr(late, name)[:, view], expected, rtol=2e-6, atol=1e-5
            )


def test_ground_truth_is_of_the_time_of_each_cameras_frame():
    """To a fraction of a frame: distances between joints, known at any time."""
    rest = action(2)[0]

    def world(time):
        sway = np.sin(4 * time[:, None, None] + np.arange(17)[:, None])
        return rest + 0.2 * sway * np.ones(3)

    starts = (0.0, 0.377, 0.011)
    cameras = CameraConfig(n_views=3, starts_s=starts)
    time = np.arange(90) / 30.0
    seen = film(world(time), H36M17, 30.0, cameras, PERFECT, np.random.default_rng(0))
    for view, start in enumerate(starts):
        pose = world(time[: seen.n_frames] + start)
        expected = np.linalg.norm(pose[:, 1:] - pose[:, :-1], axis=-1)
        found = np.linalg.norm(np.diff(seen.pose3d[:, view], axis=1), axis=-1)
        np.testing.assert_allclose(found[3:-3], expected[3:-3], atol=2e-4)


def test_a_session_has_its_frames_however_late_a_camera_starts():
    cameras = CameraConfig(n_views=2, starts_s=(0.0, 0.25))
    assert {one.n_frames for _, one in session(replace(SMALL, cameras=cameras))} == {20}


@pytest.mark.parametrize(
    ("starts", "message"),
    [((0.0, 1.0), "2 times for 6 cameras"), ((0.0,) * 5 + (np.inf,), "finite")],
)
def test_refuses_impossible_starts(starts, message):
    with pytest.raises(ValueError, match=message):
        CameraConfig(starts_s=starts)


def test_refuses_a_motion_that_ends_before_the_last_camera_starts():
    with pytest.raises(ValueError, match="the last camera starts 90 frames after the first"):
        filmed(CameraConfig(n_views=2, starts_s=(0.0, 3.0)), n_frames=60)
