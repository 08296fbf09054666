"""One known take for every data set: a person who moves, and cameras that are known.

Nothing here is symmetric, and the projection is a slow loop of its own, after the formulas that
OpenCV and Human3.6M document.
"""

from dataclasses import dataclass

import numpy as np

from canonlift.body.skeleton import H36M17

# Standing, metres: x forward, y to the left, z up.
STANDING = {
    "pelvis": (0, 0, 0.95), "hip": (0, 0.13, 0.95), "knee": (0.02, 0.14, 0.5),
    "ankle": (-0.03, 0.15, 0.08), "spine": (-0.02, 0, 1.2), "thorax": (0, 0, 1.45),
    "nose": (0.1, 0, 1.58), "head": (0, 0, 1.72), "shoulder": (0, 0.17, 1.42),
    "elbow": (0.04, 0.3, 1.15), "wrist": (0.2, 0.28, 0.95), "eye": (0.09, 0.03, 1.62),
    "ear": (0.0, 0.08, 1.6),
}  # fmt: skip


def person(n_frames, joints=H36M17, seed=0):
    """(T, J, 3) in metres: walks and turns, and every joint sways in its own way."""
    rng = np.random.default_rng(seed)
    body = []
    for name in joints:
        x, y, z = STANDING[name.removeprefix("l_").removeprefix("r_")]
        body.append((x, -y if name.startswith("r_") else y, z))
    time = np.arange(n_frames)[:, None, None]
    pace = rng.uniform(0.1, 0.4, (1, len(joints), 3))
    sway = 0.04 * np.sin(pace * time + rng.uniform(0, 6, (1, len(joints), 3)))
    # The hips move with the pelvis: that is how orders of joints are recognised.
    for name in ("l_hip", "r_hip"):
        if name in joints and "pelvis" in joints:
            sway[:, joints.index(name)] = sway[:, joints.index("pelvis")]
    turn = 0.2 * np.arange(n_frames) + 0.4
    cos, sin, zero, one = np.cos(turn), np.sin(turn), 0 * turn, 0 * turn + 1
    rows = [np.stack(r, -1) for r in ((cos, -sin, zero), (sin, cos, zero), (zero, zero, one))]
    points = np.einsum("trc,tjc->tjr", np.stack(rows, 1), np.array(body) + sway)
    return points + np.stack([0.05 * np.arange(n_frames), 0 * turn, 0 * turn], -1)[:, None]


@dataclass
class Seen:
    """A camera, OpenCV's distortion k1 k2 p1 p2 k3 k4 k5 k6."""

    rotation: np.ndarray  # world -> camera
    position: np.ndarray
    focal: tuple
    centre: tuple
    lens: tuple = (0,) * 8

    def in_camera(self, world):
        return np.array([[self.rotation @ (p - self.position) for p in pose] for pose in world])

    def pixels(self, world, mixed=2):
        k1, k2, p1, p2, k3, k4, k5, k6 = self.lens
        image = np.zeros((*world.shape[:2], 2))
        for t, pose in enumerate(self.in_camera(world)):
            for j, (px, py, pz) in enumerate(pose):
                x, y = px / pz, py / pz
                r = x * x + y * y
                radial = (1 + k1 * r + k2 * r**2 + k3 * r**3) / (
                    1 + k4 * r + k5 * r**2 + k6 * r**3
                )
                u = x * radial + mixed * (p1 * x * y + p2 * x * x) + p2 * r
                v = y * radial + mixed * (p2 * x * y + p1 * y * y) + p1 * r
                image[t, j] = (
                    u * self.focal[0] + self.centre[0],
                    v * self.focal[1] + self.centre[1],
                )
        return image


def camera(azimuth_deg, distance=5.0, height=1.6, roll_deg=4.0, size=(1000, 1000), **lens):
    """Looks at the person from somewhere around, slightly rolled."""
    azimuth = np.radians(azimuth_deg)
    position = np.array([distance * np.cos(azimuth), distance * np.sin(azimuth), height])
    away = np.array([0.1, 0.05, 1.0]) - position
    away /= np.linalg.norm(away)
    right = np.cross(away, (0, 0, 1.0))
    right /= np.linalg.norm(right)
    down = np.cross(away, right)
    roll = np.radians(roll_deg)
    rows = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
    focal = (1.15 * size[0], 1.14 * size[0])
    centre = (0.51 * size[0], 0.49 * size[1])
    return Seen(np.stack([*rows, away]), position, focal, centre, **lens)
