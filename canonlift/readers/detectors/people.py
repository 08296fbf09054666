"""The people whom a camera detected, in pixels and with confidences."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from canonlift.readers.detectors import scores
from canonlift.readers.detectors.parsing import AGAIN, CameraDetections, InputError


@dataclass(frozen=True, eq=False)
class People:
    """People whom a camera detected: a row for each person in each frame, in order of frames."""

    frames: Int[np.ndarray, " N"]
    points: Float[np.ndarray, "N J 3"]  # x, y, score or confidence
    tracks: tuple[str | None, ...]
    scores: Float[np.ndarray, " N"]  # of the persons as a whole

    def __len__(self) -> int:
        return len(self.points)

    def only(self, keep: Bool[np.ndarray, " N"]) -> "People":
        """Some of the rows."""
        tracks = tuple(self.tracks[i] for i in np.flatnonzero(keep))
        return People(self.frames[keep], self.points[keep], tracks, self.scores[keep])


def observed(detections: CameraDetections) -> People:
    """People of whom something was found; the rest of their joints is NaN."""
    if not detections.frames:
        raise InputError(detections.path, "no frames", "run the detector on the right video")
    rows = [
        (number, person)
        for number, people in sorted(detections.frames.items())
        for person in people
        if len(person.keypoints)
    ]
    first_frame = {len(person.keypoints): number for number, person in reversed(rows)}
    if len(first_frame) > 1:
        where = f"{detections.path}, frame {first_frame[min(first_frame)]}"
        what = f"people of {' and '.join(map(str, sorted(first_frame)))} joints"
        raise InputError(where, what, "give the results of one body model")
    n_joints = max(first_frame, default=0)
    if detections.joints is not None and n_joints not in (0, len(detections.joints)):
        what = f"people of {n_joints} joints, but {len(detections.joints)} names of joints"
        raise InputError(detections.path, what, AGAIN)
    points = np.array([person.keypoints for _, person in rows]).reshape(len(rows), n_joints, 3)
    # No joint is exactly in the corner: that is how an undetected one is written.
    points[np.isnan(points[..., :2]).any(-1) | (points[..., :2] == 0).all(-1)] = np.nan
    people = People(
        np.array([number for number, _ in rows], dtype=int),
        points,
        tuple(person.track for _, person in rows),
        np.array([person.score for _, person in rows], dtype=float),
    )
    return people.only(np.isfinite(points[..., 0]).sum(-1) > 0)


def in_pixels(people: People, detections: CameraDetections, lost_shape: bool) -> People:
    """The same people in pixels, where the file has shares of the image size.

    `lost_shape`: this detector divides x and y in a way that cannot be undone.
    """
    points = people.points[..., :2][~np.isnan(people.points[..., 0])]
    if not len(points) or not (detections.normalised or np.median(np.abs(points)) <= 2):
        return people
    what = "most coordinates lie within 2 pixels, so they were divided by the image size"
    if lost_shape or (points < -0.5).mean() > 0.1:
        what += " and have lost its shape"
        raise InputError(detections.path, what, "run OpenPose with --keypoint_scale 0")
    if detections.image_size is None:
        raise InputError(detections.path, what, "say the size by --image-size WIDTHxHEIGHT")
    if np.abs(points).max() > 5:
        what = f"coordinates up to {np.abs(points).max():.3g} in a format of [0, 1]"
        raise InputError(detections.path, what, "write them again, divided by the image size")
    return replace(people, points=people.points * [*detections.image_size, 1])


def with_confidence(
    cameras: Mapping[str, People], kind: str, wanted: str | None, where: str
) -> tuple[dict[str, People], str]:
    """The same people with confidences instead of scores, 0 where not observed; and how.

    Arguments are those of `scores.confidences`, which looks at the scores of all cameras.
    """
    seen = {name: people for name, people in cameras.items() if len(people)}
    points = np.concatenate([people.points for people in seen.values()])
    of_person = np.concatenate([people.scores for people in seen.values()])
    given = ~np.isnan(points[..., 0])
    of_person = np.broadcast_to(of_person[:, None], given.shape)[given]
    points[given, 2], line = scores.confidences(points[given, 2], of_person, kind, wanted, where)
    points[~(points[..., 2] > 0)] = 0
    ends = np.cumsum([len(people) for people in seen.values()])
    result = dict(cameras)
    for (name, people), part in zip(seen.items(), np.split(points, ends[:-1]), strict=True):
        result[name] = replace(people, points=part).only(part[..., 2].sum(-1) > 0)
    return result, line


def combined(people: People, matrix: Float[np.ndarray, "J K"]) -> People:
    """People on joints that are combinations of theirs, with the lowest confidence of these."""
    if not len(people):
        return people
    points = np.einsum("ij,pjc->pic", matrix, people.points)
    for i, row in enumerate(matrix):
        points[:, i, 2] = people.points[:, row != 0, 2].min(-1)
    points[points[..., 2] <= 0] = 0
    return replace(people, points=points)
