"""Steps of `benchmarks.gpu` that time: the machine, training steps, and what they spend it on."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure, training
from benchmarks.compute_ways import EAGER, WAYS
from benchmarks.steps import Job, Place, skip
from benchmarks.training import VARIANTS, Setting
from canonlift.data import batches, windows
from canonlift.models import layers
from canonlift.training import config as configs
from canonlift.training import loop, runs
from canonlift.training.config import Config
from canonlift.types import Views

WIDTH = 1024
PRECISIONS = ("float32", "tf32", "bfloat16")
ADAM_BYTES = 28  # that it reads and writes for each weight

Taken = Callable[[], Float[Tensor, ""]]
Jobs = Iterator[tuple[str, Job]]


# ---------------------------------------------------------------------------- the machine


def machine(place: Place) -> Jobs:
    """What the device can do: products, copies, and starting kernels."""
    side = 256 if place.toy else training.LARGE["cuda" if place.on_cuda else "cpu"]
    for precision in PRECISIONS:
        yield f"products, {precision}", partial(products, place.device, side, precision)
    n_bytes = 1 << (22 if place.toy else 30)
    yield "copies on the device", partial(copies, place.device, place.device, n_bytes)
    if place.on_cuda:
        yield "copies from the host", partial(copies, "cpu", place.device, n_bytes // 4)
    yield "kernels", partial(launches, place.device)


def products(device: str, side: int, precision: str) -> dict[str, float]:
    """Rate of a large matrix product."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    with multiplying(precision):
        taken = measure.in_turns({"product": lambda: a @ b}, 10, device)["product"]
    return {"side": side, "teraflops": 2 * side**3 / taken / 1e12}


