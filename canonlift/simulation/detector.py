"""A 2D detector that makes the errors that a real one was measured to make."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit, ndtri

from canonlift.body.skeleton import H36M17, mirrored
from canonlift.simulation.noise import autoregressive_noise, smooth_noise


@dataclass(frozen=True)
class DetectorConfig:
    """Errors of the 2D detections; their sizes are in `ERRORS`."""

    confidences: bool = True  # False: every detection has confidence 1
    error_scale: float = 1.0  # factor on the errors of `ERRORS`; 0: exact, except swaps
    leg_swap_rate: float = 0.0079  # fraction of frames with left and right swapped, as measured
    arm_swap_rate: float = 0.0037
    joint_miss_rate: float = 0.015
    frame_miss_rate: float = 0.005
    offset_m: tuple[float, float] = (0.0, 0.0)  # of what it calls a joint from the true joint
    limb_error_rate: float = 0.0  # fraction of frames in which a limb is off as a whole, each
    hidden: tuple[str, ...] = ()  # joints that no camera sees, as behind a desk

    def __post_init__(self) -> None:
        rates = ("leg_swap_rate", "arm_swap_rate", "joint_miss_rate", "frame_miss_rate")
        for name in (*rates, "limb_error_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.offset_m[0] <= self.offset_m[1]:
            raise ValueError(f"offset_m must be (low, high), 0 <= low <= high: {self.offset_m}")
        if unknown := [name for name in self.hidden if name not in H36M17]:
            raise ValueError(f"hidden: no joint {unknown}; choose from {', '.join(H36M17)}")
        if not self.error_scale >= 0:
            raise ValueError(f"error_scale must not be negative, got {self.error_scale}")


class JointError(NamedTuple):
    """Quantiles of a joint's 2D error / longer side of the person's box; autocorrelation."""

    median: float
    p90: float
    p99: float
    correlation: float  # between frames 0.1 s apart


# A stacked-hourglass detector on Human3.6M video: 4 cameras, 7 people, 105,605 frames at 10
# fps, against projected motion capture, without each sequence's constant offset per joint.
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
# The spine was not measured; its errors are assumed to be the mean of its neighbours'.
_SPINE = JointError(*np.mean([_MEASURED["pelvis"], _MEASURED["thorax"]], axis=0).tolist())
ERRORS: Mapping[str, JointError] = {name: _MEASURED.get(name, _SPINE) for name in H36M17}


class Detected(NamedTuple):
    """What a detector reports, and which of its labels it has exchanged."""

    keypoints: Float[np.ndarray, "T V J 2"]  # NaN where a joint is missed
    confidence: Float[np.ndarray, "T V J"]  # 0 where a joint is missed
    swapped: Bool[np.ndarray, "T V 2"]  # of legs and of arms: left and right are exchanged


def detect(
    true: Float[np.ndarray, "T V J 2"],
    pose: Float[np.ndarray, "T V J 3"],
    fps: float,
    image_size: tuple[int, int],
    config: DetectorConfig,
    generator: np.random.Generator,
) -> Detected:
    """Detected keypoints and confidences; NaN and 0 where a joint is missed.

    Sizes of errors follow `ERRORS`. Large ones are likelier where a joint is hard to see. `true`
    are exact keypoints in pixels, and `pose` the same joints in metres, in camera axes. Joints
    outside the image are missed.
    """
    unexplained = smooth_noise(len(pose), pose.shape[1:3], 2.0 * fps, generator)  # clothes, light
    hard = _ranked(_difficulty(pose) + 0.05 * unexplained)
    error, log_size = _errors(hard, fps, generator)
    box = (true.max(2) - true.min(2)).max(-1)[..., None, None]
    keypoints = true + config.error_scale * box * error
    if config.limb_error_rate > 0:  # of a stream of its own, so that all else stays as it is
        rate, own = config.limb_error_rate, generator.spawn(1)[0]
        keypoints += box * _limb_errors(true.shape[:2], rate, fps, own)
    confidence = _confidences(log_size, hard, fps, generator)

    swap, exchanged = np.array(mirrored(H36M17)), []
    for rate, limbs in ((config.leg_swap_rate, _LEGS), (config.arm_swap_rate, _ARMS)):
        swapped = _bursts(true.shape[:2], 0.3, rate, fps, generator)
        order = np.where(limbs, swap, np.arange(len(swap)))
        keypoints[swapped] = keypoints[swapped][:, order]
        confidence[swapped] = confidence[swapped][:, order]
        exchanged.append(swapped)

    if not config.confidences:
        confidence = np.ones_like(confidence)
    lost = _bursts(true.shape[:3], 0.4, config.joint_miss_rate, fps, generator, hard)
    lost |= _bursts(true.shape[:2], 0.6, config.frame_miss_rate, fps, generator)[..., None]
    lost |= ((keypoints < 0) | (keypoints > np.array(image_size))).any(-1)
    lost |= np.isin(H36M17, config.hidden)
    keypoints[lost] = np.nan
    confidence[lost] = 0.0
    return Detected(keypoints, confidence, np.stack(exchanged, -1))


def as_defined(
    pose: Float[np.ndarray, "T J 3"], config: DetectorConfig, generator: np.random.Generator
) -> Float[np.ndarray, "T J 3"]:
    """The points on the body that the detector calls joints; metres, as the pose.

    Each is off by a vector that is constant in the axes of the trunk, left and right alike.
    """
    if config.offset_m[1] == 0:
        return pose
    at = {name: pose[:, i] for i, name in enumerate(H36M17)}
    left, up = at["l_hip"] - at["r_hip"], at["thorax"] - at["pelvis"]
    left = left / np.linalg.norm(left, axis=-1, keepdims=True)
    front = np.cross(left, up)
    front /= np.linalg.norm(front, axis=-1, keepdims=True)
    axes = np.stack([left, np.cross(front, left), front], -1)
    offset = generator.standard_normal((len(H36M17), 3))
    size = generator.uniform(*config.offset_m, (len(H36M17), 1))
    for joint, other in enumerate(mirrored(H36M17)):
        if other == joint:
            offset[joint, 0] = 0.0
        elif other < joint:
            offset[joint], size[joint] = offset[other] * [-1.0, 1.0, 1.0], size[other]
    offset *= size / np.linalg.norm(offset, axis=-1, keepdims=True)
    return pose + np.einsum("trc,jc->tjr", axes, offset)


# Limbs that are mistaken as a whole, and how far from the trunk each of their joints is.
_WHOLE_LIMBS = (("l_leg",), ("r_leg",), ("l_arm",), ("r_arm",), ("l_leg", "r_leg"))
_LIMB_JOINTS = {"leg": ("hip", "knee", "ankle"), "arm": ("shoulder", "elbow", "wrist")}
_LIMB_ERROR = (0.03, 0.10, 0.15)  # standard deviation over the longer side of the person's box
_LIMB_ERROR_S = 2.0  # how long it lasts


def _limb_errors(
    shape: tuple[int, ...], rate: float, fps: float, generator: np.random.Generator
) -> Float[np.ndarray, "T V J 2"]:
    """Errors of limbs that are seen elsewhere for seconds, in units of the box."""
    error = np.zeros((*shape, len(H36M17), 2))
    for limbs in _WHOLE_LIMBS:
        wrong = _bursts(shape, _LIMB_ERROR_S, rate, fps, generator)
        shift = smooth_noise(shape[0], (*shape[1:], 2), 4 * _LIMB_ERROR_S * fps, generator)
        for limb in limbs:
            side, _, part = limb.partition("_")
            for joint, size in zip(_LIMB_JOINTS[part], _LIMB_ERROR, strict=True):
                error[:, :, H36M17.index(f"{side}_{joint}")] += size * wrong[..., None] * shift
    return error


_LEGS = np.array([name[2:] in ("hip", "knee", "ankle") for name in H36M17])
_ARMS = np.array([name[2:] in ("shoulder", "elbow", "wrist") for name in H36M17])

# Body parts that can hide a joint, as capsules: upper end, lower end, radius in metres.
_CAPSULES = (
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
    """How far each joint is hidden by other body parts, plus half its depth behind the root."""
    pose = pose.astype(np.float32)
    depth = pose[..., 2]
    image = pose[..., :2] / depth[..., None] * depth[..., :1, None]  # metres at the root's depth
    hidden = np.zeros_like(depth)
    for upper, lower, radius in _CAPSULES:
        a, b = H36M17.index(upper), H36M17.index(lower)
        bone = image[:, :, None, b] - image[:, :, None, a]
        from_a = image - image[:, :, None, a]
        along = (from_a * bone).sum(-1) / np.maximum(np.square(bone).sum(-1), 1e-6)
        along = np.clip(along, 0.0, 1.0)
        gap = np.linalg.norm(from_a - along[..., None] * bone, axis=-1)
        front = depth[:, :, None, a] * (1 - along) + depth[:, :, None, b] * along
        behind = np.clip((depth - front - 0.5 * radius) / 0.1, 0.0, 1.0)
        covered = expit((radius - gap) / 0.02)
        covered[..., [a, b]] = 0.0  # a capsule does not hide its own ends
        hidden += covered * behind
    return hidden + 0.5 * (depth - depth[..., :1])


def _ranked(difficulty: Float[np.ndarray, "T V J"]) -> Float[np.ndarray, "T V J"]:
    """Normal scores of each joint's difficulty within the recording."""
    n_frames, n_views, n_joints = difficulty.shape
    flat = difficulty.reshape(-1, n_joints)
    rank = flat.argsort(0, kind="stable").argsort(0, kind="stable")
    return ndtri((rank + 0.5) / len(flat)).reshape(n_frames, n_views, n_joints)


