"""A simulated recording session: athletes, cameras and a detector, all from one seed.

Cameras and detector draw from separate random streams, so that two detectors can be run on
exactly the same cameras and motion.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from canonlift.body.skeleton import H36M17
from canonlift.data.recording import Recording, save
from canonlift.simulation.athlete import check_motions, perform, sample_person
from canonlift.simulation.cameras import CameraConfig, Cameras, place_cameras, project
from canonlift.simulation.detector import DetectorConfig, as_defined, detect
from canonlift.simulation.motions import MOTIONS


@dataclass(frozen=True)
class SimulateConfig:
    """A session: people, motions, cameras and detector."""

    seed: int = 0
    n_train: int = 12
    n_test: int = 4
    n_people_train: int = 6
    n_people_test: int = 2  # none of those of training
    n_frames: int = 600
    fps: float = 30.0
    motions: tuple[str, ...] = tuple(MOTIONS)
    cameras: CameraConfig = field(default_factory=CameraConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)

    def __post_init__(self) -> None:
        check_motions(self.motions)
        least = {"seed": 0, "n_train": 0, "n_test": 0, "n_people_train": 1, "n_people_test": 1}
        for name, low in (least | {"n_frames": 2}).items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if not self.fps > 0:
            raise ValueError(f"fps must be positive, got {self.fps}")


def session(config: SimulateConfig) -> Iterator[tuple[str, Recording]]:
    """Names (`train_00`, ..., `test_00`, ...) and recordings of the session, one at a time.

    A recording depends only on the seed, its split and its number, not on how many are made.
    Fixed cameras are placed anew for every recording, so each recording has its own rig.
    """
    splits = (
        ("train", config.n_train, config.n_people_train),
        ("test", config.n_test, config.n_people_test),
    )
    for split, (split_name, n_recordings, n_people) in enumerate(splits):
        for index in range(n_recordings):
            name = f"{split_name}_{index:02d}"
            person = _generator(config.seed, split, 0, index % n_people)
            motion, filming = _generator(config.seed, split, 1, index).spawn(2)
            motions = [str(m) for m in motion.permutation(config.motions)]
            spread = np.ptp(config.cameras.starts_s) if config.cameras.starts_s else 0.0
            n_frames = config.n_frames + int(np.ceil(spread * config.fps))
            pose = perform(sample_person(person), motions, n_frames, config.fps, motion)
            rig = name if config.cameras.fixed else ""
            cameras, detector = config.cameras, config.detector
            yield name, film(pose, H36M17, config.fps, cameras, detector, filming, rig)


def write_session(config: SimulateConfig, folder: Path) -> tuple[list[Path], list[Path]]:
    """Write the session as `folder/train_00.npz` and so on; train and test paths are returned."""
    paths = []
    for name, recording in session(config):
        paths.append(folder / f"{name}.npz")
        save(recording, paths[-1])
    return paths[: config.n_train], paths[config.n_train :]


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(key[0], spawn_key=key[1:]))


class Filmed(NamedTuple):
    """A recording, and what nobody who uses it knows."""

    recording: Recording
    cameras: Cameras  # where they are when the motion begins, whenever they start to record
    swapped: Bool[np.ndarray, "T V 2"]  # of legs and of arms: left and right are exchanged
    defined: Float[np.ndarray, "T V J 3"]  # what the detector calls joints, as `pose3d`


def film(
    pose_world: Float[np.ndarray, "T J 3"],
    joints: Sequence[str],
    fps: float,
    cameras: CameraConfig,
    detector: DetectorConfig,
    generator: np.random.Generator,
    rig: str = "",
) -> Recording:
    """The recording of a motion in metres, y up, of the joints of h36m17.

    Where cameras start at different times, frame t of each view is t frames after the start of
    its own camera; the recording ends where the first camera has no more frames. Ground truth is
    interpolated to the time of each view's frame.

    Raises:
        ValueError: if the joints are others, or in another order, or the motion ends before the
            last camera starts.
    """
    return film_knowingly(pose_world, joints, fps, cameras, detector, generator, rig).recording


def film_knowingly(
    pose_world: Float[np.ndarray, "T J 3"],
    joints: Sequence[str],
    fps: float,
    cameras: CameraConfig,
    detector: DetectorConfig,
    generator: np.random.Generator,
    rig: str = "",
) -> Filmed:
    """The same as `film`, with its cameras and what the detector did."""
    if tuple(joints) != H36M17:
        raise ValueError(f"joints must be h36m17 ({' '.join(H36M17)}), got {' '.join(joints)}")
    for_cameras, for_detector, for_joints = generator.spawn(3)
    pose_world = np.asarray(pose_world, dtype=np.float64)
    placed = place_cameras(pose_world, fps, cameras, for_cameras)
    pose, focal_px = placed.in_axes(pose_world), placed.focal_px
    defined = placed.in_axes(as_defined(pose_world, detector, for_joints))
    if any(cameras.starts_s):
        first = np.array(cameras.starts_s) * fps
        pose, defined, focal_px = (
            _shifted(first - first.min(), values) for values in (pose, defined, focal_px)
        )
    true, seen = (project(points, focal_px, placed.image_size) for points in (pose, defined))
    keypoints, confidence, swapped = detect(
        seen, defined, fps, placed.image_size, detector, for_detector
    )
    n_views = cameras.n_views
    recording = Recording(
        keypoints=keypoints.astype(np.float32),
        confidence=confidence.astype(np.float32),
        joints=H36M17,
        views=tuple(f"cam{v}" for v in range(n_views)),
        fps=float(fps),
        rig=rig,
        image_size=np.tile(np.array(cameras.image_size, dtype=np.int32), (n_views, 1)),
        pose3d=pose.astype(np.float32),
        keypoints_true=true.astype(np.float32),
    )
    return Filmed(recording, placed, swapped, defined.astype(np.float32))


def _shifted(first: Float[np.ndarray, " V"], values: Float[np.ndarray, "T V *_"]) -> np.ndarray:
    """Values of each view from its first frame on, for as long as all views have values."""
    from scipy.interpolate import CubicSpline  # a third of a second, and seldom needed

    n_frames = len(values) - int(np.ceil(first.max()))
    if n_frames < 2:
        raise ValueError(
            f"the last camera starts {first.max():.0f} frames after the first, but the motion has "
            f"only {len(values)}; set more frames, or start times that are closer together"
        )
    frames = np.arange(len(values))
    tracks = (CubicSpline(frames, track) for track in np.moveaxis(values, 1, 0))
    shifted = [
        track(start + frames[:n_frames]) for track, start in zip(tracks, first, strict=True)
    ]
    return np.stack(shifted, axis=1)
