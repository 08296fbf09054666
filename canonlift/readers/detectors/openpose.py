"""OpenPose JSON, also as Pose2Sim and rtmlib write it: one file per frame, all people in it."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from canonlift.readers.detectors import parsing
from canonlift.readers.detectors.parsing import CameraDetections, Document, InputError, Person

KEYS = ("pose_keypoints_2d", "pose_keypoints")  # the latter until version 1.0
REMEDY = "give the folder of the JSON files of OpenPose's body detector and no others"


def recognise(content: Any) -> bool:
    """Whether a file's content is this format."""
    return isinstance(content, dict) and "people" in content


def read(docs: Iterable[Document]) -> dict[str, CameraDetections]:
    """Read the files of one camera; frames are numbered by the names of the files."""
    frames = {}
    for number, (path, content) in parsing.by_file(docs):
        if not recognise(content):
            raise InputError(path, "no list 'people', so not written by OpenPose")
        frames[number] = people_in(content["people"], path)
    return {"": CameraDetections(frames)}


def people_in(people: Any, path: object) -> list[Person]:
    """The people in OpenPose's list."""
    found = []
    for where, person in parsing.entries(people, path, "'people'", "person"):
        points = parsing.triples(parsing.field_of(person, where, *KEYS), where)
        # A confidence of 0 is a joint that was not found.
        points[points[:, 2] == 0] = np.nan
        found.append(Person(points, parsing.track_of(person.get("person_id"), where)))
    return found
