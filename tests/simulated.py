"""Simulated poses and recordings that several tests share."""

from functools import cache

import numpy as np
import torch

from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.session import SimulateConfig, session


@cache
def take(motion, n_frames=90):
    """One person doing one motion (T, 17, 3), metres."""
    generator = np.random.default_rng(5)
    return torch.from_numpy(perform(sample_person(generator), [motion], n_frames, 30.0, generator))


@cache
def filmed(n_views=6, error_scale=1.0, distance=(8.0, 20.0), n_frames=60):
    """A recording of every motion by moving cameras."""
    config = SimulateConfig(
        seed=3,
        n_train=1,
        n_test=0,
        n_frames=n_frames,
        cameras=CameraConfig(n_views=n_views, distance_m=distance),
        detector=DetectorConfig(error_scale=error_scale),
    )
    ((_, recording),) = session(config)
    return recording
