"""What a trained lifter says of a recording: the value that eval.py writes and pictures show."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Prediction:
    """3D pose per frame and view, and repaired detections, of one recording.

    Views in which nothing was observed hold NaN.
    """

    pose: Float[np.ndarray, "T V J 3"]  # camera axes, root at 0; body units: bones sum to 1
    rotation: Float[np.ndarray, "T V 3 3"]  # canonical frame -> camera
    keypoints_refined: Float[np.ndarray, "T V J 2"]  # pixels; as detected where not repaired
