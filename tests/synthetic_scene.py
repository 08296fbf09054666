"""Synthetic scenes: known poses and orthographic cameras, each with a scale of its own."""

from dataclasses import replace

import pytest
import torch

from canonlift.body.skeleton import H36M17, ROOT
from canonlift.geometry.rotations import from_axis_angle
from canonlift.geometry.scale import norm, unit_scale
from canonlift.types import Lifted, Views

HOME = H36M17.index(ROOT)


def random_rotations(*shape, seed=0):
    """Uniformly distributed, in float64."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(*shape, 3, 3, generator=generator, dtype=torch.float64))
    q = q * torch.diagonal(r, dim1=-2, dim2=-1).sign()[..., None, :]
    return q * torch.linalg.det(q)[..., None, None]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turned(lifted, by, seed=0):
    """The same with every rotation turned by about `by` radians."""
    vector = by * random(*lifted.rotation.shape[:2], 3, seed=seed) / 3**0.5
    return Lifted(lifted.pose, from_axis_angle(vector) @ lifted.rotation)


def scene(n_samples=3, n_views=4, seed=0):
    """Detections without any error, and the truth that a perfect lifter would predict."""
    pose = random(n_samples, 1, len(H36M17), 3, seed=seed).expand(-1, n_views, -1, -1)
    pose = pose - pose[:, :, HOME : HOME + 1]
    truth = Lifted(pose, random_rotations(n_samples, n_views, seed=seed + 1))
    size = 50 + 100 * uniform(n_samples, n_views, 1, 1, seed=seed + 2)
    confidence = torch.ones(pose.shape[:-1], dtype=torch.float64)
    rig = torch.full((n_samples,), -1)
    return Views(size * truth.in_camera[..., :2], confidence, rig), truth


def disturbed(views, lifted, seed=0):
    """A scene with nothing special about it: no two samples, views or joints agree."""
    size = norm(views.keypoints, views.observed)
    keypoints = views.keypoints + 0.02 * size * random(*views.keypoints.shape, seed=seed)
    keypoints = keypoints - keypoints[:, :, HOME : HOME + 1]
    pose = lifted.pose + 0.3 * random(*lifted.pose.shape, seed=seed + 1)
    pose = pose - pose[:, :, HOME : HOME + 1]
    confidence = uniform(*views.confidence.shape, seed=seed + 2)
    return (
        replace(views, keypoints=keypoints, confidence=confidence),
        turned(Lifted(pose, lifted.rotation), 0.2, seed=seed + 3),
    )


def normalised(views):
    """Keypoints in the unit that fusion works in."""
    return unit_scale(views.keypoints, views.observed)


@pytest.fixture
def exact():
    return scene()


@pytest.fixture
def noisy():
    """Symmetric inputs hide bugs: on `exact`, all views agree whatever the weights are."""
    return disturbed(*scene())
