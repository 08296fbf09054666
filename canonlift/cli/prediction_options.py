"""The options of `canonlift export` and `canonlift view` that choose predictions."""

import argparse
from pathlib import Path

from canonlift.data.prediction import PredictionFile, read_predictions


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the options for the file and for the names of recordings in it."""
    parser.add_argument(
        "predictions",
        type=Path,
        metavar="PREDICTIONS",
        help="predictions.npz that `canonlift eval` wrote, or its folder",
    )
    parser.add_argument("--recording", nargs="+", metavar="NAME", help="default: all in the file")


def chosen(args: argparse.Namespace) -> PredictionFile:
    """The predictions that the options choose."""
    file = read_predictions(args.predictions)
    return file.only(args.recording) if args.recording else file
