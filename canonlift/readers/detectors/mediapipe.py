"""MediaPipe's pose landmarks as people save them, for there is no format of its own.

JSON: a list of frames, or a mapping of frame numbers to them, or one file per frame. A frame is
the landmarks, or has them under one of `LANDMARKS` beside its number or time. Landmarks are 33
points of one person or lists of such; a point is {x, y, z, visibility} or a list of these
numbers. CSV: as in `csv_table`. Of a holistic result the body alone is read.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from canonlift.readers.detectors import csv_table, joint_layouts, parsing
from canonlift.readers.detectors.joint_layouts import BLAZEPOSE33
from canonlift.readers.detectors.parsing import CameraDetections, Document, InputError, Person

LANDMARKS = ("pose_landmarks", "poseLandmarks", "landmarks", "landmark", "pose", "keypoints")
FRAMES = ("frames", "results", "data")
NUMBERS = ("frame", "frame_id", "frame_index", "frame_number", "frameIndex", "frameNumber")
SECONDS = {
    "timestamp_ms": 1e-3, "timestampMs": 1e-3, "time_ms": 1e-3, "timestamp": 1.0, "time": 1.0,
    "time_s": 1.0,
}  # fmt: skip
REMEDY = "save for each frame its number and the 33 points of pose_landmarks"


def recognise(content: Any) -> bool:
    """Whether a file's content is this format."""
    if isinstance(content, str):
        header = content.partition("\n")[0].lower()
        names = ("foot_index", "eye_inner", "sync_index", "landmark_id", "x32", "x33", "32_x")
        return csv_table.recognise(content) and any(name in header for name in names)
    for _ in range(4):
        if isinstance(content, dict):
            if {"x", "y"} <= content.keys() or {"NOSE", "nose"} & content.keys():
                return True
            inner = [content[key] for key in (*FRAMES, *LANDMARKS) if content.get(key)]
            inner += [value for key, value in content.items() if str(key).isdecimal() and value]
            content = inner[:1]
        if not isinstance(content, list):
            return False
        content = next((item for item in content if item), None)
        if isinstance(content, list) and content and type(content[0]) in (int, float):
            return len(content) in (2, 3, 4, 5)
    return isinstance(content, dict) and {"x", "y"} <= content.keys()


def read(docs: Iterable[Document]) -> dict[str, CameraDetections]:
    """Read the files of one camera, or one table of several."""
    docs = list(docs)
    if isinstance(docs[0].content, str):
        return csv_table.read(docs, len(BLAZEPOSE33))
    path, content = docs[0]
    size = None
    if len(docs) == 1:
        items, size = list(_frames(content, path)), _size(content)
    else:
        items = [(number, doc.content, f"{doc.path}") for number, doc in parsing.by_file(docs)]
    frames: dict[int, list[Person]] = {}
    times: dict[int, float] = {}
    given = [_number(frame, where) for _, frame, where in items]
    timed = [_time(frame, where) for _, frame, where in items]
    numbered = None not in given or all(np.isnan(timed))
    for (position, frame, where), own, time in zip(items, given, timed, strict=True):
        number = position if None in given or own is None else own
        parsing.add_frame(frames, number, _people(frame, where), where)
        if np.isfinite(time):
            times[number] = time
    return {"": CameraDetections(frames, None, times, numbered, image_size=size)}


def _frames(content: Any, path: object) -> Iterable[tuple[int, Any, str]]:
    """Position or number, frame, and where it is."""
    if isinstance(content, dict):
        inner = next((content[key] for key in FRAMES if key in content), None)
        if inner is None and not any(key in content for key in LANDMARKS):
            for key, frame in content.items():
                if str(key).isdecimal():
                    number = parsing.number_of(str(key), path)
                    yield number, frame, f"{path}, frame {number}"
            return
        content = [content] if inner is None else inner
    frames = parsing.listed(content, path, "the content")
    if len(frames) == len(BLAZEPOSE33) and all(_is_point(item) for item in frames):
        frames = [frames]  # a single image
    for position, frame in enumerate(frames):
        yield position, frame, f"{path}, entry {position}"


def _first(frame: Any, keys: Iterable[str]) -> str | None:
    """The first of the keys that the frame has, if it is a dictionary at all."""
    return next((key for key in keys if isinstance(frame, dict) and key in frame), None)


def _number(frame: Any, where: object) -> int | None:
    key = _first(frame, NUMBERS)
    return None if key is None else parsing.number_of(frame[key], where)


def _time(frame: Any, where: object) -> float:
    key = _first(frame, SECONDS)
    seconds = np.nan if key is None else parsing.one_number(frame[key], where) * SECONDS[key]
    if abs(seconds) > 1e13:
        raise InputError(where, f"a time of {seconds:.3g} s", "give seconds")
    return seconds


def _is_point(item: Any) -> bool:
    if isinstance(item, dict):
        return {"x", "y"} <= item.keys()
    return isinstance(item, list) and 2 <= len(item) <= 5 and not isinstance(item[0], list | dict)


def _people(frame: Any, where: str) -> list[Person]:
    for _ in range(3):
        if isinstance(frame, dict) and not all(_is_point(item) for item in frame.values()):
            if (key := _first(frame, LANDMARKS)) is None:
                raise InputError(where, f"no landmarks under {', '.join(LANDMARKS)}")
            frame = frame[key]
    if isinstance(frame, dict):
        points = {joint_layouts.canonical(str(name)): point for name, point in frame.items()}
        if missing := [joint for joint in BLAZEPOSE33 if joint not in points]:
            raise InputError(where, f"no {', '.join(missing[:5])}")
        frame = [points[joint] for joint in BLAZEPOSE33]
    if not frame and frame is not False and frame != 0:
        return []  # nobody
    people = parsing.listed(frame, where, "its landmarks")
    if _is_point(people[0]):
        people = [people]
    return [_person(person, f"{where}, person {i}") for i, person in enumerate(people)]


def _person(points: Any, where: str) -> Person:
    if (key := _first(points, LANDMARKS)) is not None:
        points = points[key]
    rows = []
    for point in parsing.listed(points, where, "the person"):
        if not _is_point(point):
            raise InputError(where, "a point without x and y")
        if isinstance(point, dict):
            rows.append([point["x"], point["y"], point.get("visibility")])
        else:  # x, y; x, y, visibility; x, y, z, visibility; x, y, z, visibility, presence
            place = {2: None, 3: 2}.get(len(point), 3)
            rows.append([*point[:2], point[place] if place else None])
    if len(rows) != len(BLAZEPOSE33):
        raise InputError(where, f"{len(rows)} points, not {len(BLAZEPOSE33)}")
    array = parsing.numbers(rows, where).reshape(-1, 3)
    if isinstance(points[0], list) and len(points[0]) == 3 and (array[:, 2] < 0).any():
        array[:, 2] = np.nan  # it is z, which is 0 at the hips, and no visibility
    return Person(parsing.keypoints(array, where))


def _size(content: Any) -> tuple[int, int] | None:
    """Width and height, where the file has them at its top."""
    if not isinstance(content, dict):
        return None
    size = content.get("image_size") or [content.get(key) for key in ("width", "height")]
    return parsing.size_of(*size) if isinstance(size, list) and len(size) == 2 else None
