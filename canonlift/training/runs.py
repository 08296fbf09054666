"""A training run: everything that its checkpoint must hold to go on as if never stopped."""

import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from canonlift import distributed, files
from canonlift.models import motionbert
from canonlift.models.temporal import SHAPE
from canonlift.training import checkpoint
from canonlift.training import config as configs
from canonlift.training.checkpoint import Network


@dataclass
class Progress:
    """Position in the schedule, and the smoothed loss of the current phase."""

    phase: int = 0
    step: int = 0  # within the phase
    total_step: int = 0
    seconds: float = 0.0
    window_sum: float = 0.0
    window_count: int = 0
    best: float = float("inf")  # lowest mean loss of a window
    stale: int = 0  # windows since the loss last fell
    small: int = 0  # logged steps in a row in which poses were much smaller than what was seen
    flat: int = 0  # and in which they had next to no depth
    deep: int = 0  # and in which they were rods along the axes of the cameras
    still: int = 0  # and in which they hardly moved

    def count(self, loss: float, criterion: configs.ConvergenceConfig) -> bool:
        """Take in the loss of one step; True when a window has ended that is the best yet."""
        self.step += 1
        self.total_step += 1
        self.window_sum += loss
        self.window_count += 1
        return self.window_count >= criterion.window and self.close_window(criterion.tolerance)

    def steps_to_window(self, phase: configs.PhaseConfig) -> int:
        """Steps until a window or the phase ends: no decision is due before."""
        window = phase.convergence.window - self.window_count
        return min(window, phase.steps - self.step)

    def close_window(self, tolerance: float = 0.0) -> bool:
        """End the window; True if it is the best yet."""
        mean = self.window_sum / self.window_count
        self.window_sum, self.window_count = 0.0, 0
        self.stale = 0 if mean < self.best * (1 - tolerance) else self.stale + 1
        better = mean < self.best
        self.best = min(self.best, mean)
        return better

    def over(self, phase: configs.PhaseConfig) -> bool:
        """Whether the phase has converged or used up its steps."""
        return self.step >= phase.steps or self.stale >= phase.convergence.patience

    def next_phase(self) -> None:
        """Stand before the next phase."""
        self.phase += 1
        self.step = self.window_count = self.stale = 0
        self.small = self.flat = self.deep = self.still = 0
        self.window_sum, self.best = 0.0, float("inf")


@dataclass
class Run:
    """A lifter in training."""

    out: Path
    config: configs.Config
    progress: Progress
    lifter: Network
    optimiser: torch.optim.Optimizer
    best: dict[str, Tensor]  # weights at the end of the phase's best window
    mirror: dict[str, Any]  # the last vote on the mirrored world

    @cached_property
    def resolved(self) -> str:
        """The complete config, as the checkpoint holds it."""
        return configs.to_yaml(self.config)

    @property
    def phase(self) -> configs.PhaseConfig:
        """The current phase."""
        return self.config.schedule[self.progress.phase]

    @property
    def finished(self) -> bool:
        """Whether no phase is left."""
        return self.progress.phase >= len(self.config.schedule)

    def keep_best(self) -> None:
        """Remember the weights of now as the phase's best."""
        self.best = {name: value.clone() for name, value in self.lifter.state_dict().items()}

    def close_phase(self) -> None:
        """Return to the phase's best weights.

        The steps after the last window count as one where they are a quarter of it or more.
        """
        tail = self.progress.window_count
        enough = tail >= self.phase.convergence.window // 4 or self.progress.best == float("inf")
        if tail and enough and self.progress.close_window():
            self.keep_best()
        self.lifter.load_state_dict(self.best)

    def next_phase(self) -> None:
        """Go on from the weights as they are, with a new optimiser."""
        self.progress.next_phase()
        if not self.finished:
            self.optimiser = _optimiser(self.lifter, self.phase)
        self.keep_best()

    def save(self, **finished: Any) -> None:
        """Write the checkpoint, in the first process; a finished run adds what its model needs."""
        if not distributed.is_first():
            return
        state = {
            "config": self.resolved,
            "lifter": self.lifter.state_dict(),
            "mirror": self.mirror,
            "progress": asdict(self.progress),
            "seconds": self.progress.seconds,
            **finished,
        }
        if not finished:
            state |= {"optimiser": self.optimiser.state_dict(), "best": self.best}
        checkpoint.save(self.out, state)


