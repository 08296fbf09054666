"""The options of `canonlift export` and `canonlift view` that choose predictions."""

import argparse
from pathlib import Path

from canonlift.data.prediction import PredictionFile, read_predictions


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the file, and which of its recordings are wanted."""
    parser.add_argument(
        "predictions",
        type=Path,
        metavar="PREDICTIONS",
        help="predictions.npz that `canonlift eval` wrote, or its folder",
    )
    parser.add_argument("--recording", nargs="+", metavar="NAME", help="default: all in the file")


def chosen(args: argparse.Namespace) -> PredictionFile:
    """The predictions that are wanted."""
    file = read_predictions(args.predictions)
    return file.only(args.recording) if args.recording else file
