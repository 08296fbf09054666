"""The options of eval.py that are about exports."""

import argparse

from canonlift.output.export.markers import FILTERS, Filter, Size
from canonlift.output.export.writing import EXPORTS, Exporter


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them, as a group of their own."""
    group = parser.add_argument_group(
        "export", "what goes into DIR/export; predictions.npz stays as it is"
    )
    group.add_argument(
        "--export",
        metavar="FORMATS",
        help=f"any of {','.join(EXPORTS)}: a file for each view, and one for all views fused",
    )
    size = group.add_mutually_exclusive_group()
    size.add_argument(
        "--height",
        type=float,
        metavar="METRES",
        help="how tall the person is; without it or --bone, all lengths are in body units",
    )
    size.add_argument("--bone", metavar="A-B=METRES", help="such as l_hip-l_knee=0.42, measured")
    group.add_argument(
        "--up",
        action="store_true",
        help="turn single views upright, too, by a vertical estimated from each; the fused "
        "sequence always is, and without this option views keep the axes of their cameras",
    )
    group.add_argument(
        "--filter",
        metavar="NAME:NUMBER",
        help=f"smooth by {', '.join(FILTERS)}, such as butterworth:6 (Hz, without delay)",
    )


def parse_exporter(args: argparse.Namespace) -> Exporter | None:
    """What the options ask for; None: nothing.

    Raises:
        ValueError: if they make no sense.
    """
    if args.export is None:
        for option in ("height", "bone", "up", "filter"):
            if getattr(args, option):
                raise ValueError(f"--{option} is about exports; say which by --export trc,csv")
        return None
    size = Size.of_bone(args.bone) if args.bone else None
    if args.height is not None:
        size = Size.of_person(args.height)
    formats = tuple(dict.fromkeys(name.strip() for name in args.export.split(",")))
    return Exporter(formats, size, args.up, Filter.parse(args.filter) if args.filter else None)
