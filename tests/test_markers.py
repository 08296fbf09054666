"""Laws of markers: the size, the vertical and the filter, and what the notes claim of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from marker_scene import motion, standing
from scipy.signal import butter, filtfilt
from scipy.spatial.transform import Rotation

from canonlift.body.skeleton import H36M17
from canonlift.data.windows import runs
from canonlift.output.export.markers import (
    LONGEST_GAP,
    Filter,
    Markers,
    Size,
    in_metres,
    level_axes,
    smoothed,
    upright,
)
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.motions import MOTIONS

NO_CAMERAS = np.zeros((0, 3))


def angle(one, other):
    """Degrees between two directions."""
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


# --- size


def test_a_person_of_usual_proportions_is_as_tall_as_given():
    found = in_metres(replace(standing(), positions=0.01 * standing().positions), Size(1.8))
    np.testing.assert_allclose(found.positions, standing().positions, rtol=0.01, atol=1e-12)
    assert found.unit == "m"
    assert "differ by 0.0%" in found.notes[-1]


@pytest.mark.parametrize("size", [Size(1.7), Size(0.4, ("l_hip", "l_knee"))])
def test_metres_do_not_depend_on_the_unit_or_the_axes(size):
    markers = motion()
    turn = Rotation.from_rotvec([0.3, -0.2, 0.9]).as_matrix()
    turned = replace(markers, positions=0.123 * markers.positions @ turn.T)
    one, other = in_metres(markers, size), in_metres(turned, size)
    spread = [markers.notes[-1].rpartition(" differ by ")[2] for markers in (one, other)]
    assert spread[0] == spread[1]
    np.testing.assert_allclose(one.positions @ turn.T, other.positions, atol=1e-9)


def test_a_bone_gets_its_length_whatever_some_frames_say():
    markers = motion()
    markers.positions[20:30, H36M17.index("l_knee")] *= 3
    found = in_metres(markers, Size.of_bone("l_hip-l_knee=0.42"))
    bone = found.middle("l_hip") - found.middle("l_knee")
    assert np.nanmedian(np.linalg.norm(bone, axis=-1)) == pytest.approx(0.42)
    clean = in_metres(motion(), Size.of_bone("l_hip-l_knee=0.42"))
    np.testing.assert_allclose(found.positions[:10], clean.positions[:10], rtol=1e-6)


def test_a_real_body_comes_out_within_the_error_of_usual_proportions():
    g, ratios = np.random.default_rng(4), []
    for _ in range(5):
        person = sample_person(g)
        markers = Markers(perform(person, list(MOTIONS), 50, 10.0, g), H36M17, 10.0)
        found = in_metres(replace(markers, positions=markers.positions / 4), Size(person.height))
        ratios.append(np.linalg.norm(found.positions) / np.linalg.norm(markers.positions))
    assert ratios == pytest.approx([1] * 5, abs=0.08)
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)


def test_without_a_known_length_nothing_claims_metres():
    assert motion().unit == "body_units"
    unseen = replace(motion(), positions=np.full((4, 17, 3), np.nan))
    for size in (Size(1.8), Size(0.4, ("l_hip", "l_knee"))):
        found = in_metres(unseen, size)
        assert found.unit == "body_units"
        assert "no size" in found.notes[-1]


def test_only_what_was_seen_of_a_body_measures_it():
    markers = standing()
    markers.positions[:, [H36M17.index(f"{s}_{j}") for s in "lr" for j in ("knee", "ankle")]] = (
        np.nan
    )
    found = in_metres(replace(markers, positions=0.2 * markers.positions), Size(1.8))
    np.testing.assert_allclose(found.positions, markers.positions, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    "text",
    "l_hip=0.4 l_hip-l_knee l_hip-l_knee=x l_hip-l_knee=42 a-b-c=0.4 l_hip-l_knee=-0.4".split(),
)
def test_a_bone_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="two joints and metres, such as l_hip-l_knee=0.42"):
        Size.of_bone(text)


def test_a_height_that_is_nobodys_is_refused():
    for height in (180.0, 0.0, -1.8, np.nan):
        with pytest.raises(ValueError, match="is that of no person; give metres"):
            Size.of_person(height)


def test_a_joint_that_is_not_on_the_skeleton_is_refused_by_name():
    with pytest.raises(ValueError, match="got 'l_kneee'; did you mean 'l_knee'"):
        in_metres(motion(), Size(0.4, ("l_hip", "l_kneee")))
    with pytest.raises(ValueError, match="height needs legs or arms"):
        in_metres(Markers(np.zeros((1, 1, 3)), ("pelvis",), 10.0), Size(1.8))


# --- vertical


@pytest.mark.parametrize("seed", range(4))
def test_up_is_found_from_any_axes(seed):
    turn = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    tilted = replace(standing(), positions=standing().positions @ turn.T)
    found = upright(tilted, NO_CAMERAS)
    body = np.median(found.middle("head") - found.middle("l_ankle", "r_ankle"), axis=0)
    assert angle(body, np.array([0, 1, 0])) < 1
    lengths = [np.linalg.norm(m.middle("head"), axis=-1) for m in (tilted, found)]
    np.testing.assert_allclose(*lengths)
    handed = [np.linalg.det(m.positions[0, [4, 6, 13]]) for m in (tilted, found)]
    assert handed[0] == pytest.approx(handed[1])


def test_a_tilted_camera_keeps_its_right_on_the_right():
    pitch = Rotation.from_euler("x", 25, degrees=True).as_matrix()
    tilted = replace(standing(), positions=standing().positions @ pitch.T)
    found = upright(tilted, np.array([[1.0, 0, 0]]))
    across = (found.middle("l_hip") - found.middle("r_hip")).mean(0)
    assert angle(across, np.array([1.0, 0, 0])) < 1
    np.testing.assert_allclose(found.positions, standing().positions, atol=0.05)


@pytest.mark.parametrize("roll", [10, 90, 170, 180, -120])
def test_a_rolled_camera_is_turned_about_the_line_of_sight(roll):
    turn = Rotation.from_euler("z", roll, degrees=True).as_matrix()
    rolled = replace(standing(), positions=standing().positions @ turn.T)
    np.testing.assert_allclose(
        upright(rolled, NO_CAMERAS).positions, standing().positions, atol=0.03
    )


@pytest.mark.parametrize("side", [90, -90])
def test_a_camera_right_above_or_below_has_an_up_too(side):
    turn = Rotation.from_euler("x", side, degrees=True).as_matrix()
    above = standing()
    above.positions[:] = above.positions[:1] @ turn.T
    found = upright(above, NO_CAMERAS)
    body = (found.middle("head") - found.middle("l_ankle", "r_ankle")).mean(0)
    assert angle(body, np.array([0, 1.0, 0])) < 2
    assert np.linalg.det(found.positions[0, [4, 6, 13]]) == pytest.approx(
        np.linalg.det(above.positions[0, [4, 6, 13]])
    )


@pytest.mark.parametrize("up", [1.0, -1.0])
def test_what_is_ahead_of_a_camera_that_looks_straight_down_or_up(up):
    """As if it had been level and turned: down, the top of its image is ahead; up, behind."""
    axes = level_axes(np.array([0.0, 0.0, up]))
    np.testing.assert_allclose(axes @ [0.0, 1.0, 0.0], [0.0, 0.0, -up], atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)


def test_a_head_gone_astray_in_one_frame_turns_nobody():
    strayed = standing()
    strayed.positions[7, H36M17.index("head")] = [3.0, 0, 0]
    clean = upright(standing(), NO_CAMERAS).positions
    np.testing.assert_allclose(upright(strayed, NO_CAMERAS).positions[:7], clean[:7], atol=0.02)


def test_level_cameras_correct_a_person_who_leans_and_those_on_edge_do_not():
    leaning = standing(lean=20)  # about x: cameras that look along x see it from the side
    side, front = np.array([0, 0, 1.0]), np.array([1.0, 0, 0])
    tilt = {}
    for name, across in (("none", NO_CAMERAS), ("side", [side]), ("both", [side, front]),
                         ("on edge", [np.array([0, 1.0, 0.1])])):  # fmt: skip
        found = upright(leaning, np.array(across).reshape(-1, 3))
        turn, _ = Rotation.align_vectors(found.positions[0], leaning.positions[0])
        tilt[name] = angle(turn.as_matrix()[:, 1], np.array([0, 1.0, 0]))
    assert tilt["none"] > 17
    assert tilt["side"] < 6
    assert tilt["both"] < 6
    assert tilt["on edge"] == pytest.approx(tilt["none"], abs=2)


def test_feet_on_the_floor_correct_a_person_who_leans_sideways():
    leaning = standing().positions @ Rotation.from_euler("z", 7, degrees=True).as_matrix().T
    ankles = [H36M17.index("l_ankle"), H36M17.index("r_ankle")]
    leaning[:, ankles] = leaning[:, ankles].mean((0, 1)) + [[0.3, 0, 0], [-0.3, 0, 0]]
    lean = np.median(leaning[:, 10] - leaning[:, ankles].mean(1), axis=0)
    found = upright(Markers(leaning, H36M17, 30.0), NO_CAMERAS)
    feet = (found.middle("l_ankle") - found.middle("r_ankle")).mean(0)
    assert abs(90 - angle(feet, np.array([0, 1.0, 0]))) < 0.6 * angle(lean, np.array([0, 1.0, 0]))


def test_someone_crouching_half_the_time_is_still_upright():
    markers = standing(60)
    legs = [H36M17.index(f"{s}_{j}") for s in "lr" for j in ("knee", "ankle")]
    markers.positions[25:, legs] = markers.positions[25:, legs] * [1, 0.3, 1] + [0, 0, 0.4]
    body = upright(markers, NO_CAMERAS).middle("head") - standing(60).middle("head")
    assert np.linalg.norm(body, axis=-1).max() < 0.03


def test_nobody_from_head_to_ankles_is_not_turned():
    legless = motion()
    legless.positions[:, [H36M17.index("l_ankle"), H36M17.index("r_ankle")]] = np.nan
    found = upright(legless, NO_CAMERAS)
    np.testing.assert_array_equal(found.positions, legless.positions)
    assert "y is that of the camera, not up" in found.notes[-1]


def test_someone_whose_head_no_detector_reports_is_still_upright():
    """The skeleton has a head, but of the joints above the hips the shoulders alone were seen."""
    headless = standing(lean=25)
    headless.positions[:, [H36M17.index("head"), H36M17.index("nose")]] = np.nan
    found = upright(headless, NO_CAMERAS)
    assert "y is an estimate" in found.notes[-1]
    trunk = (found.middle("thorax") - found.middle("l_hip", "r_hip")).mean(0)
    assert angle(trunk, np.array([0, 1, 0])) < 3


# --- filter


def test_agrees_with_scipy_where_there_is_no_gap():
    markers = motion(200, holes=False)
    found = smoothed(markers, Filter.parse("butterworth:6"))
    b, a = butter(2, 6 / 15)
    expected = filtfilt(b, a, markers.positions, axis=0)
    np.testing.assert_allclose(found.positions, expected, atol=1e-9)
    assert "6 Hz" in found.notes[-1]


def test_slow_motion_passes_without_delay_and_trembling_does_not():
    time = np.arange(300) / 100
    slow, fast = np.sin(2 * np.pi * time), 0.1 * np.sin(2 * np.pi * 30 * time)
    series = np.repeat((slow + fast)[:, None, None], 3, axis=-1)
    found = smoothed(Markers(series, ("a",), 100.0), Filter("butterworth", 6.0)).positions
    np.testing.assert_allclose(found[50:-50, 0, 0], slow[50:-50], atol=0.01)


def test_filtering_commutes_with_turning():
    markers, turn = motion(), Rotation.from_rotvec([0.3, -0.2, 0.9]).as_matrix()
    turned = replace(markers, positions=markers.positions @ turn.T)
    one, other = (smoothed(m, Filter("butterworth", 4.0)) for m in (markers, turned))
    np.testing.assert_allclose(one.positions @ turn.T, other.positions, atol=1e-9)


@pytest.mark.parametrize(("gap", "bridged"), [(1, True), (10, True), (11, False), (30, False)])
def test_gaps_of_up_to_ten_frames_are_bridged(gap, bridged):
    markers = motion(120, holes=False)
    markers.positions[40 : 40 + gap, 3] = np.nan
    found = smoothed(markers, Filter("butterworth", 6.0))
    assert np.isfinite(found.positions[40 : 40 + gap, 3]).all() == bridged
    assert np.isnan(found.positions[40 : 40 + gap, 3]).all() != bridged
    assert found.known.sum() == markers.known.sum() + gap * bridged
    assert f"{gap * bridged} positions" in found.notes[-1]


def test_what_lies_beyond_a_long_gap_has_no_influence():
    markers = motion(120, holes=False)
    markers.positions[50:70] = np.nan
    other = replace(markers, positions=markers.positions.copy())
    other.positions[70:] += 5
    one, two = (smoothed(m, Filter("butterworth", 6.0)).positions for m in (markers, other))
    np.testing.assert_array_equal(one[:50], two[:50])
    alone = smoothed(
        replace(markers, positions=markers.positions[:50]), Filter("butterworth", 6.0)
    )
    np.testing.assert_array_equal(one[:50], alone.positions)


def test_neither_ends_nor_short_pieces_are_invented_or_lost():
    markers = motion(60, holes=False)
    markers.positions[:20], markers.positions[22:40], markers.positions[41:] = (
        np.nan,
        np.nan,
        np.nan,
    )
    found = smoothed(markers, Filter("butterworth", 6.0))
    np.testing.assert_array_equal(found.known, markers.known)
    empty = replace(markers, positions=np.full((5, 17, 3), np.nan))
    assert not smoothed(empty, Filter("butterworth", 6.0)).known.any()


def test_stretches_are_those_of_a_slow_loop():
    g = np.random.default_rng(0)
    for _ in range(50):
        known = np.repeat(g.random(12) < 0.4, g.integers(1, 15, 12))
        expected, last = [], None
        for frame in np.flatnonzero(known):
            if last is None or frame - last > LONGEST_GAP + 1:
                expected.append([frame, frame])
            expected[-1][1] = last = frame
        assert runs(torch.from_numpy(known), LONGEST_GAP) == [
            (start, end + 1) for start, end in expected
        ]


@pytest.mark.parametrize("text", ["butterworth:0", "butterworth:15", "butterworth:-3",
                                  "butterworth:nan"])  # fmt: skip
def test_a_cutoff_beyond_half_the_frame_rate_is_refused(text):
    with pytest.raises(ValueError, match="must lie between 0 and 15 Hz"):
        smoothed(motion(), Filter.parse(text))


def test_an_unknown_filter_is_refused():
    with pytest.raises(ValueError, match="did you mean 'butterworth'"):
        Filter.parse("butterwort:6")
    with pytest.raises(ValueError, match="lacks its number, such as butterworth:6"):
        Filter.parse("butterworth")
