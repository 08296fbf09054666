"""Write benchmarks/README.md: every table that benchmarks/results/ holds, with its command.

    python -m benchmarks.report            # write it
    python -m benchmarks.report --check    # exit status 1 if it is not what the results give

The text around the tables is benchmarks/findings.md, where a line {{NAME}} stands for a table.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks import (
    gpu_report,
    ptz,
    rows,
    sequence_tables,
    solve,
    solve_failures,
    solve_speed,
)
from benchmarks.sequence_studies import STUDIES
from canonlift import files

FOLDER = Path(__file__).parent
REPORT, TEXT = FOLDER / "README.md", FOLDER / "findings.md"

TABLES: Mapping[str, Callable[[], str]] = {
    "overview": lambda: ptz.tables(rows.RESULTS)[0],
    "details": lambda: ptz.tables(rows.RESULTS)[1],
    "ablations": lambda: ptz.tables(rows.RESULTS)[2],
    "steps": lambda: ptz.table_over_steps(rows.RESULTS),
    "gpu": lambda: gpu_report.of_file(rows.RESULTS / "gpu.json"),
    "solve": lambda: solve.tables()[0],
    "solve_trust": lambda: solve.tables()[1],
    "solve_speed": lambda: solve_speed.tables()[0],
    "solve_anipose": lambda: solve_speed.tables()[1],
    "solve_failures": lambda: solve_failures.tables()[0],
    **{study: partial(sequence_tables.show, study) for study in STUDIES},
}


def report(text: str) -> str:
    """The text with its tables.

    Raises:
        ValueError: if a table is not shown, or not known.
    """
    shown = [line[2:-2] for line in text.splitlines() if line.startswith("{{")]
    if sorted(shown) != sorted(TABLES):
        raise ValueError(f"{TEXT.name} shows {sorted(shown)}, there are {sorted(TABLES)}")
    for name in shown:
        text = text.replace(f"{{{{{name}}}}}", TABLES[name]())
    return text.rstrip() + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; is it up to date?")
    args = parser.parse_args(argv)
    made = report(TEXT.read_text())
    if not args.check:
        files.write(REPORT, lambda file: file.write(made.encode()))
    elif not REPORT.is_file() or REPORT.read_text() != made:
        sys.exit(f"{REPORT.name} is stale; write it with `python -m benchmarks.report`")


if __name__ == "__main__":
    main()
