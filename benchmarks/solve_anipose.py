"""aniposelib's bundle adjustment of a problem that `solve_speed` wrote; it runs by itself.

pip install aniposelib
python benchmarks/solve_anipose.py problem.npz answer.json
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from aniposelib.cameras import Camera, CameraGroup


def main(problem: str, answer: str) -> None:
    """Adjust the cameras, and write how long that took and where they are."""
    given = np.load(problem)
    width, height = given["size"].tolist()
    cameras = []
    for view, focal in enumerate(given["focal"].tolist()):
        matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
        cameras.append(
            Camera(
                matrix=matrix,
                dist=np.zeros(5),
                size=(width, height),
                rvec=given["rotation"][view],
                tvec=given["translation"][view],
                name=f"cam{view}",
            )
        )
    group, points = CameraGroup(cameras), given["points"]
    points = points[:, np.isfinite(points).all(-1).sum(0) >= 2]
    group.bundle_adjust(points[:, :200].copy(), max_nfev=2, verbose=False)  # numba compiles
    group = CameraGroup([camera.copy() for camera in cameras])
    for view, camera in enumerate(group.cameras):
        camera.set_rotation(given["rotation"][view])
        camera.set_translation(given["translation"][view])
        camera.set_focal_length(float(given["focal"][view]))
        camera.set_distortions(np.zeros(5))
    np.random.seed(0)  # noqa: NPY002  aniposelib draws from the global one
    start = time.process_time()
    group.bundle_adjust_iter(points, verbose=False)  # on samples of the points
    group.triangulate(points)
    found = {
        "seconds": time.process_time() - start,
        "rotation": group.get_rotations().tolist(),
        "focal": [float(camera.get_focal_length()) for camera in group.cameras],
    }
    Path(answer).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
