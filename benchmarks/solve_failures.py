"""What the solver does with recordings that it should not be given, and whether it says so.

Every case is one recording with one thing wrong or hard. Its errors stand beside those of the same
recording without that, triangulated by the true cameras, and beside what the solution says of
itself: trust, and the share of the detections of each view that it kept.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from benchmarks import films, rows, solve_scores
from benchmarks.films import FPS, generator
from benchmarks.solve_scores import Truth
from benchmarks.triangulation import triangulate
from canonlift.body.skeleton import H36M17, bones, mirrored
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.noise import smooth_noise
from canonlift.simulation.session import film_knowingly
from canonlift.solver.solve import solve

FILE = "solve_failures.jsonl"
SECONDS = 12.0
FOUR = CameraConfig(n_views=4, distance_m=(4.0, 6.0), fixed=True)
MOVING = CameraConfig(n_views=4, distance_m=(5.0, 9.0))
ACTIONS = ["run", "squat", "throw"]
WRONG_VIEW = 1  # the view that something is wrong with
# Mean errors of a good recording are 28 and 42 mm. In one view, what it shows may be wrong.
WRONG_MM, WRONG_IN_A_VIEW_MM = 56.0, 90.0
OUTSIDE = 0.75  # inliers of a view over those of the others, below which it is named by them


@dataclass(frozen=True)
class Case:
    """A recording, what is done to it, and what one should be told."""

    motion: Callable[[], Float[np.ndarray, "T J 3"]]
    cameras: CameraConfig = FOUR
    change: Callable[[Truth], Truth] = lambda truth: truth
    view: int | None = None  # that should be named
    expect: str = ""


def athlete(seconds: float = SECONDS) -> np.ndarray:
    """An athlete who runs, squats and throws."""
    draw = generator("failures", "athlete", 0)
    return perform(sample_person(draw), ACTIONS, round(seconds * FPS), FPS, draw)


def turned(axis: str, degrees: float) -> Callable[[], np.ndarray]:
    """The athlete turned as a whole, and put on the floor."""

    def motion() -> np.ndarray:
        pose = athlete()
        pose = pose - pose[:, :1] * [1.0, 0.0, 1.0]
        pose = pose @ Rotation.from_euler(axis, degrees, degrees=True).as_matrix().T
        pose[..., 1] += 0.1 - pose[..., 1].min()
        return pose

    return motion


def still() -> np.ndarray:
    """A minute of one pose, swaying by a centimetre."""
    one = athlete(2.0)[:1]
    draw = generator("failures", "still", 0)
    sway = smooth_noise(round(60 * FPS), (1, 3), 3 * FPS, draw)
    height = one[..., 1:2] / one[..., 1].max()
    return one + 0.01 * sway * height * [1.0, 0.0, 1.0]


def mirrored_video(views: Sequence[int]) -> Callable[[Truth], Truth]:
    """Videos of views that were flipped before the detector saw them, as selfie cameras do."""

    def change(truth: Truth) -> Truth:
        keypoints, confidence, swap = _copies(truth, mirrored(H36M17))
        for view in views:
            keypoints[:, view] = keypoints[:, view, swap]
            keypoints[:, view, :, 0] = truth.cameras.image_size[0] - keypoints[:, view, :, 0]
            confidence[:, view] = confidence[:, view, swap]
        return _with(truth, keypoints, confidence)

    return change


def rotated_phone(truth: Truth) -> Truth:
    """A view that was recorded upright and is stored lying on its side."""
    keypoints, confidence, _ = _copies(truth)
    width, height = truth.cameras.image_size
    x, y = np.moveaxis(keypoints[:, WRONG_VIEW].copy(), -1, 0)
    keypoints[:, WRONG_VIEW] = np.stack([height - y, x], -1)
    assert truth.recording.image_size is not None
    size = truth.recording.image_size.copy()
    size[WRONG_VIEW] = height, width
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    rotation = truth.cameras.rotation.copy()
    rotation[:, WRONG_VIEW] = quarter @ rotation[:, WRONG_VIEW]
    assert truth.recording.pose3d is not None
    pose, defined = truth.recording.pose3d.copy(), truth.defined.copy()
    for points in (pose, defined):
        points[:, WRONG_VIEW] = points[:, WRONG_VIEW] @ quarter.T
    recording = replace(
        truth.recording,
        keypoints=keypoints,
        confidence=confidence,
        pose3d=pose.astype(np.float32),
        image_size=size,
    )
    return truth._replace(
        recording=recording,
        cameras=replace(truth.cameras, rotation=rotation),
        defined=defined.astype(np.float32),
    )


def late(seconds: float) -> Callable[[Truth], Truth]:
    """A view that shows what happened so many seconds ago."""

    def change(truth: Truth) -> Truth:
        keypoints, confidence, _ = _copies(truth)
        ago = np.maximum(np.arange(len(keypoints)) - round(seconds * FPS), 0)
        keypoints[:, WRONG_VIEW] = keypoints[ago, WRONG_VIEW]
        confidence[:, WRONG_VIEW] = confidence[ago, WRONG_VIEW]
        return _with(truth, keypoints, confidence)

    return change


def other_person(truth: Truth) -> Truth:
    """For 3 seconds one view tracks somebody else, who does something else."""
    keypoints, confidence, _ = _copies(truth)
    some = slice(round(4 * FPS), round(7 * FPS))
    other = np.roll(keypoints, round(5 * FPS), axis=0)
    keypoints[some, WRONG_VIEW] = other[some, WRONG_VIEW] + [150.0, 0.0]
    confidence[some, WRONG_VIEW] = np.roll(confidence, round(5 * FPS), axis=0)[some, WRONG_VIEW]
    return _with(truth, keypoints, confidence)


def exchanged(truth: Truth) -> Truth:
    """A view whose detector calls left what the others call right."""
    keypoints, confidence, swap = _copies(truth, mirrored(H36M17))
    keypoints[:, WRONG_VIEW] = keypoints[:, WRONG_VIEW, swap]
    confidence[:, WRONG_VIEW] = confidence[:, WRONG_VIEW, swap]
    return _with(truth, keypoints, confidence)


def jumping_zoom(truth: Truth) -> Truth:
    """A fixed camera that zooms to another focal length every second."""
    draw = generator("failures", "zoom", 0)
    seconds = np.arange(truth.recording.n_frames) // round(FPS)
    factor = np.exp(draw.uniform(np.log(0.6), 0.0, seconds.max() + 1))[seconds]
    keypoints, confidence, _ = _copies(truth)
    middle = np.array(truth.cameras.image_size) / 2
    keypoints[:, WRONG_VIEW] = middle + factor[:, None, None] * (keypoints[:, WRONG_VIEW] - middle)
    focal = truth.cameras.focal_px.copy()
    focal[:, WRONG_VIEW] *= factor
    cameras = replace(truth.cameras, focal_px=focal)
    return _with(truth, keypoints, confidence)._replace(cameras=cameras)


_NARROW = (0.0, 5.0, 10.0, 15.0)
CASES: Mapping[str, Case] = {
    "good, fixed": Case(athlete),
    "good, moving": Case(athlete, MOVING),
    "two views 5° apart": Case(
        athlete,
        replace(FOUR, n_views=2, azimuths_deg=_NARROW[:2], azimuth_jitter_deg=0.0),
        expect="a warning: depth is not determined",
    ),
    "four views within 15°": Case(
        athlete, replace(FOUR, azimuths_deg=_NARROW, azimuth_jitter_deg=0.0), expect="the same"
    ),
    "two opposite views": Case(
        athlete,
        replace(FOUR, n_views=2, azimuths_deg=(0.0, 180.0), azimuth_jitter_deg=0.0),
        expect="the same",
    ),
    "two pairs of opposite views": Case(
        athlete,
        replace(FOUR, azimuths_deg=(0.0, 90.0, 180.0, 270.0), azimuth_jitter_deg=0.0),
        expect="a good result",
    ),
    "lying on the back": Case(turned("x", -90.0), expect="a good result"),
    "lying on the side": Case(turned("z", 90.0), expect="a good result"),
    "upside down": Case(turned("z", 180.0), expect="a good result"),
    "upside down, moving": Case(turned("z", 180.0), MOVING, expect="a good result"),
    "still for a minute": Case(still, expect="a good pose, unsure cameras"),
    "still for a minute, moving": Case(still, MOVING, expect="a good pose, unsure cameras"),
    "mirrored video, one view": Case(
        athlete, FOUR, mirrored_video([WRONG_VIEW]), WRONG_VIEW, "a warning: this view"
    ),
    "mirrored video, all views": Case(
        athlete, FOUR, mirrored_video(range(4)), None, "cannot be known: a mirrored world is one"
    ),
    "rotated phone": Case(athlete, FOUR, rotated_phone, None, "a good result"),
    "a view 1 s late": Case(athlete, FOUR, late(1.0), WRONG_VIEW, "a warning: this view"),
    "a view 0.1 s late": Case(athlete, FOUR, late(0.1), WRONG_VIEW, "a warning: this view"),
    "other person for 3 s": Case(
        athlete, FOUR, other_person, WRONG_VIEW, "a warning: this view, these seconds"
    ),
    "left and right exchanged": Case(
        athlete, FOUR, exchanged, WRONG_VIEW, "a warning: this view, or undone"
    ),
    "left and right exchanged, moving": Case(
        athlete, MOVING, exchanged, WRONG_VIEW, "a warning: this view, or undone"
    ),
    "focal length jumps": Case(athlete, FOUR, jumping_zoom, WRONG_VIEW, "a warning: this view"),
    "focal length jumps, moving": Case(
        athlete, replace(MOVING, zoom=False), jumping_zoom, None, "a good result"
    ),
}


def study(out: Path, results: Path, cases: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Solve every case, append rows, print them, and draw `OUT/solve_failures.png`."""
    out.mkdir(parents=True, exist_ok=True)
    found, drawings = [], []
    for name in cases or CASES:
        row, drawing = measure(name)
        row |= {"commit": rows.commit(), "machine": rows.machine()}
        rows.append(results / FILE, row)
        print(json.dumps(row), flush=True)
        found.append(row)
        drawings.append(drawing)
    print(table(found))
    draw(found, drawings, out / "solve_failures.png")
    return found


