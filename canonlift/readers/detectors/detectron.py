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
from canonlift.readers.detectors import parsing
from canonlift.readers.detectors.parsing import CameraDetections, Document, InputError, Person

# VideoPose3D's layout_name
LAYOUT_NAMES = {"coco": COCO17, "h36m": H36M17}
REMEDY = "write it again by VideoPose3D's infer_video_d2.py or prepare_data_2d_custom.py"


def recognise(content: Any) -> bool:
    """Whether a file's content is this format."""
    return isinstance(content, Path) and content.suffix.lower() == ".npz"


def read(docs: Iterable[Document]) -> dict[str, CameraDetections]:
    """Read one file; a frame's number is its position."""
    path, _ = parsing.only(docs)
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
            key = "positions_2d" if "positions_2d.npy" in archive.namelist() else "keypoints"
        if unpacked > max(1 << 24, 50 * path.stat().st_size):
            raise ValueError(f"unpacks to {unpacked / 2**20:.0f} MiB, as no detections do")
        content = load_npz(path, (key, "metadata"), REMEDY)
    except (ValueError, zipfile.BadZipFile, OSError) as error:
        raise InputError(path, str(error).removeprefix(f"{path}: ")) from error
    metadata = content["metadata"]
    if not isinstance(metadata, dict):
        raise InputError(path, "its metadata are no dictionary")
    if key == "positions_2d":
        return _data_set(content[key], metadata, path)
    return {"": _video(content[key], metadata, path)}


def _video(content: Any, metadata: dict[str, Any], path: Path) -> CameraDetections:
    frames: dict[int, list[Person]] = {}
    if not isinstance(content, np.ndarray | list) or getattr(content, "ndim", 1) == 0:
        raise InputError(path, "its keypoints are no list of frames")
    for number, frame in enumerate(content):
        where = f"{path}, frame {number}"
        if not isinstance(frame, np.ndarray | list) or len(frame) < 2:
            raise InputError(where, "not [[], people] as by Detectron")
        people = frame[1]
        if (isinstance(people, list) and not people) or getattr(people, "size", 1) == 0:
            people = np.zeros((0, 4, 0))
        if not isinstance(people, np.ndarray) or people.dtype.kind != "f":
            raise InputError(where, "its people are no array of numbers")
        if people.ndim != 3 or people.shape[1] != 4:
            raise InputError(where, f"people of shape {people.shape}, need (n, 4, joints)")
        frames[number] = [
            Person(parsing.keypoints(person[[0, 1, 3]].T.astype(float), where))
            for person in people
        ]
    return CameraDetections(
        frames, image_size=parsing.size_of(metadata.get("w"), metadata.get("h"))
    )


def _data_set(content: Any, metadata: dict[str, Any], path: Path) -> dict[str, CameraDetections]:
    """The cameras of the only recording, on the joints of h36m or COCO as `layout_name` says."""
    recordings = {
        f"{subject}/{action}": cameras
        for subject, actions in (content.items() if isinstance(content, dict) else ())
        for action, cameras in (actions.items() if isinstance(actions, dict) else ())
    }
    if len(recordings) != 1:
        raise InputError(
            path,
            f"{len(recordings)} recordings ({', '.join(list(recordings)[:5])})",
            "save one recording per file; for all of Human3.6M there is the format human36m",
        )
    ((recording, cameras),) = recordings.items()
    if not isinstance(cameras, list | tuple) or not cameras:
        raise InputError(f"{path}, {recording}", "no list of cameras")
    layout = metadata.get("layout_name")
    note = f"layout {layout!r} in the file; poses are interpolated where none was detected"
    detections = {}
    for view, points in enumerate(cameras):
        where = f"{path}, {recording}, camera {view}"
        if not isinstance(points, np.ndarray) or points.ndim != 3 or points.dtype.kind != "f":
            raise InputError(where, "no array (frames, joints, 2)")
        frames = {
            number: [Person(parsing.keypoints(person.astype(float), f"{where}, frame {number}"))]
            for number, person in enumerate(points)
        }
        joints = LAYOUT_NAMES.get(str(layout)) if points.shape[1] == 17 else None
        name = "" if len(cameras) == 1 else f"camera{view}"
        detections[name] = CameraDetections(frames, joints, note=note)
    return detections
