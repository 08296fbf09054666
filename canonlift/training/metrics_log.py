"""The course of a training run, as a table that outlives it."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from canonlift import distributed, files

FILE = "metrics.csv"


class MetricsLog:
    """`metrics.csv`, and TensorBoard's event file where TensorBoard is installed.

    Of several processes the first one writes; in the others nothing happens.
    """

    def __init__(self, run: Path, terms: Sequence[str], last_step: int) -> None:
        """Open the log; rows after `last_step` are from a process that died, and are dropped."""
        self.path = run / FILE
        self.columns = ["step", "phase", "loss", *terms, "learning_rate", "seconds"]
        self.board = None
        if not distributed.is_first():
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in read(run) if int(row["step"]) <= last_step)
        files.write(self.path, lambda file: file.write(text.getvalue().encode()))
        self.board = _tensorboard(run, last_step)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        if not distributed.is_first():
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(row)
        if self.board is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self.board.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        if self.board is not None:
            self.board.close()


def read(run: Path) -> list[dict[str, str]]:
    """Rows of the log; a row that a crash cut short is left out."""
    path = run / FILE
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def _tensorboard(run: Path, last_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run / "tensorboard"), purge_step=last_step + 1)
