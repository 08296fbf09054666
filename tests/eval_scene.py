"""Recordings with truth, and a finished run to evaluate them with."""

from dataclasses import replace

import numpy as np
import torch

from canonlift.body.skeleton import H36M17
from canonlift.data import recording as recordings
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.motions import MOTIONS
from canonlift.simulation.session import film
from canonlift.training import config as configs
from canonlift.training import runs

CONFIG = """
device: cpu
data: {train: [FOLDER/TRAIN], test: [FOLDER/walk.npz]}
model: {name: mlp, width: 16, rotation: 6d}
fusion: {method: triangulate}
schedule: [{name: only, steps: 1, weights: {reprojection: 1.0}}]
"""
VOTE = {"mirrored": 1, "upright": 3, "turned_round": False, "certainty": 0.75}


def filmed(n_frames=10, n_views=3, seed=0, **change):
    """A filmed athlete with the truth, not everything of whom was observed."""
    g = np.random.default_rng(seed)
    pose = perform(sample_person(g), list(MOTIONS), n_frames, 10.0, g)
    detector = DetectorConfig(joint_miss_rate=0.1, frame_miss_rate=0.1)
    recording = film(pose, H36M17, 10.0, CameraConfig(n_views=n_views), detector, g)
    return replace(recording, **change)


def without_truth(recording):
    return replace(recording, pose3d=None, keypoints_true=None)


def one_view(recording, view=0):
    """The same by one of its cameras."""
    names = ("keypoints", "confidence", "pose3d", "keypoints_true")
    parts = {name: getattr(recording, name) for name in names}
    parts = {name: x if x is None else x[:, [view]] for name, x in parts.items()}
    size = None if recording.image_size is None else recording.image_size[[view]]
    return replace(recording, **parts, views=(recording.views[view],), image_size=size)


def finished_run(folder, train="nowhere"):
    """A run whose network learned nothing, but predicts different rotations."""
    config = CONFIG.replace("FOLDER", str(folder)).replace("TRAIN", train)
    (folder / "my.yaml").write_text(config)
    recordings.save(filmed(), folder / "walk.npz")
    begun = runs.start(configs.load(folder / "my.yaml"), folder / "run", resume=False)
    with torch.no_grad():
        begun.network.rotation[-1].weight.mul_(20)
    begun.notes["mirror"], begun.progress.seconds = VOTE, 12.5
    mean_pose = torch.randn(17, 3, generator=torch.Generator().manual_seed(0))
    begun.save(mean_pose=mean_pose - mean_pose[:1])
    return folder / "run"
