"""AlphaPose results: a list of people, or in the forms `cmu` and `open` people by image."""

from collections.abc import Iterable
from typing import Any

from canonlift.readers.detectors.openpose import people_in
from canonlift.readers.detectors.parsing import (
    CameraDetections,
    Cameras,
    Document,
    InputError,
    Person,
    by_file,
    entries,
    field_of,
    number_of,
    one_number,
    track_of,
    triples,
)

REMEDY = "give alphapose-results.json as AlphaPose wrote it"


def recognise(content: Any) -> bool:
    """Whether a file's content is this format."""
    if isinstance(content, dict):
        first = next(iter(content.values()), None)
        return "bodies" in content or (
            isinstance(first, dict) and bool({"bodies", "people"} & first.keys())
        )
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return False
    first = content[0]
    mine = isinstance(first.get("image_id"), str) or bool({"box", "idx"} & first.keys())
    return {"image_id", "keypoints"} <= first.keys() and mine


def read(docs: Iterable[Document]) -> Cameras:
    """Read results; frames are numbered by the names of the images, and absent without people."""
    docs = list(docs)
    frames: dict[int, list[Person]] = {}
    if len(docs) > 1:  # the folder `sep-json`
        for number, doc in by_file(docs):
            frames[number] = _people(doc.content, doc.path)
        return {"": CameraDetections(frames)}
    (path, content), *_ = docs
    if isinstance(content, dict):
        if "bodies" in content or "people" in content:
            return {"": CameraDetections({number_of(path.stem, path): _people(content, path)})}
        images: dict[int, str] = {}
        for image, people in content.items():
            number = number_of(image, path)
            if number in images:
                raise _twice(path, number, images[number], image)
            images[number] = image
            frames[number] = _people(people, f"{path}, image {image}")
        return {"": CameraDetections(frames)}
    return {"": CameraDetections(by_image(content, path, REMEDY))}


def by_image(content: Any, path: object, remedy: str) -> dict[int, list[Person]]:
    """People of a flat list, which name their image; also COCO's results."""
    frames: dict[int, list[Person]] = {}
    images: dict[int, object] = {}
    for i, entry in enumerate(entries(content, path, "the content", remedy)):
        where = f"{path}, entry {i}"
        image = field_of(entry, ["image_id"], where, remedy)
        number = number_of(image, where)
        if images.setdefault(number, image) != image:
            raise _twice(path, number, images[number], image)
        frames.setdefault(number, []).append(
            Person(
                triples(field_of(entry, ["keypoints"], where, remedy), where),
                track_of(entry.get("idx", entry.get("track_id")), where),
                one_number(entry.get("score"), where),
            )
        )
    return frames


def _people(content: Any, where: object) -> list[Person]:
    if isinstance(content, dict) and "people" in content:
        return people_in(content["people"], where)
    bodies = entries(field_of(content, ["bodies"], where, REMEDY), where, "'bodies'", REMEDY)
    return [
        Person(
            triples(field_of(b, ["joints"], f"{where}, body {i}", REMEDY), f"{where}, body {i}")
        )
        for i, b in enumerate(bodies)
    ]


def _twice(path: object, number: int, one: object, other: object) -> InputError:
    what = f"images {one!r} and {other!r} are both frame {number}"
    return InputError(path, what, "give one file per camera, of images numbered by instant")
