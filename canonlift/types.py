"""The values that flow through canonlift: Views -> Lifted -> a loss.

Axes, always in this order:
    B  samples: one person, seen by every camera of a rig
    V  views: the cameras of that rig
    T  frames of a window; 1 where single frames are lifted
    J  joints, in the order of the config's skeleton
A trailing 2 is (x right, y down) in the image. A trailing 3 adds z, away from the camera.

What works frame by frame, as fusion does, takes `instants`: B counts frames, and T is left out.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from canonlift.computed_once import computed_once
from canonlift.geometry.scale import SMALLEST_NORM


@dataclass(frozen=True, eq=False)  # eq would compare tensors and fail on the truth value
class Target:
    """A 3D pose to learn: solved from all views together, or true where training may read it.

    Each view has the pose in its own camera axes, centred on the root joint, in any unit.
    """

    pose: Float[Tensor, "B V *T J 3"]
    trust: Float[Tensor, "B V *T J"]  # 0: unknown

    def __getitem__(self, index: Tensor | slice) -> "Target":
        """Pick samples."""
        return Target(self.pose[index], self.trust[index])

    def to(self, *args: Any) -> "Target":
        """Move to a device or a floating-point type."""
        return Target(self.pose.to(*args), self.trust.to(*args))


@dataclass(frozen=True, eq=False)
class Views:
    """2D detections of one person by the V cameras of a rig.

    The frames of a window follow each other at a steady rate, without a cut; those before a
    recording begins or after it ends are unobserved. Every frame is centred on its root joint.
    The scale of a view is arbitrary, because one camera sees neither position nor size, and one
    for the whole window. Confidence 0 means "not observed": a missing camera is a camera whose
    confidences are all 0. There is no other mask. An unobserved keypoint is finite and has no
    meaning.
    """

    keypoints: Float[Tensor, "B V *T J 2"]
    confidence: Float[Tensor, "B V *T J"]  # in [0, 1]
    rig: Int[Tensor, " B"]  # equal numbers share the same fixed, unknown cameras; -1: moving
    target: Target | None = None

    def __post_init__(self) -> None:
        if self.keypoints.shape[:-1] != self.confidence.shape:
            raise ValueError(
                f"keypoints {tuple(self.keypoints.shape)} and confidence "
                f"{tuple(self.confidence.shape)} disagree on (B, V, T, J)"
            )

    def __len__(self) -> int:
        return len(self.keypoints)

    def __getitem__(self, index: Tensor | slice) -> "Views":
        """Pick samples; a batch is `views[order]`."""
        target = None if self.target is None else self.target[index]
        return Views(self.keypoints[index], self.confidence[index], self.rig[index], target)

    def to(self, *args: Any) -> "Views":
        """Move to a device or a floating-point type, as `Tensor.to` does."""
        place = [a for a in args if not isinstance(a, torch.dtype)]  # `rig` stays an integer
        return Views(
            self.keypoints.to(*args),
            self.confidence.to(*args),
            self.rig.to(*place) if place else self.rig,
            None if self.target is None else self.target.to(*args),
        )

    @computed_once
    def observed(self) -> Bool[Tensor, "B V *T J"]:
        """Which joints were detected at all."""
        return self.confidence > 0

    @computed_once
    def unit(self) -> Float[Tensor, "B V *ones"]:
        """Twice the root mean square distance of joints from the root: about half a person.

        One number for every view of a window, of shape (B, V, 1, ...) as `keypoints` broadcasts.
        """
        seen, axes = self.observed[..., None], tuple(range(2, self.keypoints.ndim))
        total = torch.where(seen, self.keypoints.square(), 0.0).sum(axes, keepdim=True)
        count = seen.sum(axes, keepdim=True)
        return 2 * (total / count.clamp_min(1)).clamp_min(SMALLEST_NORM**2).sqrt()

    @property
    def instants(self) -> "Views":
        """Every frame of every window by itself, without the axis of time."""
        n_frames, target = self.keypoints.shape[2], self.target
        if target is not None:
            target = Target(flatten_time(target.pose), flatten_time(target.trust))
        return Views(
            flatten_time(self.keypoints),
            flatten_time(self.confidence),
            self.rig.repeat_interleave(n_frames) if n_frames > 1 else self.rig,
            target,
        )

    @property
    def as_windows(self) -> "Views":
        """Instants as windows of one frame."""
        target = self.target
        if target is not None:
            target = Target(target.pose[:, :, None], target.trust[:, :, None])
        return Views(self.keypoints[:, :, None], self.confidence[:, :, None], self.rig, target)


@dataclass(frozen=True, eq=False)
class Lifted:
    """3D poses, once per view, and how the cameras are turned."""

    pose: Float[Tensor, "B V *T J 3"]  # root at 0, in a canonical frame that all views share
    # From the canonical frame to the camera's axes. None: `pose` is in the axes of each camera.
    rotation: Float[Tensor, "B V *T 3 3"] | None

    def __getitem__(self, index: Tensor | slice) -> "Lifted":
        """Pick samples."""
        return Lifted(self.pose[index], None if self.rotation is None else self.rotation[index])

    def to(self, *args: Any) -> "Lifted":
        """Move to a device or a floating-point type."""
        turn = None if self.rotation is None else self.rotation.to(*args)
        return Lifted(self.pose.to(*args), turn)

    @property
    def to_camera(self) -> Float[Tensor, "B V *T 3 3"]:
        """The rotations.

        Raises:
            ValueError: if there is no canonical frame.
        """
        if self.rotation is None:
            raise ValueError("these poses are in camera axes; relate the views first")
        return self.rotation

    @property
    def in_camera(self) -> Float[Tensor, "B V *T J 3"]:
        """Each view's pose, turned into that view's own camera."""
        if self.rotation is None:
            return self.pose
        return torch.einsum("bv...rc,bv...jc->bv...jr", self.rotation, self.pose)

    @property
    def in_every_camera(self) -> Float[Tensor, "B V V *T J 3"]:
        """Pose of view u (first V) turned into camera v (second V)."""
        return torch.einsum("bv...rc,bu...jc->buv...jr", self.to_camera, self.pose)

    @property
    def in_every_image(self) -> Float[Tensor, "B V V *T J 2"]:
        """`in_every_camera` without the depth, which is not computed (CVSF, Eq. 1)."""
        return torch.einsum("bv...rc,bu...jc->buv...jr", self.to_camera[..., :2, :], self.pose)

    @property
    def instants(self) -> "Lifted":
        """Every frame of every window by itself, without the axis of time."""
        turn = None if self.rotation is None else flatten_time(self.rotation)
        return Lifted(flatten_time(self.pose), turn)


def flatten_time(values: Float[Tensor, "B V T *shape"]) -> Float[Tensor, "N V *shape"]:
    """Frames of windows as samples: those of one window follow each other."""
    return values.transpose(1, 2).flatten(0, 1)


def unflatten_time(values: Float[Tensor, "N V *shape"], n_frames: int) -> Tensor:
    """The inverse of `flatten_time`: windows of `n_frames` frames."""
    return values.unflatten(0, (-1, n_frames)).transpose(1, 2)
