"""Pickles and npz files of strangers: what is harmless is read, the rest is never run."""

import contextlib
import io
import os
import pickle
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest

from canonlift.readers.datasets import checks
from canonlift.readers.datasets.unpickle import load_npy, load_npz, load_pickle

FORTRAN = np.asfortranarray(np.arange(12.0).reshape(3, 4))
HARMLESS = {
    "nested": {"a": [1, 2.5, "x", None, True], 3: (b"bytes", {"s"}, frozenset({1}), 1 + 2j)},
    "ordered": OrderedDict(b=1, a=[2]),
    "default": defaultdict(list, {"S1": [1]}),
    "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
    "big endian": np.arange(6, dtype=">f8").reshape(3, 2),
    "fortran": FORTRAN,
    "turned": np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    "empty": np.zeros((0, 17, 2)),
    "bools": np.array([True, False]),
    "texts": np.array(["seq_000", "b"]),
    "objects": np.array([{"a": np.ones(2)}, None, "x"], dtype=object),
    "no dimension": np.array({"S1": [np.ones(3)]}, dtype=object),
    "scalar": np.float32(2.5),
    "integer": np.int64(7),
    "text scalar": np.str_("abc"),
    "flag": np.bool_(True),
}


def same(a, b):
    if isinstance(b, np.ndarray) and b.dtype == object:
        return a.shape == b.shape and all(map(same, a.ravel(), b.ravel()))
    if isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(b, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in b)
    if isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def read(content, folder):
    path = folder / "data.pkl"
    path.write_bytes(content)
    return load_pickle(path, "fetch it")


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reads_arrays_and_plain_containers_of_every_protocol(name, protocol, tmp_path):
    written = pickle.dumps(HARMLESS[name], protocol)
    assert same(read(written, tmp_path), pickle.loads(written))


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_reads_what_numpy_1_wrote(protocol, tmp_path):
    written = pickle.dumps({"a": FORTRAN, "b": np.float32(3)}, protocol)
    if protocol >= 4:  # without the frame, whose length will change
        written = written[:2] + written[11:]
        for name in (b"multiarray", b"numeric"):
            new, old = b"numpy._core." + name, b"numpy.core." + name
            written = written.replace(bytes([len(new)]) + new, bytes([len(old)]) + old)
    written = written.replace(b"numpy._core", b"numpy.core")
    assert b"_core" not in written
    assert same(read(written, tmp_path), {"a": FORTRAN, "b": np.float32(3)})


def test_reads_what_python_2_wrote(tmp_path):
    data = np.array([1.5, -2.25], dtype="<f4").tobytes()
    written = (
        b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"K\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08" + data + b"tbs."
    )
    assert same(read(written, tmp_path), {"a": np.array([1.5, -2.25], dtype="<f4")})


