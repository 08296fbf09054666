"""Real motion capture filmed by simulated cameras that nobody calibrated: the settings, the films.

A film depends on its setting alone, not on the seed of a training. All frames are used, at 30 fps.
"""

import os
import re
import shutil
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import everyday, rows
from canonlift.body.skeleton import H36M17
from canonlift.data.recording import Recording, save
from canonlift.simulation.cameras import CameraConfig, Cameras
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.session import film_knowingly

MOCAP = rows.ROOT.parent / "shared" / "data" / "mocap" / "cmu_17j_30fps.npz"
SEED = 0
FPS = 30.0


class Setting(NamedTuple):
    """Who films; the names of a setting and of its clips are the seeds of its cameras."""

    cameras: CameraConfig
    detector: DetectorConfig = DetectorConfig()
    film: str = ""  # name of the setting whose cameras and errors these are; empty: its own
    threshold: float = 0.85  # confidence below which a joint is repaired
    motion: str = ""  # row of MOTIONS that is made of the motion capture; empty: it itself
    turned: bool = True  # each clip in a direction of its own


_SKI = CameraConfig(n_views=6, distance_m=(15.0, 40.0), height_m=(0.0, 8.0), arc_deg=200.0)
SETTINGS: Mapping[str, Setting] = {
    "ski": Setting(_SKI),
    "phones": Setting(
        CameraConfig(n_views=3, distance_m=(4.0, 8.0), drift_m=0.25, zoom=False, roll_deg=5.0)
    ),
    "studio": Setting(CameraConfig(n_views=4, distance_m=(4.0, 6.0), fixed=True)),
    "pair": Setting(
        CameraConfig(
            n_views=2,
            azimuths_deg=(0.0, 90.0),
            distance_m=(6.0, 12.0),
            drift_m=0.25,
            zoom=False,
        )
    ),
    # Every confidence is 1, so every joint is repaired or none.
    "blind": Setting(_SKI, DetectorConfig(confidences=False), film="ski", threshold=1.01),
}

_UNSEEN = "pelvis r_hip r_knee r_ankle l_hip l_knee l_ankle spine".split()
# Settings for solving without training, which are all `test`. Athletes at a distance flatter.
EVERYDAY: Mapping[str, Setting] = {
    "room": Setting(
        CameraConfig(n_views=4, distance_m=(3.0, 5.0), height_m=(0.8, 2.5), fixed=True),
        DetectorConfig(confidences=False, offset_m=(0.02, 0.04), limb_error_rate=0.03),
        motion="room",
    ),
    "court": Setting(CameraConfig(n_views=3, distance_m=(8.0, 12.0), height_m=(1.0, 4.0))),
    # Errors go with the box of the whole body, and the upper body has one of 0.6 times its size.
    "desk": Setting(
        CameraConfig(
            n_views=2,
            azimuths_deg=(-35.0, 35.0),
            centre_deg=0.0,
            distance_m=(2.0, 2.0),
            height_m=(1.0, 1.6),
            fixed=True,
        ),
        DetectorConfig(error_scale=0.6, hidden=tuple(_UNSEEN)),
        motion="desk",
        turned=False,
    ),
}
ALL: Mapping[str, Setting] = {**SETTINGS, **EVERYDAY}
MOTIONS: Mapping[str, Callable[[everyday.Motions, int], dict[str, np.ndarray]]] = {
    "room": everyday.room,
    "desk": everyday.desk,
}

# By person and clip: training has neither the bones nor the actions of asf/02.
SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("expmap/train/", "asf/01_", "asf/03_"),
    "test": ("expmap/test/", "asf/02_"),
}
MOCAP_JOINTS: Mapping[str, str] = {
    "Pelvis": "pelvis", "RHip": "r_hip", "RKnee": "r_knee", "RAnkle": "r_ankle",
    "LHip": "l_hip", "LKnee": "l_knee", "LAnkle": "l_ankle", "Spine": "spine",
    "Thorax": "thorax", "Neck": "nose", "Head": "head", "LShoulder": "l_shoulder",
    "LElbow": "l_elbow", "LWrist": "l_wrist", "RShoulder": "r_shoulder", "RElbow": "r_elbow",
    "RWrist": "r_wrist",
}  # fmt: skip


class Clip(NamedTuple):
    """One clip, filmed."""

    split: str
    name: str
    recording: Recording
    cameras: Cameras  # the true ones, which training never reads
    swapped: np.ndarray  # (T, V, 2): left and right of legs, of arms are exchanged
    defined: np.ndarray  # (T, V, J, 3): what the detector calls joints, in camera axes


def shoot(
    setting: str,
    mocap: Path,
    work: Path,
    settings: Mapping[str, Setting] = SETTINGS,
    seed: int = SEED,
    splits: Collection[str] = ("train", "test"),
) -> Path:
    """The folder of a setting's films, which are made unless they are there.

    It holds `train/CLIP.npz`, `test/CLIP.npz` and, never read in training, `cameras/CLIP.npz`.
    Another seed gives other cameras and other errors of the detector. A clip is the same whether
    all splits are filmed or its own alone.

    Raises:
        FileNotFoundError: if there is no motion capture.
        ValueError: if it has other joints, or no clips of a split.
    """
    if not mocap.is_file():
        raise FileNotFoundError(f"{mocap}: no motion capture; give --data, see shared/data")
    which = (seed, *splits) if (seed, *splits) != (SEED, "train", "test") else ()
    made_of = rows.digest(settings[setting], *which, *sources(mocap))
    folder = work / "films" / f"{setting}-{made_of}"
    if folder.is_dir():
        return folder
    print(f"filming {setting} into {folder}")
    part = folder.with_name(f"{folder.name}.part{os.getpid()}")
    captured = motions(mocap)
    for clip in clips_of(setting, captured, settings, seed, splits):
        stem = clip.name.replace("/", "-")
        save(clip.recording, part / clip.split / f"{stem}.npz")
        (part / "cameras").mkdir(exist_ok=True)
        arrays: dict[str, Any] = {
            name: np.asarray(value) for name, value in vars(clip.cameras).items()
        }
        arrays |= {"swapped": clip.swapped, "defined": clip.defined}
        np.savez(part / "cameras" / f"{stem}.npz", **arrays)
    publish(part, folder)
    return folder


