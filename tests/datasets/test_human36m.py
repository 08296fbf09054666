"""Human3.6M as VideoPose3D and as Martinez et al. hand it out, from one known recording."""

import re

import h5py
import numpy as np
import pytest
from datasets_scene import camera, person
from scipy.spatial.transform import Rotation

from canonlift.body.skeleton import COCO17, H36M17
from canonlift.readers.datasets import human36m

VIEWS = ("54138969", "55011271", "58860488", "60457274")
# k1 k2 p1 p2 k3, as strong as those of the real cameras
LENS = [
    (-0.207, 0.248, -0.001, -0.0014, -0.003, 0, 0, 0),
    (-0.19, 0.24, 0.0016, 0.0027, 0.007, 0, 0, 0),
]
ACTIONS = {("S1", "Directions"): 6, ("S1", "Sitting 1"): 4, ("S9", "SittingDown 2"): 5}
# Where the 17 joints are among the 32; the others repeat them, as in the data.
AMONG_32 = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]


def rig(subject):
    """Other places for each subject, as in the data."""
    return [
        camera(80 * v + subject, 4.5 + 0.2 * v, roll_deg=v, size=(1000, 1000), lens=LENS[v % 2])
        for v in range(4)
    ]


def world(key):
    return person(ACTIONS[key], seed=sum(map(ord, "".join(key))))


def all_joints(points):
    filled = np.random.default_rng(3).normal(0, 1, (len(points), 32, 3))
    filled[:, AMONG_32] = points
    return filled


def noisy(key, joints, view, extra=0):
    """What a detector saw, `extra` frames longer than the motion capture."""
    rng = np.random.default_rng(view)
    return rng.uniform(0, 1000, (ACTIONS[key] + extra, len(joints), 2)).astype(np.float32)


def save_object_npz(path, **contents):
    np.savez_compressed(path, **{k: np.array(v, dtype=object) for k, v in contents.items()})


METADATA = {
    "coco": {"layout_name": "coco", "num_joints": 17, "keypoints_symmetry": [
        [1, 3, 5, 7, 9, 11, 13, 15], [2, 4, 6, 8, 10, 12, 14, 16]]},
    # Files of VideoPose3D's first version have no name
    "gt": {"num_joints": 17, "keypoints_symmetry": [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]]},
    "sh": {"num_joints": 16, "keypoints_symmetry": [[3, 4, 5, 13, 14, 15], [0, 1, 2, 10, 11, 12]]},
}  # fmt: skip


@pytest.fixture
def videopose(tmp_path):
    """`data_3d_h36m.npz`, three detectors, and VideoPose3D's source with the cameras."""
    positions, flat = {}, {name: {} for name in METADATA}
    for subject, action in ACTIONS:
        key = (subject, action)
        positions.setdefault(subject, {})[action] = all_joints(world(key)).astype(np.float32)
        for name, about in METADATA.items():
            joints = range(about["num_joints"])
            # the videos go on, and not all for equally long
            views = [noisy(key, joints, v, extra=v) for v in range(4)]
            flat[name].setdefault(subject, {})[action] = views
            flat[name].setdefault("S11", {})["Directions"] = views  # 2D without 3D
    save_object_npz(tmp_path / "data_3d_h36m.npz", positions_3d=positions)
    for name, about in METADATA.items():
        save_object_npz(
            tmp_path / f"data_2d_h36m_{name}.npz", positions_2d=flat[name], metadata=about
        )
    inner = [
        {"id": view, "center": list(c.centre), "focal_length": list(c.focal),
         "radial_distortion": [c.lens[0], c.lens[1], c.lens[4]],
         "tangential_distortion": list(c.lens[2:4]), "res_w": 1000, "res_h": 1002, "azimuth": 70}
        for view, c in zip(VIEWS, rig(1), strict=True)
    ]  # fmt: skip
    outer = {"S2": [{}, {}, {}, {}]}
    for subject in (1, 9):
        outer[f"S{subject}"] = [
            {"orientation": np.roll(Rotation.from_matrix(c.rotation.T).as_quat(), 1).tolist(),
             "translation": (1000 * c.position).tolist()}
            for c in rig(subject)
        ]  # fmt: skip
    (tmp_path / "h36m_dataset.py").write_text(
        "import nothing_that_exists\nfrom common.skeleton import Skeleton\n\n"
        f"h36m_skeleton = Skeleton(parents=[-1])\nh36m_cameras_intrinsic_params = {inner!r}\n\n"
        f"h36m_cameras_extrinsic_params = {outer!r}\n\nclass Human36mDataset(MocapDataset):\n"
        "    raise SystemExit('must not be run')\n"
    )
    return tmp_path


