"""The pictures of a run and of a recording: which ones, of what, and where they go."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from canonlift.data.frames import centre, to_views
from canonlift.data.prediction import Prediction
from canonlift.data.recording import Recording
from canonlift.geometry.scale import norm
from canonlift.methods.fusion import joint_maps, to_repair
from canonlift.output.figures import pictures
from canonlift.output.figures.pictures import Notable
from canonlift.training import metrics_log
from canonlift.training.checkpoint import Model
from canonlift.types import Lifted


def draw_recording(
    model: Model, name: str, recording: Recording, prediction: Prediction, folder: Path
) -> list[Path]:
    """Draw the most repaired, the median and the worst view, and how one joint was repaired."""
    paths = []
    notable = pictures.notable_frames(recording, prediction)
    for kind, place in notable.items():
        stem = f"{name}-{kind}"
        if len(recording.views) > 1:
            path = folder / f"{stem}-refinement.png"
            paths.append(pictures.refinement(recording, prediction, place.frame, place.why, path))
        path = folder / f"{stem}-pose.png"
        paths.append(
            pictures.poses(recording, prediction, place.frame, place.view, place.why, path)
        )
    if recording.n_frames >= 3 and set(pictures.HANDS) & set(recording.joints):
        place = notable.get("median")
        if place is not None:
            path = folder / f"{name}-median-motion.png"
            why = f"Motion around the median view ({recording.views[place.view]})"
            paths.append(
                pictures.motion(recording, prediction, place.frame, place.view, why, path)
            )
    if "most_repaired" in notable:
        path = folder / f"{name}-most_repaired-fusion.png"
        paths += _draw_fusion(model, recording, prediction, notable["most_repaired"], path)
    return paths


def draw_run(results: Mapping[str, Any], run: Path, folder: Path) -> list[Path]:
    """Draw the course of the training, and the error of each joint where truth is known."""
    paths = []
    rows = metrics_log.read(run)
    if rows:
        paths.append(pictures.losses(rows, folder / "losses.png"))
    if "per_joint" in results:
        errors = {joint: row["pa_mpjpe_mm"] for joint, row in results["per_joint"].items()}
        baselines = {
            f"{name.replace('_', ' ')}, all joints": dict.fromkeys(errors, row["pa_mpjpe_mm"])
            for name, row in results["baselines"].items()
        }
        path = folder / "joint_errors.png"
        paths.append(pictures.joint_errors(errors, path, baselines, "PA-MPJPE of each joint"))
    return paths


@torch.no_grad()
def _draw_fusion(
    model: Model, recording: Recording, prediction: Prediction, place: Notable, path: Path
) -> list[Path]:
    """Draw the map of the joint that moved most in a view."""
    frame, view = place.frame, place.view
    views = to_views(recording)[frame : frame + 1].to(model.device)
    # What the model said of that frame; a sequence model lifts none by itself.
    pose, rotation = (
        torch.from_numpy(np.nan_to_num(x[frame : frame + 1])).to(model.device)
        for x in (prediction.pose, prediction.rotation)
    )
    lifted = Lifted(torch.einsum("tvrc,tvjr->tvjc", rotation, pose), rotation)
    where = to_repair(views, lifted, model.config.fusion, model.joints)
    where = where[where[:, 1] == view]
    if len(where) == 0:
        return []
    _, _, root, _ = centre(recording)
    detected, refined = recording.keypoints[frame, view], prediction.keypoints_refined[frame, view]
    moved = np.linalg.norm(refined - detected, axis=-1)[where[:, 2].cpu()]
    chosen = int(np.where(np.isnan(moved), -1.0, moved).argmax())
    joint = int(where[chosen, 2])

    scale = norm(views.keypoints, views.observed)[0, view, 0, 0].item()
    truth = recording.keypoints_true
    known = truth is not None and np.isfinite(truth[frame, view, joint]).all()
    on_map = model.config.fusion.method in ("grid", "exact")
    maps = joint_maps(views, lifted, where[chosen : chosen + 1], model.config.fusion)
    return [
        pictures.fusion(
            maps,
            model.config.fusion,
            recording.views,
            f"Repairing the {pictures.spoken(model.joints[joint])} "
            f"in {recording.views[view]}, frame {frame}",
            path,
            joints=model.joints,
            body=(detected - root[frame, view]) / scale,
            truth=(truth[frame, view, joint] - root[frame, view]) / scale if known else None,
            repaired=None if on_map else (refined[joint] - root[frame, view]) / scale,
        )
    ]
