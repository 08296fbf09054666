"""What looks wrong in a recording: said, never repaired."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from canonlift.data.recording import Recording


class Finding(NamedTuple):
    """One thing that looks wrong."""

    alarm: float  # 0: curious, 1: nothing learned from this will be right
    what: str  # where and how much
    remedy: str  # what to do


@dataclass(frozen=True, eq=False)
class Health:
    """What was found in a recording, the most alarming first."""

    joints: tuple[str, ...]
    views: tuple[str, ...]
    fps: float
    findings: tuple[Finding, ...]
    unobserved: Float[np.ndarray, "V J"]  # share of frames
    jitter: Float[np.ndarray, "V J"]  # body sizes; NaN where too little was observed
    swapped: Bool[np.ndarray, "T V"]  # suspected: left and right exchanged
    frozen: Bool[np.ndarray, "T V"]  # the very same detection as in the frame before
    seen: Float[np.ndarray, "T V"]  # share of joints

    def lines(self) -> list[str]:
        """Short readable text."""
        raise NotImplementedError


def examine(recording: Recording) -> Health:
    """Look for missing, swapped, misnamed, frozen and restless joints, and odd confidences.

    Works on any joints and any number of views; what needs names that the recording does not
    have is not looked for.
    """
    raise NotImplementedError
