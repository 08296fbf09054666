"""Train on a session that does not fit into memory, and print how much memory that took.

Examples:
    python -m benchmarks.memory                                  # 100 million frames, 4 views
    python -m benchmarks.memory --frames 1_000_000 --work DIR --json memory.json

The shards are sparse files of their full length, in which `--filled` of the frames are a filmed
person and the rest holes, which read as frames in which nobody was seen. For memory and the
system's cache holes are data like any other; only the disk has less to do. With `--filled 1` every
frame is written. All three phases are trained and the mirror is checked, as by `canonlift train`.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks import measure
from canonlift.body.skeleton import H36M17
from canonlift.data import batches, frames
from canonlift.data.frames import Summary
from canonlift.data.shards import FramesOnDisk, Shard, rows_of
from canonlift.data.windows import Samples
from canonlift.methods import targets
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.motions import MOTIONS
from canonlift.simulation.session import film
from canonlift.training import config as configs
from canonlift.training import loop, runs
from canonlift.training.train import HOOKS

PER_SHARD = 1_000_000
ISLAND = 4096  # filmed frames that lie together


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=100_000_000, help="default: 100 million")
    parser.add_argument("--views", type=int, default=4, help="default: 4")
    parser.add_argument("--filled", type=float, default=0.005, help="share that is not sparse")
    parser.add_argument("--steps", type=int, default=200, help="of each of the three phases")
    parser.add_argument("--batch", type=int, default=1024, help="frames per step")
    parser.add_argument("--width", type=int, default=256, help="of the network")
    parser.add_argument("--work", type=Path, help="where the shards go (default: a temporary one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        found = trained_on(
            Path(folder), args.frames, args.views, args.filled, args.steps, args.batch, args.width
        )
    print(json.dumps(found, indent=2))
    measure.write(args.json, found)


def trained_on(
    folder: Path, n_frames: int, n_views: int, filled: float, steps: int, batch: int, width: int
) -> dict[str, object]:
    """Train on a session of that size, in `folder`."""
    session = sparse_session(folder / "shards", n_frames, n_views, filled)
    size = sum(shard.path.stat().st_size for shard in session.shards)
    on_disk = sum(512 * shard.path.stat().st_blocks for shard in session.shards)
    overrides = ["data.train=[none]", f"batch_size={batch}", f"model.width={width}"]
    overrides += [f"schedule.{phase}.steps={steps}" for phase in range(3)]
    run = runs.start(configs.load("recordings", overrides), folder / "run", resume=False)
    forget_caches(session)
    forget_peak()
    before = memory_gb()["VmRSS"]
    print(frames.describe(session), flush=True)
    samples = Samples(session).to(next(run.network.parameters()).device)

    started = time.monotonic()
    loop.fit(run, samples, HOOKS)
    seconds, trained = time.monotonic() - started, memory_gb()
    stream = batches.stream(samples, batch, 1, 0)
    started = time.monotonic()
    n_read = sum(len(views) for _, views in islice(stream, max(steps, 2)))
    reading = time.monotonic() - started
    return {
        "machine": measure.machine("cpu"),
        "frames": n_frames,
        "views": n_views,
        "session_gb": round(size / 1e9, 2),
        "session_on_disk_gb": round(on_disk / 1e9, 2),
        "frames_shuffled_together": session.capacity,
        "resident_before_gb": round(before, 3),
        "resident_peak_gb": round(trained["VmHWM"], 3),
        "resident_after_gb": {name: round(value, 3) for name, value in trained.items()},
        "steps": run.progress.total_step,
        "steps_per_second": round(run.progress.total_step / run.progress.seconds, 2),
        "seconds_with_mirror_check_and_mean_pose": round(seconds, 1),
        "frames_per_second_reading_alone": round(n_read / reading),
    }


def sparse_session(folder: Path, n_frames: int, n_views: int, filled: float) -> FramesOnDisk:
    """A session as `shards.read` returns it, most of which takes no space on the disk."""
    g = np.random.default_rng(0)
    pose = perform(sample_person(g), list(MOTIONS), ISLAND, 30.0, g)
    recording = film(pose, H36M17, 30.0, CameraConfig(n_views=n_views), DetectorConfig(), g)
    views = frames.to_views(recording)
    island = rows_of(replace(views, target=targets.solved(recording, n_views)))
    folder.mkdir(parents=True)
    shards = []
    for number, first in enumerate(range(0, n_frames, PER_SHARD)):
        length = min(PER_SHARD, n_frames - first)
        path = folder / f"{number:05}.npy"
        apart = max(ISLAND, round(ISLAND / max(filled, 1e-9)))
        starts = range(0, length, apart)
        _write_sparse(path, (length, *island.shape[1:]), island, starts)
        seen = sum(min(ISLAND, length - start) for start in starts)
        summary = Summary(length, n_views, 17, n_views * seen, 1, 0.0, 1.0, 0, 0)
        shards.append(Shard(path, "", summary))
    return FramesOnDisk(tuple(shards), tuple(shard.path.name for shard in shards))


def _write_sparse(path: Path, shape: tuple[int, ...], island: np.ndarray, starts: range) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    row = 4 * int(np.prod(shape[1:]))
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        begin = file.tell()
        for start in starts:
            file.seek(begin + start * row)
            file.write(island[: shape[0] - start].tobytes())
        file.truncate(begin + shape[0] * row)


def memory_gb() -> dict[str, float]:
    """Resident memory of this process: now, of its own and of files, and at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = (line.split() for line in lines if line.startswith(("VmHWM", "VmRSS", "Rss")))
    return {name.rstrip(":"): 1024 * int(size) / 1e9 for name, size, _ in fields}


def forget_peak() -> None:
    """Count the peak from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def forget_caches(session: FramesOnDisk) -> None:
    """Have the system drop what it holds of the shards, so that reading is from the disk."""
    for shard in session.shards:
        with shard.path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
