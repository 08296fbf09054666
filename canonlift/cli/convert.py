r"""Make recordings, the one format that training reads, of what a detector wrote.

Examples:
    # Four cameras that stood still, filmed at 60 Hz; one folder of JSON files each:
    python -m canonlift.cli.convert openpose cam01_json cam02_json cam03_json cam04_json \
        --fps 60 --rig balancing --out data/balancing.npz

    # Two hand-held phones (no --rig), in whatever format it is, one at 30 and one at 60 Hz:
    python -m canonlift.cli.convert auto phone_a.json phone_b.json --fps 30 60 --out ski.npz

    # A published data set, one recording per take, in its official split:
    python -m canonlift.cli.convert skipose Ski-PosePTZ-CameraDataset-png --out data/skipose
    python -m canonlift.cli.convert human36m h36m/ --detections data_2d_h36m_cpn_ft_h36m_dbb.npz \
        --cameras h36m_dataset.py --out data/human36m

    # Detections moved to where a data set defines its joints, learned from its training takes:
    python -m canonlift.cli.convert morph data/human36m --pairs 'data/human36m/train_*.npz' \
        --out data/human36m_morphed

`python -m canonlift.cli.convert FORMAT --help` explains the options of a format.
"""

import argparse
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from canonlift import suggestions
from canonlift.body.skeleton import SKELETONS
from canonlift.data.frames import expand, read_one
from canonlift.data.recording import Recording, save
from canonlift.output.figures.health import draw_health
from canonlift.output.figures.synchrony import draw_synchrony
from canonlift.readers import morphing, synchronise
from canonlift.readers.datasets import canonpose, human36m, mpi_inf_3dhp, skipose, sportspose
from canonlift.readers.datasets.layouts import LAYOUTS as DATA_SETS
from canonlift.readers.detectors import assemble, formats
from canonlift.readers.detectors.layouts import LAYOUTS
from canonlift.readers.detectors.scores import RULES
from canonlift.readers.health import examine


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


def _detector(form: str, about: str) -> Reader:
    """What a detector writes, camera by camera."""

    def run(args: argparse.Namespace) -> None:
        _refuse_existing(args)
        options = assemble.Options(
            fps=tuple(args.fps),
            rig=args.rig,
            layout=args.layout,
            image_size=tuple(args.image_size),
            confidence=args.confidence,
            person=tuple(args.person),
            resample=not args.no_resample,
        )
        offsets = dict(args.offset)
        if args.sync and offsets:
            raise ValueError("--offset and --sync are two ways to the same; choose one")
        recording, report = assemble.read(args.cameras, form, options)
        lines = [*report, *describe(recording)]
        if args.sync or offsets:
            recording, said = _synchronised(recording, offsets, args.out)
            lines += said
        health = examine(recording)
        save(recording, args.out)
        picture = draw_health(health, args.out.with_suffix(".health.png"))
        print("\n".join([*lines, *health.lines(), f"wrote {args.out} and {picture}"]))

    return Reader(about, _add_cameras, run)


def _synchronised(
    recording: Recording, offsets: Mapping[str, float], out: Path
) -> tuple[Recording, list[str]]:
    """Every view on the frames of the first: by given offsets, or where there are none by search.

    Raises:
        ValueError: if there is no such view, or the search is not sure.
    """
    for name in offsets:
        if name not in recording.views:
            raise suggestions.unknown("--offset: camera", name, recording.views)
    lines = [f"{name}: started {offset:g} s later, as given" for name, offset in offsets.items()]
    found = np.array([offsets.get(name, 0.0) for name in recording.views])
    if not offsets:
        synchrony = synchronise.estimate(recording)
        lines = [f"synchronisation: {line}" for line in synchrony.lines()]
        picture = draw_synchrony(synchrony, out.with_suffix(".sync.png"))
        if synchrony.ambiguous:
            raise ValueError(
                f"--sync auto is not sure: {'; '.join(synchrony.doubts)} (by hand: --offset "
                f"CAM=SECONDS; {picture} shows what was compared)"
            )
        lines.append(f"wrote {picture}")
        found = synchrony.offset_s
    shifts = ", ".join(f"{n} {s:.3f}" for n, s in zip(recording.views, found, strict=True))
    said = f"views resampled to the first's frames; started later by (s): {shifts}"
    processing = "; ".join(filter(None, [recording.processing, said]))
    return replace(synchronise.apply(recording, found), processing=processing), lines


