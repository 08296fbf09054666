"""Pictures of what was repaired, lifted and learned; a colour means the same in all of them.

Left limbs are blue, right limbs vermilion, the middle of the body dark grey; what was repaired
is green, and the truth a wide light band (palette: Okabe and Ito, which colour-blind readers can
tell apart). Every function writes one PNG, whole or not at all, and returns its path.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from canonlift import files, metrics
from canonlift.body.skeleton import ROOT, bones
from canonlift.data.prediction import Prediction
from canonlift.data.recording import Recording
from canonlift.methods.fusion import FusionConfig, Maps, exact_peaks
from canonlift.methods.terms import MEASURES
from canonlift.readers.health import Health
from canonlift.readers.synchronise import Synchrony

LEFT, RIGHT, MIDDLE, REFINED, TRUTH = "#0072B2", "#D55E00", "#4D4D4D", "#009E73", "#D4D4D4"
INK, PALE, RULE = "#262626", "#6A6A6A", "#BDBDBD"
CURVES = (INK, "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
HEAT = LinearSegmentedColormap.from_list(
    "heat", [(0, "#FFFFFF"), (0.15, "#EBC7DA"), (0.55, "#CC79A7"), (1, "#4A1F38")]
)
WIDTH, DPI = 9.0, 180  # inches across; a README shows an inch as 100 pixels
SMALL, NORMAL, LARGE = 8.0, 9.0, 11.0  # points
PORTRAIT = 1.25  # height over width of a panel that shows a person

# In units of the person's size: what is more than rounding, and what deserves an arrowhead.
SMALLEST_MOVE, FAR_MOVE = 1e-3, 0.04

SECONDS = 8.0  # of a take that the picture of its motion shows
HANDS = ("l_wrist", "r_wrist")

FROM_HEAD_TO_FEET = (
    "head nose thorax l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist spine pelvis "
    "l_hip r_hip l_knee r_knee l_ankle r_ankle".split()
)
_TITLE = {"loc": "left", "fontsize": NORMAL, "parse_math": False}
_LEGEND = {"frameon": False, "fontsize": NORMAL, "handlelength": 1.8}
_BELOW = _LEGEND | {"loc": "outside lower center", "ncols": 8}


class Notable(NamedTuple):
    """A view worth looking at."""

    frame: int
    view: int
    why: str  # a title


class _Side(NamedTuple):
    """A direction to look at a pose from: which axes it shows, and which way is away."""

    name: str
    plane: tuple[int, int]  # axes to the right, and up or down
    up: int  # -1: the second axis points down
    away: tuple[int, int, int]


# Each is a turn of the camera and none a mirror: right = down x away.
_SIDES = (
    _Side("as the camera sees it", (0, 1), -1, (0, 0, 1)),
    _Side("from the camera's right", (2, 1), -1, (-1, 0, 0)),
    _Side("from above", (0, 2), 1, (0, 1, 0)),
)
_AXES = ("x", "y", "depth z")


class _Repair(NamedTuple):
    """Detected and repaired joints side by side; NaN where there is none."""

    detected: Float[np.ndarray, "*views J 2"]
    refined: Float[np.ndarray, "*views J 2"]
    size: Float[np.ndarray, "*views"]  # longer side of the person's box, pixels
    moved: Bool[np.ndarray, "*views J"]
    placed: Bool[np.ndarray, "*views J"]  # repaired without having been observed

    def errors(self, truth: Float[np.ndarray, "*views J 2"]) -> list[Float[np.ndarray, "*views"]]:
        """Mean 2D error before and after, over the same joints: those detected."""
        gaps = (np.linalg.norm(p - truth, axis=-1) for p in (self.detected, self.refined))
        return [_mean(np.where(np.isnan(self.detected[..., 0]), np.nan, gap)) for gap in gaps]


class _Measure(NamedTuple):
    """A number per view by which views are ranked, and what to say of one of them."""

    rank: Float[np.ndarray, "T V"]  # NaN: not ranked
    text: str
    values: tuple[Float[np.ndarray, "T V"], ...]

    def pick(self, quantile: float, name: str, views: Sequence[str]) -> dict[str, Notable]:
        """The view at a quantile of the ranking, under its name; nothing if none is ranked."""
        n_ranked = int(np.isfinite(self.rank).sum())
        if n_ranked == 0:
            return {}
        place = self.rank.argsort(axis=None, kind="stable")[round(quantile * (n_ranked - 1))]
        at = frame, view = tuple(map(int, np.unravel_index(place, self.rank.shape)))
        values = (value[at] for value in self.values)
        text = self.text.format(*values, name=name.replace("_", " ").capitalize(), n=n_ranked)
        return {name: Notable(frame, view, f"{text} ({_short(views[view])}, frame {frame})")}


def notable_frames(recording: Recording, prediction: Prediction) -> dict[str, Notable]:
    """The `most_repaired` view of a recording, and the `median` and the `worst` of all views.

    Most repaired: the largest decrease of the mean 2D error in units of the person's size, or
    without truth the largest mean movement; absent where nothing was moved. Median and worst:
    by PA-MPJPE, without `pose3d` by the repaired 2D error, and without any truth by how badly
    the lifted pose fits the repaired joints; absent where nothing was lifted.
    """
    repair = _compare(recording, prediction)
    gain, badness = _gain(recording, repair), _badness(recording, prediction, repair)
    views = recording.views
    return (
        gain.pick(1.0, "most_repaired", views)
        | badness.pick(0.5, "median", views)
        | badness.pick(1.0, "worst", views)
    )


def _compare(recording: Recording, prediction: Prediction, frames: slice = slice(None)) -> _Repair:
    observed = recording.confidence[frames] > 0
    raw, refined = recording.keypoints[frames], prediction.keypoints_refined[frames]
    # What stands at an unobserved joint means nothing, unless the repair has put it there.
    placed = ~observed & np.isfinite(refined).all(-1) & ~np.isclose(refined, raw).all(-1)
    detected = np.where(observed[..., None], raw, np.nan)
    refined = np.where((observed | placed)[..., None], refined, np.nan)
    both = np.concatenate([detected, refined], axis=2)
    size = (np.fmax.reduce(both, axis=2) - np.fmin.reduce(both, axis=2)).max(-1)
    size = np.where(size > 0, size, np.nan)
    moved = np.linalg.norm(refined - detected, axis=-1) > SMALLEST_MOVE * size[..., None]
    return _Repair(detected, refined, size, moved, placed)


def _gain(recording: Recording, repair: _Repair) -> _Measure:
    share = np.where(repair.moved.any(-1), 1 / repair.size, np.nan)
    truth = recording.keypoints_true
    if truth is None or np.isnan(truth).all():
        move = _mean(np.linalg.norm(repair.refined - repair.detected, axis=-1))
        return _Measure(share * move, "{name} view: joints moved by {:.0f} px on average", (move,))
    before, after = repair.errors(truth)
    text = "{name} view: mean 2D error {:.0f} → {:.0f} px"
    return _Measure(share * (before - after), text, (before, after))


def _badness(recording: Recording, prediction: Prediction, repair: _Repair) -> _Measure:
    prefix = "{name} of {n:,} views: "
    if recording.pose3d is not None and np.isfinite(recording.pose3d).any():
        pose, truth = (
            torch.from_numpy(p.astype(np.float64)).flatten(0, 1)
            for p in (prediction.pose, 1000 * recording.pose3d)
        )
        errors = metrics.joint_errors(pose, truth, _root(recording.joints))
        error = errors.pa_mpjpe.nanmean(-1).numpy().reshape(repair.size.shape)
        return _Measure(error, prefix + "PA-MPJPE {:.0f} mm", (error,))
    truth = recording.keypoints_true
    if truth is not None and np.isfinite(truth).any():
        error = repair.errors(truth)[1]
        return _Measure(error / repair.size, prefix + "mean 2D error {:.0f} px", (error,))
    known = np.isfinite(prediction.pose[..., :2] + repair.refined)
    seen, refined = (
        np.where(known, p, np.nan) - _mean(np.where(known, p, np.nan), axis=-2)[..., None, :]
        for p in (prediction.pose[..., :2], repair.refined)
    )
    error = _mean(np.linalg.norm(_scaled(seen, refined) - refined, axis=-1))
    text = prefix + "lifted pose {:.0f} px off the joints"
    return _Measure(error / repair.size, text, (error,))


def _scaled(
    source: Float[np.ndarray, "*batch J D"], target: Float[np.ndarray, "*batch J D"]
) -> Float[np.ndarray, "*batch J D"]:
    """`source` times the factor, at least 0, that is best in least squares; NaN do not count."""
    both = np.where(np.isnan(target), np.nan, source)
    product = np.nansum(both * target, axis=(-2, -1), keepdims=True)
    square = np.nansum(both * both, axis=(-2, -1), keepdims=True)
    return source * np.maximum(product, 0.0) / np.maximum(square, 1e-24)


def _mean(values: Float[np.ndarray, "..."], axis: int = -1) -> Float[np.ndarray, "..."]:
    """Mean of the values that are known; NaN where none is."""
    count = np.isfinite(values).sum(axis)
    return np.where(count > 0, np.nansum(values, axis) / np.maximum(count, 1), np.nan)


def _root(joints: Sequence[str]) -> int:
    return joints.index(ROOT) if ROOT in joints else 0


def _or_nan(array: np.ndarray | None, like: np.ndarray) -> np.ndarray:
    return np.full_like(like, np.nan) if array is None else array


def refinement(
    recording: Recording, prediction: Prediction, frame: int, title: str, path: Path
) -> Path:
    """Every view of one frame: what was detected, and an arrow to where a joint was moved.

    Both must be on the same joints. What was detected is as opaque as it is confident.
    """
    repair = _Repair(*(p[0] for p in _compare(recording, prediction, slice(frame, frame + 1))))
    truth = _or_nan(recording.keypoints_true, recording.keypoints)[frame]
    before, after = repair.errors(truth)
    n_views = len(recording.views)
    n_columns = n_views if n_views <= 4 else (n_views + 1) // 2
    figure, panels = _panels(n_views, n_columns, title)
    for view, axes in enumerate(panels):
        detected, refined = repair.detected[view], repair.refined[view]
        _crop(axes, np.concatenate([detected, refined, truth[view]]))
        _band(axes, truth[view], recording.joints)
        _body(axes, detected, recording.joints, recording.confidence[frame, view])
        _repairs(axes, _Repair(*(part[view] for part in repair)), recording.joints)
        axes.set_title(_short(recording.views[view]), **_TITLE)
        if np.isfinite(before[view]):
            text = f"error {before[view]:.0f} → {after[view]:.0f} px"
            axes.set_title(text, loc="right", fontsize=SMALL, color=PALE)
        if not np.isfinite(detected).any():
            axes.text(0.5, 0.5, "not observed", transform=axes.transAxes, ha="center", color=PALE)
        axes.set_xlabel("x (px)" if view + n_columns >= n_views else "")
        axes.set_ylabel("y (px)" if view % n_columns == 0 else "")
    changed = bool((repair.moved | repair.placed).any())
    _legend(figure, truth=bool(np.isfinite(truth).any()), refined=changed)
    return save(figure, path)


def poses(
    recording: Recording, prediction: Prediction, frame: int, view: int, title: str, path: Path
) -> Path:
    """What one view detected, and the pose lifted from it alone, from three sides.

    The truth, where known, lies behind it; root and scale of the pose are fitted to the truth.
    """
    joints, confidence = recording.joints, recording.confidence[frame, view]
    pose = prediction.pose[frame, view]
    truth = _or_nan(recording.pose3d, prediction.pose)[frame, view]
    root = _root(joints)
    known = bool(np.isfinite(truth[root]).all())
    figure, (image, *panels) = _panels(1 + len(_SIDES), 1 + len(_SIDES), title)
    detected = np.where(confidence[:, None] > 0, recording.keypoints[frame, view], np.nan)
    _crop(image, detected)
    _body(image, detected, joints, confidence)
    image.set_title(f"detected in {_short(recording.views[view])}", **_TITLE)
    image.set(xlabel="x (px)", ylabel="y (px)")

    if known:
        truth = truth - truth[root]
        pose = _scaled(pose - pose[root], truth)
    unit = "m" if known else "body units"
    both = np.concatenate([pose, truth])
    half = max(_half_height(both[:, side.plane]) for side in _SIDES)
    for axes, side in zip(panels, _SIDES, strict=True):
        _crop(axes, both[:, side.plane], half, side.up)
        _band(axes, truth[:, side.plane], joints)
        _body(axes, pose[:, side.plane], joints, away=pose @ np.array(side.away))
        axes.set_title(side.name, **_TITLE)
        right, up = (f"{_AXES[axis]} ({unit})" for axis in side.plane)
        axes.set(xlabel=right, ylabel=up)
    _legend(figure, truth=known)
    return save(figure, path)


def motion(
    recording: Recording,
    prediction: Prediction,
    frame: int,
    view: int,
    title: str,
    path: Path,
    beside: tuple[str, Prediction] | None = None,
) -> Path:
    """Depth and acceleration of the hands, as lifted from one view, in seconds around a frame.

    The truth, where known, lies behind them; one scale is fitted to it for the whole take. What
    shakes from frame to frame shows in the acceleration, however small the error of the pose is.
    `beside` is a name and what another model says, dotted.
    """
    root, joints = _root(recording.joints), recording.joints
    frames = slice(max(0, frame - round(SECONDS / 2 * recording.fps)), None)
    frames = slice(frames.start, frames.start + max(3, round(SECONDS * recording.fps)))
    truth = _or_nan(recording.pose3d, prediction.pose)[:, view]
    truth = truth - truth[:, root : root + 1]
    known = bool(np.isfinite(truth).any())

    def fitted(said: Prediction) -> np.ndarray:
        pose = said.pose[:, view] - said.pose[:, view, root : root + 1]
        flat = _scaled(pose.reshape(1, -1, 3), truth.reshape(1, -1, 3)) if known else pose
        return flat.reshape(pose.shape)

    pose = fitted(prediction)
    unit = "m" if known else "body units"
    figure = _figure((WIDTH, 4.2), title)
    panels = [_plain(axes) for axes in figure.subplots(2, 1, sharex=True)]
    for joint in (name for name in HANDS if name in joints):
        colour = _colour(joint)
        drawn = [
            (truth, {"color": TRUTH, "linewidth": 5}),
            (pose, {"color": colour, "linewidth": 1.6}),
        ]
        if beside is not None:
            dotted = {"color": colour, "linewidth": 1.0, "linestyle": (0, (1, 1.2)), "alpha": 0.8}
            drawn.append((fitted(beside[1]), dotted))
        for points, style in drawn:
            path_of = points[:, joints.index(joint)]
            steps = np.diff(path_of, n=2, axis=0, prepend=path_of[:1], append=path_of[-1:])
            rate = np.linalg.norm(steps, axis=-1) * recording.fps**2
            rate[[0, -1]] = np.nan  # there is no frame before, or after
            seconds = np.arange(len(points))[frames] / recording.fps
            for axes, values in zip(panels, (path_of[:, 2], rate), strict=True):
                axes.plot(seconds, values[frames], **style, zorder=1 if points is truth else 2)
    panels[0].set_ylabel(f"depth of the hands ({unit})")
    panels[1].set(ylabel=f"acceleration ({unit}/s²)", xlabel="time (s)")
    panels[1].set_ylim(0)
    bands = [("left", LEFT, 2), ("right", RIGHT, 2), *([("truth", TRUTH, 6)] if known else [])]
    handles = [Line2D([], [], color=c, linewidth=w, label=name) for name, c, w in bands]
    if beside is not None:
        style = {"color": "black", "linewidth": 1.0, "linestyle": (0, (1, 1.2))}
        handles.append(Line2D([], [], label=beside[0], **style))
    figure.legend(handles=handles, **_BELOW)
    return save(figure, path)


def fusion(
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
    """How one joint was repaired: its own map, each epipolar line, their sum and its peak.

    Parts of height 0 do not count and are left out.

    Args:
        maps: of the one joint.
        config: of the maps.
        views: names of all views.
        title: of the picture.
        path: where to write it.
        joints: names of the joints of `body`.
        body: the whole detection, in units of the maps; NaN where unobserved.
        truth: where the joint really is, in units of the maps.
        repaired: where it was put, if not at the peak.

    Raises:
        ValueError: if the maps are not of one joint.
    """
    if len(maps.joint) != 1:
        raise ValueError(f"a picture shows one joint, but these are the maps of {len(maps.joint)}")
    maps = Maps(*(part.detach().cpu() for part in tuple(maps)))
    parts = _parts(maps, views)
    n_columns = (len(parts) + 1) // 2
    width = min(WIDTH, 2.2 * (n_columns + 2.4))
    figure = _figure((width, 2.2 * width / (n_columns + 2.6) + 1.05), title)
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
        _body(total, body, joints, np.full(len(joints), 0.4))
    detected = maps.joint[0] if maps.joint_height > 0 else None
    for name, point, style in (
        ("detected", detected, {"marker": "o", "mfc": INK, "mec": INK, "markersize": 6}),
        ("truth", truth, {"marker": "X", "mfc": TRUTH, "mec": INK}),
        ("peak", peak[0], {"marker": "o", "mfc": "none", "mec": REFINED, "mew": 2.5}),
        ("repaired", repaired, {"marker": "+", "mec": REFINED, "mew": 2.5, "markersize": 12}),
    ):
        if point is not None:
            style = {"markersize": 9, "linestyle": "none"} | style
            total.plot(*point, label=name, zorder=5, **style)
    figure.legend(**_BELOW)
    return save(figure, path)


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
            parts.append((_short(views[source]), height, alone))
    return parts


def losses(rows: Sequence[Mapping[str, Any]], path: Path, title: str = "Losses") -> Path:
    """The total and each term over the steps, and where the phases switch.

    Rows are as `csv.DictReader` reads them from metrics.csv; an empty value is not drawn. Over
    more than 100 values of a phase, their running mean is what catches the eye.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError(f"{path}: there are no losses to draw; train until the first is logged")
    figure = _figure((WIDTH, 3.6), title)
    axes = _plain(figure.subplots())
    phases = [list(group) for _, group in groupby(rows, key=lambda row: row["phase"])]
    no_terms = ("step", "phase", "loss", "learning_rate", "seconds", *MEASURES)
    handles = []
    for index, name in enumerate(["loss", *(name for name in rows[0] if name not in no_terms)]):
        style = {"color": CURVES[index % len(CURVES)], "linewidth": 1.3 if index else 2.2}
        label = name.replace("_", " ") if index else "total"
        handles.append(Line2D([], [], label=label, **style))
        for phase in phases:
            drawn = [row for row in phase if row[name] != ""]
            step, value = (np.array([float(row[k]) for row in drawn]) for k in ("step", name))
            if len(value) > 100:
                axes.plot(step, value, **style | {"linewidth": 0.5, "alpha": 0.3})
                value = _running_mean(value, len(value) // 25)
            axes.plot(step, value, marker="." if len(value) == 1 else "", gid=name, **style)
    for index, phase in enumerate(phases):
        start = float(phase[0]["step"])
        if index:
            axes.axvline(start, color=RULE, linewidth=1.0, linestyle=(0, (3, 3)), zorder=0)
        place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes.annotate(phase[0]["phase"], (start, 1.0), (4, 3), fontsize=NORMAL, **place)
    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="y", color="#EBEBEB", linewidth=0.6)
    axes.margins(x=0.01)
    axes.set(xlabel="optimisation step", ylabel="loss (terms before weighting)")
    figure.legend(handles=handles, loc="outside right center", **_LEGEND)
    return save(figure, path)


