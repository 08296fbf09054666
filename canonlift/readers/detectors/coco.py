"""COCO's two files: keypoint results (a flat list), and annotations (images and people)."""

from collections.abc import Iterable, Mapping
from typing import Any

from canonlift.readers.detectors.alphapose import by_image
from canonlift.readers.detectors.parsing import (
    CameraDetections,
    Cameras,
    Document,
    InputError,
    Person,
    entries,
    field_of,
    number_of,
    one_number,
    track_of,
    triples,
)

REMEDY = "export it again as COCO keypoints"


def recognise(content: Any) -> bool:
    """Whether a file's content is this format."""
    if isinstance(content, dict):
        return {"images", "annotations"} <= content.keys()
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and {"image_id", "keypoints"} <= first.keys()


def read(docs: Iterable[Document]) -> Cameras:
    """Read one file; frames are the numbers of the images, in their names where these have one."""
    (path, content), *more = docs
    if more:
        raise InputError(path, "one of several files", "give one file per camera")
    if not isinstance(content, dict):
        return {"": CameraDetections(by_image(content, path, REMEDY))}
    images = _images(content, path)
    frames: dict[int, list[Person]] = {number: [] for number in images.values()}
    annotations = field_of(content, ["annotations"], path, REMEDY)
    for i, entry in enumerate(entries(annotations, path, "'annotations'", REMEDY)):
        where = f"{path}, annotation {i}"
        if "keypoints" not in entry if isinstance(entry, dict) else True:
            raise InputError(where, "no 'keypoints'", REMEDY)
        image = entry.get("image_id")
        if not isinstance(image, int | str) or image not in images:
            raise InputError(where, f"image_id {image!r} is not among 'images'", REMEDY)
        person = Person(
            triples(entry["keypoints"], where),
            track_of(entry.get("track_id"), where),
            one_number(entry.get("score"), where),
        )
        frames[images[image]].append(person)
    return {
        "": CameraDetections(frames, _names(content, path), image_size=_size(content["images"]))
    }


def _images(content: Mapping[str, Any], path: object) -> dict[int | str, int]:
    """Frame number by id: that of the file name where each has one of its own."""
    names = {}
    images = entries(field_of(content, ["images"], path, REMEDY), path, "'images'", REMEDY)
    for i, image in enumerate(images):
        where = f"{path}, image {i}"
        key = field_of(image, ["id"], where, REMEDY)
        if not isinstance(key, int | str) or key in names:
            raise InputError(where, f"id {key!r}, not one of its own", REMEDY)
        names[key] = str(image.get("file_name", ""))
    try:
        by_name = {key: number_of(name, path) for key, name in names.items()}
    except InputError:
        return {key: number_of(key, path) for key in names}
    if len(set(by_name.values())) < len(by_name):
        raise InputError(
            path,
            "two images have the same number in their names",
            "export one file per camera, of images numbered by instant",
        )
    return by_name


def _names(content: Mapping[str, Any], path: object) -> tuple[str, ...] | None:
    categories = content.get("categories")
    for category in categories if isinstance(categories, list) else []:
        names = category.get("keypoints") if isinstance(category, dict) else None
        if isinstance(names, list) and names:
            if not all(isinstance(name, str) for name in names):
                raise InputError(path, "names of keypoints are no text", REMEDY)
            return tuple(names)
    return None


def _size(images: list[Any]) -> tuple[int, int] | None:
    """Width and height, where all images have the same."""
    sizes = [(image.get("width"), image.get("height")) for image in images]
    if not sizes or any(size != sizes[0] for size in sizes):
        return None
    if not all(isinstance(side, int) and 0 < side < 1 << 20 for side in sizes[0]):
        return None
    return sizes[0]
