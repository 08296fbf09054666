"""From what a detector wrote, camera by camera, to a recording: for the command and the API."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from canonlift import suggestions
from canonlift.data.recording import Recording
from canonlift.readers import synchronise as synchrony
from canonlift.readers.detectors import to_recording
from canonlift.readers.detectors.to_recording import Options
from canonlift.readers.synchronise import Synchrony

Size = tuple[int, int]  # width, height


def convert(
    cameras: Sequence[str | Path],
    *,
    fps: int | float | Sequence[int | float] | None = None,
    format: str = "auto",
    rig: str = "",
    layout: str | Path | None = None,
    image_size: Size | Sequence[Size] | None = None,
    confidence: str | None = None,
    person: str | Sequence[str] = "best",
    offsets: Mapping[str, float] | None = None,
    synchronise: bool = False,
    resample: bool = True,
) -> Recording:
    """Make a recording of what a detector wrote, on the detector's own joints.

    Args:
        cameras: a file, a folder or a glob for each camera; its name is the view's.
        fps: frames per second, of all cameras or of each; None: by the files' times.
        format: of the files, a row of `readers.detectors.table.READERS`; "auto": by content.
        rig: name of cameras that never moved; empty: cameras may move.
        layout: order of the joints, by name or as a YAML file; None: by the files.
        image_size: width and height in pixels, of all videos or of each; needed where
            coordinates are in [0, 1].
        confidence: what the scores are, a row of `readers.detectors.scores.RULES`; None: by the
            format and the numbers.
        person: who is kept: best, largest, longest or a track id, for all or as CAM=CHOICE.
        offsets: seconds by which cameras started later than the first, by name.
        synchronise: find these offsets in the detections.
        resample: interpolate where cameras have different rates; False: the nearest frame.

    Raises:
        FileNotFoundError: if there are no such files.
        ValueError: naming file, frame or option, and the remedy.
    """
    sizes = np.reshape([] if image_size is None else image_size, (-1, 2)).astype(int)
    options = Options(
        fps=() if fps is None else tuple(np.atleast_1d(fps).astype(float).tolist()),
        rig=rig,
        layout=None if layout is None else str(layout),
        image_size=tuple((width, height) for width, height in sizes.tolist()),
        confidence=confidence,
        person=(person,) if isinstance(person, str) else tuple(person),
        resample=resample,
    )
    cameras = [cameras] if isinstance(cameras, str | Path) else cameras
    if not cameras:
        raise ValueError("no files to convert; give one file, folder or glob per camera")
    return convert_with_report(cameras, format, options, offsets or {}, synchronise)[0]


def convert_with_report(
    cameras: Sequence[str | Path],
    format: str,
    options: Options,
    offsets: Mapping[str, float],
    synchronise: bool,
    estimated: Callable[[Synchrony], None] = lambda _: None,
) -> tuple[Recording, list[str]]:
    """`convert`, with what was recognised and decided as lines to print.

    `estimated` is called with what synchronisation found, before that may be refused.
    """
    if synchronise and offsets:
        raise ValueError("give either offsets or synchronisation, not both")
    recording, lines = to_recording.read(cameras, format, options)
    lines += describe(recording)
    if synchronise:
        found = synchrony.estimate(recording)
        lines += [f"synchronisation: {line}" for line in found.lines()]
        estimated(found)
        if found.ambiguous:
            raise ValueError(
                f"synchronisation is ambiguous: {'; '.join(found.doubts)} (by hand: --offset "
                "CAM=SECONDS, or offsets={'CAM': SECONDS})"
            )
        recording = _shifted(recording, found.offset_s)
    elif offsets:
        for name, offset in offsets.items():
            if name not in recording.views:
                raise suggestions.unknown("--offset: camera", name, recording.views)
            lines.append(f"{name}: started {offset:g} s later, as given")
        by_view = np.array([offsets.get(name, 0.0) for name in recording.views])
        recording = _shifted(recording, by_view)
    return recording, lines


def describe(recording: Recording) -> list[str]:
    """Size of a recording, and per view how many joints were observed with which confidence."""
    seconds = recording.n_frames / recording.fps
    lines = [
        f"{recording.n_frames} frames at {recording.fps:g} fps ({seconds:.1f} s), "
        f"{len(recording.views)} views, {len(recording.joints)} joints, "
        + (f"rig {recording.rig!r}: fixed cameras" if recording.rig else "cameras may move")
    ]
    for view, name in enumerate(recording.views):
        confidence = recording.confidence[:, view]
        observed = confidence[confidence > 0]
        span = f"{observed.min():.2f} to {observed.max():.2f}" if observed.size else "none"
        missed = 100 * (1 - observed.size / max(confidence.size, 1))
        lines.append(f"{name}: {missed:.1f} % of the joints unobserved, confidence {span}")
    return lines


def _shifted(recording: Recording, offset_s: np.ndarray) -> Recording:
    """Every view on the frames of the first."""
    shifts = ", ".join(f"{n} {s:.3f}" for n, s in zip(recording.views, offset_s, strict=True))
    note = f"views resampled to the first's frames; started later by (s): {shifts}"
    processing = "; ".join(filter(None, [recording.processing, note]))
    return replace(synchrony.apply(recording, offset_s), processing=processing)
