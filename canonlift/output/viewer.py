"""One HTML file in which recordings and their predictions are looked at, without a network.

The page is `viewer.html`, with the recordings put where it names them. It loads nothing: every
array is inside, packed by `page_arrays`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from canonlift import files, metrics
from canonlift.body.skeleton import ROOT, bones
from canonlift.data.frames import to_views
from canonlift.data.prediction import Fused, Prediction
from canonlift.data.recording import Recording
from canonlift.output.page_arrays import Grid, pack
from canonlift.types import Lifted

PLACE = "<!-- recordings -->"  # in viewer.html
MOST_JOINTS = 4_000_000  # over frames and views: some 40 MB, the most that a phone opens well
PIXEL_STEP, BODY_STEP, METRE_STEP, TURN_STEP = 0.1, 5e-5, 5e-4, 1e-4  # finer than the eye sees
BLOCK = 2048  # frames compared at once
UPRIGHT = ("head", "nose", "thorax", "neck"), ("ankle", "knee", "hip")
LEVEL = [0.0, -1.0, 0.0]  # up in the axes of a level camera


class Measure(NamedTuple):
    """How wrong the pose of each view and frame is; NaN where that is unknown."""

    name: str
    unit: str
    about: str
    values: Float[np.ndarray, "T S"]  # of the pose from each view, and of the fused one, if any


def write(predictions: Mapping[str, Prediction], path: Path) -> Path:
    """Write a page that shows recordings by name, with all it needs inside, and return its path.

    Joints are exact to 0.05 px, lifted poses to 0.003 % of the length of all bones; an outlier
    that is four times as far out as 99 % of all others is drawn there. Of recordings too long
    for a page every second (third, ...) frame is shown, which the page states.
    """
    if not predictions:
        raise ValueError(f"{path}: there is nothing to show; give at least one recording")
    size = 0
    for name, prediction in predictions.items():
        if len(prediction.pose) == 0:
            raise ValueError(f"{name}: has no frames to show")
        size += prediction.recording.confidence.size
    step = -(-size // MOST_JOINTS)
    page = resources.files("canonlift.output").joinpath("viewer.html").read_text(encoding="utf-8")
    head, tail = page.split(PLACE)

    def fill(file: Any) -> None:
        file.write(head.encode())
        for name, prediction in predictions.items():
            text = json.dumps(_describe(name, thinned(prediction, step), step), allow_nan=False)
            # A name must not be able to end the script that it stands in.
            text = text.replace("<", "\\u003c")
            begin = '<script type="application/json" class="recording">'
            file.write(f"{begin}{text}</script>\n".encode())
        file.write(tail.encode())

    files.write(path, fill)
    return path


def thinned(prediction: Prediction, step: int) -> Prediction:
    """Every `step`-th frame."""
    recording, fused, every = prediction.recording, prediction.fused, slice(None, None, step)
    names = ("keypoints", "confidence", "pose3d", "keypoints_true")
    arrays = {name: getattr(recording, name) for name in names}
    parts = {name: None if array is None else array[every] for name, array in arrays.items()}
    return Prediction(
        replace(recording, **parts, fps=recording.fps / step),
        prediction.pose[every],
        prediction.rotation[every],
        prediction.keypoints_refined[every],
        fused and Fused(fused.pose[every], fused.rotation[every], fused.seen_by[every]),
    )


def measures(prediction: Prediction) -> list[Measure]:
    """The known measures of how wrong the poses are, the most telling first.

    The error where truth is known; how far each pose falls, seen by the other cameras, from what
    they detected (the fused one: seen by all); and the same in its own camera.
    """
    recording, fused = prediction.recording, prediction.fused
    pose = torch.from_numpy(prediction.pose).double()
    rotation = torch.from_numpy(prediction.rotation).double()
    error = _error(recording, pose)
    own, others = _gaps(recording, torch.einsum("tvrc,tvjr->tvjc", rotation, pose), rotation)
    if fused is not None:
        turn = torch.from_numpy(fused.rotation).double()
        together = torch.from_numpy(fused.pose).double()[:, None].expand(pose.shape)
        everywhere, _ = _gaps(recording, together, turn)
        in_camera = torch.einsum("tvrc,tvjc->tvjr", turn, together)
        columns = _error(recording, in_camera), everywhere, torch.full_like(own, torch.nan)
        error, others, own = (
            torch.cat([views, column.nanmean(1, keepdim=True)], 1)
            for views, column in zip((error, others, own), columns, strict=True)
        )
    rooted = "mean distance from the true joints, root and scale fitted (N-MPJPE)"
    far = "how far the pose falls from the detections {}, in % of the person's size"
    found = [
        Measure("Error", "mm", rooted, error.numpy()),
        Measure("Disagreement", "%", far.format("of the other cameras"), others.numpy()),
        Measure("Own misfit", "%", far.format("it was lifted from"), own.numpy()),
    ]
    return [measure for measure in found if np.isfinite(measure.values).any()]


def _error(recording: Recording, pose: Float[Tensor, "T V J 3"]) -> Float[Tensor, "T V"]:
    """N-MPJPE in mm of poses in camera axes; NaN where no truth is known."""
    if recording.pose3d is None:
        return torch.full(pose.shape[:2], torch.nan, dtype=pose.dtype)
    truth = 1000 * torch.from_numpy(recording.pose3d).to(pose)
    root = recording.joints.index(ROOT)
    errors = metrics.joint_errors(pose.flatten(0, 1), truth.flatten(0, 1), root)
    return errors.n_mpjpe.nanmean(-1).reshape(pose.shape[:2])


def _gaps(
    recording: Recording,
    pose: Float[Tensor, "T V J 3"],
    rotation: Float[Tensor, "T V 3 3"],
) -> tuple[Float[Tensor, "T V"], Float[Tensor, "T V"]]:
    """Mean reprojection gap of each view's pose in its own view, and in all others, in %."""
    views, lifted = to_views(recording).to(pose.dtype), Lifted(pose, rotation)
    itself = torch.eye(len(recording.views), dtype=torch.bool)[None, :, :, None]
    own, others = [], []
    for start in range(0, recording.n_frames, BLOCK):
        part = slice(start, start + BLOCK)
        gaps = 100 * metrics.reprojection_gaps(views[part], lifted[part])
        own.append(gaps.masked_fill(~itself, torch.nan).nanmean((-2, -1)))
        others.append(gaps.masked_fill(itself, torch.nan).nanmean((-2, -1)))
    return torch.cat(own), torch.cat(others)


