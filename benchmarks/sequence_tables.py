"""The tables of `benchmarks.sequence`, and the curves that `figures.sequence` draws."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks import rows
from benchmarks.rows import Row
from benchmarks.sequence_studies import (
    ALONE,
    FIGURES,
    HEADINGS,
    METHODS,
    STUDIES,
    Experiment,
    key,
)

OVERVIEW = ("mpjpe_mm", "pa_mpjpe_mm")
FILE = "sequence.jsonl"
Groups = Mapping[Experiment, Sequence[Row]]  # rows of all seeds, by the experiment with seed 0


def show(name: str, results: Path = rows.RESULTS, steps_scale: float = 1.0) -> str:
    """A study as Markdown, mean over seeds."""
    groups = of_study(name, rows.read(results / FILE), steps_scale)
    full = table(name, groups)
    return full if STUDIES[name].over else f"{overview(groups)}\n\n{full}"


def of_study(name: str, found: Sequence[Row], steps_scale: float = 1.0) -> Groups:
    """The rows of a study."""
    known = {key(row): row for row in found}  # a later row replaces an earlier one
    groups: dict[Experiment, list[Row]] = {}
    for one in STUDIES[name].experiments():
        one = one.longer(steps_scale)
        if (row := known.get(key(asdict(one)))) is not None:
            groups.setdefault(replace(one, seed=0), []).append(row)
    if STUDIES[name].over:
        return groups
    order = list(METHODS)
    return dict(sorted(groups.items(), key=lambda item: order.index(item[0].method)))


def table(name: str, groups: Groups) -> str:
    """Every figure of every experiment of a study."""
    study = STUDIES[name]
    heads = ["setting", "start", "method", *([study.heading] if study.over else []), *HEADINGS]
    lines = [[*heads, "seeds"], ["---"] * 3 + ["---:"] * (len(heads) - 2)]
    for one, seeds in groups.items():
        cells = [rows.mean([row[figure] for row in seeds], d) for figure, d in FIGURES.items()]
        place = [f"{place_of(one, study.over):g}"] if study.over else []
        label = label_of(one, study.over)
        lines.append([one.setting, one.start, label, *place, *cells, str(len(seeds))])
    return rows.markdown(lines)


def overview(groups: Groups) -> str:
    """MPJPE / PA-MPJPE of every setting, and by how much the worst seed is below `2d` in MPJPE."""
    settings = list(dict.fromkeys(one.setting for one in groups))
    columns = [head for name in settings for head in (name, "below 2d, worst seed")]
    lines = [["MPJPE / PA-MPJPE, mm", *columns], ["---"] + ["---:"] * len(columns)]
    for one in dict.fromkeys(replace(one, setting="") for one in groups):
        cells = []
        for setting in settings:
            found = groups.get(replace(one, setting=setting), [])
            plain = groups.get(Experiment("2d", setting, 0, one.start, length=one.length), [])
            figures = [rows.mean([row[figure] for row in found], 1) for figure in OVERVIEW]
            cells += [" / ".join(figures), _least_gain(one, found, plain)]
        start = "" if one.start == "pretrained" else f", {one.start} start"
        lines.append([label_of(one) + start, *cells])
    return rows.markdown(lines)


def _least_gain(one: Experiment, found: Sequence[Row], plain: Sequence[Row]) -> str:
    """By how much the MPJPE of the worst seed is below that of `2d` with the same seed."""
    base = {row["seed"]: row["mpjpe_mm"] for row in plain}
    if not found or one.method in ("2d", "pretrained"):
        return ""
    if not all(row["seed"] in base and row["mpjpe_mm"] for row in found):
        return ""
    return f"{100 * min(1 - row['mpjpe_mm'] / base[row['seed']] for row in found):.0f} %"


def label_of(one: Experiment, over: str = "") -> str:
    """Method, weight and segment of an experiment, but for what its study varies."""
    kinds = {0: "per sequence", 1: "per frame"}
    if one.method in ALONE:
        return one.method
    weight = "" if one.weight is None or over == "weight" else f" x {one.weight:g}"
    return f"{one.method}{weight}, {kinds.get(one.segment, f'per segment of {one.segment}')}"


def place_of(one: Experiment, field: str) -> float:
    """Where an experiment is along the horizontal axis of its study."""
    value = getattr(one, field)
    if field == "segment" and value == 0:
        value = one.length
    return float(value.removeprefix("pair")) if isinstance(value, str) else float(value)


def curves(name: str, groups: Groups, figure: str) -> dict[str, list[tuple[float, float]]]:
    """Mean of a figure over what a study varies, by setting and method."""
    study = STUDIES[name]
    found: dict[str, list[tuple[float, float]]] = {}
    for one, seeds in groups.items():
        setting = "" if study.over == "setting" else one.setting
        values = [row[figure] for row in seeds if row[figure] is not None]
        points = found.setdefault(f"{setting} {one.method}".strip(), [])
        if values:
            points.append((place_of(one, study.over), sum(values) / len(values)))
    return {label: sorted(points) for label, points in found.items()}