def start(config: configs.Config, out: Path, resume: bool) -> Run:
    """Begin a run in `out`, or take up the one that is there.

    Raises:
        FileExistsError: if `out` holds something, and it is not to be resumed or is finished.
        ValueError: if the run there was started with another config.
    """
    resolved = configs.to_yaml(config)
    trained = distributed.from_first(lambda: _look_into(out, resolved, resume))

    torch.manual_seed(config.seed)
    place = distributed.own_device(checkpoint.pick_device(config.device))
    lifter = checkpoint.new_lifter(config).to(place)
    if config.start_from is not None and not trained:
        _load_weights(lifter, config)
    run = Run(out, config, Progress(), lifter, _optimiser(lifter, config.schedule[0]), {}, {})
    run.keep_best()
    if trained:
        _restore(run, checkpoint.load(out))
    if distributed.is_first():
        files.write(out / "config.yaml", lambda file: file.write(resolved.encode()))
    distributed.wait()  # until all have read what the first will overwrite
    return run


def withdraw(out: Path) -> None:
    """Remove what `start` wrote, and what was filmed, from a new folder; nothing was trained."""
    if not distributed.is_first():
        return
    (out / "config.yaml").unlink(missing_ok=True)
    shutil.rmtree(out / "session", ignore_errors=True)
    with suppress(OSError):  # what else is in there is not of this run
        out.rmdir()


def _look_into(out: Path, resolved: str, resume: bool) -> bool:
    """Whether there is a run to go on with; raises if `out` may not be used."""
    begun = (out / "config.yaml").is_file()
    # Hidden files are what a crash left half written.
    held = out.exists() and any(not path.name.startswith(".") for path in out.iterdir())
    if held and not (resume and begun):
        raise FileExistsError(
            f"{out} already holds {'a run' if begun else 'something else'}; choose another --out"
            + (", or continue it with --resume" if begun else "")
        )
    trained = begun and (out / checkpoint.FILE).is_file()
    if trained and (out / "config.yaml").read_text() != resolved:
        raise ValueError(
            f"{out} was started with another config ({out / 'config.yaml'}); "
            "resume with that one and the same overrides"
        )
    return trained


def _restore(run: Run, state: dict[str, Any]) -> None:
    if "mean_pose" in state:
        raise FileExistsError(
            f"{run.out} holds a finished run; evaluate it with `python eval.py {run.out}` or "
            "choose another --out"
        )
    run.progress = Progress(**state["progress"])
    run.lifter.load_state_dict(state["lifter"])
    run.optimiser = _optimiser(run.lifter, run.phase)
    run.optimiser.load_state_dict(state["optimiser"])
    device = next(run.lifter.parameters()).device
    run.best = {name: value.to(device) for name, value in state["best"].items()}
    run.mirror = state["mirror"]


def _load_weights(lifter: Network, config: configs.Config) -> None:
    source = Path(config.start_from)
    if source.is_file():
        motionbert.load(source, lifter, config.joints)
        return
    if not source.exists():
        raise FileNotFoundError(
            f"start_from: {source} does not exist; it has to be a finished run, or a file of "
            "weights published for MotionBERT"
        )
    model = checkpoint.load_model(source, "cpu")
    here, there = _shape(config), _shape(model.config)
    for key, value in here.items():
        if value != there.get(key):
            # Whoever is told to set another skeleton may have recordings that lack its joints.
            remedy = (
                f"train it with skeleton={value}, or leave start_from out"
                if key == "skeleton"
                else "set the same"
            )
            raise ValueError(
                f"start_from: {source} was trained with {key} {there.get(key)}, not {value}; "
                f"{remedy}"
            )
    lifter.load_state_dict(model.lifter.state_dict())


def _shape(config: configs.Config) -> dict[str, Any]:
    """All that has to be equal for weights to fit."""
    shape: dict[str, Any] = {"skeleton": config.skeleton}
    if not config.is_sequence:
        return shape | {"lifter": replace(config.lifter, precision="float32")}
    return shape | {f"sequence.{name}": getattr(config.sequence, name) for name in SHAPE}


def _optimiser(lifter: Network, phase: configs.PhaseConfig) -> torch.optim.Optimizer:
    """An Adam that stands still, on the device, while its `found_inf` is 1.

    The attribute is how torch's GradScaler halts a fused optimiser. Here it is the loss that may
    not be finite: the program reads it only some steps later, and wants the weights as they were.
    """
    optimiser = torch.optim.Adam(
        lifter.parameters(), lr=phase.learning_rate, weight_decay=phase.weight_decay, fused=True
    )
    optimiser.found_inf = torch.zeros((), device=next(lifter.parameters()).device)
    return optimiser
