"""Text files of 12 limb joints: a row per frame of x y pairs, -1 -1 where undetected."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from canonlift.readers.detectors.joint_layouts import LIMBS12
from canonlift.readers.detectors.parsing import (
    CameraDetections,
    Cameras,
    Document,
    InputError,
    Person,
    keypoints,
)

REMEDY = "give one file of 24 numbers per line and camera, such as kpts_cam0.dat"


def recognise(content: Any) -> bool:
    """Whether a file's content is this format."""
    if not isinstance(content, str):
        return False
    words = content.partition("\n")[0].split()
    return len(words) == 2 * len(LIMBS12) and all(_is_number(word) for word in words)


def read(docs: Iterable[Document]) -> Cameras:
    """Read one file; a frame's number is its line, from 0."""
    (path, content), *more = docs
    if more:
        raise InputError(path, "one of several files", "give one file per camera")
    frames = {}
    for number, line in enumerate(content.splitlines()):
        where = f"{path}, line {number + 1}"
        words = line.split()
        if len(words) != 2 * len(LIMBS12) or not all(map(_is_number, words)):
            raise InputError(where, f"not 24 numbers: {line[:40]!r}", REMEDY)
        points = np.array(words, dtype=float).reshape(-1, 2)
        points[(points == -1).all(-1)] = np.nan
        frames[number] = [Person(keypoints(points, where))]
    return {"": CameraDetections(frames, LIMBS12)}


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False
