"""3D targets for training: of all views together in each step, of ground truth, or none."""

from pathlib import Path

import numpy as np
import torch

from canonlift.body.skeleton import ROOT
from canonlift.data.frames import read_one
from canonlift.data.recording import Recording
from canonlift.methods.triangulation import Observations, resect, triangulate
from canonlift.solver.solve import solve
from canonlift.types import Lifted, Target, Views

TRUSTED = 0.5  # trust above which a target is more likely right than wrong


@torch.no_grad()
def consensus(views: Views, lifted: Lifted, rounds: int = 2) -> Target:
    """The views' own target where it is trusted, elsewhere a pose triangulated from all views.

    In each round the poses are triangulated with the current rotations, which are then fitted to
    those poses; the rotations begin with the lifted ones. Unlike the lifted poses the result
    depends on the detections of every view, so poses that learn it cannot become flat.

    A target is taken or replaced for a whole view, because the two have different sizes.
    """
    observations = Observations.of(views, lifted)
    pose, rotation = observations.prior, lifted.to_camera
    for _ in range(rounds):
        pose, weight = triangulate(observations, rotation, pose)
        rotation = resect(observations, rotation, pose, weight)
    in_camera = torch.einsum("bvrc,bjc->bvjr", rotation, pose)
    in_two = views.observed.any(-1).sum(-1) >= 2
    trust = (in_two[:, None, None] & views.observed.any(-1)[..., None]).to(in_camera.dtype)
    trust = trust.expand(views.confidence.shape)
    if views.target is not None:
        trusted = (views.target.trust.amax(-1) > TRUSTED)[..., None]
        in_camera = torch.where(trusted[..., None], views.target.pose, in_camera)
        trust = torch.where(trusted, (views.target.trust > 0).to(trust.dtype), trust)
    return Target(in_camera, trust)


def solved(recording: Recording, n_views: int) -> Target:
    """Poses solved from all views of a recording together, padded to `n_views`.

    In the axes of cameras that look straight at the person, as a lifter that is shown centred
    keypoints cannot know better. Trust is that of the solution; it is 0 for joints that fewer than
    two views observed, and everywhere in a recording of a single view.
    """
    missing = n_views - len(recording.views)
    seen = torch.from_numpy(recording.confidence) > 0
    if len(recording.views) < 2:
        pose, trust = torch.zeros(*seen.shape, 3), torch.zeros(seen.shape)
    else:
        solution = solve(recording)
        turned = np.einsum("tvrc,tvjc->tvjr", solution.facing, solution.in_camera)
        pose = torch.from_numpy(np.nan_to_num(turned))
        sure = torch.from_numpy(solution.trust)[:, None, None] * (seen.sum(1, keepdim=True) >= 2)
        trust = sure * seen.any(-1, keepdim=True)
    return Target(
        torch.nn.functional.pad(pose, (0, 0, 0, 0, 0, missing)),
        torch.nn.functional.pad(trust, (0, 0, 0, missing)),
    )


def empty(views: Views) -> Target:
    """A target without trust, for recordings read together with others that have a target."""
    return Target(
        views.keypoints.new_zeros(*views.confidence.shape, 3), torch.zeros_like(views.confidence)
    )


def ground_truth(path: Path, joints: tuple[str, ...], n_views: int) -> Target:
    """Ground truth of a recording, padded to `n_views`: for supervised training, nothing else.

    Raises:
        ValueError: if the recording has none.
    """
    recording = read_one(path, joints)
    if recording.pose3d is None:
        raise ValueError(f"{path}: has no pose3d to supervise with; set data.target: solved")
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
