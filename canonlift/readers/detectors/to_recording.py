"""From the files of a detector, camera by camera, to one person's recording.

What all formats share stands here and in the modules beside it, once: which files belong to a
camera (`table`), the names of the joints (`joint_names`), what a score means (`scores`), which
person is kept (`person_choice`), and which frames belong together (`frame_matching`).
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from canonlift.body import skeleton
from canonlift.data.recording import Recording
from canonlift.readers.detectors import (
    frame_matching,
    joint_names,
    people,
    person_choice,
    table,
)
from canonlift.readers.detectors.parsing import CameraDetections, InputError, documents


@dataclass(frozen=True)
class Options:
    """What the files do not say, or what is wanted of them."""

    fps: tuple[float, ...] = ()  # one for all cameras or one each; empty: the files say
    rig: str = ""
    layout: str | None = None  # a name of `joint_layouts.LAYOUTS` or a YAML file
    image_size: tuple[tuple[int, int], ...] = ()  # width, height: one for all cameras or one each
    confidence: str | None = None  # a name of `scores.RULES`
    person: tuple[str, ...] = ("best",)  # a choice for all cameras, or CAM=choice
    resample: bool = True


def read(
    cameras: Sequence[str | Path], form: str = "auto", options: Options | None = None
) -> tuple[Recording, list[str]]:
    """Read one person's recording on the detector's own joints, and report what was decided.

    Args:
        cameras: one file, folder or glob each; a file that holds several cameras is all of them.
        form: a name of `READERS`, or `auto`.
        options: what the files do not say.

    Raises:
        FileNotFoundError: if there are no such files.
        InputError: if a file is not what it should be, or the cameras do not fit together.
        ValueError: if an option makes no sense.
    """
    options = options or Options()
    if any(not 0 < fps < np.inf for fps in options.fps):
        raise ValueError(f"fps must be positive, got {', '.join(map(str, options.fps))}")
    detections, form, report = _read_cameras(cameras, form, with_times=not options.fps)
    reader = table.READERS[form]
    where = ", ".join(dict.fromkeys(part.path for part in detections.values()))
    seen = {name: people.observed(part) for name, part in detections.items()}
    if not any(len(person) for frames in seen.values() for person in frames.values()):
        raise InputError(where, "no person in any file", "run the detector on the right videos")

    names, matrix, said = joint_names.resolve(
        detections, seen, reader.layouts, options.layout, where
    )
    report += said
    sizes, units = people.sizes(detections, seen, options.image_size, form == "openpose")
    confident, rule = people.confident(seen, units, reader.scores, options.confidence, where)
    report.append(rule)
    confident = {name: people.mixed(frames, matrix) for name, frames in confident.items()}
    rates, said = frame_matching.rates_of(detections, options.fps)
    report += said

    taken = {}
    for view, name in enumerate(detections):
        everybody = confident[name]
        chosen, said = person_choice.choose(
            everybody, detections[name], rates[view], name, options.person
        )
        taken[name] = {n: everybody[n].points[i] for n, i in chosen.items()}
        report += [f"{name}: {line}" for line in said]
    grid, fps, processing, said = frame_matching.match(
        taken, detections, rates, len(names), options.resample, where
    )
    report += said
    observed = grid[..., 2] > 0
    recording = Recording(
        keypoints=np.where(observed[..., None], grid[..., :2], np.nan).astype(np.float32),
        confidence=np.where(observed, grid[..., 2], 0).astype(np.float32),
        joints=names,
        views=tuple(detections),
        fps=fps,
        rig=options.rig,
        image_size=None if None in sizes else np.array(sizes, dtype=np.int32),
        processing=processing,
    )
    return recording, [*report, makes(names)]


def _read_cameras(
    cameras: Sequence[str | Path], form: str, *, with_times: bool
) -> tuple[dict[str, CameraDetections], str, list[str]]:
    """Read every camera's files: detections by camera, the format's name, lines of the report.

    Without `with_times`, times of frames that are numbered are left out: a frame rate was given.
    """
    sources = {name: table.find(str(camera)) for name, camera in _named(cameras).items()}
    detections: dict[str, CameraDetections] = {}
    report = []
    first = ""
    for given, (name, paths) in zip(cameras, sources.items(), strict=True):
        recognised, paths, evidence = table.recognise(form, paths)
        if first and recognised != first:
            what = f"looks like {recognised}, the camera before like {first}"
            raise InputError(paths[0], what, "convert them with one detector")
        if form == "auto" and not first:
            report.append(f"auto: {evidence}")
        first = recognised
        found = table.READERS[recognised].read(documents(paths))
        for inner, camera in found.items():
            alone = len(sources) == 1 and len(found) > 1
            key = inner if alone else f"{name}{inner and '/'}{inner}"
            times = camera.times if with_times or not camera.numbered else {}
            detections[key] = replace(camera, path=str(given), times=times)
    notes = {camera.note: name for name, camera in detections.items() if camera.note}
    return detections, first, report + [f"{name}: {note}" for note, name in notes.items()]


def makes(joints: Sequence[str]) -> str:
    """One line: the skeletons that can be made of these joints, and how."""
    able, missing = [], {}
    for name, wanted in skeleton.SKELETONS.items():
        lacking = skeleton.lacking(joints, wanted)
        if lacking:
            missing[name] = lacking
        else:
            made = [joint for joint in wanted if joint not in joints]
            able.append(f"{name} (made by fixed combinations: {', '.join(made) or 'nothing'})")
    if able:
        return (
            "trains on skeleton "
            + "; ".join(able)
            + "".join(f"; {name} lacks {', '.join(lacking)}" for name, lacking in missing.items())
        )
    least = min(missing, key=lambda name: len(missing[name]))
    return f"WARNING: trains on no skeleton; {least} lacks {', '.join(missing[least])}"


def _named(cameras: Sequence[str | Path]) -> dict[str, str | Path]:
    """Cameras by the names of their files, of their folders, or by longer paths."""
    whole = [Path(os.path.abspath(camera)) for camera in cameras]
    if len(set(whole)) < len(whole):
        twice = next(path for path in whole if whole.count(path) > 1)
        raise ValueError(f"{twice}: given twice; give one argument per camera")

    def plain(path: Path) -> str:
        stem = (
            path.name if path.is_dir() else re.sub(r"\.(json|txt|csv|npz|h5|dat)$", "", path.name)
        )
        return re.sub(r"[*?\[\]]+", "", stem).strip("_-. ").removesuffix("_json")

    stems = [plain(path) or plain(path.parent) for path in whole]
    if len(set(stems)) < len(stems):
        stems = [plain(path.parent) for path in whole]
    if len(set(stems)) < len(stems):
        root = os.path.commonpath(whole)
        stems = [path.relative_to(root).as_posix() for path in whole]
    return dict(zip(stems, cameras, strict=True))
