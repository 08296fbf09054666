"""Steps of `benchmarks.gpu` that check: the device computes what the CPU does, and nobody waits.

Results in float32 are compared with those of the CPU in float64. The device may be wrong by FACTOR
times as much as the CPU in float32 is, or by the least that is stated here.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks import fusion, golden, rows, training
from benchmarks.steps import Job, Place, skip
from benchmarks.training import VARIANTS, Variant
from canonlift.data import windows
from canonlift.methods.fusion import METHODS, fuse
from canonlift.methods.objective import Objective
from canonlift.simulation.session import SimulateConfig, session
from canonlift.solver.solve import solve
from canonlift.training import checkpoint, loop, metrics_log, runs
from canonlift.training import config as configs
from canonlift.training.config import Config
from canonlift.training.schedule import PhaseConfig
from canonlift.training.train import train
from canonlift.types import Views

FACTOR = 10.0
# A joint whose map has two equally high peaks moves from one to the other by rounding.
LEAST, LEAST_OF_PEAKS = 1e-5, 1e-2
Jobs = Iterator[tuple[str, Job]]


# ---------------------------------------------------------------------------- agreement


def agreement(place: Place) -> Jobs:
    """Repair, the solver, and loss and gradients of every config, on the device as on the CPU."""
    n_frames = 8 if place.toy else 512
    for method in METHODS:
        # The grid takes half a second a frame of a CPU.
        few = min(n_frames, 32) if method == "grid" else n_frames
        yield f"repair, {method}", partial(repair, place, method, few)
    yield "solver", partial(solver, place)
    names = [path.stem for path in configs.shipped()]
    for name in ("canonpose", "smoke", "sequence") if place.toy else names:
        yield f"objective, {name}", partial(objective, place, name)


def repair(place: Place, method: str, n_frames: int) -> dict[str, Any]:
    """Repaired joints, in units of the pose's norm."""
    views, lifted, config = fusion.sets(n_frames, 4)["all"]
    config = replace(config, method=method)

    def run(dtype: torch.dtype, device: str) -> list[Tensor]:
        inputs = views.to(device, dtype), lifted.to(device, dtype)
        return [fuse(*inputs, config, fusion.JOINTS).keypoints]

    return agree(run, place.device, LEAST if method == "triangulate" else LEAST_OF_PEAKS)


SOLVED_ALIKE = 0.02  # relative difference of solutions, whose steps amplify rounding


def solver(place: Place) -> dict[str, Any]:
    """Poses solved on the device and on the CPU, and frames per second of the device."""
    config = SimulateConfig(n_train=1, n_test=0, n_frames=60 if place.toy else 3000)
    ((_, recording),) = session(config)
    first = solve(recording, device=place.device)
    begin = time.perf_counter()
    found = solve(recording, device=place.device)
    seconds = time.perf_counter() - begin
    expected = solve(recording).pose
    gap = difference(*(torch.from_numpy(np.nan_to_num(x)) for x in (found.pose, expected)))
    return {
        "difference_from_cpu": gap,
        "repeats": bool(np.array_equal(first.pose, found.pose, equal_nan=True)),
        "frames_per_second": len(found.pose) / seconds,
        "ok": gap < SOLVED_ALIKE,
    }


def agree(
    run: Callable[[torch.dtype, str], list[Tensor]], device: str, least: float = LEAST
) -> dict[str, Any]:
    """Errors relative to what is right, of the CPU and of the device, of whatever errs most."""
    truth = run(torch.float64, "cpu")
    of_cpu, of_device = (
        max(map(difference, run(torch.float32, place), truth)) for place in ("cpu", device)
    )
    allowed = max(least, FACTOR * of_cpu)
    return {
        "error_of_cpu": of_cpu,
        "error_of_device": of_device,
        "allowed": allowed,
        "ok": of_device <= allowed < float("inf"),
    }


def difference(found: Tensor, truth: Tensor) -> float:
    """Norm of the difference over the norm; infinite where something is not finite."""
    truth = truth.double()
    gap = float((found.cpu().double() - truth).norm() / truth.norm().clamp_min(1e-30))
    return gap if gap == gap else float("inf")


def objective(place: Place, name: str) -> dict[str, Any]:
    """Loss and gradients of a config, small, at one batch, in the phase that errs most."""
    config = small(name, place.toy)
    views = samples_of(config, n_frames=64 if config.windows.length == 1 else 120)
    views = views[torch.arange(min(len(views), 4 if place.toy else 32))]
    torch.manual_seed(config.seed)
    network = checkpoint.new_network(config)
    if config.windows.length == 1:
        training.turn_views_apart(network, views)
    found: list[dict[str, Any]] = []
    for phase in config.schedule:

        def run(dtype: torch.dtype, device: str, phase: PhaseConfig = phase) -> list[Tensor]:
            there = deepcopy(network).to(device, dtype)
            compute = Objective(there, config.method, phase.weights)
            loss, _ = compute(views.to(device, dtype))
            loss.backward()
            gradients = [p.grad.flatten() for p in there.parameters() if p.grad is not None]
            return [loss.detach(), torch.cat(gradients)]

        peaks = repairs_by_peaks(replace(config, schedule=[phase]))
        each = agree(run, place.device, LEAST_OF_PEAKS if peaks else LEAST)
        found.append({"phase": phase.name} | each)
    return max(found, key=lambda each: each["error_of_device"] / each["allowed"])


