"""Train a lifter on recordings of uncalibrated cameras, and evaluate it.

Examples:
    python train.py configs/demo.yaml                           # minutes, nothing to download
    python train.py configs/demo.yaml variant=baseline seed=1   # override any setting
    python train.py my.yaml data.train='[takes/*.npz]' --out runs/mine
    python train.py configs/sequence.yaml                       # lift windows over time
    python train.py configs/demo.yaml --resume                  # go on after a crash or Ctrl-C
    torchrun --nproc_per_node 4 train.py configs/demo.yaml      # four GPUs, or four CPU processes

A run folder holds checkpoint.pt, config.yaml (complete), metrics.csv, results.json,
predictions.npz and figures/. A killed run loses at most `checkpoint_seconds`.

Under torchrun each process takes its part of every batch of `batch_size`: the run is that of one
process but for rounding, and may be resumed with another number of them. On several machines,
--out and the recordings have to lie where all of them see them.
"""

import argparse
import ctypes
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from canonlift import distributed
from canonlift.data import samples as sessions
from canonlift.data import shards, windows
from canonlift.data.recording import Recording
from canonlift.data.samples import Samples
from canonlift.geometry.alignment import align_similarity
from canonlift.geometry.rotations import nearest_rotation
from canonlift.geometry.scale import unit_scale
from canonlift.methods.stages import Repair, least_stage
from canonlift.methods.terms import Objective
from canonlift.simulation.session import write_session
from canonlift.solve import closed_form
from canonlift.training import checkpoint, runs
from canonlift.training import config as configs
from canonlift.training.checkpoint import Network
from canonlift.training.metrics_log import MetricsLog
from canonlift.training.mirror import vote
from canonlift.training.runs import Run
from canonlift.types import Views
from eval import report

LOG_EVERY = 20
GUESSED = 0.05  # share of frames with a trusted guess below which imitation teaches nothing
# Of sequence models; shares of what was seen, in so many logged steps in a row.
SMALL, COLLAPSED, FLAT, DEEP, STILL, PATIENCE = 0.5, 0.1, 0.15, 3.0, 0.4, 10


class Collapsed(Exception):
    """The poses of a sequence model have shrunk to points."""


class Interrupted(Exception):
    """The run was asked to stop, and has saved itself."""


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="YAML file, see configs/")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="e.g. batch_size=64 lifter.width=512"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="run folder (default: runs/NAME OF THE CONFIG)"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    args = parser.parse_intermixed_args()
    keep_memory()
    out = args.out or Path("runs") / args.config.stem
    try:
        config = configs.load(args.config, args.overrides)
        with distributed.joined(checkpoint.pick_device(config.device)):
            test_paths = train(config, out, args.resume)
        if not distributed.is_first():
            return
        if test_paths:
            report(checkpoint.load_model(out, config.device), test_paths, out, out)
        else:
            print("There are no test recordings, so nothing was evaluated or drawn.")
    except (
        ValueError,
        FileNotFoundError,
        FileExistsError,
        FloatingPointError,
        Collapsed,
        distributed.Lost,
    ) as error:
        distributed.let_first_speak()
        sys.exit(f"train.py: {error}")
    except (Interrupted, KeyboardInterrupt) as stop:
        if not distributed.is_first():
            return
        print(f"train.py: {str(stop) or 'interrupted; continue with --resume'}", file=sys.stderr)
        sys.exit(130)
    print("\nNext:")
    print(f"  python eval.py {out} --recordings YOUR.npz       # 3D from any recording")
    print(
        "  python -m canonlift.cli.convert --help                # recordings from your detector"
    )


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


