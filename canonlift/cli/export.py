"""Write predictions as files of other programs; neither the model nor a new evaluation is needed.

Examples:
    canonlift export runs/demo/eval                                 # TRC and a page per recording
    canonlift export runs/demo/eval --formats trc,c3d --height 1.80
    canonlift export predictions.npz --formats csv --bone l_hip-l_knee=0.42 --out tables
    canonlift export runs/demo/eval --recording test_00 --filter butterworth:6

Each view gets a file of its own, and all views together get NAME-fused; html and rerun hold all
of a recording in one file. Positions are relative to the root joint, y up, in body units unless
--height or --bone give the size of the person.
"""

import argparse
from pathlib import Path

from canonlift.cli.prediction_options import add_source, chosen
from canonlift.output.export.exporter import Exporter
from canonlift.output.export.markers import FILTERS
from canonlift.output.export.table import FORMATS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `canonlift export`."""
    add_source(parser)
    parser.add_argument(
        "--formats", default="trc,html", help=f"of {','.join(FORMATS)} (default: trc,html)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: export/ beside the predictions"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--height", type=float, metavar="METRES", help="of the person")
    size.add_argument("--bone", metavar="A-B=METRES", help="such as l_hip-l_knee=0.42, measured")
    parser.add_argument(
        "--up",
        action="store_true",
        help="turn single views upright, too, by a vertical estimated from each; the fused "
        "sequence always is, and without this option views keep the axes of their cameras",
    )
    parser.add_argument(
        "--filter",
        metavar="NAME:NUMBER",
        help=f"smooth by {', '.join(FILTERS)}, such as butterworth:6 (Hz, without delay)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def run(args: argparse.Namespace) -> None:
    """Export, and print the notes on the numbers and where the files are."""
    exporter = Exporter.parse(args.formats, args.height, args.bone, args.up, args.filter)
    predictions = chosen(args)
    out = args.out or predictions.path.parent / "export"
    n_files = 0
    remedy = "give another --out, or --overwrite"
    for name, prediction in predictions.items():
        written = exporter.write(name, prediction, out, args.overwrite, remedy)
        for line in written.lines():
            print(line)
        n_files += len(written.paths)
    print(f"files: {n_files} in {out}")
