"""The page of the viewer holds the arrays of the predictions, and `canonlift view` opens it."""

import base64
import webbrowser
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from viewer_scene import FPS, NAME, fewer_views, made, recordings_in, with_truth_fused

from canonlift import metrics
from canonlift.body.skeleton import H36M17
from canonlift.cli.main import main
from canonlift.data.prediction import FILE, Prediction, save_predictions
from canonlift.evaluation import recording_errors
from canonlift.output import page_arrays, viewer


@pytest.fixture(scope="module")
def prediction():
    return made()


@pytest.fixture(scope="module")
def fused(prediction):
    return with_truth_fused(prediction)


def unpacked(packed, base=None):
    """What the page makes of a packed array, step by step."""
    raw = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), np.uint8)
    low, high = raw.reshape(2, *packed["shape"]).astype(np.int64)
    small = low + 256 * high
    change = np.where(small % 2 == 1, -(small + 1) // 2, small // 2)
    number = np.cumsum(change, axis=0) + (0 if base is None else base)
    number = (number + 2**15) % 2**16 - 2**15
    return number, np.where(number == -(2**15), np.nan, packed["origin"] + number * packed["step"])


@pytest.mark.parametrize("scale", [1.0, 300.0, 1e-6])
def test_packing_keeps_every_value_to_half_a_step_and_what_is_missing_missing(scale):
    g = np.random.default_rng(0)
    array = scale * g.normal(5.0, 1.0, (40, 3, 2)).cumsum(0)
    array[g.random(array.shape) < 0.2] = np.nan
    packed = page_arrays.pack(array, 1e-4)
    assert packed["step"] >= 1e-4
    _, found = unpacked(packed)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(array))
    assert np.nanmax(np.abs(found - array)) <= 0.5001 * packed["step"]
    assert np.nanmax(np.abs(array)) / packed["step"] < 2**16


def test_one_joint_gone_astray_does_not_coarsen_the_others():
    array = np.random.default_rng(0).normal(500.0, 100.0, (400, 17, 2))
    array[3, 2] = 1e9
    packed = page_arrays.pack(array, 0.1)
    assert packed["step"] == 0.1
    _, found = unpacked(packed)
    far = array == 1e9
    assert np.abs(found - array)[~far].max() < 0.051
    assert found[far].min() > array[~far].max()


def test_refined_joints_are_stored_relative_to_the_detected(prediction, tmp_path):
    (page,) = recordings_in(viewer.write({NAME: prediction}, tmp_path / "a.html"))
    base, detected = unpacked(page["arrays"]["detected"])
    _, refined = unpacked(page["arrays"]["refined"], base)
    recording = prediction.recording
    seen = recording.confidence > 0
    np.testing.assert_array_equal(np.isfinite(detected[..., 0]), seen)
    np.testing.assert_allclose(detected[seen], recording.keypoints[seen], atol=0.0502)
    np.testing.assert_allclose(refined, prediction.keypoints_refined, atol=0.0502)


