"""DeepLabCut: one CSV or h5 file per video, with three or four rows of labels above the numbers.

The labels of an h5 file are a pickle in one of its attributes; it is opened by an unpickler that
knows plain containers only.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from canonlift.readers.datasets.unpickle import loads
from canonlift.readers.detectors import parsing
from canonlift.readers.detectors.parsing import CameraDetections, Document, InputError, Person

ROWS = ("scorer", "individuals", "bodyparts", "coords")
AXES = ("x", "y", "likelihood")
REMEDY = "let DeepLabCut analyse the video again, with save_as_csv=True"
Labels = list[tuple[str, ...]]  # of each column of numbers: scorer, (individual,) bodypart, axis


def recognise(content: Any) -> bool:
    """Whether a file's content is this format."""
    if isinstance(content, Path):
        return content.suffix.lower() in (".h5", ".hdf5")
    return isinstance(content, str) and content[:7].lower() == "scorer,"


def read(docs: Iterable[Document]) -> dict[str, CameraDetections]:
    """Read one file; the first column numbers the frames."""
    path, content = parsing.only(docs)
    labels, index, values = _h5(path) if isinstance(content, Path) else _csv(path, content)
    if not labels or values.shape != (len(index), len(labels)):
        raise InputError(path, f"{values.shape} numbers for {len(labels)} labels")
    names, joints, columns = _columns(labels, path)
    values = np.column_stack([values, np.full(len(values), np.nan)])
    frames: dict[int, list[Person]] = {}
    for number, row in zip(index, values, strict=True):
        where = f"{path}, frame {number}"
        persons = [
            Person(parsing.keypoints(points, where), name or None)
            for points, name in zip(row[columns], names, strict=True)
        ]
        parsing.add_frame(frames, number, persons, where)
    return {"": CameraDetections(frames, joints)}


def _columns(labels: Labels, path: Path) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray]:
    """Individuals, joints, and the columns of their x, y, likelihood; `len(labels)`: none."""
    for label in labels:
        if len(label) not in (3, 4) or label[-1] not in AXES:
            raise InputError(path, f"column label {label!r}")
    of = [(label[1] if len(label) == 4 else "", label[-2]) for label in labels]
    names, joints = (tuple(dict.fromkeys(part)) for part in zip(*of, strict=True))
    columns = np.full((len(names), len(joints), 3), len(labels))
    for column, (name, joint) in enumerate(of):
        place = names.index(name), joints.index(joint), AXES.index(labels[column][-1])
        if columns[place] < len(labels):
            raise InputError(path, f"two columns of {'/'.join(labels[column])}")
        columns[place] = column
    lacking = (columns[..., 0] == len(labels)) != (columns[..., 1] == len(labels))
    if lacking.any():
        raise InputError(path, f"no x and y of {joints[int(lacking.any(0).argmax())]}")
    return names, joints, columns


def _csv(path: Path, content: str) -> tuple[Labels, list[int], np.ndarray]:
    try:
        lines = [line for line in csv.reader(content.splitlines()) if line]
    except csv.Error as error:
        raise InputError(path, f"not a table ({error})") from error
    head = {line[0]: line for line in lines[:4] if line[0] in ROWS}
    if not {"scorer", "bodyparts", "coords"} <= head.keys():
        raise InputError(path, "no rows scorer, bodyparts, coords at its top")
    if len({len(row) for row in head.values()}) > 1:
        raise InputError(path, "labels of different lengths")
    # Labelled images have their path in three columns; then the labels begin further right.
    skip = max(1, next((i for i, name in enumerate(head["coords"]) if name in AXES), 1))
    labels = list(zip(*(head[row][skip:] for row in ROWS if row in head), strict=True))
    index, values = [], []
    for i, line in enumerate(lines[len(head) :], len(head) + 1):
        where = f"{path}, line {i}"
        if len(line) != len(head["coords"]):
            raise InputError(where, f"{len(line)} cells, not {len(head['coords'])}")
        name = line[skip - 1]
        index.append(parsing.number_of(int(name) if name.isdecimal() else name, where))
        try:
            values.append([float(cell) if cell.strip() else np.nan for cell in line[skip:]])
        except ValueError as error:
            raise InputError(where, f"not a number ({error})") from error
    return labels, index, np.array(values).reshape(-1, len(labels))


def _h5(path: Path) -> tuple[Labels, list[int], np.ndarray]:
    """The only table that pandas wrote into an HDF5 file."""
    try:
        with h5py.File(path, "r") as file:
            groups = [g for g in file.values() if isinstance(g, h5py.Group) and "table" in g]
            if len(groups) != 1:
                what = f"{len(groups)} tables of pandas"
                raise InputError(path, what, "give the h5 file that DeepLabCut wrote")
            table = groups[0]["table"]
            if not isinstance(table, h5py.Dataset):
                raise InputError(path, "its table is no data set")
            most = max(1 << 24, min(parsing.MAX_BYTES, 50 * path.stat().st_size))
            if table.size * table.dtype.itemsize > most:
                raise InputError(path, "unpacks to more than detections ever do")
            labels = _labels(groups[0].attrs["non_index_axes"], path)
            rows = np.asarray(table[()])
    except InputError:
        raise
    # KeyError: a broken link, no such attribute; TypeError: a table of no simple type
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(path, f"not a readable HDF5 file ({error})") from error
    if rows.dtype.names is None or not {"index", "values_block_0"} <= set(rows.dtype.names):
        raise InputError(path, "not the table that DeepLabCut writes")
    index, values = rows["index"], rows["values_block_0"]
    if values.dtype.kind not in "iuf" or index.dtype.kind not in "iuS":
        what = f"frames numbered by {index.dtype}, or numbers of type {values.dtype}"
        raise InputError(path, what)
    names = [n.decode("utf-8", "replace") if isinstance(n, bytes) else n for n in index.tolist()]
    return labels, [parsing.number_of(name, path) for name in names], values.astype(float)


def _labels(attribute: Any, path: Path) -> Labels:
    where = f"{path}, column labels"
    try:
        if isinstance(attribute, str):
            attribute = attribute.encode("latin1")
        if not isinstance(attribute, bytes):  # np.bytes_, which h5py returns, are bytes
            raise TypeError("no pickle")
        ((_, labels),) = loads(attribute, where)
        if type(labels) is not list or not all(type(label) is tuple for label in labels):
            raise TypeError("no list of labels")
        if not all(type(part) is str for label in labels for part in label):
            raise TypeError("a label is no text")
    except (ValueError, TypeError) as error:
        raise InputError(where, f"not as pandas writes them ({error})") from error
    return labels
