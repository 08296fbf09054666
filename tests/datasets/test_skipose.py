"""SkiPose-PTZ labels, written in their layout by cameras that pan and zoom."""

import json

import h5py
import numpy as np
import pytest
from datasets_scene import camera, person

from canonlift.body.skeleton import COCO17, H36M17
from canonlift.readers.datasets import skipose

# subject, sequence, first frame, number of frames: numbers repeat on purpose
TAKES = [(1, 3, 10, 5), (2, 3, 10, 4), (1, 4, 12, 3)]
LOST = {(1, 3, 1, 12), (1, 3, 4, 10), (2, 3, 0, 13)}  # subject, sequence, camera, frame


def rows():
    """One dict per image, as a camera with its own pan and zoom sees it."""
    for subject, sequence, first, n_frames in TAKES:
        world = person(n_frames, seed=10 * subject + sequence)
        for index, view in ((t, v) for t in range(n_frames) for v in (0, 1, 4)):
            frame = first + index
            if (subject, sequence, view, frame) in LOST:
                continue
            lens = camera(40 * view + 3 * index, 15 + view, roll_deg=index)
            pose = lens.in_camera(world[index : index + 1])[0]
            flat = pose[:, :2] / pose[:, 2:]
            zoom = 0.8 / np.ptp(flat, axis=0).max() * (1 - 0.05 * index)
            centre = 0.5 - zoom * (flat.min(0) + flat.max(0)) / 2 + 0.02 * index
            inner = np.array([[zoom, 0, centre[0]], [0, zoom, centre[1]], [0, 0, 1]])
            yield {
                "subj": subject, "seq": sequence, "cam": view, "frame": frame,
                "3D": (pose - pose[0]).ravel(), "2D": (zoom * flat + centre).ravel(),
                "cam_intrinsic": inner, "cam_position": lens.position,
                "R_cam_2_world": lens.rotation.T, "root": world[index, 0],
            }  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return list(rows())


@pytest.fixture
def folder(tmp_path, images):
    """Rows in no order, all numbers as floats; the test split has one sequence."""
    for split, kept in (("train", images), ("test", [r for r in images if r["seq"] == 4])):
        (tmp_path / split).mkdir()
        order = np.random.default_rng(0).permutation(len(kept))
        with h5py.File(tmp_path / split / "labels.h5", "w") as file:
            for key in kept[0]:
                if key != "root":
                    file[key] = np.array([kept[i][key] for i in order], dtype=np.float64)
    return tmp_path


def by_key(images):
    return {(r["subj"], r["seq"], r["cam"], r["frame"]): r for r in images}


def test_groups_rows_by_subject_and_sequence_in_the_official_split(folder):
    recordings = dict(skipose.read(folder))
    assert list(recordings) == [
        "train_s1_seq003",
        "train_s1_seq004",
        "train_s2_seq003",
        "test_s1_seq004",
    ]
    assert [recording.n_frames for recording in recordings.values()] == [5, 3, 4, 3]
    for recording in recordings.values():
        assert recording.views == ("cam_00", "cam_01", "cam_04")
        assert recording.joints == H36M17
        assert recording.rig == ""  # the cameras move
        assert (recording.image_size == 256).all()
    assert np.array_equal(
        recordings["train_s1_seq004"].pose3d, recordings["test_s1_seq004"].pose3d
    )


def test_every_image_is_at_its_frame_and_view_and_missing_ones_are_masked(folder, images):
    recordings, known = dict(skipose.read(folder)), by_key(images)
    for subject, sequence, first, n_frames in TAKES:
        recording = recordings[f"train_s{subject}_seq{sequence:03d}"]
        for index, view in ((t, v) for t in range(n_frames) for v in range(3)):
            row = known.get((subject, sequence, (0, 1, 4)[view], first + index))
            at = index, view
            if row is None:
                assert (recording.confidence[at] == 0).all()
                assert np.isnan(recording.keypoints[at]).all()
                assert np.isnan(recording.pose3d[at]).all()
                assert np.isnan(recording.keypoints_true[at]).all()
            else:
                assert (recording.confidence[at] == 1).all()
                np.testing.assert_allclose(
                    recording.keypoints[at], 256 * row["2D"].reshape(17, 2), rtol=1e-6
                )
                np.testing.assert_allclose(
                    recording.pose3d[at], row["3D"].reshape(17, 3), atol=1e-6
                )


