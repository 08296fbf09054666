"""Laws of exports: what is written is read back, and nothing is claimed that was not measured."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from marker_scene import motion
from scipy.spatial.transform import Rotation

from canonlift.body.skeleton import H36M17, bones
from canonlift.cli.main import main
from canonlift.data.prediction import Fused, Prediction, save_predictions
from canonlift.data.recording import Recording
from canonlift.output.export import csv_npz, trc
from canonlift.output.export import exporter as exporting
from canonlift.output.export.exporter import Exporter, camera_axes, export, sequence_names
from canonlift.output.export.markers import Filter, Markers, Size, from_camera, upright
from canonlift.output.export.table import FORMATS

REAL = Path(__file__).parents[2] / "shared/data/recordings/balancing_4cam/triangulated.trc"


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

    points, texts = {}, {}
    for chunk in RrdReader(path).stream():
        place, columns = chunk.entity_path.replace("\\", ""), chunk.to_record_batch().to_pydict()
        kept = {name.rpartition(":")[2]: values for name, values in columns.items()}
        if "positions" in kept:
            seconds = [time.total_seconds() for time in kept["time"]]
            assert kept["frame"] == list(range(len(seconds)))
            points[place] = seconds, kept["keypoint_ids"], kept["positions"]
        if "text" in kept:
            texts[place] = kept["text"][0][0]
        if "context" in kept:
            pairs = kept["context"][0][0][0]["class_description"]["keypoint_connections"]
            texts[place] = {(pair["keypoint0"], pair["keypoint1"]) for pair in pairs}
    return points, texts


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
    csv_npz.write_csv(written, tmp_path / "a.csv")
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
    csv_npz.write_npz(written, tmp_path / "a.npz")
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
    monkeypatch.setattr(exporting, "find_spec", lambda _: None)
    words = rf"export format {name} needs .*: pip install {package} .*'canonlift\[{name}\]'"
    with pytest.raises(ValueError, match=words):
        Exporter(("trc", name))
    Exporter(("trc", "csv", "npz"))


def test_rerun_holds_what_was_detected_and_predicted_frame_by_frame(tmp_path):
    pytest.importorskip("rerun", reason="pip install rerun-sdk")
    given = predicted(views=("über/all", "cam 1"), fps=25.0)
    recording = given.recording
    seen = recording.confidence > 0
    moved = np.where(seen[..., None], recording.keypoints + 3, np.nan)
    given = replace(given, keypoints_refined=moved)
    exporter = Exporter(("rerun",))
    assert exporter.write("walk", given, tmp_path).paths == [tmp_path / "walk.rrd"]
    points, texts = read_rrd(tmp_path / "walk.rrd")
    sequences = dict(exporter.sequences("walk", given))
    expected = {}
    for v, name in enumerate(("über_all", "cam_1")):
        expected[f"/image/{name}/detected"] = seen[:, v], recording.keypoints[:, v]
        expected[f"/image/{name}/refined"] = seen[:, v], moved[:, v]
    for name, markers in sequences.items():
        expected[f"/pose/{name}"] = markers.known, markers.positions
        assert texts[f"/pose/{name}/about"] == "\n".join(["unit: body_units", *markers.notes])
    assert points.keys() == expected.keys()
    for place, (known, values) in expected.items():
        time, joints, positions = points[place]
        np.testing.assert_allclose(time, np.arange(30) / 25, atol=1e-9)
        for t in range(30):
            np.testing.assert_array_equal(joints[t], np.flatnonzero(known[t]))
            found = np.reshape(positions[t], (-1, values.shape[-1]))
            np.testing.assert_allclose(found, values[t][known[t]], rtol=1e-6, atol=1e-6)
    assert texts["/"] == set(bones(H36M17))


# --- all of it


def predicted(n_views=2, views=None, fps=30.0):
    """A recording, and a prediction that is the truth."""
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
    return Prediction(recording, pose, rotation, image, fused)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_view_and_all_together_get_a_file_of_each_format(tmp_path):
    written = Exporter(("trc", "csv", "npz")).write("walk", predicted(), tmp_path)
    expected = {f"walk-{name}{suffix}" for name in ("cam0", "cam1", "fused")
                for suffix in (".trc", ".csv", ".npz")}  # fmt: skip
    assert set(content(tmp_path)) == expected == {path.name for path in written.paths}
    assert written.notes.keys() == {"cam0", "cam1", "fused"}
    assert "relative to the pelvis" in written.notes["fused"][0]
    alone = Exporter(("csv",)).write("walk", predicted(1), tmp_path / "alone")
    assert [path.name for path in alone.paths] == ["walk-cam0.csv"]


def test_views_keep_their_cameras_axes_with_y_up_unless_asked():
    given = predicted()
    found = dict(Exporter(()).sequences("walk", given))
    pose = given.pose[0, 1]
    np.testing.assert_allclose(found["cam1"].positions[0], pose * [1, -1, -1])
    assert "turned by 180 degrees about x" in found["cam1"].notes[0]
    assert "an estimate of up" in found["fused"].notes[1]
    turned = dict(Exporter((), turn_views=True).sequences("walk", given))
    assert "an estimate of up" in turned["cam1"].notes[1]
    level = upright(found["cam1"], np.array([[1.0, 0.0, 0.0]])).positions
    np.testing.assert_allclose(turned["cam1"].positions, level)


def test_the_cameras_right_is_in_the_axes_of_what_is_exported():
    """A step to a camera's right in the fused sequence, as the file has it."""
    given = predicted(3)
    turn = Rotation.random(3, rng=np.random.default_rng(2)).as_matrix()
    rotation = np.tile(turn, (30, 1, 1, 1))
    rotation[:, 1] = np.nan  # observed nothing
    rotation[4, 0] = np.nan
    fused = replace(given.fused, rotation=rotation.astype(np.float32))
    to_the_right = turn.swapaxes(1, 2) @ [1.0, 0.0, 0.0]
    step = from_camera(
        to_the_right[None], np.ones((1, 3), dtype=bool), given.recording, ""
    ).positions[0]
    axes = step[[0, 2]] * [[29], [30]]
    np.testing.assert_allclose(camera_axes(fused), axes, rtol=1e-5)


