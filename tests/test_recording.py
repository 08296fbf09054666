"""Laws of `recording.npz`: what was written is read, and anything else is refused."""

import zipfile
from dataclasses import fields, replace
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

from canonlift.body import skeleton
from canonlift.data.recording import Recording, load, save


@pytest.fixture
def recording():
    """A recording with every array, of which a tenth is unobserved."""
    rng = np.random.default_rng(0)
    shape = (5, 3, 17)
    keypoints = rng.uniform(0, 1000, (*shape, 2)).astype(np.float32)
    confidence = rng.uniform(0.1, 1, shape).astype(np.float32)
    missed = rng.random(shape) < 0.1
    keypoints[missed], confidence[missed] = np.nan, 0
    return Recording(
        keypoints=keypoints,
        confidence=confidence,
        joints=skeleton.COCO17,
        views=("left", "right", "über"),
        fps=59.94,
        rig="hill",
        processing="smoothed",
        image_size=rng.integers(500, 2000, (3, 2)).astype(np.int32),
        pose3d=rng.normal(size=(*shape, 3)).astype(np.float32),
        keypoints_true=rng.uniform(0, 1000, (*shape, 2)).astype(np.float32),
    )


@pytest.fixture
def arrays(recording, tmp_path):
    """The arrays of its file."""
    save(recording, tmp_path / "whole.npz")
    with np.load(tmp_path / "whole.npz") as file:
        return dict(file)


def assert_same(one, other):
    for field in fields(Recording):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, err_msg=field.name, strict=True)
        else:
            assert a == b, field.name


def refused(arrays, tmp_path, match):
    """The file is refused, with its name and a reason."""
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=match) as error:
        load(path)
    assert str(path) in str(error.value)


def test_reads_what_was_written(recording, tmp_path):
    for name, one in {
        "all": recording,
        "least": replace(
            recording, rig="", processing="", image_size=None, pose3d=None, keypoints_true=None
        ),
    }.items():
        path = tmp_path / "new folder" / name
        save(one, path)
        assert_same(load(path), one)
        one.save(str(path.with_suffix(".too")))
        assert path.with_suffix(".too").read_bytes() == path.read_bytes()


def test_the_file_has_the_documented_types(arrays):
    types = {name: (array.dtype.kind, array.dtype.itemsize) for name, array in arrays.items()}
    for name in ("keypoints", "confidence", "pose3d", "keypoints_true"):
        assert types[name] == ("f", 4)
    assert (types["fps"], types["image_size"]) == (("f", 8), ("i", 4))
    assert all(types[name][0] == "U" for name in ("joints", "views", "rig", "processing"))


