"""Solve a recording: poses and cameras of every frame, from the 2D joints of all views.

No calibration, no training, no 3D label: cameras with perspective, moving or fixed.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from canonlift.body.skeleton import H36M17, ROOT, bones, conversion, lacking
from canonlift.data.recording import Recording
from canonlift.data.solution import Solution
from canonlift.solve.joints import Finished, finish
from canonlift.solve.observed import Observed, observe
from canonlift.solve.tracks import Track, track

EXTRA = ("pelvis", "thorax")  # joints that are added where they can be computed


@torch.no_grad()
def solve(
    recording: Recording,
    *,
    focal_px: float | Sequence[float] | None = None,
    shared_focal: bool = False,
    device: str = "cpu",
) -> Solution:
    """Solve for poses, cameras and repaired joints of a recording of two or more views.

    Args:
        recording: with `rig` set, its cameras are taken to be fixed; else each may move and zoom.
        focal_px: focal length of each camera, or of all; estimated where not given.
        shared_focal: all cameras have the same focal length, as phones of one kind.
        device: where to compute.

    Raises:
        ValueError: if there are fewer than two views, or too few joints of a known body.
    """
    n_views = len(recording.views)
    focal = None if focal_px is None else np.broadcast_to(np.asarray(focal_px, float), (n_views,))
    observed = observe(recording, focal, device=device)
    known = [i for i, name in enumerate(recording.joints) if name in H36M17]
    names = [recording.joints[i] for i in known]
    tracked = track(
        observed.pick(known),
        names,
        recording.fps,
        bool(recording.rig),
        focal is not None,
        shared_focal,
    )
    found = finish(observed, tracked, known, recording.joints, recording.fps)
    return _solution(recording, tracked, found)


def _solution(recording: Recording, tracked: Track, found: Finished) -> Solution:
    extra = tuple(
        name for name in EXTRA if name not in recording.joints and not lacking(recording.joints, (name,))
    )
    joints = recording.joints + extra
    mix = torch.from_numpy(conversion(recording.joints, joints)).to(found.pose)
    pose, image = mix @ found.pose, mix @ found.image
    covariance = torch.einsum("ij,tjcd->ticd", mix.square(), found.covariance)
    whole = recording.on_skeleton(joints)
    root = joints.index(ROOT) if ROOT in joints else None
    middle = pose[:, root] if root is not None else pose.mean(1)
    in_camera = torch.einsum("tvrc,tc->tvr", tracked.rotation, middle)
    nearness = found.log_nearness.exp()
    deeper = 1 + nearness * in_camera[..., 2]
    scale = tracked.log_focal.exp() * nearness
    start, end = (list(side) for side in zip(*bones(joints), strict=True))
    length = (pose[:, start] - pose[:, end]).norm(dim=-1).sum(-1)
    seen = whole.confidence.max(-1) > 0
    size = length[torch.from_numpy(seen.any(1))].median().clamp_min(1e-9)
    root_px = image[:, :, root] if root is not None else found.origin
    weight = torch.einsum("ij,tvj->tvi", mix, found.weight)
    blind = ~seen

    def array(values: Tensor, missing: np.ndarray | None = None) -> np.ndarray:
        out = values.float().numpy(force=True).copy()
        if missing is not None:
            out[missing] = np.nan
        return out

    return Solution(
        whole,
        pose=array((pose - middle[:, None]) / size, ~seen.any(1)),
        rotation=array(tracked.rotation, blind),
        focal_px=array(tracked.log_focal.exp(), blind),
        distance=array(deeper / nearness / size, blind),
        root_px=array(root_px, blind),
        keypoints_refined=array(image, blind),
        inlier=array(weight),
        covariance=array(covariance / size.square(), ~seen.any(1)),
        trust=array(_trust(found, tracked)),
        swapped=found.swapped.numpy(force=True),
    )


def _trust(found: Finished, tracked: Track) -> Float[Tensor, " T"]:
    kept = found.weight.mean((1, 2))
    return kept
