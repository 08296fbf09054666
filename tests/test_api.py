"""`import canonlift` as the user of a notebook writes it."""

import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import canonlift
from canonlift.body.skeleton import COCO17, H36M17
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.motions import MOTIONS
from canonlift.simulation.session import film

OVERRIDES = (
    "data.simulate={n_train: 1, n_people_train: 1, n_test: 1, n_frames: 20, fps: 10}",
    "model.width=16",
    *(f"schedule.{phase}.steps=2" for phase in range(3)),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network that has learned next to nothing."""
    out = tmp_path_factory.mktemp("api") / "run"
    return canonlift.train("smoke", out=str(out), overrides=OVERRIDES)


@pytest.fixture(scope="module")
def recording():
    generator = np.random.default_rng(3)
    person = sample_person(generator)
    motion = perform(person, list(MOTIONS), 30, 10.0, generator)
    cameras, detector = CameraConfig(n_views=3), DetectorConfig()
    return film(motion, H36M17, 10.0, cameras, detector, generator)


def reordered(recording, order):
    """The same joints, listed in another order."""
    points = {
        name: getattr(recording, name)[:, :, order]
        for name in ("keypoints", "confidence", "pose3d", "keypoints_true")
    }
    return replace(recording, joints=tuple(recording.joints[j] for j in order), **points)


def test_the_whole_of_it_is_on_one_screen():
    assert set(dir(canonlift)) == set(canonlift.__all__)
    assert all(getattr(canonlift, name) is not None for name in canonlift.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        canonlift.trian  # noqa: B018
    for name in canonlift.__all__:
        assert name == "__version__" or getattr(canonlift, name).__doc__


def test_importing_it_imports_no_torch():
    code = "import sys, canonlift; print('torch' in sys.modules, canonlift.__version__)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["False", canonlift.__version__]


def test_the_version_is_that_of_the_package():
    try:
        assert version("canonlift") == canonlift.__version__
    except ModuleNotFoundError:
        pytest.skip("canonlift is not installed here, only found")


def test_joints_in_another_order_give_the_same_poses(model, recording):
    """They were taken as they came, and gave 472 mm instead of 152 without a word."""
    expected = model.lift(recording)
    order = np.random.default_rng(0).permutation(len(H36M17))
    found = model.lift(reordered(recording, order))
    assert found.joints == expected.joints == H36M17
    for name in ("pose", "rotation", "keypoints_refined"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_another_detectors_joints_are_converted_by_name_or_refused(model, recording):
    eyes = [H36M17.index("head")] * 4  # where else
    source = [H36M17.index(name) if name in H36M17 else eyes[0] for name in COCO17]
    points = {name: getattr(recording, name)[:, :, source] for name in ("keypoints", "confidence")}
    coco = replace(recording, joints=COCO17, pose3d=None, keypoints_true=None, **points)
    assert model.lift(coco).pose.shape == (30, 3, 17, 3)
    nameless = replace(recording, joints=tuple(f"joint{j}" for j in range(17)))
    with pytest.raises(ValueError, match="pelvis"):
        model.lift(nameless)


def test_a_prediction_holds_arrays_with_names_and_is_read_back(model, recording, tmp_path):
    prediction = model.lift(recording)
    assert prediction.pose.shape == (30, 3, 17, 3)
    assert prediction.fused.pose.shape == (30, 17, 3)
    assert (prediction.views, prediction.fps) == (recording.views, recording.fps)
    prediction.save(str(tmp_path / "one.npz"))
    (read,) = canonlift.read_predictions(tmp_path / "one.npz").values()
    np.testing.assert_array_equal(read.pose, prediction.pose)
    np.testing.assert_array_equal(read.fused.pose, prediction.fused.pose)


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_may_be_strings(model, recording, tmp_path, kind):
    path, run = tmp_path / "session.npz", tmp_path / "copy"
    recording.save(kind(path))
    read = canonlift.read(kind(path))
    np.testing.assert_array_equal(read.keypoints, recording.keypoints)
    canonlift.train("smoke", kind(run), OVERRIDES)
    same = canonlift.load(kind(run), device="cpu")
    np.testing.assert_array_equal(same.lift(read).pose, model.lift(read).pose)
    files = canonlift.export(
        model.lift(read), kind(tmp_path / "out"), formats=["trc", "html"], height=1.75
    )
    assert {file.suffix for file in files} == {".trc", ".html"}
    assert all(file.stat().st_size for file in files)


def test_evaluates_recordings_and_files_alike(model, recording, tmp_path):
    recording.save(tmp_path / "session.npz")
    from_file = canonlift.evaluate(model, [tmp_path / "session.npz"])
    from_memory = canonlift.evaluate(model, [recording])
    assert from_file["metrics"] == from_memory["metrics"]
    assert from_file["metrics"]["n_mpjpe_mm"] > 0


def test_detections_become_a_recording(tmp_path):
    head = ",".join(f"{j}_{axis}" for j in ("nose", "l_hip", "r_hip") for axis in ("x", "y"))
    rows = [f"frame,{head}", "0,90,10,100,80,80,80", "1,91,11,101,81,81,81"]
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n")
    recording = canonlift.convert([tmp_path / "a.csv", str(tmp_path / "b.csv")], fps=60)
    assert (recording.views, recording.fps) == (("a", "b"), 60.0)
    assert recording.joints == ("nose", "l_hip", "r_hip")
    np.testing.assert_array_equal(recording.keypoints[:, 0, 0], [[90, 10], [91, 11]])


def test_a_config_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(FileNotFoundError, match="did you mean 'demo'"):
        canonlift.train("dmeo")
