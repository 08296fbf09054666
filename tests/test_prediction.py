"""Laws of predictions: what a model predicts of a recording, and the file that holds it."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from eval_scene import filmed, finished_run, one_view

from canonlift.body import skeleton
from canonlift.body.skeleton import H36M17
from canonlift.data.frames import centre, to_views
from canonlift.data.prediction import read_predictions, save_predictions
from canonlift.data.recording import save, to_arrays
from canonlift.inference import model as models
from canonlift.inference.predict import predict

ARRAYS = ("pose", "rotation", "keypoints_refined")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return models.load(finished_run(tmp_path_factory.mktemp("run")), "cpu")


def same(one, other, atol=2e-6):
    """Equal predictions but for rounding; in pixels that is a thousand times as much."""
    for name, scale in (("pose", 1), ("rotation", 1), ("keypoints_refined", 1e4)):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name),
                                   rtol=0, atol=scale * atol, err_msg=name)  # fmt: skip


def test_predictions_have_the_promised_shapes_and_units(model):
    recording = filmed()
    seen = to_views(recording).observed.any(-1).numpy()
    assert not seen.all()
    found = model.lift(recording)
    assert found.pose.shape == (10, 3, 17, 3)
    assert found.rotation.shape == (10, 3, 3, 3)
    assert found.keypoints_refined.shape == (10, 3, 17, 2)
    assert all(array.dtype == np.float32 for array in (getattr(found, name) for name in ARRAYS))
    start, end = (list(side) for side in zip(*skeleton.bones(H36M17), strict=True))
    bones = np.linalg.norm(found.pose[:, :, start] - found.pose[:, :, end], axis=-1).sum(-1)
    np.testing.assert_allclose(bones[seen], 1, atol=1e-5)
    assert (found.pose[seen][:, 0] == 0).all()
    turn = found.rotation[seen]
    np.testing.assert_allclose(turn @ turn.swapaxes(-1, -2), np.tile(np.eye(3), (len(turn), 1, 1)),
                               atol=1e-5)  # fmt: skip
    assert np.linalg.det(turn).min() > 0.99


def test_views_in_which_nobody_was_seen_hold_nan_and_nothing_else_does(model):
    recording = filmed()
    keypoints, confidence = recording.keypoints.copy(), recording.confidence.copy()
    confidence[2], confidence[5, 1] = 0, 0
    keypoints[confidence == 0] = np.nan
    recording = replace(recording, keypoints=keypoints, confidence=confidence)
    found = model.lift(recording)
    blank = ~to_views(recording).observed.any(-1).numpy()
    assert blank[2].all()
    assert blank[5, 1]
    for array in (found.pose, found.rotation):
        np.testing.assert_array_equal(np.isnan(array).all((-1, -2)), blank)
        np.testing.assert_array_equal(np.isnan(array).any((-1, -2)), blank)
    nothing = (confidence == 0).all(-1)
    assert np.isnan(found.keypoints_refined[nothing]).all()
    assert np.isfinite(found.keypoints_refined[~blank][confidence[~blank] > 0]).all()


def test_lifts_one_view_alone_as_it_does_among_others(model):
    recording = filmed()
    among = model.lift(recording)
    for view in range(3):
        alone = model.lift(one_view(recording, view))
        for name in ("pose", "rotation"):
            np.testing.assert_allclose(
                getattr(alone, name)[:, 0], getattr(among, name)[:, view], rtol=0, atol=2e-6
            )
    nonsense = recording.keypoints.copy()
    nonsense[:, 1:] = nonsense[::-1, 1:]
    nonsense[recording.confidence == 0], nonsense[np.isnan(nonsense)] = np.nan, 0
    other = model.lift(replace(recording, keypoints=nonsense))
    np.testing.assert_allclose(other.pose[:, 0], among.pose[:, 0], rtol=0, atol=2e-6)
    assert np.nanmax(np.abs(other.pose[:, 1:] - among.pose[:, 1:])) > 1e-3


def test_a_camera_alone_repairs_nothing(model):
    recording = one_view(filmed())
    found = model.lift(recording).keypoints_refined
    detected, *_ = centre(recording)
    unseen = ~to_views(recording).observed.numpy()
    expected = np.where(unseen[..., None], np.nan, detected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.01)


def test_repair_moves_unsure_joints_only_and_keeps_the_place_in_the_image(model):
    recording = filmed(n_frames=40)
    found = predict(model.network, model.config, recording).keypoints_refined
    detected, confidence, _, rooted = centre(recording)
    never = np.isin(H36M17, model.config.fusion.never)
    seen = (confidence > 0) & rooted[..., None]
    kept = seen & (never | (confidence >= model.config.fusion.threshold))
    np.testing.assert_allclose(found[kept], detected[kept], rtol=0, atol=0.01)
    unsure = seen & ~kept
    moved = np.linalg.norm(found - detected, axis=-1) > 1
    assert moved[unsure].mean() > 0.5
    placed = ~seen & rooted[..., None] & ~never
    assert np.isfinite(found[placed]).all(-1).mean() > 0.5


@pytest.mark.parametrize("block", [1, 3, 10])
def test_predictions_do_not_depend_on_the_block_size(model, block):
    recording = filmed()
    whole = predict(model.network, model.config, recording)
    same(predict(model.network, model.config, recording, block), whole)


@pytest.mark.parametrize("n_views", [2, 5])
def test_any_number_of_views(model, n_views):
    assert model.lift(filmed(4, n_views)).pose.shape == (4, n_views, 17, 3)


def test_one_sequence_of_all_views_where_there_are_several(model):
    assert model.lift(filmed()).fused.pose.shape == (10, 17, 3)
    assert model.lift(one_view(filmed())).fused is None


@pytest.fixture
def unchecked():
    """As users run it: without the checks of types, which would refuse some input before us."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# --- the file


