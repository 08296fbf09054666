"""The recording, and its file `recording.npz`: 2D detections of one person in all cameras."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.lib.npyio import NpzFile

from canonlift import files
from canonlift.body import skeleton

# What numpy, zipfile and zlib raise for a damaged or hostile file (RuntimeError: encrypted).
UNREADABLE = (
    ValueError, OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Recording:
    """T consecutive frames of one person by V synchronised cameras.

    `pose3d` and `keypoints_true` are ground truth. Evaluation reads them; training must not.

    Raises:
        ValueError: if arrays contradict each other or the format; the message has the remedy.
    """

    keypoints: Float[np.ndarray, "T V J 2"]  # pixels, x right, y down
    confidence: Float[np.ndarray, "T V J"]  # in [0, 1]; 0: not observed
    joints: tuple[str, ...]
    views: tuple[str, ...]
    fps: float
    rig: str = ""  # equal names: the same fixed cameras; empty: cameras may move
    image_size: Int[np.ndarray, "V 2"] | None = None  # width, height
    pose3d: Float[np.ndarray, "T V J 3"] | None = None  # metres, camera axes; NaN where unknown
    keypoints_true: Float[np.ndarray, "T V J 2"] | None = None  # pixels
    processing: str = ""  # of the keypoints after detection; part of evaluation protocols

    def __post_init__(self) -> None:
        _check_shapes(self)
        low, high = self.confidence.min(initial=0.0), self.confidence.max(initial=0.0)
        if not (low >= 0.0 and high <= 1.0):  # also refuses NaN
            raise ValueError(
                f"confidence is between {low:.3g} and {high:.3g}, but must be in [0, 1]; "
                "scale the detector's scores before writing the recording"
            )
        bad = ~np.isfinite(self.keypoints).all(-1) & (self.confidence > 0)
        if bad.any():
            frame, view, joint = np.argwhere(bad)[0]
            raise ValueError(
                f"keypoint is not finite but its confidence is positive: frame {frame}, view "
                f"{self.views[view]!r}, joint {self.joints[joint]!r} (and {bad.sum() - 1} more); "
                "set the confidence of unobserved joints to 0"
            )

    def __repr__(self) -> str:
        return (
            f"Recording({self.n_frames} frames at {self.fps:g} fps, {len(self.views)} views, "
            f"{len(self.joints)} joints{f', rig {self.rig!r}' if self.rig else ''})"
        )

    @property
    def n_frames(self) -> int:
        """Length in frames."""
        return len(self.keypoints)

    def save(self, path: str | Path) -> None:
        """Write `recording.npz`, whole or not at all; equal recordings give equal bytes."""
        save(self, Path(path))

    def on_skeleton(self, joints: tuple[str, ...], partly: bool = False) -> "Recording":
        """The same recording with other joints, computed from those recorded.

        The confidence of a computed joint is the lowest of the joints it is computed from.

        Args:
            joints: names, in the order wanted.
            partly: leave joints that cannot be computed unobserved, unless the root is one.

        Raises:
            ValueError: if joints cannot be computed from those recorded.
        """
        if joints == self.joints:
            return self
        lacking = skeleton.lacking(self.joints, joints)
        if not partly or skeleton.ROOT in lacking:
            lacking = ()  # `conversion` refuses them
        computed = np.array([name not in lacking for name in joints])
        matrix = np.zeros((len(joints), len(self.joints)))
        able = [name for name in joints if name not in lacking]
        matrix[computed] = skeleton.conversion(self.joints, able)

        def convert(points: np.ndarray | None) -> np.ndarray | None:
            if points is None:
                return None
            # 0 * NaN is NaN, so NaN is replaced first, and put back only where it belongs.
            mixed = np.einsum("ij,tvjc->tvic", matrix, np.nan_to_num(points))
            unknown = np.einsum("ij,tvj->tvi", matrix != 0, np.isnan(points).any(-1)) > 0
            mixed[unknown | ~computed] = np.nan
            return mixed.astype(np.float32)

        sources = [np.flatnonzero(row) for row in matrix]
        lowest = [self.confidence[..., s].min(-1, initial=1.0) for s in sources]
        names = ("keypoints", "pose3d", "keypoints_true")
        converted = {name: convert(getattr(self, name)) for name in names}
        confidence = np.stack(lowest, -1) * computed
        return replace(self, confidence=confidence, joints=joints, **converted)


def save(recording: Recording, path: Path) -> None:
    """Write `recording.npz`, whole or not at all; equal recordings give equal bytes."""
    arrays: dict[str, Any] = {**to_arrays(recording)}
    files.write(path, lambda file: np.savez_compressed(file, **arrays))


def to_arrays(recording: Recording) -> dict[str, np.ndarray]:
    """What `recording.npz` holds, by name; `from_arrays` makes a recording of it again."""
    arrays = {f.name: getattr(recording, f.name) for f in fields(recording)}
    return {name: np.asarray(value) for name, value in arrays.items() if value is not None}


def load(path: Path) -> Recording:
    """Read `recording.npz` without unpickling anything.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a recording, with the file, the place in it and the remedy.
    """
    with open_npz(path, "write it again with `canonlift convert`") as file:
        arrays = {name: file[name] for name in file.files}
    try:
        return from_arrays(arrays)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


@contextmanager
def open_npz(path: Path, remedy: str) -> Iterator[NpzFile]:
    """An .npz to read arrays from; nothing in it is unpickled.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it, or an array that is read, is damaged or pickled; with the remedy.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with path.open("rb") as stream:  # np.load does not close a file that is no archive
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, NpzFile):
                raise ValueError("it holds a single array")
            yield file
    except UNREADABLE as error:
        # numpy's message for such files advises to unpickle them.
        pickled = "pickle" in str(error)
        reason = "not an archive, or one of pickled objects" if pickled else error
        raise ValueError(f"{path}: not a readable .npz ({reason}); {remedy}") from error


