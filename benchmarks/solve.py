"""Solving without training or calibration, beside triangulation with the true cameras.

Examples:
    python -m benchmarks.solve run ski --seeds 0          # about half a minute
    python -m benchmarks.solve all                        # every row that is missing
    python -m benchmarks.solve table                      # Markdown
    python -m benchmarks.solve speed                      # frames/s, growth with views and joints

The films are those of `benchmarks.films`, of real motion capture; a seed is that of cameras and
detector. Poses are made of all views together and compared in the axes of every camera, all
frames of the test clips. `triangulation` is robust least squares with the true cameras of the same
detections, which is what is left of the error when calibration is perfect. `desk` shows nothing
below the thorax: its errors are of the joints above, relative to the thorax.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from benchmarks import films, measure, rows
from benchmarks.films import FPS, SETTINGS, UNTRAINED, UPPER, Setting
from benchmarks.triangulation import triangulate
from canonlift import metrics
from canonlift.body.skeleton import H36M17, mirrored
from canonlift.data.frames import read_one
from canonlift.data.recording import Recording
from canonlift.data.solution import LIMBS, Solution
from canonlift.geometry.alignment import align_similarity
from canonlift.simulation.cameras import Cameras
from canonlift.solver.joints import PARTS
from canonlift.solver.solve import solve

FILE = "solve.jsonl"
ALL: Mapping[str, Setting] = {**SETTINGS, **UNTRAINED}
SEEDS = (0, 1, 2)
WINDOW = round(2 * FPS)  # frames over which a solution is called right or wrong
WRONG = 2.0  # PA-MPJPE of a window over that of the true cameras, above which it is wrong
TRUSTED = 0.5
NEAR, WORSE = 0.02, 0.03  # of the person's size: detected well, and made worse by repair
APART = 0.05  # of the person's size: left and right limbs that can be told apart
COLUMNS = {
    "n_mpjpe_mm": ("N-MPJPE mm", 1), "pa_mpjpe_mm": ("PA-MPJPE mm", 1),
    "n_ratio": ("N / true cameras", 2), "pa_ratio": ("PA / true cameras", 2),
    "wrong_trusted": ("wrong but trusted %", 2), "rotation_deg": ("rotation °", 1),
    "focal": ("focal length %", 0), "position": ("position %", 1),
    "refined_over_detected": ("refined / detected", 3),
    "made_worse": ("made worse %", 2), "within_68": ("in 68 % interval", 0),
    "within_95": ("in 95 %", 0), "swaps_found": ("swaps undone %", 0),
    "swaps_false": ("false %", 2),
}  # fmt: skip


class Clip(NamedTuple):
    """A clip, what is known of it, and its errors with the true cameras."""

    recording: Recording
    cameras: Cameras
    triangulated: Float[np.ndarray, "T V J 3"]  # in camera axes


def clips(setting: str, seed: int, mocap: Path, work: Path) -> list[Clip]:
    """The test clips of a setting, filmed if need be."""
    name = f"{setting}+{seed}" if seed else setting
    chosen = ALL[setting]._replace(
        film=f"{ALL[setting].film or setting}{f'+{seed}' if seed else ''}"
    )
    folder = films.shoot(name, mocap, work, {name: chosen})
    found = []
    for path in sorted((folder / "test").glob("*.npz")):
        recording = read_one(path, H36M17)
        cameras = films.load_cameras(folder / "cameras" / path.name)
        seen = cameras.in_axes(triangulate(recording, cameras)).astype(np.float32)
        found.append(Clip(recording, cameras, seen))
    return found


def row(setting: str, seed: int, mocap: Path, work: Path) -> dict[str, Any]:
    """Solve the clips of a setting, and compare."""
    parts: list[dict[str, np.ndarray]] = []
    spent, n_frames = 0.0, 0
    for clip in clips(setting, seed, mocap, work):
        start = time.perf_counter()
        solution = solve(clip.recording)
        spent, n_frames = spent + time.perf_counter() - start, n_frames + len(solution.pose)
        parts.append(compare(clip, solution, ALL[setting].upper_body))
    whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return summary(whole) | {
        "setting": setting,
        "seed": seed,
        "frames_per_second": n_frames / spent,
        "machine": measure.machine("cpu"),
    }


def compare(clip: Clip, solution: Solution, upper: bool) -> dict[str, np.ndarray]:
    """Errors of a clip: of poses by frame, of joints and cameras by observation."""
    recording, cameras = clip.recording, clip.cameras
    joints = np.flatnonzero(UPPER) if upper else np.arange(len(H36M17))
    root = H36M17[joints[0]] if not upper else "thorax"
    home = [H36M17[j] for j in joints].index(root)
    truth = _tensor(recording.pose3d)[:, :, joints]
    n, pa = _by_frame(_tensor(solution.in_camera)[:, :, joints], truth, home)
    n_true, pa_true = _by_frame(_tensor(clip.triangulated)[:, :, joints], truth, home)
    seen = recording.confidence > 0
    found = {"n": n, "pa": pa, "n_true": n_true, "pa_true": pa_true, "trust": solution.trust}
    found |= _windows(pa, pa_true, solution.trust) | _cameras(solution, cameras)
    return (
        found
        | _joints_2d(clip, solution, seen)
        | _coverage(clip, solution, joints, home)
        | _swaps(recording, solution)
    )


def _tensor(array: np.ndarray | None) -> Tensor:
    assert array is not None  # films have their truth
    return torch.from_numpy(np.asarray(array, np.float32))


def _by_frame(
    pose: Float[Tensor, "T V J 3"], truth: Float[Tensor, "T V J 3"], root: int
) -> tuple[np.ndarray, np.ndarray]:
    """N-MPJPE and PA-MPJPE of each frame, in mm, over all views."""
    errors = metrics.joint_errors(pose.flatten(0, 1), truth.flatten(0, 1), root)
    shape = truth.shape[:3]
    return tuple(
        1000 * error.reshape(shape).flatten(1).nanmean(1).numpy()
        for error in (errors.n_mpjpe, errors.pa_mpjpe)
    )  # pyright: ignore[reportReturnType]


def _windows(pa: np.ndarray, pa_true: np.ndarray, trust: np.ndarray) -> dict[str, np.ndarray]:
    edges = np.arange(0, len(pa), WINDOW)

    def mean(values: np.ndarray) -> np.ndarray:
        known = np.isfinite(values)
        total = np.add.reduceat(np.where(known, values, 0.0), edges)
        return total / np.maximum(np.add.reduceat(known.astype(float), edges), 1)

    return {"wrong": mean(pa) > WRONG * mean(pa_true), "window_trust": mean(trust)}


def _cameras(solution: Solution, cameras: Cameras) -> dict[str, np.ndarray]:
    """Angles between the relative rotations of two views and the true ones; focal lengths."""
    found, true = (x.astype(np.float64) for x in (solution.rotation, cameras.rotation))
    between = [np.einsum("tvab,tcb->tvac", x[:, 1:], x[:, 0]) for x in (found, true)]
    trace = np.einsum("tvac,tvac->tv", *between)
    angle = np.rad2deg(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    focal = np.abs(solution.focal_px / cameras.focal_px - 1)
    return {
        "rotation": angle.ravel(),
        "focal": focal.ravel(),
        "position": _positions(solution, cameras),
    }


def _positions(solution: Solution, cameras: Cameras) -> np.ndarray:
    """How far fixed cameras are off, over their distance; after the best similarity."""
    found, true = solution.position, cameras.position[0]
    if not solution.recording.rig or len(true) < 3:  # two always fit
        return np.zeros(0)
    if found is None:
        return np.full(len(true), np.nan)
    move = align_similarity(_tensor(found)[None], _tensor(true)[None])
    gap = np.linalg.norm(move(_tensor(found)[None])[0].numpy() - true, axis=-1)
    assert solution.recording.pose3d is not None  # films have their truth
    distance = np.nanmedian(solution.recording.pose3d[:, :, 0, 2], axis=0)
    return gap / distance


def _joints_2d(
    clip: Clip, solution: Solution, seen: Bool[np.ndarray, "T V J"]
) -> dict[str, np.ndarray]:
    recording = clip.recording
    true = recording.keypoints_true
    assert true is not None  # films have their truth
    size = np.broadcast_to((true.max(2) - true.min(2)).max(-1)[..., None], seen.shape)
    exact = clip.cameras.project(clip.triangulated)
    detected, refined, best = (
        np.linalg.norm(x - true, axis=-1)[seen]
        for x in (recording.keypoints, solution.keypoints_refined, exact)
    )
    near = detected < NEAR * size[seen]
    return {
        "detected_px": detected,
        "refined_px": refined,
        "best_px": best,
        "near": near,
        "worse": near & (refined > WORSE * size[seen]),
    }


def _coverage(
    clip: Clip, solution: Solution, joints: np.ndarray, home: int
) -> dict[str, np.ndarray]:
    """Errors of coordinates over their standard deviation, after the best similarity per frame."""
    turn = _tensor(clip.cameras.rotation.astype(np.float32))[:, 0]
    truth = _tensor(clip.recording.pose3d)[:, 0, joints] @ turn  # in the world's axes
    pose = _tensor(solution.pose)[:, joints]
    known = (pose.isfinite().all(-1) & truth.isfinite().all(-1)).all(-1)
    pose, truth = pose[known], truth[known]
    move = align_similarity(pose, truth)
    gap = move(pose) - truth
    factor = (move(pose) - move(pose)[:, :1]).norm(dim=(1, 2)) / (pose - pose[:, :1]).norm(
        dim=(1, 2)
    )
    covariance = _tensor(solution.covariance)[known][:, joints]
    turned = torch.einsum("tab,tjbc,tdc->tjad", move.rotation, covariance, move.rotation)
    deviation = factor[:, None, None] * turned.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    others = [i for i in range(len(joints)) if i != home]
    return {"score": (gap.abs() / deviation.clamp_min(1e-9))[:, others].flatten().numpy()}


def _swaps(recording: Recording, solution: Solution) -> dict[str, np.ndarray]:
    """Limbs whose labels were exchanged and that are apart; those found; and false ones."""
    true, keypoints = recording.keypoints_true, recording.keypoints
    assert true is not None  # films have their truth
    partner = list(mirrored(H36M17))
    size = (true.max(2) - true.min(2)).max(-1)
    parts = []
    for index, limb in enumerate(LIMBS):
        own = [
            i
            for i, name in enumerate(H36M17)
            if name[:2] in ("l_", "r_") and name[2:] in PARTS[limb]
        ]
        other = [partner[i] for i in own]
        apart = np.linalg.norm(true[:, :, own] - true[:, :, other], axis=-1).mean(-1)
        as_named, exchanged = (
            np.linalg.norm(keypoints[:, :, some] - true[:, :, own], axis=-1).mean(-1)
            for some in (own, other)
        )
        is_swapped = (exchanged < 0.5 * as_named) & (apart > APART * size)
        found = solution.swapped[..., index]
        parts.append((is_swapped, is_swapped & found, found & ~(exchanged < as_named)))
    names = ("swapped", "swap_found", "swap_false")
    return {
        name: np.stack(x).ravel() for name, x in zip(names, zip(*parts, strict=True), strict=True)
    }


def summary(whole: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The figures of a row."""
    mean = {key: float(np.nanmean(whole[key])) for key in ("n", "pa", "n_true", "pa_true")}
    trusted = whole["wrong"] & (whole["window_trust"] >= TRUSTED)
    n_swapped = int(whole["swapped"].sum())
    return {
        "n_mpjpe_mm": mean["n"],
        "pa_mpjpe_mm": mean["pa"],
        "true_cameras_n_mpjpe_mm": mean["n_true"],
        "true_cameras_pa_mpjpe_mm": mean["pa_true"],
        "n_ratio": mean["n"] / mean["n_true"],
        "pa_ratio": mean["pa"] / mean["pa_true"],
        "wrong": 100 * float(whole["wrong"].mean()),
        "wrong_trusted": 100 * float(trusted.mean()),
        "rotation_deg": float(np.nanmedian(whole["rotation"])),
        "focal": 100 * float(np.nanmedian(whole["focal"])),
        "position": 100 * float(np.nanmedian(whole["position"]))
        if whole["position"].size
        else None,
        "unplaced": 100 * float(np.isnan(whole["position"]).mean())
        if whole["position"].size
        else None,
        "refined_over_detected": float(whole["refined_px"].mean() / whole["detected_px"].mean()),
        "best_over_detected": float(whole["best_px"].mean() / whole["detected_px"].mean()),
        "made_worse": 100 * float(whole["worse"].sum() / max(whole["near"].sum(), 1)),
        "within_68": 100 * float((whole["score"] < 1).mean()),
        "within_95": 100 * float((whole["score"] < 1.96).mean()),
        "swaps": n_swapped,
        "swaps_found": 100 * float(whole["swap_found"].sum()) / n_swapped if n_swapped else None,
        "swaps_false": 100 * float(whole["swap_false"].mean()),
    }