@pytest.fixture(scope="module")
def predictions(model):
    """With truth and without, by many cameras and by one."""
    bare = replace(filmed(4, 2, seed=1), pose3d=None, keypoints_true=None, image_size=None)
    recordings = {"walk": filmed(rig="lab", processing="smoothed"), "bare": bare,
                  "alone": one_view(filmed(6, seed=2))}  # fmt: skip
    return {name: model.lift(recording) for name, recording in recordings.items()}


def arrays_of(prediction):
    arrays = {name: getattr(prediction, name) for name in ARRAYS} | to_arrays(prediction.recording)
    if prediction.fused is not None:
        arrays |= {f"fused_{name}": array for name, array in vars(prediction.fused).items()}
    return arrays


def assert_equal(one, other):
    one, other = arrays_of(one), arrays_of(other)
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.mark.parametrize("kind", [str, Path])
def test_what_was_saved_is_read_back(predictions, tmp_path, kind):
    save_predictions(predictions.items(), kind(tmp_path / "predictions.npz"))
    for place in (tmp_path / "predictions.npz", tmp_path):
        read = read_predictions(kind(place))
        assert list(read) == list(predictions)
        for name, prediction in predictions.items():
            assert_equal(read[name], prediction)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.npz"]


def test_one_prediction_is_saved_under_the_name_of_its_file(predictions, tmp_path):
    predictions["walk"].save(tmp_path / "morning.npz")
    read = read_predictions(tmp_path / "morning.npz")
    assert list(read) == ["morning"]
    assert_equal(read["morning"], predictions["walk"])


def test_the_arrays_have_the_documented_names(predictions, tmp_path):
    save_predictions(predictions.items(), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["walk/pose"], predictions["walk"].pose)
        np.testing.assert_array_equal(file["walk/fused_pose"], predictions["walk"].fused.pose)
        keypoints = predictions["alone"].recording.keypoints
        np.testing.assert_array_equal(file["alone/recording/keypoints"], keypoints)
        assert "alone/fused_pose" not in file.files


