"""Damaged, hostile and odd files: read right, or refused in our words; never anything else.

The suite tries some cases; `pytest tests/test_fuzz.py --hypothesis-profile nightly` 12,000.
"""

import io
import json
import os
import pickle
import random
import tempfile
import time
import zipfile
import zlib
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest
from detector_files import IDS, LAYOUT_FILES, at, deeplabcut_h5, double, film, nodes, people
from hypothesis import example, given
from hypothesis import strategies as st

from canonlift.readers.detectors.parsing import InputError
from canonlift.readers.detectors.to_recording import read

LIMIT_S = 2.0
ODD = (None, True, "text", "", [], {}, [[]], -1, 0, 7, 0.5, 1e300, -1e300, 10**400, 2**63,
       float("nan"), float("inf"), float("-inf"), [1, 2, 3], {"x": 1}, "12", "9" * 5000,
       [[[[[]]]]], 1e5, 3.7)  # fmt: skip
CELLS = ("", "nan", "inf", "-inf", "text", "1e400", "9" * 5000, "-5", "0", "7", '"', "1,2", "\0",
         "é", "1e5", "3.7", "0x1p3", "1_0", " ")  # fmt: skip


@cache
def filmed(name):
    return film(LAYOUT_FILES[name].joints)


@cache
def valid(name):
    """Files of a layout by their path, and what is to be read of them."""
    layout, points = LAYOUT_FILES[name], filmed(name)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cameras = [path.relative_to(root) for path in layout.write(root, points)]
        files = {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    return files, cameras, layout.expect(points)


def outcome(name, files, auto=False):
    """The recording, or None where it is refused; everything else is a failure."""
    _, cameras, _ = valid(name)
    layout = LAYOUT_FILES[name]
    with tempfile.TemporaryDirectory() as folder:
        for path, content in files.items():
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).write_bytes(content)
        begin = time.process_time()
        try:
            paths = [Path(folder) / path for path in cameras]
            recording, _ = read(paths, "auto" if auto else layout.form, layout.options)
            refusal = None
        except (InputError, FileNotFoundError) as error:
            recording, refusal = None, str(error)
        assert time.process_time() - begin < LIMIT_S
    if refusal is not None:
        where, _, rest = refusal.partition(": ")
        assert folder in where, f"names no file: {refusal}"
        assert "; " in rest, f"names no remedy: {refusal}"
        assert len(refusal) < 2000
    return recording


def assert_honest(recording, name, wrong):
    """Each body is a true one of its view, but for so many joints that were damaged.

    Frames that are only counted, not numbered, may have moved when one was lost.
    """
    expected, joints = valid(name)[2], LAYOUT_FILES[name].joints
    surely = name == "detectron"  # whose scores are relative to all others
    index = [recording.joints.index(joint) for joint in joints]
    for view in range(min(recording.confidence.shape[1], expected.shape[1])):
        for t in range(recording.n_frames):
            confidence = recording.confidence[t, view, index]
            seen = confidence > 0
            points = recording.keypoints[t, view, index]
            near = np.abs(points - expected[:, view, :, :2]).max(-1) < 0.02
            alike = near & (surely | (np.abs(confidence - expected[:, view, :, 2]) < 0.02))
            missed = (seen & ~alike).sum(-1)
            assert missed.min() <= wrong, f"frame {t} of view {view} is nobody's"


def assert_same_frames(recording, name):
    """Every joint is where and when it should be; some may be missing."""
    _, _, expected = valid(name)
    index = [recording.joints.index(joint) for joint in LAYOUT_FILES[name].joints]
    seen = recording.confidence[:, :, index] > 0
    points, rows = recording.keypoints[:, :, index], expected[: recording.n_frames]
    np.testing.assert_allclose(points[seen], rows[..., :2][seen], rtol=0, atol=0.02)


# --- damage to bytes


def cut(data, rng):
    return data[: rng.randrange(len(data) + 1)]


def overwrite(data, rng):
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.choice((1, 4, 30))) + data[at + 4 :]


def lose(data, rng):
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.choice((1, 7, 200)) :]


def repeat(data, rng):
    at = rng.randrange(len(data))
    return data[:at] + data[at : at + 300] + data[at:]


@given(
    st.sampled_from(sorted(LAYOUT_FILES)),
    st.sampled_from([cut, overwrite, lose, repeat]),
    st.integers(0, 1 << 30),
    st.booleans(),
)
def test_damaged_bytes(name, damage, seed, auto):
    files, _, _ = valid(name)
    rng = random.Random(seed)
    victim = rng.choice(sorted(files))
    recording = outcome(name, {**files, victim: damage(files[victim], rng)}, auto)
    if recording is not None and damage is cut:
        assert_honest(recording, name, wrong=0)


