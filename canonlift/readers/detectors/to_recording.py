"""From the files of a detector, camera by camera, to one person's recording.

The steps that all formats share: which files belong to a camera (`table`), the names of the joints
(`joint_names`), pixels and confidences (`people`, `scores`), which person is kept
(`person_choice`), and which frames belong together (`frame_matching`).
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from canonlift.body import skeleton
from canonlift.data.recording import Recording
from canonlift.readers.detectors import frame_matching, joint_names, people, person_choice, table
from canonlift.readers.detectors.parsing import CameraDetections, InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What the files do not say, and what the user chooses."""

    fps: tuple[float, ...] = ()  # one for all cameras or one each; empty: the files say
    rig: str = ""
    layout: str | None = None  # a name of `joint_layouts.LAYOUTS` or a YAML file
    image_size: tuple[tuple[int, int], ...] = ()  # width, height: one for all cameras or one each
    confidence: str | None = None  # a row of `scores.RULES`
    person: tuple[str, ...] = ("best",)  # a choice for all cameras, or CAM=choice
    resample: bool = True


def read(
    cameras: Sequence[str | Path], form: str = "auto", options: Options | None = None
) -> tuple[Recording, list[str]]:
    """Read one person's recording on the detector's own joints, and report what was decided.

    Args:
        cameras: one file, folder or glob each; a file that holds several cameras is all of them.
        form: a row of `table.READERS`, or `auto`.
        options: what the files do not say.

    Raises:
        FileNotFoundError: if there are no such files.
        InputError: if a file is not what it should be, or the cameras do not fit together.
        ValueError: if an option makes no sense.
    """
    options = options or Options()
    detections, form, report = _read_cameras(cameras, form, options)
    reader = table.READERS[form]
    where = ", ".join(dict.fromkeys(part.path for part in detections.values()))
    detected = {name: people.observed(part) for name, part in detections.items()}
    if not any(map(len, detected.values())):
        raise InputError(where, "no person in any file", "run the detector on the right videos")

    names, matrix, lines = joint_names.resolve(
        detections, detected, reader.layouts, options.layout, where
    )
    detected = {
        name: people.in_pixels(seen, detections[name], form == "openpose")
        for name, seen in detected.items()
    }
    detected, line = people.with_confidence(detected, reader.scores, options.confidence, where)
    report += [*lines, line]
    rates = _one_each(options.fps, len(detections), "frame rates")
    if not rates:
        rates, line = frame_matching.rates_of(detections)
        report.append(line)

    kept: dict[str, dict[int, np.ndarray]] = {}
    for (name, part), rate in zip(detections.items(), rates, strict=True):
        seen = people.combined(detected[name], matrix)
        kept[name], lines = person_choice.choose(seen, part, rate, name, options.person)
        report += [f"{name}: {line}" for line in lines]
    grid, fps, processing, lines = frame_matching.match(
        kept, detections, rates, len(names), options.resample, where
    )
    known = [part.image_size for part in detections.values()]
    observed = grid[..., 2] > 0
    recording = Recording(
        keypoints=np.where(observed[..., None], grid[..., :2], np.nan).astype(np.float32),
        confidence=np.where(observed, grid[..., 2], 0).astype(np.float32),
        joints=names,
        views=tuple(detections),
        fps=fps,
        rig=options.rig,
        image_size=None if None in known else np.array(known, dtype=np.int32),
        processing=processing,
    )
    return recording, [*report, *lines, skeletons_of(names)]


def _one_each(given: Sequence[T], n_cameras: int, what: str) -> list[T]:
    """An option for each camera, if it was given for all of them or for each; else nothing."""
    if len(given) not in (0, 1, n_cameras):
        raise ValueError(f"{len(given)} {what} for {n_cameras} cameras; give one for each")
    return list(given) * n_cameras if len(given) == 1 else list(given)


def _read_cameras(
    cameras: Sequence[str | Path], form: str, options: Options
) -> tuple[dict[str, CameraDetections], str, list[str]]:
    """Read every camera's files: detections by camera, the format's name, lines of the report.

    If a frame rate was given, times of frames that are numbered are left out.
    """
    if any(not 0 < fps < np.inf for fps in options.fps):
        raise ValueError(f"fps must be positive, got {', '.join(map(str, options.fps))}")
    detections: dict[str, CameraDetections] = {}
    report = []
    first = ""
    named = {name: (camera, table.find(str(camera))) for name, camera in _named(cameras).items()}
    for name, (given, paths) in named.items():
        recognised, paths, evidence = table.recognise(form, paths)
        if first and recognised != first:
            what = f"looks like {recognised}, the camera before like {first}"
            raise InputError(paths[0], what, "use one detector for all cameras")
        if form == "auto" and not first:
            report.append(f"auto: {evidence}")
        first = recognised
        found = table.READERS[recognised].read(paths)
        for inner, camera in found.items():
            alone = len(cameras) == 1 and len(found) > 1
            key = inner if alone else f"{name}{inner and '/'}{inner}"
            times = {} if options.fps and camera.numbered else camera.times
            detections[key] = replace(camera, path=str(given), times=times)
    sizes = _one_each(options.image_size, len(detections), "image sizes")
    for name, size in zip(detections, sizes, strict=False):  # none if the files say
        detections[name] = replace(detections[name], image_size=size)
    notes = {camera.note: name for name, camera in detections.items() if camera.note}
    return detections, first, report + [f"{name}: {note}" for note, name in notes.items()]


def skeletons_of(joints: Sequence[str]) -> str:
    """One line: the skeletons that can be made of these joints, and how."""
    missing = {
        name: skeleton.lacking(joints, wanted) for name, wanted in skeleton.SKELETONS.items()
    }
    lacks = {n: f"{n} lacks {', '.join(joints)}" for n, joints in missing.items() if joints}
    able = []
    for name in (name for name in missing if name not in lacks):
        made = [joint for joint in skeleton.SKELETONS[name] if joint not in joints]
        able.append(f"{name} (made by fixed combinations: {', '.join(made) or 'nothing'})")
    if able:
        return f"trains on skeleton {'; '.join([*able, *lacks.values()])}"
    return f"WARNING: trains on no skeleton; {lacks[min(lacks, key=lambda n: len(missing[n]))]}"


def _named(cameras: Sequence[str | Path]) -> dict[str, str | Path]:
    """Cameras by the names of their files, of their folders, or by longer paths."""
    whole = [Path(os.path.abspath(camera)) for camera in cameras]
    if len(set(whole)) < len(whole):
        twice = next(path for path in whole if whole.count(path) > 1)
        raise ValueError(f"{twice}: given twice; give one argument per camera")

    def plain(path: Path) -> str:
        name = path.name
        if not path.is_dir():
            name = re.sub(r"\.(json|txt|csv|npz|h5|dat)$", "", name)
        return re.sub(r"[*?\[\]]+", "", name).strip("_-. ").removesuffix("_json")

    stems = [plain(path) or plain(path.parent) for path in whole]
    if len(set(stems)) < len(stems):
        stems = [plain(path.parent) for path in whole]
    if len(set(stems)) < len(stems):
        root = os.path.commonpath(whole)
        stems = [path.relative_to(root).as_posix() for path in whole]
    return dict(zip(stems, cameras, strict=True))
