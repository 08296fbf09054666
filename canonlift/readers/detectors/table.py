"""The formats of detectors, how to tell them apart, and which files are a camera's."""

import glob
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
from canonlift.readers.detectors.parsing import Cameras, Document, InputError, documents


class Reader(NamedTuple):
    """One row of the formats."""

    about: str
    suffixes: tuple[str, ...]
    recognise: Callable[[Any], bool]  # of a file's content
    read: Callable[[Iterable[Document]], Cameras]
    scores: str  # their family, see `scores.rule`
    layouts: tuple[str, ...] = ()  # possible where the file does not name its joints


# What `auto` tries, in this order: the more particular first.
READERS: Mapping[str, Reader] = {
    "openpose": Reader(
        "OpenPose JSON (also Pose2Sim's and rtmlib's): a folder of one file per frame",
        (".json",),
        openpose.recognise,
        openpose.read,
        "probability",
        ("BODY_25", "BODY_25B", "COCO-18", "MPI-15", "coco17", "halpe26", "wholebody133"),
    ),
    "alphapose": Reader(
        "AlphaPose results: alphapose-results.json, in its own form or as cmu or open",
        (".json",),
        alphapose.recognise,
        alphapose.read,
        "probability",
        ("coco17", "halpe26", "mpii16", "COCO-18", "halpe68", "wholebody133", "halpe136"),
    ),
    "mmpose": Reader(
        "MMPose and RTMPose: predictions of the inferencer or the demo scripts, of a video in one "
        "file or of images in a folder",
        (".json",),
        mmpose.recognise,
        mmpose.read,
        "simcc",
        ("coco17", "halpe26", "mpii16", "wholebody133", "halpe136"),
    ),
    "coco": Reader(
        "COCO keypoints: results or annotations, one file per camera",
        (".json",),
        coco.recognise,
        coco.read,
        "coco",
        ("coco17", "halpe26", "mpii16", "wholebody133"),
    ),
    "yolo": Reader(
        "YOLO-pose by ultralytics: a folder of labels, .txt (needs --image-size), or JSON",
        (".txt", ".json"),
        yolo.recognise,
        yolo.read,
        "probability",
        ("coco17",),
    ),
    "deeplabcut": Reader(
        "DeepLabCut: the CSV or h5 file of a video, of one animal or several",
        (".csv", ".h5", ".hdf5"),
        deeplabcut.recognise,
        deeplabcut.read,
        "probability",
    ),
    "mediapipe": Reader(
        "MediaPipe's 33 pose landmarks: JSON or CSV, in pixels or (with --image-size) in [0, 1]",
        (".json", ".csv"),
        mediapipe.recognise,
        mediapipe.read,
        "visibility",
        ("blazepose33",),
    ),
    "csv": Reader(
        "a table with a header: frame, time, nose_x, nose_y, nose_confidence, ...; or a row per "
        "joint: frame, joint, x, y, confidence",
        (".csv", ".tsv", ".txt"),
        csv_table.recognise,
        csv_table.read,
        "unknown",
        ("blazepose33", "coco17", "halpe26", "mpii16", "COCO-18", "limbs12"),
    ),
    "bodypose3d": Reader(
        "text files of 12 limb joints: 24 numbers per line, -1 where undetected",
        (".dat", ".txt"),
        bodypose3d.recognise,
        bodypose3d.read,
        "none",
    ),
    "detectron": Reader(
        "VideoPose3D's npz files: of one video by Detectron2, or of one take of a data set",
        (".npz",),
        detectron.recognise,
        detectron.read,
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
        files = sorted(
            p for p in path.iterdir()
            if p.suffix.lower() in suffixes and not p.name.startswith(".") and p.is_file()
        )  # fmt: skip
        if not files:
            inner = sorted(p.name for p in path.iterdir() if p.is_dir())[:8]
            hint = f"give its folders {', '.join(inner)} one by one" if inner else "is it the one?"
            raise FileNotFoundError(f"{camera}: no results of a detector in it; {hint}")
        return files
    if glob.has_magic(camera):
        files = sorted(Path(p) for p in glob.glob(camera) if Path(p).is_file())
        if not files:
            raise FileNotFoundError(f"{camera}: matches no file; looked from {Path.cwd()}")
        return files
    raise FileNotFoundError(f"{camera}: no such file or folder; check the path")


def recognise(form: str, paths: Sequence[Path]) -> tuple[str, list[Path], str]:
    """The format, the files that can be of it, and what was seen of it.

    Raises:
        InputError: if there is none that fits.
    """
    if form != "auto":
        if form not in READERS:
            raise suggestions.unknown("format", form, [*READERS, "auto"])
        suffixes = READERS[form].suffixes
        if len(paths) == 1:
            return form, list(paths), ""
        fitting = [path for path in paths if path.suffix.lower() in suffixes]
        if not fitting:
            what = f"no {' or '.join(suffixes)} file, as {form} has"
            raise InputError(paths[0].parent, what, "give another format, or auto")
        return form, fitting, ""
    for doc in documents(paths):
        for name, reader in READERS.items():
            if reader.recognise(doc.content):
                alike = [path for path in paths if path.suffix == doc.path.suffix]
                return name, alike, f"{doc.path} looks like {name}: {reader.about}"
        if doc.content not in ([], "", {}):
            break
    raise InputError(
        paths[0],
        f"looks like no format that is known ({', '.join(READERS)})",
        "name the format, or write a table (format csv)",
    )
