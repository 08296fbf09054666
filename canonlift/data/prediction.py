"""What a model predicts of a recording, and the file that holds it.

`predictions.npz` holds, for every recording NAME, `NAME/pose`, `NAME/rotation` and
`NAME/keypoints_refined`; where there are several views, `NAME/fused_pose`, `NAME/fused_rotation`
and `NAME/fused_seen_by`; and as `NAME/recording/keypoints` and so on what was predicted from.
"""

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from canonlift import files, suggestions
from canonlift.data.recording import Recording, from_arrays, open_npz, to_arrays

FILE = "predictions.npz"
PREDICTED = ("pose", "rotation", "keypoints_refined")
FUSED = ("pose", "rotation", "seen_by")
REMEDY = "write it again with `canonlift eval`"


@dataclass(frozen=True, eq=False)
class Fused:
    """One 3D sequence made of all views of a recording; NaN in frames that no view observed.

    All frames have one frame of reference, in which the cameras turn, and one size.
    """

    pose: Float[np.ndarray, "T J 3"]  # root at 0; body units: the median sum of bones is 1
    rotation: Float[np.ndarray, "T V 3 3"]  # to the axes of the camera; NaN: nothing was observed
    seen_by: Int[np.ndarray, "T J"]  # views that observed a joint; 0: its place is a guess

    @property
    def in_camera(self) -> Float[np.ndarray, "T V J 3"]:
        """The pose in the axes of each camera."""
        return np.einsum("tvrc,tjc->tvjr", self.rotation, self.pose)


@dataclass(frozen=True, eq=False)
class Prediction:
    """A recording, and what a model predicts of it: 3D poses and repaired 2D joints.

    Views in which nothing was observed hold NaN.

    Raises:
        ValueError: if arrays and recording differ in frames, views or joints.
    """

    recording: Recording  # on the joints of the model
    pose: Float[np.ndarray, "T V J 3"]  # camera axes, root at 0; body units: bones sum to 1
    rotation: Float[np.ndarray, "T V 3 3"]  # canonical frame -> camera
    keypoints_refined: Float[np.ndarray, "T V J 2"]  # pixels; as detected where not repaired
    fused: Fused | None = None  # None: there is one view

    def __post_init__(self) -> None:
        n_frames, n_views, n_joints = self.recording.confidence.shape
        need = {
            "pose": (n_frames, n_views, n_joints, 3),
            "rotation": (n_frames, n_views, 3, 3),
            "keypoints_refined": (n_frames, n_views, n_joints, 2),
            "fused_pose": (n_frames, n_joints, 3),
            "fused_rotation": (n_frames, n_views, 3, 3),
            "fused_seen_by": (n_frames, n_joints),
        }
        for name, array in _predicted(self).items():
            if array.shape != need[name]:
                raise ValueError(
                    f"{name} is {array.shape}, but the recording of {n_frames} frames, {n_views} "
                    f"views and {n_joints} joints needs {need[name]}; predict this recording"
                )

    def __repr__(self) -> str:
        return f"Prediction(of {self.recording!r}, fused: {self.fused is not None})"

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the joints."""
        return self.recording.joints

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views."""
        return self.recording.views

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.recording.fps

    def save(self, path: str | Path) -> None:
        """Write an .npz that `read_predictions` reads, under the name of the file."""
        save_predictions([(Path(path).stem, self)], path)


def save_predictions(predictions: Iterable[tuple[str, Prediction]], path: str | Path) -> None:
    """Write predictions by the names of their recordings, one after the other, or no file at all.

    Raises:
        ValueError: if a name cannot stand in a file name, or is given twice.
    """
    write_arrays(((name, arrays_of(prediction)) for name, prediction in predictions), path)


def arrays_of(prediction: Prediction) -> dict[str, np.ndarray]:
    """All arrays of a prediction, as the file names them after the name of the recording."""
    given = to_arrays(prediction.recording)
    return _predicted(prediction) | {f"recording/{key}": array for key, array in given.items()}


