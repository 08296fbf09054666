"""What was evaluated and how: all that `results.json` states beside the figures.

The config of a model is read here, and nowhere else in this folder but for its recordings.
"""

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from canonlift.body import skeleton
from canonlift.data.frames import to_views
from canonlift.data.recording import Recording
from canonlift.inference.model import Model
from canonlift.types import Views

TIMED_VIEWS = 8192  # at most, of each recording


@dataclass
class Data:
    """Running counts of what was evaluated."""

    frames: dict[str, int] = field(default_factory=dict)  # of each recording
    views: int = 0  # the most in one recording
    joints: int = 0  # over recordings, frames and views
    unobserved: int = 0  # of these
    processing: set[str] = field(default_factory=set)

    def add(self, name: str, recording: Recording) -> None:
        """Count one recording."""
        self.frames[name] = recording.n_frames
        self.views = max(self.views, len(recording.views))
        self.joints += recording.confidence.size
        self.unobserved += int((recording.confidence == 0).sum())
        self.processing |= {recording.processing or "as detected"}


def repair_threshold(model: Model) -> float:
    """Confidence below which the model repairs a joint."""
    return model.config.fusion.threshold


def describe(model: Model, data: Data) -> dict[str, Any]:
    """The conventions of all figures, the model's settings, and how much was evaluated."""
    config, windows = model.config, model.config.windows
    rate = "" if windows.fps is None else f" at {windows.fps:g} fps"
    at_once = f"windows of {windows.length} frames{rate}, blended"
    return {
        "joints": list(model.joints),
        "root": skeleton.ROOT,
        "input": f"one view at a time, {at_once if windows.length > 1 else 'single frames'}",
        "frame": "camera axes",
        "alignment": "N-MPJPE, N-PCK, AUC: root-relative, least-squares scale per pose; "
        "PA-MPJPE: similarity without reflection per pose; MPJPE: root-relative, one "
        "least-squares scale per recording, as for MPJVE and the acceleration error",
        "root_joint": "counted, with error 0 in N-MPJPE, N-PCK and AUC",
        "baselines": "flat: detected 2D with depth 0, unobserved joints at the root; "
        "mean_pose: mean lifted training pose, the same for every view",
        "speed": f"views per second, network alone, up to {TIMED_VIEWS} a batch, {model.device}",
        "jdr": "within half of the head size (thorax to head, at the person's scale)",
        "unsure": f"confidence below {repair_threshold(model)}",
        "units": "mm, px, %",
        "keypoints": sorted(data.processing),
        "recordings": len(data.frames),
        "frames": sum(data.frames.values()),
        "views": data.views,
        "unobserved": data.unobserved / max(data.joints, 1),
        "model": config.model.name,
        "relation": config.relation.name,
        "target": config.data.target,
    }


class Timing(NamedTuple):
    """How long it took to lift so many views."""

    views: int
    seconds: float


def time_lifting(model: Model, recording: Recording, warm_up: bool = True) -> Timing:
    """Time the network alone on the views of a recording, one at a time, in one batch.

    The recording must be on the model's joints. `warm_up` lifts once before the clock starts.
    """
    views, length = to_views(recording), model.config.windows.length
    n_views = min(views.confidence.shape[:2].numel(), TIMED_VIEWS)

    def windows(values: Tensor) -> Tensor:
        flat = values.flatten(0, 1)[:n_views]
        padding = flat.new_zeros(-n_views % length, *flat.shape[1:])
        return torch.cat([flat, padding]).unflatten(0, (-1, 1, length))

    keypoints, confidence = windows(views.keypoints), windows(views.confidence)
    single = Views(keypoints, confidence, torch.full((len(keypoints),), -1)).to(model.device)
    with torch.inference_mode():
        if warm_up:
            model.network(single).pose.cpu()
        start = time.perf_counter()
        model.network(single).pose.cpu()  # waits for the device
        return Timing(n_views, time.perf_counter() - start)