def joint_errors(
    per_joint: Mapping[str, float],
    path: Path,
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    title: str = "Error per joint",
) -> Path:
    """Error of each joint in millimetres, from head to feet, and a tick for each baseline's."""
    order = {name: place for place, name in enumerate(FROM_HEAD_TO_FEET)}
    names = sorted(per_joint, key=lambda name: order.get(name, len(order)))
    errors, rows = np.array([per_joint[name] for name in names]), range(len(names))
    figure = _figure((0.8 * WIDTH, 1.2 + 0.23 * len(names)), title)
    axes = _plain(figure.subplots())
    bars = axes.barh(rows, errors, height=0.72, color=[_colour(name) for name in names])
    readable = errors > 0.05 * np.fmax.reduce(errors, initial=0.0)
    numbers = [f"{e:.0f}" if r else "" for e, r in zip(errors, readable, strict=True)]
    # Sits inside the bar: beside it, the ticks of the baselines would cross it out.
    axes.bar_label(bars, numbers, label_type="edge", padding=-17, color="white", fontsize=SMALL)
    for (name, values), color in zip((baselines or {}).items(), (INK, "#CC79A7"), strict=False):
        ticks = [values.get(joint, np.nan) for joint in names]
        label = f"{name.replace('_', ' ')} (baseline)"
        axes.scatter(ticks, rows, s=110, marker="|", color=color, linewidths=2, label=label)
    axes.set_yticks(rows, [spoken(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0)
    axes.set_xlabel("error (mm)")
    axes.tick_params(axis="y", length=0, labelsize=NORMAL, labelcolor=INK)
    if baselines:
        figure.legend(**_BELOW)
    return save(figure, path)


def synchronisation(found: Synchrony, path: Path, title: str = "When the views started") -> Path:
    """How much motion each view has in common with the others, over when it started.

    A thin line per other view, a thick one for their mean, and a mark at what was found; a second
    peak as high as the first is what makes an offset ambiguous.
    """
    others = range(1, len(found.views))
    n_rows = max(1, len(others))
    figure = _figure((WIDTH, 0.9 + 1.25 * n_rows), title)
    grid = figure.subplots(n_rows, 1, squeeze=False, sharex=True, sharey=True).ravel().tolist()
    for view, axes in zip(others, grid, strict=False):
        _plain(axes)
        rows = []
        for (a, b), curve in zip(found.pairs, found.curves, strict=True):
            if view in (a, b):
                late = curve if view == b else curve[::-1]
                lag_s = found.lag_s - found.offset_s[a if view == b else b]
                rows.append(np.interp(lag_s, found.lag_s, late, np.nan, np.nan))
        axes.plot(found.lag_s, np.transpose(rows), color=RULE, linewidth=0.5)
        axes.plot(found.lag_s, _mean(np.array(rows), axis=0), color=INK, linewidth=1.2)
        offset, error = found.offset_s[view], found.error_s[view]
        axes.axvline(offset, color=RIGHT if found.ambiguous else REFINED, linewidth=1.2)
        axes.set_title(_short(found.views[view]), **_TITLE)
        text = f"{offset:+.3f} s ± {max(1000 * error, 1):.0f} ms"
        axes.set_title(text, loc="right", fontsize=SMALL, color=PALE)
        axes.set_ylim(0)
        axes.margins(x=0)
    sure = "AMBIGUOUS, " if found.ambiguous else ""
    grid[-1].set_xlabel(
        f"seconds later than {_short(found.views[0])} ({sure}confidence {found.confidence:.2f})"
    )
    figure.supylabel("share of motion in common", fontsize=SMALL, color=PALE)
    return save(figure, path)


def health(report: Health, path: Path, title: str = "Health of the recording") -> Path:
    """What is unobserved, swapped and frozen over time; which joints are lost or restless."""
    n_views, n_joints = report.unobserved.shape
    names = [_short(view) for view in report.views]
    row = 0.22 * n_views
    figure = _figure((WIDTH, 2.4 + 3 * row + 0.6), title)
    over_time, lost, restless = figure.subplots(3, 1)
    seconds = max(len(report.seen) / report.fps, 1e-9)
    span = (0.0, seconds, n_views - 0.5, -0.5)
    style = {"aspect": "auto", "cmap": HEAT, "vmin": 0.0, "interpolation": "nearest"}
    over_time.imshow(1 - report.seen.T, extent=span, vmax=1.0, **style)
    for events, colour, label in (
        (report.swapped, RIGHT, "left and right exchanged"),
        (report.frozen, LEFT, "frozen"),
    ):
        frame, view = np.nonzero(events)
        over_time.barh(view, 1 / report.fps, left=frame / report.fps, height=0.8, color=colour)
        over_time.plot([], [], color=colour, linewidth=3, label=label)
    over_time.plot([], [], color=HEAT(0.7), linewidth=3, label="unobserved")
    over_time.set(xlim=span[:2], ylim=span[2:], xlabel="seconds")
    tables = (
        (lost, 100 * report.unobserved, "share unobserved (%)", 100.0),
        (restless, 100 * report.jitter, "jitter (% of the body's size)", 5.0),
    )
    for axes, table, name, most in tables:
        axes.imshow(table, vmax=most, **style)
        axes.set_title(name, **_TITLE)
        axes.set_xticks([])
        for view, joint in np.argwhere(np.isfinite(table)) if n_joints <= 40 else ():
            value = table[view, joint]
            ink = "white" if value > 0.6 * most else INK
            text = f"{value:.0f}" if most > 50 else f"{value:.1f}"
            axes.text(joint, view, text, ha="center", va="center", fontsize=6, color=ink)
    labels = [spoken(joint) for joint in report.joints]
    restless.set_xticks(range(n_joints), labels, rotation=90)
    for axes in (over_time, lost, restless):
        _plain(axes).set_yticks(range(n_views), names)
        axes.tick_params(axis="both", length=0)
    over_time.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, **_LEGEND)
    return save(figure, path)


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG, whole or not at all; the same bytes for the same figure."""
    options = {"format": "png", "facecolor": "white", "metadata": {"Software": None}}
    files.write(path, lambda file: figure.savefig(file, **options))
    return path


def spoken(joint: str) -> str:
    """A joint's name as one would say it: `l_knee` is the left knee."""
    side = {"l_": "left ", "r_": "right "}.get(joint[:2])
    return side + joint[2:] if side else joint


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:7]}…{name[-8:]}"


