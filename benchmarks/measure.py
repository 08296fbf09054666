"""Timings that compare: everything in one process, in turns, so that drift meets all alike."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from canonlift import files
from canonlift.cli.train import keep_memory as keep_memory


def parser(doc: str | None, rounds: int = 15) -> argparse.ArgumentParser:
    """Options that every benchmark of speed has."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    made.add_argument(
        "--rounds", type=int, default=rounds, help="times that everything has its turn"
    )
    made.add_argument("--device", default="cpu", help="any torch device")
    made.add_argument(
        "--cpu-time",
        action="store_true",
        help="count CPU seconds: for a machine that is busy; set OMP_NUM_THREADS=1",
    )
    return made


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found = {
        "processor": next(iter(names), platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    if device != "cpu":
        found["device"] = torch.cuda.get_device_name(device)
    return found


def in_turns(
    jobs: Mapping[str, Callable[[], Any]], rounds: int, device: str = "cpu", cpu_time: bool = False
) -> dict[str, float]:
    """Median seconds of each job, all of them having a turn in every round; two rounds warm up."""
    clock = time.process_time if cpu_time else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds + 2):
        for name, job in jobs.items():
            start = clock()
            job()
            finish(device)
            seconds[name].append(clock() - start)
    return {name: statistics.median(taken[2:]) for name, taken in seconds.items()}


def finish(device: str) -> None:
    """Wait until the device has done what it was asked."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def write(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write the figures as JSON, where a path is given."""
    if path is not None:
        text = json.dumps(figures, indent=2) + "\n"
        files.write(path, lambda file: file.write(text.encode()))
        print(f"\nwrote {path}")
