"""Steps of `benchmarks.gpu` on the whole of something: trainings, large networks, lifting."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks import inference, measure, sequence_speed, training
from benchmarks.gpu_speed import WIDTH
from benchmarks.steps import Job, Place, skip
from benchmarks.training import SKIPOSE, Setting
from canonlift.data import frames, windows
from canonlift.data.recording import save
from canonlift.inference import model
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.session import SimulateConfig, session
from canonlift.training import config as configs
from canonlift.training import loop, runs
from canonlift.training import session as sessions
from canonlift.training.config import Config
from canonlift.training.train import HOOKS

DEFAULT = "sequence"  # the config of canonlift's default method

Jobs = Iterator[tuple[str, Job]]


def skipose(place: Place) -> Jobs:
    """Training on as many rows as SkiPose has, all phases."""
    rows_, views = (9, 3) if place.toy else SKIPOSE
    width, scale = (16, 0.0005) if place.toy else (WIDTH, 0.02)
    for precision, way in (("bfloat16", "eager"), ("bfloat16", "captured")):
        setting = Setting(4 if place.toy else 32, width, precision, place.device, way)
        if way == "captured" and not place.on_cuda:
            yield f"{precision}, {way}", skip("needs CUDA")
            continue
        yield f"{precision}, {way}", partial(train_rows, place, setting, rows_, views, scale)


def train_rows(
    place: Place, setting: Setting, n_rows: int, n_views: int, scale: float
) -> dict[str, Any]:
    """A part of the steps, and then all of them, where there is time for that."""
    part = training.train_whole(setting, n_rows, n_views, scale)
    estimate = part["seconds"] + (1 / scale - 1) * part["of_steps"]
    found: dict[str, Any] = {"rows": n_rows, "views": n_views, "batch": setting.batch_size}
    if place.toy or estimate > 0.6 * place.seconds_left:
        part = {name: part[name] for name in ("steps", "frames_per_second")}
        return found | part | {"estimated_training_s": estimate, "part": scale}
    whole = training.train_whole(setting, n_rows, n_views)
    return found | whole | {"training_s": whole["seconds"]}


def long(place: Place) -> Jobs:
    """The default method on a session of six views: reading, targets, training, lifting."""
    yield DEFAULT, partial(whole_method, place, 60 if place.toy else 10_000, 6)


def whole_method(
    place: Place, n_frames: int, n_views: int, reserve: float = 12.0
) -> dict[str, Any]:
    """Seconds from recordings to poses; of training a part, where there is no time for more."""
    with tempfile.TemporaryDirectory() as folder:
        paths = film_session(Path(folder), n_frames, n_views, 1 if place.toy else 4)
        changes = ["data.simulate=null", f"data.train=[{paths[0].parent}/*.npz]"]
        changes += [f"device={place.device}", "checkpoint_seconds=1e9"]
        changes += ["model.width=16"] if place.toy else []
        config = configs.load(DEFAULT, changes)
        clock = Clock(place.device)
        samples = sessions.read(config, paths)
        found: dict[str, Any] = {"frames": n_frames, "views": n_views, "reading_s": clock.lap()}
        n_steps = sum(phase.steps for phase in config.schedule)
        scale = 0.0002 if place.toy else 0.01
        seconds, of_steps = _fit(config, samples, Path(folder) / "part", scale)
        seconds += (1 / scale - 1) * of_steps
        whole = seconds < place.seconds_left - reserve
        if whole:
            seconds, _ = _fit(config, samples, Path(folder) / "whole", 1.0)
        run = Path(folder) / ("whole" if whole else "part")
        lifter = model.load(run, place.device)
        clock.lap()
        for path in paths:
            lifter.lift(frames.read_one(path, config.joints))
        found |= {"lifting_s": clock.lap(), "steps": n_steps, "part": 1.0 if whole else scale}
    total = found["reading_s"] + seconds + found["lifting_s"]
    prefix = "" if whole else "estimated_"
    return found | {f"{prefix}training_s": seconds, f"{prefix}total_s": total}


def _fit(
    config: Config, samples: windows.Samples, folder: Path, scale: float
) -> tuple[float, float]:
    """Seconds that training takes with a share of the steps of every phase, and these steps."""
    phases = [replace(p, steps=max(1, round(scale * p.steps))) for p in config.schedule]
    run = runs.start(replace(config, schedule=phases), folder, resume=False)
    clock = Clock(config.device)
    loop.fit(run, samples, HOOKS)
    return clock.lap(), run.progress.seconds


def film_session(folder: Path, n_frames: int, n_views: int, n_takes: int) -> list[Path]:
    """Recordings of the simulated session."""
    cameras = CameraConfig(n_views=n_views)
    simulate = SimulateConfig(
        n_train=n_takes, n_test=0, n_frames=n_frames // n_takes, fps=10.0, cameras=cameras
    )
    paths = []
    for name, recording in session(simulate):
        paths.append(folder / f"{name}.npz")
        save(recording, paths[-1])
    return paths


class Clock:
    """Seconds since it was last asked, all that the device was asked for being done."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.last = time.perf_counter()

    def lap(self) -> float:
        """The seconds."""
        measure.finish(self.device)
        before, self.last = self.last, time.perf_counter()
        return self.last - before


def dstformer(place: Place) -> Jobs:
    """DSTformer of the paper's size over 243 frames: a step, and the memory it takes."""
    sizes = [(1, n_views) for n_views in (2, 3, 4, 5, 6)] + [(4, 2), (16, 2)]
    if place.toy:
        sizes = [(1, 2)]
    for size, n_views in sizes:
        yield f"{size} windows, {n_views} views", partial(step_of_paper, place, size, n_views)


def step_of_paper(place: Place, size: int, n_views: int) -> dict[str, Any]:
    """Forward and backward; too little memory is a result, too."""
    name = "dstformer, small" if place.toy else "dstformer, paper"
    if place.on_cuda:
        measure.finish(place.device)  # without CUDA initialised, the next would raise
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    length = 9 if place.toy else sequence_speed.LENGTH
    try:
        with (
            mock.patch.object(sequence_speed, "LENGTH", length),
            mock.patch.object(sequence_speed, "SEGMENT", length // 3),
        ):
            found = sequence_speed.speed_of(
                sequence_speed.SIZES[name], n_views, size, place.device, 1 if place.toy else 3
            )
    except torch.OutOfMemoryError as error:
        return {"out_of_memory": str(error)[:300]}
    return found | {"length": length, "batch": size, "views": n_views}


def lifting(place: Place) -> Jobs:
    """Single views lifted per second, one at a time and many at once."""
    for way in ("eager", "blocks", "torch.compile"):
        slow = way == "torch.compile" and (place.toy or place.seconds_left < 20)
        yield way, skip("it takes too long") if slow else partial(rates_of, place, way)


def rates_of(place: Place, way: str) -> dict[str, Any]:
    """Rates of a way to run the network, its latency, and how it differs from the plain way."""
    sizes = (1, 16) if place.toy else inference.BATCHES
    rounds, width = (1, 16) if place.toy else (10, WIDTH)
    without = [name for name in inference.WAYS if name not in ("eager", way)]
    found = inference.rates(place.device, width, without, rounds, sizes)
    rates = {
        f"views_per_second_{n}_at_once": r for n, r in found["frames_per_second"][way].items()
    }
    differences = {f"difference_of_{n}": gap for n, gap in found["difference"][way].items()}
    return rates | {"latency_ms": found["latency_ms"][way]} | differences
