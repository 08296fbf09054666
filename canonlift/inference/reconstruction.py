"""One 3D sequence of all views of a recording: one frame of reference, one size, any cameras.

Over two seconds cameras hardly turn relative to each other, even where they pan along. So the
rotations that the network predicts for each view of each frame are averaged over such a window,
and all poses of the window, as one body, are fitted to its detections by robust least squares with
the lifted poses as a prior. Windows overlap by half; each is turned onto the one before it by the
poses of the frames that they share, and they are blended.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from canonlift.body.anatomy import body_length
from canonlift.data.frames import to_views
from canonlift.data.prediction import Fused, Prediction
from canonlift.geometry.rotations import nearest_rotation
from canonlift.solver.least_squares import TOLERANCE, Observations, adjust
from canonlift.time_windows import triangle_weights, window_frames
from canonlift.types import Lifted, Views

WINDOW_S = 2.0
LEAST_WINDOW = 8  # frames
PRIOR = 0.3  # weight of the lifted poses, relative to one detection of confidence 1
OUTLIER = 0.1  # distance, over the norm of a pose, at which a lifted one has half its weight
BLUR_S = 0.07  # standard deviation in time over which lifted poses, not detections, are averaged
SETTLE_S = 10.0  # over which the frame is drawn back to the cameras' mean, against drift
WEAK = 1e-3  # weight of the whole recording in the relative rotations of a window's cameras


class Windows(NamedTuple):
    """Windows of equal length that cover a recording, and what was found in each."""

    frames: Int[Tensor, "N W"]
    pose: Float[Tensor, "N W J 3"]  # in axes of the window's own
    rotation: Float[Tensor, "N V 3 3"]  # from these to the camera
    seen: Float[Tensor, "N W V"]  # mean confidence in the view; 0: nothing observed


def with_fused(prediction: Prediction) -> Prediction:
    """The same with one sequence made of all views, unless there is only one view."""
    if len(prediction.views) < 2:
        return prediction
    return replace(prediction, fused=reconstruct(prediction))


@torch.no_grad()
def reconstruct(prediction: Prediction, block: int = 4096) -> Fused:
    """Make one sequence of all views of a recording.

    Two views suffice, and any may be missing at times. The axes are those of the first camera, as
    it stood on average. Where all cameras turn alike, that cannot be observed, and the axes
    turn with them. About `block` frames are worked on at a time.
    """
    recording = prediction.recording
    views = to_views(recording)
    seen = views.confidence.double().mean(-1)
    in_camera, rotation = (
        torch.from_numpy(np.nan_to_num(x)).double() for x in (prediction.pose, prediction.rotation)
    )
    frames = window_frames(len(views), max(LEAST_WINDOW, round(WINDOW_S * recording.fps)))
    whole = WEAK * _relations(rotation, seen)
    parts = []
    for part in frames.split(max(1, block // frames.shape[1])):
        together = _relations(rotation[part], seen[part]) + whole
        cameras = average_cameras(together)
        prior = _average_poses(cameras, in_camera[part], seen[part], BLUR_S * recording.fps)
        parts.append((*_fit(views, part, cameras, prior), seen[part]))
    poses, cameras, weight = (torch.cat(x) for x in zip(*parts, strict=True))
    poses = _in_one_size(poses, (weight > 0).any(-1), recording.joints)
    windows = chain_windows(Windows(frames, poses, cameras, weight))
    windows = settle_windows(windows, SETTLE_S * recording.fps)
    pose, rotation = blend_windows(windows)

    blank = seen == 0
    pose = _in_one_size(pose, ~blank.all(1), recording.joints)
    first = nearest_rotation((rotation * seen[..., None, None]).sum(0))[
        blank.all(0).int().argmin()
    ]
    pose, rotation = pose @ first.mT, rotation @ first.mT
    pose = pose.masked_fill(blank.all(1)[:, None, None], torch.nan)
    rotation = rotation.masked_fill(blank[..., None, None], torch.nan)
    seen_by = views.observed.sum(1).to(torch.int8)
    return Fused(pose.float().numpy(), rotation.float().numpy(), seen_by.numpy())


def average_cameras(relations: Float[Tensor, "N W W"]) -> Float[Tensor, "N V 3 3"]:
    """Rotations from one frame to every camera, from sums of those between the cameras.

    The sums are 3 x 3 blocks of one symmetric matrix, v from u. Its leading eigenvectors are the
    rotations, up to the choice of the frame, exactly where all sums agree.
    """
    leading = torch.linalg.eigh(relations).eigenvectors[..., -3:]
    blocks = leading.unflatten(1, (-1, 3))
    mirrored = torch.det(blocks).sum(-1) < 0
    return nearest_rotation(torch.where(mirrored[:, None, None, None], -blocks, blocks))


def _relations(
    rotation: Float[Tensor, "*N T V 3 3"], seen: Float[Tensor, "*N T V"]
) -> Float[Tensor, "*N W W"]:
    """Mean over time of the rotations between all cameras with detections, in blocks."""
    stacked = (rotation * seen[..., None, None]).movedim(-4, -2).flatten(-4, -3).flatten(-2)
    return stacked @ stacked.mT / seen.shape[-2]


def _average_poses(
    cameras: Float[Tensor, "N V 3 3"],
    in_camera: Float[Tensor, "N W V J 3"],
    seen: Float[Tensor, "N W V"],
    blur: float,
) -> Float[Tensor, "N W J 3"]:
    """Robust mean over the views of the lifted poses, and over `blur` frames."""
    each = torch.einsum("nvrc,nwvjr->nwvjc", cameras, in_camera)
    time = torch.arange(seen.shape[1], dtype=each.dtype)
    kernel = (-0.5 * ((time[:, None] - time) / max(blur, 1e-3)).square()).exp()

    def mean(weight: Float[Tensor, "N W V"]) -> Float[Tensor, "N W J 3"]:
        total = torch.einsum("nwv,nwvjc->nwjc", weight, each)
        total, norm = (torch.einsum("uw,nw...->nu...", kernel, x) for x in (total, weight.sum(-1)))
        return total / norm.clamp_min(1e-9)[..., None, None]

    weight = seen
    for _ in range(3):
        gap = (each - mean(weight)[:, :, None]).norm(dim=(-2, -1))
        size = OUTLIER * each.norm(dim=(-2, -1)).clamp_min(1e-9)
        weight = seen / (1 + (gap / size).square())
    return mean(weight)


def _fit(
    views: Views,
    frames: Int[Tensor, "N W"],
    cameras: Float[Tensor, "N V 3 3"],
    prior: Float[Tensor, "N W J 3"],
) -> tuple[Float[Tensor, "N W J 3"], Float[Tensor, "N V 3 3"]]:
    """Poses and cameras that fit the detections of each window, near the given ones."""
    length, n_views = frames.shape[1], cameras.shape[1]
    keypoints, confidence = (
        x[frames].double().transpose(1, 2).flatten(2, 3)
        for x in (views.keypoints, views.confidence)
    )
    body = Views(keypoints, confidence, views.rig[frames[:, 0]])
    each = prior.flatten(1, 2)[:, None].expand(-1, n_views, -1, -1)
    seen = Observations.of(body, Lifted(each, cameras))
    tolerance = TOLERANCE / length**0.5
    pose, cameras = adjust(seen, cameras, seen.prior, tolerance, prior_weight=PRIOR)
    return pose.unflatten(1, (length, -1)), cameras


def _in_one_size(
    pose: Float[Tensor, "*batch T J 3"], seen: Bool[Tensor, "*batch T"], joints: Sequence[str]
) -> Float[Tensor, "*batch T J 3"]:
    """Poses of one person whose bones sum to 1 in the median of the observed frames."""
    length = body_length(pose, joints).masked_fill(~seen, torch.nan).nanmedian(-1).values
    length = torch.where(length > 0, length, 1.0)  # nobody was observed
    return pose / length[..., None, None, None]


def chain_windows(windows: Windows) -> Windows:
    """Turn each window onto the one before it, by the frames that are in both."""
    shift = (windows.frames[1:, 0] - windows.frames[:-1, 0]).tolist()
    turns = [torch.eye(3, dtype=windows.pose.dtype)]
    some = (windows.seen.sum(-1) > 0).to(windows.pose.dtype)[..., None, None]
    for n, step in enumerate(shift):
        before, after = windows.pose[n, step:], windows.pose[n + 1, : len(some[n]) - step]
        both = before * some[n, step:]
        turns.append(turns[-1] @ nearest_rotation(torch.einsum("wjr,wjc->rc", both, after)))
    return _turned(windows, torch.stack(turns))


def settle_windows(windows: Windows, frames: float) -> Windows:
    """Turn each window so that over about so many frames the cameras have their mean rotations.

    Small errors of the chain would add up over minutes; the mean does not drift.
    """
    seen = windows.seen.sum(1)[..., None, None]
    sigma = frames / max(1, windows.frames.shape[1] // 2)
    for _ in range(5):
        home = nearest_rotation((seen * windows.rotation).sum(0))
        off = (seen * (home.mT @ windows.rotation)).sum(1)
        off = gaussian_filter1d(off.numpy(), sigma, axis=0, mode="nearest")
        windows = _turned(windows, nearest_rotation(torch.from_numpy(off)))
    return windows


def _turned(windows: Windows, turn: Float[Tensor, "N 3 3"]) -> Windows:
    return windows._replace(
        pose=torch.einsum("nrc,nwjc->nwjr", turn, windows.pose),
        rotation=windows.rotation @ turn.mT[:, None],
    )


def blend_windows(windows: Windows) -> tuple[Float[Tensor, "T J 3"], Float[Tensor, "T V 3 3"]]:
    """Each frame's mean over its windows, weighted by its distance from their ends."""
    length = windows.frames.shape[1]
    share = triangle_weights(length, windows.pose, edge=0.5)
    share = share.expand(windows.frames.shape).flatten()
    frames, n_frames = windows.frames.flatten(), int(windows.frames.max()) + 1

    def mean(values: Float[Tensor, "N W ..."]) -> Float[Tensor, "T ..."]:
        weighted = torch.einsum("n,n...->n...", share, values.flatten(0, 1))
        return weighted.new_zeros(n_frames, *values.shape[2:]).index_add(0, frames, weighted)

    total = mean(torch.ones_like(windows.frames).to(share.dtype))[:, None, None]
    rotation = windows.rotation[:, None].expand(-1, length, -1, -1, -1)
    return mean(windows.pose) / total, nearest_rotation(mean(rotation))