def train(config: configs.Config, out: Path, resume: bool = False) -> list[Path]:
    """Run every phase of `config`, leave a finished checkpoint in `out`, return the test paths.

    Raises:
        FileExistsError: if `out` holds a run that is not to be resumed.
        FloatingPointError: if the loss is not finite, naming step, term and recording.
        Collapsed: if the poses of a sequence model have shrunk to points.
        Interrupted: if the process was asked to stop; the run can be resumed.
    """
    begun = (out / "config.yaml").exists()
    run = runs.start(config, out, resume)
    try:
        train_paths, test_paths = distributed.from_first(lambda: find_recordings(config, out))
        session = _read(config, train_paths)
    except Exception:
        if not begun:
            runs.withdraw(out)
        raise
    fit(run, session)
    return test_paths


def fit(run: Run, session: Samples) -> None:
    """Run what is left of the phases, and leave a finished checkpoint; raises as `train` does."""
    columns = [*run.config.terms, *run.config.measures]
    log = MetricsLog(run.out, columns, run.progress.total_step)
    n_steps = sum(phase.steps for phase in run.config.schedule)
    with (
        closing(log),
        _stop_signals() as stop,
        tqdm(
            total=n_steps,
            initial=run.progress.total_step,
            disable=None if distributed.is_first() else True,  # None: unless it is a terminal
        ) as bar,
    ):
        while not run.finished:
            _run_phase(run, session, log, bar, stop)
            converged = run.progress.stale >= run.phase.convergence.patience
            tqdm.write(f"{run.phase.name}: {'converged' if converged else 'out of steps'}")
            run.close_phase()
            run.mirror = _turn_round(run, session)
            run.next_phase()
            if not run.finished:
                run.save()
    if distributed.is_first():
        run.save(mean_pose=_mean_pose(run, session))


class Taken(NamedTuple):
    """A step whose loss nobody has read yet: reading waits for the device."""

    loss: Float[Tensor, ""]
    samples: Int[Tensor, " B"]  # of all processes together


def _run_phase(run: Run, session: Samples, log: MetricsLog, bar: tqdm, stop: list[int]) -> None:
    """Optimise until the phase has converged or used up its steps; keep the best weights.

    Losses are read several steps at a time, so `run.progress` lags by the steps in `taken`.
    """
    config, phase, progress = run.config, run.phase, run.progress
    compute = distributed.distribute(computation(config, phase, run.lifter))
    batches = sessions.stream(session, config.batch_size, config.seed, progress.total_step)
    bar.set_description(phase.name)
    saved, started = time.monotonic(), time.monotonic() - progress.seconds
    taken: list[Taken] = []
    while not progress.over(phase):
        samples, views = next(batches)
        if config.flip and (progress.total_step + len(taken)) % 2:
            views = sessions.flip(views, config.joints)
        rate = phase.learning_rate_at(progress.step + len(taken))
        loss, terms = descend(run, compute, views, rate)
        taken.append(Taken(loss, samples))
        bar.update()

        logs = (progress.total_step + len(taken)) % LOG_EVERY == 0
        # What one process wants all do, at the same step.
        due = time.monotonic() - saved > config.checkpoint_seconds
        signalled, saves = distributed.highest(max(stop, default=0), int(bool(stop) or due))
        if not (logs or saves or len(taken) >= progress.steps_to_window(phase)):
            continue
        value = _count(run, session, taken)
        taken.clear()
        progress.seconds = time.monotonic() - started
        if logs:
            bar.set_postfix(loss=f"{value:.4f}")
            row = {"step": progress.total_step, "phase": phase.name, "loss": value}
            row |= {name: term.item() for name, term in terms.items()}
            log.write(row | {"learning_rate": rate, "seconds": progress.seconds})
            _watch(run, row)
        if saves:
            run.save()
            saved = time.monotonic()
        if signalled:
            name = signal.Signals(signalled).name
            distributed.wait()  # torchrun ends all when one has ended, saved or not
            raise Interrupted(
                f"{name}: saved at step {progress.total_step}; continue with --resume"
            )


