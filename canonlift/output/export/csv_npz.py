"""CSV for spreadsheets, NPZ for Python."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from canonlift import files
from canonlift.output.export.markers import Markers


def write_csv(markers: Markers, path: Path) -> None:
    """Write one header line, and one line per frame; missing positions are blank."""
    text = io.StringIO()
    columns = [f"{joint}_{axis}" for joint in markers.joints for axis in "xyz"]
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["frame", "time", *columns])
    table.writerows(cells(markers))
    files.write(path, lambda file: file.write(text.getvalue().encode()))


def write_npz(markers: Markers, path: Path) -> None:
    """Write arrays without pickles: positions, joints, time, fps, unit, axes and notes."""
    arrays = {
        "positions": markers.positions.astype(np.float32),
        "joints": np.array(markers.joints),
        "frame": np.arange(len(markers.positions)),
        "time": markers.time,
        "fps": np.float64(markers.fps),
        "unit": np.array(markers.unit),
        "axes": np.array("x right, y up, z towards the viewer; relative to the root joint"),
        "notes": np.array(markers.notes),
    }
    files.write(path, lambda file: np.savez_compressed(file, **arrays))


def cells(markers: Markers) -> Iterator[list[str]]:
    """Lines of a table: frame, time, and x y z of every joint, blank where missing."""
    flat = np.where(markers.known[..., None], markers.positions, np.nan)
    for frame, row in enumerate(flat.reshape(len(flat), -1).tolist()):
        values = ("" if value != value else f"{value:.6f}" for value in row)
        yield [str(frame), f"{frame / markers.fps:.6f}", *values]