def _add_cameras(parser: argparse.ArgumentParser) -> None:
    """Arguments of every format that a detector writes camera by camera."""
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
        help="say that these cameras never moved; recordings with the same name were filmed by "
        "the same fixed cameras (default: cameras may move)",
    )
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
    parser.add_argument(
        "--person",
        nargs="+",
        default=["best"],
        metavar="CHOICE|CAM=CHOICE",
        help="who is kept of several: best (largest sum of confidences), largest, longest, or a "
        "track id, or several of one person with commas (default: best)",
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
        help="find those offsets in what the cameras saw; refused where that is ambiguous",
    )
    parser.add_argument(
        "--no-resample",
        action="store_true",
        help="where cameras ran at different rates, take the nearest frame and mix none",
    )


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


def _add_morph(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="DIR", help="folder of the recordings to move")
    parser.add_argument(
        "--pairs",
        nargs="+",
        required=True,
        metavar="GLOB",
        help="recordings to learn from, which hold keypoints_true; never those of the test",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write them into"
    )
    parser.add_argument("--overwrite", action="store_true", help="write though it is not empty")
    parser.add_argument("--skeleton", choices=tuple(SKELETONS), default="h36m17")
    parser.add_argument("--steps", type=int, default=3000, help="of training (default: 3000)")


def _run_morph(args: argparse.Namespace) -> None:
    if args.out.resolve() == args.path.resolve():
        raise ValueError(f"--out {args.out} is the folder that is read; choose another one")
    paths = expand([f"{escape(str(args.path))}/*.npz"])
    joints = SKELETONS[args.skeleton]
    pairs = expand(args.pairs)

    def takes() -> Iterator[tuple[str, Recording]]:
        print(f"learning from the paired 2D of {len(pairs)} recordings", flush=True)
        if tests := [path.name for path in pairs if path.name.startswith("test")]:
            print(f"WARNING: learning from {', '.join(tests)}; errors on these will mean little")
        network = morphing.fit([read_one(path, joints) for path in pairs], args.steps)
        for path in paths:
            yield path.stem, morphing.apply(network, read_one(path, joints))

    _write_takes(takes(), args.out, args.overwrite)


def _data_set(
    help: str,
    read: Callable[..., Iterator[tuple[str, Recording]]],
    path: str,
    options: Mapping[str, Mapping[str, Any]],
) -> Reader:
    """A published data set: `options` are parameters of `read`, which has their defaults."""

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("path", type=Path, metavar="PATH", help=path)
        parser.add_argument(
            "--out", type=Path, required=True, metavar="DIR", help="folder to write TAKE.npz into"
        )
        parser.add_argument(
            "--overwrite",
            action="store_true",
            help="write into a folder that is not empty; files of other names stay",
        )
        for name, about in options.items():
            default = inspect.signature(read).parameters[name].default
            text = " ".join(map(str, default)) if isinstance(default, tuple) else default
            text = f"{about['help']} (default: {text})" if default else about["help"]
            flag = f"--{name.replace('_', '-')}"
            parser.add_argument(flag, default=argparse.SUPPRESS, **{**about, "help": text})

    def run(args: argparse.Namespace) -> None:
        given = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in vars(args).items()
            if name in options
        }
        _write_takes(read(args.path, **given), args.out, args.overwrite)

    return Reader(help, add_arguments, run)


def _write_takes(takes: Iterator[tuple[str, Recording]], out: Path, overwrite: bool) -> None:
    """Write each take as it comes; what was written before an error stays."""
    before = {path.name for path in out.iterdir()} if out.exists() else set()
    if before and not overwrite:
        raise ValueError(
            f"{out} is not empty; give another --out, or --overwrite to write into it all the same"
        )
    frames: dict[str, int] = {}
    for name, recording in takes:
        if Path(name).name != name or name in frames:
            raise ValueError(f"take {name!r} cannot be, or is twice, the name of a file")
        save(recording, out / f"{name}.npz")
        frames[name] = recording.n_frames
        print(f"{name}: {_in_short(recording)}", flush=True)
    if not frames:
        raise ValueError("no take found; is this the folder, and is it complete?")
    others = len(before - {f"{name}.npz" for name in frames})
    print(
        f"wrote {len(frames)} recordings, {sum(frames.values())} frames, into {out}"
        + (f"; {others} other files in it were there before" if others else "")
    )


def _in_short(recording: Recording) -> str:
    missed = 100 * (recording.confidence == 0).mean()
    truth = "with" if recording.pose3d is not None else "without"
    return (
        f"{recording.n_frames} frames, {len(recording.views)} views, "
        f"{len(recording.joints)} joints, {missed:.1f} % unobserved, {truth} 3D truth"
    )