def tables(results: Path = rows.RESULTS) -> list[str]:
    """The last row of each case."""
    found = {row["case"]: row for row in rows.read(results / FILE)}
    return [table([found[name] for name in CASES if name in found])]


def measure(name: str) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The row of a case, and poses to draw: true and found, at three moments."""
    case = CASES[name]
    true = case.change(recorded(case))
    solution = solve(true.recording)
    own = solve_scores.errors(solution.in_camera, true.recording)
    clean = recorded(case)  # what the cameras would have seen, if nothing were wrong
    pose = clean.cameras.in_axes(triangulate(clean.recording, clean.cameras))
    bar = solve_scores.errors(pose, clean.recording)
    inlier = solution.inlier.sum((0, 2)) / (true.recording.confidence > 0).sum((0, 2))
    worst = int(inlier.argmin())
    row = {
        "case": name,
        "n_mpjpe_mm": float(np.nanmean(own.n_mpjpe)),
        "pa_mpjpe_mm": float(np.nanmean(own.pa_mpjpe)),
        "pa_bar_mm": float(np.nanmean(bar.pa_mpjpe)),
        "rotation_deg": float(
            np.median(solve_scores.relative_rotation_deg(solution.rotation, true.cameras.rotation))
        ),
        "focal_error": float(
            np.nanmedian(np.abs(np.log(solution.focal_px / true.cameras.focal_px)))
        ),
        "trust": float(np.nanmean(solution.trust)),
        "least_trust": float(np.nanquantile(solution.trust, 0.05)),
        "n_of_views": np.round(np.nanmean(own.n_mpjpe, 0), 1).tolist(),
        "inlier_of_views": np.round(inlier, 3).tolist(),
        "worst_view": worst,
        "stands_out": float(inlier[worst] / np.median(np.delete(inlier, worst))),
        "swapped": float(solution.swapped.mean()),
        "view": case.view,
        "expect": case.expect,
    }
    frames = np.linspace(0.2, 0.9, 3) * (true.recording.n_frames - 1)
    moments = np.round(frames).astype(int)
    assert true.recording.pose3d is not None
    view = case.view or 0
    pairs = [true.recording.pose3d[moments, view], solution.in_camera[moments, view]]
    return {k: float(f"{x:.4g}") if isinstance(x, float) else x for k, x in row.items()}, pairs


def recorded(case: Case) -> Truth:
    """The recording of a case before anything is done to it."""
    motion = films.centred(case.motion(), 0.4)
    draw = generator("failures", "film", 1)
    rig = "rig" if case.cameras.fixed else ""
    filmed = film_knowingly(motion, H36M17, FPS, case.cameras, DetectorConfig(), draw, rig)
    return Truth(filmed.recording, filmed.cameras, filmed.swapped, filmed.defined)


def verdict(row: Mapping[str, Any]) -> str:
    """Whether the result is good, and whether the solution tells."""
    wrong = [v for v, n in enumerate(row["n_of_views"]) if n > WRONG_IN_A_VIEW_MM]
    named = row["stands_out"] < OUTSIDE
    whole = row["pa_mpjpe_mm"] > WRONG_MM or len(wrong) > 1
    if not whole and not wrong:
        return f"good, names view {row['worst_view']}" if named else "good"
    what = "wrong" if whole else f"wrong in view {wrong[0]}"
    if row["trust"] < solve_scores.TRUSTED or (named and wrong == [row["worst_view"]]):
        return f"{what}, it tells"
    return f"{what.upper()}, SILENTLY"


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, one line per case."""
    heads = (
        "case", "N-MPJPE mm", "of the worst view", "PA-MPJPE mm", "of true cameras mm",
        "rotation °", "focal %", "trust", "trust of the worst 5 %", "inliers of views", "verdict",
    )  # fmt: skip
    lines = [list(heads), ["---"] + ["---:"] * 8 + ["---"] * 2]
    for row in found:
        lines.append(
            [
                row["case"],
                f"{row['n_mpjpe_mm']:.0f}",
                f"{max(row['n_of_views']):.0f}",
                f"{row['pa_mpjpe_mm']:.0f}",
                f"{row['pa_bar_mm']:.0f}",
                f"{row['rotation_deg']:.1f}",
                f"{100 * row['focal_error']:.0f}",
                f"{row['trust']:.2f}",
                f"{row['least_trust']:.2f}",
                " ".join(f"{x:.2f}" for x in row["inlier_of_views"]),
                verdict(row),
            ]
        )
    return rows.markdown(lines)


