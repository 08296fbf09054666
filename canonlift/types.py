"""The values that flow through canonlift: Views -> Lifted -> a Pass.

A sequence model goes from Windows to a Motion instead.

Axes, always in this order:
    B  samples: one person at one instant, or over a window, seen by every camera of a rig
    V  views: the cameras of that rig
    T  frames of a window
    J  joints, in the order of the config's skeleton
A trailing 2 is (x right, y down) in the image. A trailing 3 adds z, away from the camera.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from canonlift.geometry.scale import SMALLEST_NORM


@dataclass(frozen=True, eq=False)  # eq would compare tensors and fail on the truth value
class Target:
    """A 3D pose to imitate: guessed from all views together, or true where training may see it.

    Each view has the pose in its own camera axes, centred on the root joint, in any unit.
    """

    pose: Float[Tensor, "B V *T J 3"]
    trust: Float[Tensor, "B V *T J"]  # 0: no guess

    def __getitem__(self, index: Tensor | slice) -> "Target":
        """Pick samples."""
        return Target(self.pose[index], self.trust[index])

    def to(self, *args: torch.device | torch.dtype | str) -> "Target":
        """Move to a device or a floating-point type."""
        return Target(self.pose.to(*args), self.trust.to(*args))


@dataclass(frozen=True, eq=False)
class Views:
    """2D detections of one person by the V cameras of a rig.

    Keypoints are centred on the root joint; their scale is arbitrary, because one camera
    sees neither position nor size. Confidence 0 means "not observed": a missing camera is
    a camera whose confidences are all 0. There is no other mask. Where the confidence is 0
    the keypoint says nothing, but is finite.
    """

    keypoints: Float[Tensor, "B V J 2"]
    confidence: Float[Tensor, "B V J"]  # in [0, 1]
    rig: Int[Tensor, " B"]  # equal numbers share the same fixed, unknown cameras; -1: moving
    target: Target | None = None

    def __post_init__(self) -> None:
        if self.keypoints.shape[:-1] != self.confidence.shape:
            raise ValueError(
                f"keypoints {tuple(self.keypoints.shape)} and confidence "
                f"{tuple(self.confidence.shape)} disagree on (B, V, J)"
            )

    def __len__(self) -> int:
        return len(self.keypoints)

    def __getitem__(self, index: Tensor | slice) -> "Views":
        """Pick samples; a batch is `views[order]`."""
        target = None if self.target is None else self.target[index]
        return type(self)(self.keypoints[index], self.confidence[index], self.rig[index], target)

    def to(self, *args: torch.device | torch.dtype | str) -> "Views":
        """Move to a device or a floating-point type, as `Tensor.to` does."""
        place = [a for a in args if not isinstance(a, torch.dtype)]  # `rig` stays an integer
        return type(self)(
            self.keypoints.to(*args),
            self.confidence.to(*args),
            self.rig.to(*place) if place else self.rig,
            None if self.target is None else self.target.to(*args),
        )

    @cached_property
    def observed(self) -> Bool[Tensor, "B V *T J"]:
        """Which joints were seen at all."""
        return self.confidence > 0


@dataclass(frozen=True, eq=False)
class Windows(Views):
    """`Views` over T frames that follow each other at a steady rate, without a cut.

    Every frame is centred on its root joint; the scale of a view is one for the whole window.
    Frames before a recording begins or after it ends are frames in which nothing was observed.
    """

    keypoints: Float[Tensor, "B V T J 2"]
    confidence: Float[Tensor, "B V T J"]

    @cached_property
    def unit(self) -> Float[Tensor, "B V 1 1 1"]:
        """Twice the root mean square distance of joints from the root: about half a person."""
        seen = self.observed[..., None]
        total = torch.where(seen, self.keypoints.square(), 0.0).sum((2, 3, 4), keepdim=True)
        count = seen.sum((2, 3, 4), keepdim=True)
        return 2 * (total / count.clamp_min(1)).clamp_min(SMALLEST_NORM**2).sqrt()


@dataclass(frozen=True, eq=False)
class Motion:
    """What a sequence model believes, once per view."""

    in_camera: Float[Tensor, "B V T J 3"]  # camera axes, root at 0, x and y those of the keypoints

    @property
    def pose(self) -> Float[Tensor, "B V T J 3"]:
        """The same: each camera's own axes are all that there is of a canonical frame."""
        return self.in_camera


@dataclass(frozen=True, eq=False)
class Lifted:
    """What the lifter believes, once per view."""

    pose: Float[Tensor, "B V J 3"]  # canonical frame, shared by all views of a sample
    rotation: Float[Tensor, "B V 3 3"]  # canonical frame -> camera frame

    def __getitem__(self, index: Tensor | slice) -> "Lifted":
        """Pick samples."""
        return Lifted(self.pose[index], self.rotation[index])

    def to(self, *args: torch.device | torch.dtype | str) -> "Lifted":
        """Move to a device or a floating-point type."""
        return Lifted(self.pose.to(*args), self.rotation.to(*args))

    @property
    def in_camera(self) -> Float[Tensor, "B V J 3"]:
        """Each view's pose, turned into that view's own camera."""
        return torch.einsum("bvrc,bvjc->bvjr", self.rotation, self.pose)

    @property
    def in_every_camera(self) -> Float[Tensor, "B V V J 3"]:
        """Pose of view u (first V) turned into camera v (second V)."""
        return torch.einsum("bvrc,bujc->buvjr", self.rotation, self.pose)

    @property
    def in_every_image(self) -> Float[Tensor, "B V V J 2"]:
        """`in_every_camera` without the depth, which is not computed (CVSF, Eq. 1)."""
        return torch.einsum("bvrc,bujc->buvjr", self.rotation[:, :, :2], self.pose)
