"""The embedded recording session: an athlete, V cameras and a detector that errs like a real one.

Everything follows from a seed. Cameras and detector draw from separate streams, so that two
detectors can watch exactly the same film.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter
from scipy.special import expit, ndtri

from canonlift.body.skeleton import H36M17, mirrored
from canonlift.data.recording import Recording, save
from canonlift.simulation.athlete import MOTIONS, drift, perform, sample_person


@dataclass(frozen=True)
class CameraConfig:
    """Where the cameras stand and how they are handled."""

    n_views: int = 6
    distance_m: tuple[float, float] = (8.0, 20.0)  # to the middle of the action
    height_m: tuple[float, float] = (0.8, 3.0)  # above the floor
    arc_deg: float = 360.0  # cameras spread evenly over this arc; 360: all around
    azimuth_jitter_deg: float = 15.0
    azimuths_deg: tuple[float, ...] = ()  # explicit directions instead, one per camera
    centre_deg: float | None = None  # middle of the arc, 0 of `azimuths_deg`; None: drawn
    fixed: bool = False  # never moved nor zoomed; sees the whole action; ignores what follows
    share: tuple[float, float] = (0.4, 0.75)  # of the image's shorter side that the body fills
    zoom: bool = True  # False: each camera keeps one focal length
    lag_s: float = 0.15  # by which pan and tilt follow
    shake_deg: float = 0.4  # restless pan and tilt
    roll_deg: float = 3.0  # standard deviation; half of it constant, half wandering
    drift_m: float = 0.0  # hand-held wandering of the camera itself, standard deviation
    image_size: tuple[int, int] = (1920, 1080)
    starts_s: tuple[float, ...] = ()  # when each camera starts to film; empty: all together

    def __post_init__(self) -> None:
        if not 2 <= self.n_views <= 8:
            raise ValueError(f"n_views must be 2 to 8, got {self.n_views}")
        if self.starts_s and len(self.starts_s) != self.n_views:
            raise ValueError(
                f"starts_s names {len(self.starts_s)} times for {self.n_views} cameras; give one "
                "each, or none"
            )
        if not np.isfinite(self.starts_s).all():
            raise ValueError(f"starts_s must be finite, got {self.starts_s}")
        if self.azimuths_deg and len(self.azimuths_deg) != self.n_views:
            raise ValueError(
                f"azimuths_deg names {len(self.azimuths_deg)} directions for {self.n_views} "
                "cameras; give one each, or none"
            )
        for name in ("distance_m", "height_m", "share"):
            low, high = getattr(self, name)
            if low > high or (name != "height_m" and low <= 0):
                raise ValueError(f"{name} must be (low, high) with low <= high, got {low}, {high}")


@dataclass(frozen=True, eq=False)
class Cameras:
    """Perspective cameras over time; square pixels, the principal point in the middle."""

    rotation: Float[np.ndarray, "T V 3 3"]  # world -> camera axes (x right, y down, z away)
    position: Float[np.ndarray, "T V 3"]  # metres, in the world
    focal_px: Float[np.ndarray, "T V"]
    image_size: tuple[int, int]

    def in_axes(self, pose: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T V J 3"]:
        """The pose in the axes of every camera, in metres."""
        return np.einsum(
            "tvrc,tvjc->tvjr", self.rotation, pose[:, None] - self.position[:, :, None]
        )

    def project(self, seen: Float[np.ndarray, "T V J 3"]) -> Float[np.ndarray, "T V J 2"]:
        """Pixels of points in camera axes."""
        return _pixels(seen, self.focal_px, self.image_size)


def _pixels(
    seen: Float[np.ndarray, "T V J 3"], focal_px: Float[np.ndarray, "T V"], size: tuple[int, int]
) -> Float[np.ndarray, "T V J 2"]:
    return np.array(size) / 2 + focal_px[..., None, None] * seen[..., :2] / seen[..., 2:]


@dataclass(frozen=True)
class DetectorConfig:
    """What goes wrong in the 2D detections; the sizes of the errors are in `ERRORS`."""

    confidences: bool = True  # False: a detector that does not say how sure it is
    error_scale: float = 1.0  # factor on the errors of `ERRORS`; 0: exact where not swapped
    leg_swap_rate: float = 0.0079  # share of instants with left and right exchanged, as measured
    arm_swap_rate: float = 0.0037
    joint_miss_rate: float = 0.015
    frame_miss_rate: float = 0.005

    def __post_init__(self) -> None:
        for name in ("leg_swap_rate", "arm_swap_rate", "joint_miss_rate", "frame_miss_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if not self.error_scale >= 0:
            raise ValueError(f"error_scale must not be negative, got {self.error_scale}")


class JointError(NamedTuple):
    """Quantiles of a joint's 2D error / longer side of the person's box, and how long it lasts."""

    median: float
    p90: float
    p99: float
    correlation: float  # between instants 0.1 s apart


# A stacked-hourglass detector on Human3.6M video: 4 cameras, 7 people, 105,605 instants at 10
# fps, against projected motion capture, less each sequence's constant offset per joint.
_MEASURED: Mapping[str, JointError] = {
    "pelvis": JointError(0.0176, 0.0433, 0.1138, 0.703),
    "r_hip": JointError(0.0221, 0.0543, 0.1405, 0.780),
    "r_knee": JointError(0.0159, 0.0609, 0.3308, 0.662),
    "r_ankle": JointError(0.0182, 0.0713, 0.3779, 0.680),
    "l_hip": JointError(0.0218, 0.0524, 0.1431, 0.770),
    "l_knee": JointError(0.0161, 0.0593, 0.3287, 0.662),
    "l_ankle": JointError(0.0178, 0.0711, 0.4044, 0.677),
    "thorax": JointError(0.0245, 0.0718, 0.2727, 0.905),
    "nose": JointError(0.0158, 0.0373, 0.1107, 0.769),  # measured at MPII's upper neck
    "head": JointError(0.0229, 0.0804, 0.4910, 0.813),
    "l_shoulder": JointError(0.0159, 0.0371, 0.1145, 0.732),
    "l_elbow": JointError(0.0156, 0.0479, 0.2388, 0.684),
    "l_wrist": JointError(0.0185, 0.0935, 0.3839, 0.673),
    "r_shoulder": JointError(0.0164, 0.0387, 0.1313, 0.750),
    "r_elbow": JointError(0.0168, 0.0523, 0.2498, 0.695),
    "r_wrist": JointError(0.0203, 0.0995, 0.3758, 0.693),
}
# The spine was not measured; it is taken to err like the joints it lies between.
_SPINE = JointError(*np.mean([_MEASURED["pelvis"], _MEASURED["thorax"]], axis=0).tolist())
ERRORS: Mapping[str, JointError] = {name: _MEASURED.get(name, _SPINE) for name in H36M17}


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
    true = _pixels(pose, focal_px, crew.image_size)
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


def place_cameras(
    pose_world: Float[np.ndarray, "T J 3"],
    fps: float,
    config: CameraConfig,
    generator: np.random.Generator,
) -> Cameras:
    """Set up cameras around the action, and let them follow it unless they are fixed."""
    low, high = pose_world.min(1), pose_world.max(1)
    body = (low + high) / 2
    middle = (low.min(0) + high.max(0)) / 2
    n_frames, n_views = len(body), config.n_views

    azimuth = _azimuths(config, generator)
    direction = np.stack([np.sin(azimuth), np.zeros(n_views), np.cos(azimuth)], -1)
    distance = generator.uniform(*config.distance_m, n_views)
    # Nobody runs into a camera: where the action comes near, it stands further back.
    nearest = max(config.distance_m[0] / 2, 1.5)
    distance = np.maximum(distance, np.max((body - middle) @ direction.T, axis=0) + nearest)
    stand = middle + distance[:, None] * direction
    stand[:, 1] = low[:, 1].min() + generator.uniform(*config.height_m, n_views)
    position = np.tile(stand, (n_frames, 1, 1))
    roll = np.radians(config.roll_deg) * np.sqrt(0.5) * generator.standard_normal(n_views)

    if config.fixed:
        rotation = _look(middle - position, roll)
        unit = Cameras(rotation, position, np.ones((n_frames, n_views)), config.image_size)
        half = np.array(config.image_size) / 2
        extent = np.abs(unit.project(unit.in_axes(pose_world)) - half).max((0, 2))
        focal = np.tile((0.92 * half / extent).min(-1), (n_frames, 1))
        return Cameras(rotation, position, focal, config.image_size)

    place, aim, tilt = np.moveaxis(drift(n_frames, (3, n_views, 3), 2.0 * fps, generator), 1, 0)
    position = position + config.drift_m * place
    late = np.maximum(np.arange(n_frames) - round(config.lag_s * fps), 0)
    followed = gaussian_filter1d(body, config.lag_s * fps + 0.1, axis=0, mode="nearest")[late]
    toward = followed[:, None] - position
    depth = np.linalg.norm(toward, axis=-1)
    toward = toward + np.radians(config.shake_deg) * depth[..., None] * aim
    rotation = _look(toward, roll + np.radians(config.roll_deg) * np.sqrt(0.5) * tilt[..., 0])
    whim = 0.5 + 0.5 * np.tanh(drift(n_frames, (n_views,), 6.0 * fps, generator))
    share = config.share[0] + (config.share[1] - config.share[0]) * whim
    tall = np.quantile(np.linalg.norm(high - low, axis=-1), 0.9)
    focal = share * min(config.image_size) * depth / tall
    if not config.zoom:
        focal = np.tile(np.quantile(focal, 0.2, axis=0), (n_frames, 1))
    return Cameras(rotation, position, focal, config.image_size)


def _azimuths(config: CameraConfig, generator: np.random.Generator) -> np.ndarray:
    """Directions of the cameras in the horizontal plane, in radians."""
    n = config.n_views
    jitter = config.azimuth_jitter_deg * generator.uniform(-1, 1, n)
    centre = generator.uniform(0, 360) if config.centre_deg is None else config.centre_deg
    if config.azimuths_deg:
        spread = np.array(config.azimuths_deg)
    elif config.arc_deg >= 360:
        spread = 360 * np.arange(n) / n
    else:
        spread = config.arc_deg * (np.arange(n) / (n - 1) - 0.5)
    return np.radians(centre + spread + jitter)


def _look(
    toward: Float[np.ndarray, "T V 3"], roll: Float[np.ndarray, "*T V"]
) -> Float[np.ndarray, "T V 3 3"]:
    """World -> camera rotation that looks along `toward`, rolled about it by radians."""
    ahead = toward / np.linalg.norm(toward, axis=-1, keepdims=True)
    right = np.cross(ahead, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    down = np.cross(ahead, right)
    cosine, sine = np.cos(roll)[..., None], np.sin(roll)[..., None]
    return np.stack([cosine * right + sine * down, cosine * down - sine * right, ahead], -2)


def detect(
    true: Float[np.ndarray, "T V J 2"],
    pose: Float[np.ndarray, "T V J 3"],
    fps: float,
    image_size: tuple[int, int],
    config: DetectorConfig,
    generator: np.random.Generator,
) -> tuple[Float[np.ndarray, "T V J 2"], Float[np.ndarray, "T V J"]]:
    """Keypoints and confidences a detector would report for the true ones.

    How large a joint's errors are, `ERRORS` says; when the large ones come, chance and how
    hard the joint is to see. NaN and confidence 0 where it reports nothing.
    """
    unexplained = drift(len(pose), pose.shape[1:3], 2.0 * fps, generator)  # cloth, light
    hard = _ranked(_difficulty(pose) + 0.05 * unexplained)
    error, badness = _errors(hard, fps, generator)
    box = (true.max(2) - true.min(2)).max(-1)[..., None, None]
    keypoints = true + config.error_scale * box * error
    confidence = _confidences(badness, hard, fps, generator)

    swap = np.array(mirrored(H36M17))
    for rate, limbs in ((config.leg_swap_rate, _LEGS), (config.arm_swap_rate, _ARMS)):
        swapped = _bursts(true.shape[:2], 0.3, rate, fps, generator)
        order = np.where(limbs, swap, np.arange(len(swap)))
        keypoints[swapped] = keypoints[swapped][:, order]
        confidence[swapped] = confidence[swapped][:, order]

    if not config.confidences:
        confidence = np.ones_like(confidence)
    lost = _bursts(true.shape[:3], 0.4, config.joint_miss_rate, fps, generator, hard)
    lost |= _bursts(true.shape[:2], 0.6, config.frame_miss_rate, fps, generator)[..., None]
    lost |= ((keypoints < 0) | (keypoints > np.array(image_size))).any(-1)
    keypoints[lost] = np.nan
    confidence[lost] = 0.0
    return keypoints, confidence


_LEGS = np.array([name[2:] in ("hip", "knee", "ankle") for name in H36M17])
_ARMS = np.array([name[2:] in ("shoulder", "elbow", "wrist") for name in H36M17])

# Bones thick enough to hide a joint, as capsules: upper end, lower end, radius in metres.
_FLESH = (
    ("thorax", "pelvis", 0.14),
    ("head", "nose", 0.09),
    ("l_hip", "l_knee", 0.08),
    ("r_hip", "r_knee", 0.08),
    ("l_knee", "l_ankle", 0.055),
    ("r_knee", "r_ankle", 0.055),
    ("l_elbow", "l_wrist", 0.045),
    ("r_elbow", "r_wrist", 0.045),
)


def _difficulty(pose: Float[np.ndarray, "T V J 3"]) -> Float[np.ndarray, "T V J"]:
    """How much flesh lies between camera and joint, and how far behind the root it is."""
    pose = pose.astype(np.float32)
    depth = pose[..., 2]
    image = pose[..., :2] / depth[..., None] * depth[..., :1, None]  # metres at the root's depth
    hidden = np.zeros_like(depth)
    for upper, lower, radius in _FLESH:
        a, b = H36M17.index(upper), H36M17.index(lower)
        bone = image[:, :, None, b] - image[:, :, None, a]
        from_a = image - image[:, :, None, a]
        along = (from_a * bone).sum(-1) / np.maximum(np.square(bone).sum(-1), 1e-6)
        along = np.clip(along, 0.0, 1.0)
        gap = np.linalg.norm(from_a - along[..., None] * bone, axis=-1)
        front = depth[:, :, None, a] * (1 - along) + depth[:, :, None, b] * along
        behind = np.clip((depth - front - 0.5 * radius) / 0.1, 0.0, 1.0)
        covered = expit((radius - gap) / 0.02)
        covered[..., [a, b]] = 0.0  # a bone does not hide its own ends
        hidden += covered * behind
    return hidden + 0.5 * (depth - depth[..., :1])


def _ranked(difficulty: Float[np.ndarray, "T V J"]) -> Float[np.ndarray, "T V J"]:
    """Normal scores of each joint's difficulty within the recording."""
    n_frames, n_views, n_joints = difficulty.shape
    flat = difficulty.reshape(-1, n_joints)
    rank = flat.argsort(0, kind="stable").argsort(0, kind="stable")
    return ndtri((rank + 0.5) / len(flat)).reshape(n_frames, n_views, n_joints)


