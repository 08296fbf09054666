"""Open a stranger's file: each fault is an error that names the file and what to do."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

# No known data set has a file larger than this once unpacked; one that claims more is not read.
MAX_BYTES = 2 << 30
# Nothing that is measured in pixels, millimetres or frames is larger than this.
MAX_VALUE = 1e9


def existing(path: Path, remedy: str) -> Path:
    """The path itself, if it is a file.

    Raises:
        FileNotFoundError: otherwise, with the remedy.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {remedy}")
    return path


def need(found: Any, keys: Iterable[object], where: object) -> Mapping[Any, Any]:
    """`found`, if it is a mapping with these keys.

    Raises:
        ValueError: otherwise, naming the missing keys and those that are there.
    """
    if not isinstance(found, Mapping):
        raise ValueError(f"{where}: holds a {type(found).__name__}, not a dictionary")
    missing = [str(key) for key in keys if key not in found]
    if missing:
        there = ", ".join(str(key) for key in list(found)[:12]) or "nothing"
        raise ValueError(
            f"{where}: lacks {', '.join(missing)} (it has {there}); "
            "is it the file that the data set hands out?"
        )
    return found


def floats(array: Any, where: object) -> np.ndarray:
    """The array as float32, of any shape.

    Raises:
        ValueError: if it is none, or if a number can be no measurement. NaN can.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # becomes infinite, see below
            array = np.asarray(array, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: not an array of numbers ({error})") from error
    if (np.abs(array) > MAX_VALUE).any():
        raise ValueError(
            f"{where}: a value of {np.nanmax(np.abs(array)):.3g}; damaged, fetch it again"
        )
    return array


def numbers(array: Any, shape: Sequence[int | None], where: object) -> np.ndarray:
    """`floats`, if they have this shape (None: any length).

    Raises:
        ValueError: otherwise, with both shapes.
    """
    array = floats(array, where)
    fits = array.ndim == len(shape) and all(
        want in (None, have) for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{where}: shape {array.shape}, need ({wanted}); other joints or axes?")
    return array


def whole(array: Any, shape: Sequence[int | None], where: object) -> np.ndarray:
    """`numbers` that count or name something, as integers.

    Raises:
        ValueError: also if one is NaN or has a fraction.
    """
    array = numbers(array, shape, where)
    if not (array == np.round(array)).all():
        raise ValueError(f"{where}: not whole numbers; fetch it again")
    return array.astype(np.int64)


def vector(array: Any, length: int, where: object) -> np.ndarray:
    """So many numbers, as float64, whichever axes they come on.

    Raises:
        ValueError: if there are others.
    """
    return numbers(floats(array, where).ravel(), (length,), where).astype(np.float64)


def rotation(array: Any, where: object) -> np.ndarray:
    """A rotation matrix, as float64.

    Raises:
        ValueError: if it is none.
    """
    array = numbers(array, (3, 3), where).astype(np.float64)
    if not (np.allclose(array @ array.T, np.eye(3), atol=1e-3) and np.linalg.det(array) > 0):
        raise ValueError(f"{where}: not a rotation, but {array.tolist()}; fetch it again")
    return array


def check_size(n_bytes: int, where: object) -> None:
    """Refuse what claims to unpack to more than `MAX_BYTES`, before it is read.

    Raises:
        ValueError: saying so.
    """
    if n_bytes > MAX_BYTES:
        raise ValueError(
            f"{where}: unpacks to {n_bytes / 2**30:.1f} GiB, more than any known data set "
            f"({MAX_BYTES / 2**30:.1f} GiB); if it is genuine, split it"
        )


@contextmanager
def open_h5(path: Path, remedy: str) -> Iterator[h5py.File]:
    """An HDF5 file, to be read.

    Raises:
        FileNotFoundError: if there is no such file; the message ends with the remedy.
        ValueError: if it, or what is read of it meanwhile, is damaged.
    """
    existing(path, remedy)
    try:
        with h5py.File(path, "r") as file:
            yield file
    # KeyError: a broken link; AttributeError and TypeError: a group in place of a data set
    except (ValueError, OSError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path}: not a readable HDF5 file ({error}); fetch it again") from error


def read_h5(path: Path, keys: Sequence[str], remedy: str) -> dict[str, np.ndarray]:
    """The data sets `keys` of an HDF5 file, whole; raises as `open_h5`, and for missing keys."""
    with open_h5(path, remedy) as file:
        found = {key: file[key] for key in keys if key in file}
        if len(found) < len(keys):  # a name that leads nowhere is in the file, but not found
            others = [key for key in file if key not in keys]
            need({**found, **dict.fromkeys(others)}, keys, path)
        check_size(sum(data.nbytes for data in found.values()), path)
        return {key: data[()] for key, data in found.items()}