class Computation(nn.Module):
    """From views to the loss of a phase, and its terms: DistributedDataParallel wants a module."""

    def __init__(self, objective: Objective, repair: Repair, lifter: Network) -> None:
        super().__init__()
        self.objective, self.repair, self.lifter = objective, repair, lifter
        self.stage = least_stage(objective.reads)

    def forward(self, views: Views) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of the batch, and its terms."""
        return self.objective(self.stage.run(self.lifter, self.repair, views))


def computation(
    config: configs.Config, phase: configs.PhaseConfig, lifter: Network
) -> Computation:
    """What a phase of the config computes."""
    return Computation(config.objective(phase), checkpoint.repair(config), lifter)


def descend(
    run: Run,
    compute: Callable[[Views], tuple[Float[Tensor, ""], dict[str, Tensor]]],
    views: Views,
    rate: float,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Take one step without waiting for the device; return loss and terms as before it.

    From the first loss that is not finite, the weights stay as they are.
    """
    loss, terms = compute(views)
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    if run.phase.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(run.lifter.parameters(), run.phase.clip_norm)
    halted = run.optimiser.found_inf
    torch.maximum(halted, (~loss.detach().isfinite()).to(halted.dtype), out=halted)
    run.optimiser.step()
    return loss.detach(), terms


def _count(run: Run, session: Samples, taken: Sequence[Taken]) -> float:
    """Take in the losses of the steps taken, the only place that waits for them; the last one.

    Raises:
        FloatingPointError: if one of them, or a weight, is not finite.
    """
    weights = torch.nn.utils.get_total_norm([p.detach() for p in run.lifter.parameters()])
    *losses, size = torch.stack([*(step.loss for step in taken), weights]).tolist()
    for index, value in enumerate(losses):
        if not math.isfinite(value):
            step = run.progress.total_step + index
            raise _not_finite(run, session, taken[index].samples, step)
    if not math.isfinite(size):
        raise FloatingPointError(
            f"the weights are not finite after step {run.progress.total_step + len(taken) - 1}: "
            "the network diverged; lower the learning rate or set clip_norm"
        )
    for value in losses:
        if run.progress.count(value, run.phase.convergence):
            run.keep_best()
    return losses[-1]


def _watch(run: Run, row: Mapping[str, Any]) -> None:
    """Warn when poses of a sequence model shrink, go flat or deep, or freeze; stop at points.

    Raises:
        Collapsed: with advice.
    """
    progress, weights = run.progress, run.phase.weights
    spread, depth, movement = (row.get(name) for name in ("spread", "depth", "movement"))
    if spread is None:
        return
    progress.small = progress.small + 1 if spread < SMALL else 0
    progress.flat = progress.flat + 1 if depth < FLAT else 0
    progress.deep = progress.deep + 1 if depth > DEEP else 0
    agreeing = any(weights.get(name) for name in weights if "consistency" in name)
    progress.still = progress.still + 1 if agreeing and movement < STILL else 0
    step = f"step {progress.total_step}"
    if progress.flat == PATIENCE:
        tqdm.write(
            f"WARNING: {step}: the poses are flat, {depth:.0%} as deep as wide: consistency alone "
            "seldom gets away from there; give `cross_image` a weight, begin with a phase of "
            "`position`, or with start_from"
        )
    if progress.deep == PATIENCE:
        tqdm.write(
            f"WARNING: {step}: the poses are {depth:.1f} times as deep as wide: rods along the "
            "axes of the cameras, on which all views can agree; give `cross_image` a weight, "
            "begin with a phase of `position`, or with start_from"
        )
    if progress.still == PATIENCE:
        tqdm.write(
            f"WARNING: {step}: the poses move {movement:.0%} as much as what was seen: bodies "
            "that stay the same are consistent. Unless nobody moved, lower the weight of "
            "consistency, or give `cross_image` or `image` more"
        )
    if progress.small == PATIENCE // 2:
        tqdm.write(f"WARNING: {step}: the poses have {spread:.0%} of the size of what was seen")
    if progress.small >= PATIENCE and spread < COLLAPSED:
        held = weights.get("consistency_as_printed", 0.0)
        raise Collapsed(
            f"{step}: the poses have collapsed to points, {spread:.1%} of the size of what was "
            "seen. Points are consistent: "
            + (
                f"lower the weight of consistency_as_printed (now {held:g}), or use "
                "`consistency`, which does not reward shrinking"
                if held
                else "give `image` a weight, or raise it"
            )
        )