def small(name: str, toy: bool) -> Config:
    """A config whose network and windows are small."""
    config = configs.load(name)
    model = replace(config.model, width=16 if toy else min(128, config.model.width))
    if model.name == "dstformer":
        model = replace(model, depth=1, heads=4, head_width=min(64, model.width))
    length = min(config.windows.length, 27)
    cut = replace(config.windows, length=length, stride=min(config.windows.stride, 9))
    relation = replace(config.relation, segment=min(config.relation.segment, length))
    return replace(config, model=model, windows=cut, relation=relation, start_from=None)


def samples_of(config: Config, n_frames: int) -> Views:
    """The samples that a config makes of simulated frames; the cameras count as fixed."""
    film = training.film(n_frames)
    film = replace(film, rig=torch.zeros_like(film.rig))
    samples = windows.cut(training.samples_of(film).frames, config.windows)
    return samples[torch.arange(len(samples))]


# ---------------------------------------------------------------------------- golden runs


class Tolerance(NamedTuple):
    """Relative differences that are allowed between the same training on two devices."""

    first_losses: float  # of the first FIRST_STEPS steps: rounding, hardly amplified yet
    last_loss: float
    weights: float  # all together, at the end


# With products summed in another order on the same CPU, the greatest were 5e-7, 0.016 and 0.023;
# with repair by peaks, of which rounding chooses one, they were 2e-3, 0.007 and 0.26.
FIRST_STEPS = 10
TOLERANCE = Tolerance(1e-4, 0.05, 0.1)
TOLERANCE_OF_PEAKS = Tolerance(1e-2, 0.05, 0.6)


