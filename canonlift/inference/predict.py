"""Predict the poses of a recording: every view by itself, and its detections repaired."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from canonlift.body.anatomy import body_length
from canonlift.data.frames import FramesInMemory, centre, to_views
from canonlift.data.prediction import Prediction
from canonlift.data.recording import Recording
from canonlift.data.windows import Places, WindowConfig, cut, resample
from canonlift.geometry.rotations import nearest_rotation
from canonlift.methods.consistency import align, chained, relations
from canonlift.models.network import Network
from canonlift.time_windows import triangle_weights
from canonlift.training.config import Config
from canonlift.types import Lifted, Views

BLOCK = 1024  # views lifted at once: enough to keep a core busy, few enough for its caches


@torch.inference_mode()
def predict(
    network: Network, config: Config, recording: Recording, block: int = BLOCK
) -> Prediction:
    """Lift every view of a recording by itself, and repair its detections by the others.

    About `block` views are lifted at once.

    Raises:
        ValueError: if the config's joints cannot be made of those recorded.
    """
    recording = recording.on_skeleton(config.joints, partly=True)
    parts = []
    for instants, lifted in _lift(network, config, recording, block):
        in_camera = lifted.in_camera
        length = body_length(in_camera, config.joints)
        pose = in_camera / length.clamp_min(1e-12)[..., None, None]
        repaired = config.method.repair(instants, lifted)
        unseen = ~instants.observed.any(-1)[..., None, None]
        parts.append(
            (
                pose.masked_fill(unseen, torch.nan),
                lifted.to_camera.masked_fill(unseen, torch.nan),
                repaired.keypoints.masked_fill(~repaired.observed[..., None], torch.nan),
            )
        )
    pose, rotation, keypoints = (torch.cat(x).cpu().numpy() for x in zip(*parts, strict=True))
    _, _, root, _ = centre(recording)
    refined = (keypoints + root[..., None, :]).astype(np.float32)
    return Prediction(recording, pose, rotation, refined)


def _lift(
    network: Network, config: Config, recording: Recording, block: int
) -> Iterator[tuple[Views, Lifted]]:
    """Instants of the recording, some after others, and their poses in a frame of all views."""
    views = to_views(recording)
    device = next(network.parameters()).device
    frames = max(1, block // views.keypoints.shape[1])
    whole = None
    if config.windows.length > 1:
        segment = config.relation.segment
        whole = lift_windows(network, config.windows, segment, views, recording.fps, block)
    for start in range(0, len(views), frames):
        some = slice(start, start + frames)
        part = views[some].to(device)
        found = network(part.as_windows).instants if whole is None else whole[some].to(device)
        yield part, found


def lift_windows(
    network: Network, windows: WindowConfig, segment: int, views: Views, fps: float, block: int
) -> Lifted:
    """Lift every view of a recording by itself, window by window, and relate the views.

    Where windows overlap poses are a mean, in which a window counts most in its middle. Where
    there is no window a pose is what was detected, without depth. The canonical frame is the
    camera of the view that observed most; where that is aligned with no other, of the next.

    Args:
        network: the network.
        windows: its windows.
        segment: frames of a window for which views are aligned by one similarity; 0: all.
        views: instants, the consecutive frames of the recording.
        fps: their rate, at which poses are returned, whatever that of the windows is.
        block: how many frames of one view to work on at a time, about.
    """
    ratio = 1.0 if windows.fps is None else windows.fps / fps
    steady = resample(views, ratio)
    if not steady.observed.any():
        flat = torch.nn.functional.pad(views.keypoints, (0, 1))
        return Lifted(flat, torch.eye(3).expand(*flat.shape[:2], 3, 3))
    device = next(network.parameters()).device

    def pose(some: Views, _: Tensor) -> Tensor:
        return network(some.to(device)).in_camera.cpu()

    poses, weight = _blend(steady, windows.length, windows.gap, block, pose)
    weight = weight[:, None, None, None]
    flat = torch.nn.functional.pad(steady.keypoints, (0, 1))
    poses = torch.where(weight > 0, poses / weight.clamp_min(1e-9), flat)

    segment, n_views = segment or windows.length, steady.keypoints.shape[1]

    def relate(some: Views, frames: Tensor) -> Tensor:
        lifted = Lifted(poses[frames].transpose(1, 2), None)
        table = relations(align(lifted, some, 0), n_views).movedim(3, 2)
        return table.expand(-1, -1, segment, -1, -1, -1)

    table, _ = _blend(steady, segment, windows.gap, block, relate)
    turns = chained(table, steady.confidence.sum((0, 2)).expand(len(steady), -1))

    times = torch.arange(len(views), dtype=torch.float64) * ratio
    place = Places.of(times, len(steady))
    pose_of, turn_of = place.between(poses), nearest_rotation(place.between(turns))
    return Lifted(torch.einsum("tvrc,tvjr->tvjc", turn_of, pose_of), turn_of)


def _blend(
    views: Views,
    length: int,
    gap: int,
    block: int,
    compute: Callable[[Views, Int[Tensor, "B T"]], Float[Tensor, "B V T *shape"]],
) -> tuple[Float[Tensor, "N V *shape"], Float[Tensor, " N"]]:
    """Weighted sum of what is computed of windows, and the weights; 0 where there is none."""
    n_views = views.keypoints.shape[1]
    frames = FramesInMemory(views, torch.tensor([0, len(views)]), ("",))
    samples = cut(frames, WindowConfig(length, max(1, length // 2), gap=gap))
    total, weight = None, torch.zeros(len(views))
    for some in torch.arange(len(samples)).split(max(1, block // (length * n_views))):
        at, inside = samples.frames_of(some)
        found = compute(samples[some], at).transpose(1, 2)
        share = triangle_weights(length, weight) * inside
        if total is None:
            total = found.new_zeros(len(views), *found.shape[2:])
        shape = share.shape + (1,) * (found.ndim - 2)
        total.index_add_(0, at.flatten(), (share.view(shape) * found).flatten(0, 1))
        weight.index_add_(0, at.flatten(), share.flatten())
    assert total is not None  # there is a sample where something was observed
    return total, weight
