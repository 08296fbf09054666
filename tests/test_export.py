"""Laws of exports: what is written is read back, and nothing is claimed that nobody measured."""

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import butter, filtfilt
from scipy.spatial.transform import Rotation

from canonlift.body.skeleton import H36M17, bones
from canonlift.data.prediction import Fused, Prediction
from canonlift.data.recording import Recording
from canonlift.output.export import markers as processing
from canonlift.output.export import tables, trc, writing
from canonlift.output.export.markers import (
    SEGMENTS,
    Filter,
    Markers,
    Size,
    in_metres,
    smoothed,
    stretches,
    upright,
)
from canonlift.output.export.options import add_export_arguments, parse_exporter
from canonlift.output.export.writing import EXPORTS, Exporter, Take, describe, sequence_names
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.motions import MOTIONS

REAL = Path(__file__).parents[2] / "shared/data/recordings/balancing_4cam/triangulated.trc"
NOBODYS = np.zeros((0, 3))  # no camera to go by


def motion(n_frames=40, fps=30.0, seed=0, holes=True):
    """A person in metres, y up, relative to the pelvis, with joints and frames missing."""
    g = np.random.default_rng(seed)
    positions = perform(sample_person(g), list(MOTIONS), n_frames, fps, g)
    positions = positions - positions[:, :1]
    if holes:
        positions[3, 5], positions[5:9, 13], positions[12] = np.nan, np.nan, np.nan
        positions[-1, 16] = np.nan
    return Markers(positions, H36M17, fps)


def standing(n_frames=50, lean=0.0, seed=0):
    """A person as tall as usual proportions say, in metres, who sways and holds arms out."""
    share = {(a, b): s for a, b, s in SEGMENTS}
    g = np.random.default_rng(seed)
    points = dict.fromkeys(H36M17, np.zeros(3))
    trunk = share[("l_hip", "r_hip"), ("l_shoulder", "r_shoulder")]
    for side, x in (("l", 0.05), ("r", -0.05)):
        points[f"{side}_hip"] = np.array([x, 0, 0])
        for upper, lower in (("hip", "knee"), ("knee", "ankle")):
            length = share[(f"{side}_{upper}",), (f"{side}_{lower}",)]
            points[f"{side}_{lower}"] = points[f"{side}_{upper}"] - [0, length, 0]
        points[f"{side}_shoulder"] = np.array([2 * x, trunk, 0])
        for upper, lower in (("shoulder", "elbow"), ("elbow", "wrist")):
            length = share[(f"{side}_{upper}",), (f"{side}_{lower}",)]
            out = length * np.array([np.sign(x) * 0.6, -0.8, 0])
            points[f"{side}_{lower}"] = points[f"{side}_{upper}"] + out
    points["thorax"] = np.array([0, trunk + 0.02, 0])
    points["spine"], points["nose"] = points["thorax"] / 2, points["thorax"] + [0, 0.05, 0.05]
    points["head"] = points["thorax"] + [0, 0.15, 0]
    body = 1.8 * np.stack([points[name] for name in H36M17])
    sway = Rotation.from_rotvec(np.radians(1) * g.standard_normal((n_frames, 3)))
    leaning = Rotation.from_euler("x", lean, degrees=True)
    return Markers(body @ (leaning * sway).as_matrix().swapaxes(1, 2), H36M17, 30.0)


def angle(one, other):
    """Degrees between two directions."""
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


# --- files


def read_trc(path):
    """Head as cells, names, unit, time and positions; written for these tests alone."""
    rows = [line.split("\t") for line in path.read_text().rstrip("\n").split("\n")]
    head, body = rows[:5], [row for row in rows[5:] if any(row)]
    names = [cell for cell in head[3][2:] if cell]
    values = [[float(cell) if cell else np.nan for cell in row] for row in body]
    table = np.array(values)
    return head, names, table[:, :2], table[:, 2:].reshape(len(table), len(names), 3)


def layout(path):
    """All that is the same in every TRC, whatever it holds."""
    head, names, _, positions = read_trc(path)
    fields = {len(line.split("\t")) for line in path.read_text().rstrip("\n").split("\n")[3:]}
    values = dict(zip(head[1], head[2], strict=True))
    return {
        "first": head[0][:3],
        "keys": head[1],
        "fields per marker": {(n - 2) / len(names) for n in fields},
        "counts": (int(values["NumFrames"]), int(values["NumMarkers"])) == positions.shape[:2],
        "rate": values["DataRate"] == values["CameraRate"] == values["OrigDataRate"],
        "unit is known to OpenSim": values["Units"] in ("m", "mm"),
        "columns": head[3][:2],
        "gaps after names": set(head[3][3::3]) | set(head[3][4::3]),
        "axes": head[4][:5],
        "last axis": head[4][-1] == f"Z{len(names)}",
    }


