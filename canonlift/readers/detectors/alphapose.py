"""AlphaPose results: a list of people, or in the forms `cmu` and `open` people by image."""

from collections.abc import Callable, Iterable
from typing import Any

from canonlift.readers.detectors import parsing
from canonlift.readers.detectors.openpose import people_in
from canonlift.readers.detectors.parsing import CameraDetections, Document, InputError, Person

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


def read(docs: Iterable[Document]) -> dict[str, CameraDetections]:
    """Read results; frames are numbered by the names of the images, and absent without people."""
    docs = list(docs)
    path, content = docs[0]
    if len(docs) > 1:  # the folder `sep-json`
        frames = {number: _people(doc.content, doc.path) for number, doc in parsing.by_file(docs)}
    elif not isinstance(content, dict):
        frames = by_image(content, path)
    elif "bodies" in content or "people" in content:
        frames = {parsing.number_of(path.stem, path): _people(content, path)}
    else:
        images: dict[int, object] = {}
        frames = {}
        for image, people in content.items():
            number = _unique(parsing.number_of(image, path), image, path, images)
            frames[number] = _people(people, f"{path}, image {image}")
    return {"": CameraDetections(frames)}


def by_image(
    people: Any, path: object, number_of_image: Callable[[Any, object], int] = parsing.number_of
) -> dict[int, list[Person]]:
    """People of a flat list, each with the name of its image; as in COCO, too."""
    frames: dict[int, list[Person]] = {}
    images: dict[int, object] = {}
    for where, entry in parsing.entries(people, path, "the content", "entry"):
        image = parsing.field_of(entry, where, "image_id")
        number = _unique(number_of_image(image, where), image, where, images)
        points = parsing.triples(parsing.field_of(entry, where, "keypoints"), where)
        frames.setdefault(number, []).append(parsing.person_of(points, entry, where, "score"))
    return frames


def _people(content: Any, where: object) -> list[Person]:
    if isinstance(content, dict) and "people" in content:
        return people_in(content["people"], where)
    bodies = parsing.field_of(content, where, "bodies")
    return [
        Person(parsing.triples(parsing.field_of(body, place, "joints"), place))
        for place, body in parsing.entries(bodies, where, "'bodies'", "body")
    ]


def _unique(number: int, image: object, where: object, images: dict[int, object]) -> int:
    """The frame number of an image, of which no other image in `images` may be."""
    if images.setdefault(number, image) != image:
        what = f"images {images[number]!r} and {image!r} are both frame {number}"
        raise InputError(where, what, "give one file per camera, of images numbered by instant")
    return number
