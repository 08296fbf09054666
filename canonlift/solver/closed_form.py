"""Poses from all views of a recording at once, in closed form: targets for training."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from canonlift.body.anatomy import asymmetry, handedness
from canonlift.geometry.factorisation import factorise
from canonlift.geometry.scale import unit_scale
from canonlift.solver.least_squares import TOLERANCE, Observations, adjust
from canonlift.time_windows import window_frames
from canonlift.types import Lifted, Target, Views

SYMMETRIC = 0.2  # mean log ratio of left and right limbs at which trust falls to 1/e
FLEXED = 0.5  # mean `handedness` above which the poses are certainly not mirrored


@torch.no_grad()
def closed_form(views: Views, joints: Sequence[str], window: int = 1, block: int = 4096) -> Target:
    """Poses of a recording from all its views, without a network, training or calibration.

    The cameras are assumed to keep their rotations relative to each other over `window` frames,
    which is nearly true of cameras that pan along with an athlete. Single frames determine the
    rotations badly: on moving cameras they are off by 11 degrees in the median, over two seconds
    by 4. All joints of a window, each centred on the root of its frame, are factored as one rigid
    body and adjusted by robust least squares, in which each view keeps one scale. Of the two
    mirror images the one is taken whose knees and elbows flex as they do in people.

    Trust is high where left and right limbs have equal lengths and the flexion is clear. It is 0
    in frames that fewer than three views observed, and for joints that only one observed.

    Args:
        views: consecutive frames of one recording.
        joints: names of the joints.
        window: frames; windows overlap by half, and the result in a frame is that of the window
            whose middle is nearest.
        block: frames to work on at a time.
    """
    frames = window_frames(len(views), window)
    first, length = frames[:, 0], frames.shape[1]
    borders = (first[1:] + first[:-1] + length - 1) / 2  # between the middles of two windows
    nearest = torch.bucketize(torch.arange(len(views), dtype=borders.dtype), borders)
    poses, trusts = [], []
    for windows in torch.arange(len(first)).split(max(1, block // length)):
        pose, trust = _of_windows(views, frames[windows], joints)
        inner = ((nearest >= windows[0]) & (nearest <= windows[-1])).nonzero()[:, 0]
        window_of = nearest[inner] - windows[0]
        poses.append(pose[window_of, inner - first[nearest[inner]]])
        observed = views.observed[inner]
        by_three, by_two = observed.any(-1).sum(1) >= 3, observed.sum(1) >= 2
        trust = (trust[window_of] * by_three)[:, None, None] * by_two[:, None]
        trusts.append(trust * observed.any(-1)[..., None])
    dtype = views.keypoints.dtype
    return Target(torch.cat(poses).to(dtype), torch.cat(trusts).to(dtype))


def _of_windows(
    views: Views, frames: Int[Tensor, "N W"], joints: Sequence[str]
) -> tuple[Float[Tensor, "N W V J 3"], Float[Tensor, " N"]]:
    """Poses of the frames of each window, in camera axes, and the trust in each window."""
    length = frames.shape[1]
    # In double precision; all joints of a window as those of one rigid body.
    keypoints = views.keypoints[frames].double().transpose(1, 2).flatten(2, 3)
    confidence = views.confidence[frames].double().transpose(1, 2).flatten(2, 3)
    body = Views(keypoints, confidence, views.rig[frames[:, 0]])
    points = unit_scale(body.keypoints, body.observed)
    # Weighted by the square of the confidence: most joints of low confidence are wrong.
    factors = factorise(points, confidence.square())
    each = factors.pose[:, None].expand(-1, keypoints.shape[1], -1, -1)
    observations = Observations.of(body, Lifted(each, factors.rotation))
    pose, rotation = adjust(
        observations, factors.rotation, observations.prior, TOLERANCE / length**0.5
    )
    pose = pose.unflatten(1, (length, len(joints)))

    flexion = handedness(pose, joints).mean(1)
    depth = torch.ones(len(pose), 3, dtype=pose.dtype, device=pose.device)
    depth[:, 2] = torch.where(flexion < 0, -1.0, 1.0)
    in_camera = torch.einsum("bvrc,btjc->btvjr", rotation, pose) * depth[:, None, None, None]

    trust = (-(asymmetry(pose, joints).mean(1) / SYMMETRIC).square()).exp()
    if flexion.any():  # 0 everywhere for a skeleton without knees and elbows
        trust = trust * (flexion.abs() / FLEXED).clamp_max(1.0)
    return in_camera, trust
