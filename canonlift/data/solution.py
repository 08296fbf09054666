"""What all views of a recording tell together: poses, cameras, repaired joints, and how sure.

A file of solutions is one of predictions (`canonlift.data.prediction`) with more in it, under
`NAME/solution/`: whatever reads predictions reads solutions.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from canonlift.data.prediction import (
    Fused,
    Prediction,
    arrays_of,
    assembled,
    read_predictions,
    write_arrays,
)
from canonlift.data.recording import Recording

LIMBS = ("legs", "arms")
REMEDY = "write it again with `canonlift solve`"
ADDED = "solution/"


@dataclass(frozen=True, eq=False)
class Solution:
    """Poses, cameras and repaired joints of a recording, solved from all its views together.

    All frames have one frame of reference, in which the cameras turn, and one size. There is NaN
    where nothing was observed.

    Raises:
        ValueError: if arrays and recording differ in frames, views or joints.
    """

    recording: Recording
    pose: Float[np.ndarray, "T J 3"]  # root at 0; body units: the median sum of bones is 1
    rotation: Float[np.ndarray, "T V 3 3"]  # to the axes of the camera
    focal_px: Float[np.ndarray, "T V"]
    distance: Float[np.ndarray, "T V"]  # depth of the root, in body units
    root_px: Float[np.ndarray, "T V 2"]  # the root in the image
    keypoints_refined: Float[np.ndarray, "T V J 2"]  # pixels
    inlier: Float[np.ndarray, "T V J"]  # share of its confidence that a detection kept, 0 to 1
    covariance: Float[np.ndarray, "T J 3 3"]  # of the pose
    trust: Float[np.ndarray, " T"]  # 0 to 1
    swapped: Bool[np.ndarray, "T V L"]  # of which LIMBS left and right were exchanged, and undone
    # Of cameras that stand still, if the person's way through the room tells where; body units.
    position: Float[np.ndarray, "V 3"] | None = None  # of the cameras, in the room
    root: Float[np.ndarray, "T 3"] | None = None  # the way of the root joint

    def __post_init__(self) -> None:
        n_frames, n_views, n_joints = self.recording.confidence.shape
        sizes = {"T": n_frames, "V": n_views, "J": n_joints, "L": len(LIMBS), "2": 2, "3": 3}
        for name, axes in AXES.items():
            need, array = tuple(sizes[axis] for axis in axes), getattr(self, name)
            if name in OPTIONAL and array is None:
                continue
            if array.shape != need:
                raise ValueError(
                    f"{name} is {array.shape}, but the recording of {n_frames} frames, {n_views} "
                    f"views and {n_joints} joints needs {need}; solve this recording"
                )

    def __repr__(self) -> str:
        return f"Solution(of {self.recording!r}, trust {self.trust.mean():.2f})"

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
    def facing(self) -> Float[np.ndarray, "T V 3 3"]:
        """Turns from a camera's axes to those of one that looks straight at the root.

        The smaller turn of the two: it rolls nothing. None at all where image sizes are unknown.
        """
        size = self.recording.image_size
        if size is None:
            return np.broadcast_to(np.eye(3, dtype=np.float32), self.rotation.shape)
        ray = np.ones((*self.root_px.shape[:2], 3), np.float32)
        ray[..., :2] = (self.root_px - size / 2) / self.focal_px[..., None]
        x, y, z = np.moveaxis(ray / np.linalg.norm(ray, axis=-1, keepdims=True), -1, 0)
        share = 1 / (1 + z)  # Rodrigues' formula for the turn of (x, y, z) onto the axis
        rows = [
            [1 - share * x * x, -share * x * y, -x],
            [-share * x * y, 1 - share * y * y, -y],
            [x, y, z],
        ]
        return np.moveaxis(np.array(rows, np.float32), (0, 1), (-2, -1))

    @property
    def prediction(self) -> Prediction:
        """The same for all that takes predictions: export, viewer, evaluation."""
        seen_by = (self.recording.confidence > 0).sum(1).astype(np.int8)
        fused = Fused(self.pose, self.rotation, seen_by)
        in_camera, refined = self.in_camera, self.keypoints_refined
        return Prediction(self.recording, in_camera, self.rotation, refined, fused)

    def save(self, path: str | Path) -> None:
        """Write an .npz that `read_solution` reads, and all that reads predictions."""
        save_solutions([(Path(path).stem, self)], path)


# Axes of every array that a prediction does not have, or has under another name.
AXES = {
    "pose": "TJ3", "rotation": "TV33", "focal_px": "TV", "distance": "TV", "root_px": "TV2",
    "keypoints_refined": "TVJ2", "inlier": "TVJ", "covariance": "TJ33", "trust": "T",
    "swapped": "TVL", "position": "V3", "root": "T3",
}  # fmt: skip
OPTIONAL = {"position", "root"}


def save_solutions(solutions: Iterable[tuple[str, Solution]], path: str | Path) -> None:
    """Write solutions by the names of their recordings, or no file at all.

    Raises:
        ValueError: if a name cannot stand in a file name, or is given twice.
    """
    write_arrays(((name, _arrays(solution)) for name, solution in solutions), path)


def _arrays(solution: Solution) -> dict[str, np.ndarray]:
    arrays = arrays_of(solution.prediction)
    return arrays | {
        f"{ADDED}{field.name}": getattr(solution, field.name)
        for field in fields(Solution)
        if field.name not in ("recording", "pose", "rotation", "keypoints_refined")
        and getattr(solution, field.name) is not None
    }


def read_solution(path: str | Path, name: str | None = None) -> Solution:
    """Read what `Solution.save` or `canonlift solve` wrote; nothing is unpickled.

    Args:
        path: the file, or the folder of a `predictions.npz`.
        name: of the recording, where the file holds several.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no solution, or none of that name, with the remedy.
    """
    file = read_predictions(path)
    if name is None and len(file) != 1:
        raise ValueError(f"{file.path} holds {', '.join(file)}; give a name")
    file = file.only(file.names[:1] if name is None else [name])
    arrays = file.arrays(file.names[0])
    added = {
        key.removeprefix(ADDED): array for key, array in arrays.items() if key.startswith(ADDED)
    }
    wanted = AXES.keys() - {"pose", "rotation", "keypoints_refined"}
    if missing := sorted(wanted - OPTIONAL - added.keys()):
        raise ValueError(f"{file.path}: no solution, it lacks {', '.join(missing)}; {REMEDY}")
    try:
        prediction = assembled(arrays)
        assert prediction.fused is not None  # solutions have two views or more
        return Solution(
            prediction.recording,
            prediction.fused.pose,
            prediction.rotation,
            keypoints_refined=prediction.keypoints_refined,
            **{key: array for key, array in added.items() if key in wanted},
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file.path}: {file.names[0]}: {error}; {REMEDY}") from error
