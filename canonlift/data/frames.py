"""The frames of many recordings, in memory: what training and evaluation read."""

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from canonlift.body.skeleton import ROOT
from canonlift.data.recording import Recording, load
from canonlift.types import Target, Views

HIPS = ("l_hip", "r_hip")
BLOCK = 65536  # frames that are summarised at once
# Adds to the views of a recording, such as targets.
Complete = Callable[[Path, Recording, Views], Views]


class Summary(NamedTuple):
    """What is known of frames without showing them."""

    frames: int
    views: int
    joints: int
    bodies: int  # views of frames in which anything was observed
    observed: int  # joints in them
    low: float  # least and greatest confidence of an observed joint; 1 and 0 if there is none
    high: float
    trusted: int  # frames with a 3D target that is more likely right than wrong
    fixed: int  # frames of cameras that are known never to have moved


@dataclass(frozen=True, eq=False)
class FramesInMemory:
    """Frames of several recordings one after another, all of them in memory.

    Recordings with fewer views are padded with unobserved ones. `shards.FramesOnDisk` has the
    same methods.
    """

    views: Views  # instants
    bounds: Int[Tensor, " R_1"]  # first frame of each recording, and the end; on the CPU
    names: tuple[str, ...]  # of the recordings
    capacity: None = None  # frames that can be in memory together; None: all of them are

    @property
    def device(self) -> torch.device:
        """Where frames arrive."""
        return self.views.keypoints.device

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, frames: Int[Tensor, "*shape"]) -> Views:
        """Frames by number, as instants; those of windows, (B, T), as windows."""
        return pick(self.views, frames)

    def load(self, frames: Int[Tensor, " N"]) -> "FramesInMemory":
        """These frames, in ascending order, as frames in memory."""
        return FramesInMemory(self.views[frames], torch.tensor([0, len(frames)]), ("",))

    def to(self, device: torch.device) -> "FramesInMemory":
        """Have frames arrive on a device."""
        return replace(self, views=self.views.to(device))

    def observed(self) -> Bool[Tensor, " N"]:
        """Frames in which any view observed anything; on the CPU."""
        return self.views.observed.any(-1).any(-1).cpu()

    def summary(self) -> Summary:
        """What is known of all of them."""
        blocks = range(0, len(self), BLOCK)
        return add_up([summarise(self.views[start : start + BLOCK]) for start in blocks])


def pick(views: Views, frames: Int[Tensor, "*shape"]) -> Views:
    """Frames by number; those of windows, (B, T), as windows."""
    frames = frames.to(views.keypoints.device)
    if frames.ndim != 2:
        return views[frames]

    def windows(values: Tensor) -> Tensor:
        return values[frames].transpose(1, 2).contiguous()

    return map_views(views, windows, windows, views.rig[frames[:, 0]])


def map_views(
    views: Views,
    points: Callable[[Tensor], Tensor],
    weights: Callable[[Tensor], Tensor],
    rig: Int[Tensor, " B"] | None = None,
) -> Views:
    """Apply `points` to keypoints and 3D target, and `weights` to their confidence and trust."""
    target = views.target
    if target is not None:
        target = Target(points(target.pose), weights(target.trust))
    rig = views.rig if rig is None else rig
    return Views(points(views.keypoints), weights(views.confidence), rig, target)


def read(
    paths: Sequence[Path],
    joints: tuple[str, ...],
    least_views: int = 1,
    complete: Complete = lambda _path, _recording, views: views,
) -> FramesInMemory:
    """Read recordings whole, on the given joints, each completed by `complete`."""
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
    bounds = torch.tensor([0, *map(len, parts)]).cumsum(0)
    views = _join([_pad(part, n_views) for part in parts])
    return FramesInMemory(views, bounds, tuple(str(path) for path in paths))


def check_views(path: Path, n_views: int, least: int) -> None:
    """Refuse a recording with fewer than `least` views."""
    if n_views < least:
        raise ValueError(
            f"{path}: has {n_views} view(s), training needs {least} or more; a single camera can "
            "only be evaluated"
        )


def expand(patterns: Sequence[str]) -> list[Path]:
    """Files that the globs match, each once, in order; an error if one matches nothing."""
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
    """The frames of a recording as instants, every view centred on its root joint.

    A view without a root counts as unobserved.
    """
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
) -> tuple[
    Float[np.ndarray, "T V J 2"],
    Float[np.ndarray, "T V J"],
    Float[np.ndarray, "T V 2"],
    Bool[np.ndarray, "T V"],
]:
    """Keypoints and confidence with the root filled in, the root, and where it is known.

    A root that was missed is put in the middle of the hips where both were observed.
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


def describe(names: Sequence[str], total: Summary) -> str:
    """One line on the recordings that were read; an error if nothing was observed in any."""
    if not total.observed:
        raise ValueError(f"{', '.join(names)}: not a single observed joint")
    unobserved = 1 - total.observed / (total.frames * total.views * total.joints)
    return (
        f"{len(names)} recordings, {total.frames} frames, up to {total.views} views "
        f"({total.bodies / total.frames:.1f} on average), {unobserved:.1%} of joints "
        f"unobserved, confidence {total.low:.2f} to {total.high:.2f}"
    )


def summarise(views: Views) -> Summary:
    """What is known of some instants."""
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
    """What is known of all together."""
    combine = {"views": max, "joints": max, "low": min, "high": max}
    columns = zip(Summary._fields, zip(*parts, strict=True), strict=True)
    return Summary(**{name: combine.get(name, sum)(values) for name, values in columns})


def _join(parts: Sequence[Views]) -> Views:
    def join(of: Sequence[Views | Target], name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in of])

    targets = [part.target for part in parts if part.target is not None]
    target = Target(join(targets, "pose"), join(targets, "trust")) if targets else None
    return Views(join(parts, "keypoints"), join(parts, "confidence"), join(parts, "rig"), target)


def _pad(views: Views, n_views: int) -> Views:
    missing = n_views - views.keypoints.shape[1]
    return map_views(
        views,
        lambda points: torch.nn.functional.pad(points, (0, 0, 0, 0, 0, missing)),
        lambda weights: torch.nn.functional.pad(weights, (0, 0, 0, missing)),
    )
