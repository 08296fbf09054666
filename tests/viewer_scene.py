"""A filmed athlete and an imperfect prediction, as the viewer shows them."""

import json
import re
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from canonlift.body.skeleton import H36M17
from canonlift.data.frames import centre, to_views
from canonlift.data.prediction import Fused, Prediction
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.motions import MOTIONS
from canonlift.simulation.session import film

FPS = 25.0


NAME = "walk"


def made(n_frames=75, n_views=4, seed=3):
    """A filmed athlete, and a prediction that is wrong in its own way everywhere."""
    g = np.random.default_rng(seed)
    pose = perform(sample_person(g), list(MOTIONS), n_frames, FPS, g)
    detector = DetectorConfig(joint_miss_rate=0.05, frame_miss_rate=0.0)
    recording = film(pose, H36M17, FPS, CameraConfig(n_views=n_views), detector, g)
    recording.confidence[50:56, 1] = 0.0
    truth = recording.pose3d - recording.pose3d[:, :, :1]
    body = truth / 4.5 + g.normal(0, 0.01, truth.shape)
    body = body - body[:, :, :1]
    # The canonical frame is the first camera, which nods from frame to frame.
    nod = Rotation.from_rotvec(g.normal(0, 0.2, (n_frames, 3))).as_matrix()[:, None]
    turn = nod @ np.swapaxes(camera_turns(truth), -1, -2)
    refined, _, _, _ = centre(recording)
    refined = np.where(recording.confidence[..., None] > 0, refined, np.nan)
    moved = g.random(refined.shape[:3]) < 0.1
    refined = np.where(moved[..., None], recording.keypoints_true + 7.0, refined)
    unseen = ~to_views(recording).observed.any(-1).numpy()[..., None, None]
    assert 6 <= unseen.sum() < 20
    return Prediction(
        recording,
        np.where(unseen, np.nan, body).astype(np.float32),
        np.where(unseen, np.nan, np.swapaxes(turn, -1, -2)).astype(np.float32),
        np.where(unseen, np.nan, refined).astype(np.float32),
    )


def camera_turns(pose):
    """Rotations of every view's pose onto that of the first view."""
    u, _, vt = np.linalg.svd(np.einsum("tjr,tvjc->tvrc", pose[:, 0], pose))
    sign = np.ones((*u.shape[:2], 3))
    sign[..., 2] = np.linalg.det(u @ vt)
    return (u * sign[..., None, :]) @ vt


def fewer_views(prediction, views):
    recording = prediction.recording
    arrays = {k: getattr(recording, k)[:, views] for k in ("keypoints", "confidence")}
    names = tuple(recording.views[v] for v in views)
    plain = replace(recording, **arrays, views=names, pose3d=None, keypoints_true=None,
                    image_size=None)  # fmt: skip
    parts = (prediction.pose, prediction.rotation, prediction.keypoints_refined)
    return Prediction(plain, *(array[:, views] for array in parts))


def with_truth_fused(prediction):
    """With the true motion in centimetres, y up, which no camera has, and exact rotations."""
    truth = prediction.recording.pose3d - prediction.recording.pose3d[:, :, :1]
    flip = np.diag([1.0, -1.0, -1.0])
    sequence = 100 * truth[:, 1] @ flip
    sequence[7] = np.nan
    turns = np.swapaxes(camera_turns(truth), -1, -2)
    exact = (turns @ np.swapaxes(turns[:, [1]], -1, -2) @ flip).astype(np.float32)
    seen_by = (prediction.recording.confidence > 0).sum(1).astype(np.int8)
    return replace(prediction, fused=Fused(sequence.astype(np.float32), exact, seen_by))


def recordings_in(path):
    """The JSON of each recording in a page."""
    scripts = re.findall(r'<script type="application/json" class="recording">(.*)</script>',
                         path.read_text())  # fmt: skip
    return [json.loads(text) for text in scripts]
