"""Tables of comma-separated values with a header: a column per joint and axis, or a row per joint.

Wide: `frame,time,nose_x,nose_y,nose_confidence,l_hip_x,...` (also `x_nose`, `NoseX`, `x0`). Long:
`frame,joint,x,y,confidence`. Both may have a column for the person and one for the camera.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from canonlift.readers.detectors import parsing
from canonlift.readers.detectors.parsing import CameraDetections, Document, InputError, Person

REMEDY = "see `canonlift convert csv --help`"
EMPTY = ("", "nan", "none", "null", "na")

# What columns are called that are not of a joint. The first that is there counts.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "frame": ("sync_index", "frame", "frame_id", "frame_number", "frame_index", "frame#", "image",
              "image_id", "index"),
    "time": ("time", "timestamp", "frame_time", "time_s", "seconds", "timestamp_ms", "time_ms"),
    "track": ("track", "track_id", "person", "person_id", "individual"),
    "camera": ("camera", "cam", "port", "view"),
    "joint": ("joint", "landmark", "landmark_id", "landmark_name", "point_id", "keypoint",
              "bodypart"),
}  # fmt: skip
AXES: Mapping[str, str] = {
    "x": "x", "img_loc_x": "x", "x_px": "x", "y": "y", "img_loc_y": "y", "y_px": "y", "z": "",
    "visibility": "score", "vis": "score", "v": "score", "confidence": "score", "conf": "score",
    "c": "score", "likelihood": "score", "score": "score", "presence": "", "pres": "",
}  # fmt: skip
ROLES = ("x", "y", "score")
_AXIS = "|".join(AXES)
# Joint and axis in the name of a column; a single letter needs a separator.
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?i)(?P<joint>.+?)[\s_.:/-]+(?P<axis>{_AXIS})",
        rf"(?i)(?P<joint>\d+)(?P<axis>{_AXIS})",
        r"(?P<joint>.*[a-z0-9])(?P<axis>[XYZVC])",
        rf"(?i)(?P<axis>{_AXIS})[\s_.:/-]*(?P<joint>\d+)",
        rf"(?i)(?P<axis>{_AXIS})[\s_.:/-]+(?P<joint>.+)",
    )
)


class Table(NamedTuple):
    """Cells by row; every row is as long as the header."""

    path: Path
    header: tuple[str, ...]
    rows: list[list[str]]
    columns: Mapping[str, int]  # of `COLUMNS`, those that are there


class Joints(NamedTuple):
    """What the rows of a table hold of joints."""

    names: tuple[str, ...]  # decimals where joints are numbered
    places: list[Any]  # of each row, the joint that it holds; `...`: all; None: none of them
    values: Float[np.ndarray, "N ..."]  # of each row, x, y, score of these
    note: str  # what to tell the user


def recognise(content: Any) -> bool:
    """Whether a text is a table with a header that names x and y."""
    if not isinstance(content, str):
        return False
    try:
        header = _header(content)
    except csv.Error:
        return False
    roles = {role for name in header for role in (_joint_of(name)[1], AXES.get(name.lower()))}
    return {"x", "y"} <= roles


def read(docs: Iterable[Document], count: int | None = None) -> dict[str, CameraDetections]:
    """Read one table.

    Where joints are numbered there are `count`, or as many as are in the table if that is None;
    rows of further ones (of the hands, say) are left out.
    """
    table = parse(docs)
    joints = _joint_by_row(table, count) if "joint" in table.columns else _joint_by_column(table)
    bodies: dict[Key, np.ndarray] = {}
    lines: dict[tuple[Key, Any], int] = {}
    times: dict[str, dict[int, float]] = {}
    keys, seconds = _keys(table), _times(table)
    for i, (key, joint) in enumerate(zip(keys, joints.places, strict=True)):
        body = bodies.setdefault(key, np.full((len(joints.names), 3), np.nan))
        if np.isfinite(seconds[i]):
            times.setdefault(key[0], {})[key[1]] = float(seconds[i])
        if joint is None:
            continue
        if lines.setdefault((key, joint), i + 2) != i + 2:
            what = f"frame {key[1]} again, of the same person and joints"
            raise _error(table, i, what, "name people in a column 'track'")
        body[joint] = joints.values[i]
    if not bodies:
        raise InputError(table.path, "no row with a joint")
    cameras: dict[str, dict[int, list[Person]]] = {}
    for (camera, frame, track), body in bodies.items():
        points = parsing.keypoints(body, f"{table.path}, frame {frame}")
        cameras.setdefault(camera, {}).setdefault(frame, []).append(Person(points, track))
    names = None if joints.names[0].isdecimal() else joints.names
    numbered = "frame" in table.columns or "time" not in table.columns
    return {
        name: CameraDetections(frames, names, times.get(name, {}), numbered, note=joints.note)
        for name, frames in sorted(cameras.items(), key=lambda item: _natural(item[0]))
    }


Key = tuple[str, int, str | None]  # camera, frame, track


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sorts cameras alike however rows are ordered, and port10 after port9."""
    parts = re.findall(r"\d{1,18}|\D+", name)
    return [(p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts]


def parse(docs: Iterable[Document]) -> Table:
    """The cells of the only file, of which all rows must be as long as the header."""
    path, content = parsing.only(docs)
    try:
        header = _header(content)
        lines = csv.reader(content.splitlines()[1:], delimiter=_delimiter(content))
        rows = [[cell.strip() for cell in row] for row in lines if row]
    except csv.Error as error:
        raise InputError(path, f"not a table ({error})") from error
    lower = [name.lower() for name in header]
    found = {
        role: next((lower.index(name) for name in names if name in lower), None)
        for role, names in COLUMNS.items()
    }
    columns = {role: place for role, place in found.items() if place is not None}
    table = Table(path, header, rows, columns)
    for i, row in enumerate(rows):
        if len(row) != len(header):
            what = f"{len(row)} cells under {len(header)} names of columns"
            raise _error(table, i, what, "export it again")
    named = [name for name in header if name]
    if twice := next((name for name in named if named.count(name) > 1), ""):
        raise InputError(path, f"two columns {twice!r}", "export it again")
    return table


def _error(table: Table, row: int, what: str, remedy: str) -> InputError:
    return InputError(f"{table.path}, line {row + 2}", what, remedy)


def column(table: Table, index: int) -> Float[np.ndarray, " N"]:
    """A column of numbers; NaN where a cell is empty."""
    values = np.full(len(table.rows), np.nan)
    for i, row in enumerate(table.rows):
        if row[index].lower() not in EMPTY:
            try:
                values[i] = float(row[index])
            except ValueError:
                values[i] = np.inf
    if np.isinf(values).any():
        i = int(np.isinf(values).argmax())
        cell, name = table.rows[i][index], table.header[index]
        what = f"{cell[:40]!r} under {name!r} is no finite number"
        raise _error(table, i, what, "export it again")
    return values


def _delimiter(content: str) -> str:
    first = content.partition("\n")[0]
    return max(",;\t", key=first.count)


def _header(content: str) -> tuple[str, ...]:
    first = content.partition("\n")[0]
    names = next(csv.reader([first], delimiter=_delimiter(first)), [])
    return tuple(name.strip() for name in names)


def _joint_of(column: str) -> tuple[str, str]:
    """The joint and the role of a column: x, y, score; empty where it is none of these."""
    for pattern in _PATTERNS:
        match = pattern.fullmatch(column)
        if match:
            return match["joint"], AXES[match["axis"].lower()]
    return "", ""


def _keys(table: Table) -> list[Key]:
    """Camera, frame and track of every row."""
    place = table.columns
    prefix = table.header[place["camera"]] if "camera" in place else ""
    keys = []
    for i, row in enumerate(table.rows):
        camera = row[place["camera"]] if "camera" in place else ""
        frame = row[place["frame"]] if "frame" in place else str(i)
        if not frame or ("camera" in place and camera.lower() in EMPTY):
            what = "no number of the frame or no name of the camera"
            raise _error(table, i, what, "write it")
        track = row[place["track"]] if "track" in place else None
        keys.append((f"{prefix}{camera}", _frame(frame, table), track))
    return keys


def _frame(text: str, table: Table) -> int:
    name: int | str = text
    try:
        if float(text) == round(float(text)):
            name = int(float(text))
    except (ValueError, OverflowError):
        pass
    return parsing.number_of(name, f"{table.path}, frame {text[:40]!r}")


def _times(table: Table) -> Float[np.ndarray, " N"]:
    """Seconds of every row; NaN where the table has none."""
    if "time" not in table.columns:
        return np.full(len(table.rows), np.nan)
    times = column(table, table.columns["time"])
    if (np.abs(times) > 1e13).any():
        what = f"a time of {np.nanmax(np.abs(times)):.3g}"
        raise InputError(table.path, what, "give seconds")
    return times / (1000 if "ms" in table.header[table.columns["time"]].lower() else 1)


def _joint_by_column(table: Table) -> Joints:
    """The joints of a table with a column for each joint and axis."""
    columns: dict[str, dict[str, int]] = {}
    others = []
    for index, name in enumerate(table.header):
        if index in table.columns.values():
            continue
        joint, axis = _joint_of(name)
        if axis:
            columns.setdefault(joint, {}).setdefault(axis, index)
        elif not joint:
            others.append(name)
    halves = [joint for joint, axes in columns.items() if not {"x", "y"} <= axes.keys()]
    if halves or not columns:
        what = f"no x and y of {', '.join(halves[:5]) or 'any joint'}"
        raise InputError(table.path, what, "name columns such as nose_x, nose_y, nose_confidence")
    joints = tuple(columns)
    if all(joint.isdecimal() for joint in joints):
        joints = tuple(sorted(joints, key=int))
    values = np.full((len(table.rows), len(joints), 3), np.nan)
    for i, joint in enumerate(joints):
        for axis, index in columns[joint].items():
            values[:, i, ROLES.index(axis)] = column(table, index)
    return Joints(joints, [...] * len(table.rows), values, _not_read(others))


def _joint_by_row(table: Table, count: int | None) -> Joints:
    """The joints of a table with a row for each joint."""
    roles = [AXES.get(name.lower()) for name in table.header]
    if not {"x", "y"} <= set(roles):
        raise InputError(table.path, "no columns x and y", "name the columns so")
    names = [row[table.columns["joint"]] for row in table.rows]
    joints = _joint_names(names, count, table.path)
    values = np.full((len(names), 3), np.nan)
    for i, role in enumerate(ROLES):
        if role in roles:
            values[:, i] = column(table, roles.index(role))
    index = {joint: i for i, joint in enumerate(joints)}
    places = [index.get(str(int(name)) if joints[0] == "0" else name) for name in names]
    known = {*table.columns.values(), *(i for i, role in enumerate(roles) if role is not None)}
    notes = [_not_read([name for i, name in enumerate(table.header) if i not in known])]
    if left_out := places.count(None):
        notes.insert(0, f"{left_out} rows of points other than the {len(joints)} of the body")
    return Joints(joints, places, values, "; ".join(filter(None, notes)))


def _not_read(names: Sequence[str]) -> str:
    return f"columns not read: {', '.join(name[:40] for name in names[:8])}" if names else ""


def _joint_names(cells: Sequence[str], count: int | None, path: Path) -> tuple[str, ...]:
    """The joints of a long table: by name, or all numbers up to the last or `count`."""
    names = tuple(dict.fromkeys(cells))
    numbered = bool(names) and names[0].isdecimal()
    for name in names:
        if name.lower() in EMPTY or (numbered and not (name.isdecimal() and len(name) < 6)):
            raise InputError(path, f"a joint called {name!r}", "correct or remove its rows")
    if numbered:
        return tuple(str(i) for i in range(count or 1 + max(map(int, names))))
    return names
