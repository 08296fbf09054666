"""One HTML file in which recordings and what was predicted of them are looked at, anywhere.

The page is `viewer.html`, with the takes put where it says so. It loads nothing: every array is
inside, as whole multiples of a step, differences in time, deflated, in base64.
"""

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int16
from scipy.spatial.transform import Rotation
from torch import Tensor

from canonlift import files, metrics
from canonlift.body.skeleton import ROOT, bones
from canonlift.data.frames import to_views
from canonlift.data.prediction import Prediction
from canonlift.data.recording import Recording
from canonlift.geometry.alignment import align_similarity
from canonlift.types import Lifted

PLACE = "<!-- takes -->"  # where the page wants them
MOST_JOINTS = 4_000_000  # over frames and views: some 40 MB, as much as a phone likes to open
MISSING = np.iinfo(np.int16).min
PIXEL_STEP, BODY_STEP, METRE_STEP, TURN_STEP = 0.1, 5e-5, 5e-4, 1e-4  # finer than anybody sees
BLOCK = 2048  # frames compared at once
UPRIGHT = ("head", "nose", "thorax", "neck"), ("ankle", "knee", "hip")


@dataclass(frozen=True, eq=False)
class Take:
    """A recording, and what was predicted of it; both on the same joints.

    Raises:
        ValueError: if they do not belong together.
    """

    name: str
    recording: Recording
    prediction: Prediction
    # One sequence made of all views: any right-handed axes and any unit, NaN where unknown; and
    # from its axes to each camera's. None: as it fits the pose lifted from that view.
    fused: Float[np.ndarray, "T J 3"] | None = None
    fused_rotation: Float[np.ndarray, "T V 3 3"] | None = None

    def __post_init__(self) -> None:
        n_frames, n_views, n_joints = shape = self.recording.confidence.shape
        if n_frames == 0:
            raise ValueError(f"{self.name}: has no frames to show")
        predicted = self.prediction.pose.shape[:3]
        if predicted != shape:
            raise ValueError(
                f"{self.name}: the prediction is of {predicted} frames, views and joints, the "
                f"recording of {shape}; predict this recording"
            )
        if self.fused is not None and self.fused.shape != (n_frames, n_joints, 3):
            raise ValueError(
                f"{self.name}: the fused sequence is {self.fused.shape}, need "
                f"{(n_frames, n_joints, 3)}"
            )

    def fused_turns(self) -> Float[np.ndarray, "T V 3 3"]:
        """From the axes of the fused sequence to each camera's."""
        if self.fused_rotation is not None:
            return self.fused_rotation
        return _turns(self.fused, self.prediction.pose)

    def thinned(self, step: int) -> "Take":
        """Every `step`-th frame."""
        names = ("keypoints", "confidence", "pose3d", "keypoints_true")
        parts = {name: _every(getattr(self.recording, name), step) for name in names}
        recording = replace(self.recording, **parts, fps=self.recording.fps / step)
        prediction = Prediction(*(_every(array, step) for array in vars(self.prediction).values()))
        fused = (_every(array, step) for array in (self.fused, self.fused_rotation))
        return Take(self.name, recording, prediction, *fused)


class Measure(NamedTuple):
    """How bad each view of each frame is; NaN where nobody can say."""

    name: str
    unit: str
    about: str
    values: Float[np.ndarray, "T S"]  # of the pose from each view, and of the fused one, if any


