"""The mean shape of the training poses: a baseline that evaluation compares with."""

import torch
from jaxtyping import Float
from torch import Tensor

from canonlift.data.windows import Samples
from canonlift.geometry.alignment import align_similarity
from canonlift.geometry.rotations import nearest_rotation
from canonlift.geometry.scale import unit_scale
from canonlift.models.network import Network


@torch.inference_mode()
def mean_pose(network: Network, samples: Samples, most: int = 20_000) -> Float[Tensor, "J 3"]:
    """Mean shape of the lifted training poses, in their mean heading, at unit norm.

    Of sessions of more than half a million frames, an even sample is lifted.

    Poses are first turned onto their common mean (generalised Procrustes); a mean over camera
    axes would mix all headings into a body without left and right.
    """
    chosen = torch.arange(0, len(samples), max(1, len(samples) * samples.length // 250_000))
    n_views = samples.frames.summary().views
    every = max(1, len(chosen) * samples.length * n_views // most)
    poses = []
    for some in chosen.split(samples.at_once):
        views = samples[some]
        poses.append(network(views).in_camera[views.observed.any(-1)][::every])
    pose = torch.cat(poses)
    pose = pose[pose.norm(dim=(1, 2)) > 1e-6]  # a pose that is a point has no heading
    pose = unit_scale(pose, torch.ones_like(pose[..., 0], dtype=torch.bool))
    mean, turns = pose[0], torch.eye(3, dtype=pose.dtype, device=pose.device)[None]
    for _ in range(5):
        turns = align_similarity(pose, mean.expand_as(pose)).rotation
        mean = (pose @ turns.mT).mean(0)
        mean = mean / mean.norm()
    heading = nearest_rotation(turns.mT.sum(0))
    return (mean @ heading.mT).cpu()
