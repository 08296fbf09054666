"""Exact scenes for the solver: people before pinhole cameras, fixed or panning, nothing wrong."""

import numpy as np
import torch

from canonlift.body.skeleton import H36M17
from canonlift.data.recording import Recording
from canonlift.geometry.rotations import from_axis_angle
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.cameras import CameraConfig, Cameras, place_cameras
from canonlift.solver.bundle import Basis, Detections, Priors, Solved
from canonlift.solver.perspective import Cameras as SolvedCameras


def windows(n=2, t=6, v=3, j=9, aimed=False, seed=0, dtype=torch.float64):
    """Random bodies and cameras near them, and where the cameras see the joints."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    pose = 0.5 * random(n, t, j, 3)
    rotation = from_axis_angle(random(n, 1, v, 3)).expand(n, t, v, 3, 3)
    cameras = SolvedCameras(
        rotation,
        0.3 * random(n, t, v, 2),
        -1.2 + 0.05 * random(n, t, v),
        (1.1 + 0.1 * random(n, 1, v)).expand(n, t, v),
        0.1 * random(n, 1, v, 2),
        torch.full((n, 1, v), float(aimed), dtype=dtype),
    )
    return pose, cameras


def disturbed(pose, cameras, by=0.05, seed=1):
    """A start for the solver that is not the truth."""
    generator = torch.Generator().manual_seed(seed)

    def random(like):
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    turn = from_axis_angle(by * random(cameras.rotation[:, :1, :, 0]))
    moved = cameras._replace(
        rotation=turn @ cameras.rotation,
        origin=cameras.origin + by * random(cameras.origin),
        log_nearness=cameras.log_nearness + by * random(cameras.log_nearness),
        log_focal=cameras.log_focal + by * random(cameras.log_focal[:, :1]),
    )
    return Solved.begin(pose + by * random(pose), moved)


def no_priors(pose, cameras, weight=1e-9):
    """Priors at the truth, too weak to matter but for what nothing determines."""
    return Priors(
        pose=pose,
        pose_weight=weight,
        origin=cameras.origin,
        origin_weight=weight,
        log_nearness=cameras.log_nearness,
        nearness_weight=weight,
        log_focal=cameras.log_focal,
        focal_weight=weight,
    )


def constant(n_frames, dtype=torch.float64):
    """Cameras that turn and zoom in no frame."""
    return Basis(torch.ones(n_frames, 1, dtype=dtype), torch.ones(n_frames, 1, dtype=dtype))


def seen(pose, cameras):
    """Exact detections, all of confidence 1."""
    images = cameras.images(pose)
    return Detections(images, torch.ones_like(images[..., 0]))


def filmed(
    n_frames=60, n_views=3, fps=10.0, motion="jump", seed=0, noise_px=0.0, **options
) -> tuple[Recording, Cameras]:
    """A recording whose detections are exact, or nearly, and its true cameras."""
    generator = np.random.default_rng(seed)
    pose = perform(sample_person(generator), [motion], n_frames, fps, generator)
    config = CameraConfig(n_views=n_views, distance_m=(4.0, 8.0), **options)
    cameras = place_cameras(pose, fps, config, generator)
    points = cameras.in_axes(pose)
    keypoints = cameras.project(points)
    keypoints = keypoints + noise_px * generator.standard_normal(keypoints.shape)
    recording = Recording(
        keypoints.astype(np.float32),
        np.ones(keypoints.shape[:3], np.float32),
        H36M17,
        tuple(f"cam{view}" for view in range(n_views)),
        fps,
        rig="rig" if options.get("fixed") else "",
        image_size=np.tile(np.array(cameras.image_size, np.int32), (n_views, 1)),
        pose3d=points.astype(np.float32),
    )
    return recording, cameras