@pytest.fixture
def martinez(tmp_path):
    """`cameras.h5`, 3D and hourglass detections, with Matlab's transposed arrays."""
    with h5py.File(tmp_path / "cameras.h5", "w") as file:
        for subject in (1, 9):
            for number, (view, c) in enumerate(zip(VIEWS, rig(subject), strict=True), 1):
                group = file.create_group(f"subject{subject}/camera{number}")
                group["R"] = c.rotation.T
                group["T"] = 1000 * c.position[:, None]
                group["f"], group["c"] = np.array(c.focal)[:, None], np.array(c.centre)[:, None]
                group["k"] = np.array([c.lens[0], c.lens[1], c.lens[4]])[:, None]
                group["p"] = np.array(c.lens[2:4])[:, None]
                group["Name"] = np.array([[ord(letter)] for letter in view], dtype=np.uint16)
    for subject, action in ACTIONS:
        key = (subject, action)
        poses, seen = (
            tmp_path / subject / name for name in ("MyPoses/3D_positions", "StackedHourglass")
        )
        poses.mkdir(parents=True, exist_ok=True)
        seen.mkdir(parents=True, exist_ok=True)
        with h5py.File(poses / f"{action}.h5", "w") as file:
            file["3D_positions"] = 1000 * all_joints(world(key)).reshape(-1, 96).T
        for number, view in enumerate(VIEWS):
            if (subject, number) == ("S9", 0):
                continue  # a damaged video
            with h5py.File(seen / f"{action.replace(' ', '_')}.{view}.h5", "w") as file:
                file["poses"] = noisy(key, range(16), number).astype(np.float64)
    return tmp_path


def check_truth(recordings):
    """Camera axes by each subject's own cameras; pixels by Human3.6M's own lens formula."""
    assert list(recordings) == [
        "train_s1_Directions",
        "train_s1_Sitting-1",
        "test_s9_SittingDown-2",
    ]
    for (subject, action), name in zip(ACTIONS, recordings, strict=True):
        recording = recordings[name]
        assert recording.views == VIEWS
        assert recording.fps == 50
        assert (
            recording.rig == f"human36m_{subject.lower()}"
        )  # fixed, but set up anew for each subject
        assert recording.image_size.tolist() == [
            [1000, 1002],
            [1000, 1000],
            [1000, 1000],
            [1000, 1002],
        ]
        index = [H36M17.index(joint) for joint in recording.joints]
        for view, lens in enumerate(rig(int(subject[1:]))):
            known = world((subject, action))[:, index]
            np.testing.assert_allclose(recording.pose3d[:, view], lens.in_camera(known), atol=1e-5)
            pixels = lens.pixels(known, mixed=1)
            np.testing.assert_allclose(recording.keypoints_true[:, view], pixels, atol=0.02)


def test_videopose_truth_is_in_camera_axes_by_the_cameras_of_its_source(videopose):
    recordings = dict(human36m.read(videopose, cameras=videopose / "h36m_dataset.py"))
    check_truth(recordings)
    for recording in recordings.values():  # without detections, the truth is what is seen
        assert recording.joints == H36M17
        np.testing.assert_array_equal(recording.keypoints, recording.keypoints_true)
        assert (recording.confidence == 1).all()


def test_3d_that_is_already_reduced_to_17_joints_is_read_alike(videopose):
    def reduce(positions):
        for actions in positions.values():
            for action, points in actions.items():
                actions[action] = points[:, AMONG_32]

    rewrite(videopose / "data_3d_h36m.npz", reduce, "positions_3d")
    check_truth(dict(human36m.read(videopose, cameras=videopose / "h36m_dataset.py")))


def test_martinez_truth_is_in_camera_axes_by_cameras_h5(martinez):
    check_truth(dict(human36m.read(martinez)))


def test_both_layouts_and_camera_files_agree(videopose, martinez):
    """The fixtures share a folder: each layout with the cameras of the other."""
    by_source = human36m.read_cameras(videopose / "h36m_dataset.py")
    by_h5 = human36m.read_cameras(martinez / "cameras.h5")
    assert set(by_source) == set(by_h5) == {f"S{s}/{v}" for s in (1, 9) for v in VIEWS}
    known = person(1)
    for key, one in by_source.items():
        if key.startswith("S1/"):  # VideoPose3D has one lens per camera, whoever the subject
            other = by_h5[key]
            np.testing.assert_allclose(one.to_camera(known), other.to_camera(known), atol=1e-5)
            np.testing.assert_allclose(
                one.project(one.to_camera(known)), other.project(other.to_camera(known)), atol=0.01
            )


