"""Detections of a recording as tensors, and windows of them in units of their views."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from canonlift.data.recording import Recording
from canonlift.solver.bundle import Detections
from canonlift.solver.perspective import Cameras

ABSURD = 50.0  # distance from the middle, relative to the usual one, of what is no detection
USUAL_LENS = 1.2  # focal length over the longer side of the image


class Observed(NamedTuple):
    """Detections of a recording, in pixels, and what is known of its cameras."""

    keypoints: Float[Tensor, "T V J 2"]  # 0 where unobserved
    confidence: Float[Tensor, "T V J"]
    centre: Float[Tensor, "V 2"]  # principal points; of no meaning where `aimed`
    aimed: Float[Tensor, " V"]  # 1: the principal point is unknown; else 0
    log_focal: Float[Tensor, " V"]  # given, or that of a usual lens

    def pick(self, joints: list[int]) -> "Observed":
        """Some of the joints."""
        return self._replace(
            keypoints=self.keypoints[:, :, joints], confidence=self.confidence[:, :, joints]
        )


def observe(
    recording: Recording,
    focal_px: Float[np.ndarray, " V"] | None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Observed:
    """Take a recording's detections; without image sizes, cameras are taken to face the person."""
    confidence = torch.from_numpy(recording.confidence).to(device, dtype)
    keypoints = torch.from_numpy(recording.keypoints).to(device, dtype)
    keypoints = keypoints.masked_fill((confidence == 0)[..., None], torch.nan)
    middle = keypoints.nanmedian(0).values.nanmedian(1, keepdim=True).values
    away = (keypoints - middle).abs().amax(-1)
    usual = away.nanmedian(0).values.nanmedian(-1, keepdim=True).values
    confidence = torch.where(away <= ABSURD * usual, confidence, 0.0)  # NaN compares as False
    keypoints = torch.where((confidence > 0)[..., None], keypoints, 0.0)
    if recording.image_size is None:
        side = keypoints.amax((0, 2, 3)).clamp_min(1.0)
        centre, aimed = keypoints.new_zeros(len(side), 2), torch.ones_like(side)
    else:
        size = torch.from_numpy(recording.image_size).to(device, dtype)
        side, centre, aimed = size.amax(-1), size / 2, torch.zeros_like(size[:, 0])
    focal = USUAL_LENS * side
    if focal_px is not None:
        focal = torch.from_numpy(np.asarray(focal_px)).to(device, dtype)
    return Observed(keypoints, confidence, centre, aimed, focal.log())


class Windows(NamedTuple):
    """Frames of a recording in units of each view of a window: the rms distance of its joints."""

    detections: Detections
    centre: Float[Tensor, "N 1 V 2"]
    aimed: Float[Tensor, "N 1 V"]
    log_focal: Float[Tensor, "N T V"]
    size: Float[Tensor, "N 1 V"]  # pixels per unit


def cut(observed: Observed, frames: Int[Tensor, "N T"]) -> Windows:
    """Pick frames; distances are from the middle of the joints that were observed."""
    keypoints, confidence = observed.keypoints[frames], observed.confidence[frames]
    seen = (confidence > 0).to(keypoints.dtype)
    count = seen.sum(-1, keepdim=True).clamp_min(1)
    middle = (keypoints * seen[..., None]).sum(-2) / count
    square = ((keypoints - middle[..., None, :]).square().sum(-1) * seen).sum((1, 3))
    size = (square / seen.sum((1, 3)).clamp_min(1)).sqrt()
    size = torch.where(size > 0, size, 1.0)[:, None]
    return Windows(
        Detections(keypoints / size[..., None, None], confidence),
        observed.centre / size[..., None],
        observed.aimed.expand_as(size),
        (observed.log_focal - size.log()).expand(confidence.shape[:3]),
        size,
    )


def place_cameras(
    windows: Windows, pose: Float[Tensor, "N T J 3"], rotation: Float[Tensor, "N T V 3 3"]
) -> Cameras:
    """Cameras that see given poses where they were detected, and as large, without perspective.

    Where a frame says little of the size, or something odd, it has that of the window.
    """
    points, confidence = windows.detections
    weight = confidence[..., None]
    total = weight.sum(-2).clamp_min(1e-9)
    image = (pose[:, :, None] @ rotation.mT)[..., :2]
    middle, target = (weight * image).sum(-2) / total, (weight * points).sum(-2) / total
    image, points = image - middle[..., None, :], points - target[..., None, :]
    product = (weight * image * points).sum((-1, -2)).clamp_min(1e-6)
    square = (weight * image.square()).sum((-1, -2)).clamp_min(1e-6)
    scale, usual = product / square, (product.sum(1) / square.sum(1))[:, None]
    fits = (scale > 0.5 * usual) & (scale < 2 * usual)
    scale = torch.where(fits & (confidence > 0).any(-1), scale, usual)
    origin = target - scale[..., None] * middle
    log_nearness = scale.log() - windows.log_focal
    return Cameras(
        rotation, origin, log_nearness, windows.log_focal, windows.centre, windows.aimed
    )
