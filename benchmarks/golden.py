"""Golden runs: short trainings whose weights a change of the program must not change.

    python -m benchmarks.golden pin runs/golden                   # before: minutes
    python -m benchmarks.golden compare runs/golden               # after: the same weights?
    python -m benchmarks.golden compare runs/golden --runs smoke sequence --tolerance 1e-6
    python -m benchmarks.golden pin runs/golden --device cuda

Each run trains a config of canonlift's for seconds, on a small simulated session. The runs have a
process of their own with one thread, so the same program on the same machine gives the same bits;
another machine, or another version of torch, does not. `compare` prints for each run that its
weights are identical, or the largest difference of a weight, and ends with status 1 where one
exceeds --tolerance.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import measure, rows
from canonlift import distributed, files
from canonlift.training import checkpoint
from canonlift.training import config as configs
from canonlift.training.loop import Interrupted
from canonlift.training.train import train

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Golden:
    """One run."""

    config: str
    overrides: tuple[str, ...] = ()
    processes: int = 1
    stopped: bool = False  # by a signal in its first phase, and then resumed
    shards: bool = False  # read from disk

    def command(self, out: Path, device: str) -> list[str]:
        """How to run it."""
        launcher = [sys.executable]
        if self.processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
            launcher.append(str(self.processes))
        shards = [f"data.shards={out}.shards"] if self.shards else []
        return [
            *launcher, "-m", "benchmarks.golden", "train", self.config, str(out),
            f"device={device}", *self.overrides, *shards,
        ]  # fmt: skip


def _session(more: str = "") -> str:
    small = "seed: 0, n_train: 12, n_people_train: 12, n_test: 0, n_frames: 60, fps: 10"
    return f"data.simulate={{{small}{more}}}"


def _phases(count: int, **settings: object) -> tuple[str, ...]:
    """The same settings for the first `count` phases."""
    return tuple(
        f"schedule.{phase}.{name.replace('__', '.')}={value}"
        for phase in range(count)
        for name, value in settings.items()
    )


SIMULATED = ("data.train=[]", "data.test=[]", _session())
CVSF = (
    *SIMULATED, "model.width=128",
    *_phases(2, steps=120, convergence__interval=30, learning_rate=1e-3),
)  # fmt: skip
DEMO = (_session(), "model.width=64", *_phases(3, steps=60, convergence__interval=20))
WINDOWS = {"convergence__interval": 20, "warmup": 5}
SEQUENCE = (_session(), "model.width=64", *_phases(2, steps=60, **WINDOWS))
OF_3D = (_session(), "model.width=64", *_phases(1, steps=100, **WINDOWS))
REPAIR = "{own_view: 0, repaired_own_view: 0.1, repaired_consistency: 0.1}"
FLEXION = (
    "{target_position: 0, target_velocity: 0, own_view: 0.1, other_views: 1, consistency: 0.1, "
    "flexion: 0.1}"
)

RUNS: Mapping[str, Golden] = {
    "smoke": Golden("smoke", (_session(),)),
    "cvsf": Golden("cvsf", CVSF),
    "canonpose": Golden(
        "canonpose",
        (
            *SIMULATED[:2], _session(", cameras: {fixed: true}"), "model.width=128",
            *_phases(1, steps=200, convergence__interval=50, decay_at=[100, 150]),
        ),
    ),
    "demo": Golden("demo", DEMO),
    "demo_shards": Golden("demo", DEMO, shards=True),
    "sequence": Golden("sequence", SEQUENCE),
    "sequence_shards": Golden("sequence", SEQUENCE, shards=True),
    "sequence_repair": Golden("sequence", (*SEQUENCE, f"schedule.1.weights={REPAIR}")),
    "sequence_flexion": Golden(
        "sequence", (*SEQUENCE, "data.target=none", f"schedule.0.weights={FLEXION}")
    ),
    "sequence_3d": Golden("sequence_3d", OF_3D),
    "sequence_semi": Golden("sequence_semi", OF_3D),
    "two_views": Golden(
        "two_views",
        (
            *SIMULATED, "start_from=null", "batch_size=4", "windows.length=27", "windows.stride=9",
            "relation.segment=1", "model.depth=1", "model.heads=2", "model.width=32",
            "model.head_width=32", *_phases(1, steps=40),
        ),
    ),
    "resumed": Golden("smoke", (_session(),), stopped=True),
    "two_processes": Golden("smoke", (_session(),), processes=2),
    "sequence_two_processes": Golden("sequence", SEQUENCE, processes=2),
}  # fmt: skip


def pin(folder: Path, names: Sequence[str], device: str) -> None:
    """Run, and store the weights as FOLDER/NAME.pt."""
    for name in names:
        weights = weights_of(name, device)
        files.write(folder / f"{name}.pt", lambda file, found=weights: torch.save(found, file))
        print(f"{name}: {sum(value.numel() for value in weights.values()):,} numbers", flush=True)
    measure.write(folder / "about.json", about(device))


def compare(folder: Path, names: Sequence[str], device: str, tolerance: float) -> bool:
    """Run again, and print how the weights differ from those stored; whether all are the same."""
    if not (folder / "about.json").is_file():
        raise FileNotFoundError(f"{folder / 'about.json'}: nothing was pinned here; `pin` does")
    pinned, here = json.loads((folder / "about.json").read_text()), about(device)
    for key, value in pinned.items():
        if value != here.get(key):
            print(f"{key}: {value} when pinned, {here.get(key)} now")
    same = True
    for name in names:
        before = torch.load(folder / f"{name}.pt", weights_only=True)
        line, gap = difference(before, weights_of(name, device))
        same &= gap <= tolerance
        print(f"{name}: {line}", flush=True)
    return same


def about(device: str) -> dict[str, Any]:
    """What weights depend on beside the run: commit, machine, version of torch."""
    found = {"commit": rows.commit(), **measure.machine(device)}
    del found["threads"]  # of this process; the runs have one
    return found


def difference(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> tuple[str, float]:
    """How weights differ, in words and as the largest difference; infinite for other weights."""
    if before.keys() != now.keys():
        return f"other weights: {', '.join(sorted(before.keys() ^ now.keys()))}", float("inf")
    if wrong := [name for name in before if before[name].shape != now[name].shape]:
        return f"other shapes: {', '.join(wrong)}", float("inf")
    if wrong := [name for name in now if not now[name].isfinite().all()]:
        return f"not finite: {', '.join(wrong)}", float("inf")
    if all(torch.equal(before[name], now[name]) for name in before):
        return "identical", 0.0
    gaps = {name: float((now[name] - before[name]).abs().max()) for name in before}
    worst = max(gaps, key=lambda name: gaps[name])
    return f"largest difference {gaps[worst]:.2e}, in {worst}", gaps[worst]


def weights_of(name: str, device: str) -> Weights:
    """The weights and the mean pose that a run ends with.

    Raises:
        RuntimeError: if the run fails, with the end of what it printed.
    """
    golden = RUNS[name]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = golden.command(out, device)
        if golden.stopped:
            _stop_in_first_phase(command, out)
        finished = start_program(command)
        printed = finished.communicate()[0]
        if finished.returncode:
            raise RuntimeError(f"{name} failed:\n{printed[-2000:]}")
        state = checkpoint.load_finished(out)
    return {**state["lifter"], "mean_pose": state["mean_pose"]}


def start_program(command: Sequence[str]) -> subprocess.Popen[str]:
    """Start it; what it prints is kept."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=rows.ROOT,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
    )