def table(results: Path = rows.RESULTS) -> str:
    """A line for every setting: mean and standard deviation over seeds, in Markdown."""
    known = rows.read(results / FILE)
    lines = [["setting", *(title for title, _ in COLUMNS.values())]]
    lines.append(["---"] + ["---:"] * len(COLUMNS))
    for setting in ALL:
        own = [r for r in known if r["setting"] == setting]
        if own:
            cells = [
                rows.mean([r[key] for r in own], digits) for key, (_, digits) in COLUMNS.items()
            ]
            lines.append([setting, *cells])
    return rows.markdown(lines)


def speed(rounds: int, threads: int) -> dict[str, Any]:
    """Frames per second of a long recording, and growth with views and joints."""
    torch.set_num_threads(threads)
    made = {(v, j): _long(v, j) for v, j in ((4, 17), (2, 17), (8, 17), (4, 133))}
    jobs: dict[Any, Callable[[], Any]] = {
        key: (lambda recording=recording: solve(recording)) for key, recording in made.items()
    }
    jobs["rig"] = lambda: solve(replace(made[4, 17], rig="rig"))
    taken = measure.in_turns(jobs, rounds)
    n_frames = len(made[4, 17].keypoints)
    print(f"{n_frames} frames at {FPS:g} fps, {threads} threads\n")
    for key, seconds in taken.items():
        print(f"{key}: {n_frames / seconds:,.0f} frames/s")
    return {str(key): n_frames / seconds for key, seconds in taken.items()}


