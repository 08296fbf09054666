"""The table of export formats: a new one is a row here and a file beside this one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from canonlift.data.prediction import Prediction
from canonlift.output import viewer
from canonlift.output.export import c3d, csv_npz, rrd, trc
from canonlift.output.export.markers import Markers


class Format(NamedTuple):
    """One row: what writes a file for each sequence, or else one for the whole recording."""

    suffix: str
    write_sequence: Callable[[Markers, Path], None] | None = None
    write_recording: Callable[[str, Prediction, Mapping[str, Markers], Path], Any] | None = None
    needs: str | None = None  # a module that is not installed with canonlift
    package: str = ""  # what holds it, if that has another name


FORMATS: Mapping[str, Format] = {
    "trc": Format(".trc", trc.write),
    "c3d": Format(".c3d", c3d.write, needs="ezc3d"),
    "csv": Format(".csv", csv_npz.write_csv),
    "npz": Format(".npz", csv_npz.write_npz),
    "html": Format(
        ".html",
        write_recording=lambda name, prediction, _, path: viewer.write({name: prediction}, path),
    ),
    "rerun": Format(".rrd", write_recording=rrd.write, needs="rerun", package="rerun-sdk"),
}
