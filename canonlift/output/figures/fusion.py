"""How the detection of one joint was repaired by the other views."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes

from canonlift.methods.fusion import FusionConfig, Maps, exact_peaks
from canonlift.output.figures import style


def draw_fusion(
    maps: Maps,
    config: FusionConfig,
    views: Sequence[str],
    title: str,
    path: Path,
    joints: Sequence[str] = (),
    body: Float[np.ndarray, "J 2"] | None = None,
    truth: Float[np.ndarray, " 2"] | None = None,
    repaired: Float[np.ndarray, " 2"] | None = None,
) -> Path:
    """Draw the map of one joint, each epipolar line, their sum and its peak.

    Parts of height 0 do not count and are left out. In units of the maps are `body`, all `joints`
    as detected, NaN where unobserved; `truth`, the true place of the one joint; and `repaired`,
    where it was put if not at the peak.
    """
    if len(maps.joint) != 1:
        raise ValueError(f"a figure shows one joint, but these are the maps of {len(maps.joint)}")
    maps = Maps(*(part.detach().cpu() for part in tuple(maps)))
    parts = _parts(maps, views)
    n_columns = (len(parts) + 1) // 2
    width = min(style.WIDTH, 2.2 * (n_columns + 2.4))
    figure = style.figure((width, 2.2 * width / (n_columns + 2.6) + 1.05), title)
    grid = figure.add_gridspec(2, n_columns + 1, width_ratios=[1] * n_columns + [2.3])
    for index, (name, height, part) in enumerate(parts):
        axes = figure.add_subplot(grid[index // n_columns, index % n_columns])
        _heat(axes, part, config, 1.0, name, height)
        axes.set(xticks=[], yticks=[])
    peak = exact_peaks(maps, config)
    highest = maps.at(peak[:, None], config).item()
    total = figure.add_subplot(grid[:, -1])
    _heat(total, maps, config, highest, "sum", highest)
    total.set(xlabel="x (canonical plane)", ylabel="y (canonical plane)")
    if body is not None:
        style.body(total, body, joints, np.full(len(joints), 0.4))
    detected = maps.joint[0] if maps.joint_height > 0 else None
    _mark(total, detected=detected, truth=truth, peak=peak[0], repaired=repaired)
    figure.legend(**style.BELOW)
    return style.save(figure, path)


MARKS: dict[str, dict[str, Any]] = {
    "detected": {"marker": "o", "mfc": style.INK, "mec": style.INK, "markersize": 6},
    "truth": {"marker": "X", "mfc": style.TRUTH, "mec": style.INK},
    "peak": {"marker": "o", "mfc": "none", "mec": style.REFINED, "mew": 2.5},
    "repaired": {"marker": "+", "mec": style.REFINED, "mew": 2.5, "markersize": 12},
}


def _mark(axes: Axes, **places: Any) -> None:
    """Mark the places that are known."""
    for name, look in MARKS.items():
        if places[name] is not None:
            look = {"markersize": 9, "linestyle": "none"} | look
            axes.plot(*places[name], label=name, zorder=5, **look)


def _parts(maps: Maps, views: Sequence[str]) -> list[tuple[str, float, Maps]]:
    """Name and height of each part of one joint's map, and the map of it alone."""
    parts = []
    if maps.joint_height > 0:
        alone = maps._replace(line_height=0 * maps.line_height)
        parts.append(("detected", maps.joint_height.item(), alone))
    for source, height in enumerate(maps.line_height[0].tolist()):
        if height > 0:
            only = maps.line_height * (torch.arange(len(views)) == source)
            alone = maps._replace(joint_height=0 * maps.joint_height, line_height=only)
            parts.append((style.short(views[source]), height, alone))
    return parts


def _heat(
    axes: Axes, maps: Maps, config: FusionConfig, darkest: float, name: str, height: float
) -> None:
    """Draw Eq. 2 finely; the repair itself computes `config.resolution` cells a side."""
    n, extent = 240, config.extent
    edges = torch.linspace(-extent, extent, n + 1, dtype=maps.joint.dtype)
    centres = (edges[1:] + edges[:-1]) / 2
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    value = maps.at(torch.stack([x, y], dim=-1).reshape(1, n * n, 2), config)
    look: dict[str, Any] = {"cmap": style.HEAT, "vmin": 0.0, "vmax": darkest}
    place = (-extent, extent, extent, -extent)
    axes.imshow(value.reshape(n, n).numpy(), extent=place, interpolation="bilinear", **look)
    style.plain(axes).spines[:].set(visible=True, color=style.RULE)
    style.title(axes, name, f"max {height:.2f}")