def test_the_same_predictions_are_the_same_bytes(predictions, tmp_path):
    for name in ("a.npz", "b.npz"):
        save_predictions(predictions.items(), tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_predictions_are_written_and_read_one_at_a_time(predictions, tmp_path):
    """More of them than fit into memory together."""
    alive = weakref.WeakSet()

    def one_after_the_other():
        for name, prediction in predictions.items():
            gc.collect()
            assert len(alive) <= 1  # the one before
            fresh = replace(prediction)
            alive.add(fresh)
            yield name, fresh

    save_predictions(one_after_the_other(), tmp_path / "a.npz")
    read = read_predictions(tmp_path / "a.npz")
    assert read["walk"] is not read["walk"]


def test_a_failure_leaves_the_old_file_and_nothing_else(predictions, tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")

    def failing():
        yield "walk", predictions["walk"]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_predictions(failing(), path)
    with pytest.raises(ValueError, match="two recordings have the name 'walk'"):
        save_predictions(2 * [("walk", predictions["walk"])], path)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_no_link_that_waits_for_the_file_is_followed(predictions, tmp_path):
    """Who can write into the folder must not choose where the predictions go."""
    victim, path = tmp_path / "victim", tmp_path / "out" / "a.npz"
    path.parent.mkdir()
    victim.write_text("mine")
    for name in ("a.npz", ".a.npz.part", ".a.npz-"):
        (path.parent / name).symlink_to(victim)
    save_predictions(predictions.items(), path)
    assert victim.read_text() == "mine"
    assert not path.is_symlink()
    assert list(read_predictions(path)) == list(predictions)


@pytest.mark.parametrize("name", ["", ".", "..", "../walk", "a/b", "a\\b", "a\nb"])
def test_a_name_that_is_no_file_name_is_refused(predictions, tmp_path, name):
    with pytest.raises(ValueError, match="is no name for a recording"):
        save_predictions([(name, predictions["alone"])], tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


def test_a_hostile_name_in_a_file_is_refused(predictions, tmp_path):
    content = stored(predictions["alone"])
    np.savez(tmp_path / "a.npz", **{f"..{key[5:]}": array for key, array in content.items()})
    with pytest.raises(ValueError, match="a.npz: '..' is no name for a recording"):
        read_predictions(tmp_path / "a.npz")


def stored(prediction):
    """What the file holds of one, whose name is alone."""
    given = {f"alone/recording/{k}": a for k, a in to_arrays(prediction.recording).items()}
    return {f"alone/{name}": getattr(prediction, name) for name in ARRAYS} | given


class Harmful:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"alone/pose": None}, "holds no predictions; write it again with `canonlift eval`"),
        ({"alone/rotation": None}, "alone: lacks rotation"),
        ({"alone/fused_pose": np.zeros((6, 17, 3))}, "alone: lacks fused_rotation, fused_seen_by"),
        ({"alone/recording/keypoints": None}, "lacks the recordings, as in canonlift 0.1"),
        ({"alone/recording/fps": None}, "alone: lacks fps"),
        ({"alone/pose": np.zeros((5, 1, 17, 3))}, "pose is .*but the recording of 6 frames"),
        ({"alone/pose": np.full((6, 1, 17, 3), "x")}, "alone: pose holds no numbers"),
        ({"alone/pose": np.array([Harmful()])}, "not a readable .npz .*pickled objects"),
        ({"alone/recording/confidence": np.full((6, 1, 17), 2.0)}, "must be in"),
    ],
)  # fmt: skip
def test_damaged_predictions_are_refused_by_name(predictions, tmp_path, change, words):
    content = stored(predictions["alone"]) | change
    path = tmp_path / "a.npz"
    np.savez(path, **{key: array for key, array in content.items() if array is not None})
    with pytest.raises(ValueError, match=f"a.npz: .*{words}"):
        read_predictions(path)["alone"]


def test_what_holds_no_predictions_is_refused_with_the_remedy(predictions, tmp_path):
    with pytest.raises(FileNotFoundError, match="predictions.npz: no such file"):
        read_predictions(tmp_path)
    path = tmp_path / "a.npz"
    save(filmed(), path)
    with pytest.raises(ValueError, match="is a recording; predict it with `canonlift eval RUN"):
        read_predictions(path)
    save_predictions(predictions.items(), path)
    for content in (b"", b"hello", path.read_bytes()[:-900]):
        (tmp_path / "b.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"b.npz: not a readable .npz .*`canonlift eval`"):
            read_predictions(tmp_path / "b.npz")
    save_predictions([], path)
    with pytest.raises(ValueError, match="holds no predictions"):
        read_predictions(path)


def test_some_predictions_are_chosen_by_name(predictions, tmp_path):
    save_predictions(predictions.items(), tmp_path / "a.npz")
    read = read_predictions(tmp_path / "a.npz")
    assert list(read.only(["alone", "walk", "alone"])) == ["alone", "walk"]
    with pytest.raises(ValueError, match="got 'wlak'; did you mean 'walk'"):
        read.only(["wlak"])
    with pytest.raises(KeyError):
        read.only(["alone"])["walk"]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ARRAYS)
def test_what_does_not_belong_together_is_refused(predictions, name):
    short = getattr(predictions["walk"], name)[:9]
    with pytest.raises(ValueError, match=rf"{name} is \(9, .*predict this recording"):
        replace(predictions["walk"], **{name: short})
    fused = replace(predictions["walk"].fused, pose=np.zeros((10, 16, 3), np.float32))
    with pytest.raises(ValueError, match=r"fused_pose is \(10, 16, 3\)"):
        replace(predictions["walk"], fused=fused)