_DIFFICULTY_CORRELATION = 0.45  # correlation of a joint's error score with its difficulty


def _errors(
    hard: Float[np.ndarray, "T V J"], fps: float, generator: np.random.Generator
) -> tuple[Float[np.ndarray, "T V J 2"], Float[np.ndarray, "T V J"]]:
    """Error vectors in units of the box, and the logarithm of their size over a typical one.

    A vector (x, y) of two Gaussians, each correlated in time, gives the direction and, by its
    length, a random normal score. Mixed with the difficulty it remains a normal score, whose
    quantile in `ERRORS` is the size, so the sizes follow the table whatever the pose is.
    """
    table = [ERRORS[name] for name in H36M17]
    # Errors with heavy tails are less correlated than the Gaussians that they are made from; the
    # factor was fitted to the correlation of the result.
    latent = np.array([1.0 - 0.6 * (1.0 - row.correlation) for row in table])
    correlation = latent ** (10.0 / fps)
    vector = np.stack(
        [autoregressive_noise(hard.shape, correlation, generator) for _ in range(2)], -1
    )
    length = np.maximum(np.linalg.norm(vector, axis=-1), 1e-6)
    random = -ndtri(np.exp(-np.square(length) / 2))  # the length's normal score
    score = np.sqrt(1 - _DIFFICULTY_CORRELATION**2) * random + _DIFFICULTY_CORRELATION * hard
    size = np.empty_like(score)
    knots = [-6.0, -2.0, *ndtri([0.5, 0.9, 0.99]), 3.5]
    for j, row in enumerate(table):
        # Below the median and above p99 nothing was measured: these ends are assumptions.
        sizes = [row.median / 400, row.median / 5, row.median, row.p90, row.p99, 0.6]
        size[..., j] = np.exp(np.interp(score[..., j], knots, np.log(sizes)))
    return vector * (size / length)[..., None], np.log(size / 0.018)


def _confidences(
    log_size: np.ndarray, hard: np.ndarray, fps: float, generator: np.random.Generator
) -> Float[np.ndarray, "T V J"]:
    """Confidences that fall with the error, but not reliably; about 30 % are below 0.85."""
    correlation = np.full(hard.shape[-1], 0.8 ** (10.0 / fps))
    noise = autoregressive_noise(hard.shape, correlation, generator)
    mixed = 0.65 * log_size + 0.25 * hard + 0.65 * noise
    uniform = expit(1.7 * mixed)  # approximately
    return np.clip(1.0 - 0.9 * uniform**5, 0.05, 1.0)


def _bursts(
    shape: tuple[int, ...],
    seconds: float,
    rate: float,
    fps: float,
    generator: np.random.Generator,
    hard: np.ndarray | None = None,
) -> Bool[np.ndarray, "..."]:
    """Events that last about so many seconds and cover the fraction `rate` of all frames."""
    level = smooth_noise(shape[0], shape[1:], 4 * seconds * fps, generator)
    if hard is not None:
        level = 0.9 * level + np.sqrt(1 - 0.9**2) * hard
    return level > -ndtri(rate) if rate > 0 else np.zeros(shape, dtype=bool)
