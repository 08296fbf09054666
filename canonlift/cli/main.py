"""The command `canonlift`: a table of subcommands, and how all of them end.

Exit status: 0 done; 1 the run failed (a loss that is not finite, poses that collapsed, another
process lost); 2 the command line or an input is wrong; 130 interrupted.
"""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from canonlift import __version__


class Subcommand(NamedTuple):
    """One row: a module of this folder with `add_arguments(parser)` and `run(args)`."""

    module: str
    help: str
    intermixed: bool = False  # options may stand between positional arguments


# A new subcommand is a row here and a file beside this one. Only the one that is asked for is
# imported, so that `canonlift --help` answers at once.
SUBCOMMANDS: Mapping[str, Subcommand] = {
    "convert": Subcommand("convert", "make recordings of what a detector or data set holds"),
    "solve": Subcommand("solve", "3D, cameras and repaired joints of two or more views"),
    "train": Subcommand(
        "train", "train a network on recordings, and evaluate it", intermixed=True
    ),
    "eval": Subcommand("eval", "predict recordings, and score them where truth is known"),
    "export": Subcommand("export", "write predictions as TRC, C3D, CSV, NPZ, HTML or RRD"),
    "view": Subcommand("view", "look at predictions in a browser"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a subcommand, and end the process with its status where that is not 0."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] not in SUBCOMMANDS:
        _overview().parse_args(argv)  # --help, --version, or no such command
        _overview().print_help(sys.stderr)
        sys.exit(2)
    name, parser = argv[0], _parser(argv[0])
    intermixed = SUBCOMMANDS[name].intermixed
    parse = parser.parse_intermixed_args if intermixed else parser.parse_args
    if status := _status(name, parse(argv[1:])):
        sys.exit(status)


def _status(name: str, args: argparse.Namespace) -> int:
    """Run it; an error becomes one line on stderr."""
    from canonlift import distributed
    from canonlift.training.loop import Interrupted
    from canonlift.training.monitor import Collapsed

    module = importlib.import_module(f"canonlift.cli.{SUBCOMMANDS[name].module}")
    try:
        module.run(args)
    except (ValueError, OSError) as error:
        status, message = 2, str(error)
    except (FloatingPointError, Collapsed, distributed.Lost) as error:
        status, message = 1, str(error)
    except (Interrupted, KeyboardInterrupt) as stop:
        if not distributed.is_first():
            return 0
        print(f"canonlift {name}: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 130
    else:
        return 0
    distributed.let_first_speak()
    print(f"canonlift {name}: error: {' '.join(message.split())}", file=sys.stderr)
    return status


def _parser(name: str) -> argparse.ArgumentParser:
    module = importlib.import_module(f"canonlift.cli.{SUBCOMMANDS[name].module}")
    parser = argparse.ArgumentParser(
        prog=f"canonlift {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return parser


def _overview() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="canonlift",
        description="3D human pose from uncalibrated, moving cameras, without 3D labels.",
    )
    parser.add_argument("--version", action="version", version=f"canonlift {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for name, row in SUBCOMMANDS.items():
        commands.add_parser(name, help=row.help, add_help=False)
    return parser
