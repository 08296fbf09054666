"""How the hands move over time, as lifted from one view."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.lines import Line2D

from canonlift.body.skeleton import ROOT
from canonlift.data.prediction import Prediction
from canonlift.output.figures import style
from canonlift.output.figures.notable_frames import or_nan, scaled

SECONDS = 8.0  # of a recording that the figure shows
HANDS = ("l_wrist", "r_wrist")
DOTTED: dict[str, Any] = {"linewidth": 1.0, "linestyle": (0, (1, 1.2))}


def draw_motion(
    prediction: Prediction,
    frame: int,
    view: int,
    title: str,
    path: Path,
    beside: tuple[str, Prediction] | None = None,
) -> Path:
    """Draw depth and acceleration of the hands in the seconds around a frame.

    The truth, where known, lies behind them; one scale is fitted to it for the whole recording.
    Jitter from frame to frame shows in the acceleration, however small the error of the pose is.
    `beside` is the name and the prediction of another model, drawn dotted.
    """
    fps = prediction.fps
    start = max(0, frame - round(SECONDS / 2 * fps))
    frames = slice(start, start + max(3, round(SECONDS * fps)))
    truth = _rooted(or_nan(prediction.recording.pose3d, prediction.pose)[:, view], prediction)
    known = bool(np.isfinite(truth).any())
    unit = "m" if known else "body units"
    figure = style.figure((style.WIDTH, 4.2), title)
    panels = [style.plain(axes) for axes in figure.subplots(2, 1, sharex=True)]
    for joint in (name for name in HANDS if name in prediction.joints):
        colour = style.colour(joint)
        curves: list[tuple[np.ndarray, dict[str, Any]]] = [
            (truth, {"color": style.TRUTH, "linewidth": 5, "zorder": 1}),
            (_fitted(prediction, view, truth), {"color": colour, "linewidth": 1.6, "zorder": 2}),
        ]
        if beside is not None:
            dotted = DOTTED | {"color": colour, "alpha": 0.8, "zorder": 2}
            curves.append((_fitted(beside[1], view, truth), dotted))
        for pose, look in curves:
            place = pose[:, prediction.joints.index(joint)]
            seconds = np.arange(len(place))[frames] / fps
            for axes, values in zip(panels, (place[:, 2], acceleration(place, fps)), strict=True):
                axes.plot(seconds, values[frames], **look)
    panels[0].set_ylabel(f"depth of the hands ({unit})")
    panels[1].set(ylabel=f"acceleration ({unit}/s²)", xlabel="time (s)")
    panels[1].set_ylim(0)
    figure.legend(handles=_handles(known, beside and beside[0]), **style.BELOW)
    return style.save(figure, path)


def acceleration(place: Float[np.ndarray, "T 3"], fps: float) -> Float[np.ndarray, " T"]:
    """Magnitude of the acceleration over time, per second squared; NaN in the first and last."""
    steps = np.diff(place, n=2, axis=0, prepend=place[:1], append=place[-1:])
    rate = np.linalg.norm(steps, axis=-1) * fps**2
    rate[[0, -1]] = np.nan  # there is no frame before, or after
    return rate


def _fitted(
    prediction: Prediction, view: int, truth: Float[np.ndarray, "T J 3"]
) -> Float[np.ndarray, "T J 3"]:
    """The poses of a view in the size of the truth, where there is one."""
    pose = _rooted(prediction.pose[:, view], prediction)
    if not np.isfinite(truth).any():
        return pose
    return scaled(pose.reshape(1, -1, 3), truth.reshape(1, -1, 3)).reshape(pose.shape)


def _rooted(pose: Float[np.ndarray, "T J 3"], of: Prediction) -> Float[np.ndarray, "T J 3"]:
    return pose - pose[:, [of.joints.index(ROOT)]]


def _handles(known: bool, beside: str | None) -> Sequence[Line2D]:
    bands = [("left", style.LEFT, 2), ("right", style.RIGHT, 2)]
    if known:
        bands.append(("truth", style.TRUTH, 6))
    handles = [Line2D([], [], color=c, linewidth=w, label=name) for name, c, w in bands]
    if beside is not None:
        handles.append(Line2D([], [], label=beside, color="black", **DOTTED))
    return handles
