"""The command line of `canonlift convert`."""

import argparse
import json
import shlex
from dataclasses import replace

import numpy as np
import pytest

from canonlift.body import skeleton
from canonlift.cli import convert
from canonlift.cli.main import main
from canonlift.data.recording import load, save
from canonlift.readers import skeleton_morphing
from canonlift.readers.convert import convert as convert_cameras
from canonlift.readers.datasets.table import DATA_SETS
from canonlift.readers.detectors.table import READERS
from canonlift.readers.detectors.to_recording import Options, read
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.session import SimulateConfig, session


@pytest.fixture
def cameras(tmp_path):
    """Two folders of COCO-18 with nothing special about them; one joint of 108 undetected."""
    rng = np.random.default_rng(0)
    folders = [tmp_path / name for name in ("left", "right")]
    for folder in folders:
        folder.mkdir()
        for frame in range(3):
            person = rng.uniform([100, 100, 0.2], [500, 900, 0.9], (18, 3))
            if folder.name == "left" and frame == 1:
                person[4] = 0
            content = {"people": [{"pose_keypoints_2d": person.ravel().tolist()}]}
            (folder / f"v_{frame:012d}_keypoints.json").write_text(json.dumps(content))
    return [str(folder) for folder in folders]


def refusal(capsys, argv):
    """The one line that a failing run leaves on stderr."""
    with pytest.raises(SystemExit) as stop:
        main(["convert", *map(str, argv)])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_writes_and_describes_what_the_reader_reads(cameras, tmp_path, capsys):
    out = tmp_path / "new" / "take.npz"
    options = ["--fps", "25", "--rig", "hill", "--layout", "COCO-18", "--out", str(out)]
    main(["convert", "openpose", *cameras, *options])
    written = load(out)
    expected, report = read(cameras, "openpose", Options(fps=(25.0,), rig="hill"))
    np.testing.assert_array_equal(written.keypoints, expected.keypoints)
    np.testing.assert_array_equal(written.confidence, expected.confidence)
    assert (written.joints, written.views) == (skeleton.COCO18, ("left", "right"))
    assert (written.fps, written.rig) == (25.0, "hill")
    said = capsys.readouterr().out
    low, high = (f(written.confidence[:, 1]) for f in (np.min, np.max))
    assert "3 frames at 25 fps (0.1 s), 2 views, 18 joints, rig 'hill'" in said
    assert "left: 1.9 % of the joints unobserved" in said
    assert f"right: 0.0 % of the joints unobserved, confidence {low:.2f} to {high:.2f}" in said
    assert "body model COCO-18: as asked for" in said
    assert all(line in said for line in report[1:])


def test_cameras_may_move_unless_a_rig_is_named(cameras, tmp_path, capsys):
    main(["convert", "openpose", *cameras, "--fps", "25", "--out", str(tmp_path / "a.npz")])
    assert load(tmp_path / "a.npz").rig == ""
    assert "cameras may move" in capsys.readouterr().out


def test_a_given_offset_shifts_a_camera(cameras, tmp_path, capsys):
    argv = ["openpose", *cameras, "--fps", "25", "--out"]
    main(["convert", *argv, str(tmp_path / "plain.npz")])
    main(["convert", *argv, str(tmp_path / "moved.npz"), "--offset", "right=0.04"])
    plain, moved = (load(tmp_path / f"{name}.npz") for name in ("plain", "moved"))
    np.testing.assert_array_equal(moved.keypoints[1:, 1], plain.keypoints[:-1, 1])
    assert not moved.confidence[0, 1].any()
    np.testing.assert_array_equal(moved.keypoints[:, 0], plain.keypoints[:, 0])
    assert "right: started 0.04 s later, as given" in capsys.readouterr().out
    assert "started later by (s): left 0.000, right 0.040" in moved.processing


def test_replaces_a_file_only_when_told_to(cameras, tmp_path, capsys):
    out = tmp_path / "take.npz"
    argv = ["openpose", *cameras, "--fps", "25", "--out", str(out)]
    out.write_bytes(b"precious")
    assert "take.npz exists; give another --out, or --overwrite" in refusal(capsys, argv)
    assert out.read_bytes() == b"precious"
    main(["convert", *argv, "--overwrite"])
    assert load(out).n_frames == 3


