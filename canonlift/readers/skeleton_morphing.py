"""Skeleton morphing: a network that moves detected joints to where a data set defines them.

From 2D to 2D, as CanonPose and CVSF use it for Human3.6M. It is trained on pairs of detected and
annotated 2D, without 3D; a protocol with it must say so.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from canonlift import files
from canonlift.data.frames import centre, to_views
from canonlift.data.recording import Recording
from canonlift.geometry.scale import norm
from canonlift.models.mlp import Residual

BATCH = 256


class Morphing(nn.Module):
    """Adds an offset to each joint, in units of the person's size; 0 before training."""

    def __init__(self, joints: Sequence[str], width: int = 256) -> None:
        super().__init__()
        self.joints, self.width = tuple(joints), width
        n_joints = len(self.joints)
        self.offset = nn.Sequential(
            nn.Linear(3 * n_joints, width), nn.LeakyReLU(), Residual(width), Residual(width)
        )
        last = nn.Linear(width, 2 * n_joints)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.offset.append(last)

    def forward(
        self, keypoints: Float[Tensor, "B V J 2"], confidence: Float[Tensor, "B V J"]
    ) -> Float[Tensor, "B V J 2"]:
        """The keypoints as the data set defines them, centred on the root before and after."""
        observed = confidence > 0
        size = norm(keypoints, observed)
        detected = torch.where(observed[..., None], keypoints / size, 0.0)
        offset = self.offset(torch.cat([detected, confidence[..., None]], dim=-1).flatten(-2))
        return keypoints + size * offset.unflatten(-1, (-1, 2))


def fit(
    recordings: Sequence[Recording], steps: int = 3000, width: int = 256, seed: int = 0
) -> Morphing:
    """Train from `keypoints` to `keypoints_true` by L1 distance, weighted by confidence.

    ValueError if there is nothing to learn from, or the skeletons differ.
    """
    joints = {recording.joints for recording in recordings}
    if len(joints) != 1 or any(r.keypoints_true is None for r in recordings):
        raise ValueError(
            "morphing is learned from recordings on one skeleton, all with keypoints_true; got "
            f"{len(recordings)} recordings on {len(joints)} skeletons"
        )
    parts = [_pairs(recording) for recording in recordings]
    detected, confidence, true, weight = (torch.cat(x) for x in zip(*parts, strict=True))
    size = norm(detected, confidence > 0)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Morphing(joints.pop(), width)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        batch = torch.randint(len(true), (min(BATCH, len(true)),), generator=generator)
        residual = (network(detected[batch], confidence[batch]) - true[batch]) / size[batch]
        distance = residual.abs().sum(-1)
        loss = (distance * weight[batch]).sum() / weight[batch].sum().clamp_min(1e-12)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def apply(network: Morphing, recording: Recording) -> Recording:
    """The recording with its keypoints as the data set defines them; unobserved ones stay so.

    ValueError if it is on another skeleton than the network.
    """
    if recording.joints != network.joints:
        raise ValueError(f"morphing is for {' '.join(network.joints)}; use on_skeleton first")
    views = to_views(recording)
    shift = (network(views.keypoints, views.confidence) - views.keypoints).numpy()
    done = "; ".join(filter(None, [recording.processing, "morphed by a network from paired 2D"]))
    keypoints = (recording.keypoints + shift).astype(np.float32)
    return replace(recording, keypoints=keypoints, processing=done)


def save(network: Morphing, path: Path) -> None:
    """Write the weights and the names of the joints."""
    state = {"joints": list(network.joints), "width": network.width, "net": network.state_dict()}
    files.write(path, lambda file: torch.save(state, file))


def load(path: Path) -> Morphing:
    """Read what `save` wrote; nothing but tensors and names is unpickled."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    network = Morphing(state["joints"], state["width"])
    network.load_state_dict(state["net"])
    return network.eval()


def _pairs(recording: Recording) -> tuple[Tensor, ...]:
    """Detected keypoints, confidence, true keypoints and weight, each view a sample (N, 1, J)."""
    views, root = to_views(recording), centre(recording)[2]
    true = torch.from_numpy(recording.keypoints_true - root[..., None, :])
    known = true.isfinite().all(-1) & views.observed
    true = torch.where(known[..., None], true, 0.0)
    parts = views.keypoints, views.confidence, true, views.confidence * known
    used = known.any(-1)
    return tuple(part[used][:, None] for part in parts)
