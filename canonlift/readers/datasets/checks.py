"""Check what files of others hold.

What is missing raises FileNotFoundError, what is damaged or of another kind ValueError; the
message names the file (`where`) and says what to do.
"""

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
    """The path itself, if it is a file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {remedy}")
    return path


def need(found: Any, keys: Iterable[object], where: object) -> Mapping[Any, Any]:
    """`found`, if it is a mapping with these keys."""
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


def items(found: Any, length: int, of: str, where: object) -> list[Any]:
    """What is in `found`, if that is a list of this length."""
    if not isinstance(found, list | tuple | np.ndarray) or len(found) != length:
        raise ValueError(f"{where}: not a list of {length} {of}")
    return list(found)


def numbers(
    array: Any, shape: Sequence[int | None] | None, where: object
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The array as float32, if it has this shape (None: any) and no impossible value but NaN."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # becomes infinite, see below
            array = np.asarray(array, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: not an array of numbers ({error})") from error
    if (np.abs(array) > MAX_VALUE).any():
        raise ValueError(
            f"{where}: a value of {np.nanmax(np.abs(array)):.3g}; damaged, fetch it again"
        )
    if shape is not None and not (
        array.ndim == len(shape)
        and all(want in (None, have) for have, want in zip(array.shape, shape, strict=True))
    ):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{where}: shape {array.shape}, need ({wanted}); other joints or axes?")
    return array


def integers(array: Any, shape: Sequence[int | None], where: object) -> np.ndarray:
    """`numbers` without NaN or fractions, as int64."""
    array = numbers(array, shape, where)
    if not (array == np.round(array)).all():
        raise ValueError(f"{where}: not whole numbers; fetch it again")
    return array.astype(np.int64)


def vector(array: Any, length: int, where: object) -> np.ndarray:
    """So many numbers, whichever axes they come on, as float64."""
    return numbers(numbers(array, None, where).ravel(), (length,), where).astype(np.float64)


def rotation(array: Any, where: object) -> np.ndarray:
    """A rotation matrix, as float64."""
    array = numbers(array, (3, 3), where).astype(np.float64)
    if not (np.allclose(array @ array.T, np.eye(3), atol=1e-3) and np.linalg.det(array) > 0):
        raise ValueError(f"{where}: not a rotation, but {array.tolist()}; fetch it again")
    return array


def check_size(n_bytes: int, where: object) -> None:
    """Refuse what unpacks to more than `MAX_BYTES`, before it is read."""
    if n_bytes > MAX_BYTES:
        raise ValueError(
            f"{where}: unpacks to {n_bytes / 2**30:.1f} GiB, more than any known data set "
            f"({MAX_BYTES / 2**30:.1f} GiB); if it is genuine, split it"
        )


@contextmanager
def open_h5(path: Path, remedy: str) -> Iterator[h5py.File]:
    """An HDF5 file, to be read; errors met while it is open name it as well."""
    existing(path, remedy)
    try:
        with h5py.File(path, "r") as file:
            yield file
    # KeyError: a broken link
    except (ValueError, OSError, RuntimeError, KeyError, TypeError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path}: not a readable HDF5 file ({error}); fetch it again") from error


def h5_arrays(file: h5py.File, keys: Iterable[str | h5py.Reference]) -> list[np.ndarray]:
    """The arrays at these names or references, whole; for use inside of `open_h5`."""
    found = [file[key] for key in keys]
    arrays = [array for array in found if isinstance(array, h5py.Dataset)]
    if len(arrays) < len(found):
        raise TypeError("a group in place of an array")
    check_size(sum(array.nbytes for array in arrays), file.filename)
    return [np.asarray(array[()]) for array in arrays]  # of a text h5py gives bytes


def read_h5(path: Path, keys: Sequence[str], remedy: str) -> dict[str, np.ndarray]:
    """The arrays `keys` of an HDF5 file, whole."""
    with open_h5(path, remedy) as file:
        need(file, keys, path)
        return dict(zip(keys, h5_arrays(file, keys), strict=True))