@given(st.sampled_from(sorted(LAYOUT_FILES)), st.integers(0, 1 << 30))
def test_lost_and_empty_files(name, seed):
    files, _, _ = valid(name)
    rng = random.Random(seed)
    left = {path: b"" if rng.random() < 0.1 else data for path, data in files.items()}
    left = {path: data for path, data in left.items() if rng.random() < 0.8}
    recording = outcome(name, left)
    if recording is not None:
        assert_honest(recording, name, wrong=0)


# --- damage to JSON


def odd_value(document, rng):
    """One value becomes something else: how many joints may now differ."""
    path = rng.choice([path for path in nodes(document) if path])
    old, new = at(document, path), rng.choice(ODD)
    at(document, path[:-1])[path[-1]] = new
    return 1 if type(old) in (int, float) else 99


def lost_value(document, rng):
    path = rng.choice([path for path in nodes(document) if path])
    del at(document, path[:-1])[path[-1]]
    return 0


def shuffled(document, rng):
    """Lists of objects change their order: frames, images, people, never numbers."""
    for place in [at(document, path) for path in nodes(document)]:
        if isinstance(place, list) and place and isinstance(place[0], dict):
            rng.shuffle(place)
    return 0


def doubled(document, rng):
    lists = [p for p in nodes(document) if isinstance(at(document, p), list) and at(document, p)]
    if not lists:
        return 0
    place = at(document, rng.choice(lists))
    place.append(json.loads(json.dumps(rng.choice(place))))
    return 0


def crowded(document, rng):
    """Somebody far away is in some of the frames, and nobody knows who it is."""
    seen = people(document)
    for place, entry in rng.sample(seen, min(3, len(seen))):
        stranger = double(entry)
        for name in IDS:
            stranger.pop(name, None)
        place.insert(rng.randrange(len(place) + 1), stranger)
    return 0


JSON_LAYOUTS = [n for n in LAYOUT_FILES if any(p.suffix == ".json" for p in valid(n)[0])]
# Frames are told by their place in a list, or points by theirs: another order is another take.
PLACED = {"yolo json", "mmpose lists", "mediapipe solutions", "mediapipe tasks"}


@given(
    st.sampled_from(JSON_LAYOUTS),
    st.sampled_from([odd_value, lost_value, shuffled, doubled, crowded]),
    st.integers(0, 1 << 30),
    st.booleans(),
)
def test_odd_json(name, damage, seed, auto):
    files, _, _ = valid(name)
    rng = random.Random(seed)
    victim = rng.choice(sorted(files))
    document = json.loads(files[victim])
    if not document or (damage is shuffled and name in PLACED):
        return
    if damage is crowded and (len(files) > 2 or name.startswith("mediapipe")):
        return  # of one frame only, or not told from its joints
    wrong = damage(document, rng)
    content = json.dumps(document).encode()
    recording = outcome(name, {**files, victim: content}, auto)
    if damage in (shuffled, crowded):
        assert recording is not None
        assert_same_frames(recording, name)
    elif recording is not None:
        assert_honest(recording, name, wrong)


# --- damage to tables


def odd_cell(rows, rng, mark):
    i = rng.randrange(len(rows))
    cells = rows[i].split(mark)
    cells[rng.randrange(len(cells))] = rng.choice(CELLS)
    rows[i] = mark.join(cells)
    return 1 if i > 3 else 99


def lost_cell(rows, rng, mark):
    i = rng.randrange(len(rows))
    cells = rows[i].split(mark)
    del cells[rng.randrange(len(cells))]
    rows[i] = mark.join(cells)
    return 0


def shuffled_rows(rows, rng, _):
    """Rows that say of which frame they are, in another order."""
    head = next(i for i, row in enumerate(rows) if row[0].isdecimal())
    body = rows[head:]
    rng.shuffle(body)
    rows[head:] = body
    return 0


def lost_row(rows, rng, _):
    del rows[rng.randrange(len(rows))]
    return 0


def doubled_row(rows, rng, _):
    rows.append(rng.choice(rows))
    return 0


TEXT_LAYOUTS = [
    n for n in LAYOUT_FILES if any(p.suffix in (".csv", ".txt", ".dat") for p in valid(n)[0])
]


@given(
    st.sampled_from(TEXT_LAYOUTS),
    st.sampled_from([odd_cell, lost_cell, lost_row, doubled_row, shuffled_rows]),
    st.integers(0, 1 << 30),
    st.booleans(),
)
@example("yolo text", odd_cell, 659, True)  # a class that is infinite
def test_odd_tables(name, damage, seed, auto):
    files, _, _ = valid(name)
    rng = random.Random(seed)
    victim = rng.choice(sorted(files))
    text = files[victim].decode()
    rows = text.splitlines()
    mark = max(",; ", key=rows[-1].count)
    if damage is shuffled_rows and name == "bodypose3d":
        return  # a frame is a line there
    wrong = damage(rows, rng, mark)
    content = "".join(row + "\n" for row in rows).encode()
    recording = outcome(name, {**files, victim: content}, auto)
    if damage is shuffled_rows:
        assert recording is not None
        assert_same_frames(recording, name)
    elif recording is not None:
        assert_honest(recording, name, wrong)