def test_trc_is_read_back(tmp_path):
    written = motion(fps=29.97)
    trc.write(written, tmp_path / "a.trc")
    head, names, frames, positions = read_trc(tmp_path / "a.trc")
    assert tuple(names) == H36M17
    assert head[2][0] == "29.97"
    assert head[2][2:4] == ["40", "17"]
    np.testing.assert_array_equal(frames[:, 0], np.arange(40))
    np.testing.assert_allclose(frames[:, 1], written.time, atol=1e-6)
    np.testing.assert_allclose(positions, written.positions, atol=1e-6)
    assert "nan" not in (tmp_path / "a.trc").read_text().lower()


def test_trc_has_the_layout_that_opensim_reads(tmp_path):
    trc.write(Markers(np.arange(12.0).reshape(2, 2, 3), ("a", "b"), 50.0, "m"), tmp_path / "a.trc")
    assert (tmp_path / "a.trc").read_text() == (
        "PathFileType\t4\t(X/Y/Z)\ta.trc\n"
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\t"
        "OrigNumFrames\n"
        "50\t50\t2\t2\tm\t50\t0\t2\n"
        "Frame#\tTime\ta\t\t\tb\t\t\n"
        "\t\tX1\tY1\tZ1\tX2\tY2\tZ2\n"
        "0\t0.000000\t0.000000\t1.000000\t2.000000\t3.000000\t4.000000\t5.000000\n"
        "1\t0.020000\t6.000000\t7.000000\t8.000000\t9.000000\t10.000000\t11.000000\n"
    )


def read_rrd(path):
    """Points by entity: times, joints and positions of each frame; and texts, and the bones."""
    from rerun.chunk import RrdReader

    points, told = {}, {}
    for chunk in RrdReader(path).stream():
        place, columns = chunk.entity_path.replace("\\", ""), chunk.to_record_batch().to_pydict()
        kept = {name.rpartition(":")[2]: values for name, values in columns.items()}
        if "positions" in kept:
            seconds = [time.total_seconds() for time in kept["time"]]
            assert kept["frame"] == list(range(len(seconds)))
            points[place] = seconds, kept["keypoint_ids"], kept["positions"]
        if "text" in kept:
            told[place] = kept["text"][0][0]
        if "context" in kept:
            pairs = kept["context"][0][0][0]["class_description"]["keypoint_connections"]
            told[place] = {(pair["keypoint0"], pair["keypoint1"]) for pair in pairs}
    return points, told


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not there")
def test_trc_has_the_layout_of_a_real_one(tmp_path):
    trc.write(replace(motion(), unit="m"), tmp_path / "a.trc")
    assert layout(tmp_path / "a.trc") == layout(REAL)


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not there")
def test_trc_of_the_same_joints_is_a_real_one_byte_by_byte_but_for_its_numbers(tmp_path):
    """Which count frames from 1, with all digits."""
    _, names, _, positions = read_trc(REAL)
    path = tmp_path / REAL.name
    trc.write(Markers(positions, tuple(names), 60.0, "m"), path)
    ours, real = path.read_bytes().split(b"\n"), REAL.read_bytes().split(b"\n")
    title = real[0].split(b"\t")
    assert ours[0].split(b"\t") == [*title[:3], REAL.name.encode()]
    assert ours[1:5] == real[1:5]
    assert len(ours) == len(real)
    for one, other in zip(ours[5:], real[5:], strict=True):
        assert one.count(b"\t") == other.count(b"\t")
    np.testing.assert_allclose(read_trc(path)[3], positions, atol=1e-6)


