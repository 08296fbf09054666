"""What `benchmarks.gpu` measured, as tables in Markdown; and the targets beside it.

A figure is shown where it was measured, and left out where it was not.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.steps import FAILED, PASSED, SKIPPED, failed

Results = Mapping[str, Any]


class Target(NamedTuple):
    """What is aimed at."""

    name: str
    unit: str
    value: float
    find: Callable[[Results], Sequence[float]]  # all that was measured of it
    more_is_better: bool = True


def _rows(results: Results, *steps: str) -> list[Mapping[str, Any]]:
    return [
        row for step in steps for row in results["steps"].get(step, {}).get("rows", {}).values()
    ]


def _rates(variant: str) -> Callable[[Results], Sequence[float]]:
    return lambda results: [
        row["frames_per_second"]
        for row in _rows(results, "steps", "compile")
        if row.get("variant") == variant and "frames_per_second" in row
    ]


def _figures(step: str, name: str) -> Callable[[Results], Sequence[float]]:
    return lambda results: [row[name] for row in _rows(results, step) if name in row]


# 1024 wide, 4 views; later work adds its rows.
TARGETS = (
    Target("a step of baseline", "frames/s", 1_000_000, _rates("baseline")),
    Target("a step of S1+S2", "frames/s", 400_000, _rates("s1+s2")),
    Target("training of SkiPose's size", "s", 30, _figures("skipose", "training_s"), False),
    Target(
        "the same, estimated from a part of its steps",
        "s", 30, _figures("skipose", "estimated_training_s"), False,
    ),
    Target(
        "the default method, 10,000 frames of six views",
        "s", 120, _figures("long", "total_s"), False,
    ),
    Target(
        "the same, its training estimated from a part of its steps",
        "s", 120, _figures("long", "estimated_total_s"), False,
    ),
)  # fmt: skip


def targets(results: Results) -> list[dict[str, Any]]:
    """Each target that something was measured of, the best measured, and whether it is met.

    Toys measure nothing of what the targets are for.
    """
    found: list[dict[str, Any]] = []
    for target in () if results["options"]["toy"] else TARGETS:
        if values := target.find(results):
            best = max(values) if target.more_is_better else min(values)
            met = best >= target.value if target.more_is_better else best <= target.value
            found.append(
                {"name": target.name, "unit": target.unit, "target": target.value}
                | {"measured": best, "met": met}
            )
    return found


def of_file(path: Path) -> str:
    """The tables of a file of results; nothing where there is none."""
    return report(json.loads(path.read_text())) if path.is_file() else ""


def report(results: Results) -> str:
    """All tables."""
    machine = results["machine"]
    power = f", {machine['power_limit']}" if "power_limit" in machine else ""
    where = (
        f"{machine.get('device', machine['processor'])}{power}, torch {machine['torch']}, CUDA "
        f"{machine.get('cuda', '-')}, driver {machine.get('driver', '-')}; {results['date']}, "
        f"commit {results['commit']}"
    )
    size = ["At toy size, which shows only that it runs."] if results["options"]["toy"] else []
    tables = [_targets(results), _statuses(results)]
    tables += [_step(name, step) for name, step in results["steps"].items()]
    return "\n\n".join([where, *size, *filter(None, tables)])


def _targets(results: Results) -> str:
    lines = [
        [t["name"], f"{t['target']:,} {t['unit']}", f"{t['measured']:,.4g}" if t["measured"] < 1000
         else f"{t['measured']:,.0f}", "yes" if t["met"] else "no"]
        for t in targets(results)
    ]  # fmt: skip
    return table(["target", "aim", "measured", "met"], lines) if lines else ""


def _statuses(results: Results) -> str:
    lines = []
    for name, step in results["steps"].items():
        bad = [row for row, figures in step["rows"].items() if failed(figures)]
        what = f"{FAILED}: {'; '.join(bad)}" if bad else step["status"]
        if step["status"] not in (PASSED, FAILED, SKIPPED) and bad:
            what += f"; {step['status']}"
        lines.append([name, what, f"{step.get('seconds', 0):.1f}"])
    return table(["step", "result", "s"], lines)


def _step(name: str, step: Mapping[str, Any]) -> str:
    """The scalar figures of a step, and below it what is longer."""
    rows = {row: flat(figures) for row, figures in step["rows"].items()}
    known = {row: figures for row, figures in rows.items() if figures}
    columns = list(dict.fromkeys(column for figures in known.values() for column in figures))
    lines = [[row, *(cell(figures.get(c)) for c in columns)] for row, figures in known.items()]
    parts = [f"### {name}"] + ([table(["", *columns], lines)] if lines else [])
    for row, figures in step["rows"].items():
        for key in ("top_ms_per_step", "places"):
            if figures.get(key):
                each = [[k.replace("|", "\\|"), cell(v)] for k, v in figures[key].items()]
                parts.append(table([f"{row}, {key.replace('_', ' ')}", ""], each))
        if note := figures.get("skipped") or figures.get("error"):
            parts.append(f"{row}: {' '.join(note.split())[:200]}")
    return "\n\n".join(parts) if len(parts) > 1 else ""


# Said elsewhere: in the name of the row, or for a program that reads the results.
LEFT_OUT = (
    "variant",
    "batch",
    "precision",
    "way",
    "ok",
    "traceback",
    "error",
    "skipped",
    "seconds",
)
LONG = ("top_ms_per_step", "places")


def flat(figures: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Scalar figures by name; those of mappings with both names."""
    found: dict[str, Any] = {}
    for key, value in figures.items():
        if key in LONG or (not before and key in LEFT_OUT):
            continue
        name = f"{before} {key}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            found |= flat(value, name)
        elif isinstance(value, (int, float, str)):
            found[name] = value
    return found


def cell(value: object) -> str:
    """A figure in a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return " ".join(str(value).split())


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, of which all but the first column are figures."""
    every = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in every)
