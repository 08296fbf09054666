"""Where a solution begins: poses of simulated people that look like those of all views.

A pose of the library is seen from all around and from several heights. Each view of a frame is
compared with all of these images, up to place and size, and the pose that suits all views together
is taken, with the direction that suits each view best. That needs no training, and as the people
of the library are no mirror images, nor is what is found.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from canonlift.body.skeleton import H36M17, mirrored
from canonlift.geometry.rotations import from_axis_angle, nearest_rotation
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.motions import MOTIONS
from canonlift.solver.rotation_averaging import average_cameras, relations

N_POSES, N_AZIMUTHS = 200, 16
ELEVATIONS_DEG = (-5.0, 12.0, 32.0)  # of the camera above the body's horizon
WORST = 0.3  # residual that a single view may contribute at most; 1: no likeness at all
UNLIKELY = 0.05  # residual at which a view's direction counts half
LEAST_JOINTS = 6  # that a skeleton shares with the library
DOUBTFUL = 0.2  # mean residual of a view in a window above which it is turned by quarters
CLEARLY = 0.6  # residual after turning over that before, below which the view stays turned
BLOCK = 64  # frames compared at a time


class Library(NamedTuple):
    """Poses and directions to see them from."""

    pose: Float[Tensor, "P J 3"]  # rms distance of joints from the root: 1
    rotation: Float[Tensor, "A 3 3"]  # to the axes of the camera


@cache
def library() -> Library:
    """Poses as different as possible from each other, of simulated people and their mirror images.

    The mirror image of a person, left and right exchanged, is a person.
    """
    generator = np.random.default_rng(0)
    parts = []
    for _ in range(24):
        motions = [str(name) for name in generator.permutation(list(MOTIONS))]
        parts.append(perform(sample_person(generator), motions, 300, 10.0, generator)[::3])
    pose = torch.from_numpy(np.concatenate(parts)).float()
    pose = pose - pose[:, :1]
    hips = pose[:, H36M17.index("l_hip")] - pose[:, H36M17.index("r_hip")]
    turn = torch.zeros_like(hips)
    turn[:, 1] = torch.atan2(hips[:, 2], hips[:, 0])
    pose = pose @ from_axis_angle(turn).mT
    flipped = pose[:, list(mirrored(H36M17))] * torch.tensor([-1.0, 1.0, 1.0])
    pose = torch.cat([pose, flipped])
    pose = pose / pose.square().sum(-1).mean(-1).sqrt()[:, None, None]
    pose = pose[_far_apart(pose.flatten(1), N_POSES)]

    down = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # y up to y down, and z away
    zero = torch.zeros(1)
    turns = []
    for elevation in ELEVATIONS_DEG:
        tilt = from_axis_angle(torch.tensor([np.deg2rad(elevation), 0.0, 0.0]).float())
        for azimuth in torch.arange(N_AZIMUTHS) * (2 * torch.pi / N_AZIMUTHS):
            about = from_axis_angle(torch.cat([zero, azimuth[None], zero]))
            turns.append(down @ tilt @ about)
    return Library(pose, torch.stack(turns))


def _far_apart(points: Float[Tensor, "N D"], count: int) -> list[int]:
    """Points of which each is the one farthest from all before it."""
    chosen, distance = [0], torch.full_like(points[:, 0], torch.inf)
    for _ in range(count - 1):
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(1))
        chosen.append(int(distance.argmax()))
    return chosen


class Likenesses(NamedTuple):
    """The pose of the library that each frame is most like, and the direction of each view."""

    pose: Float[Tensor, "*F J 3"]
    rotation: Float[Tensor, "*F V 3 3"]  # to the axes of the camera
    weight: Float[Tensor, "*F V"]
    residual: Float[Tensor, "*F V"]  # 0: exactly like it, 1: not at all

    def of(self, frames: Int[Tensor, "N T"]) -> "Likenesses":
        """Those of windows of frames."""
        return Likenesses(*(part[frames] for part in self))

    def start(self) -> tuple[Float[Tensor, "N T J 3"], Float[Tensor, "N V 3 3"]]:
        """Poses and rotations of windows in which cameras keep their relative rotations."""
        cameras = average_cameras(relations(self.rotation.double(), self.weight.double()))
        cameras = cameras.to(self.pose)
        product = torch.einsum("ntv,nvrc,ntvrd->ntcd", self.weight, cameras, self.rotation)
        return self.pose @ nearest_rotation(product).mT, cameras


class Images(NamedTuple):
    """The library's poses on given joints, and how they look from all directions."""

    here: list[int]  # joints that the library has
    pose: Float[Tensor, "P J 3"]  # on all joints
    rotation: Float[Tensor, "A 3 3"]
    image: Float[Tensor, "P A K 2"]  # of the joints `here`

    @classmethod
    def of(cls, joints: Sequence[str], like: Tensor) -> "Images":
        """The joints that the library has; the others are put at the root."""
        known = [name for name in joints if name in H36M17]
        if len(known) < LEAST_JOINTS:
            raise ValueError(
                f"of the joints {', '.join(joints)} only {len(known)} are those of a known body; "
                f"at least {LEAST_JOINTS} of {', '.join(H36M17)} are needed"
            )
        pose, rotation = (part.to(like) for part in library())
        here = [joints.index(name) for name in known]
        there = [H36M17.index(name) for name in known]
        image = torch.einsum("arc,pjc->pajr", rotation[:, :2], pose[:, there])
        whole = pose.new_zeros(len(pose), len(joints), 3)
        whole[:, here] = pose[:, there]
        return cls(here, whole, rotation, image)