def _describe(name: str, prediction: Prediction, step: int) -> dict[str, Any]:
    """A recording as JSON for the page."""
    recording, fused = prediction.recording, prediction.fused
    detected = np.where(recording.confidence[..., None] > 0, recording.keypoints, np.nan)
    refined = prediction.keypoints_refined
    image = Grid.around([detected, refined], PIXEL_STEP)
    arrays = {
        "detected": image.pack(detected),
        # Most joints are where they were detected, and differences of 0 take no room.
        "refined": image.pack(refined, relative_to=detected),
        "confidence": Grid(0.0, 1 / 255).pack(recording.confidence),
        "pose": pack(prediction.pose, BODY_STEP),
        "turn": pack(_quaternions(prediction.rotation), TURN_STEP),
    }
    poses = list(np.moveaxis(prediction.pose, 1, 0))
    if recording.keypoints_true is not None:
        arrays["truth"] = pack(recording.keypoints_true, PIXEL_STEP)
    if recording.pose3d is not None:
        root = recording.joints.index(ROOT)
        arrays["truth3d"] = pack(recording.pose3d - recording.pose3d[:, :, [root]], METRE_STEP)
    if fused is not None:
        arrays["fused"] = pack(fused.pose, BODY_STEP)
        arrays["fused_turn"] = pack(_quaternions(fused.rotation), TURN_STEP)
        poses.append(fused.pose)
    found = measures(prediction)
    return {
        "name": name,
        "joints": recording.joints,
        "bones": bones(recording.joints),
        "views": recording.views,
        "fps": recording.fps,
        "step": step,
        "sizes": None if recording.image_size is None else recording.image_size.tolist(),
        "up": [upwards(pose, recording.joints) for pose in poses],
        "arrays": arrays,
        "measures": [each._asdict() | {"values": pack(each.values, 1e-3)} for each in found],
    }


def _quaternions(rotation: Float[np.ndarray, "T V 3 3"]) -> Float[np.ndarray, "T V 4"]:
    """(x, y, z, w); NaN where the rotation is."""
    known = np.isfinite(rotation).all((-2, -1))
    turn = np.full((*rotation.shape[:2], 4), np.nan)
    if known.any():
        turn[known] = Rotation.from_matrix(rotation[known]).as_quat()
    return turn


def upwards(pose: Float[np.ndarray, "T J 3"], joints: Sequence[str]) -> list[float]:
    """The median direction from the feet, or the lowest joints known, to the head; unit length."""
    top = next((joints.index(name) for name in UPRIGHT[0] if name in joints), None)
    pairs = [(f"l_{name}", f"r_{name}") for name in UPRIGHT[1]]
    low = next((pair for pair in pairs if set(pair) <= set(joints)), None)
    if top is None or low is None:
        return LEVEL
    stand = pose[:, top] - pose[:, [joints.index(name) for name in low]].mean(1)
    stand = stand[np.isfinite(stand).all(-1)].astype(np.float64)
    up = np.median(stand, axis=0) if len(stand) else np.zeros(3)
    length = np.linalg.norm(up)
    return (up / length).tolist() if length > 0 else LEVEL