def test_csv_is_read_back(tmp_path):
    written = motion()
    tables.write_csv(written, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head[:5] == ["frame", "time", "pelvis_x", "pelvis_y", "pelvis_z"]
    assert len(rows) == 40
    assert set(rows[12][2:]) == {""}
    table = np.genfromtxt(tmp_path / "a.csv", delimiter=",", names=True)
    for joint, axis in (("r_knee", 0), ("l_wrist", 2), ("r_wrist", 1)):
        expected = written.positions[:, H36M17.index(joint), axis]
        np.testing.assert_allclose(table[f"{joint}_{'xyz'[axis]}"], expected, atol=1e-6)
    np.testing.assert_allclose(table["time"], written.time, atol=1e-6)


def test_npz_is_read_back_without_pickles(tmp_path):
    written = replace(motion(), notes=("first", "second"))
    tables.write_npz(written, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["positions"], written.positions.astype(np.float32))
        assert tuple(file["joints"]) == H36M17
        assert (file["fps"], file["unit"]) == (30.0, "body_units")
        np.testing.assert_allclose(file["time"], np.arange(40) / 30)
        assert file["notes"].tolist() == ["first", "second"]
        assert "relative to the root" in str(file["axes"])


@pytest.mark.parametrize(("unit", "factor"), [("m", 1000), ("body_units", 1)])
def test_c3d_is_read_back(unit, factor, tmp_path):
    ezc3d = pytest.importorskip("ezc3d", reason="pip install ezc3d")
    from canonlift.output.export import c3d

    written = replace(motion(fps=59.94), unit=unit, notes=("relative to the pelvis", "and so on"))
    c3d.write(written, tmp_path / "a.c3d")
    file = ezc3d.c3d(str(tmp_path / "a.c3d"))
    point = file["parameters"]["POINT"]
    assert tuple(point["LABELS"]["value"]) == H36M17
    assert point["UNITS"]["value"] == ["mm" if unit == "m" else "body_units"]
    assert point["RATE"]["value"][0] == pytest.approx(59.94, rel=1e-6)
    assert tuple(file["parameters"]["CANONLIFT"]["NOTES"]["value"]) == written.notes
    points = file["data"]["points"][:3].transpose(2, 1, 0)
    np.testing.assert_allclose(points, factor * written.positions, rtol=1e-6, atol=1e-6 * factor)
    residuals = file["data"]["meta_points"]["residuals"][0].T
    np.testing.assert_array_equal(residuals, np.where(written.known, 0, -1))


def test_c3d_of_more_frames_than_it_counts_is_refused(tmp_path):
    pytest.importorskip("ezc3d", reason="pip install ezc3d")
    from canonlift.output.export import c3d

    long = Markers(np.zeros((65_536, 1, 3)), ("pelvis",), 240.0)
    with pytest.raises(ValueError, match="a.c3d: 65536 frames, but C3D counts 65535; cut"):
        c3d.write(long, tmp_path / "a.c3d")


@pytest.mark.parametrize(("name", "package"), [("c3d", "ezc3d"), ("rerun", "rerun-sdk")])
def test_what_lacks_its_package_is_refused_before_anything_is_computed(name, package, monkeypatch):
    monkeypatch.setattr(writing, "find_spec", lambda _: None)
    words = rf"--export {name} needs .*: pip install {package} .*'canonlift\[{name}\]'"
    with pytest.raises(ValueError, match=words):
        Exporter(("trc", name))
    Exporter(("trc", "csv", "npz"))


def test_rerun_holds_what_was_seen_and_made_of_it_frame_by_frame(tmp_path):
    pytest.importorskip("rerun", reason="pip install rerun-sdk")
    given = take(views=("über/all", "cam 1"), fps=25.0)
    moved = np.where(
        given.recording.confidence[..., None] > 0, given.recording.keypoints + 3, np.nan
    )
    given = replace(given, prediction=replace(given.prediction, keypoints_refined=moved))
    exporter = Exporter(("rerun",))
    assert exporter.write(given, tmp_path)["files"] == ["take.rrd"]
    points, told = read_rrd(tmp_path / "take.rrd")
    sequences = dict(exporter.sequences(given))
    seen = given.recording.confidence > 0
    expected = {}
    for v, name in enumerate(("über_all", "cam_1")):
        expected[f"/image/{name}/detected"] = seen[:, v], given.recording.keypoints[:, v]
        expected[f"/image/{name}/refined"] = seen[:, v], moved[:, v]
    for name, markers in sequences.items():
        expected[f"/pose/{name}"] = markers.known, markers.positions
        assert told[f"/pose/{name}/about"] == "\n".join(["unit: body_units", *markers.notes])
    assert points.keys() == expected.keys()
    for place, (known, values) in expected.items():
        time, joints, positions = points[place]
        np.testing.assert_allclose(time, np.arange(30) / 25, atol=1e-9)
        for t in range(30):
            np.testing.assert_array_equal(joints[t], np.flatnonzero(known[t]))
            found = np.reshape(positions[t], (-1, values.shape[-1]))
            np.testing.assert_allclose(found, values[t][known[t]], rtol=1e-6, atol=1e-6)
    assert told["/"] == set(bones(H36M17))


# --- size


def test_a_person_of_usual_proportions_is_as_tall_as_given():
    found = in_metres(replace(standing(), positions=0.01 * standing().positions), Size(1.8))
    np.testing.assert_allclose(found.positions, standing().positions, rtol=0.01, atol=1e-12)
    assert found.unit == "m"
    assert "differ by 0.0%" in found.notes[-1]


@pytest.mark.parametrize("size", [Size(1.7), Size(0.4, ("l_hip", "l_knee"))])
def test_metres_do_not_depend_on_the_unit_or_the_axes(size):
    taken = motion()
    turn = Rotation.from_rotvec([0.3, -0.2, 0.9]).as_matrix()
    turned = replace(taken, positions=0.123 * taken.positions @ turn.T)
    one, other = in_metres(taken, size), in_metres(turned, size)
    spread = [markers.notes[-1].rpartition(" differ by ")[2] for markers in (one, other)]
    assert spread[0] == spread[1]
    np.testing.assert_allclose(one.positions @ turn.T, other.positions, atol=1e-9)


def test_a_bone_gets_its_length_whatever_some_frames_say():
    taken = motion()
    taken.positions[20:30, H36M17.index("l_knee")] *= 3
    found = in_metres(taken, Size.of_bone("l_hip-l_knee=0.42"))
    bone = found.middle("l_hip") - found.middle("l_knee")
    assert np.nanmedian(np.linalg.norm(bone, axis=-1)) == pytest.approx(0.42)
    clean = in_metres(motion(), Size.of_bone("l_hip-l_knee=0.42"))
    np.testing.assert_allclose(found.positions[:10], clean.positions[:10], rtol=1e-6)


def test_a_real_body_comes_out_within_the_error_of_usual_proportions():
    g, ratios = np.random.default_rng(4), []
    for _ in range(5):
        person = sample_person(g)
        taken = Markers(perform(person, list(MOTIONS), 50, 10.0, g), H36M17, 10.0)
        found = in_metres(replace(taken, positions=taken.positions / 4), Size(person.height))
        ratios.append(np.linalg.norm(found.positions) / np.linalg.norm(taken.positions))
    assert ratios == pytest.approx([1] * 5, abs=0.08)
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)


