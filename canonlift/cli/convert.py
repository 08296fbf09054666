r"""Make recordings, the one format that canonlift reads, of what a detector or a data set holds.

Examples:
    # Four cameras that stood still, filmed at 60 Hz; one folder of JSON files each:
    canonlift convert openpose cam01_json cam02_json cam03_json cam04_json \
        --fps 60 --rig balancing --out data/balancing.npz

    # Two hand-held phones (no --rig), in whatever format it is, one at 30 and one at 60 Hz:
    canonlift convert auto phone_a.json phone_b.json --fps 30 60 --out ski.npz

    # A published data set, one file per recording, in its official split:
    canonlift convert skipose Ski-PosePTZ-CameraDataset-png --out data/skipose
    canonlift convert human36m h36m/ --detections data_2d_h36m_cpn_ft_h36m_dbb.npz \
        --cameras h36m_dataset.py --out data/human36m

    # Detections moved to where a data set defines its joints, learned from its training part:
    canonlift convert morph data/human36m --pairs 'data/human36m/train_*.npz' \
        --out data/human36m_morphed

`canonlift convert FORMAT --help` explains the options of a format.
"""

import argparse
from collections.abc import Callable, Iterator
from glob import escape
from pathlib import Path

from canonlift.body.skeleton import SKELETONS
from canonlift.cli import camera_options
from canonlift.data.frames import expand, read_one
from canonlift.data.recording import Recording, save
from canonlift.output.figures.health import draw_health
from canonlift.output.figures.synchrony import draw_synchrony
from canonlift.readers import skeleton_morphing
from canonlift.readers.convert import convert_with_report
from canonlift.readers.datasets.table import DATA_SETS, DataSet
from canonlift.readers.detectors.table import READERS
from canonlift.readers.health import examine
from canonlift.readers.synchronise import Synchrony

MORPH = (
    "Recordings of which the detector puts joints elsewhere than a data set defines them: a "
    "network from 2D to 2D learns the difference from pairs of detected and annotated 2D, as "
    "CanonPose and CVSF do for Human3.6M. It reads 2D truth and no 3D; results.json says so."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A subcommand for each format."""
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")

    def add(name: str, help: str, run: Callable[..., None]) -> argparse.ArgumentParser:
        row = formats.add_parser(name, help=help.split(":")[0], description=help)
        row.set_defaults(convert=run)
        return row

    about = {"auto": "Any detector: the format is recognised by the files' content."}
    about |= {name: f"{reader.about}." for name, reader in READERS.items()}
    for name, help in about.items():
        camera_options.add(add(name, help, convert_cameras))
    for name, data_set in DATA_SETS.items():
        _add_data_set(add(name, data_set.help, convert_data_set), data_set)
    _add_morph(add("morph", MORPH, morph))


def run(args: argparse.Namespace) -> None:
    """Convert, and print what was read and written."""
    args.convert(args)


def convert_cameras(args: argparse.Namespace) -> None:
    """Write the recording of one session, and figures of its health and synchronisation."""
    if args.out.exists() and not args.overwrite:
        raise ValueError(f"{args.out} exists; give another --out, or --overwrite to replace it")
    figures: list[Path] = []

    def draw(found: Synchrony) -> None:
        figures.append(draw_synchrony(found, args.out.with_suffix(".sync.png")))

    try:
        recording, lines = convert_with_report(
            args.cameras,
            args.format,
            camera_options.parse(args),
            dict(args.offset),
            args.sync == "auto",
            draw,
        )
    except ValueError as error:
        hint = f" ({figures[0]} shows what was compared)" if figures else ""
        raise ValueError(f"{error}{hint}") from error
    health = examine(recording)
    save(recording, args.out)
    figures.append(draw_health(health, args.out.with_suffix(".health.png")))
    written = " and ".join(map(str, [args.out, *figures]))
    print("\n".join([*lines, *health.lines(), f"wrote {written}"]))


def _add_data_set(parser: argparse.ArgumentParser, data_set: DataSet) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help=data_set.path)
    _add_out_folder(parser)
    camera_options.add_parameters(parser, data_set.read, data_set.options)


def _add_out_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write NAME.npz into"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="write into a folder that is not empty; files of other names stay",
    )


def convert_data_set(args: argparse.Namespace) -> None:
    """Write every recording of a data set."""
    data_set = DATA_SETS[args.format]
    given = camera_options.parameters(args, data_set.options)
    write_recordings(data_set.read(args.path, **given), args.out, args.overwrite)


def _add_morph(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="DIR", help="folder of the recordings to move")
    parser.add_argument(
        "--pairs",
        nargs="+",
        required=True,
        metavar="GLOB",
        help="recordings to learn from, which hold keypoints_true; never those of the test",
    )
    _add_out_folder(parser)
    parser.add_argument("--skeleton", choices=tuple(SKELETONS), default="h36m17")
    parser.add_argument("--steps", type=int, default=3000, help="of training (default: 3000)")


def morph(args: argparse.Namespace) -> None:
    """Write recordings whose joints were moved to where a data set defines them."""
    if args.out.resolve() == args.path.resolve():
        raise ValueError(f"--out {args.out} is the folder that is read; choose another one")
    paths, pairs = expand([f"{escape(str(args.path))}/*.npz"]), expand(args.pairs)
    joints = SKELETONS[args.skeleton]

    def moved() -> Iterator[tuple[str, Recording]]:
        print(f"learning from the paired 2D of {len(pairs)} recordings", flush=True)
        if tests := [path.name for path in pairs if path.name.startswith("test")]:
            print(f"WARNING: learning from {', '.join(tests)}; errors on these will mean little")
        network = skeleton_morphing.fit([read_one(path, joints) for path in pairs], args.steps)
        for path in paths:
            yield path.stem, skeleton_morphing.apply(network, read_one(path, joints))

    write_recordings(moved(), args.out, args.overwrite)


def write_recordings(
    recordings: Iterator[tuple[str, Recording]], out: Path, overwrite: bool
) -> None:
    """Write each recording as it comes; what was written before an error stays."""
    before = {path.name for path in out.iterdir()} if out.exists() else set()
    if before and not overwrite:
        raise ValueError(
            f"{out} is not empty; give another --out, or --overwrite to write into it all the same"
        )
    frames: dict[str, int] = {}
    for name, recording in recordings:
        if Path(name).name != name or name in frames:
            raise ValueError(f"recording {name!r} cannot be, or is twice, the name of a file")
        save(recording, out / f"{name}.npz")
        frames[name] = recording.n_frames
        missed = 100 * (recording.confidence == 0).mean()
        truth = "with" if recording.pose3d is not None else "without"
        print(
            f"{name}: {recording.n_frames} frames, {len(recording.views)} views, "
            f"{len(recording.joints)} joints, {missed:.1f} % unobserved, {truth} 3D truth",
            flush=True,
        )
    if not frames:
        raise ValueError("no recording found; is this the folder, and is it complete?")
    others = len(before - {f"{name}.npz" for name in frames})
    print(
        f"wrote {len(frames)} recordings, {sum(frames.values())} frames, into {out}"
        + (f"; {others} other files in it were there before" if others else "")
    )