def golden_runs(place: Place) -> Jobs:
    """Short trainings on the device and on the CPU, all at once, each in a process of its own."""
    names = (
        ["smoke"]
        if place.toy
        else [
            name
            for name, run in golden.RUNS.items()
            if run.processes == 1 and not run.stopped and not run.shards
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        pairs = {}
        for name in names:
            pairs[name] = [
                Training.start(name, device, Path(folder) / f"{name}-{number}", place.toy)
                for number, device in enumerate((place.device, "cpu"))
            ]
        for name, pair in pairs.items():
            yield name, partial(compare, *pair)


def repairs_by_peaks(config: Config) -> bool:
    """Whether it trains on the highest points of maps."""
    return config.fusion.method != "triangulate" and "refinement" in config.terms


@dataclass(frozen=True)
class Training:
    """A golden run that goes on in another process."""

    out: Path
    process: BaseProcess
    tolerance: Tolerance

    @classmethod
    def start(cls, name: str, device: str, out: Path, toy: bool) -> "Training":
        """Begin it; nothing has been computed in this process, so that it can be forked."""
        run = golden.RUNS[name]
        changes = [*run.overrides, f"device={device}"]
        if toy:
            changes += ["data.simulate.n_train=2", "data.simulate.n_frames=20", "model.width=8"]
            changes += [f"schedule.{phase}.steps=2" for phase in range(3)]
        config = configs.load(run.config, changes)
        process = get_context("fork").Process(target=_train, args=(config, out))
        process.start()
        peaks = repairs_by_peaks(config)
        return cls(out, process, TOLERANCE_OF_PEAKS if peaks else TOLERANCE)

    def losses(self) -> list[float]:
        """Of every step, when it has ended.

        Raises:
            RuntimeError: if it failed.
        """
        self.process.join()
        if self.process.exitcode:
            raise RuntimeError(f"{self.out.name} ended with {self.process.exitcode}; see the log")
        return [float(row["loss"]) for row in metrics_log.read(self.out)]

    def weights(self) -> Tensor:
        """All that it ended with, in one row."""
        state = checkpoint.load_finished(self.out)
        return torch.cat([value.flatten() for value in state["lifter"].values()])


def _train(config: Config, out: Path) -> None:
    torch.set_num_threads(1)
    train(config, out, log_every=1)


def compare(there: Training, here: Training) -> dict[str, Any]:
    """Losses and weights of the same training on the device and on the CPU."""
    losses, expected = there.losses(), here.losses()
    gaps = [abs(a - b) / max(abs(b), 1e-12) for a, b in zip(losses, expected, strict=False)]
    found = Tolerance(
        max(gaps[:FIRST_STEPS]), gaps[-1], difference(there.weights(), here.weights())
    )
    steps = {"steps": len(losses), "steps_on_cpu": len(expected)}
    allowed = {f"{name}_allowed": value for name, value in there.tolerance._asdict().items()}
    agree = all(gap <= most for gap, most in zip(found, there.tolerance, strict=True))
    return steps | found._asdict() | allowed | {"ok": agree}


# ---------------------------------------------------------------------------- waiting


def waits(place: Place) -> Jobs:
    """Where a step of training waits for the device."""
    variants: Mapping[str, Variant] = {
        name: VARIANTS[name] for name in ("baseline", "s1", "s1+s2", "s1+s2 grid", "s1+s2 exact")
    }
    variants |= {"sequence": Variant("sequence", phase=1), "targets": Variant("demo")}
    for name, variant in variants.items():
        yield name, partial(waits_of, place, variant)


def waits_of(place: Place, variant: Variant, steps: int = 4) -> dict[str, Any]:
    """Lines of canonlift that waited within the loop, and how often a step did."""
    changes = [*variant.overrides, f"device={place.device}", "flip=true"]
    changes += ["checkpoint_seconds=1e9", "batch_size=8", "model.width=32"]
    config = configs.load(variant.config, changes)
    phase = replace(config.schedule[variant.phase], steps=steps)
    config = replace(config, schedule=[phase])
    film = training.film(48)
    film = film if "target_pose" in config.terms else replace(film, target=None)
    samples = windows.cut(training.samples_of(film).frames, config.windows)
    samples = samples.to(torch.device(place.device))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("first", "second"):  # in the first run constants move to the device
            run = runs.start(config, Path(folder) / name, resume=False)
            with noted() as stacks:
                loop.fit(run, samples, loop.Hooks(), log_every=10**9)
    places = waiting(stacks)
    return {"places": places, "per_step": sum(places.values()) / steps, "ok": not places}


@contextmanager
def noted() -> Iterator[list[traceback.StackSummary]]:
    """Collect the stacks of all warnings, those of waiting for a GPU among them."""
    stacks: list[traceback.StackSummary] = []
    on_cuda = torch.cuda.is_available()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: (
            stacks.append(traceback.extract_stack()) if "synchroniz" in str(message) else None
        )
        if on_cuda:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield stacks
        finally:
            if on_cuda:
                torch.cuda.set_sync_debug_mode("default")


def waiting(stacks: Sequence[traceback.StackSummary]) -> dict[str, int]:
    """The innermost lines of canonlift in those stacks, and how often each was there.

    Only in steps; losses are read in between, and there alone the loop may wait.
    """
    found: dict[str, int] = {}
    for stack in stacks:
        functions = {frame.name for frame in stack}
        if "run_steps" not in functions or "count" in functions:
            continue
        ours = [frame for frame in stack if "/canonlift/" in frame.filename]
        frame = ours[-1]
        path = frame.filename.rpartition("/canonlift/")[2]
        line = f"canonlift/{path}:{frame.lineno}: {frame.line}"
        found[line] = found.get(line, 0) + 1
    return found


# ---------------------------------------------------------------------------- other programs


def tests(place: Place) -> Jobs:
    """The tests that need a GPU."""
    marked = [
        str(path.relative_to(rows.ROOT))
        for path in sorted((rows.ROOT / "tests").rglob("test_*.py"))
        if "pytest.mark.cuda" in path.read_text()
    ]
    command = [sys.executable, "-m", "pytest", "-n", "0", "-m", "cuda", "-rs"]
    command += ["-p", "no:cacheprovider", "-p", "no:benchmark"]  # which warns of xdist
    if place.on_cuda:
        yield "pytest -m cuda", partial(started, [*command, *marked])
    else:
        yield "pytest -m cuda", skip("needs CUDA")


# Without a network the name of the machine may not be found.
LOCAL = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def torchrun(place: Place) -> Jobs:
    """The smoke config, trained by one process of torchrun's."""
    yield "one process", partial(of_torchrun, place)


def of_torchrun(place: Place) -> dict[str, Any]:
    """Seconds of its steps, with nccl on a GPU and gloo on a CPU; raises if it does not train."""
    changes = [f"device={place.device}", "data.simulate.n_test=0"]
    if place.toy:
        changes += ["data.simulate.n_train=2", "data.simulate.n_frames=20", "model.width=8"]
        changes += [f"schedule.{phase}.steps=2" for phase in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        from torch.distributed.run import main as run_together  # takes a second to import

        os.environ |= LOCAL
        os.chdir(rows.ROOT)
        launcher = ["--standalone", "--local-addr", "127.0.0.1", "--nproc_per_node", "1"]
        run_together([*launcher, "-m", "benchmarks.golden", "train", "smoke", str(out), *changes])
        return {"training_s": checkpoint.load_finished(out)["seconds"]}


def started(command: Sequence[str]) -> dict[str, Any]:
    """How a program ended, and the last that it printed."""
    ended = subprocess.run(
        command,
        cwd=rows.ROOT,
        env=dict(os.environ, **LOCAL),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    print(ended.stdout)
    lines = [line for line in ended.stdout.splitlines() if line.strip()]
    last = re.sub(r"\s+", " ", lines[-1])[:200] if lines else ""
    return {"exit_status": ended.returncode, "last_line": last, "ok": ended.returncode == 0}