def test_without_a_known_length_nothing_claims_metres(tmp_path):
    assert motion().unit == "body_units"
    trc.write(motion(), tmp_path / "a.trc")
    assert read_trc(tmp_path / "a.trc")[0][2][4] == "body_units"
    unseen = replace(motion(), positions=np.full((4, 17, 3), np.nan))
    for size in (Size(1.8), Size(0.4, ("l_hip", "l_knee"))):
        found = in_metres(unseen, size)
        assert found.unit == "body_units"
        assert "no size" in found.notes[-1]


def test_only_what_was_seen_of_a_body_measures_it():
    taken = standing()
    taken.positions[:, [H36M17.index(f"{s}_{j}") for s in "lr" for j in ("knee", "ankle")]] = (
        np.nan
    )
    found = in_metres(replace(taken, positions=0.2 * taken.positions), Size(1.8))
    np.testing.assert_allclose(found.positions, taken.positions, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    "text",
    "l_hip=0.4 l_hip-l_knee l_hip-l_knee=x l_hip-l_knee=42 a-b-c=0.4 l_hip-l_knee=-0.4".split(),
)
def test_a_bone_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="two joints and metres, such as l_hip-l_knee=0.42"):
        Size.of_bone(text)


def test_a_height_that_is_nobodys_is_refused():
    for height in (180.0, 0.0, -1.8, np.nan):
        with pytest.raises(ValueError, match="nobody's in metres"):
            Size.of_person(height)


def test_a_joint_that_is_not_on_the_skeleton_is_refused_by_name():
    with pytest.raises(ValueError, match="got 'l_kneee'; did you mean 'l_knee'"):
        in_metres(motion(), Size(0.4, ("l_hip", "l_kneee")))
    with pytest.raises(ValueError, match="--height needs legs or arms"):
        in_metres(Markers(np.zeros((1, 1, 3)), ("pelvis",), 10.0), Size(1.8))


