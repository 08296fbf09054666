"""What is written of each recording, and how: the table of formats, and the options."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from canonlift import suggestions
from canonlift.body.skeleton import ROOT
from canonlift.data.frames import to_views
from canonlift.data.prediction import Fused, Prediction
from canonlift.data.recording import Recording
from canonlift.output import viewer
from canonlift.output.export import c3d, rrd, tables, trc
from canonlift.output.export.markers import (
    Y_UP,
    Filter,
    Markers,
    Size,
    from_camera,
    in_metres,
    smoothed,
    upright,
)

FUSED = "fused"  # what the sequence made of all views is called


@dataclass(frozen=True, eq=False)
class Take:
    """All that there is of a recording, on one skeleton."""

    name: str
    recording: Recording
    prediction: Prediction
    fused: Fused | None  # None: of one view alone


class Format(NamedTuple):
    """One row of the table."""

    write: Callable[[Take, Mapping[str, Markers], Path], Sequence[Path]]
    needs: str | None = None  # a module that is not installed with canonlift
    package: str = ""  # what holds it, if that has another name


def _each(
    write: Callable[[Markers, Path], None], suffix: str
) -> Callable[[Take, Mapping[str, Markers], Path], Sequence[Path]]:
    """One file per sequence."""

    def write_each(take: Take, sequences: Mapping[str, Markers], folder: Path) -> list[Path]:
        paths = [folder / f"{take.name}-{name}{suffix}" for name in sequences]
        for path, markers in zip(paths, sequences.values(), strict=True):
            write(markers, path)
        return paths

    return write_each


def _page(take: Take, sequences: Mapping[str, Markers], folder: Path) -> list[Path]:  # noqa: ARG001
    """Everything in one file, to look at."""
    path = folder / f"{take.name}.html"
    fused = (take.fused.pose, take.fused.rotation) if take.fused else ()
    viewer.write([viewer.Take(take.name, take.recording, take.prediction, *fused)], path)
    return [path]


def _rerun(take: Take, sequences: Mapping[str, Markers], folder: Path) -> list[Path]:
    """Everything in one file, for the Rerun viewer."""
    path = folder / f"{take.name}.rrd"
    rrd.write(take.recording, take.prediction.keypoints_refined, sequences, path)
    return [path]


EXPORTS: Mapping[str, Format] = {
    "trc": Format(_each(trc.write, ".trc")),
    "c3d": Format(_each(c3d.write, ".c3d"), needs="ezc3d"),
    "csv": Format(_each(tables.write_csv, ".csv")),
    "npz": Format(_each(tables.write_npz, ".npz")),
    "html": Format(_page),
    "rerun": Format(_rerun, needs="rerun", package="rerun-sdk"),
}


@dataclass(frozen=True)
class Exporter:
    """What to write of every recording.

    Raises:
        ValueError: if a format is unknown or lacks its package.
    """

    formats: tuple[str, ...]
    size: Size | None = None  # None: in body units
    turn_views: bool = False  # single views upright, too; the fused sequence always is
    filter: Filter | None = None

    def __post_init__(self) -> None:
        for name in self.formats:
            if name not in EXPORTS:
                raise suggestions.unknown("--export", name, EXPORTS)
            _, needed, package = EXPORTS[name]
            if needed and find_spec(needed) is None:
                raise ValueError(
                    f"--export {name} needs {needed}: pip install {package or needed} "
                    f"(or pip install 'canonlift[{name}]')"
                )

    def write(self, take: Take, folder: Path) -> dict[str, Any]:
        """Write a recording's files; returns their names, and what is to be said of them."""
        sequences = dict(self.sequences(take))
        paths = [
            path for name in self.formats for path in EXPORTS[name].write(take, sequences, folder)
        ]
        return {
            "files": [path.name for path in paths],
            "notes": {name: list(markers.notes) for name, markers in sequences.items()},
        }

    def sequences(self, take: Take) -> Iterator[tuple[str, Markers]]:
        """Each view by its name, and all of them fused.

        Raises:
            ValueError: naming the recording and the view that cannot serve.
        """
        recording = take.recording
        relative = f"relative to the {ROOT}, which is always at 0; missing where not observed"
        observed = to_views(recording).observed.numpy()
        names_of_views = sequence_names(recording.views)
        for v, (view, name) in enumerate(zip(recording.views, names_of_views, strict=True)):
            note = f"lifted from {view} alone, in its axes, half a turn about x later; {relative}"
            markers = from_camera(take.prediction.pose[:, v], observed[:, v], recording, note)
            across = np.array([[1.0, 0.0, 0.0]]) if self.turn_views else None
            yield name, self._processed(take, view, markers, across)
        if take.fused is not None:
            note = f"made of all {len(recording.views)} views; {relative}"
            markers = from_camera(take.fused.pose, take.fused.seen_by > 0, recording, note)
            yield FUSED, self._processed(take, FUSED, markers, camera_axes(take.fused))

    def _processed(
        self, take: Take, name: str, markers: Markers, across: np.ndarray | None
    ) -> Markers:
        try:
            if across is not None:
                markers = upright(markers, across)
            if self.filter:
                markers = smoothed(markers, self.filter)
            return in_metres(markers, self.size) if self.size else markers
        except ValueError as error:
            raise ValueError(f"{take.name}, {name}: {error}") from error


def camera_axes(fused: Fused) -> Float[np.ndarray, "V 3"]:
    """The mean direction of each camera's x axis, in the axes of exported markers."""
    seen = np.isfinite(fused.rotation[:, :, 0])
    total = np.where(seen, fused.rotation[:, :, 0], 0.0).sum(0)
    return (total * Y_UP)[seen.any((0, 2))]


def sequence_names(views: Sequence[str]) -> list[str]:
    """A name for each view that may stand in a file's name; no two alike, and none is `FUSED`."""
    found: dict[str, None] = {FUSED: None}
    for view in views:
        plain = re.sub(r"[^\w.-]+", "_", view)
        numbered = (f"{plain}-{n}" for n in itertools.count(2))
        found[next(name for name in itertools.chain([plain], numbered) if name not in found)] = (
            None
        )
    return list(found)[1:]


def describe(exports: Mapping[str, Any]) -> list[str]:
    """What `Exporter.write` said of recordings, as lines to print: of fused sequences, if any."""
    lines = []
    for recording, export in exports.items():
        name, notes = list(export["notes"].items())[-1]
        lines += [f"{recording}, {name}: {note}" for note in notes[1:]]
    return lines
