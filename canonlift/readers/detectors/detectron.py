"""VideoPose3D's npz files of 2D poses: of one video by Detectron2, or of a data set.

Both hold object arrays, so pickles; these are opened by an unpickler that knows arrays and plain
containers only.
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from canonlift.body.skeleton import COCO17, H36M17
from canonlift.readers.datasets.unpickle import load_npz
from canonlift.readers.detectors.parsing import (
    CameraDetections,
    Cameras,
    Document,
    InputError,
    Person,
    keypoints,
)

# VideoPose3D's layout_name
LAYOUT_NAMES = {"coco": COCO17, "h36m": H36M17}
REMEDY = "write it again by VideoPose3D's infer_video_d2.py or prepare_data_2d_custom.py"


def recognise(content: Any) -> bool:
    """Whether a file's content is this format."""
    return isinstance(content, Path) and content.suffix.lower() == ".npz"


def read(docs: Iterable[Document]) -> Cameras:
    """Read one file; a frame's number is its position."""
    (path, _), *more = docs
    if more:
        raise InputError(path, "one of several files", "give one file per camera")
    try:
        _check_packed(path)
        try:
            content = load_npz(path, ("positions_2d", "metadata"), REMEDY)
        except ValueError as error:
            if "lacks positions_2d" not in str(error):
                raise
            content = load_npz(path, ("keypoints", "metadata"), REMEDY)
    except (ValueError, zipfile.BadZipFile, OSError) as error:
        message = str(error).removeprefix(f"{path}: ")
        raise InputError(path, message, REMEDY) from error
    metadata = content["metadata"]
    if not isinstance(metadata, dict):
        raise InputError(path, "its metadata are no dictionary", REMEDY)
    if "positions_2d" in content:
        return _data_set(content["positions_2d"], metadata, path)
    return {"": _video(content["keypoints"], metadata, path)}


def _check_packed(path: Path) -> None:
    """Refuse an archive that unpacks to far more than numbers ever do."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
    if unpacked > max(1 << 24, 50 * path.stat().st_size):
        raise ValueError(f"unpacks to {unpacked / 2**20:.0f} MiB, as no detections do")


def _video(content: Any, metadata: dict, path: Path) -> CameraDetections:
    frames: dict[int, list[Person]] = {}
    if not isinstance(content, np.ndarray | list) or getattr(content, "ndim", 1) == 0:
        raise InputError(path, "its keypoints are no list of frames", REMEDY)
    for number, frame in enumerate(content):
        where = f"{path}, frame {number}"
        if not isinstance(frame, np.ndarray | list) or len(frame) < 2:
            raise InputError(where, "not [[], people] as by Detectron", REMEDY)
        people = frame[1]
        if len(people) == 0 if isinstance(people, np.ndarray | list) else False:
            frames[number] = []
            continue
        if not isinstance(people, np.ndarray) or people.ndim != 3 or people.dtype.kind != "f":
            raise InputError(where, "its people are no array (people, 4, joints)", REMEDY)
        if people.shape[1] != 4:
            raise InputError(where, f"people of shape {people.shape}, need (n, 4, joints)", REMEDY)
        people = people.astype(float)
        if np.isinf(people[:, [0, 1, 3]]).any():
            raise InputError(where, "a number is not finite", REMEDY)
        frames[number] = [Person(keypoints(person[[0, 1, 3]].T, where)) for person in people]
    size = metadata.get("w"), metadata.get("h")
    whole = all(isinstance(s, int | np.integer) and 0 < s < 1 << 20 for s in size)
    return CameraDetections(frames, image_size=tuple(map(int, size)) if whole else None)


def _data_set(content: Any, metadata: dict, path: Path) -> Cameras:
    """The cameras of the only take; `layout_name` tells the joints of h36m from those of COCO."""
    takes = {}
    for subject, actions in content.items() if isinstance(content, dict) else ():
        for action, cameras in actions.items() if isinstance(actions, dict) else ():
            takes[f"{subject}/{action}"] = cameras
    if len(takes) != 1:
        found = ", ".join(list(map(str, takes))[:5])
        raise InputError(
            path,
            f"{len(takes)} takes ({found})",
            "save one take per file; for all of Human3.6M there is the format human36m",
        )
    ((take, cameras),) = takes.items()
    if not isinstance(cameras, list | tuple) or not cameras:
        raise InputError(f"{path}, {take}", "no list of cameras", REMEDY)
    name = metadata.get("layout_name")
    detections = {}
    for view, points in enumerate(cameras):
        where = f"{path}, {take}, camera {view}"
        good = isinstance(points, np.ndarray) and points.ndim == 3 and points.dtype.kind == "f"
        if not good or points.shape[2] not in (2, 3):
            raise InputError(where, "no array (frames, joints, 2)", REMEDY)
        if np.isinf(points).any():
            raise InputError(where, "a number is not finite", REMEDY)
        frames = {
            number: [Person(keypoints(np.array(person, float), f"{where}, frame {number}"))]
            for number, person in enumerate(points)
        }
        note = f"layout {name!r} in the file; poses are interpolated where none was detected"
        joints = None
        if isinstance(name, str) and name in LAYOUT_NAMES and points.shape[1] == 17:
            joints = LAYOUT_NAMES[name]
        detections["" if len(cameras) == 1 else f"camera{view}"] = CameraDetections(
            frames, joints, note=note
        )
    return detections
