"""MPI-INF-3DHP: Matlab cells of both formats, test files, and P-STMO's npz, of known motion."""

import h5py
import numpy as np
import pytest
import scipy.io
from datasets_scene import camera, person

from canonlift.body.skeleton import H36M17
from canonlift.readers.datasets import mpi_inf_3dhp

# The data set's joints, by canonlift's names where they have one (from mpii_get_joint_set.m)
NAMES28 = [
    "", "", "", "spine", "pelvis", "thorax", "nose", "head", "", "l_shoulder", "l_elbow",
    "l_wrist", "", "", "r_shoulder", "r_elbow", "r_wrist", "", "l_hip", "l_knee", "l_ankle",
    "", "", "r_hip", "r_knee", "r_ankle", "", "",
]  # fmt: skip
# The 17 of the test set and of the npz files, as everyone picks them out of the 28
SUBSET = [7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6]
WALL = (0, 1, 2, 4, 5, 6, 7, 8)
UNIVERSAL = 0.87  # one body height for all


def joints28(world):
    filled = np.random.default_rng(5).normal(0, 0.3, (len(world), 28, 3)) + world[:, :1]
    for index, name in enumerate(NAMES28):
        if name:
            filled[:, index] = world[:, H36M17.index(name)]
    return filled


def shot(camera_id, world):
    """2D in pixels and 3D in millimetres, as annotated for one of the 14 cameras."""
    lens = camera(25 * camera_id, 4 + 0.1 * camera_id, roll_deg=camera_id, size=(2048, 2048))
    return lens.pixels(world), 1000 * lens.in_camera(world)


def scaled(pose):
    """`univ_annot3`: the body at one height, where it stood; it does not project any more."""
    root = pose[:, 4:5] if pose.shape[1] == 28 else pose[:, 14:15]
    return root + UNIVERSAL * (pose - root)


def annotations(world):
    """The cells of an annot.mat; its cameras are not in the order of their numbers."""
    order = np.array([3, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 13, 12])
    shots = [shot(c, joints28(world)) for c in order]
    return {
        "annot2": [flat.reshape(-1, 56) for flat, _ in shots],
        "annot3": [pose.reshape(-1, 84) for _, pose in shots],
        "univ_annot3": [scaled(pose).reshape(-1, 84) for _, pose in shots],
        "cameras": order,
        "frames": np.arange(len(world)),
    }


def write_5(path, contents):
    path.parent.mkdir(parents=True, exist_ok=True)
    matlab = {}
    for key, value in contents.items():
        matlab[key] = np.atleast_2d(value).astype(np.uint8)
        if isinstance(value, list):
            matlab[key] = np.empty((len(value), 1), dtype=object)
            for index, cell in enumerate(value):
                matlab[key][index, 0] = cell
    scipy.io.savemat(path, matlab, do_compression=True)


def write_73(path, contents):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, value in contents.items():
            if not isinstance(value, list):
                file[key] = np.atleast_2d(value).T.astype(np.float64)
                continue
            cells = file.create_dataset(key, (1, len(value)), dtype=h5py.ref_dtype)
            for index, cell in enumerate(value):
                file[f"#refs#/{key}{index}"] = cell.T
                cells[0, index] = file[f"#refs#/{key}{index}"].ref


WRITERS = {"format 5": write_5, "format 7.3": write_73}
each_format = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def check(recording, world, cameras=WALL, pose="annot3"):
    assert recording.joints == H36M17
    assert recording.views == tuple(f"video_{c}" for c in cameras)
    for view, number in enumerate(cameras):
        flat, known = shot(number, world)
        np.testing.assert_allclose(recording.keypoints[:, view], flat, rtol=1e-5)
        np.testing.assert_allclose(recording.keypoints_true[:, view], flat, rtol=1e-5)
        if pose == "univ_annot3":
            known = known[:, :1] + UNIVERSAL * (known - known[:, :1])
        np.testing.assert_allclose(recording.pose3d[:, view], known / 1000, atol=1e-5)