def _figure(size: tuple[float, float], title: str) -> Figure:
    figure = Figure(figsize=size, dpi=DPI, layout="compressed")
    figure.suptitle(title, x=0.01, ha="left", fontsize=LARGE, weight="bold", parse_math=False)
    return figure


def _panels(n_panels: int, n_columns: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with room for `n_panels` portraits."""
    n_rows = -(-n_panels // n_columns)
    width = min(WIDTH / n_columns, 3.4)
    height = n_rows * (PORTRAIT * (width - 0.5) + 0.5) + 0.8
    figure = _figure((max(width * n_columns, 7.0), height), title)
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel().tolist()
    for axes in grid[n_panels:]:
        axes.remove()
    return figure, [_plain(axes) for axes in grid[:n_panels]]


def _plain(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(which="both", labelsize=SMALL, color=RULE, labelcolor=PALE)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(size=SMALL, color=PALE)
    return axes


def _half_height(points: Float[np.ndarray, "N 2"]) -> float:
    """Half the height of the portrait that holds all points, with a margin."""
    width, height = np.fmax.reduce(points) - np.fmin.reduce(points)
    half = 0.55 * np.fmax(height, width * PORTRAIT)
    return float(half) if half > 0 else 1.0  # also for NaN: nothing to show


def _crop(
    axes: Axes, points: Float[np.ndarray, "N 2"], half: float | None = None, up: int = -1
) -> None:
    """Show the points, both axes in one scale; `up` -1 lets the second grow downwards."""
    half = _half_height(points) if half is None else half
    middle = (np.fmax.reduce(points) + np.fmin.reduce(points)) / 2
    x, y = np.where(np.isnan(middle), 0.0, middle)
    axes.set_xlim(x - half / PORTRAIT, x + half / PORTRAIT)
    axes.set_ylim(y - up * half, y + up * half)
    axes.set_aspect("equal")
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _colour(joint: str) -> str:
    return {"l_": LEFT, "r_": RIGHT}.get(joint[:2], MIDDLE)


def _bones(
    axes: Axes,
    points: Float[np.ndarray, "J 2"],
    pairs: Sequence[tuple[int, int]],
    **style: Any,
) -> None:
    lines = points[np.array(pairs, dtype=int).reshape(-1, 2)]
    axes.add_collection(LineCollection(lines, capstyle="round", **style), autolim=False)


def _known_bones(points: Float[np.ndarray, "J 2"], joints: Sequence[str]) -> list[tuple[int, int]]:
    return [pair for pair in bones(joints) if np.isfinite(points[list(pair)]).all()]


def _band(axes: Axes, truth: Float[np.ndarray, "J 2"], joints: Sequence[str]) -> None:
    pairs = _known_bones(truth, joints)
    _bones(axes, truth, pairs, colors=TRUTH, linewidths=6, zorder=1, gid="truth")


def _body(
    axes: Axes,
    points: Float[np.ndarray, "J 2"],
    joints: Sequence[str],
    opacity: Float[np.ndarray, " J"] | None = None,
    away: Float[np.ndarray, " J"] | None = None,
) -> None:
    """Joints and bones in the colours of their side; what is further `away` lies behind."""
    opacity = np.ones(len(joints)) if opacity is None else 0.15 + 0.85 * opacity
    pairs = _known_bones(points, joints)
    if away is not None:
        pairs.sort(key=lambda pair: -away[list(pair)].sum())
    colours = [to_rgba(_colour(joints[b]), opacity[[a, b]].min()) for a, b in pairs]
    _bones(axes, points, pairs, colors=colours, linewidths=2.0, zorder=2, gid="bones")
    seen = np.flatnonzero(np.isfinite(points).all(-1))
    colours = [to_rgba(_colour(joints[joint]), opacity[joint]) for joint in seen]
    axes.scatter(*points[seen].T, s=14, color=colours, linewidths=0, zorder=3, gid="joints")


def _repairs(axes: Axes, repair: _Repair, joints: Sequence[str]) -> None:
    """A ring at every joint that was moved or placed, and an arrow to it from where it was."""
    move = np.linalg.norm(repair.refined - repair.detected, axis=-1)
    far = repair.placed | (repair.moved & (move > FAR_MOVE * repair.size))
    pairs = [p for p in _known_bones(repair.refined, joints) if far[list(p)].any()]
    dashes = (0, (4, 2))
    _bones(axes, repair.refined, pairs, colors=REFINED, linewidths=1, linestyles=[dashes])
    for joint in np.flatnonzero(repair.moved):
        ends = tuple(repair.detected[joint]), tuple(repair.refined[joint])
        # An arrowhead on a move that is shorter than itself would point anywhere.
        head = {"arrowstyle": "-|>", "shrinkB": 2.5} if far[joint] else {"arrowstyle": "-"}
        style = {"mutation_scale": 7, "color": REFINED, "linewidth": 1.4, "shrinkA": 0}
        axes.add_patch(FancyArrowPatch(*ends, zorder=4, **style, **head))
    rings = repair.refined[repair.moved | repair.placed]
    style = {"facecolors": "white", "edgecolors": REFINED, "linewidths": 1.3}
    axes.scatter(*rings.T, s=16, zorder=5, gid="refined", **style)


def _heat(
    axes: Axes, maps: Maps, config: FusionConfig, darkest: float, name: str, height: float
) -> None:
    """Draw Eq. 2 finely; the repair itself looks at `config.resolution` cells a side."""
    n, extent = 240, config.extent
    edges = torch.linspace(-extent, extent, n + 1, dtype=maps.joint.dtype)
    centres = (edges[1:] + edges[:-1]) / 2
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    value = maps.at(torch.stack([x, y], dim=-1).reshape(1, n * n, 2), config)
    style = {"cmap": HEAT, "vmin": 0.0, "vmax": darkest, "interpolation": "bilinear"}
    axes.imshow(value.reshape(n, n).numpy(), extent=(-extent, extent, extent, -extent), **style)
    _plain(axes).spines[:].set(visible=True, color=RULE)
    axes.set_title(name, **_TITLE)
    axes.set_title(f"max {height:.2f}", loc="right", fontsize=SMALL, color=PALE)


def _running_mean(values: Float[np.ndarray, " N"], n: int) -> Float[np.ndarray, " N"]:
    """Mean over a window of n values, which is cut off at the ends."""
    window = np.ones(n)
    count = np.convolve(np.ones_like(values), window, mode="same")
    return np.convolve(values, window, mode="same") / count


def _legend(figure: Figure, truth: bool, refined: bool = False) -> None:
    style = {"linewidth": 2, "marker": "o", "markersize": 4}
    sides = {"left": LEFT, "right": RIGHT, "middle": MIDDLE}
    handles = [Line2D([], [], color=color, label=side, **style) for side, color in sides.items()]
    handles.append(Line2D([], [], color=to_rgba(MIDDLE, 0.3), label="faint: unsure", **style))
    if refined:
        ring = style | {"linewidth": 1.4, "mfc": "white", "mew": 1.3}
        handles.append(Line2D([], [], color=REFINED, label="repaired", **ring))
    if truth:
        handles.append(
            Line2D([], [], color=TRUTH, linewidth=6, solid_capstyle="butt", label="truth")
        )
    figure.legend(handles=handles, **_BELOW)
