"""The pickles of CanonPose and of CVSF, in each layout and order of joints."""

import os
import pickle

import numpy as np
import pytest
from datasets_scene import camera, person

from canonlift.body.skeleton import H36M17, SKELETONS
from canonlift.readers.datasets import canonpose

VIEWS = ("54138969", "55011271", "58860488", "60457274")
H36M16 = SKELETONS["h36m16"]
SUBJECTS = [5, 9, 5, 5, 9]
# Which joint of h36m17 each column shows; MPII has an upper neck in place of the nose.
ORDERS = {
    "h36m16": [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16],
    "canonpose16": [1, 2, 3, 4, 5, 6, 0, 8, 9, 10, 14, 15, 16, 11, 12, 13],
    "mpii16": [3, 2, 1, 4, 5, 6, 0, 8, 9, 10, 16, 15, 14, 11, 12, 13],
}
WORLD = person(len(SUBJECTS), seed=7)


def lens(view):
    return camera(80 * view + 20, 5, roll_deg=view)


def scores(view):
    return np.random.default_rng(view).uniform(0, 1, (len(SUBJECTS), 16))


def seen(view):
    """(N, 17, 2) with a detector's errors of a few pixels, also at the hips."""
    errors = np.random.default_rng(10 + view).normal(0, 4, (len(SUBJECTS), 17, 2))
    return lens(view).pixels(WORLD) + errors


def canonpose_pickle(order="mpii16"):
    """`detections.pickle`: all x before all y."""
    flat = {
        v: seen(i)[:, ORDERS[order]].swapaxes(1, 2).reshape(-1, 32) for i, v in enumerate(VIEWS)
    }
    return {
        "subjects": list(SUBJECTS),
        "poses_2d_pred": flat,
        "confidences": {v: scores(i) for i, v in enumerate(VIEWS)},
    }


def cvsf_pickle(order="h36m16", unit=1000, true_order="h36m16"):
    """`alphapose_2d3dgt_img_h36m.pickle`: (N, 16, 2), and truth."""
    index = ORDERS[true_order]
    true = {v: lens(i).pixels(WORLD)[:, index] for i, v in enumerate(VIEWS)}
    pose = {
        v: unit * lens(i).in_camera(WORLD)[:, index].reshape(-1, 48) for i, v in enumerate(VIEWS)
    }
    return {
        **canonpose_pickle(),
        "poses_2d_pred": {v: seen(i)[:, ORDERS[order]] for i, v in enumerate(VIEWS)},
        "p2d_gt": true,
        "p3d_gt": pose,
        "images": {v: [f"s_05_act_02/{i:06d}.jpg" for i in range(5)] for v in VIEWS},
    }


def read(content, tmp_path, **options):
    path = tmp_path / "detections.pickle"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    return dict(canonpose.read(path, **options))


