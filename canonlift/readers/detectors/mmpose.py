"""MMPose and RTMPose: what the inferencer and the demo scripts save, of images and of videos.

The nestings in use: a list of instances (an image, one file per frame); a list of such lists (a
dumped `result['predictions']`); a list of `{frame_id, instances}` (a video); and the last two
as `instance_info` beside `meta_info`, which names the joints.
"""

from collections.abc import Iterable
from typing import Any

from canonlift.readers.detectors import parsing
from canonlift.readers.detectors.parsing import CameraDetections, Document, InputError, Person

REMEDY = "save it again by MMPose's inferencer (--pred-out-dir) or demo (--save-predictions)"


def recognise(content: Any) -> bool:
    """Whether a file's content is this format."""
    if isinstance(content, dict):
        return "instance_info" in content or {"frame_id", "instances"} <= content.keys()
    while isinstance(content, list) and content:
        content = next((item for item in content if item), None)
    return isinstance(content, dict) and ("instances" in content or "keypoint_scores" in content)


def read(docs: Iterable[Document]) -> dict[str, CameraDetections]:
    """Read the files of one camera: one of a video, or one per frame."""
    docs = list(docs)
    frames: dict[int, list[Person]] = {}
    path, content = docs[0]
    joints = _names(content, path)
    if len(docs) == 1 and _is_video(content):
        for number, people in enumerate(_instances(content)):
            where = f"{path}, entry {number}"
            if isinstance(people, dict):
                number = parsing.number_of(people.get("frame_id", number), where)
                people = parsing.field_of(people, where, "instances")
            parsing.add_frame(frames, number, _people(people, where), where)
        return {"": CameraDetections(frames, joints)}
    for number, (path, content) in parsing.by_file(docs):
        if _names(content, path) != joints:
            raise InputError(path, "other joints than in the files before")
        people = _instances(content)
        if isinstance(people, list) and len(people) == 1 and isinstance(people[0], list):
            people = people[0]  # a batch of one image
        frames[number] = _people(people, path)
    return {"": CameraDetections(frames, joints)}


def _instances(content: Any) -> Any:
    if isinstance(content, dict):
        return content.get("instance_info", content.get("instances"))
    return content


def _is_video(content: Any) -> bool:
    """A list of frames, rather than of the instances of one."""
    items = _instances(content)
    return isinstance(items, list) and any(
        isinstance(item, list) or (isinstance(item, dict) and "instances" in item)
        for item in items
    )


def _people(instances: Any, where: object) -> list[Person]:
    people = []
    for here, entry in parsing.entries(instances, where, "'instances'", "instance"):
        points = parsing.numbers(parsing.field_of(entry, here, "keypoints"), here)
        scores = parsing.numbers(parsing.field_of(entry, here, "keypoint_scores"), here)
        points = parsing.keypoints(points, here, scores)
        people.append(parsing.person_of(points, entry, here, "bbox_score"))
    return people


def _names(content: Any, path: object) -> tuple[str, ...] | None:
    """Joints as `meta_info` names them."""
    meta = content.get("meta_info") if isinstance(content, dict) else None
    names = meta.get("keypoint_id2name") if isinstance(meta, dict) else None
    if not isinstance(names, dict) or not names:
        return None
    where = f"{path}, meta_info"
    try:
        by_number = {int(key): str(name) for key, name in names.items()}
    except ValueError as error:
        raise InputError(where, f"keypoint_id2name has other keys ({error})") from error
    if sorted(by_number) != list(range(len(names))):
        raise InputError(where, "keypoint_id2name does not count from 0")
    return tuple(by_number[i] for i in range(len(names)))
