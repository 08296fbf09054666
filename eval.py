"""Evaluate a trained lifter: 3D poses, repaired 2D joints, metrics where truth is known, pictures.

Examples:
    python eval.py runs/demo                                # the run's own test recordings
    python eval.py runs/demo --recordings take.npz          # any recording, one camera or many
    python eval.py runs/demo --recordings 'takes/*.npz' --out results/takes
    python eval.py runs/demo --recordings take.npz --export trc,csv --height 1.80
    python eval.py runs/cvsf --group-by '_s[0-9]+_([A-Za-z]+)'     # Human3.6M, per action

Each view is lifted by itself. Where a frame has several views, each repairs the others' unsure
joints, and one sequence is made of all of them together. Recordings without ground truth get
predictions and pictures, no table.
"""

import argparse
import glob
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canonlift.data.samples import expand
from canonlift.evaluation.evaluate import evaluate, table
from canonlift.output.export.options import add_export_arguments, parse_exporter
from canonlift.output.export.writing import Exporter, describe
from canonlift.training import checkpoint
from canonlift.training.checkpoint import Model


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that train.py wrote")
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
    add_export_arguments(parser)
    args = parser.parse_args()
    try:
        exporter = parse_exporter(args)
        model = checkpoint.load_model(args.run, args.device)
        paths = expand(args.recordings) if args.recordings else test_recordings(model, args.run)
        out = args.out or _free_folder(args.run / "eval")
        seen = {path.resolve() for path in training_recordings(model, args.run)}
        if both := [str(path) for path in paths if path.resolve() in seen]:
            print(f"WARNING: training has seen {', '.join(both)}; these errors mean little")
        report(model, paths, out, args.run, max(args.figures, 0), args.group_by, exporter)
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        sys.exit(f"eval.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def report(
    model: Model,
    paths: Sequence[Path],
    out: Path,
    run: Path,
    n_drawn: int = 1,
    group_by: str | None = None,
    exporter: Exporter | None = None,
) -> dict[str, Any]:
    """Evaluate into `out`, print the table, and say where everything is.

    Raises:
        FileExistsError: if `out` already holds results.
    """
    if (out / "results.json").exists():
        raise FileExistsError(f"{out} already holds results; choose another --out")
    results = evaluate(model, paths, out, run, n_drawn, group_by, exporter)
    protocol = results["protocol"]
    print(
        f"\n{protocol['recordings']} recordings, {protocol['frames']} frames, up to "
        f"{protocol['views']} views, {protocol['unobserved']:.1%} of joints unobserved, "
        f"{protocol['poses']} single-view poses with known truth"
    )
    if "metrics" not in results:
        print("No ground truth, so no errors in mm.")
    if lines := table(results):
        print(lines)
    if exporter:
        print("\n" + "\n".join(describe(results["export"])))
    print(f"\npictures  {out / 'figures'}")
    print(f"poses     {out / 'predictions.npz'}")
    print(f"results   {out / 'results.json'}")
    if exporter:
        print(f"exports   {out / 'export'}")
    return results


def test_recordings(model: Model, run: Path) -> list[Path]:
    """The recordings that the run's config sets aside for evaluation.

    Raises:
        FileNotFoundError: if there are none.
    """
    data = model.config.data
    if data.simulate is not None and data.simulate.n_test:
        return expand([f"{glob.escape(str(run))}/session/test_*.npz"])
    if not data.test:
        raise FileNotFoundError(f"{run} set no test recordings aside; give --recordings")
    return expand(data.test)


def training_recordings(model: Model, run: Path) -> list[Path]:
    """The recordings that the run was trained on, as far as they are still there."""
    data = model.config.data
    if data.simulate is not None:
        return sorted((run / "session").glob("train_*.npz"))
    return [Path(path) for pattern in data.train for path in glob.glob(pattern, recursive=True)]


def _free_folder(wanted: Path) -> Path:
    numbered = (wanted.with_name(f"{wanted.name}-{n}") for n in itertools.count(2))
    return next(folder for folder in itertools.chain([wanted], numbered) if not folder.exists())


if __name__ == "__main__":
    main()