# --- vertical


@pytest.mark.parametrize("seed", range(4))
def test_up_is_found_from_any_axes(seed):
    turn = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    tilted = replace(standing(), positions=standing().positions @ turn.T)
    found = upright(tilted, NOBODYS)
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
    np.testing.assert_allclose(upright(rolled, NOBODYS).positions, standing().positions, atol=0.03)


@pytest.mark.parametrize("side", [90, -90])
def test_a_camera_right_above_or_below_has_an_up_too(side):
    turn = Rotation.from_euler("x", side, degrees=True).as_matrix()
    above = standing()
    above.positions[:] = above.positions[:1] @ turn.T
    found = upright(above, NOBODYS)
    body = (found.middle("head") - found.middle("l_ankle", "r_ankle")).mean(0)
    assert angle(body, np.array([0, 1.0, 0])) < 2
    assert np.linalg.det(found.positions[0, [4, 6, 13]]) == pytest.approx(
        np.linalg.det(above.positions[0, [4, 6, 13]])
    )


@pytest.mark.parametrize("up", [1.0, -1.0])
def test_what_is_ahead_of_a_camera_that_looks_straight_down_or_up(up):
    """As if it had been level and turned: down, the top of its image is ahead; up, behind."""
    axes = processing._level_axes(np.array([0.0, 0.0, up]))
    np.testing.assert_allclose(axes @ [0.0, 1.0, 0.0], [0.0, 0.0, -up], atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)


def test_a_head_gone_astray_in_one_frame_turns_nobody():
    strayed = standing()
    strayed.positions[7, H36M17.index("head")] = [3.0, 0, 0]
    clean = upright(standing(), NOBODYS).positions
    np.testing.assert_allclose(upright(strayed, NOBODYS).positions[:7], clean[:7], atol=0.02)