@each_format
@pytest.mark.parametrize("pose", ["annot3", "univ_annot3"])
def test_reads_cells_by_the_numbers_of_the_cameras(write, pose, tmp_path):
    worlds = {(1, 1): person(4, seed=1), (5, 2): person(3, seed=2)}
    for (subject, sequence), world in worlds.items():
        write(tmp_path / f"S{subject}/Seq{sequence}/annot.mat", annotations(world))
    recordings = dict(mpi_inf_3dhp.read(tmp_path, pose))
    assert list(recordings) == ["train_s1_seq1", "train_s5_seq2"]
    assert [recording.fps for recording in recordings.values()] == [25, 50]
    assert [recording.rig for recording in recordings.values()] == [
        "mpi_inf_3dhp_s1_seq1", "mpi_inf_3dhp_s5_seq2"
    ]  # fmt: skip
    for recording, world in zip(recordings.values(), worlds.values(), strict=True):
        check(recording, world, pose=pose)
        assert (recording.confidence == 1).all()
        assert (recording.image_size == 2048).all()


def test_reads_the_cameras_asked_for(tmp_path):
    world = person(3)
    write_5(tmp_path / "S2/Seq1/annot.mat", annotations(world))
    file = tmp_path / "S2/Seq1/annot.mat"
    check(dict(mpi_inf_3dhp.read(file, cameras=(12, 3)))["train_s2_seq1"], world, (12, 3))
    with pytest.raises(ValueError, match=r"annot.mat: .* not of \[14\]"):
        dict(mpi_inf_3dhp.read(file, cameras=(0, 14)))


def test_annotations_after_the_last_image_are_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(mpi_inf_3dhp, "SEQUENCES", {**mpi_inf_3dhp.SEQUENCES, (2, 1): (3, 25.0)})
    world = person(5)
    write_5(tmp_path / "S2/Seq1/annot.mat", annotations(world))
    check(dict(mpi_inf_3dhp.read(tmp_path))["train_s2_seq1"], world[:3])


TEST_WORLDS = {"TS1": person(5, seed=3), "TS6": person(4, seed=4)}
VALID = {"TS1": [1, 1, 0, 1, 1], "TS6": [0, 1, 1, 1]}


def known_shots():
    for name, world in TEST_WORLDS.items():
        flat, pose = shot(0, joints28(world))
        yield name, flat[:, SUBSET], pose[:, SUBSET]


@pytest.fixture
def matlab_tests(tmp_path):
    for name, flat, pose in known_shots():
        (tmp_path / name).mkdir()
        with h5py.File(tmp_path / name / "annot_data.mat", "w", userblock_size=512) as file:
            file["annot2"], file["annot3"] = flat[:, None], pose[:, None]
            file["univ_annot3"] = scaled(pose)[:, None]
            file["valid_frame"] = np.array(VALID[name], dtype=np.float64)[:, None]
            file["activity_annotation"] = np.ones((len(flat), 1))
    return tmp_path


def save_object_npz(path, contents):
    np.savez_compressed(path, data=np.array(contents, dtype=object))


@pytest.fixture
def npz_tests(tmp_path):
    data = {
        name: {"data_2d": flat, "data_3d": scaled(pose), "valid": np.array(VALID[name], float)}
        for name, flat, pose in known_shots()
    }
    save_object_npz(tmp_path / "data_test_3dhp.npz", data)
    return tmp_path


@pytest.fixture
def npz_training(tmp_path):
    """P-STMO: per sequence a list of its cameras and its frame rate."""
    data = {}
    for name, seed in {"S1 Seq1": 1, "S5 Seq2": 2}.items():
        cameras = {}
        for number in WALL:
            flat, pose = shot(number, joints28(person(4, seed=seed)))
            cameras[str(number)] = {"data_2d": flat[:, SUBSET], "data_3d": scaled(pose)[:, SUBSET]}
        data[name] = [cameras, 50]
    save_object_npz(tmp_path / "data_train_3dhp.npz", data)
    return tmp_path


