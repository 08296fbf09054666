"""Rows of results: kept as lines of JSON, measured several at a time, shown as Markdown tables."""

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

import canonlift
from benchmarks import measure

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "runs" / "ptz"
PACKAGE = Path(canonlift.__file__).parent

Row = Mapping[str, Any]


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, oldest first; none if there is no such file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def append(path: Path, row: Row) -> None:
    """Add a row to a file, which is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def measured(
    run: Callable[..., Row], todo: Sequence[tuple[Any, ...]], jobs: int
) -> Iterator[dict[str, Any]]:
    """What `run` returns for each tuple of arguments, as it is done, `jobs` processes at a time.

    Every process has one thread. After an error the runs that have begun end; no other begins.
    """
    with ProcessPoolExecutor(jobs, get_context("spawn"), prepare_process) as processes:
        rows = [processes.submit(run, *given) for given in todo]
        try:
            for row in as_completed(rows):
                yield dict(row.result())
        except BaseException:
            processes.shutdown(cancel_futures=True)
            raise


def prepare_process() -> None:
    """Use one thread, and memory as `canonlift train` does."""
    torch.set_num_threads(1)
    measure.keep_memory()


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table of cells; the first line is the head, the second the alignment."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mean(values: Sequence[float | None], digits: int) -> str:
    """Mean of the values that are known, and their standard deviation; "-" if none is."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{np.mean(known):.{digits}f}{spread}"


def digest(*parts: object) -> str:
    """Digest of contents: of files, bytes, and of anything else what it prints as."""
    whole = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part
        content = content if isinstance(content, bytes) else str(content).encode()
        whole.update(hashlib.sha256(content).digest())
    return whole.hexdigest()[:12]


def commit() -> str:
    """The commit, marked where the working tree differs from it in more than results."""
    git = ["git", "-C", str(ROOT)]
    changes = [*git, "status", "--porcelain", "--", ".", ":!benchmarks/results"]
    try:
        head, changed = (
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            for command in ([*git, "rev-parse", "--short", "HEAD"], changes)
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if changed else head


def machine() -> str:
    """The GPU, or else the processor and the threads that are used."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    found = measure.machine("cpu")
    return f"{found['processor']}, {found['threads']} threads"
