"""The table of export formats: a new one is a row here and a file beside this one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from canonlift.data.prediction import Prediction
from canonlift.output import viewer
from canonlift.output.export import c3d, rrd, tables, trc
from canonlift.output.export.markers import Markers


class Format(NamedTuple):
    """One row: what writes a file for each sequence, or else one for the whole recording."""

    suffix: str
    write_sequence: Callable[[Markers, Path], None] | None = None
    write_recording: Callable[[str, Prediction, Mapping[str, Markers], Path], None] | None = None
    needs: str | None = None  # a module that is not installed with canonlift
    package: str = ""  # what holds it, if that has another name


def _write_page(
    name: str,
    prediction: Prediction,
    sequences: Mapping[str, Markers],  # noqa: ARG001
    path: Path,
) -> None:
    viewer.write({name: prediction}, path)


def _write_rrd(
    name: str,  # noqa: ARG001
    prediction: Prediction,
    sequences: Mapping[str, Markers],
    path: Path,
) -> None:
    rrd.write(prediction.recording, prediction.keypoints_refined, sequences, path)


FORMATS: Mapping[str, Format] = {
    "trc": Format(".trc", trc.write),
    "c3d": Format(".c3d", c3d.write, needs="ezc3d"),
    "csv": Format(".csv", tables.write_csv),
    "npz": Format(".npz", tables.write_npz),
    "html": Format(".html", write_recording=_write_page),
    "rerun": Format(".rrd", write_recording=_write_rrd, needs="rerun", package="rerun-sdk"),
}