def _stop_in_first_phase(command: Sequence[str], out: Path) -> None:
    """Start a run, and ask it to stop once it has logged a step."""
    begun, log = start_program(command), out / "metrics.csv"
    while begun.poll() is None and not (log.is_file() and log.read_text().count("\n") > 1):
        time.sleep(0.01)
    begun.send_signal(signal.SIGTERM)
    printed = begun.communicate()[0]
    if begun.returncode != STOPPED:
        raise RuntimeError(f"the run did not stop, but ended with {begun.returncode}:\n{printed}")


STOPPED = 130


def train_here(config: str, out: Path, overrides: Sequence[str]) -> None:
    """Train in this process, or continue the run in `out`; ends with STOPPED when interrupted."""
    chosen = configs.load(config, overrides)
    with distributed.joined(checkpoint.pick_device(chosen.device)):
        try:
            train(chosen, out, resume=True)
        except Interrupted:
            sys.exit(STOPPED)


def main(argv: Sequence[str] | None = None) -> None:
    """Store the weights of golden runs, or compare with them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    store = commands.add_parser("pin", help="store their weights")
    check = commands.add_parser("compare", help="run again, and compare with what is stored")
    for command in (store, check):
        command.add_argument("folder", type=Path, metavar="DIR")
        command.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
        command.add_argument("--device", default="cpu", help="any torch device")
    check.add_argument(
        "--tolerance", type=float, default=0.0, help="difference of a weight that is allowed"
    )
    one = commands.add_parser("train", help="train one config; `pin` and `compare` start this")
    one.add_argument("config")
    one.add_argument("out", type=Path)
    one.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_args(argv)
    if args.command == "train":
        train_here(args.config, args.out, args.overrides)
        return
    try:
        if args.command == "pin":
            pin(args.folder, args.runs, args.device)
        elif not compare(args.folder, args.runs, args.device, args.tolerance):
            sys.exit(1)
    except (OSError, RuntimeError) as error:
        sys.exit(f"golden: {error}")


if __name__ == "__main__":
    main()
