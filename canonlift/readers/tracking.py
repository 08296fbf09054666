"""Tracking: people detected frame by frame, joined into tracks over time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment

# A person is another one than the track's if the mean distance of the joints from where they are
# expected, in body sizes per frame and each at most 1, is this large.
ANOTHER_PERSON = 0.5
EXTRAPOLATED = 4  # frames of a gap over which the expected motion, and its error, grow


def tracks(people: Sequence[Float[np.ndarray, "_ J 3"]], max_gap: int) -> list[dict[int, int]]:
    """Put every person of every frame into exactly one track, {frame: index into its people}.

    People of one frame are assigned together, so that two who cross keep their identity; each
    track is extrapolated with its velocity.

    Args:
        people: for each frame x, y, confidence of everybody in it; confidence 0: unobserved.
        max_gap: a track last seen more than this many frames ago has ended.
    """
    found: list[_Track] = []
    for frame, detected in enumerate(people):
        points, observed = detected[..., :2], detected[..., 2] > 0
        alive = [track for track in found if frame - track.last <= max_gap]
        cost = np.minimum(_cost(alive, points, observed, frame), ANOTHER_PERSON)
        owner = {
            person: alive[row]
            for row, person in zip(*linear_sum_assignment(cost), strict=True)
            if cost[row, person] < ANOTHER_PERSON
        }
        for person in range(len(detected)):
            if person in owner:
                owner[person].follow(points[person], observed[person], frame)
            else:
                found.append(_Track(points[person].copy(), observed[person].copy(), frame))
                owner[person] = found[-1]
            owner[person].persons[frame] = person
    return [track.persons for track in found]


People = Sequence[Float[np.ndarray, "_ J 3"]]
Tracks = Sequence[dict[int, int]]


def best(people: People, tracks: Tracks) -> dict[int, int]:
    """Pick the track with the largest sum of confidences over its life; empty if there is none.

    A confidence above 1 counts as 1.
    """

    def score(track: dict[int, int]) -> float:
        return sum(float(people[t][i][:, 2].clip(0, 1).sum()) for t, i in track.items())

    return max(tracks, key=score, default={})


def largest(people: People, tracks: Tracks) -> dict[int, int]:
    """Pick the track of the person who is largest in the image, in the median over its life.

    Tracks shorter than a tenth of the longest do not count: a hand before the lens is large.
    """
    least = max(map(len, tracks), default=0) / 10

    def extent(track: dict[int, int]) -> float:
        if len(track) < least:
            return 0.0
        them = np.stack([people[t][i] for t, i in track.items()])
        return float(np.median(size(them[..., :2], them[..., 2] > 0)))

    return max(tracks, key=extent, default={})


def longest(_people: People, tracks: Tracks) -> dict[int, int]:
    """Pick the track of the most frames."""
    return max(tracks, key=len, default={})


CHOICES: Mapping[str, Callable[[People, Tracks], dict[int, int]]] = {
    "best": best,
    "largest": largest,
    "longest": longest,
}


@dataclass(eq=False)
class _Track:
    pose: Float[np.ndarray, "J 2"]  # as last seen; a joint not seen since has moved along
    known: Bool[np.ndarray, " J"]
    last: int  # frame of `pose`
    velocity: Float[np.ndarray, " 2"] = field(default_factory=lambda: np.zeros(2))
    persons: dict[int, int] = field(default_factory=dict)

    def expected(self, frame: int) -> Float[np.ndarray, "J 2"]:
        return self.pose + self.velocity * min(frame - self.last, EXTRAPOLATED)

    def follow(
        self, points: Float[np.ndarray, "J 2"], observed: Bool[np.ndarray, " J"], frame: int
    ) -> None:
        both = self.known & observed
        step = np.median(points[both] - self.pose[both], axis=0)
        self.velocity = (self.velocity + step / (frame - self.last)) / 2
        self.pose = np.where(observed[:, None], points, self.pose + step)
        self.known = self.known | observed
        self.last = frame


def _cost(
    alive: list[_Track],
    points: Float[np.ndarray, "P J 2"],
    observed: Bool[np.ndarray, "P J"],
    frame: int,
) -> Float[np.ndarray, "A P"]:
    """How far each person is from each track: 0 at the expected place, 1 out of reach."""
    if not alive or not len(points):
        return np.zeros((len(alive), len(points)))
    expected = np.stack([track.expected(frame) for track in alive])
    known = np.stack([track.known for track in alive])
    gap = np.array([min(frame - track.last, EXTRAPOLATED) for track in alive])
    extent = np.maximum(size(expected, known)[:, None], size(points, observed))
    distance = np.linalg.norm(expected[:, None] - points, axis=-1)
    lost = np.minimum(distance / (extent * gap[:, None])[..., None], 1.0)
    both = known[:, None] & observed
    # Nothing in common, nothing known: out of reach.
    return np.where(both.any(-1), (lost * both).sum(-1) / both.sum(-1).clip(1), 1.0)


def size(
    points: Float[np.ndarray, "*n J 2"], observed: Bool[np.ndarray, "*n J"]
) -> Float[np.ndarray, "*n"]:
    """Diagonal of the box around the observed joints, at least one pixel."""
    high = np.where(observed[..., None], points, -np.inf).max(-2)
    low = np.where(observed[..., None], points, np.inf).min(-2)
    return np.linalg.norm(high - low, axis=-1).clip(1.0)
