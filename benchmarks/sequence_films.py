"""Films of `benchmarks.sequence`: for pretraining, and with fewer or with late views."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import films, rows
from benchmarks.films import generator
from benchmarks.sequence_studies import LABELLED, Experiment
from canonlift.body.skeleton import H36M17
from canonlift.data.recording import Recording, load, save
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.session import film

PRETRAINED_ON = "asf/01_"
TRAINED_ON = ("expmap-train-*.npz", LABELLED)
STRETCH = 300  # frames that one set of cameras films for pretraining
CAMERAS = CameraConfig(n_views=4, distance_m=(4.0, 15.0), height_m=(0.2, 4.0), zoom=False)


def shoot_for_pretraining(mocap: Path, work: Path) -> Path:
    """The folder of films of one person, each stretch by random cameras; made if not there."""
    made_of = rows.digest(CAMERAS, STRETCH, Path(__file__), *films.sources(mocap))
    folder = work / "films" / f"pretraining-{made_of}"
    if folder.is_dir():
        return folder
    part = folder.with_name(f"{folder.name}.part{os.getpid()}")
    for name, motion in films.motions(mocap).items():
        for begin in range(0, len(motion) if name.startswith(PRETRAINED_ON) else 0, STRETCH):
            stretch = motion[begin : begin + STRETCH]
            if len(stretch) < 3:
                continue
            seed = "pretraining", f"{name}-{begin}"
            turn = generator(*seed, 0).uniform(0, 2 * np.pi)
            placed, errors = films.centred(stretch, turn), generator(*seed, 1)
            filmed = film(placed, H36M17, films.FPS, CAMERAS, DetectorConfig(), errors)
            save(filmed, part / f"{seed[1].replace('/', '-')}.npz")
    films.publish(part, folder)
    return folder


def altered(folder: Path, experiment: Experiment, work: Path) -> Path:
    """The training films of an experiment: with fewer views, or with late ones."""
    if experiment.n_views is None and not experiment.offset_ms:
        return folder
    name = f"{folder.name}-{experiment.n_views or 'all'}-{experiment.offset_ms:g}"
    made = work / "films" / f"{name}-{rows.digest(Path(__file__))}"
    for pattern in TRAINED_ON:
        for path in sorted((folder / "train").glob(pattern)):
            target = made / "train" / path.name
            if not target.is_file():
                recording = first_views(load(path), experiment.n_views)
                save(delayed(recording, experiment.offset_ms / 1000), target)
    return made


def first_views(recording: Recording, n_views: int | None) -> Recording:
    """The same recording by the first of its cameras; None: all."""
    some = slice(n_views)
    arrays = ("keypoints", "confidence", "pose3d", "keypoints_true")
    return replace(
        recording,
        **{name: getattr(recording, name)[:, some] for name in arrays},
        views=recording.views[some],
        image_size=recording.image_size[some],
    )


def delayed(recording: Recording, seconds: float) -> Recording:
    """Every other view shows what was detected so much earlier, between frames linearly.

    The truth stays with its frames; nothing that learns from 2D reads it.
    """
    moments = np.maximum(np.arange(recording.n_frames) - seconds * recording.fps, 0.0)
    before = np.floor(moments).astype(int)
    after = np.minimum(before + 1, recording.n_frames - 1)
    share = (moments - before)[:, None, None]
    keypoints, confidence = recording.keypoints.copy(), recording.confidence.copy()
    late = slice(1, None, 2)
    points, sure = recording.keypoints[:, late], recording.confidence[:, late]
    mixed = (1 - share[..., None]) * points[before] + share[..., None] * points[after]
    # What was not observed may be NaN, and 0 * NaN is NaN.
    keypoints[:, late] = np.where(share[..., None] > 0, mixed, points[before])
    confidence[:, late] = np.where(share > 0, np.minimum(sure[before], sure[after]), sure[before])
    return replace(recording, keypoints=keypoints.astype(np.float32), confidence=confidence)
