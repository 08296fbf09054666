"""The options of `canonlift convert` that describe cameras and detectors."""

import argparse
import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from canonlift.readers.datasets.table import Options as Parameters
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
    add_parameters(parser, Options, OPTIONS)
    parser.add_argument(
        "--no-resample",
        action="store_false",
        dest="resample",
        help="where cameras ran at different rates, take the nearest frame and mix none",
    )
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


def parse(args: argparse.Namespace) -> Options:
    """What the options ask of a reader of detections."""
    return Options(resample=args.resample, **parameters(args, OPTIONS))


def add_parameters(
    parser: argparse.ArgumentParser, function: Callable[..., Any], options: Parameters
) -> None:
    """An option for each of some parameters of `function`, whose defaults it names."""
    for name, about in options.items():
        default = inspect.signature(function).parameters[name].default
        text = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text = f"{about['help']} (default: {text})" if default else about["help"]
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, default=argparse.SUPPRESS, **{**about, "help": text})


def parameters(args: argparse.Namespace, options: Parameters) -> dict[str, Any]:
    """Those of the options that were given."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(args).items()
        if name in options
    }


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


# Fields of `Options`, as argparse takes them
OPTIONS: Parameters = {
    "fps": {
        "type": float,
        "nargs": "+",
        "help": "frames per second, of all cameras or one for each (default: by the files' times)",
    },
    "rig": {
        "metavar": "NAME",
        "help": "these cameras never moved; recordings with the same name were filmed by the same "
        "fixed cameras (default: cameras may move)",
    },
    "person": {
        "nargs": "+",
        "metavar": "CHOICE|CAM=CHOICE",
        "help": "who is kept of several: best (largest sum of confidences), largest, longest, or "
        "a track id, or several of one person with commas",
    },
    "layout": {
        "metavar": "NAME|FILE.yaml",
        "help": f"the detector's joints: one of {', '.join(LAYOUTS)}, or a YAML file of `names` "
        "and `combinations` (default: by the names in the file, or by the number of joints)",
    },
    "image_size": {
        "type": _size,
        "nargs": "+",
        "metavar": "WIDTHxHEIGHT",
        "help": "of the videos, for all cameras or each; needed where coordinates lie in [0, 1]",
    },
    "confidence": {
        "choices": tuple(RULES),
        "help": "what the scores are (default: by the detector and the numbers)",
    },
}
