"""DeepLabCut: one CSV or h5 file per video, with three or four rows of labels above the numbers.

The labels of an h5 file are a pickle in one of its attributes; it is opened by an unpickler that
knows plain containers only.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from canonlift.readers.datasets.unpickle import loads
from canonlift.readers.detectors.parsing import (
    MAX_BYTES,
    CameraDetections,
    Cameras,
    Document,
    InputError,
    Person,
    keypoints,
    number_of,
)

ROWS = ("scorer", "individuals", "bodyparts", "coords")
AXES = ("x", "y", "likelihood")
REMEDY = "let DeepLabCut analyse the video again, with save_as_csv=True"


def recognise(content: Any) -> bool:
    """Whether a file's content is this format."""
    if isinstance(content, Path):
        return content.suffix.lower() in (".h5", ".hdf5")
    return isinstance(content, str) and content[:7].lower() == "scorer,"


def read(docs: Iterable[Document]) -> Cameras:
    """Read one file; the first column numbers the frames."""
    (path, content), *more = docs
    if more:
        raise InputError(path, "one of several files", "give one file per camera, CSV or h5")
    labels, index, values = _h5(path) if isinstance(content, Path) else _csv(path, content)
    people = _people(labels, path)
    joints = tuple(dict.fromkeys(joint for person in people.values() for joint in person))
    if values.shape != (len(index), len(labels)):
        raise InputError(path, f"{values.shape} numbers for {len(labels)} labels", REMEDY)
    columns = np.full((len(people), len(joints), 3), len(labels))
    for i, person in enumerate(people.values()):
        for joint, axes in person.items():
            if not {"x", "y"} <= axes.keys():
                raise InputError(path, f"no x and y of {joint}", REMEDY)
            for axis, column in axes.items():
                columns[i, joints.index(joint), AXES.index(axis)] = column
    values = np.column_stack([values, np.full(len(values), np.nan)])
    tracks = [name or None for name in people]
    frames: dict[int, list[Person]] = {}
    for number, row in zip(index, values, strict=True):
        if number in frames:
            raise InputError(path, f"frame {number} is there twice", REMEDY)
        where = f"{path}, frame {number}"
        frames[number] = [
            Person(keypoints(points, where), track)
            for points, track in zip(row[columns], tracks, strict=True)
        ]
    return {"": CameraDetections(frames, joints)}


def _people(labels: Sequence[tuple[str, ...]], path: Path) -> dict[str, dict[str, dict[str, int]]]:
    """Individual -> bodypart -> axis -> column."""
    people: dict[str, dict[str, dict[str, int]]] = {}
    for column, label in enumerate(labels):
        if len(label) not in (3, 4) or label[-1] not in AXES:
            raise InputError(path, f"column label {label!r}", REMEDY)
        individual = label[1] if len(label) == 4 else ""
        axes = people.setdefault(individual, {}).setdefault(label[-2], {})
        if label[-1] in axes:
            raise InputError(path, f"two columns of {'/'.join(label)}", REMEDY)
        axes[label[-1]] = column
    if not people:
        raise InputError(path, "no columns", REMEDY)
    return people


def _csv(path: Path, content: str) -> tuple[list[tuple[str, ...]], list[int], np.ndarray]:
    try:
        lines = [line for line in csv.reader(content.splitlines()) if line]
    except csv.Error as error:
        raise InputError(path, f"not a table ({error})", REMEDY) from error
    head: dict[str, list[str]] = {}
    for line in lines[:4]:
        if line[0] in ROWS:
            head[line[0]] = line
    if not {"scorer", "bodyparts", "coords"} <= head.keys():
        raise InputError(path, "no rows scorer, bodyparts, coords at its top", REMEDY)
    lines = lines[len(head) :]
    widths = {len(row) for row in head.values()}
    if len(widths) > 1:
        raise InputError(path, "labels of different lengths", REMEDY)
    # Labelled images have their path in three columns; then the labels begin further right.
    skip = max(1, next((i for i, name in enumerate(head["coords"]) if name in AXES), 1))
    labels = list(zip(*(head[row][skip:] for row in ROWS if row in head), strict=True))
    index, values = [], []
    for i, line in enumerate(lines, len(head) + 1):
        where = f"{path}, line {i}"
        if len(line) != len(head["coords"]):
            raise InputError(where, f"{len(line)} cells, not {len(head['coords'])}", REMEDY)
        name = line[skip - 1]
        index.append(number_of(int(name) if name.isdecimal() else name, where))
        try:
            values.append([float(cell) if cell.strip() else np.nan for cell in line[skip:]])
        except ValueError as error:
            raise InputError(where, f"not a number ({error})", REMEDY) from error
    return labels, index, _finite(np.array(values).reshape(-1, len(labels)), path)


def _finite(values: np.ndarray, path: Path) -> np.ndarray:
    if np.isinf(values).any():
        raise InputError(path, "a number is not finite", REMEDY)
    return values


def _h5(path: Path) -> tuple[list[tuple[str, ...]], list[int], np.ndarray]:
    """The only table that pandas wrote into an HDF5 file."""
    try:
        with h5py.File(path, "r") as file:
            groups = [g for g in file.values() if isinstance(g, h5py.Group) and "table" in g]
            if len(groups) != 1:
                what = f"{len(groups)} tables of pandas"
                raise InputError(path, what, "give the h5 file that DeepLabCut wrote")
            table = groups[0]["table"]
            most = max(1 << 24, min(MAX_BYTES, 50 * path.stat().st_size))
            if table.size * table.dtype.itemsize > most:
                raise InputError(path, "unpacks to more than detections ever do", REMEDY)
            attribute = groups[0].attrs["non_index_axes"]
            rows = table[()]
    # KeyError: a broken link; TypeError, AttributeError: a group in place of a data set
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(path, f"not a readable HDF5 file ({error})", REMEDY) from error
    if rows.dtype.names is None or not {"index", "values_block_0"} <= set(rows.dtype.names):
        raise InputError(path, "not the table that DeepLabCut writes", REMEDY)
    labels = _labels(attribute, path)
    index, values = rows["index"], rows["values_block_0"]
    if values.dtype.kind not in "iuf" or values.ndim != 2:
        raise InputError(path, "its table holds no numbers", REMEDY)
    if index.dtype.kind == "S":
        index = [part.decode("utf-8", "replace") for part in index]
    elif index.dtype.kind in "iu":
        index = index.tolist()
    else:
        raise InputError(path, f"frames numbered by {index.dtype}", REMEDY)
    numbers = [number_of(name, path) for name in index]
    return labels, numbers, _finite(values.astype(float), path)


def _labels(attribute: Any, path: Path) -> list[tuple[str, ...]]:
    where = f"{path}, column labels"
    if not isinstance(attribute, bytes | str | np.bytes_):
        raise InputError(where, "not as pandas writes them", REMEDY)
    data = attribute.encode("latin1") if isinstance(attribute, str) else bytes(attribute)
    try:
        axes = loads(data, where)
    except ValueError as error:
        raise InputError(where, f"not readable ({error})", REMEDY) from error
    try:
        ((_, labels),) = axes
        if type(labels) is not list or not all(type(label) is tuple for label in labels):
            raise TypeError("no list of labels")
        if not all(type(part) is str for label in labels for part in label):
            raise TypeError("a label is no text")
    except (ValueError, TypeError) as error:
        raise InputError(where, f"not as pandas writes them ({error})", REMEDY) from error
    return labels
