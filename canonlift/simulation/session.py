"""A simulated recording session: athletes, cameras and a detector, all from one seed.

Cameras and detector draw from separate random streams, so that two detectors can be run on
exactly the same cameras and motion.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline

from canonlift.body.skeleton import H36M17
from canonlift.data.recording import Recording, save
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.cameras import CameraConfig, place_cameras, project
from canonlift.simulation.detector import DetectorConfig, detect
from canonlift.simulation.motions import MOTIONS


@dataclass(frozen=True)
class SimulateConfig:
    """A session: who is filmed, how often, by what."""

    seed: int = 0
    n_train: int = 12
    n_test: int = 4
    n_people_train: int = 6
    n_people_test: int = 2  # nobody is in both
    n_frames: int = 600
    fps: float = 30.0
    motions: tuple[str, ...] = tuple(MOTIONS)
    cameras: CameraConfig = field(default_factory=CameraConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)

    def __post_init__(self) -> None:
        unknown = [name for name in self.motions if name not in MOTIONS]
        if unknown or not self.motions:
            raise ValueError(f"no motion {unknown}; choose from {', '.join(MOTIONS)}")
        least = {"seed": 0, "n_train": 0, "n_test": 0, "n_people_train": 1, "n_people_test": 1}
        for name, low in (least | {"n_frames": 2}).items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if not self.fps > 0:
            raise ValueError(f"fps must be positive, got {self.fps}")


def session(config: SimulateConfig) -> Iterator[tuple[str, Recording]]:
    """Film the session, recording by recording, with names `train_00` ... `test_00` ...

    A recording depends on the seed, its split and its number alone, not on how many are made.
    Fixed cameras are set up anew for every recording, which is therefore a rig of its own.
    """
    splits = (
        ("train", config.n_train, config.n_people_train),
        ("test", config.n_test, config.n_people_test),
    )
    for split, (split_name, n_recordings, n_people) in enumerate(splits):
        for index in range(n_recordings):
            name = f"{split_name}_{index:02d}"
            who = _generator(config.seed, split, 0, index % n_people)
            take, shoot = _generator(config.seed, split, 1, index).spawn(2)
            motions = [str(m) for m in take.permutation(config.motions)]
            spread = np.ptp(config.cameras.starts_s) if config.cameras.starts_s else 0.0
            n_frames = config.n_frames + int(np.ceil(spread * config.fps))
            pose = perform(sample_person(who), motions, n_frames, config.fps, take)
            rig = name if config.cameras.fixed else ""
            yield name, film(pose, H36M17, config.fps, config.cameras, config.detector, shoot, rig)


def write_session(config: SimulateConfig, folder: Path) -> tuple[list[Path], list[Path]]:
    """Write the session as `folder/train_00.npz` and so on; returns train and test paths."""
    paths = []
    for name, recording in session(config):
        paths.append(folder / f"{name}.npz")
        save(recording, paths[-1])
    return paths[: config.n_train], paths[config.n_train :]


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(key[0], spawn_key=key[1:]))


def film(
    pose_world: Float[np.ndarray, "T J 3"],
    joints: Sequence[str],
    fps: float,
    cameras: CameraConfig,
    detector: DetectorConfig,
    generator: np.random.Generator,
    rig: str = "",
) -> Recording:
    """Film and detect any motion in metres, y up, of the joints of h36m17.

    Cameras that start at different times make a recording whose frames show different instants:
    as many as all of them film before the motion ends. Its truth is of the instant that each
    camera shows, to a fraction of a frame.

    Raises:
        ValueError: if the joints are others, or in another order, or the motion ends before the
            last camera starts.
    """
    if tuple(joints) != H36M17:
        raise ValueError(f"joints must be h36m17 ({' '.join(H36M17)}), got {' '.join(joints)}")
    for_cameras, for_detector = generator.spawn(2)
    pose_world = np.asarray(pose_world, dtype=np.float64)
    crew = place_cameras(pose_world, fps, cameras, for_cameras)
    pose, focal_px = crew.in_axes(pose_world), crew.focal_px
    if any(cameras.starts_s):
        first = np.array(cameras.starts_s) * fps
        pose, focal_px = (_from(first - first.min(), seen) for seen in (pose, focal_px))
    true = project(pose, focal_px, crew.image_size)
    keypoints, confidence = detect(true, pose, fps, crew.image_size, detector, for_detector)
    n_views = cameras.n_views
    return Recording(
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


def _from(first: Float[np.ndarray, " V"], seen: Float[np.ndarray, "T V *_"]) -> np.ndarray:
    """What each view sees from its first frame on, as long as all of them see something."""
    n_frames = len(seen) - int(np.ceil(first.max()))
    if n_frames < 2:
        raise ValueError(
            f"the last camera starts {first.max():.0f} frames after the first, but the motion has "
            f"{len(seen)}; film longer, or start closer together"
        )
    tracks = (CubicSpline(np.arange(len(seen)), seen[:, view]) for view in range(len(first)))
    shown = [
        track(start + np.arange(n_frames)) for track, start in zip(tracks, first, strict=True)
    ]
    return np.stack(shown, axis=1)
