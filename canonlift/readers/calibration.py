"""Read calibrations: Calib.toml (Pose2Sim, anipose), OpenCV's YAML, and Qualisys .qca.txt."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from canonlift.data.calibration import Calibration

SUBPIXELS = 64.0  # of Qualisys in a pixel
FACING = np.diag([1.0, -1.0, -1.0])  # Qualisys cameras: y up and z towards the viewer


def read_calibration(path: str | Path) -> Calibration:
    """Read a calibration by the end of its name: .toml, .yml or .yaml, .qca.txt or .qca.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not such a file, or of a lens that is not supported (fisheye).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no calibration {path}")
    name = path.name.lower()
    for suffix, parse in PARSERS.items():
        if name.endswith(suffix):
            try:
                return parse(path.read_bytes().decode("utf-8-sig"))
            except (KeyError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
                what = f"lacks {error}" if isinstance(error, KeyError) else error
                raise ValueError(f"{path} is no calibration that can be read: {what}") from error
    raise ValueError(f"{path}: a calibration ends in {', '.join(PARSERS)}")


def _together(cameras: Sequence[Mapping[str, Any]], unit: str = "m") -> Calibration:
    if not cameras:
        raise ValueError("it has no cameras")
    placed = all(camera["rotation"] is not None for camera in cameras)

    def stack(key: str) -> np.ndarray:
        return np.array([camera[key] for camera in cameras], dtype=float)

    return Calibration(
        tuple(str(camera["name"]) for camera in cameras),
        stack("size"),
        stack("matrix"),
        np.array([_five(camera["distortion"]) for camera in cameras]),
        stack("rotation") if placed else None,
        stack("translation") if placed else None,
        unit,
    )


def _five(distortion: Any) -> np.ndarray:
    """Coefficients filled up with zeros; those of a rational model are refused."""
    flat = np.asarray(distortion, dtype=float).ravel()
    if (flat[5:] != 0).any():
        raise ValueError(f"it has {len(flat)} distortion coefficients; 5 are supported")
    return np.pad(flat[:5], (0, max(0, 5 - len(flat))))


def _parse_toml(text: str) -> Calibration:
    cameras = []
    for key, table in tomllib.loads(text).items():
        if not isinstance(table, dict) or "matrix" not in table:
            continue  # such as [metadata]
        if table.get("fisheye"):
            raise ValueError(f"{key} is a fisheye lens, which is not supported")
        placed = "rotation" in table
        cameras.append(
            {
                "name": table.get("name", key),
                "size": table["size"],
                "matrix": table["matrix"],
                "distortion": table.get("distortions", ()),
                "rotation": _turn(table["rotation"]) if placed else None,
                "translation": table["translation"] if placed else None,
            }
        )
    return _together(cameras)


def _turn(rotation: Any) -> np.ndarray:
    """A matrix, from itself or from an axis times an angle."""
    array = np.asarray(rotation, dtype=float)
    return array if array.shape == (3, 3) else Rotation.from_rotvec(array.ravel()).as_matrix()


class _Loader(yaml.SafeLoader):
    """Reads OpenCV's matrices, too."""


def _matrix(loader: yaml.SafeLoader, node: yaml.Node) -> np.ndarray:
    assert isinstance(node, yaml.MappingNode)
    fields = loader.construct_mapping(node, deep=True)
    return np.array(fields["data"], dtype=float).reshape(fields["rows"], fields["cols"])


_Loader.add_constructor("tag:yaml.org,2002:opencv-matrix", _matrix)


def _parse_yaml(text: str) -> Calibration:
    # OpenCV's first line is not what YAML allows there.
    body = text.split("\n", 1)[1] if text.startswith("%YAML:") else text
    tree = yaml.load(body, Loader=_Loader)  # noqa: S506  of a SafeLoader
    cameras = []
    for camera in tree["cameras"]:
        placed = "rotation" in camera
        cameras.append(
            {
                "name": camera["name"],
                "size": (camera["image_width"], camera["image_height"]),
                "matrix": camera["camera_matrix"],
                "distortion": camera.get("distortion_coefficients", ()),
                "rotation": _turn(camera["rotation"]) if placed else None,
                "translation": np.ravel(camera["translation"]) if placed else None,
            }
        )
    return _together(cameras)


def _parse_qualisys(text: str) -> Calibration:
    if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
        raise ValueError("it declares entities, which no calibration does")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  without entities, see above
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from error
    return _together([_qualisys(tag) for tag in root.iterfind("cameras/camera")])


def _qualisys(tag: ElementTree.Element) -> dict[str, Any]:
    def numbers(name: str, *keys: str) -> np.ndarray:
        found = tag.find(name)
        if found is None:
            raise KeyError(name)
        return np.array([float(found.attrib[key]) for key in keys])

    left, right, top, bottom = numbers("fov_video", "left", "right", "top", "bottom")
    lens = numbers(
        "intrinsic", "focalLengthU", "focalLengthV", "centerPointU", "centerPointV", "skew"
    )
    fx, fy, cx, cy, skew = lens / SUBPIXELS
    # "tangental" is how the files spell it.
    bend = ("radialDistortion{}", (1, 2)), ("tangentalDistortion{}", (1, 2))
    keys = [pattern.format(i) for pattern, order in bend for i in order] + ["radialDistortion3"]
    to_room = numbers("transform", *(f"r{i}{j}" for i in "123" for j in "123")).reshape(3, 3)
    position = numbers("transform", "x", "y", "z") / 1000
    rotation = FACING @ to_room
    return {
        "name": tag.attrib["serial"],
        "size": (right - left + 1, bottom - top + 1),
        "matrix": [[fx, skew, cx - left], [0, fy, cy - top], [0, 0, 1]],
        "distortion": numbers("intrinsic", *keys),
        "rotation": rotation,
        "translation": -rotation @ position,
    }


PARSERS: Mapping[str, Callable[[str], Calibration]] = {
    ".toml": _parse_toml,
    ".yml": _parse_yaml,
    ".yaml": _parse_yaml,
    ".qca.txt": _parse_qualisys,
    ".qca": _parse_qualisys,
}
