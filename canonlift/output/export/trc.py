"""TRC: the tab-separated text that OpenSim and Pose2Sim read."""

from pathlib import Path

from canonlift import files
from canonlift.output.export.csv_npz import cells
from canonlift.output.export.markers import Markers


def write(markers: Markers, path: Path) -> None:
    """Write one file; missing positions are blank, and frames count from 0.

    OpenSim reads metres; it refuses body units.
    """
    n_frames, n_joints, _ = markers.positions.shape
    rate = f"{markers.fps:.10g}"
    head = (
        ("PathFileType", "4", "(X/Y/Z)", path.name),
        ("DataRate", "CameraRate", "NumFrames", "NumMarkers", "Units")
        + ("OrigDataRate", "OrigDataStartFrame", "OrigNumFrames"),
        (rate, rate, n_frames, n_joints, markers.unit, rate, 0, n_frames),
        ("Frame#", "Time", *(cell for name in markers.joints for cell in (name, "", ""))),
        ("", "", *(f"{axis}{j + 1}" for j in range(n_joints) for axis in "XYZ")),
    )
    rows = ("\t".join(map(str, row)) for row in (*head, *cells(markers)))
    text = "\n".join(rows) + "\n"
    files.write(path, lambda file: file.write(text.encode()))
