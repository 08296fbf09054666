"""What every reader of detections returns, and the checks that readers share.

All functions raise `InputError` where a file does not hold what it should.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

LARGEST_PX = 1e6  # no image is wider; larger numbers are no coordinates
LARGEST_SCORE = 1e4
MAX_BYTES = 1 << 30  # a file of an hour's detections is smaller, also unpacked
AGAIN = "run the detector on it again"


class InputError(ValueError):
    """A file that is not what it should be: which one, what is wrong, and what to do.

    A reader may leave the remedy out; then it is that of its format, `Format.REMEDY`.
    """

    def __init__(self, where: object, what: str, remedy: str = "") -> None:
        self.where, self.remedy = where, remedy
        self.what = what if len(what) <= 500 else f"{what[:497]}..."
        super().__init__(f"{where}: {self.what}; {remedy}")


class Person(NamedTuple):
    """One person in one frame, as the file has it."""

    keypoints: Float[np.ndarray, "J 3"]  # x, y, score; NaN: not given
    track: str | None = None
    score: float = np.nan  # of the person as a whole


class Document(NamedTuple):
    """A file and its content: parsed JSON, text, or the path of a binary file."""

    path: Path
    content: Any


@dataclass(frozen=True)
class CameraDetections:
    """What one camera saw."""

    frames: dict[int, list[Person]]  # every frame in the files, by its number
    joints: tuple[str, ...] | None = None  # as the file names them, if it does
    times: dict[int, float] = field(default_factory=dict)  # of frames, in seconds
    numbered: bool = True  # False: numbers are mere positions; only `times` tell the instant
    normalised: bool = False  # divided by the image size for certain; else decided by the numbers
    image_size: tuple[int, int] | None = None  # width, height
    note: str = ""  # what to tell the user
    path: str = ""  # the argument that named the files

    def instants(self, rate: float) -> dict[int, float]:
        """The time of each frame in seconds, in order; interpolated where the file has none."""
        numbers = sorted(self.frames)
        if not self.times:
            return {number: number / rate for number in numbers}
        known = sorted(self.times)
        seconds = np.array([self.times[number] for number in known])
        if (np.diff(seconds) <= 0).any():
            where = f"{self.path}, frame {known[1 + int((np.diff(seconds) <= 0).argmax())]}"
            what = "its time is not after that of the frame before"
            raise InputError(where, what, "correct the times, or say --fps")
        beyond = np.array(numbers) - np.clip(numbers, known[0], known[-1])
        times = np.interp(numbers, known, seconds) + beyond / rate
        return dict(zip(numbers, times.tolist(), strict=True))


def documents(paths: Iterable[Path]) -> Iterator[Document]:
    """Files with their content, one by one."""
    for path in paths:
        suffix = path.suffix.lower()
        if suffix in (".h5", ".hdf5", ".npz"):
            yield Document(path, path)
            continue
        if path.stat().st_size > MAX_BYTES:
            raise InputError(path, f"larger than {MAX_BYTES >> 20} MiB", "split the recording")
        data = path.read_bytes()
        try:
            content = json.loads(data) if suffix == ".json" else data.decode("utf-8-sig")
        except (ValueError, RecursionError) as error:
            kind = "JSON" if suffix == ".json" else "text"
            raise InputError(path, f"not {kind} ({error})", AGAIN) from error
        if suffix != ".json" and content and not content.endswith("\n"):
            remedy = "copy it again; if it is whole, end its last line"
            raise InputError(path, "the last line does not end, as if the file was cut", remedy)
        if suffix != ".json" and "\0" in content:
            raise InputError(path, "not text: it has zero bytes", AGAIN)
        yield Document(path, content)


def only(docs: Iterable[Document]) -> Document:
    """The document of a format with one file per camera."""
    first, *more = docs
    if more:
        raise InputError(first.path, "one of several files", "give one file per camera")
    return first


def by_file(docs: Iterable[Document]) -> Iterator[tuple[int, Document]]:
    """Documents of one frame each, with its number."""
    seen: dict[int, Path] = {}
    for doc in docs:
        number = number_of(doc.path.stem, doc.path)
        if number in seen:
            what = f"frame {number} again, after {seen[number].name}"
            raise InputError(doc.path, what, "a folder must hold the files of one camera only")
        seen[number] = doc.path
        yield number, doc


def add_frame(
    frames: dict[int, list[Person]], number: int, people: list[Person], where: object
) -> None:
    """Put a frame among those of the same file."""
    if number in frames:
        what, remedy = f"frame {number} is there twice", "give one file per camera, of one run"
        raise InputError(where, what, remedy)
    frames[number] = people


def number_of(name: object, where: object) -> int:
    """The frame number at the end of the name of a file or image, or a number itself."""
    if isinstance(name, int) and not isinstance(name, bool):
        number = name
    else:
        stem = re.sub(r"\.[A-Za-z]\w{0,4}$", "", str(name))
        match = re.search(r"(\d{1,18})(?:_keypoints|_rendered)?$", stem)
        if match is None:
            raise InputError(
                where,
                f"no frame number at the end of the name {_short(name)}, as in "
                "video_000000000012_keypoints.json",
                "move other files out of the folder, or number the frames",
            )
        number = int(match[1])
    if not 0 <= number < 1 << 53:
        raise InputError(where, f"frame {_short(number)}", "number frames from 0 or 1 on")
    return number


def numbers(values: Any, where: object) -> Float[np.ndarray, "..."]:
    """An array of numbers; null is NaN."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "iuf" and not all(
            value is None or type(value) in (int, float) for value in array.ravel()
        ):
            raise TypeError(f"but {array.dtype.name}")
        return array.astype(float)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(where, f"not a list of numbers ({_short(error)})") from error


