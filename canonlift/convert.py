r"""Make recordings, the one format that training reads, of what a detector wrote.

Examples:
    # Four cameras that stood still, filmed at 60 Hz; one folder of JSON files each:
    python -m canonlift.convert openpose cam01_json cam02_json cam03_json cam04_json \
        --fps 60 --rig balancing --out data/balancing.npz

    # Two hand-held phones (no --rig), body model given by hand:
    python -m canonlift.convert openpose phone_a/ phone_b/ --fps 30 --body BODY_25 --out ski.npz

`python -m canonlift.convert FORMAT --help` explains the options of a format.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from canonlift.data import openpose
from canonlift.data.recording import Recording, save


class Reader(NamedTuple):
    """One row of the formats: a subcommand."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]  # reads, writes, and prints what it read


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line; what is wrong with the input ends the program with status 2."""
    args = _parser().parse_args(argv)
    try:
        READERS[args.format].run(args)
    except (ValueError, OSError) as error:
        message = " ".join(str(error).split())  # one line, whatever was quoted
        print(f"convert {args.format}: error: {message}", file=sys.stderr)
        sys.exit(2)


def describe(recording: Recording) -> list[str]:
    """Say what a recording holds: its size, and per view what was seen how surely."""
    seconds = recording.n_frames / recording.fps
    lines = [
        f"{recording.n_frames} frames at {recording.fps:g} fps ({seconds:.1f} s), "
        f"{len(recording.views)} views, {len(recording.joints)} joints, "
        + (f"rig {recording.rig!r}: fixed cameras" if recording.rig else "cameras may move")
    ]
    for view, name in enumerate(recording.views):
        confidence = recording.confidence[:, view]
        seen = confidence[confidence > 0]
        span = f"{seen.min():.2f} to {seen.max():.2f}" if seen.size else "none"
        missed = 100 * (1 - seen.size / max(confidence.size, 1))
        lines.append(f"{name}: {missed:.1f} % of the joints unobserved, confidence {span}")
    return lines


def _add_cameras(parser: argparse.ArgumentParser, camera: str) -> None:
    """Arguments of every format that a detector writes camera by camera."""
    parser.add_argument("cameras", nargs="+", type=Path, metavar="CAMERA", help=camera)
    parser.add_argument(
        "--fps", type=float, required=True, help="frames per second, the same for all cameras"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="RECORDING.npz", help="file to write"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --out")
    parser.add_argument(
        "--rig",
        default="",
        metavar="NAME",
        help="say that these cameras never moved; recordings with the same name were filmed by "
        "the same fixed cameras (default: cameras may move)",
    )


def _add_openpose(parser: argparse.ArgumentParser) -> None:
    _add_cameras(parser, "folder of one camera's JSON files; it names the view")
    parser.add_argument(
        "--body",
        choices=tuple(openpose.BODIES),
        help="body model (default: recognised by the number and the places of the joints)",
    )


def _run_openpose(args: argparse.Namespace) -> None:
    _refuse_existing(args)
    recording, report = openpose.read(args.cameras, args.fps, args.body, args.rig)
    save(recording, args.out)
    print("\n".join([*describe(recording), *report, f"wrote {args.out}"]))


def _refuse_existing(args: argparse.Namespace) -> None:
    if args.out.exists() and not args.overwrite:
        raise ValueError(f"{args.out} exists; give another --out, or --overwrite to replace it")


# What `python -m canonlift.convert` reads. A new format is a new row.
READERS: Mapping[str, Reader] = {
    "openpose": Reader(
        "OpenPose JSON: one folder per camera, one file per frame, numbered at the end of its "
        "name. Frames are matched between cameras by number. Of several people, the track with "
        "the largest sum of confidences is kept.",
        _add_openpose,
        _run_openpose,
    ),
}


def _parser() -> argparse.ArgumentParser:
    summary, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m canonlift.convert",
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    for name, reader in READERS.items():
        row = formats.add_parser(name, help=reader.help.split(":")[0], description=reader.help)
        reader.add_arguments(row)
    return parser


if __name__ == "__main__":
    main()
