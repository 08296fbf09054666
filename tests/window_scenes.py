"""Windows of moving people before still cameras, and networks whose answers are known."""

from dataclasses import replace

import torch
from synthetic_scene import HOME, random, random_rotations, uniform

from canonlift.models.temporal import CameraLifter
from canonlift.types import Lifted, Views

RIG = torch.full((60,), -1)


class Fixed(CameraLifter):
    """Returns given poses, whatever the input."""

    def __init__(self, motion):
        torch.nn.Module.__init__(self)
        self.motion = motion

    def forward(self, windows):  # noqa: ARG002
        return self.motion


class Recalling(CameraLifter):
    """Returns the true pose of each frame of a recording, found by its detections."""

    def __init__(self, windows, motion):
        torch.nn.Module.__init__(self)
        self.anything = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.pose = windows.keypoints[0], motion.in_camera[0]

    def forward(self, windows):
        gap = windows.keypoints[:, :, :, None] - self.seen[:, None]
        frame = gap.abs().amax((-2, -1)).argmin(-1)
        return Lifted(self.pose[torch.arange(len(self.pose))[:, None], frame], None)


class Linear(CameraLifter):
    """Returns the detections, with a depth that is linear in them."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.anything = torch.nn.Parameter(torch.zeros(()))

    def forward(self, windows):
        x, y = windows.keypoints.unbind(-1)
        return Lifted(torch.stack([x, y, x - 2 * y], -1), None)


def scene(n_samples=2, n_views=3, n_frames=10, seed=0):
    """Detections without error of moving people by still cameras, and the true motion."""
    world = random(n_samples, 1, n_frames, 17, 3, seed=seed)
    world = world - world[..., HOME : HOME + 1, :]
    rotation = random_rotations(n_samples, n_views, seed=seed + 1)
    size = 50 + 100 * uniform(n_samples, n_views, 1, 1, 1, seed=seed + 2)
    in_camera = size * torch.einsum(
        "bvrc,bvtjc->bvtjr", rotation, world.expand(-1, n_views, -1, -1, -1)
    )
    confidence = torch.ones(in_camera.shape[:-1], dtype=torch.float64)
    rig = torch.full((n_samples,), -1)
    return Views(in_camera[..., :2], confidence, rig), Lifted(in_camera, None), rotation


def disturbed(windows, motion, seed=5):
    """The same with nothing special about it, and joints, frames and a view unobserved."""
    unit = windows.unit
    noise = 0.1 * unit * random(*motion.in_camera.shape, seed=seed)
    confidence = uniform(*windows.confidence.shape, seed=seed + 1)
    confidence = confidence * (confidence > 0.2)
    confidence[0, 1, 7:] = 0
    confidence[1, 2] = 0
    keypoints = windows.keypoints + 0.1 * unit * random(*windows.keypoints.shape, seed=seed + 2)
    return replace(windows, keypoints=keypoints, confidence=confidence), Lifted(
        motion.in_camera + noise, None
    )