def _long(n_views: int, n_joints: int, n_frames: int = 3000) -> Recording:
    """A simulated recording; joints beyond the skeleton's are copies, a little apart."""
    from canonlift.simulation.cameras import CameraConfig  # noqa: PLC0415
    from canonlift.simulation.session import SimulateConfig, session  # noqa: PLC0415

    config = SimulateConfig(
        n_train=1, n_test=0, n_frames=n_frames, fps=FPS, cameras=CameraConfig(n_views=n_views)
    )
    ((_, recording),) = session(config)
    more = n_joints - len(H36M17)
    if more <= 0:
        return recording
    copies = np.arange(more) % len(H36M17)
    shift = np.random.default_rng(0).normal(0, 5, (more, 2)).astype(np.float32)
    return Recording(
        np.concatenate([recording.keypoints, recording.keypoints[:, :, copies] + shift], 2),
        np.concatenate([recording.confidence, recording.confidence[:, :, copies]], 2),
        (*H36M17, *(f"point_{i}" for i in range(more))),
        recording.views,
        FPS,
        image_size=recording.image_size,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="measure a setting")
    one.add_argument("setting", choices=tuple(ALL))
    every = commands.add_parser("all", help="measure every row that is missing")
    for command in (one, every):
        command.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
        command.add_argument("--data", type=Path, default=films.MOCAP, help="motion capture")
        command.add_argument("--work", type=Path, default=rows.WORK)
        command.add_argument("--results", type=Path, default=rows.RESULTS)
    shown = commands.add_parser("table", help="Markdown")
    shown.add_argument("--results", type=Path, default=rows.RESULTS)
    timed = commands.add_parser("speed", help="frames per second")
    timed.add_argument("--rounds", type=int, default=3)
    timed.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(argv)
    if args.command == "table":
        print(table(args.results))
    elif args.command == "speed":
        speed(args.rounds, args.threads)
    else:
        wanted = [args.setting] if args.command == "run" else list(ALL)
        known = {(r["setting"], r["seed"]) for r in rows.read(args.results / FILE)}
        for setting in wanted:
            for seed in args.seeds:
                if (setting, seed) in known and args.command == "all":
                    continue
                made = row(setting, seed, args.data, args.work)
                rows.append(args.results / FILE, made)
                errors = f"N {made['n_mpjpe_mm']:.1f} PA {made['pa_mpjpe_mm']:.1f} mm"
                print(f"{setting}, seed {seed}: {errors}", flush=True)


if __name__ == "__main__":
    main()
