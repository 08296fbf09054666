"""Predict recordings with a trained model, and score the predictions where the truth is known.

Examples:
    canonlift eval runs/demo                                  # the run's own test recordings
    canonlift eval runs/demo --recordings walk.npz            # any recording, one camera or many
    canonlift eval runs/demo --recordings 'day1/*.npz' --out results/day1
    canonlift eval runs/cvsf --group-by '_s[0-9]+_([A-Za-z]+)'    # Human3.6M, per action
    canonlift export runs/demo/eval                           # then, for other programs

Each view is lifted by itself. Where a frame has several views, unsure joints of one are repaired
by the others, and one sequence is made of all of them. DIR holds predictions.npz, results.json
and figures/. Recordings without ground truth get predictions and figures, but no errors.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from canonlift.data.frames import expand
from canonlift.data.prediction import FILE
from canonlift.evaluation import report as results_file
from canonlift.evaluation.evaluate import evaluate
from canonlift.evaluation.recordings import held_out, trained_on
from canonlift.evaluation.report import Results
from canonlift.inference.model import Model, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `canonlift eval`."""
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="folder that `canonlift train` wrote"
    )
    parser.add_argument(
        "--recordings", nargs="+", metavar="GLOB", help="default: the test recordings of the run"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: a new folder RUN/eval, RUN/eval-2, ..."
    )
    parser.add_argument(
        "--figures", type=int, default=1, metavar="N", help="recordings to draw (default: 1)"
    )
    parser.add_argument(
        "--group-by",
        metavar="REGEX",
        help="also report together the recordings in whose names it finds the same: its first "
        "group, or all of it",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto)")


def run(args: argparse.Namespace) -> None:
    """Evaluate, and print the errors and where everything is."""
    model = load(args.run, args.device)
    config = model.config
    paths = expand(args.recordings) if args.recordings else held_out(config, args.run)
    seen = {path.resolve() for path in trained_on(config, args.run)}
    if both := [str(path) for path in paths if path.resolve() in seen]:
        print(
            f"WARNING: the model was trained on {', '.join(both)}; errors on other recordings are "
            "larger"
        )
    out = args.out or _new_folder(args.run / "eval")
    report(model, paths, out, args.run, max(args.figures, 0), args.group_by)


def report(
    model: Model,
    paths: Sequence[Path],
    out: Path,
    run: Path,
    n_drawn: int = 1,
    group_by: str | None = None,
) -> Results:
    """Evaluate into `out`, where no results are, and print the errors and where everything is."""
    if (out / results_file.FILE).exists():
        raise FileExistsError(f"{out} already holds results; choose another --out")
    results = evaluate(model, paths, out, run, n_drawn, group_by)
    protocol = results["protocol"]
    print(
        f"\n{protocol['recordings']} recordings, {protocol['frames']} frames, up to "
        f"{protocol['views']} views, {protocol['unobserved']:.1%} of joints unobserved, "
        f"{protocol['poses']} single-view poses with known truth"
    )
    if not results.metrics:
        print("No ground truth, so no errors in mm.")
    if table := results.table():
        print(table)
    print(f"\nfigures      {out / 'figures'}")
    print(f"predictions  {out / FILE}")
    print(f"results      {out / results_file.FILE}")
    return results


def _new_folder(wanted: Path) -> Path:
    numbered = (wanted.with_name(f"{wanted.name}-{n}") for n in itertools.count(2))
    return next(folder for folder in itertools.chain([wanted], numbered) if not folder.exists())
