"""All that has to be seen on a GPU, in eight minutes: that it is right, and how fast.

    python -m benchmarks.gpu --json gpu.json --out gpu         # everything
    python -m benchmarks.gpu steps profile --json gpu.json     # some steps
    python -m benchmarks.gpu --device cpu --toy                # that it runs: 20 seconds
    python -m benchmarks.gpu --report gpu.json                 # the results as tables

Each step has a process of its own and a time limit; what one leaves of its time, the next may use.
After a step that fails or takes too long the next is run, and the results are written after every
row. The status is 1 if a step failed. How to run it on a machine without a network:
docs/reproducing.md.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_checks, gpu_report, gpu_speed, gpu_trainings, measure, rows
from benchmarks.steps import PASSED, SKIPPED, Figures, Place, Step, failed, run_step, write

# Seconds in all; limits of the steps below add up to no more.
LIMIT = 480.0
LIMIT_OF_TOY = 20.0  # for each step

STEPS: Mapping[str, Step] = {
    "machine": Step(gpu_speed.machine, 15),
    "agreement": Step(gpu_checks.agreement, 40),
    "waits": Step(gpu_checks.waits, 25, needs_cuda=True),
    "steps": Step(gpu_speed.steps, 80),
    "profile": Step(gpu_speed.profile, 25),
    "skipose": Step(gpu_trainings.skipose, 50),
    "long": Step(gpu_trainings.long, 60),
    "dstformer": Step(gpu_trainings.dstformer, 25),
    "tests": Step(gpu_checks.tests, 30, needs_cuda=True),
    "golden": Step(gpu_checks.golden_runs, 45),
    "inference": Step(gpu_trainings.lifting, 30),
    "torchrun": Step(gpu_checks.torchrun, 25),
    "compile": Step(gpu_speed.compiled_steps, 30),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the steps, print what they found, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)}")
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the log and traces here")
    parser.add_argument("--toy", action="store_true", help="everything tiny")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS", help="in all")
    parser.add_argument("--commit", help="what is measured, where git cannot tell")
    parser.add_argument("--report", type=Path, metavar="FILE", help="only print these results")
    args = parser.parse_args(argv)
    if args.report:
        print(gpu_report.report(json.loads(args.report.read_text())))
        return 0
    if unknown := [name for name in args.steps if name not in STEPS]:
        parser.error(f"no step {', '.join(unknown)}; there are {', '.join(STEPS)}")
    chosen = {name: STEPS[name] for name in args.steps or STEPS}
    import_for_all(args.device)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    with nullcontext(args.out) if args.out else tempfile.TemporaryDirectory() as folder:
        place = Place(args.device, args.toy, Path(folder), time.monotonic() + args.limit)
        results = run(chosen, place, args.json, args.commit)
    bad = [n for n, step in results["steps"].items() if step["status"] not in (PASSED, SKIPPED)]
    print(f"\nnot passed: {', '.join(bad)}" if bad else "\nall passed")
    return 1 if bad else 0


def import_for_all(device: str) -> None:
    """Import here, once, what the steps would each import by themselves."""
    import scipy.signal  # noqa: F401

    if torch.device(device).type == "cpu":  # on others it might look for the device
        torch.optim.Adam([torch.zeros(1)])


def run(
    chosen: Mapping[str, Step], whole: Place, path: Path | None, commit: str | None = None
) -> dict[str, Any]:
    """The results of steps, which are also written to `path` as they come."""
    about = run_step("about", Step(about_machine, 60), until(whole, 60), lambda _: None)
    results: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit or rows.commit(),
        "options": {"device": whole.device, "toy": whole.toy, "steps": list(chosen)},
        "machine": about["rows"].get("machine", {"error": about}),
        "steps": {},
        "targets": [],
        "finished": False,
    }
    print(json.dumps(results["machine"]), flush=True)
    deadline = time.monotonic()
    for name, step in chosen.items():
        deadline += min(step.limit, LIMIT_OF_TOY) if whole.toy else step.limit
        place, shown = until(whole, deadline - time.monotonic()), 0

        def keep(found: dict[str, Any], name: str = name) -> None:
            nonlocal shown
            for row in list(found["rows"])[shown:]:
                print("\n".join(lines(row, found["rows"][row])), flush=True)
            shown = len(found["rows"])
            results["steps"][name] = found
            results["targets"] = gpu_report.targets(results)
            write(path, results)

        print(name, flush=True)
        if place.seconds_left <= 0:
            keep({"status": "not begun", "why": "no time was left", "rows": {}})
        else:
            keep(run_step(name, step, place, keep))
        found = results["steps"][name]
        why = f" ({found['why']})" if "why" in found else ""
        print(f"{name}: {found['status']}{why}, {found.get('seconds', 0):.1f} s", flush=True)
    results["finished"] = True
    write(path, results)
    for target in results["targets"]:
        print(
            f"{target['name']}: {target['measured']:,.1f} {target['unit']}, aim "
            f"{target['target']:,} {'(met)' if target['met'] else '(not met)'}"
        )
    return results


def until(whole: Place, seconds: float) -> Place:
    """The same place, for so long at most."""
    deadline = min(whole.deadline, time.monotonic() + seconds)
    return Place(whole.device, whole.toy, whole.folder, deadline)


def lines(row: str, figures: Figures) -> list[str]:
    """A result, and below it what is longer: the slowest kernels, where a step waits."""
    found = [f"  {line(row, figures)}"]
    for key in gpu_report.LONG:
        for name, value in figures.get(key, {}).items():
            found.append(f"    {gpu_report.cell(value):>8} {name}")
    return found


def line(row: str, figures: Figures) -> str:
    """A result in one line."""
    if failed(figures):
        row = f"FAILED {row}"
    note = figures.get("error") or figures.get("skipped")
    if note:
        return f"{row}: {' '.join(note.split())[:200]}"
    cells = (f"{key} {gpu_report.cell(value)}" for key, value in gpu_report.flat(figures).items())
    return f"{row}: {', '.join(cells)}"[:240]


def about_machine(place: Place) -> gpu_speed.Jobs:
    """Card, driver, versions."""
    yield "machine", lambda: description(place.device)


def description(device: str) -> dict[str, Any]:
    """What the results were measured on."""
    found = measure.machine(device) | {"python": platform.python_version()}
    if device == "cpu":
        return found
    card = torch.cuda.get_device_properties(device)
    found |= {"cuda": torch.version.cuda, "memory_gb": round(card.total_memory / 1e9, 1)}
    found |= {"multiprocessors": card.multi_processor_count, "power_limit": "unknown"}
    if shutil.which("nvidia-smi"):
        names = "driver_version,power.limit,clocks.max.sm,clocks.max.memory"
        asked = subprocess.run(
            ["nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        cells = asked.stdout.strip().splitlines()[:1]
        values = [cell.strip() for cell in cells[0].split(",")] if cells else []
        found |= dict(
            zip(("driver", "power_limit", "clock", "memory_clock"), values, strict=False)
        )
    return found


def _stop(*_: object) -> None:
    sys.exit(143)  # and end the step that runs


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    # Where torch.cuda is asked whether there is a GPU, before a fork, it must not initialise CUDA.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    sys.exit(main())