def draw(
    found: Sequence[Mapping[str, Any]], drawings: Sequence[list[np.ndarray]], path: Path
) -> None:
    """A sheet of all cases: the true body grey, the one found blue, from the front and above."""
    import matplotlib as mpl  # half a second, which the report need not wait

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    columns = 4
    n_rows = -(-len(found) // columns)
    figure, axes = plt.subplots(n_rows, columns, figsize=(16, 1.8 * n_rows), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, row, (true, ours) in zip(axes.flat, found, drawings, strict=False):
        axis.set_aspect("equal")
        for place, (one, other) in enumerate(zip(true, ours, strict=True)):
            one, other = one - one[:1], other - other[:1]
            fit = (one * other).sum() / max(np.square(other).sum(), 1e-12)
            for pose, colour, width in ((one, "0.6", 3.0), (fit * other, "C0", 1.3)):
                for across, down, x in ((0, 1, 3.0 * place), (2, 1, 3.0 * place + 1.4)):
                    for a, b in bones(H36M17):
                        ends = pose[[a, b]]
                        axis.plot(x + ends[:, across], -ends[:, down], color=colour, lw=width)
        state = verdict(row)
        axis.set_title(
            f"{row['case']}: {state}\nPA {row['pa_mpjpe_mm']:.0f} mm "
            f"({row['pa_bar_mm']:.0f} with true cameras), trust {row['trust']:.2f}",
            fontsize=9,
            color="C3" if "SILENTLY" in state else "black",
        )
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)


def _copies(truth: Truth, order: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray, list[int]]:
    recording = truth.recording
    return recording.keypoints.copy(), recording.confidence.copy(), list(order)


def _with(truth: Truth, keypoints: np.ndarray, confidence: np.ndarray) -> Truth:
    recording = replace(truth.recording, keypoints=keypoints, confidence=confidence)
    return truth._replace(recording=recording)