def test_frames_after_the_motion_capture_are_cut_off(videopose):
    recordings = dict(human36m.read(videopose, "data_2d_h36m_gt.npz"))
    key = ("S1", "Sitting 1")
    recording = recordings["train_s1_Sitting-1"]
    assert recording.keypoints.shape == (4, 4, 17, 2)
    assert recording.joints == H36M17
    for view in range(4):
        np.testing.assert_array_equal(
            recording.keypoints[:, view], noisy(key, H36M17, view, view)[:4]
        )


def test_without_cameras_there_is_no_truth(videopose):
    recordings = dict(human36m.read(videopose / "data_3d_h36m.npz", "data_2d_h36m_gt.npz"))
    for recording in recordings.values():
        assert recording.pose3d is None
        assert recording.keypoints_true is None
    with pytest.raises(ValueError, match=r"takes cameras; give VideoPose3D's common/h36m_dataset"):
        dict(human36m.read(videopose))


def test_coco_detections_are_brought_to_the_joints_of_the_truth(videopose):
    source = videopose / "h36m_dataset.py"
    recordings = dict(human36m.read(videopose, "data_2d_h36m_coco.npz", source))
    check_truth(recordings)
    seen = noisy(("S1", "Directions"), COCO17, 2)[:6]
    recording = recordings["train_s1_Directions"]
    for name, joints in {"l_wrist": ["l_wrist"], "pelvis": ["l_hip", "r_hip"]}.items():
        mean = seen[:, [COCO17.index(joint) for joint in joints]].mean(axis=1)
        np.testing.assert_allclose(recording.keypoints[:, 2, H36M17.index(name)], mean, rtol=1e-6)


def test_scores_in_a_third_column_are_the_confidence(videopose):
    entries = {("S1", a): n for (s, a), n in ACTIONS.items() if s == "S1"}
    scores = np.random.default_rng(0).uniform(0, 1, (6, 17, 1)).astype(np.float32)
    flat = {"S1": {}, "S9": {"SittingDown 2": [np.ones((9, 17, 2))] * 4}}
    for key, n_frames in entries.items():
        points = [noisy(key, H36M17, view) for view in range(4)]
        flat["S1"][key[1]] = [np.concatenate([p, scores[:n_frames]], -1) for p in points]
    save_object_npz(videopose / "hrnet.npz", positions_2d=flat, metadata=METADATA["gt"])
    recording = dict(human36m.read(videopose, "hrnet.npz"))["train_s1_Directions"]
    for view in range(4):
        np.testing.assert_allclose(recording.confidence[:, view], scores[..., 0])


# Where both orders of 16 joints have the names of h36m17
HOURGLASS = {
    "mpii16": {"r_ankle": 0, "pelvis": 6, "thorax": 7, "nose": 8, "head": 9, "l_wrist": 15},
    "hourglass16": {"r_ankle": 0, "pelvis": 6, "spine": 7, "thorax": 8, "head": 9, "l_elbow": 14},
}  # fmt: skip


@pytest.mark.parametrize("layout", HOURGLASS)
def test_the_hourglass_is_read_in_the_layout_given(layout, videopose):
    source = videopose / "h36m_dataset.py"
    recordings = dict(human36m.read(videopose, "data_2d_h36m_sh.npz", source, layout))
    check_truth(recordings)
    recording, seen = recordings["train_s1_Directions"], noisy(("S1", "Directions"), range(16), 1)
    assert recording.joints == tuple(n for n in H36M17 if n != "nose" or layout == "mpii16")
    for name, index in HOURGLASS[layout].items():
        column = recording.keypoints[:, 1, recording.joints.index(name)]
        np.testing.assert_allclose(column, seen[:6, index], rtol=1e-6)


def test_16_joints_are_not_guessed(videopose, martinez):
    (martinez / "data_3d_h36m.npz").rename(martinez / "away.npz")
    (martinez / "S1/StackedHourglass").rename(martinez / "S1/StackedHourglassFineTuned240")
    with pytest.raises(ValueError, match="FineTuned240 does not name its joints.*name the layout"):
        dict(human36m.read(martinez, "StackedHourglassFineTuned240"))
    (martinez / "away.npz").rename(martinez / "data_3d_h36m.npz")
    with pytest.raises(ValueError, match="h36m_sh.npz: its metadata does not name the joints"):
        dict(human36m.read(videopose, "data_2d_h36m_sh.npz"))