class Found(NamedTuple):
    """What is most like the views of each frame."""

    pose: Int[Tensor, " F"]
    direction: Int[Tensor, "F V"]
    residual: Float[Tensor, "F V"]

    def unlikeness(self, seen: Float[Tensor, "F V J"]) -> Float[Tensor, " V"]:
        """Mean residual of each view."""
        visible = (seen > 0).any(-1).to(self.residual.dtype)
        return (self.residual * visible).sum(0) / visible.sum(0).clamp_min(1)


def look_up(
    points: Float[Tensor, "F V J 2"], confidence: Float[Tensor, "F V J"], joints: Sequence[str]
) -> Likenesses:
    """Compare every frame with the library.

    Views that are unlike everybody are turned by quarters, as of a phone held upright, and
    compared again.

    Raises:
        ValueError: if there are too few joints that the library has.
    """
    images = Images.of(joints, points)
    seen, points = confidence[..., images.here], points[..., images.here, :]
    found = _search(points, seen, images)
    unlike = found.unlikeness(seen) > DOUBTFUL
    turn = torch.eye(3).to(points).repeat(len(unlike), 1, 1)
    if unlike.any():
        turn[:, :2, :2] = _quarter_turns(_quarters(points, seen, images) * unlike, points)
        found = _search(points @ turn[:, :2, :2].mT, seen, images)
    rotation = turn.mT @ images.rotation[found.direction]
    weight = seen.mean(-1) / (1 + (found.residual / UNLIKELY).square())
    return Likenesses(images.pose[found.pose], rotation, weight, found.residual)


def _search(points: Tensor, seen: Tensor, images: Images) -> Found:
    """The pose for all views of a frame together, and a direction for each."""
    parts = [
        _best(p, s, images.image)
        for p, s in zip(points.split(BLOCK), seen.split(BLOCK), strict=True)
    ]
    return Found(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _quarters(points: Tensor, seen: Tensor, images: Images) -> Int[Tensor, " V"]:
    """By how many quarter turns each view, by itself, becomes most like a standing person."""
    some = torch.linspace(0, len(points) - 1, min(32, len(points))).long()
    points, seen = points[some], seen[some]
    n_views = seen.shape[1]
    single = seen.flatten(0, 1)[:, None]
    likeness = []
    for quarter in range(4):
        turn = _quarter_turns(torch.full((n_views,), quarter), points)
        turned = (points @ turn.mT).flatten(0, 1)[:, None]
        found = _search(turned, single, images)
        likeness.append(found._replace(residual=found.residual.view(-1, n_views)).unlikeness(seen))
    least = torch.stack(likeness)
    best = least.argmin(0)
    return torch.where(least.amin(0) < CLEARLY * least[0], best, 0)


def _quarter_turns(quarter: Int[Tensor, " V"], like: Tensor) -> Float[Tensor, "V 2 2"]:
    angle = quarter.to(like) * (torch.pi / 2)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))


def _best(
    points: Float[Tensor, "F V J 2"],
    weight: Float[Tensor, "F V J"],
    image: Float[Tensor, "P A J 2"],
) -> tuple[Tensor, Tensor, Tensor]:
    """The pose of each frame, the direction of each view, and its residual, 0 to 1."""
    n_views, n_poses = weight.shape[1], image.shape[0]
    flat, w = image.flatten(0, 1), weight.flatten(0, 1)
    total = w.sum(1).clamp_min(1e-6)
    centred = points.flatten(0, 1)
    centred = centred - ((w[..., None] * centred).sum(1) / total[:, None])[:, None]
    size = (w[..., None] * centred.square()).sum((1, 2)).clamp_min(1e-12).sqrt()
    weighted = (w[..., None] * centred / size[:, None, None]).flatten(1)
    # Weighted least squares over place and size, for every image: only products of matrices.
    product = weighted @ flat.flatten(1).mT
    spread = w @ flat.square().sum(-1).mT
    for axis in (0, 1):
        spread -= (w @ flat[..., axis].mT).square_() / total[:, None]
    likeness = product.clamp_min_(0).square_() / spread.clamp_min_(1e-6)
    residual = (1 - likeness).clamp_min_(0).view(-1, n_views, n_poses, image.shape[1])
    least, direction = residual.min(-1)  # F V P
    seen = (weight.sum(-1) > 0)[..., None]
    pose = (least.clamp_max(WORST) * seen).sum(1).argmin(-1)
    index = pose[:, None, None].expand(-1, n_views, 1)
    return pose, direction.gather(2, index)[..., 0], least.gather(2, index)[..., 0]
