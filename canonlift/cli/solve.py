"""Solve recordings of two or more views: 3D, cameras and repaired joints, without a network.

Examples:
    canonlift solve walk.npz                                  # writes walk-solved/
    canonlift solve 'session/*.npz' --out results/session     # several, into one file
    canonlift solve walk.npz --focal-px 1500 1480             # known focal lengths, by view
    canonlift solve walk.npz --calibration Calib.toml         # known lenses (and places, if fixed)
    canonlift solve walk.npz --calibration-out Calib.toml --height 1.80   # calibrate fixed cameras
    canonlift view walk-solved                                # then look at it
    canonlift export walk-solved --height 1.80                # or take it to other programs

No calibration, no training, no 3D label. Cameras of a recording with a rig (`canonlift convert
--rig`) are fixed; others may move and zoom.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from canonlift.data import recording as recordings
from canonlift.data.frames import expand
from canonlift.data.prediction import FILE
from canonlift.data.solution import LIMBS, Solution, save_solutions
from canonlift.evaluation.recordings import unique_names
from canonlift.output.calibration import check_suffix, of_solution, write_calibration
from canonlift.output.export.markers import Size
from canonlift.readers.calibration import read_calibration
from canonlift.solver.solve import solve

GOOD = 0.6  # trust below which a frame is called doubtful
ODD = 0.7  # share of the usual fit below which a view is called odd


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `canonlift solve`."""
    parser.add_argument("recordings", nargs="+", metavar="RECORDING", help="files or globs")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: NAME-solved beside the first recording"
    )
    parser.add_argument(
        "--focal-px",
        type=float,
        nargs="+",
        metavar="PIXELS",
        help="focal length of each view, or one of all; default: estimated",
    )
    parser.add_argument(
        "--same-focal", action="store_true", help="the cameras are alike: one focal length"
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="known cameras: Calib.toml, OpenCV .yml, Qualisys .qca.txt",
    )
    parser.add_argument(
        "--calibration-out",
        type=Path,
        metavar="FILE",
        help="write fixed cameras to a .toml or .yml, in metres, z up, with --height or --bone",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--height", type=float, metavar="METRES", help="of the person")
    size.add_argument("--bone", metavar="A-B=METRES", help="such as l_hip-l_knee=0.42")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")


def run(args: argparse.Namespace) -> None:
    """Solve, write, and print what was found.

    Raises:
        FileExistsError: if the folder already holds predictions.
    """
    paths = expand(args.recordings)
    out = args.out or paths[0].with_name(f"{paths[0].stem}-solved")
    if (out / FILE).exists():
        raise FileExistsError(f"{out} already holds {FILE}; choose another --out")
    size = _size(args, len(paths))
    known = None if args.calibration is None else read_calibration(args.calibration)
    last: list[Solution] = []
    focal = args.focal_px[0] if args.focal_px and len(args.focal_px) == 1 else args.focal_px

    def solutions() -> Iterator[tuple[str, Solution]]:
        for name, path in zip(unique_names(paths), paths, strict=True):
            recording = recordings.load(path)
            try:
                solution = solve(
                    recording,
                    focal_px=focal,
                    same_focal=args.same_focal,
                    calibration=known,
                    device=args.device,
                )
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            print("\n".join(describe(name, solution)), flush=True)
            last[:] = [solution]
            yield name, solution

    save_solutions(solutions(), out / FILE)
    print(f"\nsolution     {out / FILE}")
    if size is not None:
        write_calibration(of_solution(last[0], size), args.calibration_out)
        print(f"calibration  {args.calibration_out}")
    print(f"\nNext:\n  canonlift view {out}\n  canonlift export {out} --help")


def _size(args: argparse.Namespace, n_recordings: int) -> Size | None:
    """The person's size if a calibration is to be written; refuses what cannot be, before all."""
    if args.calibration_out is None:
        if args.height is not None or args.bone is not None:
            raise ValueError("--height and --bone are for --calibration-out, or canonlift export")
        return None
    check_suffix(args.calibration_out)
    if n_recordings > 1:
        raise ValueError(f"--calibration-out is for one recording, not {n_recordings}")
    if args.calibration_out.exists():
        raise FileExistsError(f"{args.calibration_out} exists; choose another file")
    if args.height is not None:
        return Size.of_person(args.height)
    if args.bone is None:
        raise ValueError("--calibration-out needs metres: --height or --bone")
    return Size.of_bone(args.bone)


def describe(name: str, solution: Solution) -> list[str]:
    """What was found, as lines."""
    n_frames = len(solution.pose)
    cameras = (
        f"fixed cameras ({solution.recording.rig})" if solution.recording.rig else "cameras move"
    )
    lines = [
        f"{name}: {n_frames} frames at {solution.fps:g} fps, {len(solution.views)} views, "
        f"{len(solution.joints)} joints, {cameras}",
        f"  trust: {np.mean(solution.trust):.2f} on average; "
        f"{np.mean(solution.trust < GOOD):.1%} of the frames are doubtful (below {GOOD})",
    ]
    if solution.recording.rig and solution.position is None:
        lines.append(f"  where the cameras stand is unknown: {_why(solution)}")
    for v, view in enumerate(solution.views):
        confidence = solution.recording.confidence[:, v]
        if not (confidence > 0).any():
            lines.append(f"  {view}: nothing observed")
            continue
        gap = np.linalg.norm(
            solution.keypoints_refined[:, v] - solution.recording.keypoints[:, v], axis=-1
        )
        swaps = ", ".join(
            f"{limb} {solution.swapped[:, v, i].mean():.1%}"
            for i, limb in enumerate(LIMBS)
            if solution.swapped[:, v, i].any()
        )
        lines.append(
            f"  {view}: focal length {np.nanmedian(solution.focal_px[:, v]):.0f} px, distance "
            f"{np.nanmedian(solution.distance[:, v]):.2f} body units, joints moved by "
            f"{np.nanmedian(gap[confidence > 0]):.1f} px in the median"
            + (f"; left and right exchanged: {swaps}" if swaps else "")
        )
    return lines + _odd_views(solution)


def _odd_views(solution: Solution) -> list[str]:
    """A warning for each view whose detections fit far worse than those of the others."""
    seen = solution.recording.confidence > 0
    count = seen.sum((0, 2))
    kept = np.where(seen, solution.inlier, 0.0).sum((0, 2)) / np.maximum(count, 1)
    observing = count > 0
    if observing.sum() < 3:  # of two, nobody can tell which is wrong
        return []
    usual = np.median(kept[observing])
    return [
        f"  WARNING: {view} does not fit the other views ({kept[v]:.2f} of the weight of its "
        f"detections is left, {usual:.2f} in the median): does it start later, is it mirrored or "
        "of another person, or are its left and right joints exchanged?"
        for v, view in enumerate(solution.views)
        if observing[v] and kept[v] < ODD * usual
    ]


def _why(solution: Solution) -> str:
    if solution.recording.image_size is None:
        return "the recording has no image sizes"
    return (
        "focal lengths are not determined, by two views or a person who moves too little; give "
        "--focal-px, --calibration or, if three cameras are alike, --same-focal"
    )