def copies(source: str, target: str, n_bytes: int) -> dict[str, float]:
    """Bytes that are read and written in a second; across the bus a byte counts once."""
    across = source != target
    a = torch.ones(n_bytes // 4, device=source, pin_memory=across)
    b = torch.empty_like(a, device=target, pin_memory=False)
    job = partial(b.copy_, a, non_blocking=True)
    taken = measure.in_turns({"copy": job}, 10, target)["copy"]
    return {"gb_per_second": (1 if across else 2) * n_bytes / taken / 1e9}


def launches(device: str, count: int = 1000) -> dict[str, float]:
    """Microseconds to start a kernel, of many in a row, and to wait for one."""
    x = torch.zeros(1, device=device)

    def start_many() -> None:
        for _ in range(count):
            x.add_(1.0)

    taken = measure.in_turns({"start": start_many, "wait": lambda: x.item()}, 10, device)
    return {"launch_us": 1e6 * taken["start"] / count, "wait_us": 1e6 * taken["wait"]}


@contextmanager
def multiplying(precision: str) -> Iterator[str]:
    """Let float32 products be those of TF32, where that is meant; the network's own precision."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield "float32" if precision == "tf32" else precision
    finally:
        torch.set_float32_matmul_precision(before)


# ---------------------------------------------------------------------------- steps of training


class Case(NamedTuple):
    """How a step is computed that is timed."""

    variant: str  # of VARIANTS, or "sequence"
    batch: int  # frames, or windows
    precision: str
    way: str  # row of `compute_ways.WAYS`

    def __str__(self) -> str:
        return ", ".join(map(str, self))


def steps(place: Place) -> Jobs:
    """Frames per second of steps as they are and as CUDA graphs, the targets' rows first."""
    sizes = {8: 2} if place.toy else {8192: 256, 32: 4}  # frames: windows
    cases = [
        Case(name, of_windows if name == "sequence" else of_frames, precision, way)
        for of_frames, of_windows in sizes.items()
        for precision in (("bfloat16",) if place.toy else reversed(PRECISIONS))
        for way in ("eager", "captured")
        for name in ("s1+s2", "baseline", "sequence", "s1")
    ]
    cases += [Case("s1+s2", 8 if place.toy else 32768, "bfloat16", "eager")]
    # The paper's own map, and its exact peak, are many small kernels.
    cases += [Case(f"s1+s2 {m}", min(8, *sizes), "float32", "eager") for m in ("exact", "grid")]
    yield from _timed(place, cases)


def compiled_steps(place: Place) -> Jobs:
    """The same by torch.compile, each of which takes long to compile."""
    if place.toy:
        yield "all", skip("torch.compile takes too long for a toy")
        return
    names = {"s1+s2": ("bfloat16", 8192), "baseline": ("bfloat16", 8192)}
    names |= {"sequence": ("float32", 256)}
    yield from _timed(
        place,
        [
            Case(name, size, precision, way)
            for way in ("compile", "compiled graphs")
            for name, (precision, size) in names.items()
        ],
        least=40.0,
    )


def _timed(place: Place, cases: Sequence[Case], least: float = 2.0) -> Jobs:
    """Each case, as long as there are `least` seconds left for it."""
    rate = training.matrix_rate(place.device, side=256 if place.toy else None) / 1e12
    table = training.film(max(case.batch for case in cases))
    for case in cases:
        if case.way == "captured" and not place.on_cuda:
            yield str(case), skip("needs CUDA")
        elif place.seconds_left < least:
            yield str(case), skip("no time was left")
        else:
            yield str(case), partial(time_case, place, case, table, rate)


def time_case(place: Place, case: Case, table: Views, rate: float) -> dict[str, Any]:
    """Rates of a step, and the share of `rate`, that of large products of matrices."""
    job = time_windows if case.variant == "sequence" else time_frames
    try:
        with multiplying(case.precision) as of_network:
            found = job(place, case, of_network, table)
    except Unsupported as error:
        return {"skipped": str(error)}
    return case._asdict() | found | {"of_bf16_products": found["teraflops"] / rate}


def time_frames(place: Place, case: Case, precision: str, table: Views) -> dict[str, Any]:
    """A step of a variant on single frames of four views."""
    setting = Setting(case.batch, 16 if place.toy else WIDTH, precision, place.device, case.way)
    rounds = 1 if place.toy else 10
    timing = training.time_variant(VARIANTS[case.variant], setting, table, rounds)
    return {
        "frames_per_second": timing.frames_per_second,
        "step_ms": 1e3 * timing.step,
        "products_ms": 1e3 * timing.products,
        "adam_ms": 1e3 * timing.adam,
        "adam_gb_per_second": ADAM_BYTES * timing.weights / timing.adam / 1e9,
        "teraflops": timing.teraflops,
    }


def time_windows(place: Place, case: Case, precision: str, table: Views) -> dict[str, Any]:  # noqa: ARG001
    """A step of the second phase of `sequence`, on windows of four views."""
    config = sequence_config(place, case.batch, precision)
    with tempfile.TemporaryDirectory() as folder:
        step = sequence_step(place, config, Path(folder) / "run", case.way)
        rounds = 1 if place.toy else 10
        taken = measure.in_turns({"step": step}, rounds, place.device)["step"]
        operations = count_operations(sequence_step(place, config, Path(folder) / "count"))
    return {
        "frames_per_second": case.batch * config.windows.length / taken,
        "step_ms": 1e3 * taken,
        "teraflops": operations / taken / 1e12,
    }


class Unsupported(Exception):
    """What canonlift does not have yet."""


def sequence_config(place: Place, size: int, precision: str) -> Config:
    """`sequence`, of which only the second phase is left.

    Raises:
        Unsupported: if its network has no such precision.
    """
    changes = [f"batch_size={size}", f"device={place.device}"]
    changes += [f"model.precision={precision}"] if precision != "float32" else []
    changes += ["model.width=16"] if place.toy else []
    try:
        config = configs.load("sequence", changes)
    except ValueError as error:
        raise Unsupported(str(error)) from error
    return replace(config, schedule=[config.schedule[1]])


def sequence_step(place: Place, config: Config, folder: Path, way: str = EAGER) -> Taken:
    """Takes a step over windows as training does."""
    n_frames = (config.batch_size + 4) * config.windows.stride
    cut = windows.cut(training.samples_of(training.film(n_frames)).frames, config.windows)
    samples = cut.to(torch.device(place.device))
    run = runs.start(config, folder, resume=False)
    compute = WAYS[way](loop.objective(run))
    order = itertools.chain.from_iterable(
        batches.chunks(len(samples), config.batch_size, config.seed, 0)
    )

    def step() -> Float[Tensor, ""]:
        views = samples[next(order).to(place.device, non_blocking=True)]
        return loop.descend(run, compute, views, run.phase.learning_rate)[0]

    return step


def frames_step(place: Place, name: str, size: int, precision: str, folder: Path) -> Taken:
    """Takes a step over single frames."""
    setting = Setting(size, 16 if place.toy else WIDTH, precision, place.device)
    return training.make_step(VARIANTS[name], setting, training.film(size), folder)[1]


def count_operations(step: Callable[[], Any]) -> int:
    """Floating-point operations of a step's matrix products and attention, as torch counts."""
    # It does not count oneDNN's products, which are those of a CPU.
    with mock.patch.object(layers, "HAS_ONEDNN", False), FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


# ---------------------------------------------------------------------------- the profile


def profile(place: Place) -> Jobs:
    """Where the time of a step goes, and how much of it the device waits."""
    size, windows_ = (8, 2) if place.toy else (8192, 64)
    makes: Mapping[str, Callable[[Path], Taken]] = {
        "s1+s2, large": partial(frames_step, place, "s1+s2", size, "bfloat16"),
        "s1+s2, small": partial(frames_step, place, "s1+s2", 32, "float32"),
        "sequence": lambda folder: sequence_step(
            place, sequence_config(place, windows_, "float32"), folder
        ),
    }
    for name, make in makes.items():
        if place.toy and name == "s1+s2, large":
            continue  # each trace takes a second to write
        yield name, partial(profile_of, place, name, make)


def profile_of(
    place: Place, name: str, make: Callable[[Path], Taken], most: int = 12 << 20
) -> dict[str, Any]:
    """Top ten kernels of some steps (operations on a CPU), and the share of idle time.

    The trace is kept, if it is not too large to be.
    """
    count = 1 if place.toy else 3
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if place.on_cuda else []
    with tempfile.TemporaryDirectory() as folder:
        step = make(Path(folder) / "run")
        for _ in range(count):
            step()
        measure.finish(place.device)
        started = time.perf_counter()
        with torch.profiler.profile(activities=activities) as recorded:
            for _ in range(count):
                step()
            measure.finish(place.device)
        taken = time.perf_counter() - started
    path = place.folder / f"trace-{name.replace(', ', '-').replace('+', '')}.json.gz"
    recorded.export_chrome_trace(str(path))
    if path.stat().st_size > most:
        path.unlink()
    found = {"step_ms": 1e3 * taken / count, "trace": path.name if path.is_file() else "too large"}
    if place.on_cuda:
        return found | of_kernels(recorded, count)
    each = sorted(recorded.key_averages(), key=lambda e: -e.self_cpu_time_total)[:10]
    top = {e.key[:90]: e.self_cpu_time_total / 1e3 / count for e in each}
    return found | {"top_ms_per_step": top}


def of_kernels(recorded: torch.profiler.profile, count: int) -> dict[str, Any]:
    """Kernels a step, the ten that take longest, and the time between them."""
    results: Any = recorded.profiler
    kernels = [
        (e.start_ns(), e.start_ns() + e.duration_ns(), e.name())
        for e in results.kineto_results.events()
        if str(e.device_type()).endswith("CUDA") and not e.is_user_annotation()
    ]
    if not kernels:
        return {"ok": False, "why": "the profiler saw no kernels"}
    total: dict[str, float] = {}
    for begin, end, name in kernels:
        total[name] = total.get(name, 0.0) + (end - begin) / 1e6 / count
    top = sorted(total.items(), key=lambda item: -item[1])[:10]
    return idle([(begin, end) for begin, end, _ in kernels]) | {
        "kernels_per_step": len(kernels) / count,
        "busy_ms_per_step": sum(total.values()),
        "top_ms_per_step": {name[:90]: value for name, value in top},
    }


def idle(spans: Sequence[tuple[int, int]]) -> dict[str, float]:
    """Share of the time from the first to the last in which none of these spans was."""
    gaps, until = [], min(begin for begin, _ in spans)
    first = until
    for begin, end in sorted(spans):
        gaps.append(max(0, begin - until))
        until = max(until, end)
    whole = max(1, until - first)
    return {"idle": sum(gaps) / whole, "median_gap_us": statistics.median(gaps) / 1e3}
