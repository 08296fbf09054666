"""Solve recordings of two or more views: 3D, cameras and repaired joints, without a network.

Examples:
    canonlift solve walk.npz                                  # writes walk-solved/
    canonlift solve 'session/*.npz' --out results/session     # several, into one file
    canonlift solve walk.npz --focal-px 1500 1480             # known focal lengths, by view
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
from canonlift.solver.solve import solve

GOOD = 0.5  # trust below which a frame is called doubtful


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
    focal = args.focal_px[0] if args.focal_px and len(args.focal_px) == 1 else args.focal_px

    def solutions() -> Iterator[tuple[str, Solution]]:
        for name, path in zip(unique_names(paths), paths, strict=True):
            recording = recordings.load(path)
            try:
                solution = solve(
                    recording, focal_px=focal, same_focal=args.same_focal, device=args.device
                )
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            print("\n".join(describe(name, solution)), flush=True)
            yield name, solution

    save_solutions(solutions(), out / FILE)
    print(f"\nsolution     {out / FILE}")
    print(f"\nNext:\n  canonlift view {out}\n  canonlift export {out} --help")


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
    return lines
