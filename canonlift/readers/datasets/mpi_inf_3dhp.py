"""MPI-INF-3DHP: a studio of 14 fixed cameras, and six test videos of one camera each.

Layouts: `S1/Seq1/annot.mat` (cells, in Matlab's format 5 or 7.3, which is HDF5) and
`TS1/annot_data.mat` (7.3), or P-STMO's `data_train_3dhp.npz` and `data_test_3dhp.npz`. The 2D
is annotated, not detected.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from jaxtyping import Float

from canonlift.body.skeleton import H36M17
from canonlift.data.recording import Recording
from canonlift.readers.datasets.checks import (
    check_size,
    h5_arrays,
    integers,
    items,
    need,
    numbers,
    open_h5,
    read_h5,
)  # fmt: skip
from canonlift.readers.datasets.to_recording import detected, stack_views, with_truth
from canonlift.readers.datasets.unpickle import load_npz

# Frames that have images, and frames per second, by subject and sequence (from the data set's
# mpii_get_sequence_info.m). Annotations may go on after the images have ended.
SEQUENCES: Mapping[tuple[int, int], tuple[int, float]] = {
    (1, 1): (6416, 25.0), (1, 2): (12430, 50.0), (2, 1): (6502, 25.0), (2, 2): (6081, 25.0),
    (3, 1): (12488, 50.0), (3, 2): (12283, 50.0), (4, 1): (6171, 25.0), (4, 2): (6675, 25.0),
    (5, 1): (12820, 50.0), (5, 2): (12312, 50.0), (6, 1): (6188, 25.0), (6, 2): (6145, 25.0),
    (7, 1): (6239, 25.0), (7, 2): (6320, 25.0), (8, 1): (6468, 25.0), (8, 2): (6054, 25.0),
}  # fmt: skip
WALL = (0, 1, 2, 4, 5, 6, 7, 8)  # the cameras in common use
OUTDOORS = (5, 6)  # test videos of another size

PLACES = ("S*/Seq*/annot.mat", "TS*/annot_data.mat", "data_train_3dhp.npz", "data_test_3dhp.npz")

# `thorax`, `nose` and `head` are what the data set calls neck, head and head_top.
JOINTS28 = tuple(
    "spine3 spine4 spine2 spine pelvis thorax nose head "
    "l_clavicle l_shoulder l_elbow l_wrist l_hand r_clavicle r_shoulder r_elbow r_wrist r_hand "
    "l_hip l_knee l_ankle l_foot l_toe r_hip r_knee r_ankle r_foot r_toe".split()
)
JOINTS17 = tuple(
    "head thorax r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist "
    "r_hip r_knee r_ankle l_hip l_knee l_ankle pelvis spine nose".split()
)

# (T, J, 2) pixels and (T, J, 3) millimetres in camera axes
Annotated = tuple[Float[np.ndarray, "T J 2"], Float[np.ndarray, "T J 3"]]
Named = Iterator[tuple[str, Recording]]


def read(
    path: Path,
    pose: str = "annot3",
    cameras: Sequence[int] = WALL,
    test_fps: float = 25.0,
) -> Named:
    """Yield each sequence as `train_s1_seq1` or `test_ts1`, on the joints of h36m17.

    Test frames that the data set calls invalid are unobserved.

    Args:
        path: the folder of the `S*` or `TS*` folders or of the npz files, or one file.
        pose: of Matlab files, `annot3`, or `univ_annot3` which is scaled to one body height and
            no longer projects onto the 2D. The npz files hold only the latter.
        cameras: which of the cameras 0 to 13 to read from `annot.mat`.
        test_fps: frames per second of the test videos. The files do not say; 25 is an
            assumption.
    """
    if pose not in ("annot3", "univ_annot3"):
        raise ValueError(f"pose must be annot3 or univ_annot3, got {pose!r}")
    files = [path] if path.is_file() else [f for p in PLACES for f in sorted(path.glob(p))]
    if not files:
        raise FileNotFoundError(f"{path}: has none of {', '.join(PLACES)}; give their folder")
    if len({file.suffix for file in files}) > 1:
        raise ValueError(f"{path}: has Matlab and npz files of the same sequences; give one file")
    for file in files:
        if file.name not in READERS:
            raise ValueError(f"{file}: not called one of {', '.join(READERS)}")
        yield from READERS[file.name](file, pose, cameras, test_fps)


def _train_mat(file: Path, pose: str, cameras: Sequence[int]) -> Named:
    cells = _cells(file, ("annot2", pose), "cameras")
    numbered = integers(cells["cameras"], (None,), f"{file}, cameras").tolist()
    missing = [camera for camera in cameras if camera not in numbered]
    if missing:
        raise ValueError(f"{file}: has annotations of cameras {numbered}, but not of {missing}")
    counts = {key: len(cells[key]) for key in ("annot2", pose)}
    if set(counts.values()) != {len(numbered)}:
        raise ValueError(
            f"{file}: {len(numbered)} cameras but other cells, {counts}; fetch it again"
        )

    def values(key: str, size: int, camera: int, n_frames: int | None) -> np.ndarray:
        cell, where = cells[key][numbered.index(camera)], f"{file}, {key} of camera {camera}"
        shape = (n_frames, size * len(JOINTS28))
        return numbers(cell, shape, where).reshape(-1, len(JOINTS28), size)

    views = {}
    for camera in cameras:
        flat = values("annot2", 2, camera, None)
        views[str(camera)] = flat, values(pose, 3, camera, len(flat))
    yield _train("/".join(file.parts[-3:-1]), views, JOINTS28, file)


def _train_npz(file: Path) -> Named:
    sequences = load_npz(file, ("data",), "see P-STMO's README.md")["data"]
    for name, sequence in need(sequences, (), file).items():
        where = f"{file}, {name}"
        cameras, _fps = items(sequence, 2, "items: the cameras, and frames per second", where)
        views = {
            str(camera): _annotated(arrays, f"{where}, camera {camera}")
            for camera, arrays in need(cameras, ("0",), where).items()
        }
        yield _train(name, views, JOINTS17, where)


def _train(
    name: str, views: Mapping[str, Annotated], joints: tuple[str, ...], where: object
) -> tuple[str, Recording]:
    match = re.fullmatch(r"S(\d+)[ /]Seq(\d+)", name)
    subject, sequence = (int(match[1]), int(match[2])) if match else (0, 0)
    if (subject, sequence) not in SEQUENCES:
        raise ValueError(f"{where}: sequence {name!r}, expected S1/Seq1 to S8/Seq2")
    n_frames, fps = SEQUENCES[subject, sequence]
    views = {camera: (flat[:n_frames], pose[:n_frames]) for camera, (flat, pose) in views.items()}
    name = f"s{subject}_seq{sequence}"
    return f"train_{name}", _recording(views, joints, fps, name, (2048, 2048), where)


def _test_mat(file: Path, pose: str, fps: float) -> Named:
    found = read_h5(file, ("annot2", pose, "valid_frame"), "")
    # (T, 1 person, J, 2 or 3), as HDF5 has Matlab's arrays transposed
    flat, world = (
        array[:, 0] if array.ndim == 4 and array.shape[1] == 1 else array
        for array in (found["annot2"], found[pose])
    )
    arrays = {"data_2d": flat, "data_3d": world, "valid": found["valid_frame"]}
    yield _test(file.parent.name, arrays, fps, file)


def _test_npz(file: Path, fps: float) -> Named:
    sequences = load_npz(file, ("data",), "see P-STMO's README.md")["data"]
    for name, arrays in need(sequences, (), file).items():
        yield _test(name, arrays, fps, f"{file}, {name}")


def _test(name: str, arrays: Any, fps: float, where: object) -> tuple[str, Recording]:
    flat, pose = _annotated(arrays, where)
    valid = need(arrays, ("valid",), where)["valid"]
    valid = integers(np.ravel(valid), (len(flat),), f"{where}, valid frames").astype(bool)
    number = re.fullmatch(r"TS(\d+)", name)
    if number is None:
        raise ValueError(f"{where}: test sequence {name!r}, expected TS1 to TS6")
    hidden = np.where(valid, 0.0, np.nan)[:, None, None]  # adding it hides a frame
    name = f"ts{number[1]}"
    size = (1920, 1080) if int(number[1]) in OUTDOORS else (2048, 2048)
    views = {"0": (flat + hidden, pose + hidden)}
    return f"test_{name}", _recording(views, JOINTS17, fps, name, size, where)


def _recording(
    views: Mapping[str, Annotated],
    joints: tuple[str, ...],
    fps: float,
    name: str,
    size: tuple[int, int],
    where: object,
) -> Recording:
    index = [joints.index(joint) for joint in H36M17]
    flat, pose = (
        stack_views([view[kind][:, index] for view in views.values()], where) for kind in (0, 1)
    )
    names = [f"video_{camera}" for camera in views]
    rig = f"mpi_inf_3dhp_{name}"
    recording = detected(flat, H36M17, names, fps, rig, [size] * len(names), where)
    return with_truth(recording, H36M17, pose / 1000, flat, where)


def _annotated(arrays: Any, where: object) -> Annotated:
    need(arrays, ("data_2d", "data_3d"), where)
    flat = numbers(arrays["data_2d"], (None, len(JOINTS17), 2), f"{where}, data_2d")
    return flat, numbers(arrays["data_3d"], (len(flat), len(JOINTS17), 3), f"{where}, data_3d")


def _cells(file: Path, cells: Sequence[str], plain: str) -> dict[str, list]:
    """Matlab's cell arrays, each cell (frames, values), and one plain array, flat."""
    keys = (*cells, plain)
    if h5py.is_hdf5(file):
        with open_h5(file, "") as content:
            need(content, keys, file)
            *references, numbered = h5_arrays(content, keys)
            # A cell is a reference to its array, which is transposed.
            sizes = [array.size for array in references]
            found = iter(h5_arrays(content, np.concatenate([r.ravel() for r in references])))
            arrays = [[next(found).T for _ in range(size)] for size in sizes]
            return dict(zip(keys, [*arrays, list(numbered.ravel())], strict=True))
    check_size(file.stat().st_size, file)
    try:
        content = scipy.io.loadmat(file, variable_names=keys)
    except Exception as error:  # a damaged file makes it raise anything
        kind = type(error).__name__
        raise ValueError(
            f"{file}: not a readable .mat ({kind}: {error}); fetch it again"
        ) from error
    need(content, keys, file)
    return {key: list(content[key].ravel()) for key in keys}


READERS: Mapping[str, Callable[[Path, str, Sequence[int], float], Named]] = {
    "annot.mat": lambda file, pose, cameras, _: _train_mat(file, pose, cameras),
    "annot_data.mat": lambda file, pose, _, fps: _test_mat(file, pose, fps),
    "data_train_3dhp.npz": lambda file, *_: _train_npz(file),
    "data_test_3dhp.npz": lambda file, *options: _test_npz(file, options[-1]),
}
