"""The command line of `canonlift convert` on every data set."""

import json
import pickle
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import test_canonpose
import test_human36m
import test_mpi_inf_3dhp
import test_skipose
import test_sportspose
from quick_pictures import draw_quickly

from canonlift.cli.convert import write_recordings
from canonlift.cli.main import main
from canonlift.data.recording import Recording, load
from canonlift.readers.datasets import canonpose, human36m, mpi_inf_3dhp, skipose, sportspose

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

images, ski_labels = test_skipose.images, test_skipose.folder
videopose = test_human36m.videopose
npz_training = test_mpi_inf_3dhp.npz_training
clips = test_sportspose.folder


@pytest.fixture
def studio(tmp_path):
    """MPI-INF-3DHP's own cells."""
    world = test_mpi_inf_3dhp.person(3, seed=4)
    annotations = test_mpi_inf_3dhp.annotations(world)
    test_mpi_inf_3dhp.write_5(tmp_path / "S3/Seq2/annot.mat", annotations)
    return tmp_path


@pytest.fixture
def pickled(tmp_path):
    path = tmp_path / "detections.pickle"
    path.write_bytes(pickle.dumps(test_canonpose.cvsf_pickle()))
    return path


# Fixture, arguments after its path, and what the reader is asked for by them
CASES = {
    "skipose": ("ski_labels", ["--fps", "25"], lambda p: skipose.read(p, fps=25.0)),
    "human36m": (
        "videopose",
        ["--detections", "data_2d_h36m_sh.npz", "--layout", "hourglass16"],
        lambda p: human36m.read(p, "data_2d_h36m_sh.npz", layout="hourglass16"),
    ),
    "mpi_inf_3dhp": (
        "studio",
        ["--pose", "univ_annot3", "--cameras", "12", "3"],
        lambda p: mpi_inf_3dhp.read(p, "univ_annot3", (12, 3)),
    ),
    "sportspose": (
        "clips",
        ["--views", "right", "back", "--video-size", "1936", "1210"],
        lambda p: sportspose.read(p, views=("right", "back"), video_size=(1936, 1210)),
    ),
    "canonpose": (
        "pickled",
        ["--layout", "h36m16", "--fps", "10"],
        lambda p: canonpose.read(p, "h36m16", 10.0),
    ),
}
each_data_set = pytest.mark.parametrize("name", CASES)


def same(found, known):
    for field in fields(Recording):
        one, other = getattr(found, field.name), getattr(known, field.name)
        if isinstance(other, np.ndarray):
            np.testing.assert_array_equal(one, other)
        else:
            assert one == other, field.name


