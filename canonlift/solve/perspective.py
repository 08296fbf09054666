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
    centre: Float[Tensor, "N #T V 2"]  # principal point, c; of no meaning where `aimed`
    aimed: Float[Tensor, "N #T V"]  # 1: c is unknown, and taken to be u; else 0

    def turned(self, turn: Float[Tensor, "N #T 3 3"]) -> "Cameras":
        """The same cameras, of bodies whose axes are turned: x -> turn x."""
        return self._replace(rotation=self.rotation @ turn[:, :, None].mT)

    def images(self, pose: Float[Tensor, "N T J 3"]) -> Float[Tensor, "N T V J 2"]:
        """Where the joints are seen."""
        return project(self, pose).image


class Projection(NamedTuple):
    """Images, and what their derivatives are made of."""

    image: Float[Tensor, "N T V J 2"]
    joint: Float[Tensor, "N T V J 3"]  # in camera axes
    divisor: Float[Tensor, "N T V J 1"]  # depth of the joint over that of the origin


def project(cameras: Cameras, pose: Float[Tensor, "N T J 3"]) -> Projection:
    """Image every joint by every camera."""
    joint = pose[:, :, None] @ cameras.rotation.mT
    nearness = cameras.log_nearness.exp()[..., None, None]
    focal = cameras.log_focal.exp()[..., None, None]
    origin = cameras.origin[..., None, :]
    offset = (origin - cameras.centre[..., None, :]) * (1 - cameras.aimed[..., None, None])
    depth = nearness * joint[..., 2:]
    divisor = (1 + depth).clamp_min(NEAREST)
    image = origin + (focal * nearness * joint[..., :2] - depth * offset) / divisor
    return Projection(image, joint, divisor)


def derivatives(
    cameras: Cameras, seen: Projection, turning: bool = True
) -> tuple[Float[Tensor, "N T V J 2 3"], Float[Tensor, "N T V J 2 P"]]:
    """Of the images, with respect to the joints in camera axes, and to the cameras.

    The P are the origin (2), the logarithm of nearness and, if cameras are `turning`, a small turn
    of the camera axes (3) and the logarithm of the focal length.
    """
    nearness = cameras.log_nearness.exp()[..., None, None]
    focal = cameras.log_focal.exp()[..., None, None]
    aimed = cameras.aimed[..., None, None]
    image, joint, divisor = seen
    origin = cameras.origin[..., None, :]
    middle = torch.where(aimed > 0, origin, cameras.centre[..., None, :])
    per_depth = nearness / divisor
    away = per_depth * (middle - image)
    scale = (focal * per_depth).expand_as(divisor)
    zero = torch.zeros_like(scale)
    by_joint = torch.stack(
        [torch.cat([scale, zero, away[..., :1]], -1), torch.cat([zero, scale, away[..., 1:]], -1)],
        dim=-2,
    )
    of_origin = (aimed + (1 - aimed) / divisor).expand_as(divisor)
    by_nearness = (image - origin) / divisor
    columns = [
        torch.cat([of_origin, zero, by_nearness[..., :1]], dim=-1),
        torch.cat([zero, of_origin, by_nearness[..., 1:]], dim=-1),
    ]
    if turning:
        x, y, z = joint.unbind(-1)
        right, down = away.unbind(-1)
        scale = scale[..., 0]
        turns = [
            [y * right, z * scale - x * right, -y * scale],
            [y * down - z * scale, -x * down, x * scale],
        ]
        by_focal = scale[..., None] * joint[..., :2]
        columns = [
            torch.cat([column, torch.stack(turn, -1), by_focal[..., i : i + 1]], dim=-1)
            for i, (column, turn) in enumerate(zip(columns, turns, strict=True))
        ]
    return by_joint, torch.stack(columns, dim=-2)