def test_martinez_detections_are_in_mpii_order_and_a_missing_camera_is_masked(martinez):
    recordings = dict(human36m.read(martinez, "StackedHourglass"))
    check_truth(recordings)
    recording, seen = recordings["train_s1_Sitting-1"], noisy(("S1", "Sitting 1"), range(16), 3)
    for name, index in HOURGLASS["mpii16"].items():
        column = recording.keypoints[:, 3, H36M17.index(name)]
        np.testing.assert_allclose(column, seen[:, index], rtol=1e-6)
    spine = (seen[:, 6] + seen[:, 7]) / 2
    np.testing.assert_allclose(recording.keypoints[:, 3, H36M17.index("spine")], spine, rtol=1e-6)
    assert (recording.confidence == 1).all()  # a detector without scores
    damaged = recordings["test_s9_SittingDown-2"]
    assert (damaged.confidence[:, 0] == 0).all()
    assert (damaged.confidence[:, 1:] == 1).all()
    assert np.isfinite(damaged.pose3d).all()


def rewrite(path, function, key="positions_2d"):
    with np.load(path, allow_pickle=True) as file:
        contents = {k: file[k].item() for k in file.files}
    function(contents[key])
    save_object_npz(path, **contents)


def cut(file):
    file.write_bytes(file.read_bytes()[:-300])


def twenty_joints(positions):
    positions["S1"]["Directions"] = np.ones((9, 20, 3))


def millimetres(positions):
    positions["S1"]["Directions"] *= 1000


def score_one_view(views):
    views["S1"]["Directions"][2] = np.ones((9, 17, 3))


def in_source(key, old, new):
    """Change a value in VideoPose3D's source by a regular expression."""

    def spoil(file):
        changed, count = re.subn(f"'{key}': {old}", f"'{key}': {new}", file.read_text())
        assert count
        file.write_text(changed)

    return spoil


def lose_view(views):
    views["S1"]["Directions"].pop()


def shorten(views):
    views["S1"]["Directions"][2] = views["S1"]["Directions"][2][:3]


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        ("data_3d_h36m.npz", cut, "data_3d_h36m.npz: not a readable .npz"),
        ("data_2d_h36m_gt.npz", cut, "data_2d_h36m_gt.npz: not a readable .npz"),
        ("h36m_dataset.py", cut, "h36m_dataset.py"),
        ("h36m_dataset.py", lambda f: f.write_text("a = 1"), "lacks h36m_cameras_intrinsic"),
        ("h36m_dataset.py", lambda f: f.write_text(f.read_text().replace("'S9'", "'S8'")), "S9"),
        ("data_2d_h36m_gt.npz", lambda f: np.savez(f, a=1), "lacks positions_2d, metadata"),
        ("data_2d_h36m_gt.npz", lambda f: rewrite(f, lambda d: d.pop("S9")), "lacks S9"),
        ("data_2d_h36m_gt.npz", lambda f: rewrite(f, lambda d: d["S9"].clear()), "lacks SittingD"),
        ("data_2d_h36m_gt.npz", lambda f: rewrite(f, lose_view), "not a list of 4 views"),
        ("data_2d_h36m_gt.npz", lambda f: rewrite(f, shorten), "6 frames in 3D but only 3 in 2D"),
        (
            "data_2d_h36m_gt.npz",
            lambda f: rewrite(f, lambda d: d["S1"].update(Directions=[np.ones((9, 14, 2))] * 4)),
            r"S1 Directions: shape \(9, 14, 2\), need \(any, 17, 2\)",
        ),
        (
            "data_3d_h36m.npz",
            lambda f: rewrite(f, twenty_joints, "positions_3d"),
            r"S1 Directions: shape \(9, 20, 3\), need \(any, 32, 3\)",
        ),
        (
            "data_3d_h36m.npz",
            lambda f: rewrite(f, millimetres, "positions_3d"),
            "S1 Directions: .* 3D in another unit",
        ),
        ("data_2d_h36m_gt.npz", lambda f: rewrite(f, score_one_view), r"views of \[2, 3\] col"),
        ("h36m_dataset.py", lambda f: f.write_text(INTEGERS), "not a list of 4 cameras"),
        ("h36m_dataset.py", in_source("orientation", r"\[[^]]*", "[0, 0, 0, 0"), "unit quat"),
        ("h36m_dataset.py", in_source("center", r"\[", "[[1, 2], "), "not an array"),
        ("h36m_dataset.py", in_source("focal_length", r"\[", "[1, "), r"need \(2"),
    ],
)  # fmt: skip
def test_the_message_names_what_is_wrong_with_videopose_files(file, spoil, message, videopose):
    spoil(videopose / file)
    with pytest.raises(ValueError, match=message):
        dict(human36m.read(videopose, "data_2d_h36m_gt.npz", videopose / "h36m_dataset.py"))


