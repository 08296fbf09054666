"""What all figures share: colours, sizes, axes, and how a body is drawn.

Left limbs are blue, right limbs vermilion, the middle of the body dark grey; repaired joints are
green, and the truth is a wide light band (palette: Okabe and Ito, which colour-blind readers can
tell apart).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from canonlift import files
from canonlift.body.skeleton import bones

LEFT, RIGHT, MIDDLE, REFINED, TRUTH = "#0072B2", "#D55E00", "#4D4D4D", "#009E73", "#D4D4D4"
INK, PALE, RULE = "#262626", "#6A6A6A", "#BDBDBD"
CURVES = (INK, "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
HEAT = LinearSegmentedColormap.from_list(
    "heat", [(0, "#FFFFFF"), (0.15, "#EBC7DA"), (0.55, "#CC79A7"), (1, "#4A1F38")]
)
WIDTH, DPI = 9.0, 180  # inches across; a README shows an inch as 100 pixels
SMALL, NORMAL, LARGE = 8.0, 9.0, 11.0  # points
PORTRAIT = 1.25  # height over width of a panel that shows a person

LEGEND: dict[str, Any] = {"frameon": False, "fontsize": NORMAL, "handlelength": 1.8}
BELOW = LEGEND | {"loc": "outside lower center", "ncols": 8}


def figure(size: tuple[float, float], heading: str) -> Figure:
    """An empty figure of a size in inches."""
    made = Figure(figsize=size, dpi=DPI, layout="compressed")
    made.suptitle(heading, x=0.01, ha="left", fontsize=LARGE, weight="bold", parse_math=False)
    return made


def panels(n_panels: int, n_columns: int, heading: str) -> tuple[Figure, list[Axes]]:
    """A figure with panels for `n_panels` persons."""
    n_rows = -(-n_panels // n_columns)
    width = min(WIDTH / n_columns, 3.4)
    height = n_rows * (PORTRAIT * (width - 0.5) + 0.5) + 0.8
    made = figure((max(width * n_columns, 7.0), height), heading)
    grid = made.subplots(n_rows, n_columns, squeeze=False).ravel().tolist()
    for axes in grid[n_panels:]:
        axes.remove()
    return made, [plain(axes) for axes in grid[:n_panels]]


def plain(axes: Axes) -> Axes:
    """The same axes without what distracts from the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(which="both", labelsize=SMALL, color=RULE, labelcolor=PALE)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(size=SMALL, color=PALE)
    return axes


def title(axes: Axes, text: str, note: str = "") -> None:
    """Write a title at the left of a panel, and a pale note at its right."""
    axes.set_title(text, loc="left", fontsize=NORMAL, parse_math=False)
    axes.set_title(note, loc="right", fontsize=SMALL, color=PALE)


def save(made: Figure, path: Path) -> Path:
    """Write a PNG, whole or not at all; the same bytes for the same figure."""
    options: dict[str, Any] = {"facecolor": "white", "metadata": {"Software": None}}
    files.write(path, lambda file: made.savefig(file, format="png", **options))
    return path


def in_words(joint: str) -> str:
    """The name of a joint in words: `l_knee` is the left knee."""
    side = {"l_": "left ", "r_": "right "}.get(joint[:2])
    return side + joint[2:] if side else joint


def short(name: str) -> str:
    """The name of a view, with its middle left out where it is long."""
    return name if len(name) <= 16 else f"{name[:7]}…{name[-8:]}"


def colour(joint: str) -> str:
    """The colour of a joint's side."""
    return {"l_": LEFT, "r_": RIGHT}.get(joint[:2], MIDDLE)


def half_height(points: Float[np.ndarray, "N 2"]) -> float:
    """Half the height of the panel that shows all points, with a margin."""
    width, height = np.fmax.reduce(points) - np.fmin.reduce(points)
    half = 0.55 * np.fmax(height, width * PORTRAIT)
    return float(half) if half > 0 else 1.0  # also for NaN: nothing to show


def crop(
    axes: Axes, points: Float[np.ndarray, "N 2"], half: float | None = None, up: int = -1
) -> None:
    """Show the points, both axes in one scale; `up` -1 lets the second grow downwards."""
    half = half_height(points) if half is None else half
    middle = (np.fmax.reduce(points) + np.fmin.reduce(points)) / 2
    x, y = np.where(np.isnan(middle), 0.0, middle)
    axes.set_xlim(x - half / PORTRAIT, x + half / PORTRAIT)
    axes.set_ylim(y - up * half, y + up * half)
    axes.set_aspect("equal")
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(4))


def known_bones(points: Float[np.ndarray, "J 2"], joints: Sequence[str]) -> list[tuple[int, int]]:
    """The bones both of whose joints have a place."""
    return [pair for pair in bones(joints) if np.isfinite(points[list(pair)]).all()]


def lines(
    axes: Axes, points: Float[np.ndarray, "J 2"], pairs: Sequence[tuple[int, int]], **style: Any
) -> None:
    """Draw a line for each pair of joints."""
    ends = points[np.array(pairs, dtype=int).reshape(-1, 2)]
    axes.add_collection(LineCollection(list(ends), capstyle="round", **style), autolim=False)


def band(axes: Axes, truth: Float[np.ndarray, "J 2"], joints: Sequence[str]) -> None:
    """Draw the true bones as a wide light band."""
    pairs = known_bones(truth, joints)
    lines(axes, truth, pairs, colors=TRUTH, linewidths=6, zorder=1, gid="truth")


def body(
    axes: Axes,
    points: Float[np.ndarray, "J 2"],
    joints: Sequence[str],
    opacity: Float[np.ndarray, " J"] | None = None,
    away: Float[np.ndarray, " J"] | None = None,
) -> None:
    """Draw joints and bones in the colours of their side; what is further `away` lies behind."""
    opacity = np.ones(len(joints)) if opacity is None else 0.15 + 0.85 * opacity
    pairs = known_bones(points, joints)
    if away is not None:
        pairs.sort(key=lambda pair: -away[list(pair)].sum())
    colours = [to_rgba(colour(joints[b]), opacity[[a, b]].min()) for a, b in pairs]
    lines(axes, points, pairs, colors=colours, linewidths=2.0, zorder=2, gid="bones")
    seen = np.flatnonzero(np.isfinite(points).all(-1)).tolist()
    colours = [to_rgba(colour(joints[joint]), opacity[joint]) for joint in seen]
    axes.scatter(*points[seen].T, s=14, color=colours, linewidths=0, zorder=3, gid="joints")


def legend(made: Figure, truth: bool, refined: bool = False) -> None:
    """Add the meaning of the colours below a figure that shows bodies."""
    style: dict[str, Any] = {"linewidth": 2, "marker": "o", "markersize": 4}
    sides = {"left": LEFT, "right": RIGHT, "middle": MIDDLE}
    looks: dict[str, dict[str, Any]] = {
        side: style | {"color": color} for side, color in sides.items()
    }
    looks["faint: unsure"] = style | {"color": to_rgba(MIDDLE, 0.3)}
    if refined:
        ring = {"color": REFINED, "linewidth": 1.4, "mfc": "white", "mew": 1.3}
        looks["repaired"] = style | ring
    if truth:
        looks["truth"] = {"color": TRUTH, "linewidth": 6, "solid_capstyle": "butt"}
    handles = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    made.legend(handles=handles, **BELOW)
