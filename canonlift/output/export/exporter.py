"""Predictions as files of other programs: each view by itself, and all of them fused."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from canonlift import suggestions
from canonlift.body.skeleton import ROOT
from canonlift.data.frames import to_views
from canonlift.data.prediction import Fused, Prediction, check_name, read_predictions
from canonlift.data.solution import Solution
from canonlift.output.export.formats import FORMATS
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

FUSED = "fused"  # name of the sequence made of all views
UNNAMED = "pose"  # name of a prediction that comes without one


def export(
    predictions: Prediction | Solution | Mapping[str, Prediction] | str | Path,
    out: str | Path,
    formats: Sequence[str] = ("trc", "html"),
    height: float | None = None,
    bone: str | None = None,
    up: bool = False,
    filter: str | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write predictions as files of other programs, and return the paths.

    Args:
        predictions: one, a solution, several by name, or the path of `predictions.npz` or of
            its folder.
        out: folder for the files.
        formats: rows of `formats.FORMATS`.
        height: of the person in metres; without it and `bone`, lengths are in body units.
        bone: two joints and their distance in metres, such as `l_hip-l_knee=0.42`.
        up: turn single views upright, too, as the fused sequence always is.
        filter: such as `butterworth:6`, a low-pass of 6 Hz without delay.
        overwrite: replace files that exist.

    Raises:
        ValueError: if an option makes no sense, a format lacks its package, or a prediction
            cannot be exported so.
        FileNotFoundError: if there are no predictions.
        FileExistsError: if a file exists, unless `overwrite`.
    """
    exporter = Exporter.parse(formats, height, bone, up, filter)
    if isinstance(predictions, Solution):
        predictions = predictions.prediction
    if isinstance(predictions, str | Path):
        predictions = read_predictions(predictions)
    elif isinstance(predictions, Prediction):
        predictions = {UNNAMED: predictions}
    written = exporter.write_all(predictions, Path(out), overwrite)
    return [path for each in written for path in each.paths]


class Written(NamedTuple):
    """The files of one recording, and the notes on each sequence in them."""

    name: str
    paths: list[Path]
    notes: dict[str, tuple[str, ...]]

    def lines(self) -> list[str]:
        """The notes on the fused sequence, if there is one, else on the last, as text."""
        sequence, notes = list(self.notes.items())[-1]
        return [f"{self.name}, {sequence}: {note}" for note in notes[1:]]


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
            if name not in FORMATS:
                raise suggestions.unknown("an export format", name, FORMATS)
            needed, package = FORMATS[name].needs, FORMATS[name].package
            if needed and find_spec(needed) is None:
                raise ValueError(
                    f"export format {name} needs {needed}: pip install {package or needed} "
                    f"(or pip install 'canonlift[{name}]')"
                )

    @classmethod
    def parse(
        cls,
        formats: Sequence[str],
        height: float | None = None,
        bone: str | None = None,
        up: bool = False,
        filter: str | None = None,
    ) -> "Exporter":
        """An exporter from options as `export` has them.

        Raises:
            ValueError: if one makes no sense.
        """
        if isinstance(formats, str):
            formats = formats.split(",")
        names = tuple(dict.fromkeys(name.strip() for name in formats))
        if height is not None and bone is not None:
            raise ValueError("height and bone both give the size of the person; choose one")
        size = None if bone is None else Size.of_bone(bone)
        size = size if height is None else Size.of_person(height)
        return cls(names, size, up, None if filter is None else Filter.parse(filter))

    def write_all(
        self, predictions: Mapping[str, Prediction], folder: Path, overwrite: bool = False
    ) -> Iterator[Written]:
        """Write the files of several recordings, one after the other."""
        for name, prediction in predictions.items():
            yield self.write(name, prediction, folder, overwrite)

    def write(
        self, name: str, prediction: Prediction, folder: Path, overwrite: bool = False
    ) -> Written:
        """Write the files of one recording.

        Raises:
            ValueError: naming the recording and the view that cannot be exported.
            FileExistsError: if one of them exists, unless `overwrite`; then none is written.
        """
        check_name(name)
        names = sequence_names(prediction)
        paths = {kind: self._paths(kind, name, names, folder) for kind in self.formats}
        every = [path for some in paths.values() for path in some]
        exist = [path for path in every if path.exists()]
        if exist and not overwrite:
            raise FileExistsError(
                f"{exist[0]} exists (and {len(exist) - 1} more); choose another folder, or "
                "overwrite them (--overwrite)"
            )
        sequences = dict(self.sequences(name, prediction))
        for kind, some in paths.items():
            row = FORMATS[kind]
            if row.write_sequence is not None:
                for path, markers in zip(some, sequences.values(), strict=True):
                    row.write_sequence(markers, path)
            if row.write_recording is not None:
                row.write_recording(name, prediction, sequences, some[0])
        return Written(name, every, {key: markers.notes for key, markers in sequences.items()})

    def _paths(self, kind: str, name: str, names: Sequence[str], folder: Path) -> list[Path]:
        suffix = FORMATS[kind].suffix
        if FORMATS[kind].write_recording is not None:
            return [folder / f"{name}{suffix}"]
        return [folder / f"{name}-{sequence}{suffix}" for sequence in names]

    def sequences(self, name: str, prediction: Prediction) -> Iterator[tuple[str, Markers]]:
        """Each view by its name, and all of them fused.

        Raises:
            ValueError: naming the recording and the view that cannot be exported.
        """
        recording, fused = prediction.recording, prediction.fused
        relative = f"relative to the {ROOT}, which is always at 0; missing where not observed"
        observed = to_views(recording).observed.numpy()
        names = sequence_names(prediction)
        for v, view in enumerate(recording.views):
            note = (
                f"lifted from {view} alone, in its axes turned by 180 degrees about x; {relative}"
            )
            markers = from_camera(prediction.pose[:, v], observed[:, v], recording, note)
            across = np.array([[1.0, 0.0, 0.0]]) if self.turn_views else None
            yield names[v], self._processed(f"{name}, {view}", markers, across)
        if fused is not None:
            note = f"made of all {len(recording.views)} views; {relative}"
            markers = from_camera(fused.pose, fused.seen_by > 0, recording, note)
            yield FUSED, self._processed(f"{name}, {FUSED}", markers, camera_axes(fused))

    def _processed(self, where: str, markers: Markers, across: np.ndarray | None) -> Markers:
        try:
            if across is not None:
                markers = upright(markers, across)
            if self.filter:
                markers = smoothed(markers, self.filter)
            return in_metres(markers, self.size) if self.size else markers
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def camera_axes(fused: Fused) -> Float[np.ndarray, "V 3"]:
    """The mean direction of each camera's x axis, in the axes of exported markers."""
    seen = np.isfinite(fused.rotation[:, :, 0])
    total = np.where(seen, fused.rotation[:, :, 0], 0.0).sum(0)
    return (total * Y_UP)[seen.any((0, 2))]


def sequence_names(prediction: Prediction) -> list[str]:
    """Names for the views that can stand in file names, all different; and `FUSED` where it is."""
    found: dict[str, None] = {FUSED: None}
    for view in prediction.views:
        plain = re.sub(r"[^\w.-]+", "_", view)
        numbered = (f"{plain}-{n}" for n in itertools.count(2))
        free = (name for name in itertools.chain([plain], numbered) if name not in found)
        found[next(free)] = None
    views = list(found)[1:]
    return views if prediction.fused is None else [*views, FUSED]
