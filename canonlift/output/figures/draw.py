"""The figures of a training run and of a recording: which ones, of what, and where they go."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from canonlift.data.frames import centre, to_views
from canonlift.data.prediction import Prediction
from canonlift.geometry.scale import norm
from canonlift.methods.fusion import FusionConfig, joint_maps, to_repair
from canonlift.output.figures import notable_frames, style
from canonlift.output.figures.fusion import draw_fusion
from canonlift.output.figures.joint_errors import draw_joint_errors
from canonlift.output.figures.losses import draw_losses
from canonlift.output.figures.motion import HANDS, draw_motion
from canonlift.output.figures.notable_frames import Notable
from canonlift.output.figures.pose import draw_pose
from canonlift.output.figures.refinement import draw_refinement
from canonlift.training import metrics_log
from canonlift.types import Lifted


def draw_recording(
    name: str, prediction: Prediction, fusion: FusionConfig, folder: Path
) -> list[Path]:
    """Draw the most repaired, the median and the worst view, and how one joint was repaired."""
    paths = []
    chosen = notable_frames.notable_frames(prediction)
    for kind, (frame, view, title) in chosen.items():
        stem = f"{name}-{kind}"
        if len(prediction.views) > 1:
            path = folder / f"{stem}-refinement.png"
            paths.append(draw_refinement(prediction, frame, title, path))
        paths.append(draw_pose(prediction, frame, view, title, folder / f"{stem}-pose.png"))
    if "median" in chosen and len(prediction.pose) >= 3 and set(HANDS) & set(prediction.joints):
        frame, view, _ = chosen["median"]
        path = folder / f"{name}-median-motion.png"
        title = f"Motion around the median view ({prediction.views[view]})"
        paths.append(draw_motion(prediction, frame, view, title, path))
    if "most_repaired" in chosen:
        path = folder / f"{name}-most_repaired-fusion.png"
        paths += _draw_repair(prediction, fusion, chosen["most_repaired"], path)
    return paths


def draw_run(results: Mapping[str, Any], run: Path | None, folder: Path) -> list[Path]:
    """Draw the losses of a training run, and the error of each joint where truth is known."""
    paths = []
    if run is not None and (rows := metrics_log.read(run)):
        paths.append(draw_losses(rows, folder / "losses.png"))
    if "per_joint" in results:
        errors = {joint: row["pa_mpjpe_mm"] for joint, row in results["per_joint"].items()}
        baselines = {
            f"{name}, all joints": dict.fromkeys(errors, float(row["pa_mpjpe_mm"]))
            for name, row in results["baselines"].items()
        }
        path = folder / "joint_errors.png"
        paths.append(draw_joint_errors(errors, path, baselines, "PA-MPJPE of each joint"))
    return paths


@torch.no_grad()
def _draw_repair(
    prediction: Prediction, config: FusionConfig, place: Notable, path: Path
) -> list[Path]:
    """Draw the map of the joint that moved most in a view; nothing if none was to be repaired."""
    recording, joints, (frame, view, _) = prediction.recording, prediction.joints, place
    views = to_views(recording)[frame : frame + 1]
    pose, rotation = (
        torch.from_numpy(np.nan_to_num(x[frame : frame + 1]))
        for x in (prediction.pose, prediction.rotation)
    )
    lifted = Lifted(torch.einsum("tvrc,tvjr->tvjc", rotation, pose), rotation)
    where = to_repair(views, lifted, config, joints)
    where = where[where[:, 1] == view]
    if len(where) == 0:
        return []
    root = centre(recording)[2][frame, view]
    detected, refined = recording.keypoints[frame, view], prediction.keypoints_refined[frame, view]
    moved = np.linalg.norm(refined - detected, axis=-1)[where[:, 2]]
    chosen = int(np.where(np.isnan(moved), -1.0, moved).argmax())
    joint = int(where[chosen, 2])

    scale = norm(views.keypoints, views.observed)[0, view, 0, 0].item()
    truth = notable_frames.or_nan(recording.keypoints_true, recording.keypoints)[
        frame, view, joint
    ]
    on_map = config.method in ("grid", "exact")
    maps = joint_maps(views, lifted, where[chosen : chosen + 1], config)
    title = (
        f"Repairing the {style.in_words(joints[joint])} in {prediction.views[view]}, frame {frame}"
    )
    places = {
        "body": (detected - root) / scale,
        "truth": (truth - root) / scale if np.isfinite(truth).all() else None,
        "repaired": None if on_map else (refined[joint] - root) / scale,
    }
    return [draw_fusion(maps, config, prediction.views, title, path, joints, **places)]
