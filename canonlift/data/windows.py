"""Recordings as windows of consecutive frames: what a sequence model reads."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from canonlift.data.samples import Session, Summary
from canonlift.types import Target, Views, Windows


@dataclass(frozen=True, eq=False)
class WindowSession:
    """Windows of recordings in memory; frames that several windows share are held once."""

    session: Session
    first: Int[Tensor, " N"]  # frame that a window begins with
    end: Int[Tensor, " N"]  # frame before which it ends, at the latest
    frames: int  # of every window; those that are too many are unobserved
    window: None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The recordings."""
        return self.session.names

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, samples: Int[Tensor, "*shape"]) -> Windows:
        samples = samples.to(self.first.device)
        return gather(self.session.views, self.first[samples], self.end[samples], self.frames)

    def to(self, device: torch.device) -> "WindowSession":
        """Move to a device."""
        session, first, end = (x.to(device) for x in (self.session, self.first, self.end))
        return replace(self, session=session, first=first, end=end)

    def of(self, index: int) -> Int[Tensor, " N"]:
        """Numbers of a recording's windows."""
        return (self.session.recording[self.first] == index).nonzero()[:, 0]

    def origin(self, samples: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
        """The recording that each window is of."""
        return self.session.recording[self.first[samples.to(self.first.device)]]

    def hold(self, batches: Int[Tensor, "N B"]) -> tuple["WindowSession", Int[Tensor, "N B"]]:
        """All windows, and where these batches are among them."""
        return self, batches.to(self.first.device, non_blocking=True)

    def summary(self) -> Summary:
        """What there is to say of all recordings, frame by frame."""
        return self.session.summary()


def cut(session: Session, length: int, stride: int, gap: int) -> WindowSession:
    """Cut every recording of a session into windows, `stride` frames apart.

    Where no view observed anything for more than `gap` frames the recording counts as cut, and
    no window reaches over that. The last window before a cut ends with it, and overlaps the one
    before by more; a run shorter than `length` makes one window, filled up with unobserved frames.
    """
    seen = session.views.observed.any(-1).any(-1)
    first, end = [torch.empty(0, dtype=torch.long)], [torch.empty(0, dtype=torch.long)]
    for index in range(len(session.names)):
        frames = session.of(index)
        for begin, stop in runs(seen[frames], gap):
            last = max(0, stop - begin - length)
            starts = torch.tensor([*range(0, last, stride), last]) + begin + int(frames[0])
            first.append(starts)
            end.append(torch.full_like(starts, stop + int(frames[0])))
    return WindowSession(session, torch.cat(first), torch.cat(end), length)


def runs(seen: Bool[Tensor, " N"], gap: int) -> list[tuple[int, int]]:
    """(begin, end) of what lies between any `gap` + 1 or more frames that nobody saw."""
    frames = seen.nonzero()[:, 0]
    if len(frames) == 0:
        return []
    breaks = (frames.diff() > gap + 1).nonzero()[:, 0]
    begins = torch.cat([frames[:1], frames[breaks + 1]])
    ends = torch.cat([frames[breaks], frames[-1:]]) + 1
    return list(zip(begins.tolist(), ends.tolist(), strict=True))


def gather(views: Views, first: Int[Tensor, " B"], end: Int[Tensor, " B"], length: int) -> Windows:
    """Windows that begin with the frames `first`; from `end` on nothing is observed."""
    frames = first[:, None] + torch.arange(length, device=first.device)
    inside = (frames < end[:, None])[:, :, None, None]
    frames = frames.clamp_max(len(views) - 1)

    def of(values: Tensor) -> Tensor:
        return values[frames].transpose(1, 2).contiguous()

    def known(weight: Tensor) -> Tensor:
        return (weight[frames] * inside).transpose(1, 2).contiguous()

    target = views.target
    if target is not None:
        target = Target(of(target.pose), known(target.trust))
    return Windows(of(views.keypoints), known(views.confidence), views.rig[first], target)


def resample(views: Views, ratio: float) -> Views:
    """The same take at a frame rate `ratio` times as high, linear between its frames.

    A joint is observed where it was in both neighbours, and as surely as in the less sure one.
    """
    if ratio == 1:
        return views
    count = int((len(views) - 1) * ratio + 1e-6) + 1
    place = Places.of(torch.arange(count, dtype=torch.float64) / ratio, len(views))
    target = views.target
    if target is not None:
        target = Target(place.between(target.pose), place.least(target.trust))
    return Views(
        place.between(views.keypoints),
        place.least(views.confidence),
        views.rig[place.before],
        target,
    )


@dataclass(frozen=True, eq=False)
class Places:
    """Moments between the frames of a take."""

    before: Int[Tensor, " N"]
    after: Int[Tensor, " N"]
    share: Float[Tensor, " N"]  # of the frame after; 0 at a frame

    @classmethod
    def of(cls, moments: Float[Tensor, " N"], n_frames: int) -> "Places":
        """Moments in frames; what lies beyond an end is the end."""
        moments = moments.clamp(0, n_frames - 1)
        before = (moments + 1e-6).floor().long()
        share = (moments - before).clamp_min(0.0)
        share = torch.where(share < 1e-5, 0.0, share)
        return cls(before, torch.where(share > 0, before + 1, before), share)

    def between(self, values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Values at these moments."""
        share = self.share.to(values).view(-1, *[1] * (values.ndim - 1))
        return (1 - share) * values[self.before] + share * values[self.after]

    def least(self, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The lesser of the weights before and after."""
        return torch.minimum(weight[self.before], weight[self.after])
