"""MMPose and RTMPose: what the inferencer and the demo scripts save, of images and of videos.

The nestings in use: a list of instances (an image, one file per frame); a list of such lists (a
dumped `result['predictions']`); a list of `{frame_id, instances}` (a video); and the last two
as `instance_info` beside `meta_info`, which names the joints.
"""

from collections.abc import Iterable
from typing import Any

from canonlift.readers.detectors.parsing import (
    CameraDetections,
    Cameras,
    Document,
    InputError,
    Person,
    by_file,
    entries,
    field_of,
    keypoints,
    number_of,
    numbers,
    one_number,
    track_of,
)

REMEDY = "save it again by MMPose's inferencer (--pred-out-dir) or demo (--save-predictions)"


def recognise(content: Any) -> bool:
    """Whether a file's content is this format."""
    if isinstance(content, dict):
        return "instance_info" in content or {"frame_id", "instances"} <= content.keys()
    while isinstance(content, list) and content:
        content = next((item for item in content if item), None)
    return isinstance(content, dict) and ("instances" in content or "keypoint_scores" in content)


def read(docs: Iterable[Document]) -> Cameras:
    """Read the files of one camera: one of a video, or one per frame."""
    docs = list(docs)
    frames: dict[int, list[Person]] = {}
    joints = None
    if len(docs) == 1 and _is_video(docs[0].content):
        path, content = docs[0]
        joints = _names(content, path)
        if isinstance(content, dict):
            content = content["instance_info"]
        for position, frame in enumerate(content):
            number, people = position, frame
            if isinstance(frame, dict):
                number = number_of(frame.get("frame_id", position), f"{path}, entry {position}")
                where = f"{path}, frame {number}"
                people = field_of(frame, ["instances"], where, REMEDY)
            if number in frames:
                remedy = "give one file per camera, of one run"
                raise InputError(path, f"frame {number} is there twice", remedy)
            frames[number] = _people(people, f"{path}, frame {number}")
        return {"": CameraDetections(frames, joints)}
    for number, (path, content) in by_file(docs):
        named = _names(content, path)
        if frames and named != joints:
            raise InputError(path, "other joints than in the files before", REMEDY)
        joints = named
        if isinstance(content, dict):
            content = content.get("instance_info", content.get("instances"))
        if isinstance(content, list) and len(content) == 1 and isinstance(content[0], list):
            content = content[0]  # a batch of one image
        frames[number] = _people(content, path)
    return {"": CameraDetections(frames, joints)}


def _is_video(content: Any) -> bool:
    """A list of frames, rather than of the instances of one."""
    if isinstance(content, dict):
        content = content.get("instance_info")
    return isinstance(content, list) and any(
        isinstance(item, list) or (isinstance(item, dict) and "instances" in item)
        for item in content
    )


def _people(instances: Any, where: object) -> list[Person]:
    people = []
    for i, entry in enumerate(entries(instances, where, "'instances'", REMEDY)):
        here = f"{where}, instance {i}"
        points = numbers(field_of(entry, ["keypoints"], here, REMEDY), here)
        scores = numbers(field_of(entry, ["keypoint_scores"], here, REMEDY), here)
        if points.ndim != 2 or points.shape[1] not in (2, 3):
            raise InputError(here, f"keypoints of shape {points.shape}, need (joints, 2)", REMEDY)
        people.append(
            Person(
                keypoints(points[:, :2], here, scores),
                track_of(entry.get("track_id"), here),
                one_number(entry.get("bbox_score"), here),
            )
        )
    return people


def _names(content: Any, path: object) -> tuple[str, ...] | None:
    """Joints as `meta_info` names them."""
    meta = content.get("meta_info") if isinstance(content, dict) else None
    names = meta.get("keypoint_id2name") if isinstance(meta, dict) else None
    if not isinstance(names, dict) or not names:
        return None
    where = f"{path}, meta_info"
    try:
        order = sorted(names, key=int)
    except ValueError as error:
        raise InputError(where, f"keypoint_id2name has other keys ({error})", REMEDY) from error
    if [int(key) for key in order] != list(range(len(order))):
        raise InputError(where, "keypoint_id2name does not count from 0", REMEDY)
    return tuple(str(names[key]) for key in order)
