"""Many recordings as one table of samples: what training and evaluation read."""

import glob
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from canonlift import distributed
from canonlift.body import skeleton
from canonlift.body.skeleton import ROOT
from canonlift.data.recording import Recording, load
from canonlift.types import Target, Views

HIPS = ("l_hip", "r_hip")
# What is to be added to the views of a recording, such as targets.
Complete = Callable[[Path, Recording, Views], Views]
BLOCK = 128  # frames that stay together on their way from disk: 0.1 to 1 MB


class Summary(NamedTuple):
    """What there is to say of samples without showing them."""

    frames: int
    views: int
    joints: int
    bodies: int  # views of frames in which anything was observed
    observed: int  # joints in them
    low: float  # least and greatest confidence of an observed joint; 1 and 0 if there is none
    high: float
    trusted: int  # frames with a 3D target that is more likely right than wrong
    fixed: int  # frames of cameras that are known never to have moved


@runtime_checkable
class Samples(Protocol):
    """Samples of several recordings, wherever they are: what training reads.

    Those with fewer views are padded with unobserved ones.
    """

    names: tuple[str, ...]
    window: int | None  # samples that can be in memory together; None: all of them
    frames: int  # that a sample is of: 1, or the length of a window

    def __len__(self) -> int: ...

    def __getitem__(self, samples: Int[Tensor, " N"]) -> Views:
        """Samples by number, on the device of training."""
        ...

    def of(self, index: int) -> Int[Tensor, " N"]:
        """Numbers of a recording's samples."""
        ...

    def origin(self, samples: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
        """The recording that each sample is of, as an index into `names`."""
        ...

    def hold(self, batches: Int[Tensor, "N B"]) -> tuple["Views | Samples", Int[Tensor, "N B"]]:
        """Views among which all these batches are, and where: `held[places[n]]` is a batch."""
        ...

    def summary(self) -> Summary:
        """What there is to say of all of them."""
        ...


@dataclass(frozen=True, eq=False)
class Session:
    """Samples in memory."""

    views: Views
    recording: Int[Tensor, " B"]  # index into `names`
    names: tuple[str, ...]
    window: None = None
    frames: int = 1

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, samples: Int[Tensor, " N"]) -> Views:
        return self.views[samples.to(self.recording.device)]

    def to(self, device: torch.device) -> "Session":
        """Move to a device."""
        return replace(self, views=self.views.to(device), recording=self.recording.to(device))

    def of(self, index: int) -> Int[Tensor, " N"]:
        """Numbers of a recording's samples."""
        return (self.recording == index).nonzero()[:, 0]

    def origin(self, samples: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
        """The recording that each sample is of."""
        return self.recording[samples.to(self.recording.device)]

    def hold(self, batches: Int[Tensor, "N B"]) -> tuple[Views, Int[Tensor, "N B"]]:
        """Views among which all these batches are, and where."""
        return self.views, batches.to(self.recording.device, non_blocking=True)

    def summary(self) -> Summary:
        """What there is to say of all of them."""
        return add_up([summarise(self.views[i : i + 65536]) for i in range(0, len(self), 65536)])


def read(
    paths: Sequence[Path],
    joints: tuple[str, ...],
    least_views: int = 1,
    complete: Complete = lambda _path, _recording, views: views,
) -> Session:
    """Read recordings whole, on the given joints, each completed by `complete`.

    Raises:
        FileNotFoundError: if there is nothing to read.
        ValueError: naming the file, if it cannot serve.
    """
    if not paths:
        raise FileNotFoundError("no recordings to read; check the globs in the config")
    rigs: dict[str, int] = {}
    parts = []
    for path in paths:
        recording = read_one(path, joints)
        check_views(path, len(recording.views), least_views)
        rig = rigs.setdefault(recording.rig, len(rigs)) if recording.rig else -1
        parts.append(complete(path, recording, to_views(recording, rig)))
    n_views = max(part.keypoints.shape[1] for part in parts)
    views = _join([_pad(part, n_views) for part in parts])
    index = torch.cat([torch.full((len(part),), i) for i, part in enumerate(parts)])
    return Session(views, index, tuple(str(path) for path in paths))


def check_views(path: Path, n_views: int, least: int) -> None:
    """Refuse a recording with fewer than `least` views."""
    if n_views < least:
        raise ValueError(
            f"{path}: has {n_views} view(s), training needs {least} or more; a single camera can "
            "only be evaluated"
        )


def expand(patterns: Sequence[str]) -> list[Path]:
    """Files that the globs match, each once, in order.

    Raises:
        FileNotFoundError: if one of them matches nothing.
    """
    paths: dict[Path, None] = {}
    for pattern in patterns:
        found = sorted(glob.glob(pattern, recursive=True))
        if not found:
            raise FileNotFoundError(f"{pattern!r} matches no recording (looked from {Path.cwd()})")
        paths |= dict.fromkeys(map(Path, found))
    return list(paths)


def read_one(path: Path, joints: tuple[str, ...], partly: bool = False) -> Recording:
    """Read one recording on the given joints, naming the file in every error.

    Training needs all of them; where `partly`, those that cannot be made are unobserved.
    """
    recording = load(path)
    if recording.n_frames == 0:
        raise ValueError(f"{path}: has no frames")
    try:
        return recording.on_skeleton(joints, partly)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def to_views(recording: Recording, rig: int = -1) -> Views:
    """Centre every view on its root joint; a view without one counts as unobserved."""
    keypoints, confidence, root, rooted = centre(recording)
    observed = (confidence > 0) & rooted[..., None]
    keypoints = np.where(observed[..., None], keypoints - root[..., None, :], 0.0)
    return Views(
        torch.from_numpy(keypoints.astype(np.float32)),
        torch.from_numpy(np.where(observed, confidence, 0.0).astype(np.float32)),
        torch.full((len(keypoints),), rig),
    )


def centre(
    recording: Recording,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints and confidence with the root filled in, the root (T, V, 2), and where it is known.

    A root that was missed is put in the middle of the hips where both were seen.
    """
    joints = recording.joints
    keypoints, confidence = recording.keypoints.copy(), recording.confidence.copy()
    r = joints.index(ROOT)
    if set(HIPS) <= set(joints):
        hips = [joints.index(name) for name in HIPS]
        fill = (confidence[..., r] == 0) & (confidence[..., hips] > 0).all(-1)
        keypoints[fill, r] = keypoints[..., hips, :].mean(-2)[fill]
        confidence[fill, r] = confidence[..., hips].min(-1)[fill]
    rooted = confidence[..., r] > 0
    return keypoints, confidence, keypoints[..., r, :], rooted


def stream(
    session: Samples, batch_size: int, seed: int, first: int
) -> Iterator[tuple[Int[Tensor, " B"], Views]]:
    """Shuffled `batches` without end: the numbers of their samples, and this process's share."""
    for window in windows(len(session), batch_size, seed, first, session.window):
        held, places = session.hold(distributed.share(window))
        for samples, place in zip(window, places, strict=True):
            yield samples, held[place]


def at_once(session: Samples) -> int:
    """So many samples can be lifted together without much memory."""
    return 4096 if session.frames == 1 else max(1, 512 // session.frames)


def batches(
    n_samples: int, batch_size: int, seed: int, first: int, most: int | None = None
) -> Iterator[Int[Tensor, " B"]]:
    """Indices of shuffled batches without end, from batch number `first` on.

    A batch depends on the seed and its number alone, so a resumed run sees what the killed one
    would have seen. The few samples left over at the end of an epoch wait for another one.
    """
    for window in windows(n_samples, batch_size, seed, first, most):
        yield from window


def windows(
    n_samples: int, batch_size: int, seed: int, first: int, most: int | None = None
) -> Iterator[Int[Tensor, "N B"]]:
    """`batches`, by the window: what is made of `most` samples, if so many have to be shuffled.

    A window is blocks of BLOCK neighbours from anywhere, all their samples shuffled. So every
    epoch has every sample once, but neighbours are likelier than others to be in one batch.
    """
    batch_size = min(batch_size, n_samples)
    per_epoch = n_samples // batch_size
    n_windows = 1 if most is None else -(-n_samples // max(most, batch_size))
    per_window = -(-per_epoch // n_windows)
    for epoch in itertools.count(first // per_epoch):
        skip = first % per_epoch if epoch == first // per_epoch else 0
        blocks = torch.arange(0, n_samples, BLOCK if n_windows > 1 else n_samples)
        blocks = blocks[torch.randperm(len(blocks), generator=_generator(seed, epoch, -1))]
        for number in range(skip // per_window, -(-per_epoch // per_window)):
            begin = number * per_window
            end = min(begin + per_window, per_epoch)
            until = n_samples if end == per_epoch else end * batch_size
            members = _members(blocks, n_samples, begin * batch_size, until)
            shuffling = _generator(seed, epoch, number)
            order = members[torch.randperm(len(members), generator=shuffling)]
            order = order[: (end - begin) * batch_size].view(-1, batch_size)
            yield order[max(skip - begin, 0) :]


def _members(blocks: Int[Tensor, " N"], n_samples: int, begin: int, end: int) -> Tensor:
    """The `begin`th to the `end`th of the samples in blocks that start there, in their order."""
    if len(blocks) == 1:
        return torch.arange(n_samples)
    before = (n_samples - blocks).clamp_max(BLOCK).cumsum(0)
    place = torch.arange(begin, end)
    block = torch.searchsorted(before, place, right=True)
    start = before[block] - (n_samples - blocks[block]).clamp_max(BLOCK)
    return (blocks[block] + place - start).sort().values


def _generator(seed: int, epoch: int, number: int) -> torch.Generator:
    plain = seed * 1_000_003 + epoch
    if number == 0:  # as it is where everything is one window
        return torch.Generator().manual_seed(plain)
    mixed = np.random.SeedSequence((seed, epoch, number + 1)).generate_state(1)
    return torch.Generator().manual_seed(int(mixed[0]))  # torch takes 32 bits of it


def flip(views: Views, joints: Sequence[str]) -> Views:
    """The same people and cameras in a mirror: x changes sign, left and right change names."""
    partner = _partners(tuple(joints), views.keypoints.device)

    def mirror(points: Tensor) -> Tensor:
        points = points[..., partner, :]
        return torch.cat([-points[..., :1], points[..., 1:]], dim=-1)

    target = views.target
    if target is not None:
        target = Target(mirror(target.pose), target.trust[..., partner])
    confidence = views.confidence[..., partner]
    return replace(views, keypoints=mirror(views.keypoints), confidence=confidence, target=target)


@cache
def _partners(joints: tuple[str, ...], device: torch.device) -> Int[Tensor, " J"]:
    """Kept, because moving it to a device waits for the device."""
    return torch.tensor(skeleton.mirrored(joints), device=device)


def describe(session: Samples) -> str:
    """One line on what was read.

    Raises:
        ValueError: if nothing was observed in any of it.
    """
    total = session.summary()
    if not total.observed:
        raise ValueError(f"{', '.join(session.names)}: not a single observed joint")
    unobserved = 1 - total.observed / (total.frames * total.views * total.joints)
    return (
        f"{len(session.names)} recordings, {total.frames} frames, up to {total.views} views "
        f"({total.bodies / total.frames:.1f} on average), {unobserved:.1%} of joints "
        f"unobserved, confidence {total.low:.2f} to {total.high:.2f}"
    )


def summarise(views: Views) -> Summary:
    """What there is to say of some samples."""
    observed = views.observed
    trusted = 0 if views.target is None else (views.target.trust.amax((1, 2)) > 0.5).sum()
    return Summary(
        *observed.shape,
        bodies=int(observed.any(-1).sum()),
        observed=int(observed.sum()),
        low=float(torch.where(observed, views.confidence, 1.0).min()),
        high=float(views.confidence.max()),
        trusted=int(trusted),
        fixed=int((views.rig >= 0).sum()),
    )


def add_up(parts: Sequence[Summary]) -> Summary:
    """What there is to say of all together."""
    column = Summary(*zip(*parts, strict=True))
    return Summary(
        sum(column.frames), max(column.views), max(column.joints), sum(column.bodies),
        sum(column.observed), min(column.low), max(column.high), sum(column.trusted),
        sum(column.fixed),
    )  # fmt: skip


def _join(parts: Sequence[Views]) -> Views:
    guesses = [part.target for part in parts if part.target is not None]
    return Views(
        torch.cat([part.keypoints for part in parts]),
        torch.cat([part.confidence for part in parts]),
        torch.cat([part.rig for part in parts]),
        Target(torch.cat([g.pose for g in guesses]), torch.cat([g.trust for g in guesses]))
        if guesses
        else None,
    )


def _pad(views: Views, n_views: int) -> Views:
    missing = n_views - views.keypoints.shape[1]

    def pad(points: Tensor) -> Tensor:
        return torch.nn.functional.pad(points, (0, 0, 0, 0, 0, missing))

    def pad_weight(weight: Tensor) -> Tensor:
        return torch.nn.functional.pad(weight, (0, 0, 0, missing))

    target = views.target
    if target is not None:
        target = Target(pad(target.pose), pad_weight(target.trust))
    return Views(pad(views.keypoints), pad_weight(views.confidence), views.rig, target)