# --- damage to archives, and files made to do harm


class Hostile:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def odd_objects(rng, mark):
    shared = [1.0]
    for _ in range(40):
        shared = [shared] * 10  # of 10 to the 40th elements, were it written out
    return rng.choice(
        (*ODD, Hostile(mark), shared, np.float32(3), np.zeros((2, 4, 17)),
         np.full((1, 4, 17), np.nan), np.full((1, 4, 17), np.inf), np.full((1, 4, 17), 1e30),
         np.zeros((0, 4, 17), np.float32),
         np.array(["a"] * 3), np.array([None, "x"], object), np.zeros(3, "i4,f8"), b"bytes",
         {1: 2}, (1, 2))
    )  # fmt: skip


@given(st.sampled_from(["detectron", "videopose3d"]), st.integers(0, 1 << 30))
def test_odd_objects_in_archives(name, seed):
    files, _, _ = valid(name)
    rng = random.Random(seed)
    victim = rng.choice(sorted(files))
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "executed"
        arrays = dict(np.load(io.BytesIO(files[victim]), allow_pickle=True))
        key = rng.choice(["keypoints" if name == "detectron" else "positions_2d", "metadata"])
        odd = odd_objects(rng, mark)
        place = arrays[key]
        if rng.random() < 0.7 and key == "keypoints":
            place[rng.randrange(len(place)), rng.randrange(2)] = odd
        else:
            place = np.empty((), object)
            place[()] = odd
            arrays[key] = place
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        recording = outcome(name, {**files, victim: stream.getvalue()}, rng.random() < 0.5)
        assert not mark.exists()
    if recording is not None and name == "detectron":
        assert_honest(recording, name, 99)


@given(st.integers(0, 1 << 30))
def test_odd_labels_of_h5(seed):
    rng = random.Random(seed)
    files, cameras, _ = valid("deeplabcut h5")
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "executed"
        good = [("s", n, a) for n in "abc" for a in ("x", "y", "likelihood")]
        bad = rng.choice([odd_objects(rng, mark), [(1, odd_objects(rng, mark))], [(1, good)],
                          [(1, [odd_objects(rng, mark)] * 51)]])  # fmt: skip
        try:
            labels = pickle.dumps(bad, rng.choice((0, 2)))
        except (TypeError, pickle.PicklingError):
            return
        deeplabcut_h5(Path(folder), filmed("deeplabcut h5")[:, :1], labels)
        content = (Path(folder) / cameras[0]).read_bytes()
        assert outcome("deeplabcut h5", {**files, cameras[0]: content}) is None
        assert not mark.exists()


@cache
def zeros(n_megabytes):
    """So many zeros, deflated: a thousandth of that, made without packing them all."""
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = bytes(1 << 20)
    first = pack.compress(block) + pack.flush(zlib.Z_FULL_FLUSH)
    again = pack.compress(block) + pack.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(n_megabytes):
        crc = zlib.crc32(block, crc)
    return first + again * (n_megabytes - 1) + pack.flush(), crc


@pytest.mark.parametrize("claimed", [400 << 20, 10, 1 << 40])
def test_zip_bombs(claimed):
    files, cameras, _ = valid("detectron")
    packed, crc = zeros(400)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("metadata.npy", b"x")
        info = zipfile.ZipInfo("keypoints.npy")
        archive.writestr(info, packed)
        info.compress_type, info.file_size, info.CRC = (
            zipfile.ZIP_DEFLATED,
            min(claimed, (1 << 32) - 2),
            crc,
        )
    assert outcome("detectron", {**files, cameras[0]: stream.getvalue()}) is None


def test_h5_bombs(tmp_path):
    """A table of a million rows that takes no place in the file."""
    files, cameras, _ = valid("deeplabcut h5")
    columns = np.dtype([("index", "<i8"), ("values_block_0", "<f8", (51,))])
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("df_with_missing")
        group.attrs["non_index_axes"] = np.bytes_(b"")
        group.create_dataset("table", (1_000_000,), columns, chunks=(1000,), compression="gzip")
    assert os.path.getsize(path) < 1 << 20
    assert outcome("deeplabcut h5", {**files, cameras[0]: path.read_bytes()}) is None


def test_what_is_deep_long_or_many_is_refused_in_time():
    files, cameras, _ = valid("mmpose video")
    for content in (
        b"[" * 300_000,
        b'{"a":' * 300_000,
        b"[" + b"9" * 300_000 + b"]",
        b'[{"frame_id": 0, "instances": [' + b"[]," * 60_000 + b"[]]}]",
        b"[" + b'{"frame_id": 99999999999999, "instances": []},' * 2 + b'{"frame_id": 3}]',
    ):
        assert outcome("mmpose video", {**files, cameras[0]: content}) is None
        assert outcome("mmpose video", {**files, cameras[0]: content}, auto=True) is None
