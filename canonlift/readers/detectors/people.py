"""Everybody whom a camera saw, in pixels, on named joints, with confidences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from canonlift.readers.detectors import scores
from canonlift.readers.detectors.parsing import CameraDetections, InputError


@dataclass(frozen=True, eq=False)
class People:
    """Everybody in a frame; NaN is not observed."""

    points: Float[np.ndarray, "P J 3"]
    tracks: tuple[str | None, ...]
    scores: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.points)


def observed(detections: CameraDetections) -> dict[int, "People"]:
    """People of whom something was found, frame by frame; the rest of their joints is NaN."""
    if not detections.frames:
        raise InputError(detections.path, "no frames", "run the detector on the right video")
    counts = {len(p.keypoints) for people in detections.frames.values() for p in people} - {0}
    if len(counts) > 1:
        number = next(
            n
            for n, people in detections.frames.items()
            if {len(p.keypoints) for p in people} - {0, max(counts)}
        )
        raise InputError(
            f"{detections.path}, frame {number}",
            f"people of {' and '.join(map(str, sorted(counts)))} joints",
            "give the results of one body model",
        )
    n_joints = max(counts, default=0)
    if detections.joints is not None and n_joints not in (0, len(detections.joints)):
        raise InputError(
            detections.path,
            f"people of {n_joints} joints, but {len(detections.joints)} names of joints",
            "run the detector again",
        )
    frames = {}
    for number, people in detections.frames.items():
        kept = [person for person in people if len(person.keypoints)]
        points = np.array([person.keypoints for person in kept]).reshape(len(kept), n_joints, 3)
        # No joint is exactly in the corner: that is how an undetected one is written.
        points[np.isnan(points[..., :2]).any(-1) | (points[..., :2] == 0).all(-1)] = np.nan
        somebody = ~np.isnan(points[..., 0]).all(-1)
        frames[number] = People(
            points[somebody],
            tuple(p.track for p, is_one in zip(kept, somebody, strict=True) if is_one),
            tuple(p.score for p, is_one in zip(kept, somebody, strict=True) if is_one),
        )
    return frames


def sizes(
    detections: Mapping[str, CameraDetections],
    seen: Mapping[str, dict[int, People]],
    given: Sequence[tuple[int, int]],
    lost_shape: bool,
) -> tuple[list[tuple[int, int] | None], list[tuple[int, int]]]:
    """Image size of each camera where it is known, and what its coordinates are in units of."""
    if len(given) not in (0, 1, len(detections)):
        raise ValueError(
            f"{len(given)} image sizes for {len(detections)} cameras; give one for each"
        )
    sizes, units = [], []
    for view, (name, part) in enumerate(detections.items()):
        size = given[view if len(given) > 1 else 0] if given else part.image_size
        points = [f.points[..., :2].reshape(-1, 2) for f in seen[name].values() if len(f)]
        points = np.concatenate(points) if points else np.zeros((0, 2))
        points = points[~np.isnan(points[:, 0])]
        small = len(points) > 0 and np.median(np.abs(points)) <= 2
        if (part.normalised or small) and len(points):
            what = "most coordinates lie within 2 pixels, so they were divided by the image size"
            if lost_shape or (points < -0.5).mean() > 0.1:
                what += " and have lost its shape"
                raise InputError(part.path, what, "run OpenPose with --keypoint_scale 0")
            if size is None:
                raise InputError(part.path, what, "say the size by --image-size WIDTHxHEIGHT")
            if np.abs(points).max() > 5:
                what = f"coordinates up to {np.abs(points).max():.3g} in a format of [0, 1]"
                raise InputError(part.path, what, "write them again, divided by the image size")
            units.append(size)
        else:
            units.append((1, 1))
        sizes.append(size)
    return sizes, units


def confident(
    seen: Mapping[str, dict[int, People]],
    units: Sequence[tuple[int, int]],
    family: str,
    wanted: str | None,
    where: str,
) -> tuple[dict[str, dict[int, People]], str]:
    """The same people in pixels, with confidences instead of scores."""
    parts = [frame.points for frames in seen.values() for frame in frames.values() if len(frame)]
    persons = [s for frames in seen.values() for frame in frames.values() for s in frame.scores]
    points = np.concatenate(parts)
    given = ~np.isnan(points[..., 0])
    raw = points[..., 2][given]
    of_person = np.broadcast_to(np.array(persons)[:, None], given.shape)[given]
    try:
        rule, made = scores.rule(wanted, family, raw, of_person)
    except ValueError as error:
        raise InputError(where, *str(error).split("; ", 1)) from error
    confidence = np.full(given.shape, np.nan)
    confidence[given] = made
    points[..., 2] = confidence
    result: dict[str, dict[int, People]] = {}
    first = 0
    for unit, (name, frames) in zip(units, seen.items(), strict=True):
        result[name] = {}
        for number, frame in frames.items():
            mine = points[first : first + len(frame)]
            first += len(frame)
            mine[..., :2] *= unit
            mine[~(mine[..., 2] > 0)] = np.nan
            result[name][number] = _with_points(frame, mine)
    return result, scores.explain(rule, raw)


def _with_points(people: People, points: Float[np.ndarray, "P J 3"]) -> People:
    """The same people with other joints, but those without any."""
    alive = ~np.isnan(points[..., 0]).all(-1)
    return People(
        np.where(np.isnan(points), 0.0, points)[alive],
        tuple(t for t, a in zip(people.tracks, alive, strict=True) if a),
        tuple(s for s, a in zip(people.scores, alive, strict=True) if a),
    )


def mixed(frames: Mapping[int, People], matrix: np.ndarray) -> dict[int, People]:
    """People on made joints: as sure as the least sure source, 0 without one of them."""
    if np.array_equal(matrix, np.eye(len(matrix))):
        return dict(frames)
    made = {}
    uses = [np.flatnonzero(row) for row in matrix]
    for number, people in frames.items():
        points = np.einsum("ij,pjc->pic", matrix, people.points)
        for i, sources in enumerate(uses):
            points[:, i, 2] = people.points[:, sources, 2].min(-1)
        points[points[..., 2] <= 0] = 0
        made[number] = replace(people, points=points)
    return made
