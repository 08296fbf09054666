"""Tables of comma-separated values with a header: a column per joint and axis, or a row per joint.

Wide: `frame,time,nose_x,nose_y,nose_confidence,l_hip_x,...` (also `x_nose`, `NoseX`, `x0`). Long:
`frame,joint,x,y,confidence`. Both may have a column for the person and one for the camera.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from canonlift.readers.detectors.parsing import (
    CameraDetections,
    Cameras,
    Document,
    InputError,
    Person,
    keypoints,
    number_of,
)

REMEDY = "see the formats in README.md"
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
# Joint and axis in the name of a column; a single letter needs something that parts it off.
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

    path: Any
    header: tuple[str, ...]
    rows: list[list[str]]


def recognise(content: Any) -> bool:
    """Whether a text is a table with a header that names x and y."""
    if not isinstance(content, str):
        return False
    try:
        header = _header(content)
    except csv.Error:
        return False
    found = {axis for _, axis in map(_joint_of, header) if axis}
    return {"x", "y"} <= (found | {AXES.get(name.lower(), "") for name in header})


def read(docs: Iterable[Document], count: int | None = None) -> Cameras:
    """Read one table.

    Args:
        docs: a single one.
        count: how many joints there are where they are numbered; rows of further ones (of the
            hands, say) are left out. None: as many as are in the table.
    """
    table = parse(docs)
    lower = [name.lower() for name in table.header]
    places = {
        role: next((lower.index(name) for name in names if name in lower), None)
        for role, names in COLUMNS.items()
    }
    read_people = _wide if places["joint"] is None else _long
    joints, people, note = read_people(table, places, count)
    if not people:
        raise InputError(table.path, "no row with a joint", REMEDY)
    cameras: dict[str, dict[int, list[Person]]] = {}
    times: dict[str, dict[int, float]] = {}
    seen: set[tuple] = set()
    for row, points in people:
        key = (row.camera, row.frame, row.track)
        if key in seen:
            where = f"{table.path}, line {row.line}"
            what = f"frame {row.frame} again, of the same person"
            raise InputError(where, what, "name people in a column 'track'")
        seen.add(key)
        person = Person(keypoints(points, f"{table.path}, line {row.line}"), row.track)
        cameras.setdefault(row.camera, {}).setdefault(row.frame, []).append(person)
        if np.isfinite(row.time):
            times.setdefault(row.camera, {})[row.frame] = row.time
    numbered = places["frame"] is not None or places["time"] is None
    return {
        name: CameraDetections(frames, joints, times.get(name, {}), numbered, note=note)
        for name, frames in sorted(cameras.items(), key=lambda item: _natural(item[0]))
    }


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sorts cameras alike however rows are ordered, and port10 after port9."""
    parts = re.findall(r"\d{1,18}|\D+", name)
    return [(p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts]


def parse(docs: Iterable[Document]) -> Table:
    """The cells of the only file.

    Raises:
        InputError: if there are several, or rows differ in length.
    """
    (path, content), *more = docs
    if more:
        raise InputError(path, "one of several files", "give one file per camera")
    try:
        header = _header(content)
        lines = csv.reader(content.splitlines()[1:], delimiter=_delimiter(content))
        rows = [(i, [cell.strip() for cell in row]) for i, row in enumerate(lines, 2) if row]
    except csv.Error as error:
        raise InputError(path, f"not a table ({error})", REMEDY) from error
    for i, row in rows:
        if len(row) != len(header):
            what = f"{len(row)} cells under {len(header)} names of columns"
            raise InputError(f"{path}, line {i}", what, "export it again")
    if len(set(header)) < len(header) and len(rows) > 3 and "x" not in header[1:3]:
        twice = next(name for name in header if header.count(name) > 1)
        if not twice.startswith("DLC") and header[0] != "scorer":
            raise InputError(path, f"two columns {twice!r}", "export it again")
    return Table(path, header, [row for _, row in rows])


def column(table: Table, index: int) -> Float[np.ndarray, " N"]:
    """A column of numbers; NaN where a cell is empty.

    Raises:
        InputError: naming the line, if one is no number.
    """
    texts = [row[index] for row in table.rows]
    try:
        values = np.array([np.nan if t.lower() in EMPTY else float(t) for t in texts])
        bad = int(np.isinf(values).argmax()) if np.isinf(values).any() else None
    except ValueError:
        bad = next(i for i, text in enumerate(texts) if not _is_number(text))
    if bad is not None:
        where = f"{table.path}, line {bad + 2}"
        what = f"{texts[bad][:40]!r} under {table.header[index]!r} is no finite number"
        raise InputError(where, what, "export it again")
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.lower() in EMPTY
    return True


class _People(NamedTuple):
    """Names of the joints if they have any, (row, points) of each body, and what to tell."""

    joints: tuple[str, ...] | None
    bodies: list[tuple["_Row", np.ndarray]]
    note: str


class _Row(NamedTuple):
    """Where and when a row is of."""

    line: int
    camera: str
    frame: int
    time: float
    track: str | None


def _delimiter(content: str) -> str:
    first = content.partition("\n")[0]
    return max(",;\t", key=first.count)


def _header(content: str) -> tuple[str, ...]:
    first = content.partition("\n")[0]
    return tuple(
        name.strip() for name in next(csv.reader([first], delimiter=_delimiter(first)), [])
    )


def _joint_of(column: str) -> tuple[str, str]:
    """The joint and the role of a column: x, y, score; empty where it is none of these."""
    for pattern in _PATTERNS:
        match = pattern.fullmatch(column)
        if match:
            return match["joint"], AXES[match["axis"].lower()]
    return "", ""


def _rows(table: Table, places: Mapping[str, int | None]) -> list[_Row]:
    """Camera, frame, time and track of every row."""
    n_rows = len(table.rows)

    def texts(role: str) -> list[str | None]:
        place = places[role]
        return [None] * n_rows if place is None else [row[place] for row in table.rows]

    frames, cameras, tracks = texts("frame"), texts("camera"), texts("track")
    for i, (frame, camera) in enumerate(zip(frames, cameras, strict=True)):
        if frame == "" or (camera is not None and camera.lower() in EMPTY):
            where = f"{table.path}, line {i + 2}"
            raise InputError(where, "no number of the frame or no name of the camera", "write it")
    numbers = {text: _frame(text, table) for text in dict.fromkeys(frames) if text is not None}
    times = np.full(n_rows, np.nan)
    if places["time"] is not None:
        times = column(table, places["time"])
        if (np.abs(times) > 1e13).any():
            raise InputError(
                table.path, f"a time of {np.nanmax(np.abs(times)):.3g}", "give seconds"
            )
        times = times / (1000 if "ms" in table.header[places["time"]].lower() else 1)
    prefix = "" if places["camera"] is None else table.header[places["camera"]]
    return [
        _Row(i + 2, f"{prefix}{camera or ''}", i if frame is None else numbers[frame], time, track)
        for i, (camera, frame, time, track) in enumerate(
            zip(cameras, frames, times.tolist(), tracks, strict=True)
        )
    ]


def _frame(text: str, table: Table) -> int:
    try:
        value = float(text)
        number: int | str = int(value) if value == round(value) else text
    except (ValueError, OverflowError):
        number = text
    return number_of(number, f"{table.path}, frame {text[:40]!r}")


def _wide(table: Table, places: Mapping[str, int | None], _: int | None) -> _People:
    columns: dict[str, dict[str, int]] = {}
    others = []
    taken = set(places.values())
    for index, name in enumerate(table.header):
        if index in taken:
            continue
        joint, axis = _joint_of(name)
        if axis and axis not in columns.setdefault(joint, {}):
            columns[joint][axis] = index
        elif not joint:
            others.append(name)
    columns = {joint: axes for joint, axes in columns.items() if axes}
    halves = [joint for joint, axes in columns.items() if not {"x", "y"} <= axes.keys()]
    if halves or not columns:
        what = f"no x and y of {', '.join(halves[:5]) or 'any joint'}"
        raise InputError(table.path, what, "name columns such as nose_x, nose_y, nose_confidence")
    joints = _in_order(columns)
    points = np.full((len(table.rows), len(joints), 3), np.nan)
    for i, joint in enumerate(joints):
        for axis, index in columns[joint].items():
            points[:, i, ROLES.index(axis)] = column(table, index)
    note = f"columns not read: {', '.join(name[:40] for name in others[:8])}" if others else ""
    rows = _rows(table, places)
    return _People(
        None if joints[0].isdecimal() else joints, list(zip(rows, points, strict=True)), note
    )


def _long(table: Table, places: Mapping[str, int | None], count: int | None) -> _People:
    roles = [AXES.get(name.lower(), "") for name in table.header]
    if not {"x", "y"} <= set(roles):
        raise InputError(table.path, "no columns x and y", "name the columns so")
    names = [row[places["joint"]] for row in table.rows]
    joints = _listed(names, count, table.path)
    index = {joint: i for i, joint in enumerate(joints)}
    values = np.full((len(names), 3), np.nan)
    for i, role in enumerate(ROLES):
        if role in roles:
            values[:, i] = column(table, roles.index(role))
    groups: dict[tuple, tuple[_Row, np.ndarray]] = {}
    done: set[tuple] = set()
    left_out = 0
    for row, name, value in zip(_rows(table, places), names, values, strict=True):
        joint = index.get(str(int(name)) if joints[:1] == ("0",) else name)
        key = row.camera, row.frame, row.track
        if key not in groups:
            groups[key] = row, np.full((len(joints), 3), np.nan)
        if joint is None:
            left_out += 1
        elif (key, joint) in done:
            what = f"joint {name} of frame {row.frame} again"
            where = f"{table.path}, line {row.line}"
            raise InputError(where, what, "name people in a column 'track'")
        else:
            done.add((key, joint))
            groups[key][1][joint] = value
    others = [
        name[:40]
        for i, name in enumerate(table.header)
        if i not in places.values() and name.lower() not in AXES
    ]
    notes = [f"{left_out} rows of points other than the {len(joints)} of the body"] * (
        left_out > 0
    )
    notes += [f"columns not read: {', '.join(others[:8])}"] * bool(others)
    joints = None if joints[:1] == ("0",) else joints
    return _People(joints, list(groups.values()), "; ".join(notes))


def _listed(cells: Sequence[str], count: int | None, path: Any) -> tuple[str, ...]:
    """The joints of a long table: by name, or all numbers up to the last or `count`."""
    names = list(dict.fromkeys(cells))
    numbered = bool(names) and names[0].isdecimal()
    strange = [name for name in names if name.lower() in EMPTY]
    if numbered:
        strange += [name for name in names if not name.isdecimal() or len(name) > 5]
    if strange:
        raise InputError(path, f"a joint called {strange[0]!r}", "correct or remove its rows")
    if numbered:
        return tuple(str(i) for i in range(count or 1 + max(map(int, names))))
    return tuple(names)


def _in_order(columns: Mapping[str, object]) -> tuple[str, ...]:
    """Numbered joints by their number; named ones as they come."""
    joints = tuple(columns)
    if all(joint.isdecimal() for joint in joints):
        return tuple(sorted(joints, key=int))
    return joints
