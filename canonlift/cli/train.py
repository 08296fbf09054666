"""Train a network on recordings of uncalibrated cameras, and evaluate it.

Examples:
    canonlift train demo                                   # minutes, nothing to download
    canonlift train cvsf_s1 seed=1 model.width=512         # override any setting
    canonlift train my.yaml data.train='[session/*.npz]' --out runs/mine
    canonlift train sequence                               # lift windows over time
    canonlift train demo --resume                          # go on after a crash or Ctrl-C
    torchrun --nproc_per_node 4 -m canonlift train demo    # four GPUs, or four CPU processes

A run folder holds checkpoint.pt, config.yaml (complete), metrics.csv, results.json,
predictions.npz and figures/. A killed run loses at most `checkpoint_seconds`.

Under torchrun each process has a part of every batch of `batch_size`: the run is that of one
process but for rounding, and may be resumed with another number of them. On several machines,
--out and the recordings have to lie where all of them see them.
"""

import argparse
import ctypes
from pathlib import Path

from canonlift import distributed
from canonlift.cli.eval import report
from canonlift.inference import model
from canonlift.training import checkpoint
from canonlift.training import config as configs
from canonlift.training.loop import Interrupted
from canonlift.training.train import train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `canonlift train`."""
    parser.add_argument("config", help="YAML file, or the name of a config that canonlift has")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="e.g. batch_size=64 model.width=512"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="run folder (default: runs/NAME OF THE CONFIG)"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")


def run(args: argparse.Namespace) -> None:
    """Train, evaluate on the test recordings, and print what to do next."""
    keep_memory()
    out = args.out or Path("runs") / Path(args.config).stem
    config = configs.load(args.config, args.overrides)
    try:
        with distributed.joined(checkpoint.pick_device(config.device)):
            test = train(config, out, args.resume).test
    except KeyboardInterrupt as stop:
        raise Interrupted("interrupted; continue with --resume") from stop
    if not distributed.is_first():
        return
    if test:
        report(model.load(out, config.device), test, out, out)
    else:
        print("There are no test recordings, so nothing was evaluated or drawn.")
    print("\nNext:")
    if test:
        print(f"  canonlift view {out}")
    print(f"  canonlift eval {out} --recordings YOUR.npz")
    print("  canonlift convert --help    # recordings from your detector")


def keep_memory() -> None:
    """Have glibc keep what is freed, where there is a glibc.

    It would give large blocks back to the kernel, which clears them page by page when the next
    step asks for them again: a sixth of a step on a CPU.
    """
    try:
        tune = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, mmap_threshold = -1, -3  # as malloc.h numbers them
    tune(mmap_threshold, 1 << 30)
    tune(trim_threshold, 2**31 - 1)
