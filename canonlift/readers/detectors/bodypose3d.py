"""Text files of 12 limb joints: a row per frame of x y pairs, -1 -1 where undetected."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from canonlift.readers.detectors import parsing
from canonlift.readers.detectors.joint_layouts import LIMBS12
from canonlift.readers.detectors.parsing import CameraDetections, Document, InputError, Person

REMEDY = "give one file of 24 numbers per line and camera, such as kpts_cam0.dat"


def recognise(content: Any) -> bool:
    """Whether a file's content is this format."""
    return isinstance(content, str) and _numbers(content.partition("\n")[0]) is not None


def read(docs: Iterable[Document]) -> dict[str, CameraDetections]:
    """Read one file; a frame's number is its line, from 0."""
    path, content = parsing.only(docs)
    frames = {}
    for number, line in enumerate(content.splitlines()):
        where = f"{path}, line {number + 1}"
        points = _numbers(line)
        if points is None:
            raise InputError(where, f"not 24 numbers: {line[:40]!r}")
        points[(points == -1).all(-1)] = np.nan
        frames[number] = [Person(parsing.keypoints(points, where))]
    return {"": CameraDetections(frames, LIMBS12)}


def _numbers(line: str) -> np.ndarray | None:
    """Coordinates of each joint, or None if that is not what the line holds."""
    try:
        points = np.array(line.split(), dtype=float)
    except ValueError:
        return None
    good = points.size == 2 * len(LIMBS12) and np.isfinite(points).all()
    return points.reshape(-1, 2) if good else None
