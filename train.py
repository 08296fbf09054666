"""Train a lifter on recordings of uncalibrated cameras, and evaluate it.

Examples:
    python train.py configs/demo.yaml                           # minutes, nothing to download
    python train.py configs/demo.yaml variant=baseline seed=1   # override any setting
    python train.py my.yaml data.train='[takes/*.npz]' --out runs/mine
    python train.py configs/demo.yaml --resume                  # go on after a crash or Ctrl-C

A run folder holds checkpoint.pt, config.yaml (complete), metrics.csv, results.json,
predictions.npz and figures/. A killed run loses at most `checkpoint_seconds`.
"""

import argparse
import ctypes
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from canonlift import checkpoint, runs, targets
from canonlift import config as configs
from canonlift.data import session as sessions
from canonlift.data.session import Session
from canonlift.data.simulate import write_session
from canonlift.geometry.alignment import align_similarity
from canonlift.geometry.rotations import nearest_rotation
from canonlift.geometry.scale import unit_scale
from canonlift.lifter import Lifter
from canonlift.log import MetricsLog
from canonlift.mirror import vote
from canonlift.runs import Run
from canonlift.stages import Repair, least_stage
from canonlift.types import Target, Views
from eval import report

LOG_EVERY = 20


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
        test_paths = train(config, out, args.resume)
        if test_paths:
            report(checkpoint.load_model(out, config.device), test_paths, out, out)
        else:
            print("There are no test recordings, so nothing was evaluated or drawn.")
    except (ValueError, FileNotFoundError, FileExistsError, FloatingPointError) as error:
        sys.exit(f"train.py: {error}")
    except (Interrupted, KeyboardInterrupt) as stop:
        print(f"train.py: {str(stop) or 'interrupted; continue with --resume'}", file=sys.stderr)
        sys.exit(130)
    print("\nNext:")
    print(f"  python eval.py {out} --recordings YOUR.npz       # 3D from any recording")
    print("  python -m canonlift.convert --help                # recordings from your detector")


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
        Interrupted: if the process was asked to stop; the run can be resumed.
    """
    run = runs.start(config, out, resume)
    train_paths, test_paths = find_recordings(config, out)
    session = _read(config, train_paths)
    log = MetricsLog(out, config.terms, run.progress.total_step)
    n_steps = sum(phase.steps for phase in config.schedule)
    with (
        closing(log),
        _stop_signals() as stop,
        tqdm(total=n_steps, initial=run.progress.total_step, disable=None) as bar,
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
    run.save(mean_pose=_mean_pose(run, session))
    return test_paths


class Taken(NamedTuple):
    """A step whose loss nobody has read yet: reading waits for the device."""

    loss: Float[Tensor, ""]
    samples: Int[Tensor, " B"]


def _run_phase(run: Run, session: Session, log: MetricsLog, bar: tqdm, stop: list[str]) -> None:
    """Optimise until the phase has converged or used up its steps; keep the best weights.

    Losses are read several steps at a time, so `run.progress` lags by the steps in `taken`.
    """
    config, phase, progress = run.config, run.phase, run.progress
    compute = computation(config, phase, run.lifter)
    order = sessions.batches(
        len(session.views), config.batch_size, config.seed, progress.total_step
    )
    bar.set_description(phase.name)
    saved, started = time.monotonic(), time.monotonic() - progress.seconds
    taken: list[Taken] = []
    while not progress.over(phase):
        samples = next(order).to(session.recording.device, non_blocking=True)
        views = session.views[samples]
        if config.flip and (progress.total_step + len(taken)) % 2:
            views = sessions.flip(views, config.joints)
        rate = phase.learning_rate_at(progress.step + len(taken))
        loss, terms = descend(run, compute, views, rate)
        taken.append(Taken(loss, samples))
        bar.update()

        logs = (progress.total_step + len(taken)) % LOG_EVERY == 0
        saves = bool(stop) or time.monotonic() - saved > config.checkpoint_seconds
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
        if saves:
            run.save()
            saved = time.monotonic()
        if stop:
            raise Interrupted(
                f"{stop[0]}: saved at step {progress.total_step}; continue with --resume"
            )


def computation(
    config: configs.Config, phase: configs.PhaseConfig, lifter: Lifter
) -> Callable[[Views], tuple[Float[Tensor, ""], dict[str, Tensor]]]:
    """From views to the loss of a phase, and its terms."""
    objective = config.objective(phase)
    stage = least_stage(objective.reads)
    repair = Repair(config.fusion, config.joints)
    return lambda views: objective(stage.run(lifter, repair, views))


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


def _count(run: Run, session: Session, taken: Sequence[Taken]) -> float:
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


def _read(config: configs.Config, paths: list[Path]) -> Session:
    session = sessions.read(paths, config.joints, least_views=2)
    print(f"training on {sessions.describe(session)}")
    views = session.views
    if "camera_consistency" in config.terms and not (views.rig >= 0).any():
        print("no recording names a rig of fixed cameras, so camera_consistency does nothing")
    if config.data.target == "closed_form":
        takes = [views[session.recording == index] for index in range(len(paths))]
        lengths = [max(1, round(config.data.window_s * fps)) for fps in session.fps]
        parts = [
            targets.closed_form(take, config.joints, length)
            for take, length in zip(takes, lengths, strict=True)
        ]
        target = Target(torch.cat([p.pose for p in parts]), torch.cat([p.trust for p in parts]))
        usable = (target.trust.amax((1, 2)) > 0.5).float().mean()
        print(f"closed-form guess of the pose: {usable:.0%} of the frames trusted")
        views = replace(views, target=target)
    elif config.data.target == "pose3d":
        print("SUPERVISED: training reads pose3d (data.target)")
        parts = [targets.true(path, config.joints, views.keypoints.shape[1]) for path in paths]
        pose, trust = torch.cat([p.pose for p in parts]), torch.cat([p.trust for p in parts])
        views = replace(views, target=Target(pose, trust))
    return replace(session, views=views).to(checkpoint.pick_device(config.device))


def _turn_round(run: Run, session: Session) -> dict[str, Any]:
    """Let the recordings vote on the mirrored world, and leave it if they say so."""
    votes = vote(run.lifter, session, run.config.joints)
    if votes.turn_round:
        run.lifter.mirror()
    action = "turned round" if votes.turn_round else "kept"
    tqdm.write(f"  {votes}; {action}")
    last = asdict(votes) | {"turned_round": votes.turn_round, "certainty": votes.certainty}
    before = run.mirror.get("phases", {})
    return last | {"phases": before | {run.phase.name: last}}


@torch.inference_mode()
def _mean_pose(run: Run, session: Session, most: int = 20_000) -> Float[Tensor, "J 3"]:
    """Mean shape of the lifted training poses, in their mean heading, at unit norm.

    Poses are first turned onto their common mean (generalised Procrustes); a mean over camera
    axes would mix all headings into a body without left and right.
    """
    every = max(1, len(session.views) * session.views.keypoints.shape[1] // most)
    poses = []
    for start in range(0, len(session.views), 4096):
        views = session.views[start : start + 4096]
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


def _not_finite(run: Run, session: Session, samples: Tensor, step: int) -> FloatingPointError:
    """Find out which term of which recordings is not finite."""
    what = f"the loss is not finite at step {step}"
    if not run.lifter(session.views[samples]).in_camera.isfinite().all():
        return FloatingPointError(
            f"{what}: the network diverged; lower the learning rate or set clip_norm"
        )
    compute = computation(run.config, run.phase, run.lifter)
    blame = []
    for index in session.recording[samples].unique().tolist():
        own = samples[session.recording[samples] == index]
        _, terms = compute(session.views[own])
        bad = [name for name, value in terms.items() if not value.isfinite()]
        if bad:
            blame.append(f"{', '.join(bad)} in {session.names[index]}")
    where = "; ".join(blame) or "no single recording; try a lower learning rate"
    return FloatingPointError(
        f"{what}: {where}. The last checkpoint in {run.out} is from before; check these "
        "recordings for absurd values"
    )


@contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """Collect SIGINT and SIGTERM instead of dying of the first one."""
    received: list[str] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)
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
