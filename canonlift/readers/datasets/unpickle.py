"""Read pickles and npz files of others without running what they may contain.

Numpy arrays and scalars and plain containers are all that a data set needs. Anything else that
a pickle names, and so could call, is refused. Errors are those of `checks`.
"""

import codecs
import math
import pickle
import zipfile
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from canonlift.readers.datasets.checks import check_size, existing, need


def load_pickle(path: Path, remedy: str) -> Any:
    """What a pickle holds: arrays, numpy scalars and plain containers."""
    check_size(existing(path, remedy).stat().st_size, path)
    return loads(path.read_bytes(), path)


def load_npz(path: Path, keys: Sequence[str], remedy: str) -> dict[str, Any]:
    """The entries `keys` of an npz file; an object array without dimensions is its content."""
    existing(path, remedy)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
            need(members, keys, path)
            check_size(sum(members[key].file_size for key in keys), path)
            return {key: _read_npy(archive.read(members[key]), f"{path}, {key}") for key in keys}
    # RuntimeError: encrypted, or of an unknown compression
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path}: not a readable .npz ({error}); fetch it again") from error


def load_npy(path: Path, remedy: str) -> Any:
    """The array in an npy file; an object array without dimensions is its content."""
    check_size(existing(path, remedy).stat().st_size, path)
    return _read_npy(path.read_bytes(), path)


def _read_npy(content: bytes, where: object) -> Any:
    file = BytesIO(content)
    try:
        if np.lib.format.read_magic(file) == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        else:  # refuses all but (2, 0)
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    except Exception as error:  # numpy has a parser read the header
        raise ValueError(f"{where}: not a numpy array ({error}); fetch it again") from error
    data = file.read()
    if dtype.hasobject:
        array = loads(data, where)
        if not isinstance(array, np.ndarray) or array.shape != shape:
            raise ValueError(f"{where}: its pickle is not the array that its header announces")
        return array.item() if shape == () else array
    if len(data) != math.prod(shape) * dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError(f"{where}: {len(data)} bytes for {dtype} {shape}; truncated, fetch again")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


class _ForbiddenError(ValueError):
    pass


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, where: object) -> None:
        super().__init__(BytesIO(data), encoding="latin1")  # Python 2 wrote arrays as text
        self._where = where

    def find_class(self, module: str, name: str, /) -> Callable:
        """The replacement for a name that is known to be harmless."""
        current = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        if (current, name) not in _KNOWN:
            raise _ForbiddenError(
                f"{self._where}: refused, its pickle calls {module}.{name}; only numpy arrays and "
                "plain containers are read. If you trust its source, load the file there and save "
                "it again as such"
            )
        return _KNOWN[current, name]


def loads(data: bytes, where: object) -> Any:
    """What a pickle in memory holds: arrays, numpy scalars and plain containers."""
    try:
        return _Unpickler(data, where).load()
    except _ForbiddenError:
        raise
    except Exception as error:  # a damaged or hostile pickle can raise anything
        kind = type(error).__name__
        raise ValueError(
            f"{where}: not a readable pickle ({kind}: {error}); fetch it again"
        ) from error


class _Dtype:
    """A data type as a pickle describes it; only simple ones are made `real`.

    Numpy trusts the state it unpickles: the fields of a structured type may point outside of
    the array.
    """

    __slots__ = ("_code", "_order")

    def __init__(self, code: Any, *_: Any) -> None:
        self._code, self._order = str(code), "="

    def __setstate__(self, state: Any) -> None:
        _, self._order, subarray, names, fields = state[:5]
        if (subarray, names, fields) != (None, None, None):
            raise TypeError("a structured data type")

    @staticmethod
    def real(dtype: Any) -> np.dtype:
        """The data type that `dtype` stands for."""
        if type(dtype) is not _Dtype:
            raise TypeError(f"data type {dtype!r}")
        found, order = np.dtype(dtype._code), dtype._order
        if found.kind not in "biufcSUO" or order not in ("<", ">", "=", "|"):
            raise TypeError(f"data type {order}{found}")
        return found.newbyteorder(order)


class _Array(np.ndarray):
    """An array that checks its size; numpy reads past the end of too short a list of objects."""

    def __setstate__(self, state: Any) -> None:
        shape, dtype, fortran, data = state[-4:]
        dtype, data = _Dtype.real(dtype), _as_bytes(data)
        size = math.prod(shape) * (1 if dtype.hasobject else dtype.itemsize)
        right = list if dtype.hasobject else bytes
        if type(data) is not right or len(data) != size or min(shape, default=0) < 0:
            raise ValueError(f"{dtype} {shape} does not fit the data")
        super().__setstate__((1, shape, dtype, fortran, data))


def _empty_array(*_: Any) -> np.ndarray:
    return np.ndarray.__new__(_Array, (0,), "b")  # __setstate__ follows


# The arguments of these come from the pickle: they can be anything.
def _from_buffer(
    buffer: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None
) -> np.ndarray:
    array = np.frombuffer(buffer, _Dtype.real(dtype))
    if axis_order is not None:
        return array.reshape(shape).transpose(axis_order)
    return array.reshape(shape, order=order)


def _scalar(dtype: Any, data: Any) -> np.generic:
    return np.frombuffer(_as_bytes(data), _Dtype.real(dtype))[0]


def _as_bytes(data: Any) -> Any:
    return data.encode("latin1") if isinstance(data, str) else data


def _encode(text: Any, encoding: Any) -> bytes:
    if codecs.lookup(encoding).name != "iso8859-1":
        raise ValueError(f"bytes in {encoding}")
    return text.encode("latin1")


def _not_called(*_: Any) -> None:
    raise TypeError("numpy.ndarray is called")


class _Harmless:
    """A callable and nothing else: a pickle can set the attributes of what it gets hold of."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise TypeError(f"a pickle sets {name}")


_KNOWN: Mapping[tuple[str, str], Callable] = {
    name: _Harmless(make)
    for name, make in {
        ("numpy.core.multiarray", "_reconstruct"): _empty_array,
        ("numpy.core.multiarray", "scalar"): _scalar,
        ("numpy.core.numeric", "_frombuffer"): _from_buffer,
        ("numpy", "ndarray"): _not_called,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): OrderedDict,
        ("collections", "defaultdict"): defaultdict,
        ("builtins", "bytes"): lambda: b"",  # bytes(n) would fill the memory
        ("builtins", "set"): set,
        ("builtins", "frozenset"): frozenset,
        ("builtins", "list"): list,
        ("builtins", "dict"): dict,
        ("builtins", "complex"): complex,
    }.items()
}
