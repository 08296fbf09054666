"""The options of `canonlift convert` that describe cameras and detectors."""

import argparse
import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from canonlift.readers.datasets.table import Options as DataSetOptions
from canonlift.readers.detectors.joint_layouts import LAYOUTS
from canonlift.readers.detectors.scores import RULES
from canonlift.readers.detectors.to_recording import Options


def add(parser: argparse.ArgumentParser) -> None:
    """Options of every format that a detector writes camera by camera."""
    parser.add_argument(
        "cameras",
        nargs="+",
        metavar="CAMERA",
        help="one camera's results: a file, a folder, or a quoted glob; its name is the view's",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="RECORDING.npz", help="file to write"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --out")
    parser.add_argument(
        "--fps",
        type=float,
        nargs="+",
        default=[],
        help="frames per second, of all cameras or one for each (default: by the files' times)",
    )
    parser.add_argument(
        "--rig",
        default="",
        metavar="NAME",
        help="these cameras never moved; recordings with the same name were filmed by the same "
        "fixed cameras (default: cameras may move)",
    )
    parser.add_argument(
        "--person",
        nargs="+",
        default=["best"],
        metavar="CHOICE|CAM=CHOICE",
        help="who is kept of several: best (largest sum of confidences), largest, longest, or a "
        "track id, or several of one person with commas (default: best)",
    )
    _add_format(parser)
    _add_time(parser)


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--layout",
        metavar="NAME|FILE.yaml",
        help="the detector's joints: one of "
        f"{', '.join(LAYOUTS)}, or a YAML file of `names` and `combinations` (default: by the "
        "names in the file, or by the number of joints)",
    )
    parser.add_argument(
        "--image-size",
        type=_size,
        nargs="+",
        default=[],
        metavar="WIDTHxHEIGHT",
        help="of the videos, for all cameras or each; needed where coordinates lie in [0, 1]",
    )
    parser.add_argument(
        "--confidence",
        choices=tuple(RULES),
        help="what the scores are (default: by the detector and the numbers)",
    )


def _add_time(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--offset",
        type=_offset,
        nargs="+",
        default=[],
        metavar="CAM=SECONDS",
        help="how much later than the first camera this one started to film",
    )
    parser.add_argument(
        "--sync",
        choices=("auto",),
        help="find those offsets in the detections; refused where that is ambiguous",
    )
    parser.add_argument(
        "--no-resample",
        action="store_true",
        help="where cameras ran at different rates, take the nearest frame and mix none",
    )


def parse(args: argparse.Namespace) -> Options:
    """What the options ask of a reader of detections."""
    return Options(
        fps=tuple(args.fps),
        rig=args.rig,
        layout=args.layout,
        image_size=tuple(args.image_size),
        confidence=args.confidence,
        person=tuple(args.person),
        resample=not args.no_resample,
    )


def add_parameters(
    parser: argparse.ArgumentParser, read: Callable[..., Any], options: DataSetOptions
) -> None:
    """An option for each of some parameters of `read`, whose defaults it names."""
    for name, about in options.items():
        default = inspect.signature(read).parameters[name].default
        text = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text = f"{about['help']} (default: {text})" if default else about["help"]
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, default=argparse.SUPPRESS, **{**about, "help": text})


def _offset(text: str) -> tuple[str, float]:
    camera, _, seconds = text.rpartition("=")
    try:
        offset = float(seconds)
    except ValueError:
        offset = math.nan
    if not camera or not math.isfinite(offset):
        raise argparse.ArgumentTypeError(f"{text!r} is not CAM=SECONDS, as phone_b=1.25")
    return camera, offset


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,5})[xX]([1-9]\d{0,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, as 1280x720")
    return int(match[1]), int(match[2])