def fingerprint(path: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and checksums of the arrays in `recording.npz`, without reading them."""
    try:
        with zipfile.ZipFile(path) as file:
            return [(part.filename, part.file_size, part.CRC) for part in file.infolist()]
    except UNREADABLE:
        load(path)  # raises an error with the reason
        raise


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Recording:
    """The recording that `to_arrays` took apart; arrays of other names are left out.

    Raises:
        ValueError: if an array is missing, or contradicts another or the format.
    """
    required = {"keypoints", "confidence", "joints", "views", "fps"}
    if missing := required - arrays.keys():
        lacking = ", ".join(sorted(missing))
        raise ValueError(f"lacks {lacking}; write it with `canonlift convert`")
    floats = ("keypoints", "confidence", "pose3d", "keypoints_true")
    return Recording(
        **{name: arrays[name].astype(np.float32) for name in floats if name in arrays},
        joints=tuple(str(name) for name in arrays["joints"]),
        views=tuple(str(name) for name in arrays["views"]),
        fps=float(arrays["fps"]),
        rig=str(arrays.get("rig", "")),
        processing=str(arrays.get("processing", "")),
        image_size=arrays["image_size"].astype(np.int32) if "image_size" in arrays else None,
    )


def _check_shapes(recording: Recording) -> None:
    shape = recording.keypoints.shape
    if len(shape) != 4 or shape[-1] != 2:
        raise ValueError(f"keypoints are {shape}, need (frames, views, joints, 2)")
    n_frames, n_views, n_joints, _ = shape
    expected = {
        "confidence": (n_frames, n_views, n_joints),
        "image_size": (n_views, 2),
        "pose3d": (n_frames, n_views, n_joints, 3),
        "keypoints_true": shape,
    }
    for name, need in expected.items():
        array = getattr(recording, name)
        if array is not None and array.shape != need:
            raise ValueError(f"{name} is {array.shape}, but keypoints of {shape} need {need}")
    for name, need in (("joints", n_joints), ("views", n_views)):
        names = getattr(recording, name)
        if len(names) != need or len(set(names)) != need:
            raise ValueError(f"{name} must be {need} different names, got {names}")
    if not recording.fps > 0:
        raise ValueError(f"fps must be positive, got {recording.fps}")