def _refuse_existing(args: argparse.Namespace) -> None:
    if args.out.exists() and not args.overwrite:
        raise ValueError(f"{args.out} exists; give another --out, or --overwrite to replace it")


_LAYOUT = {"choices": tuple(DATA_SETS), "help": "the detector's joints (default: recognised)"}
_FPS = {"type": float, "help": "frames per second, which the files do not say"}

# What `python -m canonlift.cli.convert` reads. A new format is a new row.
READERS: Mapping[str, Reader] = {
    "auto": _detector("auto", "Any detector: the format is recognised by the files' content."),
    **{name: _detector(name, f"{row.about}.") for name, row in formats.READERS.items()},
    "skipose": _data_set(
        "SkiPose-PTZ: six moving cameras, alpine skiers. Views that lack a frame are unobserved "
        "there. Without --detections the annotated 2D is taken as detected.",
        skipose.read,
        "the folder that has train/labels.h5 and test/labels.h5, or one of the two",
        {
            "detections": {
                "type": Path,
                "help": "AlphaPose or RTMPose results on the crops: one JSON file by image paths "
                "(train/seq_003/cam_02/image_000012.png), or a folder train/seq_003/cam_02/ ... "
                "of one JSON file per camera",
            },
            "layout": _LAYOUT,
            "fps": _FPS,
        },
    ),
    "human36m": _data_set(
        "Human3.6M: four fixed cameras indoors; VideoPose3D's npz files or the h5 files of "
        "Martinez et al. Train: S1, 5, 6, 7, 8; test: S9, 11.",
        human36m.read,
        "folder of data_3d_h36m.npz, or of S1, S5, ...",
        {
            "detections": {
                "metavar": "NAME",
                "help": "name of the npz of 2D poses beside data_3d_h36m.npz, or of the folder "
                "in each subject's, StackedHourglass (default: the projected truth)",
            },
            "cameras": {
                "type": Path,
                "help": "VideoPose3D's common/h36m_dataset.py, or cameras.h5 (default: cameras.h5 "
                "in PATH, if it is there); without cameras there is no 3D truth",
            },
            "layout": _LAYOUT,
        },
    ),
    "mpi_inf_3dhp": _data_set(
        "MPI-INF-3DHP: fixed studio cameras, and test videos of one camera each; annot.mat or "
        "P-STMO's npz files. The 2D is annotated, not detected.",
        mpi_inf_3dhp.read,
        "folder of S1, ..., TS1, ... or of the npz files, or one file",
        {
            "pose": {
                "choices": ("annot3", "univ_annot3"),
                "help": "which 3D of the Matlab files",
            },
            "cameras": {
                "type": int,
                "nargs": "+",
                "metavar": "N",
                "help": "of annot.mat",
            },
            "test_fps": _FPS,
        },
    ),
    "sportspose": _data_set(
        "SportsPose: seven fixed cameras, sports indoors and outdoors. Without --detections the "
        "3D is projected. Train, val and test by subject.",
        sportspose.read,
        "the folder that has data/indoors and data/outdoors",
        {
            "detections": {
                "type": Path,
                "help": "folder of results, laid out as the videos: "
                "indoors/S01/Video_.../CAM3.json",
            },
            "layout": _LAYOUT,
            "views": {"nargs": "+", "metavar": "VIEW", "help": "such as right (default: all)"},
            "video_size": {
                "type": int,
                "nargs": 2,
                "metavar": ("WIDTH", "HEIGHT"),
                "help": "of the videos before they are turned upright",
            },
        },
    ),
    "canonpose": _data_set(
        "CanonPose's and CVSF's pickles: 2D detections on Human3.6M, opened by an unpickler that "
        "knows arrays and plain containers only.",
        canonpose.read,
        "detections.pickle, alphapose_2d3dgt_img_h36m.pickle or the like",
        {"layout": _LAYOUT, "fps": _FPS},
    ),
    "morph": Reader(
        "Recordings of which the detector sees joints elsewhere than a data set defines them: a "
        "network from 2D to 2D learns the difference from pairs of detected and annotated 2D, as "
        "CanonPose and CVSF do for Human3.6M. It reads 2D truth and no 3D; results.json says so.",
        _add_morph,
        _run_morph,
    ),
}


def _parser() -> argparse.ArgumentParser:
    summary, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m canonlift.cli.convert",
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