def find_recordings(config: configs.Config, out: Path) -> tuple[list[Path], list[Path]]:
    """Train and test recordings; a simulated session is filmed into `out` first.

    Raises:
        FileNotFoundError: if a glob matches nothing.
        ValueError: if a recording is in both.
    """
    if config.data.simulate is not None:
        print(f"filming the simulated session into {out / 'session'}")
        train_paths, test_paths = write_session(config.data.simulate, out / "session")
    else:
        train_paths, test_paths = (
            sessions.expand(config.data.train),
            sessions.expand(config.data.test),
        )
    both = {path.resolve() for path in train_paths} & {path.resolve() for path in test_paths}
    if both:
        raise ValueError(
            f"{', '.join(str(path) for path in sorted(both))}: in data.train and in data.test; "
            "figures on recordings that training saw mean nothing"
        )
    return train_paths, test_paths


def _read(config: configs.Config, paths: list[Path]) -> Samples:
    supervised = supervised_recordings(config, paths)
    complete = partial(_complete, config, supervised)
    if config.data.shards is None:
        # A model of sequences learns something from single views, too.
        least_views = 1 if config.is_sequence else 2
        session = sessions.read(paths, config.joints, least_views, complete)
    else:
        folder, kind = Path(config.data.shards), config.data.target
        if kind == "closed_form":
            kind += f" over {config.data.window_s} s"
        if supervised:
            kind += f", pose3d of {', '.join(config.data.supervised)}"
        print(f"copying what is not there yet of {len(paths)} recordings into {folder}")
        session = distributed.from_first(
            lambda: shards.read(paths, config.joints, 2, complete, folder, kind)
        )
    print(f"training on {sessions.describe(session)}")
    _tell(config, session.summary(), [path for path in paths if path in supervised])
    if config.is_sequence:
        sequence = config.sequence
        session = windows.cut(session, sequence.length, sequence.stride, sequence.gap)
        print(f"{len(session)} windows of {sequence.length} frames")
    return session.to(distributed.own_device(checkpoint.pick_device(config.device)))


def _tell(config: configs.Config, total: sessions.Summary, supervised: Sequence[Path]) -> None:
    """Say what the recordings are good for, and what they are not."""
    if config.is_sequence and total.views == 1:
        print("no recording has two views, so nothing holds views together")
    if "camera_consistency" in config.terms and not total.fixed:
        print("no recording names a rig of fixed cameras, so camera_consistency does nothing")
    if config.data.target == "closed_form":
        usable = total.trusted / total.frames
        print(f"closed-form guess of the pose: {usable:.0%} of the frames trusted")
        if usable < GUESSED:
            print(
                "WARNING: there is next to nothing to imitate: a guess takes three views of a "
                "body and limbs that come out equally long. With two cameras train over time, "
                "from no guess (`configs/sequence.yaml data.target=none`, as its comments say), "
                "or begin with start_from"
            )
    elif config.data.target == "pose3d":
        print("SUPERVISED: training reads pose3d (data.target)")
    if supervised:
        names = ", ".join(map(str, supervised))
        print(f"SUPERVISED IN PART: training reads pose3d of {names} (data.supervised)")


def supervised_recordings(config: configs.Config, paths: Sequence[Path]) -> set[Path]:
    """The training recordings that `data.supervised` names.

    Raises:
        ValueError: if one of its globs names none of them.
    """
    named: set[Path] = set()
    for pattern in config.data.supervised:
        found = {path for path in paths if path.match(pattern)}
        if not found:
            raise ValueError(
                f"data.supervised: {pattern!r} names none of the {len(paths)} training "
                f"recordings, such as {paths[0]}"
            )
        named |= found
    return named