def test_what_was_not_observed_is_missing():
    found = dict(Exporter(()).sequences("walk", predicted()))
    assert not found["cam0"].known[4, 3]
    assert found["cam1"].known[4, 3]
    assert found["fused"].known[4, 3]
    for markers in found.values():
        assert not markers.known[7].any()
        assert markers.known.sum() >= 29 * 17 - 1


def test_size_and_filter_reach_every_sequence_and_its_notes():
    given = predicted()
    before = given.pose.copy()
    exporter = Exporter((), Size(1.8), filter=Filter("butterworth", 6.0))
    for markers in dict(exporter.sequences("walk", given)).values():
        assert markers.unit == "m"
        assert "filtered" in markers.notes[-2]
        assert "parts of the body differ" in markers.notes[-1]
    np.testing.assert_array_equal(given.pose, before)
    lines = exporter.write("walk", given, Path("nowhere")).lines()
    assert all(line.startswith("walk, fused: ") for line in lines)
    assert len(lines) == 3


def test_an_error_names_recording_and_sequence():
    with pytest.raises(ValueError, match="walk, cam0: filter butterworth:6 must lie between"):
        export({"walk": predicted(fps=10.0)}, "nowhere", ["csv"], filter="butterworth:6")


def test_names_of_views_become_names_of_files():
    views = ("cam 1", "a/b", "a\\b", "fused", "../x")
    assert sequence_names(predicted(5, views)) == [
        "cam_1", "a_b", "a_b-2", "fused-2", ".._x", "fused",
    ]  # fmt: skip
    assert sequence_names(predicted(1)) == ["cam0"]


@pytest.mark.parametrize("name", ["../walk", "/tmp/walk", ""])
def test_no_name_leads_out_of_the_folder(name, tmp_path):
    with pytest.raises(ValueError, match="is no name for a recording"):
        export({name: predicted()}, tmp_path / "out", ["csv"])
    assert not list(tmp_path.iterdir())


FORMATS_HERE = ["trc", "csv", "npz", "html"]
OPTIONS = {"height": 1.8, "up": True, "filter": "butterworth:6"}


@pytest.mark.parametrize("kind", [str, Path])
def test_an_export_from_a_file_equals_one_from_memory(kind, tmp_path):
    given = {"walk": predicted(), "alone": predicted(1)}
    save_predictions(given.items(), tmp_path / "predictions.npz")
    paths = export(given, kind(tmp_path / "a"), FORMATS_HERE, **OPTIONS)
    assert sorted(path.name for path in paths) == sorted(content(tmp_path / "a"))
    for place in (tmp_path, tmp_path / "predictions.npz"):
        export(kind(place), tmp_path / "b", FORMATS_HERE, **OPTIONS, overwrite=True)
        assert content(tmp_path / "b") == content(tmp_path / "a")


