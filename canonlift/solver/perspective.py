"""Perspective images of a body, and how they change with the body and with the camera.

Camera axes are x right, y down, z away. With the joint X = R x relative to the body's origin, the
origin at pixel u and depth d, focal length f and nearness n = 1 / d, a joint is imaged at

    u + (f n (X, Y) - n Z (u - c)) / (1 + n Z)

which is the exact pinhole camera with principal point c. Where c is unknown the camera is taken to
look straight at the body, c = u. With f n kept and n -> 0 this is scaled orthography.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

NEAREST = 0.2  # smallest depth of a joint over that of the origin


class Cameras(NamedTuple):
    """V cameras in T frames; lengths in the image are in units of each view."""

    rotation: Float[Tensor, "N T V 3 3"]  # body axes -> camera axes
    origin: Float[Tensor, "N T V 2"]  # image of the body's origin, u
    log_nearness: Float[Tensor, "N T V"]  # log(1 / depth of the origin)
    log_focal: Float[Tensor, "N T V"]
    centre: Float[Tensor, "N _T V 2"]  # principal point, c; of no meaning where `aimed`
    aimed: Float[Tensor, "N _T V"]  # 1: c is unknown, and taken to be u; else 0

    def images(self, pose: Float[Tensor, "N T J 3"]) -> Float[Tensor, "N T V J 2"]:
        """Where the joints are seen."""
        return project(self, pose).image.movedim(0, -1)


class Projection(NamedTuple):
    """Images, and what their derivatives are made of; coordinates come first, for speed."""

    image: Float[Tensor, "2 N T V J"]
    joint: Float[Tensor, "3 N T V J"]  # in camera axes
    divisor: Float[Tensor, "N T V J"]  # depth of the joint over that of the origin


def project(cameras: Cameras, pose: Float[Tensor, "N T J 3"]) -> Projection:
    """Image every joint by every camera."""
    across = cameras.rotation.movedim((-2, -1), (0, 1))[..., None]
    x, y, z = pose[:, :, None].movedim(-1, 0).contiguous()
    joint = across[:, 0] * x
    joint.addcmul_(across[:, 1], y).addcmul_(across[:, 2], z)
    nearness = cameras.log_nearness.exp()[..., None]
    scale = (cameras.log_focal + cameras.log_nearness).exp()[..., None]
    depth = nearness * joint[2]
    divisor = (1 + depth).clamp_min_(NEAREST)
    origin = cameras.origin.movedim(-1, 0)[..., None]
    away = (origin - cameras.centre.movedim(-1, 0)[..., None]) * (1 - cameras.aimed)[..., None]
    image = (scale * joint[:2]).addcmul_(depth, away, value=-1).div_(divisor).add_(origin)
    return Projection(image, joint, divisor)


def derivatives(
    cameras: Cameras, seen: Projection, turning: bool = True
) -> tuple[Float[Tensor, "2 3 N T V J"], Float[Tensor, "2 P N T V J"]]:
    """Of the images, with respect to the joints in body axes, and to the cameras.

    The P are the origin (2), the logarithm of nearness and, if cameras are `turning`, a small turn
    of the camera axes (3) and the logarithm of the focal length.
    """
    image, (x, y, z), divisor = seen
    nearness = cameras.log_nearness.exp()[..., None]
    aimed = cameras.aimed[..., None]
    origin = cameras.origin.movedim(-1, 0)[..., None]
    middle = torch.where(aimed > 0, origin, cameras.centre.movedim(-1, 0)[..., None])
    per_depth = nearness / divisor
    scale = cameras.log_focal.exp()[..., None] * per_depth
    right, down = away = per_depth * (middle - image)
    across = cameras.rotation.movedim((-2, -1), (0, 1))[..., None]
    by_joint = scale * across[:2]
    by_joint.addcmul_(away[:, None], across[2])

    by_camera = image.new_zeros(2, 7 if turning else 3, *divisor.shape)
    by_camera[0, 0] = by_camera[1, 1] = aimed + (1 - aimed) / divisor
    by_camera[:, 2] = (image - origin) / divisor
    if turning:
        by_camera[0, 3], by_camera[0, 4], by_camera[0, 5] = (
            y * right,
            z * scale - x * right,
            -y * scale,
        )
        by_camera[1, 3], by_camera[1, 4], by_camera[1, 5] = (
            y * down - z * scale,
            -x * down,
            x * scale,
        )
        by_camera[:, 6] = scale * seen.joint[:2]
    return by_joint, by_camera
