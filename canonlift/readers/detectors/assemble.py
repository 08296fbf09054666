"""From what a detector wrote, camera by camera, to one person's recording.

Everything that formats share is here and in the modules beside it, once: which files are a
camera's (`formats`), what the joints are called and what a score is worth (`crowd`), which person
is kept (`who`), and which frames belong together (`when`).
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
    formats,
    frame_matching,
    joint_names,
    person_choice,
    persons,
)
from canonlift.readers.detectors.parsing import Footage, InputError, documents


@dataclass(frozen=True)
class Options:
    """What the files do not say, or what is wanted of them."""

    fps: tuple[float, ...] = ()  # one for all cameras or one each; empty: the files say
    rig: str = ""
    layout: str | None = None  # a name of `layouts.LAYOUTS` or a YAML file
    image_size: tuple[tuple[int, int], ...] = ()  # width, height: one for all cameras or one each
    confidence: str | None = None  # a name of `scores.RULES`
    person: tuple[str, ...] = ("best",)  # a choice for all cameras, or CAM=choice
    resample: bool = True


def read(
    cameras: Sequence[str | Path], form: str = "auto", options: Options | None = None
) -> tuple[Recording, list[str]]:
    """Read one person's take on the detector's own joints, and report what was decided.

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
    report = []
    sources = {name: formats.find(str(camera)) for name, camera in _named(cameras).items()}
    footage: dict[str, Footage] = {}
    forms = []
    for name, paths in sources.items():
        here, paths, saw = formats.tell(form, paths)
        forms.append(here)
        if here != forms[0]:
            what = f"looks like {here}, the camera before like {forms[0]}"
            raise InputError(paths[0], what, "convert them with one detector")
        if form == "auto" and len(forms) == 1:
            report.append(f"auto: {saw}")
        found = formats.READERS[here].read(documents(paths))
        for inner, part in found.items():
            key = (
                inner if len(sources) == 1 and len(found) > 1 else f"{name}{inner and '/'}{inner}"
            )
            times = {} if options.fps and part.numbered else part.times
            footage[key] = replace(part, path=str(cameras[len(forms) - 1]), times=times)
    notes = {part.note: name for name, part in footage.items() if part.note}
    report += [f"{name}: {note}" for note, name in notes.items()]
    reader = formats.READERS[forms[0]]
    where = ", ".join(dict.fromkeys(part.path for part in footage.values()))
    seen = {name: persons.observed(part) for name, part in footage.items()}
    if not any(len(person) for frames in seen.values() for person in frames.values()):
        raise InputError(where, "no person in any file", "run the detector on the right videos")

    names, matrix, said = joint_names.told(footage, seen, reader.layouts, options.layout, where)
    report += said
    sizes, units = persons.sizes(footage, seen, options.image_size, forms[0] == "openpose")
    confident, rule = persons.confident(seen, units, reader.scores, options.confidence, where)
    report.append(rule)
    confident = {name: persons.mixed(frames, matrix) for name, frames in confident.items()}
    rates, said = frame_matching.rates_of(footage, options.fps)
    report += said

    taken = {}
    for view, name in enumerate(footage):
        people = confident[name]
        chosen, said = person_choice.choose(
            people, footage[name], rates[view], name, options.person
        )
        taken[name] = {n: people[n].points[i] for n, i in chosen.items()}
        report += [f"{name}: {line}" for line in said]
    grid, fps, processing, said = frame_matching.match(
        taken, footage, rates, len(names), options.resample, where
    )
    report += said
    confidence = grid[..., 2]
    observed = confidence > 0
    image_size = None if None in sizes else np.array(sizes, dtype=np.int32)
    recording = Recording(
        keypoints=np.where(observed[..., None], grid[..., :2], np.nan).astype(np.float32),
        confidence=np.where(observed, confidence, 0).astype(np.float32),
        joints=names,
        views=tuple(footage),
        fps=fps,
        rig=options.rig,
        image_size=image_size,
        processing=processing,
    )
    return recording, [*report, makes(names)]


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
