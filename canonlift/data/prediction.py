"""What a trained lifter says of a recording: the values that eval.py writes and pictures show."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, eq=False)
class Prediction:
    """3D pose per frame and view, and repaired detections, of one recording.

    Views in which nothing was observed hold NaN.
    """

    pose: Float[np.ndarray, "T V J 3"]  # camera axes, root at 0; body units: bones sum to 1
    rotation: Float[np.ndarray, "T V 3 3"]  # canonical frame -> camera
    keypoints_refined: Float[np.ndarray, "T V J 2"]  # pixels; as detected where not repaired


@dataclass(frozen=True, eq=False)
class Fused:
    """One 3D sequence of a recording, made of all its views; NaN in frames that none of them saw.

    It has one frame of reference, which the cameras turn in, and one size.
    """

    pose: Float[np.ndarray, "T J 3"]  # root at 0; body units: the median sum of bones is 1
    rotation: Float[np.ndarray, "T V 3 3"]  # its frame -> camera; NaN where a view saw nothing
    seen_by: Int[np.ndarray, "T J"]  # views that observed a joint; where 0, the lifter guessed it

    @property
    def in_camera(self) -> Float[np.ndarray, "T V J 3"]:
        """The pose in the axes of each view."""
        return np.einsum("tvrc,tjc->tvjr", self.rotation, self.pose)