def test_axes_are_right_down_away_in_metres(folder, images):
    """The poses project onto the keypoints through the given, normalised intrinsics."""
    recording, known = dict(skipose.read(folder))["train_s1_seq003"], by_key(images)
    for index in range(5):
        row = known.get((1, 3, 0, 10 + index))
        root = row["R_cam_2_world"].T @ (row["root"] - row["cam_position"])
        pixels = (recording.pose3d[index, 0] + root) @ (
            np.diag([256, 256, 1]) @ row["cam_intrinsic"]
        ).T
        np.testing.assert_allclose(
            pixels[:, :2] / pixels[:, 2:], recording.keypoints[index, 0], atol=1e-3
        )
        assert (recording.pose3d[index, 0, 0] == 0).all()  # centred on the pelvis


def test_a_frame_that_no_camera_has_is_absent(folder):
    with h5py.File(folder / "train/labels.h5", "r+") as file:
        file["frame"][file["frame"][()] == 14] = 40
    recordings = dict(skipose.read(folder))
    assert recordings["train_s1_seq003"].n_frames == 5


def test_a_camera_that_missed_a_whole_sequence_keeps_its_place(folder):
    with h5py.File(folder / "train/labels.h5", "r+") as file:
        there = (file["seq"][()] != 4) | (file["cam"][()] != 1)
        for key in list(file):
            kept = file[key][()][there]
            del file[key]
            file[key] = kept
    recording = dict(skipose.read(folder))["train_s1_seq004"]
    assert recording.views == ("cam_00", "cam_01", "cam_04")
    assert (recording.confidence == np.array([1, 0, 1])[:, None]).all()
    assert np.isnan(recording.pose3d[:, 1]).all()


def test_the_cameras_of_the_labels_are_never_asked_for(folder):
    known = dict(skipose.read(folder))
    with h5py.File(folder / "train/labels.h5", "r+") as file:
        for key in ("cam_intrinsic", "cam_position", "R_cam_2_world"):
            del file[key]
    for name, recording in skipose.read(folder):
        np.testing.assert_array_equal(recording.pose3d, known[name].pose3d)


def test_numbers_may_be_columns(folder):
    known = dict(skipose.read(folder))
    for key in ("subj", "seq", "cam", "frame"):
        change(folder, key, lambda column: column[:, None])
    for name, recording in skipose.read(folder):
        np.testing.assert_array_equal(recording.keypoints, known[name].keypoints)


def test_the_name_of_a_file_of_labels_is_its_split(folder):
    """ZeDO and others call test/labels.h5 ski_test.h5."""
    assert list(dict(skipose.read(folder / "test/labels.h5"))) == ["test_s1_seq004"]
    (folder / "train/labels.h5").rename(folder / "ski_train.h5")
    assert len(dict(skipose.read(folder / "ski_train.h5"))) == 3
    (folder / "ski_train.h5").rename(folder / "ski.h5")
    with pytest.raises(ValueError, match=r"ski.h5: train or test\? Call it train/labels.h5"):
        dict(skipose.read(folder / "ski.h5"))


def people(images, joints, prefix="train/", score=0.9):
    """AlphaPose's list: a bystander with lower scores comes before and after each skier."""
    entries = []
    for row in images:
        if row["frame"] == 11:
            continue  # nobody was detected there
        points = np.random.default_rng(row["frame"]).uniform(0, 256, (len(joints), 3))
        name = f"{prefix}seq_{row['seq']:03d}/cam_{row['cam']:02d}/image_{row['frame']:06d}.png"
        for sure in (0.3, score, 0.2):
            points[:, 2] = np.linspace(sure, sure / 2, len(joints))
            shifted = points + [0.0 if sure == score else 50.0, 0, 0]
            entries.append(
                {
                    "image_id": name,
                    "category_id": 1,
                    "keypoints": shifted.ravel().tolist(),
                    "score": 3.1,
                    "idx": [1],
                }  # fmt: skip
            )
    return entries


def expected(frame, joints):
    return np.random.default_rng(frame).uniform(0, 256, (len(joints), 3))[:, :2]


def test_reads_the_detection_of_highest_score_of_each_image(folder, images, tmp_path):
    images = [row for row in images if row["subj"] == 1]
    (tmp_path / "results.json").write_text(json.dumps(people(images, COCO17)))
    recording = dict(skipose.read(folder / "train", tmp_path / "results.json"))["train_s1_seq003"]
    annotated = dict(skipose.read(folder))["train_s1_seq003"]
    found = expected(13, COCO17)
    wrist, nose = H36M17.index("l_wrist"), H36M17.index("nose")
    np.testing.assert_allclose(recording.keypoints[3, 0, wrist], found[9], rtol=1e-6)
    np.testing.assert_allclose(recording.keypoints[3, 0, nose], found[0], rtol=1e-6)
    np.testing.assert_allclose(
        recording.keypoints[3, 0, 0], (found[11] + found[12]) / 2, rtol=1e-6
    )  # the pelvis is made of the hips, as sure as the less sure of them
    scores = np.linspace(0.9, 0.45, 17)
    np.testing.assert_allclose(recording.confidence[3, 0, [wrist, 0]], scores[[9, 12]], rtol=1e-6)
    assert (recording.confidence[1] == 0).all()  # frame 11: no detection
    assert (recording.confidence[2, 1] == 0).all()  # frame 12 of camera 1: no image
    np.testing.assert_array_equal(recording.keypoints_true, annotated.keypoints_true)
    np.testing.assert_array_equal(recording.pose3d, annotated.pose3d)


