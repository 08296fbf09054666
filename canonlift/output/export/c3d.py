"""C3D: the binary format of motion capture laboratories, by way of ezc3d."""

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from canonlift import files
from canonlift.output.export.markers import METRES, Markers

MILLIMETRES = 1000.0
MOST_FRAMES = 65_535  # that two bytes of its header can count; ezc3d would leave out the rest


def write(markers: Markers, path: Path) -> None:
    """Write one file, metres as millimetres; missing positions have a residual of -1."""
    ezc3d: Any = import_module("ezc3d")  # an optional package
    if len(markers.positions) > MOST_FRAMES:
        raise ValueError(
            f"{path.name}: {len(markers.positions)} frames, but C3D counts {MOST_FRAMES}; cut the "
            "recording, or use the format trc"
        )

    in_metres = markers.unit == METRES
    positions = markers.positions * (MILLIMETRES if in_metres else 1.0)
    known = markers.known.T  # the format counts joints first
    points = np.ones((4, *known.shape))
    points[:3] = np.where(known, positions.transpose(2, 1, 0), np.nan)

    file = ezc3d.c3d()
    point = file["parameters"]["POINT"]
    point["RATE"]["value"] = [float(markers.fps)]
    point["LABELS"]["value"] = list(markers.joints)
    point["DESCRIPTIONS"]["value"] = ["relative to the root joint"] * len(markers.joints)
    point["UNITS"]["value"] = ["mm" if in_metres else markers.unit]
    file.add_parameter("POINT", "X_SCREEN", "+X")
    file.add_parameter("POINT", "Y_SCREEN", "+Y")
    file.add_parameter("CANONLIFT", "NOTES", list(markers.notes))
    file["data"]["points"] = points
    file["data"]["meta_points"]["residuals"] = np.where(known, 0.0, -1.0)[None]
    file["data"]["meta_points"]["camera_masks"] = np.zeros((7, *known.shape), dtype=bool)
    with tempfile.TemporaryDirectory() as folder:  # ezc3d opens files by name only
        file.write(str(Path(folder) / "markers.c3d"))
        content = (Path(folder) / "markers.c3d").read_bytes()
    files.write(path, lambda out: out.write(content))