@pytest.mark.parametrize("source", ["matlab_tests", "npz_tests"])
def test_test_videos_have_one_view_and_invalid_frames(source, request):
    folder = request.getfixturevalue(source)
    pose = "univ_annot3" if source == "npz_tests" else "annot3"
    recordings = dict(mpi_inf_3dhp.read(folder, test_fps=30.0))
    assert list(recordings) == ["test_ts1", "test_ts6"]
    for (name, world), recording in zip(TEST_WORLDS.items(), recordings.values(), strict=True):
        valid = np.array(VALID[name], bool)
        assert (recording.confidence[:, 0] == valid[:, None]).all()
        for array in (recording.keypoints, recording.pose3d, recording.keypoints_true):
            assert np.isnan(array[~valid]).all()
        _, known = shot(0, world)
        if pose == "univ_annot3":
            known = known[:, :1] + UNIVERSAL * (known - known[:, :1])
        np.testing.assert_allclose(recording.pose3d[valid, 0], known[valid] / 1000, atol=1e-5)
        assert recording.fps == 30
    assert recordings["test_ts1"].image_size.tolist() == [[2048, 2048]]
    assert recordings["test_ts6"].image_size.tolist() == [[1920, 1080]]


def test_the_images_of_the_outdoor_test_videos_are_smaller(npz_tests):
    (_, flat, pose), _ = known_shots()
    recording = {"data_2d": flat, "data_3d": pose, "valid": np.ones(len(flat))}
    data = {f"TS{number}": recording for number in range(1, 7)}
    save_object_npz(npz_tests / "data_test_3dhp.npz", data)
    sizes = [recording.image_size[0].tolist() for _, recording in mpi_inf_3dhp.read(npz_tests)]
    assert sizes == [[2048, 2048]] * 4 + [[1920, 1080]] * 2


def test_reads_the_training_npz(npz_training):
    recordings = dict(mpi_inf_3dhp.read(npz_training / "data_train_3dhp.npz"))
    assert list(recordings) == ["train_s1_seq1", "train_s5_seq2"]
    assert [recording.fps for recording in recordings.values()] == [25, 50]
    for recording, seed in zip(recordings.values(), (1, 2), strict=True):
        check(recording, person(4, seed=seed), pose="univ_annot3")


def test_a_short_view_is_masked_where_it_has_ended(npz_training):
    with np.load(npz_training / "data_train_3dhp.npz", allow_pickle=True) as file:
        data = file["data"].item()
    short = data["S1 Seq1"][0]["4"]
    data["S1 Seq1"][0]["4"] = {key: array[:3] for key, array in short.items()}
    save_object_npz(npz_training / "data_train_3dhp.npz", data)
    recording = dict(mpi_inf_3dhp.read(npz_training))["train_s1_seq1"]
    assert recording.n_frames == 4
    assert (recording.confidence[3] == np.array([1, 1, 1, 0, 1, 1, 1, 1])[:, None]).all()


def without(key):
    return lambda c: {k: v for k, v in c.items() if k != key}


def with_cells(key, function):
    return lambda c: {**c, key: function(c[key])}


@each_format
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("annot3"), "lacks annot3"),
        (without("cameras"), "lacks cameras"),
        (
            with_cells("annot2", lambda cells: cells[:9]),
            "14 cameras but other cells, .*annot2': 9",
        ),
        (with_cells("annot2", lambda cells: [c[:2] for c in cells]), r"annot3 .* need \(2, 84\)"),
        (with_cells("annot3", lambda cells: [c / 1000 for c in cells]), "3D in another unit"),
        (
            with_cells("cameras", lambda c: [np.ones((2, 2))] * len(c)),
            "cameras: (shape|not an arr)",
        ),
        (with_cells("cameras", lambda c: c[:13]), "13 cameras but other cells"),
        (with_cells("annot2", lambda cells: [c[:, :34] for c in cells]), r"need \(any, 56\)"),
        (with_cells("annot3", lambda cells: [c[:, ::-1] for c in cells]), "do not project"),
        (with_cells("annot3", lambda cells: cells[::-1]), "do not project"),
    ],
)
def test_the_message_names_what_is_wrong_with_cells(write, change, message, tmp_path):
    write(tmp_path / "S1/Seq1/annot.mat", change(annotations(person(3))))
    with pytest.raises(ValueError, match=rf"S1/Seq1/annot.mat.*{message}"):
        dict(mpi_inf_3dhp.read(tmp_path))