def test_one_prediction_needs_no_name(tmp_path):
    paths = export(predicted(1), tmp_path)
    assert [path.name for path in paths] == ["pose-cam0.trc", "pose.html"]


def test_nothing_is_overwritten_silently(tmp_path):
    (tmp_path / "walk-cam1.trc").write_text("mine")
    with pytest.raises(FileExistsError, match=r"walk-cam1.trc exists .*overwrite=True"):
        export({"walk": predicted()}, tmp_path, ["csv", "trc"])
    assert content(tmp_path) == {"walk-cam1.trc": b"mine"}
    export({"walk": predicted()}, tmp_path, ["csv"])  # other files may be there
    export({"walk": predicted()}, tmp_path, ["trc"], overwrite=True)
    assert content(tmp_path)["walk-cam1.trc"].startswith(b"PathFileType")


def test_a_body_without_a_known_length_is_written_in_body_units(tmp_path):
    trc.write(motion(), tmp_path / "a.trc")
    assert read_trc(tmp_path / "a.trc")[0][2][4] == "body_units"


def test_options_become_an_exporter():
    found = Exporter.parse(["csv", "trc", "csv"], height=1.8, filter="butterworth:6")
    assert found == Exporter(("csv", "trc"), Size(1.8), False, Filter("butterworth", 6.0))
    expected = Exporter(("npz",), Size(0.42, ("l_hip", "l_knee")), True)
    assert Exporter.parse("npz", bone="l_hip-l_knee=0.42", up=True) == expected
    with pytest.raises(ValueError, match="height and bone both give the size"):
        Exporter.parse("npz", height=1.8, bone="l_hip-l_knee=0.42")


# --- the command


@pytest.fixture
def folder(tmp_path):
    given = {"walk": predicted(), "alone": predicted(1)}
    save_predictions(given.items(), tmp_path / "predictions.npz")
    return tmp_path


def test_the_command_exports_without_a_model_and_prints_the_notes(folder, capsys):
    main(["export", str(folder), "--formats", "trc, csv,trc", "--bone", "l_hip-l_knee=0.42"])
    printed = capsys.readouterr().out
    assert "walk, fused: 1 body unit is" in printed
    assert f"files: 8 in {folder / 'export'}" in printed
    assert set(content(folder / "export")) == {
        f"{name}.{suffix}" for name in ("walk-cam0", "walk-cam1", "walk-fused", "alone-cam0")
        for suffix in ("trc", "csv")
    }  # fmt: skip
    assert read_trc(folder / "export" / "walk-cam0.trc")[0][2][4] == "m"
    options = {"formats": ["csv"], "up": True, "filter": "butterworth:6", "height": 1.8}
    main(["export", str(folder), "--formats", "csv", "--up", "--filter", "butterworth:6",
          "--height", "1.8", "--out", f"{folder}/a"])  # fmt: skip
    export(folder, folder / "b", **options)
    assert content(folder / "a") == content(folder / "b")


def test_the_command_exports_chosen_recordings_where_it_is_asked_to(folder):
    path = str(folder / "predictions.npz")
    main(["export", path, "--recording", "alone", "--formats", "csv", "--out", f"{folder}/here"])
    assert list(content(folder / "here")) == ["alone-cam0.csv"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--formats trk", f"one of {', '.join(FORMATS)}, got 'trk'; did you mean 'trc'"),
        ("--formats csv --height 180", "height 180 m is that of no person"),
        ("--formats csv --bone l_hip=1", "give two joints and metres"),
        ("--formats csv --filter butter:6", "a filter must be one of butterworth, got 'butter'"),
        ("--formats csv --recording wlak", "got 'wlak'; did you mean 'walk'"),
        ("--formats csv --height 1.8 --bone l_hip-l_knee=0.42", "not allowed with argument"),
    ],
)
def test_bad_options_end_with_status_2_and_no_file(folder, capsys, options, words):
    with pytest.raises(SystemExit) as stop:
        main(["export", str(folder), *options.split()])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
    assert list(content(folder)) == ["predictions.npz"]


def test_the_command_refuses_to_overwrite(folder, capsys):
    argv = ["export", str(folder), "--formats", "csv"]
    main(argv)
    before = content(folder / "export")
    with pytest.raises(SystemExit):
        main(argv)
    error = capsys.readouterr().err
    assert "canonlift export: error: " in error
    assert "give another --out, or --overwrite" in error
    main([*argv, "--height", "1.8", "--overwrite"])
    assert content(folder / "export").keys() == before.keys()
    assert content(folder / "export") != before
