"""Predict the poses of a recording, one view at a time."""

from collections.abc import Iterator

import numpy as np
import torch

from canonlift.body.anatomy import body_length
from canonlift.data.prediction import Prediction
from canonlift.data.recording import Recording
from canonlift.data.samples import centre, to_views
from canonlift.methods.sequences import lift_recording
from canonlift.models.temporal import SequenceLifter
from canonlift.training.checkpoint import Model
from canonlift.types import Lifted, Views

BLOCK = 1024  # views lifted at once: enough to keep a core busy, few enough for its caches


@torch.inference_mode()
def predict(model: Model, recording: Recording, block: int = BLOCK) -> Prediction:
    """Lift every view of a recording by itself, and repair its detections by the others.

    The recording must be on the model's skeleton. About `block` views are lifted at once.
    """
    views = to_views(recording)
    parts = []
    for part, lifted in _lift(model, views, recording.fps, block):
        in_camera = lifted.in_camera
        length = body_length(in_camera, model.joints)
        pose = in_camera / length.clamp_min(1e-12)[..., None, None]
        fused = model.repair(part, lifted)
        unseen = ~part.observed.any(-1)[..., None, None]
        parts.append(
            (
                pose.masked_fill(unseen, torch.nan),
                lifted.rotation.masked_fill(unseen, torch.nan),
                fused.keypoints.masked_fill(~fused.observed[..., None], torch.nan),
            )
        )
    pose, rotation, keypoints = (torch.cat(x).cpu().numpy() for x in zip(*parts, strict=True))
    _, _, root, _ = centre(recording)
    return Prediction(pose, rotation, (keypoints + root[..., None, :]).astype(np.float32))


def _lift(model: Model, views: Views, fps: float, block: int) -> Iterator[tuple[Views, Lifted]]:
    """Some frames after others, and what the model says of them."""
    config, lifter = model.config, model.lifter
    frames = max(1, block // views.keypoints.shape[1])
    whole = None
    if isinstance(lifter, SequenceLifter):
        whole = lift_recording(lifter, config.sequence, views, fps, block)
    for start in range(0, len(views), frames):
        some = slice(start, start + frames)
        part = views[some].to(model.device)
        yield part, lifter(part) if whole is None else whole[some].to(model.device)
