"""A training run: everything that its checkpoint must hold to go on as if never stopped."""

import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from canonlift import distributed, files
from canonlift.models import motionbert
from canonlift.models.network import Network
from canonlift.training import checkpoint
from canonlift.training import config as configs
from canonlift.training.schedule import PhaseConfig, Progress


class HaltingAdam(torch.optim.Adam):
    """An Adam that skips its steps, on the device, while its `found_inf` is 1.

    The attribute is how torch's GradScaler halts a fused optimiser. Here it is set when the loss
    is not finite, which the program reads some steps later; until then the weights must stay.
    """

    found_inf: Tensor


@dataclass
class Run:
    """A network in training."""

    out: Path
    config: configs.Config
    progress: Progress
    network: Network
    optimiser: HaltingAdam
    best: dict[str, Tensor]  # weights at the end of the phase's best interval
    notes: dict[str, Any]  # what hooks keep over a restart, each under its own name

    @cached_property
    def resolved(self) -> str:
        """The complete config, as the checkpoint holds it."""
        return configs.to_yaml(self.config)

    @property
    def phase(self) -> PhaseConfig:
        """The current phase."""
        return self.config.schedule[self.progress.phase]

    @property
    def finished(self) -> bool:
        """Whether no phase is left."""
        return self.progress.phase >= len(self.config.schedule)

    def keep_best(self) -> None:
        """Keep the present weights as the phase's best."""
        self.best = {name: value.clone() for name, value in self.network.state_dict().items()}

    def close_phase(self) -> None:
        """Return to the phase's best weights.

        The steps after the last interval count as one where they are a quarter of it or more.
        """
        tail = self.progress.loss_count
        enough = tail >= self.phase.convergence.interval // 4 or self.progress.best == float("inf")
        if tail and enough and self.progress.close_interval():
            self.keep_best()
        self.network.load_state_dict(self.best)

    def next_phase(self) -> None:
        """Begin the next phase from the present weights, with a new optimiser."""
        self.progress.next_phase()
        if not self.finished:
            self.optimiser = optimiser_of(self.network, self.phase)
        self.keep_best()

    def save(self, **finished: Any) -> None:
        """Write the checkpoint, in the first process; a finished run adds what its model needs."""
        if not distributed.is_first():
            return
        state = {
            "config": self.resolved,
            "lifter": self.network.state_dict(),
            "notes": self.notes,
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
    network = checkpoint.new_network(config).to(place)
    if config.start_from is not None and not trained:
        _load_weights(network, config)
    run = Run(out, config, Progress(), network, optimiser_of(network, config.schedule[0]), {}, {})
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
            f"{run.out} holds a finished run; evaluate it with `canonlift eval {run.out}` or "
            "choose another --out"
        )
    run.progress = Progress(**state["progress"])
    run.network.load_state_dict(state["lifter"])
    run.optimiser = optimiser_of(run.network, run.phase)
    run.optimiser.load_state_dict(state["optimiser"])
    device = next(run.network.parameters()).device
    run.best = {name: value.to(device) for name, value in state["best"].items()}
    run.notes = state["notes"]


def _load_weights(network: Network, config: configs.Config) -> None:
    source = Path(config.start_from or "")
    if source.is_file():
        motionbert.load(source, network, config.joints)
        return
    if not source.exists():
        raise FileNotFoundError(
            f"start_from: {source} does not exist; it has to be a finished run, or a file of "
            "weights published for MotionBERT"
        )
    state = checkpoint.load_finished(source)
    here, there = _shape(config), _shape(configs.from_yaml(state["config"]))
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
    network.load_state_dict(state["lifter"])


def _shape(config: configs.Config) -> dict[str, Any]:
    """All that has to be equal for weights to fit."""
    model = {f"model.{name}": value for name, value in asdict(config.model).items()}
    del model["model.precision"], model["model.checkpointing"]
    return {"skeleton": config.skeleton, "windows.length": config.windows.length, **model}


def optimiser_of(network: Network, phase: PhaseConfig) -> HaltingAdam:
    """A new optimiser for a phase."""
    optimiser = HaltingAdam(
        network.parameters(), lr=phase.learning_rate, weight_decay=phase.weight_decay, fused=True
    )
    optimiser.found_inf = torch.zeros((), device=next(network.parameters()).device)
    return optimiser
