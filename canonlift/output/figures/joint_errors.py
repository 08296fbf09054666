"""The error of each joint beside that of baselines."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from canonlift.output.figures import style

FROM_HEAD_TO_FEET = (
    "head nose thorax l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist spine pelvis "
    "l_hip r_hip l_knee r_knee l_ankle r_ankle".split()
)


def draw_joint_errors(
    per_joint: Mapping[str, float],
    path: Path,
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    title: str = "Error per joint",
) -> Path:
    """Draw the error of each joint in millimetres, from head to feet, and a tick per baseline."""
    order = {name: place for place, name in enumerate(FROM_HEAD_TO_FEET)}
    names = sorted(per_joint, key=lambda name: order.get(name, len(order)))
    errors, rows = np.array([per_joint[name] for name in names]), range(len(names))
    figure = style.figure((0.8 * style.WIDTH, 1.2 + 0.23 * len(names)), title)
    axes = style.plain(figure.subplots())
    bars = axes.barh(rows, errors, height=0.72, color=[style.colour(name) for name in names])
    readable = errors > 0.05 * np.fmax.reduce(errors, initial=0.0)
    numbers = [f"{e:.0f}" if r else "" for e, r in zip(errors, readable, strict=True)]
    # Sits inside the bar: beside it, the ticks of the baselines would cross it out.
    inside = {"label_type": "edge", "padding": -17, "color": "white", "fontsize": style.SMALL}
    axes.bar_label(bars, numbers, **inside)
    colours = (style.INK, "#CC79A7")
    for (name, values), color in zip((baselines or {}).items(), colours, strict=False):
        ticks = [values.get(joint, np.nan) for joint in names]
        label = f"{name.replace('_', ' ')} (baseline)"
        axes.scatter(ticks, rows, s=110, marker="|", color=color, linewidths=2, label=label)
    axes.set_yticks(rows, [style.in_words(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0)
    axes.set_xlabel("error (mm)")
    axes.tick_params(axis="y", length=0, labelsize=style.NORMAL, labelcolor=style.INK)
    if baselines:
        figure.legend(**style.BELOW)
    return style.save(figure, path)