CAMERA = "subject1/camera2"
INTEGERS = "h36m_cameras_intrinsic_params = 3\nh36m_cameras_extrinsic_params = {'S1': 4}"


def in_cameras(pattern, function):
    """Change what `cameras.h5` has under every name that ends in the pattern."""

    def spoil(file):
        with h5py.File(file, "r+") as content:
            names = []
            content.visit(lambda name: names.append(name) if name.endswith(pattern) else None)
            assert names
            for name in names:
                changed = function(content[name][()])
                del content[name]
                content[name] = changed

    return spoil


TRUE = "S1/MyPoses/3D_positions/Directions.h5"
SEEN = "S1/StackedHourglass/Directions.54138969.h5"


def poses(file, array):
    with h5py.File(file, "w") as content:
        content["3D_positions" if "My" in str(file) else "poses"] = array


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        ("cameras.h5", cut, "cameras.h5: not a readable HDF5 file"),
        ("cameras.h5", lambda f: h5py.File(f, "r+").pop("subject1/camera2/T"), "lacks subject1"),
        ("cameras.h5", lambda f: h5py.File(f, "r+").pop("subject9"), "cameras.h5: lacks S9/5"),
        ("cameras.h5", in_cameras("/R", lambda a: a.T), "do not project"),
        ("cameras.h5", in_cameras("/T", lambda a: a / 1000), "lie inside of the images"),
        ("cameras.h5", in_cameras("/f", lambda a: np.nan * a), "lie inside of the images"),
        ("cameras.h5", in_cameras(f"{CAMERA}/R", lambda a: 2 * a), f"{CAMERA}: not a rotation"),
        ("cameras.h5", in_cameras(f"{CAMERA}/R", lambda a: -a), f"{CAMERA}: not a rotation"),
        ("cameras.h5", in_cameras(f"{CAMERA}/R", lambda a: np.nan * a), "not a rotation"),
        ("cameras.h5", in_cameras(f"{CAMERA}/k", lambda a: a[:2]), f"{CAMERA}: shape .*need .3"),
        ("cameras.h5", in_cameras(f"{CAMERA}/Name", lambda _: "55011271"), "Name: shape"),
        (TRUE, lambda f: poses(f, np.full((96, 6), 0.9)), "3D in another unit"),
        (TRUE, cut, "Directions.h5: not a readable"),
        (TRUE, lambda f: poses(f, np.ones((51, 6))), r"need \(96"),
        (TRUE, lambda f: poses(f, np.ones((96, 9))), "only 6 in"),
        (SEEN, lambda f: poses(f, np.ones((6, 17, 2))), "shape"),
        (SEEN, cut, "54138969.h5: not a readable"),
    ],
)  # fmt: skip
def test_the_message_names_what_is_wrong_with_martinez_files(file, spoil, message, martinez):
    spoil(martinez / file)
    with pytest.raises(ValueError, match=message):
        dict(human36m.read(martinez, "StackedHourglass"))


def test_missing_files_are_named(martinez, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"elsewhere.npz: no such file"):
        dict(human36m.read(martinez / "elsewhere.npz"))
    with pytest.raises(FileNotFoundError, match="HRNet: no detections of 'Directions'"):
        dict(human36m.read(martinez, "HRNet", layout="coco17"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"neither data_3d_h36m.npz nor S1/MyPoses"):
        dict(human36m.read(tmp_path / "empty", "StackedHourglass"))
    with pytest.raises(ValueError, match="no layout 'mpii'; choose one of coco17"):
        dict(human36m.read(martinez, "StackedHourglass", layout="mpii"))
    with pytest.raises(ValueError, match=r"cameras.json: give cameras.h5"):
        human36m.read_cameras(tmp_path / "cameras.json")