def write(takes: Sequence[Take], path: Path) -> Path:
    """Write a page that shows the takes, with all it needs inside, and return its path.

    Joints are exact to 0.05 px, lifted poses to 0.003 % of the length of all bones; an outlier
    that is four times as far out as 99 % of all others is drawn there. Of recordings too long
    for a page every second (third, ...) frame is shown, and the page says so.

    Raises:
        ValueError: if there is no take.
    """
    if not takes:
        raise ValueError(f"{path}: there is nothing to show; give at least one recording")
    step = -(-sum(take.recording.confidence.size for take in takes) // MOST_JOINTS)
    page = resources.files("canonlift.output").joinpath("viewer.html").read_text(encoding="utf-8")
    head, tail = page.split(PLACE)

    def fill(file: Any) -> None:
        file.write(head.encode())
        for take in takes:
            text = json.dumps(_describe(take.thinned(step), step), allow_nan=False)
            # A name must not be able to end the script that it stands in.
            text = text.replace("<", "\\u003c")
            file.write(f'<script type="application/json" class="take">{text}</script>\n'.encode())
        file.write(tail.encode())

    files.write(path, fill)
    return path


def measures(take: Take) -> list[Measure]:
    """All that can be said of how bad the poses are, the most telling first.

    The error where truth is known; how far each pose falls, seen by the other cameras, from what
    they detected (the fused one: seen by all); and the same in its own camera.
    """
    recording, prediction = take.recording, take.prediction
    pose = torch.from_numpy(prediction.pose).double()
    rotation = torch.from_numpy(prediction.rotation).double()
    error = _error(recording, pose)
    own, others = _gaps(recording, torch.einsum("tvrc,tvjr->tvjc", rotation, pose), rotation)
    if take.fused is not None:
        turn = torch.from_numpy(take.fused_turns()).double()
        fused = torch.from_numpy(take.fused).double()[:, None].expand(pose.shape)
        everywhere, _ = _gaps(recording, fused, turn)
        in_camera = torch.einsum("tvrc,tvjc->tvjr", turn, fused)
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
    views = to_views(recording).to(pose.dtype)
    itself = torch.eye(len(recording.views), dtype=torch.bool)[None, :, :, None]
    parts = []
    for start in range(0, recording.n_frames, BLOCK):
        part = slice(start, start + BLOCK)
        gaps = 100 * metrics.reprojection_gaps(views[part], Lifted(pose[part], rotation[part]))
        parts.append([gaps.masked_fill(x, torch.nan).nanmean((-2, -1)) for x in (~itself, itself)])
    own, others = (torch.cat(side) for side in zip(*parts, strict=True))
    return own, others


def _describe(take: Take, step: int) -> dict[str, Any]:
    """What the page is told of a take, as JSON can say it."""
    recording, prediction, fused = take.recording, take.prediction, take.fused
    detected = np.where(recording.confidence[..., None] > 0, recording.keypoints, np.nan)
    refined = prediction.keypoints_refined
    image = _Grid.around([detected, refined], PIXEL_STEP)
    arrays = {
        "detected": image.pack(detected),
        # Most joints are where they were detected, and differences of 0 take no room.
        "refined": image.pack(refined, relative_to=detected),
        "confidence": _Grid(0.0, 1 / 255).pack(recording.confidence),
        "pose": _pack(prediction.pose, BODY_STEP),
        "turn": _pack(_quaternions(prediction.rotation), TURN_STEP),
    }
    poses = list(np.moveaxis(prediction.pose, 1, 0))
    if recording.keypoints_true is not None:
        arrays["truth"] = _pack(recording.keypoints_true, PIXEL_STEP)
    if recording.pose3d is not None:
        root = recording.joints.index(ROOT)
        arrays["truth3d"] = _pack(recording.pose3d - recording.pose3d[:, :, [root]], METRE_STEP)
    if fused is not None:
        arrays["fused"] = _pack(fused, BODY_STEP)
        arrays["fused_turn"] = _pack(_quaternions(take.fused_turns()), TURN_STEP)
        poses.append(fused)
    return {
        "name": take.name,
        "joints": recording.joints,
        "bones": bones(recording.joints),
        "views": recording.views,
        "fps": recording.fps,
        "step": step,
        "sizes": None if recording.image_size is None else recording.image_size.tolist(),
        "up": [_up(pose, recording.joints) for pose in poses],
        "arrays": arrays,
        "measures": [m._asdict() | {"values": _pack(m.values, 1e-3)} for m in measures(take)],
    }


class _Grid(NamedTuple):
    """Whole numbers for values: origin + number * step."""

    origin: float
    step: float

    @classmethod
    def around(cls, arrays: Sequence[np.ndarray], finest: float) -> "_Grid":
        """As fine as asked if 16 bits can reach all values but outliers."""
        known = np.concatenate([array[np.isfinite(array)] for array in arrays]).astype(np.float64)
        if len(known) == 0:
            return cls(0.0, finest)
        origin = float(np.median(known))
        distance = np.abs(known - origin)
        reach = min(float(distance.max()), 4 * float(np.quantile(distance, 0.99)))
        return cls(origin, max(finest, reach / -(MISSING + 1)))

    def numbers(self, array: Float[np.ndarray, "..."]) -> Int16[np.ndarray, "..."]:
        """The nearest whole numbers; `MISSING` for what is not finite."""
        most = -(MISSING + 1)
        with np.errstate(invalid="ignore"):  # infinity less infinity, replaced at once
            number = np.rint((array.astype(np.float64) - self.origin) / self.step)
        number = np.where(np.isfinite(array), np.clip(number, -most, most), MISSING)
        return number.astype(np.int16)

    def pack(
        self, array: Float[np.ndarray, "T ..."], relative_to: np.ndarray | None = None
    ) -> dict[str, Any]:
        """The array as the page unpacks it; int16 wraps around, so differences lose nothing."""
        number = self.numbers(array)
        if relative_to is not None:
            number = number - self.numbers(relative_to)
        change = np.diff(number, axis=0, prepend=np.zeros_like(number[:1]))
        small = ((change << 1) ^ (change >> 15)).astype(np.uint16)  # 0 -1 1 -2 2 as 0 1 2 3 4
        planes = np.stack([small & 0xFF, small >> 8]).astype(np.uint8)
        text = base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()
        return {"shape": array.shape, "origin": self.origin, "step": self.step, "data": text}


def _pack(array: Float[np.ndarray, "T ..."], finest: float) -> dict[str, Any]:
    return _Grid.around([array], finest).pack(array)


def _quaternions(rotation: Float[np.ndarray, "T V 3 3"]) -> Float[np.ndarray, "T V 4"]:
    """(x, y, z, w); NaN where the rotation is."""
    known = np.isfinite(rotation).all((-2, -1))
    turn = np.full((*known.shape, 4), np.nan)
    if known.any():
        turn[known] = Rotation.from_matrix(rotation[known]).as_quat()
    return turn


def _turns(
    fused: Float[np.ndarray, "T J 3"], pose: Float[np.ndarray, "T V J 3"]
) -> Float[np.ndarray, "T V 3 3"]:
    """Rotations that lay the fused pose onto that of each view as well as they can."""
    source, target = torch.from_numpy(fused.astype(np.float64))[:, None].expand(pose.shape), pose
    target = torch.from_numpy(target.astype(np.float64))
    known = source.isfinite().all(-1) & target.isfinite().all(-1)
    clean = [torch.where(known[..., None], points, 0.0) for points in (source, target)]
    turn = torch.full((*pose.shape[:2], 3, 3), torch.nan, dtype=torch.float64)
    usable = known.sum(-1) >= 3
    # A pose that is a single point has no direction.
    usable &= clean[0].square().sum((-2, -1)) > 0
    if usable.any():
        weight = known[usable].double()
        turn[usable] = align_similarity(*(points[usable] for points in clean), weight).rotation
    return turn.numpy()


def _up(pose: Float[np.ndarray, "T J 3"], joints: Sequence[str]) -> list[float]:
    """Which way a person stands most of the time: from the feet, or the lowest joints known."""
    top = next((joints.index(name) for name in UPRIGHT[0] if name in joints), None)
    low = next(
        (pair for name in UPRIGHT[1] if set(pair := (f"l_{name}", f"r_{name}")) <= set(joints)),
        None,
    )
    if top is None or low is None:
        return [0.0, -1.0, 0.0]
    stand = pose[:, top] - pose[:, [joints.index(name) for name in low]].mean(1)
    stand = stand[np.isfinite(stand).all(-1)].astype(np.float64)
    up = np.median(stand, axis=0) if len(stand) else np.zeros(3)
    length = np.linalg.norm(up)
    return (up / length).tolist() if length > 0 else [0.0, -1.0, 0.0]


def _every(array: np.ndarray | None, step: int) -> np.ndarray | None:
    return None if array is None else array[::step]
