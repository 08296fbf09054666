"""Films of everyday recordings, and the figures by which solvers are compared."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks import everyday, films, solve_failures, solve_scores
from benchmarks.solve_scores import Found, Truth
from canonlift.body.skeleton import H36M17, mirrored
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig, as_defined
from canonlift.simulation.session import film, film_knowingly

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

CAMERAS = CameraConfig(n_views=3, distance_m=(4.0, 6.0))
EXACT = DetectorConfig(error_scale=0.0, joint_miss_rate=0.0, frame_miss_rate=0.0)


def joint(name):
    return H36M17.index(name)


@pytest.fixture(scope="module")
def motion():
    generator = np.random.default_rng(3)
    return perform(sample_person(generator), ["run", "squat"], 90, 30.0, generator)


@pytest.fixture(scope="module")
def motions(motion):
    return {"asf/02_01": motion, "expmap/test/jumping/jumping_1": motion[:60]}


def filmed(motion, detector, cameras=CAMERAS, rig=""):
    generator = np.random.default_rng(5)
    return film_knowingly(motion, H36M17, 30.0, cameras, detector, generator, rig)


def truth_of(made):
    return Truth(made.recording, made.cameras, made.swapped, made.defined)


# --- the detector


def test_the_detector_errs_as_it_did_before_it_could_err_in_more_ways(motion):
    recording = filmed(motion, DetectorConfig()).recording
    some = recording.keypoints[[5, 40, 77], [0, 1, 2], [3, 8, 15]]
    expected = [[966.43, 673.826], [936.811, 384.117], [859.824, 454.798]]
    np.testing.assert_allclose(some, expected, rtol=1e-5)
    again = film(motion, H36M17, 30.0, CAMERAS, DetectorConfig(), np.random.default_rng(5))
    np.testing.assert_array_equal(again.keypoints, recording.keypoints)


def test_wrong_limbs_and_hidden_joints_leave_everything_else_as_it_is(motion):
    usual = filmed(motion, DetectorConfig(leg_swap_rate=0.0, arm_swap_rate=0.0)).recording
    worse = DetectorConfig(
        leg_swap_rate=0.0, arm_swap_rate=0.0, limb_error_rate=0.3, hidden=("nose",)
    )
    other = filmed(motion, worse).recording
    trunk = [joint(name) for name in ("pelvis", "spine", "thorax", "head")]
    np.testing.assert_array_equal(other.keypoints[:, :, trunk], usual.keypoints[:, :, trunk])
    np.testing.assert_array_equal(other.confidence[:, :, trunk], usual.confidence[:, :, trunk])
    assert (other.confidence[:, :, joint("nose")] == 0).all()
    gap = np.linalg.norm(other.keypoints - usual.keypoints, axis=-1)
    knee, ankle = gap[:, :, joint("l_knee")], gap[:, :, joint("l_ankle")]
    both = np.isfinite(knee + ankle)
    wrong = both & (knee > 0.01)
    assert 0.1 < wrong.mean() < 0.9
    # A leg is off as a whole, its end the most.
    assert (ankle[wrong] > knee[wrong]).all()
    assert (knee[both & ~wrong] < 0.01).all()


def test_exchanged_labels_are_known(motion):
    made = filmed(motion, replace(EXACT, leg_swap_rate=0.3, arm_swap_rate=0.2))
    recording, swap = made.recording, list(mirrored(H36M17))
    parts = (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist"))
    for limb, names in enumerate(parts):
        joints = [joint(f"{side}_{name}") for side in "lr" for name in names]
        there = made.swapped[..., limb][..., None]
        true = recording.keypoints_true
        expected = np.where(there[..., None], true[:, :, swap], true)[:, :, joints]
        np.testing.assert_allclose(recording.keypoints[:, :, joints], expected, atol=0.01)
        assert there.any()
        assert not there.all()


def test_joints_are_defined_off_by_centimetres_that_stay_with_the_body(motion):
    config = DetectorConfig(offset_m=(0.02, 0.04))
    turn = Rotation.from_euler("y", 1.1).as_matrix()
    shift, turned = (
        as_defined(pose, config, np.random.default_rng(0)) - pose
        for pose in (motion, motion @ turn.T)
    )
    np.testing.assert_allclose(turned, shift @ turn.T, atol=1e-9)
    size = np.linalg.norm(shift, axis=-1)
    np.testing.assert_allclose(size, np.broadcast_to(size[:1], size.shape), atol=1e-9)
    assert 0.02 - 1e-9 <= size.min() < size.max() <= 0.04 + 1e-9
    np.testing.assert_allclose(size, size[:, list(mirrored(H36M17))])
    assert as_defined(motion, DetectorConfig(), np.random.default_rng(0)) is motion


def test_bad_rates_offsets_and_names_are_refused():
    for bad in ({"limb_error_rate": 1.0}, {"offset_m": (0.4, 0.2)}, {"hidden": ("tail",)}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            DetectorConfig(**bad)


# --- the settings


def clips(setting, motions, seed=0):
    return list(films.clips_of(setting, motions, films.ALL, seed, ("test",)))


def test_the_room_is_of_slow_and_of_seated_people_whose_detector_has_no_confidences(motions):
    made = {clip.name.removeprefix("everyday/"): clip for clip in clips("room", motions)}
    assert {name.partition("_")[0] for name in made} == {"sit", "stand", "slow", "athlete"}
    speed = {}
    for name, clip in made.items():
        recording = clip.recording
        assert recording.rig
        assert recording.keypoints.shape[1] == 4
        assert set(np.unique(recording.confidence)) <= {0.0, 1.0}
        rooted = clip.cameras.rotation[0, 0].T @ recording.pose3d[:, 0].swapaxes(-1, -2)
        speed[name] = 30 * np.linalg.norm(np.diff(rooted, axis=0), axis=1).mean()
        off = np.linalg.norm(clip.defined - recording.pose3d, axis=-1)
        assert 0.019 < off.min() < off.max() < 0.041
    usual = 30 * np.linalg.norm(np.diff(motions["asf/02_01"], axis=0), axis=-1).mean()
    assert speed["slow_1"] < 0.6 * usual
    assert speed["stand_1"] < 0.3 * usual


def test_whoever_sits_has_level_thighs_and_faces_forwards(motion):
    pose = everyday.sitting(motion, np.random.default_rng(0))
    for side in "lr":
        thigh = pose[:, joint(f"{side}_knee")] - pose[:, joint(f"{side}_hip")]
        shank = pose[:, joint(f"{side}_ankle")] - pose[:, joint(f"{side}_knee")]
        assert (thigh[:, 2] > 0.8 * np.linalg.norm(thigh, axis=-1)).all()
        assert (shank[:, 1] < -0.6 * np.linalg.norm(shank, axis=-1)).all()
    left = pose[:, joint("l_hip")] - pose[:, joint("r_hip")]
    assert (left[:, 0] > 0).all()


def test_the_court_is_filmed_by_cameras_that_pan_and_zoom(motions):
    for clip in clips("court", motions):
        assert not clip.recording.rig
        assert clip.recording.keypoints.shape[1] == 3
        away = np.linalg.norm(clip.recording.pose3d[:, :, 0], axis=-1)
        assert 5.0 < away.min() < away.max() < 15.0  # the action has a size of its own
        assert (clip.cameras.focal_px.std(0) > 0).all()


def test_the_desk_hides_all_below_the_thorax(motions):
    for clip in clips("desk", motions):
        seen = (clip.recording.confidence > 0).any((0, 1))
        names = {name for name, there in zip(H36M17, seen, strict=True) if there}
        limbs = {f"{side}_{name}" for side in "lr" for name in ("shoulder", "elbow", "wrist")}
        assert names == {"thorax", "nose", "head", *limbs}
        away = np.linalg.norm(clip.recording.pose3d[:, :, 0], axis=-1)
        assert 1.2 < away.min() < away.max() < 3.5
        joints, root = solve_scores.joints_of(clip.recording)
        assert H36M17[joints[root]] == "thorax"


def test_a_seed_changes_cameras_and_errors_and_splits_change_nothing(motions):
    both = motions | {"asf/01_07": motions["asf/02_01"]}
    alone, other = clips("court", motions), clips("court", motions, seed=1)
    whole = [clip for clip in films.clips_of("court", both, films.ALL) if clip.split == "test"]
    for first, second, third in zip(alone, other, whole, strict=True):
        assert not np.allclose(first.cameras.position, second.cameras.position)
        np.testing.assert_array_equal(first.recording.keypoints, third.recording.keypoints)


# --- the figures


@pytest.fixture(scope="module")
def fixed(motion):
    detector = DetectorConfig(leg_swap_rate=0.1, arm_swap_rate=0.1)
    return truth_of(filmed(motion, detector, replace(CAMERAS, fixed=True), "rig"))


def perfect(truth, scale=2.0):
    """All that is true, in axes and in a size of its own."""
    turn = Rotation.from_euler("xyz", [0.3, -1.0, 0.4]).as_matrix()
    return Found(
        scale * truth.recording.pose3d,
        truth.cameras.rotation @ turn.T,
        truth.cameras.focal_px,
        truth.recording.keypoints_true,
        swapped=truth.swapped,
        trust=np.ones(len(truth.swapped)),
        position=scale * truth.cameras.position[0] @ turn.T + 3.0,
    )


def row_of(truth, found):
    noisy = truth.recording.pose3d + np.random.default_rng(0).normal(
        0, 0.01, truth.recording.pose3d.shape
    )
    bar = solve_scores.errors(noisy, truth.recording)
    return solve_scores.summary([solve_scores.figures(truth, found, bar)])


def test_the_truth_has_no_errors_in_any_axes_and_size(fixed):
    row = row_of(fixed, perfect(fixed))
    zero = ("n_mpjpe_mm", "pa_mpjpe_mm", "rotation_deg", "focal_error", "position_error")
    for name in (*zero, "refined_over_detected", "spoilt", "wrong_windows", "false_swaps"):
        assert row[name] == pytest.approx(0, abs=2e-2), name
    assert row["swaps_found"] == row["big_swaps_found"] == 1
    assert row["trust"][-1] == [0.9, 1.0, 0.0]


def test_each_figure_sees_its_own_error(fixed):
    true = perfect(fixed)
    tilt = Rotation.from_euler("x", 3, degrees=True).as_matrix()
    rotation = true.rotation.copy()
    rotation[:, 0] = tilt @ rotation[:, 0]
    turned = row_of(fixed, replace(true, rotation=rotation))
    assert turned["rotation_deg"] == pytest.approx(3, abs=0.01)
    longer = row_of(fixed, replace(true, focal_px=1.1 * true.focal_px))
    assert longer["focal_error"] == pytest.approx(np.log(1.1), abs=1e-6)
    claims = row_of(fixed, replace(true, swapped=np.zeros_like(fixed.swapped)))
    assert claims["swaps_found"] == 0
    flat = row_of(fixed, replace(true, in_camera=true.in_camera * [1.0, 1.0, 0.2]))
    assert flat["wrong_windows"] == 1
    assert flat["trust"][-1] == [0.9, 1.0, 1.0]
    nobody = np.full_like(true.in_camera, np.nan)
    nobody[:60] = true.in_camera[:60]
    assert row_of(fixed, replace(true, in_camera=nobody))["missing"] == pytest.approx(1 / 3)


def test_intervals_hold_of_errors_that_were_drawn_from_the_covariance(fixed):
    true, generator = perfect(fixed), np.random.default_rng(2)
    root = 0.01 * generator.standard_normal((*true.in_camera.shape[:3], 3, 3))
    error = np.einsum("tvjrc,tvjc->tvjr", root, generator.standard_normal(true.in_camera.shape))
    noisy = replace(
        true, in_camera=true.in_camera + 2 * error, covariance=4 * root @ root.swapaxes(-1, -2)
    )
    row = row_of(fixed, noisy)
    assert row["within_68"] == pytest.approx(0.70, abs=0.04)  # 7 of 51 are taken away
    assert row["within_95"] == pytest.approx(0.95, abs=0.02)
    sure = row_of(fixed, replace(noisy, covariance=noisy.covariance / 9))
    assert sure["within_68"] < 0.35


def test_a_failure_is_silent_unless_trust_or_the_inliers_of_the_view_tell():
    good = {
        "n_of_views": [40.0, 41.0, 42.0], "pa_mpjpe_mm": 28.0, "trust": 0.97,
        "worst_view": 1, "stands_out": 0.95,
    }  # fmt: skip
    assert solve_failures.verdict(good) == "good"
    one = good | {"n_of_views": [40.0, 300.0, 42.0]}
    assert solve_failures.verdict(one) == "WRONG IN VIEW 1, SILENTLY"
    assert solve_failures.verdict(one | {"stands_out": 0.5}) == "wrong in view 1, it tells"
    whole = good | {"pa_mpjpe_mm": 90.0}
    assert solve_failures.verdict(whole) == "WRONG, SILENTLY"
    assert solve_failures.verdict(whole | {"trust": 0.2}) == "wrong, it tells"


def test_cases_change_what_they_are_named_after():
    case = replace(solve_failures.CASES["rotated phone"], motion=lambda: solve_failures.athlete(2))
    clean = solve_failures.recorded(case)
    upright = case.change(clean)
    seen = upright.cameras.project(upright.recording.pose3d.astype(float))[:, [0, 2, 3]]
    np.testing.assert_allclose(seen, upright.recording.keypoints_true[:, [0, 2, 3]], atol=0.1)
    late = solve_failures.late(0.5)(clean).recording.keypoints
    np.testing.assert_array_equal(late[20:, 1], clean.recording.keypoints[5:-15, 1])
    both = solve_failures.mirrored_video([1])(solve_failures.mirrored_video([1])(clean))
    np.testing.assert_allclose(both.recording.keypoints, clean.recording.keypoints, atol=1e-3)
