"""Laws of shards: the session in memory, without the memory."""

from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch

from benchmarks import memory
from canonlift.body.skeleton import H36M17, SKELETONS
from canonlift.data import batches, frames, shards
from canonlift.data import recording as recordings
from canonlift.data.windows import WindowConfig, cut
from canonlift.methods import targets
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.session import SimulateConfig, session
from canonlift.training import checkpoint
from canonlift.training import config as configs
from canonlift.training import session as sessions
from canonlift.training.train import train

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

CONFIG = """
batch_size: 8
flip: true
device: cpu
data: {train: [TAKES/*.npz], target: solved}
model: {width: 16, rotation: 6d}
fusion: {method: triangulate}
schedule:
  - {name: first, steps: 8, learning_rate: 1.0e-3, weights: {target_pose: 1.0, reprojection: 1.0}}
  - {name: second, steps: 9, learning_rate: 1.0e-3, weights: {refinement: 1.0, reprojection: 1.0}}
"""


@pytest.fixture(scope="module")
def takes(tmp_path_factory):
    """Three takes of different lengths, numbers of views and rigs."""
    folder = tmp_path_factory.mktemp("takes")
    film = SimulateConfig(n_train=3, n_test=0, n_frames=20, cameras=CameraConfig(n_views=4))
    cuts = {"a": (20, 3, "hall"), "b": (7, 4, ""), "c": (13, 4, "hall")}
    for (name, (n_frames, n_views, rig)), (_, take) in zip(
        cuts.items(), session(film), strict=True
    ):
        cut = replace(
            take,
            keypoints=take.keypoints[:n_frames, :n_views],
            confidence=take.confidence[:n_frames, :n_views],
            views=take.views[:n_views],
            image_size=None,
            pose3d=take.pose3d[:n_frames, :n_views],
            keypoints_true=None,
            rig=rig,
        )
        recordings.save(cut, folder / f"{name}.npz")
    return sorted(folder.iterdir())


def guess(_path, recording, views):
    return replace(views, target=targets.solved(recording, views.keypoints.shape[1]))


def bare(_path, _recording, views):
    return views


@pytest.fixture
def stored(takes, tmp_path):
    return shards.read(takes, H36M17, 2, guess, tmp_path / "shards", "guess")


