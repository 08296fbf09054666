"""Samples of recordings: windows of consecutive frames, of length 1 for single frames."""

import itertools
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from canonlift.data.frames import map_views
from canonlift.data.shards import Frames
from canonlift.time_windows import window_starts
from canonlift.types import Views


@dataclass(frozen=True)
class WindowConfig:
    """How recordings are cut into samples. Lengths are in frames."""

    length: int = 1  # of a window; 1: single frames
    stride: int = 1  # from one window to the next
    fps: float | None = None  # rate that recordings are brought to; null: as they are
    gap: int = 15  # longest run of frames in which nobody was observed that is no cut yet

    def __post_init__(self) -> None:
        for name in ("length", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"windows.{name} must be positive, got {getattr(self, name)}")
        if self.gap < 0:
            raise ValueError(f"windows.gap must not be negative, got {self.gap}")
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"windows.fps must be positive, got {self.fps}")


@dataclass(frozen=True, eq=False)
class Samples:
    """Windows of frames; frames that several windows share are held once."""

    frames: Frames
    length: int = 1  # of every window; frames from `end` on are unobserved
    first: Int[Tensor, " N"] | None = None  # frame that a window begins with, in ascending order
    end: Int[Tensor, " N"] | None = None  # frame before which it ends. None: each frame by itself

    @property
    def names(self) -> tuple[str, ...]:
        """The recordings."""
        return self.frames.names

    @property
    def capacity(self) -> int | None:
        """Samples that can be in memory together; None: all of them are."""
        most = self.frames.capacity
        return None if most is None else max(1, most // self.length)

    @property
    def at_once(self) -> int:
        """So many samples can be lifted together without much memory."""
        return 4096 if self.length == 1 else max(1, 512 // self.length)

    @cached_property
    def bounds(self) -> Int[Tensor, " R_1"]:
        """First sample of each recording, and the end; on the CPU."""
        bounds = self.frames.bounds
        return bounds if self.first is None else torch.searchsorted(self.first.cpu(), bounds)

    def __len__(self) -> int:
        return len(self.frames) if self.first is None else len(self.first)

    def __getitem__(self, samples: Int[Tensor, " N"]) -> Views:
        if self.first is None:
            return self.frames[samples].as_windows
        numbers, inside = self.frames_of(samples)
        views = self.frames[numbers]
        inside = inside[:, None, :, None].to(views.confidence.device)
        return map_views(views, lambda points: points, lambda weights: weights * inside)

    def frames_of(
        self, samples: Int[Tensor, " N"]
    ) -> tuple[Int[Tensor, "N T"], Bool[Tensor, "N T"]]:
        """The frames of each sample, and those before its end: the others are unobserved."""
        if self.first is None or self.end is None:
            return samples[:, None], torch.ones_like(samples[:, None], dtype=torch.bool)
        samples = samples.to(self.first.device)
        numbers = self.first[samples, None] + torch.arange(self.length, device=self.first.device)
        inside = numbers < self.end[samples, None]
        return numbers.clamp_max(len(self.frames) - 1), inside

    def to(self, device: torch.device) -> "Samples":
        """Have samples arrive on a device."""
        first, end = (None if x is None else x.to(device) for x in (self.first, self.end))
        return Samples(self.frames.to(device), self.length, first, end)

    def of(self, index: int) -> Int[Tensor, " N"]:
        """Numbers of a recording's samples."""
        return torch.arange(*self.bounds[index : index + 2].tolist())

    def origin(self, samples: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
        """The recording that each sample is of, as an index into `names`."""
        return torch.searchsorted(self.bounds, samples.cpu(), right=True) - 1

    def load(self, batches: Int[Tensor, "N B"]) -> tuple["Samples", Int[Tensor, "N B"]]:
        """Samples in memory that contain all these batches, and their numbers among them."""
        if self.frames.capacity is None:
            return self, batches.to(self.frames.device, non_blocking=True)
        samples, places = batches.cpu().unique(return_inverse=True)
        if self.first is None or self.end is None:
            loaded = Samples(self.frames.load(samples))
        else:
            numbers, inside = (x.cpu() for x in self.frames_of(samples))
            wanted, at = numbers.unique(return_inverse=True)
            end = at[:, 0] + inside.sum(1)
            loaded = Samples(self.frames.load(wanted), self.length, at[:, 0], end)
        return loaded.to(self.frames.device), places.to(self.frames.device)


def cut(frames: Frames, config: WindowConfig) -> Samples:
    """Cut every recording into windows, `stride` frames apart.

    Where no view observed anything for more than `gap` frames the recording counts as cut, and
    no window reaches over that. The last window before a cut ends with it, and overlaps the one
    before by more; a run shorter than `length` makes one window, filled up with unobserved
    frames. Of length 1, every frame is a sample.
    """
    if config.length == config.stride == 1:
        return Samples(frames)
    observed, bounds = frames.observed(), frames.bounds.tolist()
    first, end = [torch.empty(0, dtype=torch.long)], [torch.empty(0, dtype=torch.long)]
    for start, stop in itertools.pairwise(bounds):
        for begin, finish in runs(observed[start:stop], config.gap):
            starts = window_starts(finish - begin, config.length, config.stride) + begin + start
            first.append(starts)
            end.append(torch.full_like(starts, finish + start))
    return Samples(frames, config.length, torch.cat(first), torch.cat(end))


def runs(seen: Bool[Tensor, " N"], gap: int) -> list[tuple[int, int]]:
    """(begin, end) of the stretches between runs of more than `gap` unobserved frames."""
    frames = seen.nonzero()[:, 0]
    if len(frames) == 0:
        return []
    breaks = (frames.diff() > gap + 1).nonzero()[:, 0]
    begins = torch.cat([frames[:1], frames[breaks + 1]])
    ends = torch.cat([frames[breaks], frames[-1:]]) + 1
    return list(zip(begins.tolist(), ends.tolist(), strict=True))


def resample(views: Views, ratio: float) -> Views:
    """The same recording at a frame rate `ratio` times as high, linear between its frames.

    A joint is observed where it was in both neighbours, with the lower of their confidences.
    """
    if ratio == 1:
        return views
    count = int((len(views) - 1) * ratio + 1e-6) + 1
    place = Places.of(torch.arange(count, dtype=torch.float64) / ratio, len(views))
    return map_views(views, place.between, place.least, views.rig[place.before])


@dataclass(frozen=True, eq=False)
class Places:
    """Times between the frames of a recording."""

    before: Int[Tensor, " N"]
    after: Int[Tensor, " N"]
    share: Float[Tensor, " N"]  # of the frame after; 0 at a frame

    @classmethod
    def of(cls, times: Float[Tensor, " N"], n_frames: int) -> "Places":
        """Times in frames; what lies beyond an end is the end."""
        times = times.clamp(0, n_frames - 1)
        before = (times + 1e-6).floor().long()
        share = (times - before).clamp_min(0.0)
        share = torch.where(share < 1e-5, 0.0, share)
        return cls(before, torch.where(share > 0, before + 1, before), share)

    def between(self, values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Values at these times."""
        share = self.share.to(values).view(-1, *[1] * (values.ndim - 1))
        return (1 - share) * values[self.before] + share * values[self.after]

    def least(self, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The lesser of the weights before and after."""
        return torch.minimum(weight[self.before], weight[self.after])