def test_level_cameras_correct_a_person_who_leans_and_those_on_edge_do_not():
    leaning = standing(lean=20)  # about x: cameras that look along x see it from the side
    side, front = np.array([0, 0, 1.0]), np.array([1.0, 0, 0])
    tilt = {}
    for name, across in (("none", NOBODYS), ("side", [side]), ("both", [side, front]),
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
    found = upright(Markers(leaning, H36M17, 30.0), NOBODYS)
    feet = (found.middle("l_ankle") - found.middle("r_ankle")).mean(0)
    assert abs(90 - angle(feet, np.array([0, 1.0, 0]))) < 0.6 * angle(lean, np.array([0, 1.0, 0]))


def test_someone_crouching_half_the_time_is_still_upright():
    taken = standing(60)
    legs = [H36M17.index(f"{s}_{j}") for s in "lr" for j in ("knee", "ankle")]
    taken.positions[25:, legs] = taken.positions[25:, legs] * [1, 0.3, 1] + [0, 0, 0.4]
    body = upright(taken, NOBODYS).middle("head") - standing(60).middle("head")
    assert np.linalg.norm(body, axis=-1).max() < 0.03


def test_nobody_from_head_to_ankles_is_not_turned():
    legless = motion()
    legless.positions[:, [H36M17.index("l_ankle"), H36M17.index("r_ankle")]] = np.nan
    found = upright(legless, NOBODYS)
    np.testing.assert_array_equal(found.positions, legless.positions)
    assert "y is not up" in found.notes[-1]


def test_someone_whose_head_no_detector_reports_is_still_upright():
    """The skeleton has a head, but of the joints above the hips the shoulders alone were seen."""
    headless = standing(lean=25)
    headless.positions[:, [H36M17.index("head"), H36M17.index("nose")]] = np.nan
    found = upright(headless, NOBODYS)
    assert "y is an estimate" in found.notes[-1]
    trunk = (found.middle("thorax") - found.middle("l_hip", "r_hip")).mean(0)
    assert angle(trunk, np.array([0, 1, 0])) < 3


# --- filter


def test_agrees_with_scipy_where_there_is_no_gap():
    taken = motion(200, holes=False)
    found = smoothed(taken, Filter.parse("butterworth:6"))
    b, a = butter(2, 6 / 15)
    expected = filtfilt(b, a, taken.positions, axis=0)
    np.testing.assert_allclose(found.positions, expected, atol=1e-9)
    assert "6 Hz" in found.notes[-1]


def test_slow_motion_passes_without_delay_and_trembling_does_not():
    time = np.arange(300) / 100
    slow, fast = np.sin(2 * np.pi * time), 0.1 * np.sin(2 * np.pi * 30 * time)
    series = np.repeat((slow + fast)[:, None, None], 3, axis=-1)
    found = smoothed(Markers(series, ("a",), 100.0), Filter("butterworth", 6.0)).positions
    np.testing.assert_allclose(found[50:-50, 0, 0], slow[50:-50], atol=0.01)


def test_filtering_commutes_with_turning():
    taken, turn = motion(), Rotation.from_rotvec([0.3, -0.2, 0.9]).as_matrix()
    turned = replace(taken, positions=taken.positions @ turn.T)
    one, other = (smoothed(m, Filter("butterworth", 4.0)) for m in (taken, turned))
    np.testing.assert_allclose(one.positions @ turn.T, other.positions, atol=1e-9)


@pytest.mark.parametrize(("gap", "bridged"), [(1, True), (10, True), (11, False), (30, False)])
def test_gaps_of_up_to_ten_frames_are_bridged(gap, bridged):
    taken = motion(120, holes=False)
    taken.positions[40 : 40 + gap, 3] = np.nan
    found = smoothed(taken, Filter("butterworth", 6.0))
    assert np.isfinite(found.positions[40 : 40 + gap, 3]).all() == bridged
    assert np.isnan(found.positions[40 : 40 + gap, 3]).all() != bridged
    assert found.known.sum() == taken.known.sum() + gap * bridged
    assert f"{gap * bridged} positions" in found.notes[-1]


def test_what_lies_beyond_a_long_gap_has_no_influence():
    taken = motion(120, holes=False)
    taken.positions[50:70] = np.nan
    other = replace(taken, positions=taken.positions.copy())
    other.positions[70:] += 5
    one, two = (smoothed(m, Filter("butterworth", 6.0)).positions for m in (taken, other))
    np.testing.assert_array_equal(one[:50], two[:50])
    alone = smoothed(replace(taken, positions=taken.positions[:50]), Filter("butterworth", 6.0))
    np.testing.assert_array_equal(one[:50], alone.positions)


def test_neither_ends_nor_short_pieces_are_invented_or_lost():
    taken = motion(60, holes=False)
    taken.positions[:20], taken.positions[22:40], taken.positions[41:] = np.nan, np.nan, np.nan
    found = smoothed(taken, Filter("butterworth", 6.0))
    np.testing.assert_array_equal(found.known, taken.known)
    empty = replace(taken, positions=np.full((5, 17, 3), np.nan))
    assert not smoothed(empty, Filter("butterworth", 6.0)).known.any()


def test_stretches_are_those_of_a_slow_loop():
    g = np.random.default_rng(0)
    for _ in range(50):
        known = np.repeat(g.random(12) < 0.4, g.integers(1, 15, 12))
        expected, last = [], None
        for frame in np.flatnonzero(known):
            if last is None or frame - last > processing.LONGEST_GAP + 1:
                expected.append([frame, frame])
            expected[-1][1] = last = frame
        assert list(stretches(known)) == [(start, end + 1) for start, end in expected]


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


# --- all of it


def take(n_views=2, views=None, fps=30.0):
    """A recording, and predictions that are the truth."""
    body = motion(30, fps, holes=False).positions * [1, -1, -1] / 4
    pose = np.repeat(body[:, None], n_views, axis=1).astype(np.float32)
    confidence = np.ones(pose.shape[:-1], dtype=np.float32)
    confidence[4, 0, 3] = confidence[7] = 0
    image = 1000 * pose[..., :2]
    names = views or tuple(f"cam{v}" for v in range(n_views))
    recording = Recording(image, confidence, H36M17, names, fps)
    rotation = np.tile(np.eye(3, dtype=np.float32), (30, n_views, 1, 1))
    seen_by = (confidence > 0).sum(1).astype(np.int8)
    fused = Fused(pose[:, 0], rotation, seen_by) if n_views > 1 else None
    return Take("take", recording, Prediction(pose, rotation, image), fused)


def test_every_view_and_all_together_get_a_file_of_each_format(tmp_path):
    said = Exporter(("trc", "csv", "npz")).write(take(), tmp_path)
    expected = {f"take-{name}{suffix}" for name in ("cam0", "cam1", "fused")
                for suffix in (".trc", ".csv", ".npz")}  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == expected == set(said["files"])
    assert said["notes"].keys() == {"cam0", "cam1", "fused"}
    assert "relative to the pelvis" in said["notes"]["fused"][0]
    alone = Exporter(("csv",)).write(take(1), tmp_path / "alone")
    assert alone["files"] == ["take-cam0.csv"]


def test_views_keep_their_cameras_axes_with_y_up_unless_asked():
    given = take()
    found = dict(Exporter(()).sequences(given))
    pose = given.prediction.pose[0, 1]
    np.testing.assert_allclose(found["cam1"].positions[0], pose * [1, -1, -1])
    assert "half a turn about x" in found["cam1"].notes[0]
    assert "an estimate of up" in found["fused"].notes[1]
    turned = dict(Exporter((), turn_views=True).sequences(given))
    assert "an estimate of up" in turned["cam1"].notes[1]
    level = upright(found["cam1"], np.array([[1.0, 0.0, 0.0]])).positions
    np.testing.assert_allclose(turned["cam1"].positions, level)


def test_the_cameras_right_is_told_in_the_axes_of_what_is_exported():
    """A step to a camera's right in the fused sequence, as the file has it."""
    given = take(3)
    turn = Rotation.random(3, rng=np.random.default_rng(2)).as_matrix()
    rotation = np.tile(turn, (30, 1, 1, 1))
    rotation[:, 1] = np.nan  # never saw anybody
    rotation[4, 0] = np.nan
    fused = replace(given.fused, rotation=rotation.astype(np.float32))
    to_the_right = turn.swapaxes(1, 2) @ [1.0, 0.0, 0.0]
    step = processing.from_camera(
        to_the_right[None], np.ones((1, 3), dtype=bool), given.recording, ""
    ).positions[0]
    axes = step[[0, 2]] * [[29], [30]]
    np.testing.assert_allclose(writing.camera_axes(fused), axes, rtol=1e-5)


def test_what_was_not_observed_is_missing():
    found = dict(Exporter(()).sequences(take()))
    assert not found["cam0"].known[4, 3]
    assert found["cam1"].known[4, 3]
    assert found["fused"].known[4, 3]
    for markers in found.values():
        assert not markers.known[7].any()
        assert markers.known.sum() >= 29 * 17 - 1


def test_size_and_filter_reach_every_sequence_and_say_so():
    given = take()
    before = given.prediction.pose.copy()
    exporter = Exporter((), Size(1.8), filter=Filter("butterworth", 6.0))
    for markers in dict(exporter.sequences(given)).values():
        assert markers.unit == "m"
        assert "filtered" in markers.notes[-2]
        assert "parts of the body differ" in markers.notes[-1]
    np.testing.assert_array_equal(given.prediction.pose, before)
    said = {"take": exporter.write(given, Path("nowhere"))}
    assert all(line.startswith("take, fused: ") for line in describe(said))
    assert len(describe(said)) == 3


def test_an_error_names_recording_and_sequence():
    with pytest.raises(ValueError, match="take, cam0: --filter butterworth:6 must lie between"):
        Exporter((), filter=Filter("butterworth", 6.0)).write(take(fps=10.0), Path("nowhere"))


def test_names_of_views_become_names_of_files():
    assert sequence_names(["cam 1", "a/b", "a\\b", "fused", "../x", "fused"]) == [
        "cam_1", "a_b", "a_b-2", "fused-2", ".._x", "fused-3",
    ]  # fmt: skip


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_export_arguments(parser)
    return parse_exporter(parser.parse_args(arguments))


def test_options_say_what_to_export():
    assert parse() is None
    found = parse("--export", "csv, trc,csv", "--height", "1.8", "--filter", "butterworth:6")
    assert found == Exporter(("csv", "trc"), Size(1.8), False, Filter("butterworth", 6.0))
    assert parse("--export", "npz", "--bone", "l_hip-l_knee=0.42", "--up") == Exporter(
        ("npz",), Size(0.42, ("l_hip", "l_knee")), True
    )


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=f"one of {', '.join(EXPORTS)}, got 'trk'; did you mean"):
        parse("--export", "trk")
    with pytest.raises(ValueError, match="--height is about exports; say which by --export"):
        parse("--height", "1.8")
    with pytest.raises(ValueError, match="--up is about exports"):
        parse("--up")