def assert_same_views(one, other):
    for name in ("keypoints", "confidence", "rig"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert (one.target is None) == (other.target is None)
    if one.target is not None:
        assert torch.equal(one.target.pose, other.target.pose)
        assert torch.equal(one.target.trust, other.target.trust)


# --- the same session


@pytest.mark.parametrize("complete", [guess, bare])
@pytest.mark.parametrize("length", [1, 5])
def test_samples_on_disk_are_those_in_memory(takes, tmp_path, complete, length):
    """In any order, and more than once; single frames and windows."""
    here = frames.read(takes, H36M17, 2, complete)
    there = shards.read(takes, H36M17, 2, complete, tmp_path, complete.__name__)
    assert (len(there), there.names) == (len(here), here.names) == (40, here.names)
    assert torch.equal(there.bounds, here.bounds)
    assert torch.equal(there.observed(), here.observed())
    assert frames.describe(there) == frames.describe(here)
    assert there.summary() == here.summary()
    here, there = (cut(x, WindowConfig(length, stride=min(2, length))) for x in (here, there))
    assert len(here) == len(there)
    g = torch.Generator().manual_seed(0)
    n = len(here)
    for samples in (torch.arange(n), torch.randint(n, (99,), generator=g), torch.tensor([n - 4])):
        assert_same_views(there[samples], here[samples])
        assert torch.equal(there.origin(samples), here.origin(samples))
    for index in range(3):
        assert torch.equal(there.of(index), here.of(index))


@pytest.mark.parametrize("windows", [WindowConfig(), WindowConfig(6, stride=2)])
def test_a_session_that_fits_is_shuffled_as_in_memory(takes, stored, windows):
    here = batches.stream(cut(frames.read(takes, H36M17, 2, guess), windows), 9, 3, 2)
    there = batches.stream(cut(stored, windows), 9, 3, 2)
    for (numbers, views), (expected, others) in islice(zip(there, here, strict=True), 15):
        assert torch.equal(numbers, expected)
        assert_same_views(views, others)


@pytest.mark.parametrize("windows", [WindowConfig(), WindowConfig(3, stride=2)])
def test_batches_of_a_session_that_does_not_fit_hold_the_samples_of_their_numbers(
    takes, stored, monkeypatch, windows
):
    monkeypatch.setattr(batches, "BLOCK", 3)
    monkeypatch.setattr(shards, "CAPACITY_BYTES", 11 * windows.length * 4 * 4 * 17 * 7)
    here, there = (cut(x, windows) for x in (frames.read(takes, H36M17, 2, guess), stored))
    assert there.capacity == 11
    assert here.capacity is None
    shown, n = [], len(here)
    for numbers, views in islice(batches.stream(there, 4, 0, 0), 2 * (n // 4)):
        assert_same_views(views, here[numbers])
        shown += numbers.tolist()
    assert len(set(shown[: 4 * (n // 4)])) == 4 * (n // 4)
    assert set(shown) <= set(range(n))


def test_training_from_disk_is_training_from_memory(takes, tmp_path):
    """To the last bit, with the votes and the mean pose."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("TAKES", str(takes[0].parent)))
    found = {}
    for name in ("null", str(tmp_path / "copies")):
        out = tmp_path / f"run {len(found)}"
        train(configs.load(path, [f"data.shards={name}"]), out)
        found[name] = checkpoint.load(out)
    one, other = found.values()
    assert one["notes"] == other["notes"]
    assert torch.equal(one["mean_pose"], other["mean_pose"])
    assert all(torch.equal(one["lifter"][name], other["lifter"][name]) for name in one["lifter"])
    assert len(list((tmp_path / "copies").glob("*.npy"))) == 3


def test_supervision_comes_from_disk_too(takes, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("TAKES", str(takes[0].parent)))
    config = configs.load(path, ["data.target=pose3d", f"data.shards={tmp_path}/shards"])
    stored = sessions.read(config, takes)
    known = recordings.load(takes[2]).pose3d[5]
    found = stored[torch.tensor([32])].target.pose[0, :, 0]
    np.testing.assert_array_equal(found, known - known[:, :1])


# --- shards are made once, and never stale


def remade(folder, read):
    """Names of the shards that reading writes."""
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    read()
    after = {path: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    return {path.name[0] for path, when in after.items() if before.get(path) != when}


def test_shards_are_made_once(takes, stored, tmp_path):
    folder = tmp_path / "shards"
    read = partial(shards.read, takes, H36M17, 2, guess, folder, "guess")
    assert remade(folder, read) == set()
    assert_same_views(read()[torch.arange(40)], stored[torch.arange(40)])


def test_what_has_changed_is_made_again(takes, tmp_path):
    """Contents, not dates: a recording copied elsewhere is the same recording."""
    folder = tmp_path / "shards"
    copies = [tmp_path / path.name for path in takes]
    for path, copy in zip(takes, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    read = partial(shards.read, folder=folder, kind="guess", least_views=2, complete=guess)
    assert remade(folder, lambda: read(takes, H36M17)) == {"a", "b", "c"}
    assert remade(folder, lambda: read(copies, H36M17)) == set()
    plain = {"kind": "bare", "complete": bare}
    assert remade(folder, lambda: read(takes, H36M17, **plain)) == {"a", "b", "c"}
    assert remade(folder, lambda: read(takes, SKELETONS["limbs14"], **plain)) == {"a", "b", "c"}
    take = recordings.load(copies[1])
    take.confidence[2, 1, 3] = 0.123
    recordings.save(take, copies[1])
    assert remade(folder, lambda: read(copies, H36M17)) == {"b"}
    assert read(copies, H36M17)[torch.tensor([22])].confidence[0, 1, 3] == np.float32(0.123)


def test_an_interrupted_copy_goes_on_where_it_was(takes, tmp_path, monkeypatch):
    folder = tmp_path / "shards"
    read = partial(shards.read, takes, H36M17, 2, guess, folder, "guess")
    write, count = shards.files.write, iter(range(99))

    def die(path, fill):
        if next(count) == 3:  # between b's samples and the note that they are whole
            raise KeyboardInterrupt
        write(path, fill)

    monkeypatch.setattr(shards.files, "write", die)
    with pytest.raises(KeyboardInterrupt):
        read()
    monkeypatch.setattr(shards.files, "write", write)
    assert remade(folder, read) == {"b", "c"}
    assert_same_views(read()[torch.arange(40)], frames.read(takes, H36M17, 2, guess).views)


def test_a_shard_that_was_cut_short_is_refused(stored):
    path = stored.shards[1].path
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"b-\w+.npy: .*; delete it, and it is made"):
        stored[torch.arange(40)]


def test_what_cannot_serve_is_refused_by_name(takes, tmp_path):
    read = partial(shards.read, joints=H36M17, complete=bare, folder=tmp_path / "s", kind="bare")
    read([takes[0]], least_views=1)
    for _ in range(2):  # also when its shard is there
        with pytest.raises(ValueError, match=r"a.npz: has 3 view\(s\), training needs 4 or more"):
            read([takes[0]], least_views=4)
    with pytest.raises(FileNotFoundError, match="nothing.npz: no such file"):
        read([tmp_path / "nothing.npz"], least_views=1)
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(ValueError, match="text.npz: not a readable .npz"):
        read([tmp_path / "text.npz"], least_views=1)
    with pytest.raises(FileNotFoundError, match="no recordings to read"):
        read([], least_views=1)


# --- chunks


def numbers(n_samples, batch_size, seed, first, how_many, most):
    stream = batches.batches(n_samples, batch_size, seed, first, most)
    return [batch.tolist() for batch in islice(stream, how_many)]


def test_an_epoch_of_chunks_shows_every_sample_at_most_once_and_misses_less_than_a_batch():
    for n_samples, batch_size, most in (
        (1000, 7, 300),
        (999, 10, 301),
        (513, 64, 1),
        (640, 9, 639),
    ):
        per_epoch = n_samples // batch_size
        for epoch in range(2):
            shown = numbers(n_samples, batch_size, 3, epoch * per_epoch, per_epoch, most)
            flat = [i for batch in shown for i in batch]
            assert len(set(flat)) == len(flat) == n_samples - n_samples % batch_size
            assert set(flat) <= set(range(n_samples))


def test_chunks_go_on_from_any_number_as_if_never_stopped():
    whole = numbers(1000, 90, 5, 0, 25, 300)
    for first in range(25):
        assert numbers(1000, 90, 5, first, 25 - first, 300) == whole[first:]


def test_no_chunk_holds_more_than_it_may_or_a_batch_by_itself():
    for n_samples, batch_size, most in ((100_000, 64, 1000), (100_000, 2000, 1000)):
        stream = batches.chunks(n_samples, batch_size, 0, 0, most)
        sizes = [chunk.numel() for chunk in islice(stream, 40)]
        assert max(sizes) <= max(most, batch_size) + batch_size
        assert min(sizes) > min(sizes[0] / 2, batch_size - 1)


def test_chunks_are_of_samples_from_everywhere_and_shuffled():
    chunk = next(batches.chunks(1_000_000, 64, 0, 0, 10_000))
    blocks = (chunk // batches.BLOCK).unique()
    assert len(blocks) == pytest.approx(10_000 / batches.BLOCK, abs=3)
    assert blocks.float().std() == pytest.approx(1_000_000 / batches.BLOCK / 12**0.5, rel=0.3)
    in_batch = [len((batch // batches.BLOCK).unique()) for batch in chunk]
    assert min(in_batch) > 25  # of at most 64


def test_every_chunk_epoch_and_seed_is_shuffled_differently():
    found = [
        tuple(chunk.flatten().sort().values.tolist())
        for seed in range(3)
        for chunk in islice(batches.chunks(4000, 10, seed, 0, 1000), 12)
    ]
    assert len(set(found)) == 36


# --- memory


def test_memory_does_not_grow_with_the_session(tmp_path, monkeypatch):
    """Ten gigabytes are read at random within a tenth of one."""
    monkeypatch.setattr(memory, "ISLAND", 64)
    session = memory.sparse_session(tmp_path / "shards", 5_500_000, 4, filled=0.0)
    assert sum(shard.path.stat().st_size for shard in session.shards) > 10e9
    monkeypatch.setattr(shards, "CAPACITY_BYTES", 2**24)
    samples = cut(session, WindowConfig())
    shown = batches.stream(samples, 512, 0, 0)
    next(shown)
    memory.forget_peak()
    before = memory.memory_gb()["VmRSS"]
    for _, views in islice(shown, 3 * session.capacity // 512):
        assert len(views) == 512
    frames.describe(session)
    assert session[torch.arange(0, len(session), 5000)].observed.any()
    assert memory.memory_gb()["VmHWM"] - before < 0.1
