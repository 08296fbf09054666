"""SkiPose-PTZ: six pan-tilt-zoom cameras follow alpine skiers; 256 px crops, annotated.

Layout: `train/labels.h5` and `test/labels.h5`, one row per image, beside
`seq_%03d/cam_%02d/image_%06d.png`. The labels also hold the cameras of every frame; they are
left behind, as nothing here may use them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from canonlift.data.recording import Recording
from canonlift.readers.datasets.checks import integers, numbers, read_h5
from canonlift.readers.datasets.detections import by_image, joints_of, rows
from canonlift.readers.datasets.to_recording import detected, with_truth

SPLITS = ("train", "test")
CROP_PX = 256

# The order of the labels: the data set's names, and what they are called here.
JOINTS: Mapping[str, str] = {
    "hip": "pelvis",
    "right_up_leg": "r_hip", "right_leg": "r_knee", "right_foot": "r_ankle",
    "left_up_leg": "l_hip", "left_leg": "l_knee", "left_foot": "l_ankle",
    "spine1": "spine", "neck": "thorax", "head": "nose", "head-top": "head",
    "left_arm": "l_shoulder", "left_forearm": "l_elbow", "left_hand": "l_wrist",
    "right_arm": "r_shoulder", "right_forearm": "r_elbow", "right_hand": "r_wrist",
}  # fmt: skip
IDS = ("subj", "seq", "cam", "frame")


def read(
    path: Path, detections: Path | None = None, layout: str | None = None, fps: float = 30.0
) -> Iterator[tuple[str, Recording]]:
    """Yield each sequence of a subject, in the official split, as `train_s1_seq003`.

    A camera that lacks an image of a frame is unobserved there. Frames are in order; one that
    no camera has is absent, and windows of time reach over it. The cameras move, so `rig` is
    empty.

    Args:
        path: the folder of `train` and `test`, or either of these, or a file of labels that
            tells its split by its own name or its folder's, as does `ski_test.h5`.
        detections: results on the crops (see `detections.by_image`), of images whose paths end
            in `seq_003/cam_02/image_000012.png`, after `train/` or `test/` where one file is
            for both; None uses the annotated 2D as if it had been detected.
        layout: the detector's joints (`joint_orders.LAYOUTS`); None goes by their number.
        fps: frames per second. The labels do not say; 30 is an assumption.
    """
    files = [path] if path.is_file() else [path / "labels.h5"] * (path.name in SPLITS)
    files = files or [path / split / "labels.h5" for split in SPLITS]
    files = [file for file in files if file.is_file()]
    if not files:
        raise FileNotFoundError(
            f"{path}: has neither train/labels.h5 nor test/labels.h5; give the folder "
            "Ski-PosePTZ-CameraDataset-png"
        )
    found = None if detections is None else _detections(detections, layout)
    for file in files:
        split = next(
            (s for s in SPLITS if s in (file.parent.name, file.stem.split("_")[-1])), None
        )
        if split is None:
            raise ValueError(f"{file}: train or test? Call it train/labels.h5 or test/labels.h5")
        yield from _read_split(file, split, fps, found)


class _Detections(NamedTuple):
    where: Path
    joints: tuple[str, ...]
    people: Mapping[tuple[str, ...], np.ndarray]  # by split (if given), sequence, camera, image


def _detections(path: Path, layout: str | None) -> _Detections:
    people, by_parts = by_image(path), {}
    for image, person in people.items():
        parts = PurePosixPath(image).with_suffix("").parts
        if len(parts) < 3:
            raise ValueError(
                f"{path}: image {image!r} does not tell its sequence and camera; name images "
                "seq_003/cam_02/image_000012.png, or give a folder with one result per camera"
            )
        by_parts[(*(part for part in parts[-4:-3] if part in SPLITS), *parts[-3:])] = person
    return _Detections(path, joints_of(people, layout, path), by_parts)


def _detected(
    detections: _Detections, split: str, ids: Mapping[str, np.ndarray]
) -> Float[np.ndarray, "N J 3"]:
    """One person per row of the labels; NaN where none was detected."""
    names = [
        (f"seq_{seq:03d}", f"cam_{cam:02d}", f"image_{frame:06d}")
        for seq, cam, frame in zip(ids["seq"], ids["cam"], ids["frame"], strict=True)
    ]
    where, joints, people = detections
    keys = [(split, *name) if (split, *name) in people else name for name in names]
    if people.keys().isdisjoint(keys):
        raise ValueError(
            f"{where}: has none of the {len(names)} {split} images, such as "
            f"{'/'.join(names[0])}; it has {'/'.join(next(iter(people)))}"
        )
    return rows(people, keys, len(joints))


def _read_split(
    file: Path, split: str, fps: float, detections: _Detections | None
) -> Iterator[tuple[str, Recording]]:
    labels = read_h5(file, (*IDS, "3D", "2D"), "give the folder of the data set")
    ids = {key: integers(labels[key].ravel(), (None,), f"{file}, {key}") for key in IDS}
    n_rows, n_joints = len(ids["seq"]), len(JOINTS)
    if any(len(column) != n_rows for column in ids.values()):
        raise ValueError(f"{file}: {', '.join(IDS)} differ in length; fetch it again")
    pose = numbers(labels["3D"], (n_rows, 3 * n_joints), f"{file}, 3D")
    true = numbers(labels["2D"], (n_rows, 2 * n_joints), f"{file}, 2D")
    known = true[np.isfinite(true)]
    if known.size == 0:
        raise ValueError(f"{file}: 2D has no rows with numbers; fetch it again")
    if not 0 <= np.median(known) <= 1:
        raise ValueError(f"{file}: 2D is not in [0, 1] of the crop; fetch it again")
    pose = pose.reshape(n_rows, n_joints, 3)
    true = CROP_PX * true.reshape(n_rows, n_joints, 2)

    where, joints, seen = file, tuple(JOINTS.values()), true
    if detections is not None:
        where, joints = detections[:2]
        seen = _detected(detections, split, ids)
    cameras = np.unique(ids["cam"])
    for subject, sequence in sorted(set(zip(ids["subj"], ids["seq"], strict=True))):
        name = f"{split}_s{subject}_seq{sequence:03d}"
        here = np.flatnonzero((ids["subj"] == subject) & (ids["seq"] == sequence))
        frames, frame = np.unique(ids["frame"][here], return_inverse=True)
        view = np.searchsorted(cameras, ids["cam"][here])
        if len(set(zip(frame, view, strict=True))) != len(here):
            raise ValueError(f"{file}: {name} has two rows for one image; fetch it again")
        grids = []  # by frame and view; NaN where there is no row
        for values in (seen, pose, true):
            grid = np.full((len(frames), len(cameras), *values.shape[1:]), np.nan, np.float32)
            grid[frame, view] = values[here]
            grids.append(grid)
        views = [f"cam_{camera:02d}" for camera in cameras]
        size = [(CROP_PX, CROP_PX)] * len(views)
        recording = detected(grids[0], joints, views, fps, "", size, where)
        yield name, with_truth(recording, tuple(JOINTS.values()), grids[1], grids[2], file)