def _complete(
    config: configs.Config, supervised: set[Path], path: Path, recording: Recording, views: Views
) -> Views:
    """Add the target of a recording, and bring it to the frame rate of windows."""
    kind = "pose3d" if path in supervised else config.data.target
    if kind == "closed_form":
        window = max(1, round(config.data.window_s * recording.fps))
        views = replace(views, target=closed_form.closed_form(views, config.joints, window))
    elif kind == "pose3d":
        n_views = views.keypoints.shape[1]
        views = replace(views, target=closed_form.true(path, config.joints, n_views))
    elif supervised:  # all have to have one
        views = replace(views, target=closed_form.none(views))
    if config.is_sequence and config.sequence.fps is not None:
        return windows.resample(views, config.sequence.fps / recording.fps)
    return views


def _turn_round(run: Run, session: Samples) -> dict[str, Any]:
    """Let the recordings vote on the mirrored world, and leave it if they say so."""
    votes = distributed.from_first(lambda: vote(run.lifter, session, run.config.joints))
    if votes.turn_round:
        run.lifter.mirror()
    action = "turned round" if votes.turn_round else "kept"
    tqdm.write(f"  {votes}; {action}")
    last = asdict(votes) | {"turned_round": votes.turn_round, "certainty": votes.certainty}
    before = run.mirror.get("phases", {})
    return last | {"phases": before | {run.phase.name: last}}


@torch.inference_mode()
def _mean_pose(run: Run, session: Samples, most: int = 20_000) -> Float[Tensor, "J 3"]:
    """Mean shape of the lifted training poses, in their mean heading, at unit norm.

    Of sessions of more than half a million frames, an even sample is lifted.

    Poses are first turned onto their common mean (generalised Procrustes); a mean over camera
    axes would mix all headings into a body without left and right.
    """
    samples = torch.arange(0, len(session), max(1, len(session) * session.frames // 250_000))
    every = max(1, len(samples) * session.frames * session.summary().views // most)
    poses = []
    for some in samples.split(sessions.at_once(session)):
        views = session[some]
        poses.append(run.lifter(views).in_camera[views.observed.any(-1)][::every])
    pose = torch.cat(poses)
    pose = pose[pose.norm(dim=(1, 2)) > 1e-6]  # a pose that is a point has no heading
    pose = unit_scale(pose, torch.ones_like(pose[..., 0], dtype=torch.bool))
    mean = pose[0]
    for _ in range(5):
        onto = align_similarity(pose, mean.expand_as(pose))
        mean = (pose @ onto.rotation.mT).mean(0)
        mean = mean / mean.norm()
    heading = nearest_rotation(onto.rotation.mT.sum(0))
    return (mean @ heading.mT).cpu()


def _not_finite(run: Run, session: Samples, samples: Tensor, step: int) -> FloatingPointError:
    """Find out which term of which recordings is not finite, in each process for itself."""
    distributed.leave()
    what = f"the loss is not finite at step {step}"
    if not run.lifter(session[samples]).in_camera.isfinite().all():
        return FloatingPointError(
            f"{what}: the network diverged; lower the learning rate or set clip_norm"
        )
    compute = computation(run.config, run.phase, run.lifter)
    blame = []
    origin = session.origin(samples).cpu()
    for index in origin.unique().tolist():
        _, terms = compute(session[samples[origin == index]])
        bad = [name for name, value in terms.items() if not value.isfinite()]
        if bad:
            blame.append(f"{', '.join(bad)} in {session.names[index]}")
    where = "; ".join(blame) or "no single recording; try a lower learning rate"
    return FloatingPointError(
        f"{what}: {where}. The last checkpoint in {run.out} is from before; check these "
        "recordings for absurd values"
    )


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of the first one."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for known, handler in before.items():
            signal.signal(known, handler)  # a second one kills

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