def test_an_input_error_is_one_line_and_writes_no_file(cameras, tmp_path, capsys):
    out = tmp_path / "take.npz"
    good = ["--out", out, "--fps"]
    nowhere = tmp_path / "a\nb"
    assert "a b: no such file or folder" in refusal(capsys, ["openpose", nowhere, *good, "25"])
    assert "fps must be positive" in refusal(capsys, ["openpose", *cameras, *good, "0"])
    wrong = [*good, "25", "--layout", "BODY_25"]
    assert "cannot be BODY_25" in refusal(capsys, ["openpose", *cameras, *wrong])
    folder = [*good[:1], tmp_path, "--overwrite", "--fps", "25"]
    assert str(tmp_path) in refusal(capsys, ["openpose", *cameras, *folder])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["left", "right"]


def test_morphing_learns_from_pairs_and_says_so_in_what_it_writes(tmp_path, capsys):
    exact = DetectorConfig(error_scale=0.0, leg_swap_rate=0.0, arm_swap_rate=0.0)
    config = SimulateConfig(n_train=2, n_test=1, n_frames=40, detector=exact)
    for name, take in session(config):
        # The detector of this session sees every joint 5 % of the image further down.
        save(replace(take, keypoints=take.keypoints + [0, 54]), tmp_path / "seen" / f"{name}.npz")
    argv = ["morph", str(tmp_path / "seen"), "--pairs", str(tmp_path / "seen" / "train_*.npz"),
            "--steps", "5", "--out", str(tmp_path / "moved")]  # fmt: skip
    main(["convert", *argv])
    assert "learning from the paired 2D of 2 recordings" in capsys.readouterr().out
    names = ["test_00.npz", "train_00.npz", "train_01.npz"]
    assert sorted(path.name for path in (tmp_path / "moved").iterdir()) == names
    seen, moved = (load(tmp_path / folder / "test_00.npz") for folder in ("seen", "moved"))
    pairs = [load(tmp_path / "seen" / name) for name in names[1:]]
    expected = skeleton_morphing.apply(skeleton_morphing.fit(pairs, steps=5), seen)
    np.testing.assert_array_equal(moved.keypoints, expected.keypoints)
    assert not np.allclose(moved.keypoints, seen.keypoints, equal_nan=True)
    assert (seen.processing, moved.processing) == ("", "morphed by a network from paired 2D")
    assert "is not empty" in refusal(capsys, argv)
    assert "is the folder that is read" in refusal(capsys, [*argv[:-1], tmp_path / "seen"])
    argv[3] = str(tmp_path / "seen" / "test_00.npz")
    main(["convert", *argv[:-1], str(tmp_path / "again")])
    assert "WARNING: learning from test_00.npz" in capsys.readouterr().out


def test_shows_no_traceback(tmp_path, capsys):
    (tmp_path / "camera").mkdir()
    (tmp_path / "camera" / "0.json").write_text('{"people":\n[\n')
    argv = ["openpose", tmp_path / "camera", "--fps", "30", "--out", tmp_path / "a.npz"]
    found = refusal(capsys, argv)
    assert found.startswith("canonlift convert: error: ")
    assert "0.json: not JSON" in found


@pytest.mark.parametrize("argv", [[], ["openpoze"], ["openpose"], ["openpose", "a", "--fps", "x"]])
def test_a_wrong_command_line_ends_with_status_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["convert", *argv])
    assert stop.value.code == 2
    assert "usage: canonlift convert" in capsys.readouterr().err


def test_help_lists_every_format_and_shows_commands_that_parse(capsys):
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("auto", "morph", *READERS, *DATA_SETS))
    examples = shown.replace("\\\n", " ").splitlines()
    commands = [
        shlex.split(line)[2:] for line in examples if line.strip().startswith("canonlift convert ")
    ]
    assert len(commands) == 5
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    for command in commands:
        assert parser.parse_args(command).format == command[0]


def test_function_and_command_make_the_same_recording(cameras, tmp_path):
    out = tmp_path / "session.npz"
    main(["convert", "openpose", *cameras, "--fps", "25", "50", "--layout", "COCO-18",
          "--rig", "hill", "--offset", "right=0.04", "--out", str(out)])  # fmt: skip
    written = load(out)
    found = convert_cameras(
        cameras, fps=[25, 50], format="openpose", layout="COCO-18", rig="hill",
        offsets={"right": 0.04},
    )  # fmt: skip
    np.testing.assert_array_equal(found.keypoints, written.keypoints)
    np.testing.assert_array_equal(found.confidence, written.confidence)
    assert (found.rig, found.fps, found.processing) == ("hill", written.fps, written.processing)
    with pytest.raises(ValueError, match="either offsets or synchronisation"):
        convert_cameras(cameras, fps=25, offsets={"right": 1.0}, synchronise=True)
    with pytest.raises(ValueError, match="camera must be one of left, right, got 'rihgt'"):
        convert_cameras(cameras, fps=25, offsets={"rihgt": 1.0})
