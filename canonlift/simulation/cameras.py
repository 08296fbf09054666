"""Perspective cameras around an athlete: where they stand, and how they follow him."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from canonlift.simulation.noise import smooth_noise


@dataclass(frozen=True)
class CameraConfig:
    """Where the cameras stand and how they pan, tilt and zoom."""

    n_views: int = 6
    distance_m: tuple[float, float] = (8.0, 20.0)  # to the middle of the action
    height_m: tuple[float, float] = (0.8, 3.0)  # above the floor
    arc_deg: float = 360.0  # cameras spread evenly over this arc; 360: all around
    azimuth_jitter_deg: float = 15.0
    azimuths_deg: tuple[float, ...] = ()  # explicit directions instead, one per camera
    centre_deg: float | None = None  # middle of the arc, 0 of `azimuths_deg`; None: drawn
    fixed: bool = False  # constant, with the whole action in the image; ignores what follows
    share: tuple[float, float] = (0.4, 0.75)  # of the image's shorter side that the body takes up
    zoom: bool = True  # False: each camera keeps one focal length
    lag_s: float = 0.15  # of pan and tilt behind the athlete
    shake_deg: float = 0.4  # random pan and tilt, standard deviation
    roll_deg: float = 3.0  # standard deviation; half of the variance constant, half varying
    drift_m: float = 0.0  # movement of a hand-held camera, standard deviation
    image_size: tuple[int, int] = (1920, 1080)
    starts_s: tuple[float, ...] = ()  # when each camera starts to record; empty: all together

    def __post_init__(self) -> None:
        if not 2 <= self.n_views <= 8:
            raise ValueError(f"n_views must be 2 to 8, got {self.n_views}")
        for name, kind in (("starts_s", "times"), ("azimuths_deg", "directions")):
            if len(values := getattr(self, name)) not in (0, self.n_views):
                raise ValueError(
                    f"{name} has {len(values)} {kind} for {self.n_views} cameras; give one per "
                    "camera, or none"
                )
        if not np.isfinite(self.starts_s).all():
            raise ValueError(f"starts_s must be finite, got {self.starts_s}")
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

    def project(self, points: Float[np.ndarray, "T V J 3"]) -> Float[np.ndarray, "T V J 2"]:
        """Pixels of points in camera axes."""
        return project(points, self.focal_px, self.image_size)


def project(
    points: Float[np.ndarray, "T V J 3"], focal_px: Float[np.ndarray, "T V"], size: tuple[int, int]
) -> Float[np.ndarray, "T V J 2"]:
    """Pixels of points in camera axes; the principal point is the middle of the image."""
    return np.array(size) / 2 + focal_px[..., None, None] * points[..., :2] / points[..., 2:]


def place_cameras(
    pose_world: Float[np.ndarray, "T J 3"],
    fps: float,
    config: CameraConfig,
    generator: np.random.Generator,
) -> Cameras:
    """Cameras around a motion in metres, y up, that follow it unless they are fixed."""
    low, high = pose_world.min(1), pose_world.max(1)
    body = (low + high) / 2
    middle = (low.min(0) + high.max(0)) / 2
    n_frames, n_views = len(body), config.n_views

    azimuth = _azimuths(config, generator)
    direction = np.stack([np.sin(azimuth), np.zeros(n_views), np.cos(azimuth)], -1)
    distance = generator.uniform(*config.distance_m, n_views)
    # Where the action comes near a camera, the camera stands further back.
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

    place, aim, tilt = np.moveaxis(
        smooth_noise(n_frames, (3, n_views, 3), 2.0 * fps, generator), 1, 0
    )
    position = position + config.drift_m * place
    late = np.maximum(np.arange(n_frames) - round(config.lag_s * fps), 0)
    followed = gaussian_filter1d(body, config.lag_s * fps + 0.1, axis=0, mode="nearest")[late]
    toward = followed[:, None] - position
    depth = np.linalg.norm(toward, axis=-1)
    toward = toward + np.radians(config.shake_deg) * depth[..., None] * aim
    rotation = _look(toward, roll + np.radians(config.roll_deg) * np.sqrt(0.5) * tilt[..., 0])
    fraction = 0.5 + 0.5 * np.tanh(smooth_noise(n_frames, (n_views,), 6.0 * fps, generator))
    share = config.share[0] + (config.share[1] - config.share[0]) * fraction
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
