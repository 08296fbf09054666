"""The course of a training run."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from canonlift.methods.terms import MEASURES
from canonlift.output.figures import style

MANY = 100  # values of a phase from which their running mean is drawn, too
NO_TERMS = ("step", "phase", "loss", "learning_rate", "seconds", *MEASURES)


def draw_losses(rows: Sequence[Mapping[str, Any]], path: Path, title: str = "Losses") -> Path:
    """Draw the total and each term over the steps, and where the phases switch.

    Rows are as `csv.DictReader` reads them from metrics.csv; an empty value is not drawn.
    """
    if not rows:
        raise ValueError(f"{path}: there are no losses to draw; train until the first is logged")
    figure = style.figure((style.WIDTH, 3.6), title)
    axes = style.plain(figure.subplots())
    phases = [list(group) for _, group in groupby(rows, key=lambda row: row["phase"])]
    handles = []
    for index, name in enumerate(["loss", *(name for name in rows[0] if name not in NO_TERMS)]):
        colour = style.CURVES[index % len(style.CURVES)]
        look: dict[str, Any] = {"color": colour, "linewidth": 1.3 if index else 2.2}
        label = name.replace("_", " ") if index else "total"
        handles.append(Line2D([], [], label=label, **look))
        for phase in phases:
            _curve(axes, name, phase, look)
    for index, phase in enumerate(phases):
        start = float(phase[0]["step"])
        if index:
            axes.axvline(start, color=style.RULE, linewidth=1.0, linestyle=(0, (3, 3)), zorder=0)
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction")}
        place |= {"textcoords": "offset points", "fontsize": style.NORMAL}
        axes.annotate(phase[0]["phase"], (start, 1.0), (4, 3), **place)
    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="y", color="#EBEBEB", linewidth=0.6)
    axes.margins(x=0.01)
    axes.set(xlabel="optimisation step", ylabel="loss (terms before weighting)")
    figure.legend(handles=handles, loc="outside right center", **style.LEGEND)
    return style.save(figure, path)


def _curve(
    axes: Axes, name: str, phase: Sequence[Mapping[str, Any]], look: dict[str, Any]
) -> None:
    """One column of the rows of a phase; of many values the running mean stands out."""
    drawn = [row for row in phase if row[name] != ""]
    step, value = (np.array([float(row[key]) for row in drawn]) for key in ("step", name))
    if len(value) > MANY:
        axes.plot(step, value, color=look["color"], linewidth=0.5, alpha=0.3)
        value = _running_mean(value, len(value) // 25)
    axes.plot(step, value, marker="." if len(value) == 1 else "", gid=name, **look)


def _running_mean(values: Float[np.ndarray, " N"], n: int) -> Float[np.ndarray, " N"]:
    """Mean over n values, of which there are fewer at the ends."""
    kernel = np.ones(n)
    count = np.convolve(np.ones_like(values), kernel, mode="same")
    return np.convolve(values, kernel, mode="same") / count
