"""What all views of a recording tell together, and the file that holds it: `solution.npz`."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from canonlift import files
from canonlift.data.prediction import Fused, Prediction
from canonlift.data.recording import Recording, from_arrays, open_npz, to_arrays

LIMBS = ("legs", "arms")
REMEDY = "write it again with `canonlift solve`"


@dataclass(frozen=True, eq=False)
class Solution:
    """Poses, cameras and repaired joints of a recording, solved from all its views together.

    All frames have one frame of reference and one size. Where nothing was observed there is NaN.
    """

    recording: Recording
    pose: Float[np.ndarray, "T J 3"]  # root at 0; the median sum of the bones is 1
    rotation: Float[np.ndarray, "T V 3 3"]  # to the axes of the camera
    focal_px: Float[np.ndarray, "T V"]
    distance: Float[np.ndarray, "T V"]  # of the root, in the unit of the pose, along the axis
    root_px: Float[np.ndarray, "T V 2"]  # where the root is in the image
    keypoints_refined: Float[np.ndarray, "T V J 2"]  # pixels
    inlier: Float[np.ndarray, "T V J"]  # share of its confidence that a detection kept, 0 to 1
    covariance: Float[np.ndarray, "T J 3 3"]  # of the pose
    trust: Float[np.ndarray, " T"]  # 0 to 1
    swapped: Bool[np.ndarray, "T V L"]  # of legs and of arms: left and right were exchanged
    position: Float[np.ndarray, "V 3"] | None = None  # of fixed cameras
    root: Float[np.ndarray, "T 3"] | None = None  # path through the room, by fixed cameras

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the joints."""
        return self.recording.joints

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views."""
        return self.recording.views

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.recording.fps

    @property
    def in_camera(self) -> Float[np.ndarray, "T V J 3"]:
        """The pose in the axes of each camera, relative to the root."""
        return np.einsum("tvrc,tjc->tvjr", self.rotation, self.pose)

    @property
    def prediction(self) -> Prediction:
        """The same as a prediction, for everything that takes one: exports, viewer, evaluation."""
        seen_by = (self.recording.confidence > 0).sum(1).astype(np.int8)
        fused = Fused(self.pose, self.rotation, seen_by)
        return Prediction(
            self.recording, fused.in_camera, self.rotation, self.keypoints_refined, fused
        )

    def save(self, path: str | Path) -> None:
        """Write `solution.npz`, whole or not at all."""
        arrays: dict[str, Any] = {
            f"recording/{name}": array for name, array in to_arrays(self.recording).items()
        }
        for field in fields(self)[1:]:
            if (array := getattr(self, field.name)) is not None:
                arrays[field.name] = array
        files.write(Path(path), lambda file: np.savez_compressed(file, **arrays))


def read_solution(path: str | Path) -> Solution:
    """Read what `Solution.save` wrote; nothing is unpickled.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no solution, with the file and the remedy.
    """
    path = Path(path)
    with open_npz(path, REMEDY) as file:
        arrays = {name: file[name] for name in file.files}
    names = [field.name for field in fields(Solution)[1:]]
    optional = {"position", "root"}
    if missing := [n for n in names if n not in arrays and n not in optional]:
        raise ValueError(f"{path}: no solution, it lacks {', '.join(missing)}; {REMEDY}")
    inside = {
        name.partition("/")[2]: array for name, array in arrays.items() if name.startswith("recording/")
    }
    try:
        return Solution(from_arrays(inside), **{n: arrays[n] for n in names if n in arrays})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}; {REMEDY}") from error