_HARDNESS = 0.45  # correlation of a joint's error score with its difficulty


def _errors(
    hard: Float[np.ndarray, "T V J"], fps: float, generator: np.random.Generator
) -> tuple[Float[np.ndarray, "T V J 2"], Float[np.ndarray, "T V J"]]:
    """Error vectors in boxes, and their size as log-scores of about unit variance.

    A vector (x, y) of two correlated Gaussians gives the direction and, by its length, a
    chance score; mixed with the difficulty it is a normal score, whose quantile in `ERRORS` is
    the size. So the sizes follow the table whatever the pose is.
    """
    table = [ERRORS[name] for name in H36M17]
    memory = np.array([_latent(row.correlation) for row in table]) ** (10.0 / fps)
    vector = np.stack([_wander(hard.shape, memory, generator) for _ in range(2)], -1)
    length = np.maximum(np.linalg.norm(vector, axis=-1), 1e-6)
    chance = -ndtri(np.exp(-np.square(length) / 2))  # the length's normal score
    score = np.sqrt(1 - _HARDNESS**2) * chance + _HARDNESS * hard
    size = np.empty_like(score)
    knots = [-6.0, -2.0, *ndtri([0.5, 0.9, 0.99]), 3.5]
    for j, row in enumerate(table):
        # Below the median and above p99 nothing was measured: these ends are assumptions.
        sizes = [row.median / 400, row.median / 5, row.median, row.p90, row.p99, 0.6]
        size[..., j] = np.exp(np.interp(score[..., j], knots, np.log(sizes)))
    return vector * (size / length)[..., None], np.log(size / 0.018)


