"""Steps of a benchmark, each in a forked process with a time limit, and their results as JSON.

The results are written whole after every row, so whatever ends the benchmark, and whatever a step
does to its process or to the device, what was measured before is kept. The process that starts the
steps never initialises CUDA: a forked process could not use it any more.
"""

import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch

from canonlift import files

Figures = Mapping[str, Any]
Job = Callable[[], Figures]
PASSED, FAILED, SKIPPED, LATE = "passed", "failed", "skipped", "exceeded its limit"
LOG = "log.txt"
TAIL = 2000  # characters of what a failed step printed that its results hold


@dataclass(frozen=True)
class Place:
    """Where a step runs, how large, and until when."""

    device: str
    toy: bool
    folder: Path  # for what the step leaves beside its figures
    deadline: float  # by time.monotonic()

    @property
    def on_cuda(self) -> bool:
        """Whether the device is a GPU of NVIDIA's."""
        return torch.device(self.device).type == "cuda"

    @property
    def seconds_left(self) -> float:
        """Until the step is killed."""
        return self.deadline - time.monotonic()


class Step(NamedTuple):
    """One row of a table of steps: `jobs` yields the names of its results and how to get them.

    Figures with `ok` false count as a failure, as does an exception; after either the next job
    has its turn. Figures with `skipped` say why there are none.
    """

    jobs: Callable[[Place], Iterator[tuple[str, Job]]]
    limit: float  # seconds
    needs_cuda: bool = False


def skip(why: str) -> Job:
    """A job that only says why nothing was measured."""
    return lambda: {"skipped": why}


def run_step(
    name: str, step: Step, place: Place, keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Run a step in a process of its own, which ends at the deadline; `keep` is given each state.

    The result has `status`, `seconds`, and `rows`, the figures by name; of a step that has not
    passed also `log`, the end of what it printed.
    """
    if step.needs_cuda and not place.on_cuda:
        return {"status": SKIPPED, "why": "needs CUDA", "rows": {}}
    found: dict[str, Any] = {"status": "running", "limit": step.limit, "rows": {}}
    log = place.folder / LOG
    begin = log.stat().st_size if log.is_file() else 0
    started = time.monotonic()
    process, receiver = _fork(name, step, place)
    ended = LATE
    try:
        while receiver.poll(max(0.0, place.seconds_left)):
            try:
                message = json.loads(receiver.recv_bytes())
            except (EOFError, OSError):
                process.join(5)
                ended = f"its process ended with {process.exitcode}"
                break
            if "done" in message:
                ended = PASSED
                process.join(1)
                break
            found["rows"] |= message
            keep(found)
    finally:
        _end(process)
    failures = [row for row in found["rows"].values() if failed(row)]
    found["status"] = ended if ended != PASSED else FAILED if failures else PASSED
    found["seconds"] = round(time.monotonic() - started, 2)
    if found["status"] != PASSED and log.is_file():
        with log.open("rb") as file:
            file.seek(max(begin, log.stat().st_size - TAIL))
            found["log"] = file.read().decode(errors="replace")
    return found


def failed(row: Figures) -> bool:
    """Whether a result is a failure."""
    return "error" in row or row.get("ok") is False


def write(path: Path | None, results: Figures) -> None:
    """Write results as JSON, whole or not at all, where a path is given."""
    if path is not None:
        text = json.dumps(results, indent=1) + "\n"
        files.write(path, lambda file: file.write(text.encode()))


def _fork(name: str, step: Step, place: Place) -> tuple[BaseProcess, Connection]:
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(name, step, place, sender))
    with warnings.catch_warnings():
        # Python 3.12 warns of threads, of which NumPy's are safe: they have work only in calls.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sender.close()
    return process, receiver


def _end(process: BaseProcess) -> None:
    """Kill what is left of a step: its process and all that it started."""
    # A program that starts others in groups of their own, as torchrun does, ends them when asked.
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid or 0, number)
        except (ProcessLookupError, PermissionError):
            process.kill()  # it had no group of its own yet, or all have ended
        process.join(patience)


def _work(name: str, step: Step, place: Place, sender: Connection) -> None:
    os.setsid()  # so that what this process starts ends with it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.stdout.flush()
    log = os.open(place.folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    # Importing TensorBoard takes seconds, and so would writing to it.
    sys.modules["torch.utils.tensorboard"] = None  # pyright: ignore[reportArgumentType]
    print(f"\n== {name}")
    try:
        for row, job in step.jobs(place):
            print(f"-- {row}")
            _send(sender, row, figures_of(job))
    except Exception as error:  # of the step itself, between its jobs
        _send(sender, name, _told(error))
    sender.send_bytes(b'{"done": true}')


def figures_of(job: Job) -> Figures:
    """What a job returns, and the seconds it took; its exception, where it raises one."""
    started = time.monotonic()
    try:
        figures = dict(job())
    except Exception as error:  # whatever it is, the other jobs have their turn
        traceback.print_exc()
        figures = _told(error)
    return figures | {"seconds": round(time.monotonic() - started, 2)}


def _told(error: Exception) -> dict[str, Any]:
    lines = traceback.format_exception(error)
    return {
        "error": f"{type(error).__name__}: {error}"[:1000],
        "traceback": "".join(lines)[-4000:],
    }


def _send(sender: Connection, row: str, figures: Figures) -> None:
    try:
        message = json.dumps({row: figures})
    except (TypeError, ValueError) as error:
        message = json.dumps({row: _told(error)})
    sender.send_bytes(message.encode())
