"""What a model of sequences says of single frames, for repair and for whole recordings."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from canonlift.data.samples import Session
from canonlift.data.windows import Places, cut, gather, resample
from canonlift.geometry.rotations import nearest_rotation
from canonlift.methods.consistency import Alignment, align, chained, relations, rotations, triangle
from canonlift.models.temporal import SequenceConfig, SequenceLifter
from canonlift.types import Lifted, Motion, Views, Windows


def mend(
    windows: Windows, motion: Motion, aligned: Alignment, repair: Callable[[Views, Lifted], Views]
) -> Windows:
    """Repair every frame of windows by its other views, turned as their similarities say.

    The canonical frame is the camera of the view that observed most.
    """
    n_frames = windows.confidence.shape[2]
    rotation = rotations(aligned, windows.confidence.sum(-1)).transpose(1, 2).flatten(0, 1)

    def by_frame(values: Tensor) -> Tensor:
        return values.transpose(1, 2).flatten(0, 1)

    in_camera = by_frame(motion.in_camera / windows.unit)
    lifted = Lifted(torch.einsum("bvrc,bvjr->bvjc", rotation, in_camera), rotation)
    frames = Views(
        by_frame(windows.keypoints),
        by_frame(windows.confidence),
        windows.rig.repeat_interleave(n_frames),
    )
    repaired = repair(frames, lifted)
    return replace(
        windows,
        keypoints=repaired.keypoints.unflatten(0, (-1, n_frames)).transpose(1, 2),
        confidence=repaired.confidence.unflatten(0, (-1, n_frames)).transpose(1, 2),
    )


@torch.inference_mode()
def lift_recording(
    lifter: SequenceLifter, config: SequenceConfig, views: Views, fps: float, block: int
) -> Lifted:
    """Lift every view of a take by itself, and find out how the views are turned.

    Where windows overlap poses are a mean, in which a window counts most in its middle. Where
    there is no window a pose is what was seen, without depth. The canonical frame is the camera
    of the view that observed most; where that is aligned with no other, of the next.

    Args:
        lifter: the network.
        config: its windows.
        views: consecutive frames of the take.
        fps: their rate, at which poses are returned, whatever that of the windows is.
        block: how many frames of one view to work on at a time, about.
    """
    ratio = 1.0 if config.fps is None else config.fps / fps
    steady = resample(views, ratio)
    if not steady.observed.any():
        flat = torch.nn.functional.pad(views.keypoints, (0, 1))
        return Lifted(flat, torch.eye(3).expand(*flat.shape[:2], 3, 3))
    device = next(lifter.parameters()).device

    def pose(windows: Windows, _: Tensor) -> Tensor:
        return lifter(windows.to(device)).in_camera.cpu()

    poses, weight = _blend(steady, config.length, config.gap, block, pose)
    weight = weight[:, None, None, None]
    flat = torch.nn.functional.pad(steady.keypoints, (0, 1))
    poses = torch.where(weight > 0, poses / weight.clamp_min(1e-9), flat)

    segment, n_views = config.segment or config.length, steady.keypoints.shape[1]

    def relate(windows: Windows, frames: Tensor) -> Tensor:
        motion = Motion(poses[frames].transpose(1, 2))
        table = relations(align(motion, windows, 0), n_views).movedim(3, 2)
        return table.expand(-1, -1, segment, -1, -1, -1)

    table, _ = _blend(steady, segment, config.gap, block, relate)
    turns = chained(table, steady.confidence.sum((0, 2)).expand(len(steady), -1))

    moments = torch.arange(len(views), dtype=torch.float64) * ratio
    place = Places.of(moments, len(steady))
    pose_of, turn_of = place.between(poses), nearest_rotation(place.between(turns))
    return Lifted(torch.einsum("tvrc,tvjr->tvjc", turn_of, pose_of), turn_of)


def _blend(
    views: Views,
    length: int,
    gap: int,
    block: int,
    compute: Callable[[Windows, Int[Tensor, "B T"]], Float[Tensor, "B V T *shape"]],
) -> tuple[Float[Tensor, "N V *shape"], Float[Tensor, " N"]]:
    """Weighted sum of what is computed of windows, and the weights; 0 where there is none."""
    n_views = views.keypoints.shape[1]
    session = Session(views, torch.zeros(len(views), dtype=torch.long), ("",))
    windows = cut(session, length, max(1, length // 2), gap)
    total, weight = None, torch.zeros(len(views))
    for some in torch.arange(len(windows)).split(max(1, block // (length * n_views))):
        first, end = windows.first[some], windows.end[some]
        frames = first[:, None] + torch.arange(length)
        inside = frames < end[:, None]
        frames = frames.clamp_max(len(views) - 1)
        found = compute(gather(views, first, end, length), frames).transpose(1, 2)
        share = triangle(length, weight) * inside
        if total is None:
            total = found.new_zeros(len(views), *found.shape[2:])
        shape = share.shape + (1,) * (found.ndim - 2)
        total.index_add_(0, frames.flatten(), (share.view(shape) * found).flatten(0, 1))
        weight.index_add_(0, frames.flatten(), share.flatten())
    return total, weight