def _latent(correlation: float) -> float:
    """Correlation of the Gaussians behind errors of the given correlation.

    Heavy tails forget faster than the Gaussians they are made of; the factor was found by
    measuring what comes out.
    """
    return 1.0 - 0.6 * (1.0 - correlation)


def _wander(
    shape: tuple[int, ...], memory: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Unit AR(1) noise over the first axis; `memory` per joint, from frame to frame."""
    white = generator.standard_normal(shape)
    white[1:] *= np.sqrt(1 - memory**2)
    return np.stack(
        [lfilter([1.0], [1.0, -m], white[..., j], axis=0) for j, m in enumerate(memory)], -1
    )


def _confidences(
    badness: np.ndarray, hard: np.ndarray, fps: float, generator: np.random.Generator
) -> Float[np.ndarray, "T V J"]:
    """Fall with the error, imperfectly; below 0.85 in about 30 % of all cases."""
    doubt = np.full(hard.shape[-1], 0.8 ** (10.0 / fps))
    mixed = 0.65 * badness + 0.25 * hard + 0.65 * _wander(hard.shape, doubt, generator)
    unsure = expit(1.7 * mixed)  # about uniform
    return np.clip(1.0 - 0.9 * unsure**5, 0.05, 1.0)


def _bursts(
    shape: tuple[int, ...],
    seconds: float,
    rate: float,
    fps: float,
    generator: np.random.Generator,
    hard: np.ndarray | None = None,
) -> Bool[np.ndarray, "..."]:
    """Events that hold for a while and cover a share `rate` of all time."""
    level = drift(shape[0], shape[1:], 4 * seconds * fps, generator)
    if hard is not None:
        level = 0.9 * level + np.sqrt(1 - 0.9**2) * hard
    return level > -ndtri(rate) if rate > 0 else np.zeros(shape, dtype=bool)
