"""Where 3D targets for `losses.imitation` come from."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from canonlift.body.anatomy import asymmetry, handedness
from canonlift.body.skeleton import ROOT
from canonlift.data.frames import read_one
from canonlift.geometry.factorisation import factorise
from canonlift.geometry.scale import unit_scale
from canonlift.solve.least_squares import TOLERANCE, Sight, adjust, resect, triangulate
from canonlift.types import Lifted, Target, Views

SYMMETRIC = 0.2  # mean log ratio of left and right limbs at which trust falls to 1/e
TRUSTED = 0.5  # trust from which on a target is more likely right than wrong
FOLDED = 0.5  # mean handedness from which on poses are surely not mirrored


@torch.no_grad()
def closed_form(views: Views, joints: Sequence[str], window: int = 1, block: int = 4096) -> Target:
    """Guess the poses of a take from all its views at once, without training or calibration.

    Over `window` frames the cameras are taken to keep their rotations relative to each other;
    panning along with an athlete hardly changes these, and one instant says too little: on
    moving cameras the orientations of single instants are off by 11 degrees in the median, those
    of two seconds by 4. All joints of a window, each centred on the root of its frame, are
    factored as one body and adjusted by robust least squares; of the two mirror images the one
    whose knees and elbows fold like a person's is taken. Trust is high where left and right
    limbs come out equally long and the fold is clear; it is 0 in frames that fewer than three
    views saw, and for joints that only one saw. Within a window each view keeps its scale, too.

    Args:
        views: consecutive frames of one take.
        joints: names of the joints.
        window: frames; they overlap by half, and a frame is taken from the window in whose
            middle it is.
        block: frames to work on at a time.
    """
    length = min(window, len(views))
    first = torch.arange(0, len(views) - length + 1, max(1, length // 2))
    first = torch.cat([first, torch.tensor([len(views) - length])]).unique()
    middles = (first[1:] + first[:-1] + length - 1) / 2  # between the middles of two windows
    own = torch.bucketize(torch.arange(len(views), dtype=middles.dtype), middles)
    poses, trusts = [], []
    for windows in torch.arange(len(first)).split(max(1, block // length)):
        frames = first[windows, None] + torch.arange(length)
        pose, trust = _of_windows(views, frames, joints)
        mine = ((own >= windows[0]) & (own <= windows[-1])).nonzero()[:, 0]
        at = own[mine] - windows[0]
        poses.append(pose[at, mine - first[own[mine]]])
        seen = views.observed[mine]
        by_three, by_two = seen.any(-1).sum(1) >= 3, seen.sum(1) >= 2
        trust = (trust[at] * by_three)[:, None, None] * by_two[:, None]
        trusts.append(trust * seen.any(-1)[..., None])
    dtype = views.keypoints.dtype
    return Target(torch.cat(poses).to(dtype), torch.cat(trusts).to(dtype))


@torch.no_grad()
def consensus(views: Views, lifted: Lifted, rounds: int = 2) -> Target:
    """What all views together say of the pose: in the views' own target, or of this instant.

    Where there is no trusted target, poses are triangulated with the lifted rotations, rotations
    found anew for those poses, and so on. Unlike the lifted poses this is tied to the detections
    of every view, so learning it cannot flatten them.
    """
    seen = Sight.of(views, lifted)
    pose, rotation = seen.prior, lifted.rotation
    for _ in range(rounds):
        pose, say = triangulate(seen, rotation, pose)
        rotation = resect(seen, rotation, pose, say)
    in_camera = torch.einsum("bvrc,bjc->bvjr", rotation, pose)
    in_two = views.observed.any(-1).sum(-1) >= 2
    trust = (in_two[:, None, None] & views.observed.any(-1)[..., None]).to(in_camera.dtype)
    trust = trust.expand(views.confidence.shape)
    if views.target is not None:  # whole poses: the two have different sizes
        known = (views.target.trust.amax(-1) > TRUSTED)[..., None]
        in_camera = torch.where(known[..., None], views.target.pose, in_camera)
        trust = torch.where(known, (views.target.trust > 0).to(trust.dtype), trust)
    return Target(in_camera, trust)


def none(views: Views) -> Target:
    """A target that nothing is known of: of recordings beside others that have one."""
    return Target(
        views.keypoints.new_zeros(*views.confidence.shape, 3), torch.zeros_like(views.confidence)
    )


def true(path: Path, joints: tuple[str, ...], n_views: int) -> Target:
    """Ground truth of a recording, padded to `n_views`: for supervised training, nothing else.

    Raises:
        ValueError: if the recording has none.
    """
    recording = read_one(path, joints)
    if recording.pose3d is None:
        raise ValueError(f"{path}: has no pose3d to supervise with; set data.target: closed_form")
    root = joints.index(ROOT)
    pose = torch.from_numpy(recording.pose3d - recording.pose3d[:, :, root : root + 1])
    known = pose.isfinite().all(-1)
    missing = n_views - pose.shape[1]
    return Target(
        torch.nn.functional.pad(
            pose.masked_fill(~known[..., None], 0.0), (0, 0, 0, 0, 0, missing)
        ),
        torch.nn.functional.pad(known.to(pose.dtype), (0, 0, 0, missing)),
    )


def _of_windows(
    views: Views, frames: Int[Tensor, "N W"], joints: Sequence[str]
) -> tuple[Float[Tensor, "N W V J 3"], Float[Tensor, " N"]]:
    """Poses in camera axes of the frames of each window, and the trust in the window."""
    length = frames.shape[1]
    # In double precision; all joints of a window as those of one body.
    keypoints = views.keypoints[frames].double().transpose(1, 2).flatten(2, 3)
    confidence = views.confidence[frames].double().transpose(1, 2).flatten(2, 3)
    body = Views(keypoints, confidence, views.rig[frames[:, 0]])
    points = unit_scale(body.keypoints, body.observed)
    # By the square of the confidence: unsure joints are mostly wrong.
    factors = factorise(points, confidence.square())
    each = factors.pose[:, None].expand(-1, keypoints.shape[1], -1, -1)
    seen = Sight.of(body, Lifted(each, factors.rotation))
    pose, rotation = adjust(seen, factors.rotation, seen.prior, TOLERANCE / length**0.5)
    pose = pose.unflatten(1, (length, len(joints)))

    fold = handedness(pose, joints).mean(1)
    depth = torch.ones(len(pose), 3, dtype=pose.dtype, device=pose.device)
    depth[:, 2] = torch.where(fold < 0, -1.0, 1.0)
    in_camera = torch.einsum("bvrc,btjc->btvjr", rotation, pose) * depth[:, None, None, None]

    trust = (-(asymmetry(pose, joints).mean(1) / SYMMETRIC).square()).exp()
    if fold.any():  # a skeleton without limbs has no fold to go by
        trust = trust * (fold.abs() / FOLDED).clamp_max(1.0)
    return in_camera, trust
