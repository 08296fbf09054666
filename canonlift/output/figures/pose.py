"""What one view detected, and the pose lifted from it, from three sides."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from canonlift.body.skeleton import ROOT
from canonlift.data.prediction import Prediction
from canonlift.output.figures import style
from canonlift.output.figures.notable_frames import or_nan, scaled


class Side(NamedTuple):
    """A direction to look at a pose from: which axes it shows, and which way is away."""

    name: str
    plane: tuple[int, int]  # axes to the right, and up or down
    up: int  # -1: the second axis points down
    away: tuple[int, int, int]


# Each is a turn of the camera and none a mirror: right = down x away.
SIDES = (
    Side("as the camera sees it", (0, 1), -1, (0, 0, 1)),
    Side("from the camera's right", (2, 1), -1, (-1, 0, 0)),
    Side("from above", (0, 2), 1, (0, 1, 0)),
)
AXES = ("x", "y", "depth z")


def draw_pose(prediction: Prediction, frame: int, view: int, title: str, path: Path) -> Path:
    """Draw the detections of one view, and the pose lifted from it alone.

    The truth, where known, lies behind it; root and scale of the pose are fitted to the truth.
    """
    recording, joints = prediction.recording, prediction.joints
    confidence = recording.confidence[frame, view]
    pose = prediction.pose[frame, view]
    truth = or_nan(recording.pose3d, prediction.pose)[frame, view]
    root = joints.index(ROOT)
    known = bool(np.isfinite(truth[root]).all())
    figure, (image, *panels) = style.panels(1 + len(SIDES), 1 + len(SIDES), title)
    detected = np.where(confidence[:, None] > 0, recording.keypoints[frame, view], np.nan)
    style.crop(image, detected)
    style.body(image, detected, joints, confidence)
    style.title(image, f"detected in {style.short(prediction.views[view])}")
    image.set(xlabel="x (px)", ylabel="y (px)")

    if known:
        truth = truth - truth[root]
        pose = scaled(pose - pose[root], truth)
    unit = "m" if known else "body units"
    both = np.concatenate([pose, truth])
    half = max(style.half_height(both[:, side.plane]) for side in SIDES)
    for axes, side in zip(panels, SIDES, strict=True):
        style.crop(axes, both[:, side.plane], half, side.up)
        style.band(axes, truth[:, side.plane], joints)
        style.body(axes, pose[:, side.plane], joints, away=pose @ np.array(side.away))
        style.title(axes, side.name)
        right, up = (f"{AXES[axis]} ({unit})" for axis in side.plane)
        axes.set(xlabel=right, ylabel=up)
    style.legend(figure, truth=known)
    return style.save(figure, path)
