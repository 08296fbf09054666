"""Where 3D targets for `losses.imitation` come from."""

from collections.abc import Sequence
from pathlib import Path

import torch

from canonlift.anatomy import asymmetry, handedness
from canonlift.data.session import read_one
from canonlift.geometry.factorisation import factorise
from canonlift.geometry.scale import unit_scale
from canonlift.multiview import Sight, resect, triangulate
from canonlift.skeleton import ROOT
from canonlift.types import Lifted, Target, Views

SYMMETRIC = 0.1  # mean log ratio of left and right limbs at which trust falls to 1/e
FOLDED = 1.0  # handedness from which on a pose is surely not mirrored


def closed_form(views: Views, joints: Sequence[str], block: int = 4096) -> Target:
    """Guess each sample's pose from all its views at once, without training or calibration.

    The images of three or more views are factored; of the two mirror images the one whose
    knees and elbows fold like a person's is taken. Trust is high where left and right limbs
    come out equally long and the fold is clear; it is 0 with fewer than three views.
    """
    parts = [_closed_form(views[i : i + block], joints) for i in range(0, len(views), block)]
    return Target(torch.cat([p.pose for p in parts]), torch.cat([p.trust for p in parts]))


@torch.no_grad()
def consensus(views: Views, lifted: Lifted, rounds: int = 2) -> Target:
    """What all views together say of the pose, starting from what was lifted from each.

    Poses are triangulated with the lifted rotations, rotations found anew for those poses, and
    so on. Unlike the poses themselves this is tied to the detections of every view, so learning
    it cannot flatten them; unlike `closed_form` it needs a lifter, and serves every frame.
    """
    seen = Sight.of(views, lifted)
    pose, rotation = seen.prior, lifted.rotation
    for _ in range(rounds):
        pose, say = triangulate(seen, rotation, pose)
        rotation = resect(seen, rotation, pose, say)
    in_camera = torch.einsum("bvrc,bjc->bvjr", rotation, pose)
    in_two = views.observed.any(-1).sum(-1) >= 2
    trust = in_two[:, None, None] & views.observed.any(-1)[..., None]
    return Target(in_camera, trust.to(in_camera.dtype).expand(views.confidence.shape))


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


def _closed_form(views: Views, joints: Sequence[str]) -> Target:
    # In double precision and by the square of the confidence: unsure joints are mostly wrong.
    points = unit_scale(views.keypoints, views.observed).double()
    factors = factorise(points, views.confidence.double().square())
    fold = handedness(factors.pose, joints)
    mirrored = torch.where(fold < 0, -1.0, 1.0)

    in_camera = torch.einsum("bvrc,bjc->bvjr", factors.rotation, factors.pose)
    depth = torch.stack([torch.ones_like(mirrored), torch.ones_like(mirrored), mirrored], dim=-1)
    in_camera = in_camera * depth[:, None, None]

    trust = (-(asymmetry(factors.pose, joints) / SYMMETRIC).square()).exp()
    if fold.any():  # a skeleton without limbs has no fold to go by
        trust = trust * (fold.abs() / FOLDED).clamp_max(1.0)
    seen = views.observed.any(-1)
    trust = trust * (seen.sum(-1) >= 3)
    everywhere = (trust[:, None] * seen)[..., None].expand(views.confidence.shape)
    dtype = views.keypoints.dtype
    return Target(in_camera.to(dtype), everywhere.to(dtype))
