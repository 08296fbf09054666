"""The table of detectors: a new one is a row here and a file beside this one."""

import glob
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from canonlift import suggestions
from canonlift.readers.detectors import (
    alphapose,
    bodypose3d,
    coco,
    csv_table,
    deeplabcut,
    detectron,
    mediapipe,
    mmpose,
    openpose,
    yolo,
)
from canonlift.readers.detectors.parsing import CameraDetections, Document, InputError, documents


class Format(Protocol):
    """What the file of a detector defines."""

    @property
    def REMEDY(self) -> str:
        """What to do about a file that is not as the detector writes it."""
        ...

    def recognise(self, content: Any) -> bool:
        """Whether a file's content is this format."""
        ...

    def read(self, docs: Iterable[Document]) -> dict[str, CameraDetections]:
        """Detections by camera, "" if the files are of one; errors may leave out the remedy."""
        ...


class Reader(NamedTuple):
    """One row of the table."""

    format: Format
    about: str
    suffixes: tuple[str, ...]
    scores: str  # what they are, see `scores.confidences`
    layouts: tuple[str, ...] = ()  # possible where the file does not name its joints

    def read(self, paths: Sequence[Path]) -> dict[str, CameraDetections]:
        """Detections by camera, "" if the files are of one."""
        try:
            return self.format.read(documents(paths))
        except InputError as error:
            remedy = error.remedy or self.format.REMEDY
            raise InputError(error.where, error.what, remedy) from error


# What `auto` tries, in this order: the more particular first.
READERS: Mapping[str, Reader] = {
    "openpose": Reader(
        openpose,
        "OpenPose JSON (also Pose2Sim's and rtmlib's): a folder of one file per frame",
        (".json",),
        "probability",
        ("BODY_25", "BODY_25B", "COCO-18", "MPI-15", "coco17", "halpe26", "wholebody133"),
    ),
    "alphapose": Reader(
        alphapose,
        "AlphaPose results: alphapose-results.json, in its own form or as cmu or open",
        (".json",),
        "probability",
        ("coco17", "halpe26", "mpii16", "COCO-18", "halpe68", "wholebody133", "halpe136"),
    ),
    "mmpose": Reader(
        mmpose,
        "MMPose and RTMPose: predictions of the inferencer or the demo scripts, of a video in one "
        "file or of images in a folder",
        (".json",),
        "simcc",
        ("coco17", "halpe26", "mpii16", "wholebody133", "halpe136"),
    ),
    "coco": Reader(
        coco,
        "COCO keypoints: results or annotations, one file per camera",
        (".json",),
        "coco",
        ("coco17", "halpe26", "mpii16", "wholebody133"),
    ),
    "yolo": Reader(
        yolo,
        "YOLO-pose by ultralytics: a folder of labels, .txt (needs --image-size), or JSON",
        (".txt", ".json"),
        "probability",
        ("coco17",),
    ),
    "deeplabcut": Reader(
        deeplabcut,
        "DeepLabCut: the CSV or h5 file of a video, of one animal or several",
        (".csv", ".h5", ".hdf5"),
        "probability",
    ),
    "mediapipe": Reader(
        mediapipe,
        "MediaPipe's 33 pose landmarks: JSON or CSV, in pixels or (with --image-size) in [0, 1]",
        (".json", ".csv"),
        "visibility",
        ("blazepose33",),
    ),
    "csv": Reader(
        csv_table,
        "a table with a header: frame, time, nose_x, nose_y, nose_confidence, ...; or a row per "
        "joint: frame, joint, x, y, confidence",
        (".csv", ".tsv", ".txt"),
        "unknown",
        ("blazepose33", "coco17", "halpe26", "mpii16", "COCO-18", "limbs12"),
    ),
    "bodypose3d": Reader(
        bodypose3d,
        "text files of 12 limb joints: 24 numbers per line, -1 where undetected",
        (".dat", ".txt"),
        "none",
    ),
    "detectron": Reader(
        detectron,
        "VideoPose3D's npz files: of a video by Detectron2, or of one recording of a data set",
        (".npz",),
        "relative",
        ("coco17",),
    ),
}


def find(camera: str) -> list[Path]:
    """A camera's files: the file, those in the folder, or those that the glob matches.

    Raises:
        FileNotFoundError: if there are none.
    """
    path = Path(camera)
    if path.is_file():
        return [path]
    if path.is_dir():
        suffixes = {suffix for reader in READERS.values() for suffix in reader.suffixes}
        found = [p for p in path.iterdir() if p.suffix.lower() in suffixes and p.name[0] != "."]
        inner = ", ".join(sorted(p.name for p in path.iterdir() if p.is_dir())[:8])
        hint = f"give its folders {inner} one by one" if inner else "is it the one?"
        message = f"no results of a detector in it; {hint}"
    elif glob.has_magic(camera):
        found = [Path(p) for p in glob.glob(camera)]
        message = f"matches no file; looked from {Path.cwd()}"
    else:
        found, message = [], "no such file or folder; check the path"
    files = sorted(p for p in found if p.is_file())
    if not files:
        raise FileNotFoundError(f"{camera}: {message}")
    return files


def recognise(form: str, paths: Sequence[Path]) -> tuple[str, list[Path], str]:
    """The format, the files that can be of it, and what it was recognised by.

    Raises:
        InputError: if there is none that fits.
    """
    if form != "auto":
        if form not in READERS:
            raise suggestions.unknown("format", form, [*READERS, "auto"])
        suffixes = READERS[form].suffixes
        fitting = [path for path in paths if path.suffix.lower() in suffixes or len(paths) == 1]
        if not fitting:
            what = f"no {' or '.join(suffixes)} file, as {form} has"
            raise InputError(paths[0].parent, what, "give another format, or auto")
        return form, fitting, ""
    for path, content in documents(paths):
        for name, reader in READERS.items():
            if reader.format.recognise(content):
                alike = [other for other in paths if other.suffix == path.suffix]
                return name, alike, f"{path} looks like {name}: {reader.about}"
        if content not in ([], "", {}):
            break
    what = f"looks like no format that is known ({', '.join(READERS)})"
    raise InputError(paths[0], what, "name the format, or write a table (format csv)")
