"""What AlphaPose, MMPose and RTMPose write, image by image."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canonlift.readers.datasets.checks import existing, numbers
from canonlift.readers.datasets.joint_orders import layout as named_layout

# The layout with this many joints.
BY_COUNT: Mapping[int, str] = {16: "mpii16", 17: "coco17", 26: "halpe26"}


def by_image(path: Path) -> dict[str, np.ndarray]:
    """The person with the highest mean score of each image: (joints, 3), x and y in pixels, score.

    The keys are paths with forward slashes. AlphaPose writes mere file names; where `path` is
    a folder, its JSON files are read and each image is assumed to lie where its file lies.

    Args:
        path: a file, or a folder of them: AlphaPose's list of `image_id`, `keypoints`; or a
            mapping of image paths to MMPose's instances `keypoints`, `keypoint_scores`.
    """
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"{path}: no JSON file in this folder; run the detector into it")
    people: dict[str, np.ndarray] = {}
    for file in files:
        folder = f"{file.parent.relative_to(path).as_posix()}/" if path.is_dir() else ""
        for image, person in _people(file):
            image = folder.removeprefix("./") + image.replace("\\", "/")
            if image not in people or person[:, 2].mean() > people[image][:, 2].mean():
                people[image] = person
    return people


def by_frame(path: Path) -> dict[int, np.ndarray]:
    """`by_image` of a video, by the number of the frame; the first is 0."""
    people = by_image(path)
    strange = [image for image in people if not Path(image).stem.isdecimal()]
    if strange:
        raise ValueError(
            f"{path}: frame {strange[0]!r} has no number; run the detector on a video"
        )
    return {int(Path(image).stem): person for image, person in people.items()}


def joints_of(
    people: Mapping[Any, np.ndarray], layout: str | None, where: object
) -> tuple[str, ...]:
    """The names of the people's joints: of the layout, or of the only one with so many."""
    counts = {len(person) for person in people.values()}
    name = layout or BY_COUNT.get(min(counts, default=0))
    if name is None or counts != {len(named_layout(name, where))}:
        raise ValueError(
            f"{where}: people of {sorted(counts) or 'no'} joints, need one of "
            f"{', '.join(f'{n} ({name})' for n, name in BY_COUNT.items())}, or name the layout"
        )
    return named_layout(name, where)


def rows(people: Mapping[Any, np.ndarray], keys: Sequence[Any], n_joints: int) -> np.ndarray:
    """The people at these keys, (N, joints, 3); NaN where there is none."""
    nobody = np.full((n_joints, 3), np.nan, dtype=np.float32)
    return np.stack([people.get(key, nobody) for key in keys])


def _people(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    try:
        content = json.loads(existing(path, "run the detector first").read_bytes())
        for image, person in _entries(content):
            points = numbers(person["keypoints"], None, "keypoints")
            if "keypoint_scores" in person:
                scores = numbers(person["keypoint_scores"], None, "keypoint_scores")
                points = np.column_stack([points, scores])
            yield image, points.reshape(-1, 3)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}: not the results of AlphaPose or MMPose "
            f"({type(error).__name__}: {error}); write them again as JSON"
        ) from error


def _entries(content: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Pairs of image and person, of each of the shapes in use."""
    if isinstance(content, dict) and "instance_info" in content:  # MMPose's demo scripts
        content = content["instance_info"]
    if isinstance(content, dict):  # keyed by image
        for image, people in content.items():
            if isinstance(people, dict):
                people = people.get("instances", [people])
            yield from ((image, person) for person in people)
        return
    for position, entry in enumerate(content):
        if "instances" in entry:  # MMPose: one entry per frame, numbered from 0 or from 1
            yield from ((str(position), person) for person in entry["instances"])
        else:
            yield str(entry["image_id"]), entry
