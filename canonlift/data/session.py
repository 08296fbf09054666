"""Many recordings as one table of samples: what training and evaluation read."""

import glob
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from canonlift import skeleton
from canonlift.data.recording import Recording, load
from canonlift.skeleton import ROOT
from canonlift.types import Target, Views

HIPS = ("l_hip", "r_hip")


@dataclass(frozen=True, eq=False)
class Session:
    """Samples of several recordings; those with fewer views are padded with unobserved ones."""

    views: Views
    recording: Int[Tensor, " B"]  # index into `names`
    names: tuple[str, ...]
    fps: tuple[float, ...]  # of each recording

    def to(self, device: torch.device) -> "Session":
        """Move to a device."""
        return replace(self, views=self.views.to(device), recording=self.recording.to(device))


def read(paths: Sequence[Path], joints: tuple[str, ...], least_views: int = 1) -> Session:
    """Read recordings whole, on the given joints.

    Raises:
        FileNotFoundError: if there is nothing to read.
        ValueError: naming the file, if it cannot serve.
    """
    if not paths:
        raise FileNotFoundError("no recordings to read; check the globs in the config")
    rigs: dict[str, int] = {}
    parts, fps = [], []
    for path in paths:
        recording = read_one(path, joints)
        fps.append(recording.fps)
        if len(recording.views) < least_views:
            raise ValueError(
                f"{path}: has {len(recording.views)} view(s), training needs {least_views} or "
                "more; a single camera can only be evaluated"
            )
        rig = rigs.setdefault(recording.rig, len(rigs)) if recording.rig else -1
        parts.append(to_views(recording, rig))
    n_views = max(part.keypoints.shape[1] for part in parts)
    parts = [_pad(part, n_views) for part in parts]
    views = Views(
        torch.cat([part.keypoints for part in parts]),
        torch.cat([part.confidence for part in parts]),
        torch.cat([part.rig for part in parts]),
    )
    index = torch.cat([torch.full((len(part),), i) for i, part in enumerate(parts)])
    return Session(views, index, tuple(str(path) for path in paths), tuple(fps))


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


def read_one(path: Path, joints: tuple[str, ...]) -> Recording:
    """Read one recording on the given joints, naming the file in every error."""
    recording = load(path)
    if recording.n_frames == 0:
        raise ValueError(f"{path}: has no frames")
    try:
        return recording.on_skeleton(joints)
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


def batches(n_samples: int, batch_size: int, seed: int, first: int) -> Iterator[Tensor]:
    """Indices of shuffled batches without end, from batch number `first` on.

    A batch depends on the seed and its number alone, so a resumed run sees what the killed one
    would have seen. The few samples left over at the end of an epoch wait for another one.
    """
    batch_size = min(batch_size, n_samples)
    per_epoch = n_samples // batch_size
    for epoch in itertools.count(first // per_epoch):
        shuffling = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(n_samples, generator=shuffling)[: per_epoch * batch_size]
        skip = first % per_epoch if epoch == first // per_epoch else 0
        yield from order.view(per_epoch, batch_size)[skip:]


def flip(views: Views, joints: Sequence[str]) -> Views:
    """The same people and cameras in a mirror: x changes sign, left and right change names."""
    partner = _partners(tuple(joints), views.keypoints.device)

    def mirror(points: Tensor) -> Tensor:
        points = points[:, :, partner]
        return torch.cat([-points[..., :1], points[..., 1:]], dim=-1)

    target = views.target
    if target is not None:
        target = Target(mirror(target.pose), target.trust[:, :, partner])
    return Views(mirror(views.keypoints), views.confidence[:, :, partner], views.rig, target)


@cache
def _partners(joints: tuple[str, ...], device: torch.device) -> Int[Tensor, " J"]:
    """Kept, because moving it to a device waits for the device."""
    return torch.tensor(skeleton.mirrored(joints), device=device)


def describe(session: Session) -> str:
    """One line on what was read.

    Raises:
        ValueError: if nothing was observed in any of it.
    """
    observed = session.views.observed
    views = observed.any(-1)
    confidence = session.views.confidence[observed]
    if len(confidence) == 0:
        raise ValueError(f"{', '.join(session.names)}: not a single observed joint")
    n_views = views.sum(-1)
    return (
        f"{len(session.names)} recordings, {len(views)} frames, up to {observed.shape[1]} views "
        f"({n_views.float().mean():.1f} on average), {1 - observed.float().mean():.1%} of joints "
        f"unobserved, confidence {confidence.min():.2f} to {confidence.max():.2f}"
    )


def _pad(views: Views, n_views: int) -> Views:
    missing = n_views - views.keypoints.shape[1]
    return replace(
        views,
        keypoints=torch.nn.functional.pad(views.keypoints, (0, 0, 0, 0, 0, missing)),
        confidence=torch.nn.functional.pad(views.confidence, (0, 0, 0, missing)),
    )