def check_detections(recordings, order):
    assert list(recordings) == ["train_s5", "test_s9"]
    for subject, recording in zip((5, 9), recordings.values(), strict=True):
        rows = np.array(SUBJECTS) == subject
        assert recording.joints == H36M16
        assert recording.views == VIEWS
        assert recording.fps == 50
        assert recording.rig == f"human36m_s{subject}"
        for view in range(4):
            for name in H36M16:
                joint = H36M17.index(name)
                column = recording.keypoints[:, view, H36M16.index(name)]
                np.testing.assert_allclose(column, seen(view)[rows, joint], rtol=1e-5)
                column = recording.confidence[:, view, H36M16.index(name)]
                known = scores(view)[rows, ORDERS[order].index(joint)]
                np.testing.assert_allclose(column, known, rtol=1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_canonpose_has_all_x_first_in_an_order_that_is_found(order, tmp_path):
    recordings = read(canonpose_pickle(order), tmp_path)
    check_detections(recordings, order)
    assert all(
        recording.pose3d is None and recording.keypoints_true is None
        for recording in recordings.values()
    )


@pytest.mark.parametrize("order", ORDERS)
def test_cvsf_has_joints_first_in_an_order_that_is_found(order, tmp_path):
    check_detections(read(cvsf_pickle(order), tmp_path), order)


@pytest.mark.parametrize("unit", [1, 1000])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("true_order", ["h36m16", "canonpose16"])
def test_cvsf_has_truth_in_metres_or_millimetres(unit, flat, true_order, tmp_path):
    content = cvsf_pickle(unit=unit, true_order=true_order)
    if not flat:
        content["p3d_gt"] = {v: pose.reshape(-1, 16, 3) for v, pose in content["p3d_gt"].items()}
    recordings = read(content, tmp_path)
    for subject, recording in zip((5, 9), recordings.values(), strict=True):
        rows = np.array(SUBJECTS) == subject
        for view in range(4):
            index = ORDERS["h36m16"]
            pose = lens(view).in_camera(WORLD)[rows][:, index]
            np.testing.assert_allclose(recording.pose3d[:, view], pose, atol=1e-5)
            true = lens(view).pixels(WORLD)[rows][:, index]
            np.testing.assert_allclose(recording.keypoints_true[:, view], true, rtol=1e-5)


def test_the_unit_of_poses_without_position_and_size_is_found_as_well(tmp_path):
    """Some hand out poses that are centred on the root and divided by their norm."""
    content = canonpose_pickle("canonpose16")
    for view, flat in content["poses_2d_pred"].items():
        points = flat.reshape(-1, 2, 16)
        points = (points - points[:, :, [6]]).reshape(-1, 32)
        content["poses_2d_pred"][view] = points / np.linalg.norm(points, axis=1, keepdims=True)
    recording = read(content, tmp_path)["train_s5"]
    assert (recording.keypoints[:, :, 0] == 0).all()
    assert (np.abs(recording.keypoints[:, :, H36M16.index("head")]) > 0.05).any()


def test_cameras_may_be_numbers(tmp_path):
    content = canonpose_pickle()
    for key in ("poses_2d_pred", "confidences"):
        content[key] = {int(view): array for view, array in content[key].items()}
    check_detections(read(content, tmp_path), "mpii16")


def test_an_unknown_order_is_refused_but_can_be_named(tmp_path):
    content = cvsf_pickle()
    content["poses_2d_pred"] = {
        view: points[:, [15, *range(15)]] for view, points in content["poses_2d_pred"].items()
    }
    with pytest.raises(
        ValueError, match=r"detections.pickle: in no known order .* name the layout"
    ):
        read(content, tmp_path)
    recording = read(content, tmp_path, layout="h36m16", fps=10.0)["train_s5"]
    assert recording.joints == H36M16
    assert recording.fps == 10


class Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_hostile_pickle_is_not_run(tmp_path):
    for content in (
        Payload(tmp_path / "mark"),
        {**cvsf_pickle(), "x": Payload(tmp_path / "mark")},
    ):
        with pytest.raises(
            ValueError, match=r"detections.pickle: refused, its pickle calls .*system"
        ):
            read(content, tmp_path)
    assert not (tmp_path / "mark").exists()


def put(key, value):
    return lambda c: c.update({key: value})


def put_view(key, function):
    return lambda c: c[key].update({VIEWS[1]: function(c[key][VIEWS[1]])})


def all_x_first(flat):
    return flat.reshape(-1, 16, 3).swapaxes(1, 2).reshape(-1, 48)


def unseen(content):
    content["poses_2d_pred"] = {v: np.nan * a for v, a in content["poses_2d_pred"].items()}


def in_kilometres(content):
    content["p3d_gt"] = {view: 1e-6 * pose for view, pose in content["p3d_gt"].items()}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.pop("subjects"), "lacks subjects"),
        (lambda c: c.pop("confidences"), "lacks confidences"),
        (lambda c: c.pop("p2d_gt"), "lacks p2d_gt"),
        (lambda c: c["poses_2d_pred"].pop(VIEWS[2]), "poses_2d_pred: lacks 58860488"),
        (put("poses_2d_pred", [1, 2]), "poses_2d_pred: holds a list, not a dictionary"),
        (put("subjects", ["S5"] * 5), "subjects: not an array of numbers"),
        (put("subjects", [5, 5, np.nan, 9, 9]), "subjects: not whole numbers"),
        (put("subjects", []), "has no rows"),
        (unseen, "in no known order"),
        (put("subjects", [5] * 4), r"camera 54138969: shape \(5, 16, 2\), need \(4, 16, 2\)"),
        (put_view("poses_2d_pred", lambda a: a[:, :14]), r"55011271: shape \(5, 14, 2\)"),
        (put_view("poses_2d_pred", lambda a: a.reshape(5, 32)[:, :30]), r"shape \(5, 30\)"),
        (put_view("poses_2d_pred", lambda a: a.swapaxes(1, 2)), r"shape \(5, 2, 16\)"),
        (put_view("confidences", lambda a: a[:3]), r"confidences of camera 55011271: shape"),
        (put_view("confidences", lambda a: 6 * a + 3), r"scores of .* scale them"),
        (put_view("p3d_gt", all_x_first), "do not project"),
        (in_kilometres, "neither m nor mm"),
    ],
)  # fmt: skip
def test_the_message_names_what_is_wrong(spoil, message, tmp_path):
    content = cvsf_pickle()
    spoil(content)
    with pytest.raises(ValueError, match=rf"detections.pickle.*{message}"):
        read(content, tmp_path)


def test_truncated_or_missing_files_are_named(tmp_path):
    whole = pickle.dumps(cvsf_pickle())
    for end in range(0, len(whole), len(whole) // 20):
        with pytest.raises(ValueError, match=r"detections.pickle: not a readable pickle"):
            read(whole[:end], tmp_path)
    with pytest.raises(FileNotFoundError, match=r"other.pickle: no such file; give the pickle"):
        dict(canonpose.read(tmp_path / "other.pickle"))
