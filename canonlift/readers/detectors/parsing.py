"""What every reader of detections gives, and the words in which each of them refuses a file."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

LARGEST_PX = 1e6  # no image is wider; larger numbers are no coordinates
LARGEST_SCORE = 1e4
MAX_BYTES = 1 << 30  # a file of an hour's detections is smaller, also unpacked


class InputError(ValueError):
    """A file that is not what it should be: which one, where in it, and what to do."""

    def __init__(self, where: object, what: str, remedy: str) -> None:
        what = what if len(what) <= 500 else f"{what[:497]}..."
        super().__init__(f"{where}: {what}; {remedy}")


class Person(NamedTuple):
    """Somebody in one frame, as the file has it."""

    keypoints: Float[np.ndarray, "J 3"]  # x, y, score; NaN: not given
    track: str | None = None
    score: float = np.nan  # of the person as a whole


class Document(NamedTuple):
    """A file, and what was read of it: parsed JSON, text, or the path of a binary file."""

    path: Path
    content: Any


@dataclass(frozen=True)
class CameraDetections:
    """What one camera saw."""

    frames: dict[int, list[Person]]  # every frame of which the files speak, by its number
    joints: tuple[str, ...] | None = None  # as the file names them; None: it does not
    times: dict[int, float] = field(default_factory=dict)  # of frames, in seconds
    numbered: bool = True  # False: numbers are mere positions; only `times` tell the instant
    normalised: bool | None = None  # divided by the image size? None: see the numbers
    image_size: tuple[int, int] | None = None  # width, height
    note: str = ""  # what to tell the user
    path: str = ""  # what was given to be read

    def instants(self, rate: float) -> dict[int, float]:
        """When each frame was, in seconds and in order; one without a time is between others.

        Raises:
            InputError: if time runs back from one frame to the next.
        """
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


# What a reader makes of the files of one argument: a camera, or several by name.
Cameras = dict[str, CameraDetections]


def documents(paths: Iterable[Path]) -> Iterator[Document]:
    """Files with what they hold, one by one.

    Raises:
        InputError: if a file is damaged.
    """
    for path in paths:
        yield Document(path, LOADERS.get(path.suffix.lower(), _text)(path))


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise InputError(path, f"larger than {MAX_BYTES >> 20} MiB", "split it into takes")
    return path.read_bytes()


def _json(path: Path) -> Any:
    try:
        return json.loads(_bytes(path))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        remedy = "run the detector on it again"
        raise InputError(path, f"not JSON ({error})", remedy) from error


def _text(path: Path) -> str:
    try:
        text = _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(path, f"not text ({error})", "run the detector on it again") from error
    if text and not text.endswith("\n"):
        remedy = "copy it again; if it is whole, end its last line"
        raise InputError(path, "the last line does not end, as if the file was cut", remedy)
    if "\0" in text:
        raise InputError(path, "not text: it has zero bytes", "run the detector on it again")
    return text


def _path(path: Path) -> Path:
    return path


LOADERS = {".json": _json, ".h5": _path, ".hdf5": _path, ".npz": _path}


def number_of(name: object, where: object) -> int:
    """The frame number at the end of the name of a file or image, or a number itself.

    Raises:
        InputError: if there is none.
    """
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


def by_file(docs: Iterable[Document]) -> Iterator[tuple[int, Document]]:
    """Documents of one frame each, with its number.

    Raises:
        InputError: if a frame has two files, or a file no number.
    """
    seen: dict[int, Path] = {}
    for doc in docs:
        number = number_of(doc.path.stem, doc.path)
        if number in seen:
            raise InputError(
                doc.path,
                f"frame {number} again, after {seen[number].name}",
                "a folder must hold the files of one camera only",
            )
        seen[number] = doc.path
        yield number, doc


def numbers(values: Any, where: object) -> np.ndarray:
    """An array of numbers; null is NaN.

    Raises:
        InputError: if it holds anything else, or infinity.
    """
    remedy = "run the detector on it again"
    try:
        array = np.asarray(values)
        if array.dtype.kind == "O" and array.size and not _plain(array):
            raise TypeError("not a list of numbers")
        array = array if array.dtype.kind in "iuf" else _floats(array)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(where, f"not a list of numbers ({_short(error)})", remedy) from error
    array = array.astype(float)
    if np.isinf(array).any():
        raise InputError(where, "a number is not finite", remedy)
    return array


def _plain(array: np.ndarray) -> bool:
    return all(value is None or type(value) in (int, float) for value in array.ravel())


def _floats(array: np.ndarray) -> np.ndarray:
    if array.size and array.dtype.kind != "O":
        raise TypeError(f"but {array.dtype.name}")
    return np.array([np.nan if v is None else float(v) for v in array.ravel()]).reshape(
        array.shape
    )


def triples(values: Any, where: object, columns: int = 3) -> Float[np.ndarray, "J 3"]:
    """x, y, score from a flat or nested list of `columns` (2 or 3) numbers per joint.

    Raises:
        InputError: if they are not that, or no coordinates.
    """
    array = numbers(values, where)
    if array.size % columns or (array.ndim > 1 and array.shape[-1] != columns):
        raise InputError(
            where,
            f"{array.size} numbers, not {columns} for each joint",
            "run the detector on it again",
        )
    return keypoints(array.reshape(-1, columns), where)


def keypoints(
    points: Float[np.ndarray, "J C"], where: object, scores: np.ndarray | None = None
) -> Float[np.ndarray, "J 3"]:
    """x, y and score, checked; the score is NaN where there is none.

    Raises:
        InputError: if they can be no coordinates or scores, or do not belong together.
    """
    if scores is not None:
        if scores.ndim != 1 or points.ndim != 2 or len(scores) != len(points):
            raise InputError(
                where,
                f"{points.shape} coordinates and {scores.shape} scores",
                "run the detector on it again",
            )
        points = np.column_stack([points[:, :2], scores])
    elif points.shape[1] == 2:
        points = np.column_stack([points, np.full(len(points), np.nan)])
    if (np.abs(points[:, :2]) >= LARGEST_PX).any() or (
        np.abs(points[:, 2]) >= LARGEST_SCORE
    ).any():
        raise InputError(
            where,
            f"numbers up to {np.nanmax(np.abs(points)):.3g}: coordinates must be finite numbers "
            f"below {LARGEST_PX:g}, scores below {LARGEST_SCORE:g}",
            "run the detector on it again",
        )
    return points


def entries(value: Any, where: object, what: str, remedy: str) -> list:
    """The value, if it is a list.

    Raises:
        InputError: otherwise.
    """
    if not isinstance(value, list):
        raise InputError(where, f"{what} is {_short(value)}, not a list", remedy)
    return value


def field_of(entry: Any, keys: Sequence[str], where: object, remedy: str) -> Any:
    """What an entry has under the first of these names.

    Raises:
        InputError: if it has none of them.
    """
    for key in keys:
        if isinstance(entry, dict) and key in entry:
            return entry[key]
    raise InputError(where, f"no {keys[0]!r}", remedy)


def one_number(value: Any, where: object) -> float:
    """A single number, however deeply it is put in lists; NaN if it is none."""
    array = np.ravel(numbers(value, where))
    return float(array[0]) if array.size else np.nan


def track_of(value: Any, where: object) -> str | None:
    """A person's number over time, also in a nested list; None where it is missing or below 0."""
    for _ in range(8):
        if isinstance(value, list):
            value = value[0] if value else None
    if value is None or isinstance(value, str):
        return value or None
    number = one_number(value, where)
    return f"{number:.0f}" if number >= 0 else None


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, Exception) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