def test_same_recording_same_bytes_at_any_time(recording, tmp_path):
    for name in ("a", "b"):
        save(recording, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with zipfile.ZipFile(tmp_path / "a") as file:
        assert {member.date_time for member in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_failing_save_leaves_the_old_file_and_no_other(recording, tmp_path, monkeypatch):
    def run_out_of_space(file, **_):
        file.write(b"half of it")
        raise OSError("No space left on device")

    path = tmp_path / "take.npz"
    monkeypatch.setattr(np, "savez_compressed", run_out_of_space)
    for before in ([], ["take.npz"]):
        with pytest.raises(OSError, match="No space"):
            save(recording, path)
        assert [p.name for p in tmp_path.iterdir()] == before
        path.write_bytes(b"precious")
    assert path.read_bytes() == b"precious"


def test_refuses_a_keypoint_that_is_not_finite_where_it_was_observed(recording):
    t, v, j = np.argwhere(recording.confidence > 0)[7]
    for value in (np.nan, np.inf):
        keypoints = recording.keypoints.copy()
        keypoints[t, v, j, 1] = value
        place = f"frame {t}, view '{recording.views[v]}', joint '{recording.joints[j]}'"
        with pytest.raises(ValueError, match=f"{place} .*set the confidence"):
            replace(recording, keypoints=keypoints)


@pytest.mark.parametrize("value", [-0.01, 1.01, 87.0, np.nan])
def test_refuses_confidence_outside_zero_to_one(recording, value):
    confidence = recording.confidence.copy()
    confidence[2, 1, 3] = value
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]; scale"):
        replace(recording, confidence=confidence)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"keypoints": np.zeros((5, 3, 17, 3))}, r"keypoints are \(5, 3, 17, 3\), need"),
        ({"confidence": np.zeros((5, 3, 16))}, r"confidence is \(5, 3, 16\)"),
        ({"confidence": np.zeros((5, 1, 17))}, r"confidence is \(5, 1, 17\)"),
        ({"image_size": np.zeros((2, 2), int)}, r"image_size is \(2, 2\)"),
        ({"pose3d": np.zeros((5, 3, 17, 2))}, r"pose3d is \(5, 3, 17, 2\)"),
        ({"keypoints_true": np.zeros((4, 3, 17, 2))}, r"keypoints_true is \(4, 3, 17, 2\)"),
        ({"joints": np.array(skeleton.COCO18)}, "joints must be 17 different names"),
        ({"joints": np.array(["nose"] * 17)}, "joints must be 17 different names"),
        ({"joints": np.array("nose")}, "iteration over a 0-d array"),
        ({"views": np.array(["a", "b"])}, "views must be 3 different names"),
        ({"views": np.array(["a", "b", "a"])}, "views must be 3 different names"),
        ({"fps": np.array(0.0)}, "fps must be positive"),
        ({"fps": np.array(np.nan)}, "fps must be positive"),
        ({"fps": np.array("fast")}, "could not convert"),
        ({"keypoints": np.array("here")}, "could not convert"),
    ],
)
def test_refuses_arrays_that_disagree(arrays, tmp_path, change, match, monkeypatch):
    # Users run without shape checks of the annotations, which would answer first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    refused({**arrays, **change}, tmp_path, match)


def test_names_missing_keys(arrays, tmp_path):
    least = {"keypoints", "confidence", "joints", "views", "fps"}
    for name in least:
        rest = {key: array for key, array in arrays.items() if key != name}
        refused(rest, tmp_path, f"lacks {name}; write it with `canonlift convert`")
    refused({}, tmp_path, "lacks confidence, fps, joints, keypoints, views")


def test_other_keys_are_not_read(arrays, recording, tmp_path):
    np.savez(tmp_path / "more.npz", **arrays, calibration=np.eye(3))
    assert_same(load(tmp_path / "more.npz"), recording)


