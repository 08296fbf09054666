"""Every view of one frame: what was detected, and where its joints were moved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch

from canonlift.data.prediction import Prediction
from canonlift.output.figures import style
from canonlift.output.figures.notable_frames import Repair, compare, or_nan

FAR_MOVE = 0.04  # in units of the person's size: as long as an arrowhead


def draw_refinement(prediction: Prediction, frame: int, title: str, path: Path) -> Path:
    """Draw all views of a frame, with an arrow to where a joint was moved.

    Detected joints are as opaque as they are confident.
    """
    recording, joints = prediction.recording, prediction.joints
    repair = Repair(*(p[0] for p in compare(prediction, slice(frame, frame + 1))))
    truth = or_nan(recording.keypoints_true, recording.keypoints)[frame]
    before, after = repair.errors(truth)
    n_views = len(prediction.views)
    n_columns = n_views if n_views <= 4 else (n_views + 1) // 2
    figure, panels = style.panels(n_views, n_columns, title)
    for view, axes in enumerate(panels):
        detected, refined = repair.detected[view], repair.refined[view]
        style.crop(axes, np.concatenate([detected, refined, truth[view]]))
        style.band(axes, truth[view], joints)
        style.body(axes, detected, joints, recording.confidence[frame, view])
        _repairs(axes, Repair(*(part[view] for part in repair)), joints)
        known = np.isfinite(before[view])
        note = f"error {before[view]:.0f} → {after[view]:.0f} px" if known else ""
        style.title(axes, style.short(prediction.views[view]), note)
        if not np.isfinite(detected).any():
            place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center"}
            axes.text(0.5, 0.5, "not observed", color=style.PALE, **place)
        axes.set_xlabel("x (px)" if view + n_columns >= n_views else "")
        axes.set_ylabel("y (px)" if view % n_columns == 0 else "")
    changed = bool((repair.moved | repair.placed).any())
    style.legend(figure, truth=bool(np.isfinite(truth).any()), refined=changed)
    return style.save(figure, path)


def _repairs(axes: Axes, repair: Repair, joints: Sequence[str]) -> None:
    """Draw a ring at every joint that was moved or placed, and an arrow from where it was."""
    move = np.linalg.norm(repair.refined - repair.detected, axis=-1)
    far = repair.placed | (repair.moved & (move > FAR_MOVE * repair.size))
    pairs = [p for p in style.known_bones(repair.refined, joints) if far[list(p)].any()]
    dashes = (0, (4, 2))
    green: dict[str, Any] = {"colors": style.REFINED, "linewidths": 1, "linestyles": [dashes]}
    style.lines(axes, repair.refined, pairs, **green)
    for joint in np.flatnonzero(repair.moved):
        start, end = tuple(repair.detected[joint]), tuple(repair.refined[joint])
        # An arrowhead on a move that is shorter than itself would point anywhere.
        look: dict[str, Any] = {"mutation_scale": 7, "color": style.REFINED, "linewidth": 1.4}
        look |= {"arrowstyle": "-|>", "shrinkB": 2.5} if far[joint] else {"arrowstyle": "-"}
        axes.add_patch(FancyArrowPatch(start, end, zorder=4, shrinkA=0, **look))
    rings = repair.refined[repair.moved | repair.placed]
    look = {"facecolors": "white", "edgecolors": style.REFINED, "linewidths": 1.3}
    axes.scatter(*rings.T, s=16, zorder=5, gid="refined", **look)
