"""3D of uncalibrated cameras from all views together: methods, settings, speed, failures.

Examples:
    python -m benchmarks.solve run room                       # all methods on one setting
    python -m benchmarks.solve run ski --seeds 3 --methods solve
    python -m benchmarks.solve table                          # Markdown
    python -m benchmarks.solve speed                          # beside other programs
    python -m benchmarks.solve failures --out runs/failures   # what it does not survive

A seed is that of the cameras and of the detector's errors; nothing is trained. The rows of
`closed_form`, by which targets were made before, were measured by the commits that they name.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import films, rows, solve_scores
from benchmarks.rows import Row
from benchmarks.solve_scores import Found, Truth
from benchmarks.triangulation import triangulate
from canonlift.data.recording import load
from canonlift.data.solution import Solution
from canonlift.solver.solve import solve

FILE = "solve.jsonl"
FIGURES: Mapping[str, tuple[str, float, int]] = {  # heading, factor, digits
    "n_mpjpe_mm": ("N-MPJPE mm", 1, 1),
    "pa_mpjpe_mm": ("PA-MPJPE mm", 1, 1),
    "n_ratio": ("N / bar", 1, 2),
    "pa_ratio": ("PA / bar", 1, 2),
    "wrong_windows": ("wrong windows %", 100, 1),
    "trusted_wrong": ("wrong, trusted %", 100, 1),
    "trusted": ("trusted %", 100, 0),
    "rotation_deg": ("rotation °", 1, 2),
    "focal_error": ("focal %", 100, 1),
    "position_error": ("position %", 100, 1),
    "refined_over_detected": ("refined / detected", 1, 3),
    "spoilt": ("made worse %", 100, 2),
    "within_68": ("within 68 %", 100, 0),
    "within_95": ("within 95 %", 100, 0),
    "big_swaps_found": ("swaps found %", 100, 0),
    "false_swaps": ("false swaps %", 100, 3),
    "frames_per_second": ("frames/s of CPU time", 1, 0),
}

# -------------------------------------------------------------------------- methods


def triangulation(truth: Truth) -> Found:
    """All views together by the true cameras: the bar."""
    pose = truth.cameras.in_axes(triangulate(truth.recording, truth.cameras))
    return Found(pose, refined=truth.cameras.project(pose))


def solved(truth: Truth) -> Found:
    """The solver, which knows nothing of the cameras."""
    return of_solution(solve(truth.recording))


def of_solution(solution: Solution) -> Found:
    """What is compared of a solution."""
    turn = solution.rotation
    return Found(
        solution.in_camera,
        turn,
        solution.focal_px,
        solution.keypoints_refined,
        np.einsum("tvac,tjcd,tvbd->tvjab", turn, solution.covariance, turn),
        solution.trust,
        solution.swapped,
        solution.position,
    )


Method = Callable[[Truth], Found]
METHODS: Mapping[str, Method] = {
    "triangulation": triangulation,
    "solve": solved,
}

GONE = ("closed_form",)  # its rows are still shown

# ----------------------------------------------------------------------------- rows


def run(
    method: str,
    setting: str,
    seed: int,
    mocap: Path,
    work: Path,
    results: Path,
    verbose: bool = False,
) -> dict[str, Any]:
    """Append the row of a method on the test films of a setting."""
    commit = rows.commit()
    film = films.shoot(setting, mocap, work, films.ALL, seed, ("test",))
    clips, seconds, n_frames = {}, 0.0, 0
    for path in sorted((film / "test").glob("*.npz")):
        truth = truth_of(path)
        bar = solve_scores.errors(
            truth.cameras.in_axes(triangulate(truth.recording, truth.cameras)), truth.recording
        )
        start = time.process_time()
        found = METHODS[method](truth)
        seconds += time.process_time() - start
        n_frames += truth.recording.n_frames
        clips[path.stem] = solve_scores.figures(truth, found, bar)
    if verbose:
        print(*solve_scores.by_clip(clips), sep="\n")
    row = {"method": method, "setting": setting, "seed": seed}
    row |= solve_scores.summary(list(clips.values()))
    row |= {"frames_per_second": n_frames / seconds}
    row = {key: float(f"{x:.5g}") if isinstance(x, float) else x for key, x in row.items()}
    row |= {"commit": commit, "machine": rows.machine()}
    rows.append(results / FILE, row)
    return row


def truth_of(path: Path) -> Truth:
    """The recording of a film, and what the film knows of it."""
    aside = path.parents[1] / "cameras" / path.name
    with np.load(aside, allow_pickle=False) as file:
        return Truth(load(path), films.load_cameras(aside), file["swapped"], file["defined"])


# --------------------------------------------------------------------------- tables


def table(found: Sequence[Row]) -> str:
    """Markdown, one line per setting and method: mean over seeds, and their spread."""
    groups: dict[tuple[str, str], dict[int, Row]] = {}
    for row in found:
        groups.setdefault((row["setting"], row["method"]), {})[row["seed"]] = row | at(row)
    heads = ["setting", "method", *(heading for heading, _, _ in FIGURES.values()), "seeds"]
    lines = [heads, ["---"] * 2 + ["---:"] * (len(heads) - 2)]
    for setting in films.ALL:
        for method in (*METHODS, *GONE):
            if seeds := groups.get((setting, method)):
                lines.append([setting, method, *_cells(list(seeds.values())), str(len(seeds))])
    return rows.markdown(lines)


def _cells(seeds: Sequence[Row]) -> list[str]:
    cells = []
    for name, (_, factor, digits) in FIGURES.items():
        values = [row.get(name) for row in seeds]
        cells.append(rows.mean([None if x is None else factor * x for x in values], digits))
    return cells


def at(row: Row, threshold: float = solve_scores.TRUSTED) -> dict[str, float | None]:
    """Windows that trust calls good at a threshold, and wrong ones among all that it does."""
    for limit, good, wrong in row["trust"] or ():
        if limit == threshold:
            return {"trusted": good, "trusted_wrong": wrong}
    return {"trusted": None, "trusted_wrong": None}


def trust_table(found: Sequence[Row]) -> str:
    """Markdown: over the threshold, windows called good / wrong windows called good, %."""
    curves: dict[str, list[list[list[float]]]] = {}
    for row in found:
        if row["method"] == "solve" and row["trust"]:
            curves.setdefault(row["setting"], []).append(row["trust"])
    settings = [name for name in films.ALL if name in curves]
    lines = [["trust at least", *settings], ["---:"] * (1 + len(settings))]
    for index, threshold in enumerate(solve_scores.THRESHOLDS):
        cells = []
        for setting in settings:
            _, good, wrong = np.mean([curve[index] for curve in curves[setting]], axis=0)
            cells.append(f"{100 * good:.0f} / {100 * wrong:.1f}")
        lines.append([f"{threshold:g}", *cells])
    return rows.markdown(lines)


def tables(results: Path = rows.RESULTS) -> list[str]:
    """The figures of all rows, and the trust of the solver."""
    found = latest(rows.read(results / FILE))
    return [table(found), trust_table(found)]


def latest(found: Sequence[Row]) -> list[Row]:
    """The last row of each method, setting and seed."""
    return list({(row["method"], row["setting"], row["seed"]): row for row in found}.values())


# --------------------------------------------------------------------- command line


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="evaluate, and append rows")
    one.add_argument("setting", choices=(*films.ALL, "all"))
    one.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N - 1")
    one.add_argument("--methods", nargs="+", default=list(METHODS), choices=tuple(METHODS))
    one.add_argument("--verbose", action="store_true", help="a line for each clip as well")
    show = commands.add_parser("table", help="print the rows as Markdown")
    fail = commands.add_parser("failures", help="what the solver does with hard recordings")
    fail.add_argument("--out", type=Path, required=True, metavar="DIR")
    fail.add_argument("--cases", nargs="+", metavar="CASE", help="some of them")
    speed = commands.add_parser("speed", help="frames per second, growth, memory")
    speed.add_argument("--minutes", type=float, default=10.0, help="of the longest recording")
    speed.add_argument("--anipose", type=Path, metavar="PYTHON", help="one that has aniposelib")
    speed.add_argument("--parts", nargs="+", default=[], choices=("growth", "long", "anipose"))
    one.add_argument("--data", type=Path, default=films.MOCAP, metavar="NPZ")
    one.add_argument("--work", type=Path, default=rows.WORK, metavar="DIR")
    for command in (one, show, fail, speed):
        command.add_argument("--results", type=Path, default=rows.RESULTS, metavar="DIR")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Measure rows, or print them."""
    args = arguments().parse_args(argv)
    if args.command == "table":
        print(*tables(args.results), sep="\n\n")
    elif args.command == "failures":
        from benchmarks import solve_failures

        solve_failures.study(args.out, args.results, args.cases)
    elif args.command == "speed":
        from benchmarks import solve_speed

        solve_speed.study(args.minutes, args.anipose, args.results, args.parts)
        print(*solve_speed.tables(args.results), sep="\n\n")
    else:
        settings = list(films.ALL) if args.setting == "all" else [args.setting]
        for setting in settings:
            for seed in range(args.seeds):
                for method in args.methods:
                    given = args.data, args.work, args.results, args.verbose
                    print(json.dumps(run(method, setting, seed, *given)), flush=True)


if __name__ == "__main__":
    main()
