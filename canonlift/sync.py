"""How much later than the first camera the others started, found in the detections themselves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from canonlift.data.recording import Recording


@dataclass(frozen=True, eq=False)
class Synchrony:
    """When each view of a recording started, and how far to trust it.

    What a view shows in its frame t happened `t / fps + offset_s` seconds after the first
    view's frame 0.
    """

    views: tuple[str, ...]
    offset_s: Float[np.ndarray, " V"]  # how much later than the first view; 0 for the first
    error_s: Float[np.ndarray, " V"]  # standard error of each; inf where nothing was found
    confidence: float  # in [0, 1]: that no offset is a false peak
    doubts: tuple[str, ...]  # why not to use it, and what to do; empty: use it
    lag_s: Float[np.ndarray, " L"]
    curves: Float[np.ndarray, "P L"]  # of each pair of views: agreement if the second is that late
    pairs: tuple[tuple[int, int], ...]  # views of each curve

    @property
    def ambiguous(self) -> bool:
        """Whether another set of offsets explains the recording about as well: refuse it."""
        return bool(self.doubts)

    def lines(self) -> list[str]:
        """Offsets, errors and doubts as text."""
        raise NotImplementedError


def estimate(
    recording: Recording,
    longest_s: float = 10.0,
    pose: Float[np.ndarray, "T V J 3"] | None = None,
) -> Synchrony:
    """Find a constant offset per view, to a fraction of a frame.

    Never raises over what was filmed: a recording that does not say enough (periodic or too
    little motion, views that share nothing) is `ambiguous`, and says why.

    Args:
        recording: detections of one person, in any number of views.
        longest_s: offsets between two views are looked for up to this many seconds.
        pose: poses lifted from each view alone (`Prediction.pose`), to be compared instead of
            the detections.
    """
    raise NotImplementedError


def apply(recording: Recording, offset_s: Sequence[float] | Float[np.ndarray, " V"]) -> Recording:
    """The recording with every view resampled to the frames of the first.

    Between two frames, keypoints are interpolated where both observed the joint, and as sure as
    the less sure; a view is unobserved before it started and after it ended. Truth is resampled
    with the view that it belongs to.

    Raises:
        ValueError: if there is not one finite offset per view.
    """
    raise NotImplementedError
