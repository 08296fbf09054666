"""Recordings larger than memory: copied once to flat files, of which training reads what it needs.

A shard is a recording as training reads it: an array (T, V, J, 3 or 7) of x, y and confidence, and
X, Y, Z and trust of the 3D target. It is named after the contents of the recording and all that
was made of them, so nothing stale is ever read, an interrupted copy goes on where it was, and
several runs may share a folder. Shards may be deleted at any time when no run reads them.
"""

import hashlib
import itertools
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from canonlift import files
from canonlift.data.frames import (
    Complete,
    FramesInMemory,
    Summary,
    add_up,
    check_views,
    pick,
    read_one,
    summarise,
    to_views,
)
from canonlift.data.recording import fingerprint
from canonlift.types import Target, Views

FORMAT = 2  # to be raised when the same recording comes to hold something else in its shard
CAPACITY_BYTES = 2**28


@dataclass(frozen=True)
class Shard:
    """One recording on disk."""

    path: Path
    rig: str
    summary: Summary


@dataclass(frozen=True, eq=False)
class FramesOnDisk:
    """Frames on disk: nothing is kept in memory.

    Shards are read, not mapped into memory: what is mapped counts as this process's memory, and
    the system would fetch 128 kB around each single frame.
    """

    shards: tuple[Shard, ...]
    names: tuple[str, ...]
    device: torch.device = torch.device("cpu")

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def __getitem__(self, frames: Int[Tensor, "*shape"]) -> Views:
        wanted, places = frames.cpu().unique(return_inverse=True)
        return pick(self._load(wanted), places).to(self.device)

    def load(self, frames: Int[Tensor, " N"]) -> FramesInMemory:
        """These frames, in ascending order, as frames in memory."""
        return FramesInMemory(self._load(frames), torch.tensor([0, len(frames)]), ("",))

    def to(self, device: torch.device) -> "FramesOnDisk":
        """Have frames arrive on a device."""
        return replace(self, device=device)

    def observed(self) -> Bool[Tensor, " N"]:
        """Frames in which any view observed anything."""
        blocks = torch.arange(len(self)).split(max(1, self.capacity // 8))
        return torch.cat([self._load(block).observed.any(-1).any(-1) for block in blocks])

    def summary(self) -> Summary:
        """What is known of all of them."""
        return add_up([shard.summary for shard in self.shards])

    @cached_property
    def bounds(self) -> Int[Tensor, " R_1"]:
        """First frame of each shard, and the end."""
        return torch.tensor([0, *(shard.summary.frames for shard in self.shards)]).cumsum(0)

    @cached_property
    def rigs(self) -> list[int]:
        """Number of each shard's rig, as `frames.read` counts them."""
        known: dict[str, int] = {}
        return [known.setdefault(s.rig, len(known)) if s.rig else -1 for s in self.shards]

    @cached_property
    def row(self) -> tuple[int, ...]:
        """Shape of a frame."""
        total, values = self.summary(), _read_rows(self.shards[0].path, np.arange(1)).shape[-1]
        return total.views, total.joints, values

    @property
    def capacity(self) -> int:
        """Frames that can be in memory together."""
        return max(1, CAPACITY_BYTES // (4 * math.prod(self.row)))

    def _load(self, frames: Int[Tensor, " N"]) -> Views:
        """Frames in ascending order."""
        rows = np.zeros((len(frames), *self.row), np.float32)
        rig = torch.empty(len(frames), dtype=torch.long)
        origin = torch.searchsorted(self.bounds, frames, right=True) - 1
        indices, counts = origin.unique_consecutive(return_counts=True)
        end = 0
        for index, count in zip(indices.tolist(), counts.tolist(), strict=True):
            start, end = end, end + count
            wanted = (frames[start:end] - self.bounds[index]).numpy()
            found = _read_rows(self.shards[index].path, wanted)
            rows[start:end, : found.shape[1]] = found
            rig[start:end] = self.rigs[index]
        x = torch.from_numpy(rows)
        target = Target(x[..., 3:6], x[..., 6]) if x.shape[-1] == 7 else None
        return Views(x[..., :2], x[..., 2], rig, target)


Frames = FramesInMemory | FramesOnDisk


def read(
    paths: Sequence[Path],
    joints: tuple[str, ...],
    least_views: int,
    complete: Complete,
    folder: Path,
    kind: str,
) -> FramesOnDisk:
    """`frames.read`, one recording at a time and by way of shards in `folder`.

    `kind` names what `complete` does; shards are remade when it changes.
    """
    if not paths:
        raise FileNotFoundError("no recordings to read; check the globs in the config")
    shards = []
    for path in paths:
        shard = _shard(path, joints, complete, folder, kind, least_views)
        check_views(path, shard.summary.views, least_views)
        shards.append(shard)
    return FramesOnDisk(tuple(shards), tuple(str(path) for path in paths))


def _shard(
    path: Path,
    joints: tuple[str, ...],
    complete: Complete,
    folder: Path,
    kind: str,
    least_views: int,
) -> Shard:
    """The recording's shard, made unless it is there; the note beside it is written last."""
    made_of = json.dumps([FORMAT, fingerprint(path), joints, kind])
    name = f"{path.stem}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"
    shard, note = folder / f"{name}.npy", folder / f"{name}.json"
    if not (note.is_file() and shard.is_file()):
        recording = read_one(path, joints)
        check_views(path, len(recording.views), least_views)
        views = complete(path, recording, to_views(recording, 0 if recording.rig else -1))
        files.write(shard, lambda file: np.save(file, rows_of(views)))
        text = json.dumps({"rig": recording.rig, "summary": summarise(views)._asdict()})
        files.write(note, lambda file: file.write(text.encode()))
    described = json.loads(note.read_text())
    return Shard(shard, described["rig"], Summary(**described["summary"]))


def rows_of(views: Views) -> Float[np.ndarray, "B V J C"]:
    """What a shard holds of its samples."""
    parts = [views.keypoints, views.confidence[..., None]]
    if views.target is not None:
        parts += [views.target.pose, views.target.trust[..., None]]
    return torch.cat(parts, dim=-1).numpy()


def _read_rows(path: Path, wanted: Int[np.ndarray, " N"]) -> Float[np.ndarray, "N V J C"]:
    """Rows of an array on disk, in ascending order; each run of neighbours is one read."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
        begin, row = file.tell(), 4 * math.prod(shape[1:])
        found = np.empty((len(wanted), *shape[1:]), np.float32)
        runs = np.flatnonzero(np.diff(wanted, prepend=-2, append=-2) != 1)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for start, end in itertools.pairwise(runs.tolist()):
            part, offset = found[start:end], begin + int(wanted[start]) * row
            if os.preadv(file.fileno(), [part.data], offset) != part.nbytes:
                raise ValueError(f"{path}: is cut short; delete it, and it is made again")
    return found
