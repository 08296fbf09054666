"""YOLO-pose by ultralytics: `labels/*.txt` (save_txt), or `results.tojson()` as JSON.

Ultralytics puts joints that it is less than half sure of in the corner, (0, 0).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from canonlift.readers.detectors import parsing
from canonlift.readers.detectors.parsing import CameraDetections, Document, InputError, Person

REMEDY = "save it again by ultralytics, with save_txt=True or results.tojson()"
JOINTS = 17


def recognise(content: Any) -> bool:
    """Whether a file's content is this format."""
    if isinstance(content, str):
        first = content.partition("\n")[0]
        return len(first.split()) >= 5 + 3 * 3 and _is_box(first)
    while isinstance(content, list) and content:
        content = next((item for item in content if item), None)
    return isinstance(content, dict) and {"class", "keypoints"} <= content.keys()


def read(docs: Iterable[Document]) -> dict[str, CameraDetections]:
    """Read the files of one camera: one per frame, or one list of all frames."""
    docs = list(docs)
    path, content = docs[0]
    if isinstance(content, str):
        return {"": CameraDetections(_text_frames(docs), normalised=True)}
    is_list = isinstance(content, list) and any(isinstance(item, list) for item in content)
    if len(docs) == 1 and is_list:
        frames = {n: _people(people, f"{path}, frame {n}") for n, people in enumerate(content)}
    else:
        frames = {number: _people(doc.content, doc.path) for number, doc in parsing.by_file(docs)}
    return {"": CameraDetections(frames)}


def _is_box(line: str) -> bool:
    """Whether a line begins with a class and four shares of the image's size."""
    try:
        kind, *box = map(float, line.split()[:5])
    except ValueError:
        return False
    return kind >= 0 and kind.is_integer() and all(0 <= side <= 1 for side in box)


def _people(content: Any, where: object) -> list[Person]:
    people = []
    for here, entry in parsing.entries(content, where, "the content", "person"):
        joints = parsing.field_of(entry, here, "keypoints")
        x, y = (parsing.numbers(parsing.field_of(joints, here, axis), here) for axis in "xy")
        if not x.ndim == y.ndim == 1 or len(x) != len(y):
            raise InputError(here, f"{x.shape} x and {y.shape} y")
        visible = joints.get("visible")
        scores = None if visible is None else parsing.numbers(visible, here)
        points = parsing.keypoints(np.column_stack([x, y]), here, scores)
        people.append(parsing.person_of(points, entry, here, "confidence"))
    return people


def _text_frames(docs: list[Document]) -> dict[int, list[Person]]:
    rows: dict[int, list[np.ndarray]] = {}
    for number, (path, content) in parsing.by_file(docs):
        try:
            rows[number] = [np.array(line.split(), dtype=float) for line in content.splitlines()]
        except ValueError as error:
            raise InputError(path, f"not numbers ({error})") from error
    path = docs[0].path.parent
    all_rows = [row for people in rows.values() for row in people]
    widths = sorted({len(row) for row in all_rows})
    columns = {width: _columns(width) for width in widths}
    if len({per_joint for per_joint, _ in columns.values()}) > 1 or (0, 0) in columns.values():
        raise InputError(
            path,
            f"lines of {', '.join(map(str, widths))} numbers, but a box and 17 joints are 39 or "
            "56, with confidence, track id or both 1 or 2 more",
        )
    # One number more is a confidence or an id. Only ids are whole numbers throughout.
    last = np.array([row[-1] for row in all_rows if columns[len(row)][1] == 1])
    both = any(more == 2 for _, more in columns.values())
    id_last = not both and bool(np.all(last == np.round(last)))
    return {
        number: [
            _person(row, *columns[len(row)], id_last, f"{path}, frame {number}") for row in people
        ]
        for number, people in rows.items()
    }


def _columns(width: int) -> tuple[int, int]:
    """Numbers per joint, and how many follow; (0, 0) if too few for a person."""
    for per_joint in (3, 2):
        more = width - 5 - per_joint * JOINTS
        if 0 <= more <= 2:
            return per_joint, more
    return (3, (width - 5) % 3) if width > 8 else (0, 0)  # of a model with other joints


def _person(row: np.ndarray, per_joint: int, more: int, id_last: bool, where: str) -> Person:
    end = len(row) - more
    has_id = more == 2 or (more == 1 and id_last)
    track = parsing.track_of(float(row[-1]), where) if has_id else None
    score = float(row[end]) if more > has_id else np.nan
    return Person(parsing.keypoints(row[5:end].reshape(-1, per_joint), where), track, score)