@pytest.mark.parametrize("form", ["instances by path", "one list per camera", "windows"])
def test_reads_each_way_to_key_detections_by_image(form, folder, images, tmp_path):
    results = tmp_path / "results.json"
    entries = people([r for r in images if r["seq"] == 4], COCO17)
    if form == "instances by path":
        keyed = {}
        for entry in entries:
            points = np.array(entry["keypoints"]).reshape(-1, 3)
            keyed.setdefault("/data/ski/" + entry["image_id"], []).append(
                {
                    "keypoints": points[:, :2].tolist(),
                    "keypoint_scores": points[:, 2].tolist(),
                    "bbox": [[0, 0, 256, 256]],
                    "bbox_score": 0.5,
                }  # fmt: skip
            )
        results.write_text(json.dumps(keyed))
    elif form == "windows":
        for entry in entries:
            entry["image_id"] = entry["image_id"].replace("/", "\\")
        results.write_text(json.dumps(entries))
    else:  # AlphaPose writes mere file names
        results = tmp_path / "results"
        for entry in entries:
            folder_name, _, entry["image_id"] = entry["image_id"].rpartition("/")
            file = results / folder_name / "alphapose-results.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            there = json.loads(file.read_text()) if file.is_file() else []
            file.write_text(json.dumps([*there, entry]))
    (folder / "test/labels.h5").unlink()
    recording = dict(skipose.read(folder, results))["train_s1_seq004"]
    found = expected(13, COCO17)
    np.testing.assert_allclose(
        recording.keypoints[1, 2, H36M17.index("r_ankle")], found[16], rtol=1e-6
    )


# Of detectors with other joints: what each joint of h36m17 is made of.
DETECTORS = {
    16: {"pelvis": [6], "thorax": [7], "nose": [8], "head": [9], "spine": [6, 7], "r_knee": [1],
         "l_knee": [4], "r_wrist": [10], "l_elbow": [14]},
    26: {"pelvis": [19], "thorax": [18], "nose": [0], "head": [17], "spine": [18, 19],
         "r_knee": [14], "l_knee": [13], "r_wrist": [10], "l_elbow": [7]},
}  # fmt: skip


@pytest.mark.parametrize("n_joints", DETECTORS)
def test_recognises_detectors_by_the_number_of_their_joints(n_joints, folder, images, tmp_path):
    results = tmp_path / "r.json"
    results.write_text(json.dumps(people(images, range(n_joints), "")))
    recording = dict(skipose.read(folder, results))["train_s2_seq003"]
    found = expected(12, range(n_joints))
    for name, parts in DETECTORS[n_joints].items():
        point = recording.keypoints[2, 1, H36M17.index(name)]
        np.testing.assert_allclose(point, found[parts].mean(axis=0), rtol=1e-6)
    with pytest.raises(ValueError, match="no layout 'mpi'"):
        dict(skipose.read(folder, results, "mpi"))
    with pytest.raises(ValueError, match=rf"people of \[{n_joints}\] joints"):
        dict(skipose.read(folder, results, "coco17"))


def test_the_split_is_part_of_the_image_where_it_is_given(folder, images, tmp_path):
    """Train and test number their sequences alike."""
    kept = [row for row in images if row["seq"] == 4]
    (tmp_path / "r.json").write_text(json.dumps(people(kept, COCO17, "test/")))
    with pytest.raises(ValueError, match=r"r.json: has none of the .* train images"):
        dict(skipose.read(folder, tmp_path / "r.json"))
    (tmp_path / "r.json").write_text(json.dumps(people(kept, COCO17, "")))
    assert "test_s1_seq004" in dict(skipose.read(folder, tmp_path / "r.json"))