def refusal(capsys, *argv):
    """The one line that a failing run leaves on stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["convert", *map(str, argv)])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@each_data_set
def test_writes_every_recording_as_its_reader_yields_it(name, request, tmp_path, capsys):
    fixture, options, read = CASES[name]
    path, out = request.getfixturevalue(fixture), tmp_path / "deep" / "out"
    main(["convert", name, str(path), "--out", str(out), *options])
    recordings = dict(read(path))
    assert sorted(file.stem for file in out.iterdir()) == sorted(recordings)
    for stem, recording in recordings.items():
        same(load(out / f"{stem}.npz"), recording)
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said[:-1]] == list(recordings)
    frames = sum(recording.n_frames for recording in recordings.values())
    assert said[-1] == f"wrote {len(recordings)} recordings, {frames} frames, into {out}"


@each_data_set
def test_the_readers_defaults_are_those_of_the_command_line(name, request, tmp_path):
    fixture, options, _ = CASES[name]
    path, out = request.getfixturevalue(fixture), tmp_path / "out"
    needed = ["--cameras", str(path / "h36m_dataset.py")] if name == "human36m" else []
    main(["convert", name, str(path), "--out", str(out), *needed])
    reader = {"human36m": lambda p: human36m.read(p, cameras=p / "h36m_dataset.py")}
    modules = {m.__name__.rpartition(".")[2]: m.read for m in (
        skipose, mpi_inf_3dhp, sportspose, canonpose
    )}  # fmt: skip
    for stem, recording in (modules | reader)[name](path):
        same(load(out / f"{stem}.npz"), recording)


def test_the_help_names_the_readers_defaults(capsys):
    said = {}
    for name in CASES:
        with pytest.raises(SystemExit):
            main(["convert", name, "--help"])
        said[name] = " ".join(capsys.readouterr().out.split())
    for name, defaults in {
        "skipose": ["(default: 30.0)", "(default: recognised)"],
        "human36m": ["(default: the projected truth)", "(default: cameras.h5 in PATH"],
        "mpi_inf_3dhp": ["(default: annot3)", "(default: 0 1 2 4 5 6 7 8)", "(default: 25.0)"],
        "sportspose": ["(default: 1936 1216)"],
        "canonpose": ["(default: 50.0)"],
    }.items():
        for default in defaults:
            assert default in said[name]


@pytest.mark.slow
def test_what_is_converted_trains_and_is_measured_by_the_config_of_skipose(
    ski_labels, tmp_path, monkeypatch
):
    """The commands that head configs/skipose_cvsf.yaml, on a narrow network and few steps."""
    config = Path(__file__).parents[2] / "configs/skipose_cvsf.yaml"
    monkeypatch.chdir(tmp_path)
    draw_quickly(monkeypatch)
    main(["convert", "skipose", str(ski_labels), "--out", "data/skipose"])
    short = "model.width=32 batch_size=4 schedule.0.steps=2 schedule.1.steps=2".split()
    main(["train", str(config), *short])
    main(["eval", "runs/skipose_cvsf", "--figures", "0"])
    results = json.loads((tmp_path / "runs/skipose_cvsf/eval/results.json").read_text())
    for name in ("n_mpjpe_mm", "pa_mpjpe_mm", "mpjpe_mm", "n_pck_150"):
        assert np.isfinite(results["metrics"][name])
    for name in ("jdr_detected", "jdr_refined"):
        assert results["refinement"][name]["knee"] == 100.0  # the truth counts as detected
    assert list(results["per_recording"]) == ["test_s1_seq004"]


def test_prints_what_a_recording_holds(ski_labels, tmp_path, capsys):
    main(["convert", "skipose", str(ski_labels / "train"), "--out", str(tmp_path / "out")])
    missed = 100 * 2 / (5 * 3)
    said = capsys.readouterr().out
    assert (
        f"train_s1_seq003: 5 frames, 3 views, 17 joints, {missed:.1f} % unobserved, with 3D truth"
        in said
    )


def test_leaves_a_folder_that_is_not_empty_alone_without_overwrite(ski_labels, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["skipose", str(ski_labels), "--out", str(out)]
    out.mkdir()
    main(["convert", *argv])  # empty is as good as absent
    (out / "notes.txt").write_text("precious")
    (out / "test_s1_seq004.npz").write_bytes(b"old")
    assert "out is not empty; give another --out, or --overwrite" in refusal(capsys, *argv)
    assert (out / "test_s1_seq004.npz").read_bytes() == b"old"
    main(["convert", *argv, "--overwrite"])
    assert load(out / "test_s1_seq004.npz").n_frames == 3
    assert (out / "notes.txt").read_text() == "precious"
    assert capsys.readouterr().out.endswith("; 1 other files in it were there before\n")


@each_data_set
def test_what_is_wrong_with_the_files_ends_with_status_2(name, tmp_path, capsys):
    path = tmp_path / "nowhere"
    argv = [name, path, "--out", tmp_path / "out"]
    assert f"canonlift convert: error: {path}" in refusal(capsys, *argv)
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder_is_refused(ski_labels, tmp_path, capsys):
    (tmp_path / "out").write_text("precious")
    assert "out" in refusal(capsys, "skipose", ski_labels, "--out", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "precious"


def test_recordings_are_written_as_they_come(ski_labels, tmp_path):
    """Nothing waits for the last one: whole data sets do not fit into memory."""
    two = list(skipose.read(ski_labels))[:2]
    out = tmp_path / "out"

    def one_by_one():
        yield two[0]
        assert (out / f"{two[0][0]}.npz").is_file()
        yield two[1]
        raise ValueError("the third is damaged")

    with pytest.raises(ValueError, match="the third is damaged"):
        write_recordings(one_by_one(), out, overwrite=False)
    assert len(list(out.iterdir())) == 2


@pytest.mark.parametrize("names", [["../a"], ["a", "a"], []])
def test_names_that_are_no_files_of_the_folder_are_refused(names, ski_labels, tmp_path):
    _, recording = next(skipose.read(ski_labels))
    out = tmp_path / "deep" / "out"
    with pytest.raises(ValueError, match="recording"):
        write_recordings(((name, recording) for name in names), out, overwrite=False)
    written = [path.name for path in tmp_path.rglob("*.npz")]
    assert written == ["a.npz"] * (names == ["a", "a"])
