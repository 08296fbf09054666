"""OpenPose JSON, also as Pose2Sim and rtmlib write it: one file per frame, all people in it."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from canonlift.readers.detectors.parsing import (
    CameraDetections,
    Cameras,
    Document,
    InputError,
    Person,
    by_file,
    entries,
    field_of,
    track_of,
    triples,
)

KEYS = ("pose_keypoints_2d", "pose_keypoints")  # the latter until version 1.0


def recognise(content: Any) -> bool:
    """Whether a file's content is this format."""
    return isinstance(content, dict) and "people" in content


def read(docs: Iterable[Document]) -> Cameras:
    """Read the files of one camera; frames are numbered by the names of the files."""
    return {"": CameraDetections({number: people_of(doc) for number, doc in by_file(docs)})}


def people_of(doc: Document) -> list[Person]:
    """Everybody in a file."""
    if not isinstance(doc.content, dict) or "people" not in doc.content:
        remedy = "give the folder of OpenPose's JSON files and no others"
        raise InputError(doc.path, "no list 'people', so not written by OpenPose", remedy)
    return people_in(doc.content["people"], doc.path)


def people_in(people: Any, path: object) -> list[Person]:
    """Everybody in OpenPose's list."""
    remedy = "run OpenPose with its body detector"
    found = []
    for i, person in enumerate(entries(people, path, "'people'", remedy)):
        where = f"{path}, person {i}"
        points = triples(field_of(person, KEYS, where, remedy), where)
        # A confidence of 0 is a joint that was not found.
        points[points[:, 2] == 0] = np.nan
        found.append(Person(points, track_of(person.get("person_id"), where)))
    return found