def test_cells_that_claim_to_be_huge_are_not_read(tmp_path):
    write_73(tmp_path / "S1/Seq1/annot.mat", annotations(person(2)))
    with h5py.File(tmp_path / "S1/Seq1/annot.mat", "r+") as file:
        name = file[file["annot2"][0, 4]].name
        cells = file["annot2"][()]
        del file[name]
        cells[0, 4] = file.create_dataset(name, (56, 10**9), "f8", chunks=(56, 100)).ref
        file["annot2"][...] = cells
    with pytest.raises(ValueError, match=r"annot.mat: unpacks to 417.2 GiB, more than any known"):
        dict(mpi_inf_3dhp.read(tmp_path))


@each_format
def test_truncated_matlab_files_are_named(write, tmp_path):
    file = tmp_path / "S1/Seq1/annot.mat"
    write(file, annotations(person(2)))
    whole = file.read_bytes()
    for end in (0, 60, 700, len(whole) // 2, len(whole) - 400):
        file.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"annot.mat"):
            dict(mpi_inf_3dhp.read(tmp_path))


def rename(data, old, new):
    data[new] = data.pop(old)


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        ("train", lambda d: rename(d, "S1 Seq1", "S9 Seq1"), "sequence 'S9 Seq1', expected S1"),
        (
            "train",
            lambda d: d.update({"S1 Seq1": d["S1 Seq1"][0]}),
            "S1 Seq1: not a list of 2 items: the cam",
        ),
        ("train", lambda d: d["S1 Seq1"][0]["2"].pop("data_3d"), "camera 2: lacks data_3d"),
        ("train", lambda d: d["S1 Seq1"][0].clear(), "S1 Seq1: lacks 0"),
        ("test", lambda d: d["TS1"].pop("valid"), "TS1: lacks valid"),
        ("test", lambda d: d["TS1"].update(valid=[1]), r"TS1, valid .* \(1,\), need \(5\)"),
        ("test", lambda d: d["TS1"].update(valid=[np.nan] * 5), "valid frames: not whole"),
        (
            "test",
            lambda d: d["TS1"].update(data_2d=np.ones((5, 28, 2))),
            r"data_2d: shape \(5, 28",
        ),
        ("test", lambda d: rename(d, "TS1", "../x"), "test sequence '../x'"),
    ],
)
def test_the_message_names_what_is_wrong_with_npz(file, spoil, message, npz_training, npz_tests):
    assert npz_training == npz_tests  # one folder
    path = npz_tests / f"data_{file}_3dhp.npz"
    with np.load(path, allow_pickle=True) as content:
        data = content["data"].item()
    spoil(data)
    save_object_npz(path, data)
    with pytest.raises(ValueError, match=rf"data_{file}_3dhp.npz.*{message}"):
        dict(mpi_inf_3dhp.read(npz_tests))


def test_missing_or_ambiguous_files_are_named(npz_tests, matlab_tests, tmp_path):
    assert npz_tests == matlab_tests
    with pytest.raises(ValueError, match="Matlab and npz files of the same sequences; give one"):
        dict(mpi_inf_3dhp.read(npz_tests))
    with pytest.raises(FileNotFoundError, match=r"nowhere: has none of S\*/Seq\*/annot.mat"):
        dict(mpi_inf_3dhp.read(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="pose must be annot3 or univ_annot3, got 'annot2'"):
        dict(mpi_inf_3dhp.read(npz_tests, "annot2"))
    (tmp_path / "other.npz").touch()
    with pytest.raises(ValueError, match="other.npz: not called one of annot.mat"):
        dict(mpi_inf_3dhp.read(tmp_path / "other.npz"))
