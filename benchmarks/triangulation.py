"""Triangulation by the true cameras: a reference for what the 2D detections allow."""

import numpy as np

from canonlift.data.recording import Recording
from canonlift.simulation.cameras import Cameras

CAUCHY_M = 0.06  # distance from a ray at which its weight has halved
REWEIGHTINGS = 10
DAMPING = 1e-3  # weight of the body's middle, where one certain ray has 1


def triangulate(recording: Recording, cameras: Cameras) -> np.ndarray:
    """World positions (T, J, 3) from calibrated cameras, by robust least squares.

    Distances are measured in metres across each ray and weighted by confidence and by Cauchy's
    function. A joint that fewer than two cameras observed is put where its ray, if there is one,
    passes the middle of the body.
    """
    keypoints, confidence = recording.keypoints, recording.confidence
    middle = np.array(cameras.image_size) / 2
    seen = confidence > 0
    slope = np.where(seen[..., None], keypoints - middle, 0.0) / cameras.focal_px[..., None, None]
    # Two rows per ray: R1 - x R3 and R2 - y R3 vanish on it, and measure metres at its depth.
    turn = cameras.rotation[:, :, None]
    rows = turn[..., :2, :] - slope[..., None] * turn[..., 2:, :]
    rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    offset = np.einsum("tvjrc,tvc->tvjr", rows, cameras.position)

    weight, point = confidence.astype(np.float64), np.zeros(0)
    eye = np.eye(3)
    for _ in range(1 + REWEIGHTINGS):
        normal = np.einsum("tvj,tvjrc,tvjrd->tjcd", weight, rows, rows)
        right = np.einsum("tvj,tvjrc,tvjr->tjc", weight, rows, offset)
        whole = normal.sum(1) + 1e-9 * eye  # a frame that no camera observed
        body = np.linalg.solve(whole, right.sum(1)[..., None])
        damped = right[..., None] + DAMPING * body[:, None]
        point = np.linalg.solve(normal + DAMPING * eye, damped)[..., 0]
        gap = np.einsum("tvjrc,tjc->tvjr", rows, point) - offset
        weight = confidence / (1 + np.square(gap / CAUCHY_M).sum(-1))
    return point
