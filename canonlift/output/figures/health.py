"""What is wrong with the detections of a recording, and where."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from canonlift.output.figures import style
from canonlift.readers.health import Health

COLOURS: dict[str, Any] = {"cmap": style.HEAT, "vmin": 0.0, "interpolation": "nearest"}


def draw_health(report: Health, path: Path, title: str = "Health of the recording") -> Path:
    """Draw what is unobserved, swapped and frozen over time, and the gaps and jitter of joints."""
    n_views, n_joints = report.unobserved.shape
    names = [style.short(view) for view in report.views]
    figure = style.figure((style.WIDTH, 2.4 + 3 * 0.22 * n_views + 0.6), title)
    over_time, lost, restless = figure.subplots(3, 1)
    seconds = max(len(report.seen) / report.fps, 1e-9)
    span = (0.0, seconds, n_views - 0.5, -0.5)
    over_time.imshow(1 - report.seen.T, extent=span, vmax=1.0, aspect="auto", **COLOURS)
    for events, colour, label in (
        (report.swapped, style.RIGHT, "left and right exchanged"),
        (report.frozen, style.LEFT, "frozen"),
    ):
        frame, view = np.nonzero(events)
        over_time.barh(view, 1 / report.fps, left=frame / report.fps, height=0.8, color=colour)
        over_time.plot([], [], color=colour, linewidth=3, label=label)
    over_time.plot([], [], color=style.HEAT(0.7), linewidth=3, label="unobserved")
    over_time.set(xlim=span[:2], ylim=span[2:], xlabel="seconds")
    _table(lost, 100 * report.unobserved, "share unobserved (%)", 100.0)
    _table(restless, 100 * report.jitter, "jitter (% of the body's size)", 5.0)
    labels = [style.in_words(joint) for joint in report.joints]
    restless.set_xticks(range(n_joints), labels, rotation=90)
    for axes in (over_time, lost, restless):
        style.plain(axes).set_yticks(range(n_views), names)
        axes.tick_params(axis="both", length=0)
    corner = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 3}
    over_time.legend(**corner, **style.LEGEND)
    return style.save(figure, path)


def _table(axes: Axes, values: Float[np.ndarray, "V J"], name: str, most: float) -> None:
    """Draw a number per view and joint, darkest at `most`; written out where there is room."""
    axes.imshow(values, vmax=most, aspect="auto", **COLOURS)
    style.title(axes, name)
    axes.set_xticks([])
    for view, joint in np.argwhere(np.isfinite(values)) if values.shape[1] <= 40 else ():
        value = values[view, joint]
        ink = "white" if value > 0.6 * most else style.INK
        text = f"{value:.0f}" if most > 50 else f"{value:.1f}"
        axes.text(joint, view, text, ha="center", va="center", fontsize=6, color=ink)