def sources(mocap: Path) -> list[bytes | Path]:
    """What every film is made of, to name its folder after."""
    simulation = sorted((rows.PACKAGE / "simulation").glob("*.py"))
    return [mocap.read_bytes(), Path(__file__), Path(everyday.__file__), *simulation]


def publish(part: Path, folder: Path) -> None:
    """Give a finished film its name, unless another process was faster, whose film is the same."""
    try:
        part.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(part)


def motions(mocap: Path) -> dict[str, np.ndarray]:
    """Motion (T, J, 3) in metres, y up, on h36m17, by the names of the clips.

    Raises:
        ValueError: if the file has other joints, another frame rate or no clips of a split.
    """
    with np.load(mocap, allow_pickle=False) as file:
        joints = [MOCAP_JOINTS.get(str(joint), "") for joint in file["joints"]]
        if sorted(joints) != sorted(H36M17):
            raise ValueError(f"{mocap}: joints must be {', '.join(MOCAP_JOINTS)}")
        if float(file["fps"]) != FPS:
            raise ValueError(f"{mocap}: need {FPS:g} fps, got {file['fps']}")
        order = [joints.index(joint) for joint in H36M17]
        found = {
            name: file[name][:, order].astype(np.float64) for name in file.files if "/" in name
        }
    for split, starts in SPLITS.items():
        if not any(split_of(name) == split for name in found):
            raise ValueError(f"{mocap}: no clips of {' or '.join(starts)} to {split} on")
    return found


def clips_of(
    setting: str,
    motion_of: Mapping[str, np.ndarray],
    settings: Mapping[str, Setting] = SETTINGS,
    seed: int = SEED,
    splits: Collection[str] = ("train", "test"),
) -> Iterator[Clip]:
    """Film every clip of the splits.

    Cameras that may move are set up anew for every clip. Fixed ones stay for a day, on which
    everything of one kind is done in front of them: at the same place, in any direction.
    """
    one = settings[setting]
    film_name, cameras = one.film or setting, one.cameras
    if one.motion:
        test = {name: at for name, at in motion_of.items() if split_of(name) == "test"}
        motion_of = MOTIONS[one.motion](test, seed)
    days: dict[str, list[str]] = {}
    for name in sorted(motion_of):
        if split_of(name) in splits:
            day = re.sub(r"_\d+$", "", name) if cameras.fixed else name
            days.setdefault(day, []).append(name)
    for day, names in days.items():
        draw = partial(generator, film_name, day, seed=seed)
        turns = draw(0).uniform(0, 2 * np.pi, len(names)) * one.turned
        parts = [centred(motion_of[name], turn) for name, turn in zip(names, turns, strict=True)]
        rig = day if cameras.fixed else ""
        filmed = film_knowingly(
            np.concatenate(parts), H36M17, FPS, cameras, one.detector, draw(1), rig
        )
        ends = np.cumsum([len(part) for part in parts])
        for name, part, end in zip(names, parts, ends, strict=True):
            frames = slice(end - len(part), end)
            yield Clip(
                split_of(name),
                name,
                some_frames(filmed.recording, frames),
                _some_frames(filmed.cameras, frames),
                filmed.swapped[frames],
                filmed.defined[frames],
            )


def generator(film_name: str, day: str, stream: int, seed: int = SEED) -> np.random.Generator:
    """Random numbers that depend on these names and the seed alone."""
    key = (zlib.crc32(film_name.encode()), zlib.crc32(day.encode()), stream)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def centred(motion: np.ndarray, turn: float) -> np.ndarray:
    """The motion about the origin of the floor, turned about the vertical axis by radians."""
    ends = motion.min((0, 1)), motion.max((0, 1))
    moved = motion - (ends[0] + ends[1]) / 2 * [1.0, 0.0, 1.0]
    cos, sin = np.cos(turn), np.sin(turn)
    return moved @ np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])


def some_frames(recording: Recording, frames: slice) -> Recording:
    """These frames of a recording alone."""
    names = ("keypoints", "confidence", "pose3d", "keypoints_true")
    return replace(recording, **{name: getattr(recording, name)[frames] for name in names})


def _some_frames(cameras: Cameras, frames: slice) -> Cameras:
    return Cameras(
        cameras.rotation[frames],
        cameras.position[frames],
        cameras.focal_px[frames],
        cameras.image_size,
    )


def split_of(name: str) -> str:
    """`train`, `test`, or empty for a clip of neither; what is made of clips is `test`."""
    if name.startswith("everyday/"):
        return "test"
    return next((split for split, starts in SPLITS.items() if name.startswith(starts)), "")


def load_cameras(path: Path) -> Cameras:
    """The true cameras of a film."""
    with np.load(path, allow_pickle=False) as file:
        width, height = file["image_size"].tolist()
        return Cameras(file["rotation"], file["position"], file["focal_px"], (width, height))
