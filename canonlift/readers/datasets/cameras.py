"""Calibrated cameras, for the ground truth of data sets; nothing that trains sees them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Camera:
    """World -> camera axes (x right, y down, z away) -> pixels."""

    rotation: Float[np.ndarray, "3 3"]  # world -> camera
    translation: Float[np.ndarray, "3"]  # of the world's origin, in camera axes, metres
    focal: Float[np.ndarray, "2"]  # pixels
    centre: Float[np.ndarray, "2"]  # pixels
    distortion: Float[np.ndarray, "8"]  # OpenCV's k1 k2 p1 p2 k3 k4 k5 k6
    mixed: float = 2.0  # factor of the mixed tangential term: OpenCV 2, Human3.6M 1

    def to_camera(self, world: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Points in metres, from world to camera axes."""
        return np.einsum("rc,...c->...r", self.rotation, world) + self.translation

    def project(self, in_camera: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 2"]:
        """Points in camera axes to pixels; NaN for what is not in front of the camera."""
        x, y, z = np.moveaxis(np.asarray(in_camera, dtype=np.float64), -1, 0)
        z = np.where(z > 0, z, np.nan)
        x, y = x / z, y / z
        r2 = x**2 + y**2
        k1, k2, p1, p2, k3, k4, k5, k6 = self.distortion
        factor = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
        factor = factor + self.mixed * (p1 * y + p2 * x)
        image = np.stack([x * factor + p2 * r2, y * factor + p1 * r2], axis=-1)
        return image * self.focal + self.centre