def triples(values: Any, where: object) -> Float[np.ndarray, "J 3"]:
    """x, y, score from a flat or nested list of three numbers per joint."""
    array = numbers(values, where)
    if array.size % 3 or (array.ndim > 1 and array.shape[-1] != 3):
        raise InputError(where, f"{array.size} numbers, not 3 for each joint")
    return keypoints(array.reshape(-1, 3), where)


def keypoints(
    points: np.ndarray, where: object, scores: np.ndarray | None = None
) -> Float[np.ndarray, "J 3"]:
    """x, y and score, checked; the score is NaN where there is none.

    Points are (J, 2), or (J, 3) with the score or, beside separate scores, a depth to drop.
    """
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise InputError(where, f"keypoints of shape {points.shape}, need (joints, 2 or 3)")
    if scores is None:
        scores = points[:, 2] if points.shape[1] == 3 else np.full(len(points), np.nan)
    if scores.shape != points.shape[:1]:
        raise InputError(where, f"{points.shape} coordinates and {scores.shape} scores")
    points = np.column_stack([points[:, :2], scores])
    if (np.abs(points) >= [LARGEST_PX, LARGEST_PX, LARGEST_SCORE]).any():
        raise InputError(
            where,
            f"numbers up to {np.nanmax(np.abs(points)):.3g}: coordinates must be finite numbers "
            f"below {LARGEST_PX:g}, scores below {LARGEST_SCORE:g}",
        )
    return points


def listed(value: Any, where: object, what: str) -> list[Any]:
    """The value, which must be a list."""
    if not isinstance(value, list):
        raise InputError(where, f"{what} is {_short(value)}, not a list")
    return value


def entries(value: Any, where: object, what: str, one: str) -> Iterator[tuple[str, Any]]:
    """The place and content of each entry of a list called `what`; one of them is called `one`."""
    for i, entry in enumerate(listed(value, where, what)):
        yield f"{where}, {one} {i}", entry


def field_of(entry: Any, where: object, *keys: str) -> Any:
    """The value of an entry under the first of these keys that it has."""
    for key in keys:
        if isinstance(entry, dict) and key in entry:
            return entry[key]
    raise InputError(where, f"no {keys[0]!r}")


def person_of(
    points: Float[np.ndarray, "J 3"], entry: Mapping[str, Any], where: object, score: str
) -> Person:
    """A person with the track id in the entry, and the score of the whole under that key."""
    track = entry.get("idx", entry.get("track_id"))
    return Person(points, track_of(track, where), one_number(entry.get(score), where))


def one_number(value: Any, where: object) -> float:
    """A single number, however deeply it is put in lists; NaN if it is none."""
    array = np.ravel(numbers(value, where))
    return float(array[0]) if array.size else np.nan


def track_of(value: Any, where: object) -> str | None:
    """A track id, also in a nested list; None where it is missing or below 0."""
    for _ in range(8):
        if isinstance(value, list):
            value = value[0] if value else None
    if value is None or isinstance(value, str):
        return value or None
    number = one_number(value, where)
    return f"{number:.0f}" if number >= 0 else None


def size_of(width: Any, height: Any) -> tuple[int, int] | None:
    """Width and height of an image, if that is what a file holds."""
    for side in (width, height):
        if not isinstance(side, int | np.integer) or not 0 < side < 1 << 20:
            return None
    return int(width), int(height)


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, Exception) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