def test_scores_above_one_are_clipped_but_another_scale_is_refused(folder, images, tmp_path):
    results = tmp_path / "r.json"
    results.write_text(json.dumps(people(images, COCO17, score=1.3)))
    recording = dict(skipose.read(folder / "train", results, fps=50.0))["train_s1_seq003"]
    assert recording.confidence.max() == 1
    assert recording.fps == 50
    results.write_text(json.dumps(people(images, COCO17, score=6.0)))
    with pytest.raises(ValueError, match=r"r.json: .*scores of .* scale them"):
        dict(skipose.read(folder, results))


def one_person(image, n_joints):
    return json.dumps([{"image_id": image, "keypoints": [0.5] * 3 * n_joints}])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not the results of AlphaPose or MMPose"),
        ('[{"image_id": "a"}]', "KeyError: 'keypoints'"),
        (one_person("image_000012.png", 17), "does not tell its sequence and camera"),
        (one_person("a/b/c.png", 17), "none of the"),
        (one_person("a/b/c.png", 21), r"\[21\] joints"),
        ("[]", "people of no joints"),
        ("[" * 100_000, "RecursionError"),
        ("7", "TypeError"),
        (one_person("a/b/c.png", 17).replace("0.5", "1e300"), "keypoints: a value of inf"),
    ],
)
def test_other_json_is_a_clear_error(content, message, folder, tmp_path):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(ValueError, match=rf"r.json: .*{message}"):
        dict(skipose.read(folder, tmp_path / "r.json"))


def change(folder, key, function):
    with h5py.File(folder / "train/labels.h5", "r+") as file:
        values = function(file[key][()])
        del file[key]
        if values is not None:
            file[key] = values


@pytest.mark.parametrize(
    ("key", "function", "message"),
    [
        ("2D", lambda _: None, "lacks 2D .it has 3D, R_cam"),
        ("subj", lambda _: None, "lacks subj"),
        ("3D", lambda a: a[:, :48], r"3D: shape \(\d+, 48\), need \(\d+, 51\)"),
        ("2D", lambda a: a[:, :32], r"2D: shape \(\d+, 32\), need \(\d+, 34\)"),
        ("2D", lambda a: 256 * a, r"2D is not in \[0, 1\]"),
        ("frame", lambda a: a + 0.5, "frame: not whole numbers"),
        ("cam", lambda a: a[:-1], "differ in length"),
        ("frame", lambda a: 0 * a, "two rows for one image"),
        ("3D", lambda a: a.reshape(-1, 17, 3)[:, :, [0, 2, 1]].reshape(-1, 51), "do not project"),
        ("3D", lambda a: -a, "do not project .* correlate by -"),
        ("3D", lambda a: a.astype("S8").astype("O") + b"?", "3D: not an array of numbers"),
        ("3D", lambda _: np.array(7.0), "3D: shape"),
        ("3D", lambda a: 1e300 * a, "3D: a value of inf; damaged"),
        ("cam", lambda a: 1e12 * (a + 1), r"cam: a value of 5e\+12; damaged"),
        ("cam", lambda a: np.nan * a, "cam: not whole numbers"),
        ("3D", lambda a: 1000 * a, "3D in another unit"),
        ("2D", lambda a: np.nan * a, "2D has no rows with numbers"),
    ],
)  # fmt: skip
def test_other_labels_are_a_clear_error(key, function, message, folder):
    change(folder, key, function)
    with pytest.raises(ValueError, match=rf"labels.h5.*{message}"):
        dict(skipose.read(folder))


def test_labels_without_rows_are_named(folder):
    """One split must not go missing in silence because the other is there."""
    for key in (*skipose.IDS, "3D", "2D"):
        change(folder, key, lambda column: column[:0])
    with pytest.raises(ValueError, match=r"train/labels.h5: 2D has no rows"):
        dict(skipose.read(folder))


def test_labels_that_claim_to_be_huge_are_not_read(folder):
    with h5py.File(folder / "train/labels.h5", "r+") as file:
        del file["3D"]
        file.create_dataset("3D", (10**9, 51), dtype="f8", chunks=(1000, 51))
    with pytest.raises(ValueError, match=r"labels.h5: unpacks to 380.0 GiB, more than any known"):
        dict(skipose.read(folder))


def test_truncated_or_missing_labels_are_named(folder, tmp_path):
    whole = (folder / "train/labels.h5").read_bytes()
    for end in (0, 100, 2000, len(whole) // 2):
        (folder / "train/labels.h5").write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"train/labels.h5: not a readable HDF5 file"):
            dict(skipose.read(folder))
    with pytest.raises(FileNotFoundError, match=r"train/labels.h5 nor test/labels.h5"):
        dict(skipose.read(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"people.json: no such file"):
        dict(skipose.read(folder, tmp_path / "people.json"))