class Payload:
    """Pickles as a call of whatever it is given."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def payloads(mark):
    """Each would create the file `mark`."""
    code = f"open({str(mark)!r}, 'w').close()"
    return {
        "posix.system": Payload(os.system, f"touch {mark}"),
        "builtins.eval": Payload(eval, code),
        "builtins.exec": Payload(exec, code),
        "io.open": Payload(open, str(mark), "w"),
        "builtins.getattr": Payload(getattr, os, "system"),
        "numpy.load": Payload(np.load, str(mark)),
    }


@pytest.mark.parametrize("name", ["posix.system", "builtins.eval", "builtins.exec", "io.open"])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_runs_nothing(name, protocol, tmp_path):
    mark = tmp_path / "mark"
    hidden = {"poses": [np.ones(3), payloads(mark)[name]]}
    with pytest.raises(ValueError, match=rf"data.pkl: refused, its pickle calls \S*{name[-4:]}"):
        read(pickle.dumps(hidden, protocol), tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: {"S1": p}], ids=["bare", "in a dict"])
def test_runs_nothing_in_an_npz(wrap, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "data.npz"
    payload = wrap(payloads(mark)["posix.system"])
    np.savez(path, positions_3d=np.array(payload, dtype=object))
    with pytest.raises(ValueError, match=r"data.npz, positions_3d: refused, .*system"):
        load_npz(path, ("positions_3d",), "")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["numpy.fromfile", "numpy.matrix", "numpy.core.multiarray.array"])
def test_refuses_the_rest_of_numpy(name, tmp_path):
    module, _, function = name.rpartition(".")
    with pytest.raises(ValueError, match=f"refused, its pickle calls {name}"):
        read(f"c{module}\n{function}\n.".encode(), tmp_path)


# In protocol 0: what a pickle could do with the few names that it may use.
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
DTYPE = b"cnumpy\ndtype\n(S'%s'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
ABUSE = {
    # numpy would read 999 pointers past the end of the list
    "list too short": ARRAY + b"(I1\n(I1000\nt" + DTYPE % b"O8" + b"I00\n(lI1\natb.",
    "negative lengths": ARRAY + b"(I1\n(I-1\nI-1\nt" + DTYPE % b"O8" + b"I00\n(lI1\natb.",
    "bytes too short": ARRAY + b"(I1\n(I1000\nt" + DTYPE % b"f8" + b"I00\nS'12345678'\ntb.",
    # a field that lies outside of the element
    "structured": b"cnumpy\ndtype\n(S'V8'\nI0\nI1\ntR(I3\nS'|'\nN(S'a'\nt(dS'a'\n("
    + DTYPE % b"f8"
    + b"I4096\ntsI8\nI1\nI16\ntb.",
    "array called": b"cnumpy\nndarray\n((I1000000000000\nttR.",
    "codec": b"c_codecs\nencode\n(S'x'\nS'zlib'\ntR.",
    # would change the reader itself for the next file
    "attribute": b"cnumpy\ndtype\n(N(dS'_make'\nI1\nstb.",
    "method": b"cnumpy.core.multiarray\nscalar\n(N(dS'__call__'\nI1\nstb.",
    "memo": b"g7\n.",
}


@pytest.mark.parametrize("name", ABUSE)
def test_refuses_to_abuse_the_names_that_it_knows(name, tmp_path):
    with pytest.raises(ValueError, match=r"data.pkl: not a readable pickle"):
        read(ABUSE[name], tmp_path)
    assert same(read(pickle.dumps(HARMLESS["objects"]), tmp_path), HARMLESS["objects"])


def test_a_truncated_pickle_is_an_error_wherever_it_ends(tmp_path):
    whole = pickle.dumps({"subjects": [1, 5], "poses": np.ones((2, 3)), "o": HARMLESS["objects"]})
    for end in range(len(whole)):
        with pytest.raises(ValueError, match=r"data.pkl: .*fetch it again"):
            read(whole[:end], tmp_path)


def test_a_pickle_nested_without_end_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="data.pkl"):
        read(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999, tmp_path)


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "data.npz"
    poses = {"S1": {"Walking": np.arange(6.0).reshape(2, 3)}}
    np.savez_compressed(path, positions_3d=np.array(poses, dtype=object), plain=FORTRAN)
    return path


def test_npz_with_objects_and_without(npz):
    found = load_npz(npz, ("positions_3d", "plain"), "")
    assert np.array_equal(found["positions_3d"]["S1"]["Walking"], [[0, 1, 2], [3, 4, 5]])
    assert same(found["plain"], FORTRAN)


def test_npz_without_the_key_says_what_it_has(npz):
    with pytest.raises(ValueError, match=r"data.npz: lacks positions_2d .*positions_3d, plain"):
        load_npz(npz, ("positions_2d",), "")


def test_a_damaged_npz_is_an_error(npz):
    whole = npz.read_bytes()
    for end in range(0, len(whole), 7):
        npz.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"data.npz"):
            load_npz(npz, ("positions_3d",), "")
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(whole)
        broken[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        npz.write_bytes(broken)
        with contextlib.suppress(ValueError):  # and nothing else
            load_npz(npz, ("positions_3d", "plain"), "")


def test_a_zip_bomb_is_refused_before_it_is_read(npz, monkeypatch):
    np.savez_compressed(npz, plain=np.zeros(1_000_000))
    assert npz.stat().st_size < 10_000
    monkeypatch.setattr(checks, "MAX_BYTES", 1_000_000)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("was read"))
    with pytest.raises(ValueError, match=r"data.npz: unpacks to .* more than any known"):
        load_npz(npz, ("plain",), "")


def test_a_header_cannot_announce_more_than_there_is(tmp_path):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    path = tmp_path / "clip.npy"
    path.write_bytes(file.getvalue() + b"12345678")
    with pytest.raises(ValueError, match=r"clip.npy: 8 bytes for float64 \(1000000000000,\)"):
        load_npy(path, "")


@pytest.mark.parametrize("load", [load_pickle, load_npy, lambda p, r: load_npz(p, ("a",), r)])
def test_a_missing_file_is_named_with_the_remedy(load, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.npz: no such file; ask them"):
        load(tmp_path / "nowhere.npz", "ask them")