def test_a_damaged_file_is_refused_or_read_unharmed(recording, tmp_path):
    """Wherever it was cut or overwritten, no part of a recording or wrong number is returned."""
    path = tmp_path / "damaged.npz"
    save(recording, path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    cuts = [whole[:n] for n in (0, 3, 100, len(whole) // 2, len(whole) - 1)]
    places = rng.integers(len(whole) - 8, size=100)
    holes = [whole[:n] + rng.bytes(8) + whole[n + 8 :] for n in places]
    method = whole.index(b"PK\x01\x02") + 10  # how the first member is compressed
    unknown = whole[:method] + b"\x63" + whole[method + 1 :]
    damaged = [*cuts, *holes, unknown, b"keypoints, confidence\n1, 2\n"]
    refusals = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            assert_same(load(path), recording)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 (either way is right)
            refusals += 1
    assert refusals > 0.9 * len(damaged)


def test_refuses_a_single_array(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros((5, 3, 17, 2)))
    with pytest.raises(ValueError, match="not a readable .npz"):
        load(tmp_path / "one.npy")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.npz: no such file"):
        load(tmp_path / "nothing.npz")


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["joints", "rig", "unknown"])
def test_a_pickle_is_refused_and_never_run(arrays, tmp_path, name):
    mark = tmp_path / "executed"
    hostile = np.array([Hostile(mark)], dtype=object)
    refused({**arrays, name: hostile}, tmp_path, "not a readable .npz .*pickled objects")
    assert not mark.exists()
    np.load(tmp_path / "bad.npz", allow_pickle=True)[name]  # it would have run
    assert mark.exists()


def test_a_computed_joint_has_the_lowest_confidence_of_its_sources(recording):
    made = recording.on_skeleton(skeleton.H36M17)
    source = dict(zip(recording.joints, np.moveaxis(recording.confidence, -1, 0), strict=True))
    hips = np.minimum(source["l_hip"], source["r_hip"])
    shoulders = np.minimum(source["l_shoulder"], source["r_shoulder"])
    expected = {
        "pelvis": hips,
        "thorax": shoulders,
        "spine": np.minimum(hips, shoulders),
        "head": np.minimum(source["l_eye"], source["r_eye"]),
    }
    for j, name in enumerate(made.joints):
        expected_here = expected[name] if name in expected else source[name]
        np.testing.assert_array_equal(made.confidence[..., j], expected_here, err_msg=name)


def test_an_unobserved_joint_affects_only_joints_computed_from_it(recording):
    keypoints, confidence = recording.keypoints.copy(), recording.confidence.copy()
    pose3d = recording.pose3d.copy()
    keypoints[:], confidence[:] = 100.0, 0.5
    hip = recording.joints.index("l_hip")
    keypoints[1, 2, hip], confidence[1, 2, hip], pose3d[1, 2, hip, 0] = np.nan, 0, np.nan
    one = replace(recording, keypoints=keypoints, confidence=confidence, pose3d=pose3d)
    made = one.on_skeleton(skeleton.H36M17)
    for points in (made.keypoints, made.pose3d):
        lost = np.argwhere(np.isnan(points).any(-1))
        assert [(t, v, made.joints[j]) for t, v, j in lost] == [
            (1, 2, name) for name in ("pelvis", "l_hip", "spine")
        ]
    seen = ~np.isnan(made.keypoints)
    assert (made.keypoints[seen] == 100.0).all()


def test_truth_is_converted_as_the_detections_are(recording):
    one = replace(recording, keypoints_true=recording.keypoints)
    made = one.on_skeleton(skeleton.SKELETONS["limbs14"])
    np.testing.assert_array_equal(made.keypoints_true, made.keypoints)
    matrix = skeleton.conversion(recording.joints, made.joints)
    np.testing.assert_allclose(made.pose3d, matrix @ recording.pose3d, rtol=0, atol=1e-6)


def test_on_its_own_joints_nothing_changes_and_the_rest_is_kept(recording):
    assert_same(recording.on_skeleton(recording.joints), recording)
    made = recording.on_skeleton(skeleton.H36M17)
    for name in ("views", "fps", "rig", "image_size", "processing"):
        assert getattr(made, name) is getattr(recording, name)


def test_joints_that_cannot_be_computed_are_named(recording):
    with pytest.raises(ValueError, match="cannot make l_heel of the joints"):
        recording.on_skeleton(("pelvis", "l_heel"))


def test_partly_leaves_joints_that_cannot_be_computed_unobserved(recording):
    limbs = recording.on_skeleton(skeleton.SKELETONS["limbs14"])
    made = limbs.on_skeleton(skeleton.H36M17, partly=True)
    absent = [made.joints.index(name) for name in ("nose", "head")]
    assert (made.confidence[..., absent] == 0).all()
    for array in (made.keypoints, made.pose3d, made.keypoints_true):
        assert np.isnan(array[..., absent, :]).all()
    kept = tuple(name for name in skeleton.H36M17 if name not in ("nose", "head"))
    assert_same(made.on_skeleton(kept), limbs.on_skeleton(kept))
    with pytest.raises(ValueError, match="cannot make nose, head"):
        limbs.on_skeleton(skeleton.H36M17)


def test_partly_still_needs_the_root(recording):
    arms = recording.on_skeleton(("l_wrist", "r_wrist"))
    with pytest.raises(ValueError, match="cannot make pelvis"):
        arms.on_skeleton(skeleton.H36M17, partly=True)
