"""Tables of comma-separated values with a header: a column per joint and axis, or a row per joint.

Wide: `frame,time,nose_x,nose_y,nose_confidence,l_hip_x,...` (also `x_nose`, `NoseX`, `x0`). Long:
`frame,joint,x,y,confidence`. Both may have a column for the person and one for the camera.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from canonlift.data.detectors.footage import (
    Cameras,
    Document,
    Footage,
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
    for row in people:
        key = (row.camera, row.frame, row.person.track)
        if key in seen:
            where = f"{table.path}, line {row.line}"
            what = f"frame {row.frame} again, of the same person"
            raise InputError(where, what, "name people in a column 'track'")
        seen.add(key)
        cameras.setdefault(row.camera, {}).setdefault(row.frame, []).append(row.person)
        if np.isfinite(row.time):
            times.setdefault(row.camera, {})[row.frame] = row.time
    numbered = places["frame"] is not None or places["time"] is None
    return {
        name: Footage(frames, joints, times.get(name, {}), numbered, note=note)
        for name, frames in cameras.items()
    }


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


def cell(text: str, where: object) -> float:
    """A number, or NaN where there is none.

    Raises:
        InputError: if it is neither.
    """
    if text.lower() in EMPTY:
        return np.nan
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(where, f"{text[:40]!r} is not a number", "export it again") from error
    if np.isinf(value):
        raise InputError(where, "a number is not finite", "export it again")
    return value


class _Row(NamedTuple):
    line: int
    camera: str
    frame: int
    time: float
    person: Person


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


def _place(
    row: Sequence[str], places: Mapping[str, int | None], names: Sequence[str], position: int,
    where: str,
) -> tuple[str, int, float, str | None]:  # fmt: skip
    """Camera, frame, time and track of a row."""

    def text(role: str) -> str | None:
        return None if places[role] is None else row[places[role]]

    frame, time, track, camera = (text(role) for role in ("frame", "time", "track", "camera"))
    number = position
    if frame is not None:
        try:
            value = float(frame)
            number = int(value) if value == round(value) else frame
        except (ValueError, OverflowError):
            number = frame
        number = number_of(number, where)
    seconds = np.nan if time is None else cell(time, where)
    if abs(seconds) > 1e13:
        raise InputError(where, f"a time of {seconds:.3g}", "give seconds")
    if places["time"] is not None and "ms" in names[places["time"]].lower():
        seconds /= 1000
    if "" in (camera, frame) or (camera or "").lower() in EMPTY[1:]:
        raise InputError(where, "no number of the frame or no name of the camera", "write it")
    name = "" if camera is None else f"{names[places['camera']]}{camera}"
    return name, number, seconds, track


def _wide(
    table: Table, places: Mapping[str, int | None], _: int | None
) -> tuple[tuple[str, ...] | None, list[_Row], str]:
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
    people = []
    for position, row in enumerate(table.rows):
        where = f"{table.path}, line {position + 2}"
        camera, frame, time, track = _place(row, places, table.header, position, where)
        points = [
            [cell(row[axes[a]], where) if a in axes else np.nan for a in ("x", "y", "score")]
            for axes in (columns[joint] for joint in joints)
        ]
        person = Person(keypoints(np.array(points), where), track)
        people.append(_Row(position + 2, camera, frame, time, person))
    note = f"columns not read: {', '.join(others[:8])}" if others else ""
    return None if joints[0].isdecimal() else joints, people, note


def _long(
    table: Table, places: Mapping[str, int | None], count: int | None
) -> tuple[tuple[str, ...] | None, list[_Row], str]:
    roles = [AXES.get(name.lower(), "") for name in table.header]
    if not {"x", "y"} <= set(roles):
        raise InputError(table.path, "no columns x and y", "name the columns so")
    axes = {role: roles.index(role) for role in ("x", "y", "score") if role in roles}
    joints = _listed([row[places["joint"]] for row in table.rows], count, table.path)
    index = {joint: i for i, joint in enumerate(joints)}
    groups: dict[tuple, np.ndarray] = {}
    rows: dict[tuple, tuple[int, float]] = {}
    done: set[tuple] = set()
    left_out = 0
    for position, row in enumerate(table.rows):
        where = f"{table.path}, line {position + 2}"
        camera, frame, time, track = _place(row, places, table.header, position, where)
        name = row[places["joint"]]
        joint = index.get(str(int(name)) if name.isdecimal() else name)
        key = camera, frame, track
        if key not in groups:
            groups[key] = np.full((len(joints), 3), np.nan)
            rows[key] = position + 2, time
        if joint is None:
            left_out += 1
            continue
        if (key, joint) in done:
            what = f"joint {name} of frame {frame} again"
            raise InputError(where, what, "name people in a column 'track'")
        done.add((key, joint))
        for column, role in enumerate(("x", "y", "score")):
            if role in axes:
                groups[key][joint, column] = cell(row[axes[role]], where)
    people = [
        _Row(rows[key][0], key[0], key[1], rows[key][1],
             Person(keypoints(points, f"{table.path}, frame {key[1]}"), key[2]))
        for key, points in groups.items()
    ]  # fmt: skip
    note = (
        f"{left_out} rows of points other than the {len(joints)} of the body" if left_out else ""
    )
    return None if joints[:1] == ("0",) else joints, people, note


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