def write_arrays(
    recordings: Iterable[tuple[str, Mapping[str, np.ndarray]]], path: str | Path
) -> None:
    """Write the arrays of several recordings by their names, or no file at all.

    Raises:
        ValueError: if a name cannot stand in a file name, or is given twice.
    """
    names: set[str] = set()
    with (
        files.writing(Path(path)) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for name, arrays in recordings:
            check_name(name)
            if name in names:
                raise ValueError(f"two recordings have the name {name!r}; rename one of them")
            names.add(name)
            for key, array in arrays.items():
                with archive.open(f"{name}/{key}.npy", "w", force_zip64=True) as part:
                    np.lib.format.write_array(part, array, allow_pickle=False)


def check_name(name: str) -> None:
    """Refuse a name of a recording that cannot be the beginning of a file name."""
    if not re.fullmatch(r"[^/\\\x00-\x1f]+", name) or name in (".", ".."):
        raise ValueError(f"{name!r} is no name for a recording: it must serve as a file name")


class PredictionFile(Mapping[str, Prediction]):
    """The predictions in a file, by name; each is read when it is used, and not kept."""

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        self.path, self.names = path, tuple(names)

    def only(self, names: Iterable[str]) -> "PredictionFile":
        """The predictions of these names alone."""
        names = tuple(dict.fromkeys(names))
        for name in names:
            if name not in self.names:
                raise suggestions.unknown(f"{self.path}: a recording", name, self.names)
        return PredictionFile(self.path, names)

    def __getitem__(self, name: str) -> Prediction:
        """Read one.

        Raises:
            KeyError: if there is none of that name.
            ValueError: if the file is damaged.
        """
        arrays = self.arrays(name)
        try:
            return assembled(arrays)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.path}: {name}: {error}; {REMEDY}") from error

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """All arrays that the file holds of a recording.

        Raises:
            KeyError: if there is none of that name.
            ValueError: if the file is damaged.
        """
        if name not in self.names:
            raise KeyError(name)
        prefix = f"{name}/"
        with open_npz(self.path, REMEDY) as file:
            keys = [key for key in file.files if key.startswith(prefix)]
            return {key.removeprefix(prefix): file[key] for key in keys}

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def read_predictions(path: str | Path) -> PredictionFile:
    """The predictions in a file, or in the `predictions.npz` of a folder, by their names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no predictions.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    with open_npz(path, REMEDY) as file:
        keys = file.files
    if "keypoints" in keys:
        raise ValueError(
            f"{path}: is a recording; predict it with `canonlift eval RUN --recordings {path}`"
        )
    names = tuple(dict.fromkeys(key.partition("/")[0] for key in keys))
    if not all(f"{name}/pose" in keys for name in names) or not names:
        raise ValueError(f"{path}: holds no predictions; {REMEDY}")
    for name in names:
        if f"{name}/recording/keypoints" not in keys:
            raise ValueError(f"{path}: lacks the recordings, as in canonlift 0.1; {REMEDY}")
        try:
            check_name(name)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return PredictionFile(path, names)


def _predicted(prediction: Prediction) -> dict[str, np.ndarray]:
    """The arrays of a prediction but for those of its recording, as the file names them."""
    arrays = {name: getattr(prediction, name) for name in PREDICTED}
    if prediction.fused is not None:
        arrays |= {f"fused_{name}": getattr(prediction.fused, name) for name in FUSED}
    return arrays


def assembled(arrays: Mapping[str, np.ndarray]) -> Prediction:
    """A prediction from what the file holds of one recording."""
    part = "recording/"
    inside = {k.removeprefix(part): array for k, array in arrays.items() if k.startswith(part)}
    has_fused = any(key.startswith("fused_") for key in arrays)
    wanted = [*PREDICTED, *(f"fused_{name}" for name in FUSED if has_fused)]
    if missing := [name for name in wanted if name not in arrays]:
        raise ValueError(f"lacks {', '.join(missing)}")
    if wrong := [name for name in wanted if arrays[name].dtype.kind not in "fiu"]:
        raise ValueError(f"{wrong[0]} holds no numbers but {arrays[wrong[0]].dtype}")
    kinds = {"fused_seen_by": np.int8}
    given = {name: arrays[name].astype(kinds.get(name, np.float32)) for name in wanted}
    fused = Fused(*(given[f"fused_{name}"] for name in FUSED)) if has_fused else None
    parts = {name: given[name] for name in PREDICTED}
    return Prediction(from_arrays(inside), **parts, fused=fused)
