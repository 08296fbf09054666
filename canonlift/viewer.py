"""One HTML file in which recordings and what was predicted of them are looked at, anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from canonlift.data.recording import Recording
from canonlift.prediction import Prediction


@dataclass(frozen=True, eq=False)
class Take:
    """A recording, and what was predicted of it; both on the same joints."""

    name: str
    recording: Recording
    prediction: Prediction
    # One sequence made of all views: any right-handed axes and any unit, NaN where unknown.
    fused: Float[np.ndarray, "T J 3"] | None = None


def write(takes: Sequence[Take], path: Path) -> Path:
    """Write a page that shows the takes, with all it needs inside, and return its path."""
    raise NotImplementedError
