"""COCO's two files: keypoint results (a flat list), and annotations (images and people)."""

from collections.abc import Iterable
from typing import Any

from canonlift.readers.detectors import parsing
from canonlift.readers.detectors.alphapose import by_image
from canonlift.readers.detectors.parsing import CameraDetections, Document, InputError, Person

REMEDY = "export it again as COCO keypoints"


def recognise(content: Any) -> bool:
    """Whether a file's content is this format."""
    if isinstance(content, dict):
        return {"images", "annotations"} <= content.keys()
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and {"image_id", "keypoints"} <= first.keys()


def read(docs: Iterable[Document]) -> dict[str, CameraDetections]:
    """Read one file; frames are the numbers of the images, in their names where these have one."""
    path, content = parsing.only(docs)
    if not isinstance(content, dict):
        return {"": CameraDetections(by_image(content, path))}
    images = parsing.listed(parsing.field_of(content, path, "images"), path, "'images'")
    numbers = _numbers(images, path)

    def number_of_image(image: Any, where: object) -> int:
        if not isinstance(image, int | str) or image not in numbers:
            raise InputError(where, f"image_id {image!r} is not among 'images'")
        return numbers[image]

    frames: dict[int, list[Person]] = {number: [] for number in numbers.values()}
    frames |= by_image(parsing.field_of(content, path, "annotations"), path, number_of_image)
    sizes = {parsing.size_of(image.get("width"), image.get("height")) for image in images}
    size = sizes.pop() if len(sizes) == 1 else None
    return {"": CameraDetections(frames, _names(content, path), image_size=size)}


def _numbers(images: list[Any], path: object) -> dict[int | str, int]:
    """Frame number by image id: that in the file name if all names have one, else the id."""
    names = {}
    for where, image in parsing.entries(images, path, "'images'", "image"):
        key = parsing.field_of(image, where, "id")
        if not isinstance(key, int | str) or key in names:
            raise InputError(where, f"id {key!r} is not unique, or no number or text")
        names[key] = str(image.get("file_name", ""))
    try:
        by_name = {key: parsing.number_of(name, path) for key, name in names.items()}
    except InputError:
        return {key: parsing.number_of(key, path) for key in names}
    if len(set(by_name.values())) < len(by_name):
        what = "two images have the same number in their names"
        raise InputError(path, what, "export one file per camera, of images numbered by instant")
    return by_name


def _names(content: dict[str, Any], path: object) -> tuple[str, ...] | None:
    categories = content.get("categories")
    for category in categories if isinstance(categories, list) else []:
        names = category.get("keypoints") if isinstance(category, dict) else None
        if isinstance(names, list) and names:
            if not all(isinstance(name, str) for name in names):
                raise InputError(path, "names of keypoints are no text")
            return tuple(names)
    return None