def test_a_recording_too_long_for_a_page_is_thinned_and_the_page_states_it(
    prediction, tmp_path, monkeypatch
):
    monkeypatch.setattr(viewer, "MOST_JOINTS", prediction.recording.confidence.size // 3 + 1)
    both = {NAME: prediction, "one": fewer_views(prediction, [0])}
    page, _ = recordings_in(viewer.write(both, tmp_path / "a.html"))
    assert page["step"] == 4
    assert page["fps"] == FPS / 4
    _, pose = unpacked(page["arrays"]["pose"])
    np.testing.assert_allclose(pose, prediction.pose[::4], atol=1e-4)


def test_a_fused_sequence_is_thinned_with_the_rest(fused):
    thin = viewer.thinned(fused, 3)
    for name, array in vars(fused.fused).items():
        np.testing.assert_array_equal(getattr(thin.fused, name), array[::3])
    assert (len(thin.pose), thin.fps) == (25, FPS / 3)


def test_measures_are_those_of_the_evaluation(prediction):
    recording = prediction.recording
    error, others, own = viewer.measures(prediction)
    assert [m.name for m in (error, others, own)] == ["Error", "Disagreement", "Own misfit"]
    truth = torch.from_numpy(1000 * recording.pose3d).double().flatten(0, 1)
    pose = torch.from_numpy(prediction.pose).double().flatten(0, 1)
    n_mpjpe = metrics.joint_errors(pose, truth, 0).n_mpjpe.nanmean(-1)
    np.testing.assert_allclose(error.values.ravel(), n_mpjpe, rtol=1e-4)
    gaps_own, gaps_others = recording_errors.view_gaps(prediction)
    seen = recording.confidence > 0
    # The evaluation counts joints, the page views: weigh each by the joints it has.
    count = seen.sum(-1) * np.isfinite(own.values)
    mean = np.nansum(own.values * count) / count.sum()
    assert mean == pytest.approx(100 * float(gaps_own.mean()), rel=1e-4)
    usable = np.isfinite(prediction.pose[:, :, 0, 0])
    count = ((seen & usable[..., None]).sum((1, 2))[:, None] - count) * usable
    mean = np.nansum(others.values * count) / count.sum()
    assert mean == pytest.approx(100 * float(gaps_others.mean()), rel=1e-4)


def test_a_fused_sequence_is_measured_beside_the_views(fused):
    """By cameras that are known exactly it is without error."""
    plain, known = viewer.measures(replace(fused, fused=None)), viewer.measures(fused)
    seen = np.arange(75) != 7
    for one, other in zip(known, plain, strict=True):
        np.testing.assert_array_equal(one.values[:, :4], other.values)
        assert np.isnan(one.values[7, 4])
    assert np.isnan(known[2].values[:, 4]).all(), "it was lifted from no view"
    assert known[0].values[seen, 4].max() < 0.1
    assert known[1].values[seen, 4].mean() < 0.8 * np.nanmean(plain[1].values)


def test_one_view_without_truth_is_measured_by_its_own_misfit_alone(prediction):
    found = viewer.measures(fewer_views(prediction, [2]))
    assert [m.name for m in found] == ["Own misfit"]


def test_up_is_where_the_head_is_in_whatever_axes(prediction):
    pose = prediction.recording.pose3d[:, 0].astype(np.float64)
    turn = Rotation.from_rotvec([0.3, 1.1, -2.0]).as_matrix()
    up = np.array(viewer.upwards(pose, H36M17))
    assert up[1] < -0.8
    np.testing.assert_allclose(viewer.upwards(pose @ turn.T, H36M17), turn @ up, atol=0.1)
    assert viewer.upwards(np.full_like(pose, np.nan), H36M17) == [0.0, -1.0, 0.0]
    assert viewer.upwards(pose[:, :2], ("tail", "fin")) == [0.0, -1.0, 0.0]


def test_nothing_to_show_is_refused_and_nothing_is_written(prediction, tmp_path):
    with pytest.raises(ValueError, match=r"a\.html"):
        viewer.write({}, tmp_path / "a.html")
    with pytest.raises(ValueError, match="walk: has no frames"):
        viewer.write({NAME: viewer.thinned(made_empty(prediction), 1)}, tmp_path / "a.html")
    assert not list(tmp_path.iterdir())


def made_empty(prediction):
    recording = prediction.recording
    names = ("keypoints", "confidence", "pose3d", "keypoints_true")
    none = {name: getattr(recording, name)[:0] for name in names}
    parts = (prediction.pose, prediction.rotation, prediction.keypoints_refined)
    return Prediction(replace(recording, **none), *(array[:0] for array in parts))


# --- the command


@pytest.fixture
def folder(fused, tmp_path):
    save_predictions({NAME: fused, "one": fewer_views(fused, [2])}.items(), tmp_path / FILE)
    return tmp_path


def test_the_command_writes_the_page_beside_the_predictions_and_opens_it(
    folder, fused, monkeypatch, capsys
):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda uri: opened.append(uri) or True)
    main(["view", str(folder)])
    path = folder / "predictions.html"
    assert opened == [path.as_uri()]
    assert str(path) in capsys.readouterr().out
    both = {NAME: fused, "one": fewer_views(fused, [2])}
    assert path.read_bytes() == viewer.write(both, folder / "other.html").read_bytes()
    main(["view", str(folder)])
    assert f"page: {path} (replaced)" in capsys.readouterr().out


def test_the_command_shows_chosen_recordings_without_a_browser(folder, monkeypatch):
    monkeypatch.setattr(webbrowser, "open", lambda _: pytest.fail("a browser was opened"))
    out = folder / "here.html"
    argv = ["view", str(folder / FILE), "--recording", "one", "--out", str(out), "--no-browser"]
    main(argv)
    assert [page["name"] for page in recordings_in(out)] == ["one"]
    before = out.read_bytes()
    with pytest.raises(SystemExit):
        main([*argv, "--recording", NAME])
    assert out.read_bytes() == before


def test_a_missing_browser_is_no_error(folder, monkeypatch):
    def fail(_):
        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(webbrowser, "open", fail)
    main(["view", str(folder)])
    assert (folder / "predictions.html").is_file()
