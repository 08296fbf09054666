"""One experiment as a tree of dataclasses, read strictly from YAML."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from canonlift.body.skeleton import SKELETONS
from canonlift.methods.fusion import FusionConfig
from canonlift.methods.stages import STAGES, MotionPass
from canonlift.methods.terms import SUPERVISED, TERMS, Objective
from canonlift.models.mlp import LifterConfig
from canonlift.models.temporal import SequenceConfig
from canonlift.simulation.session import SimulateConfig
from canonlift.suggestions import unknown

# The rows of CVSF's Table 1, by the stage that every phase runs, and the models of sequences. A
# term that the stage does not feed takes no part, so that one schedule serves all three rows.
VARIANTS = {
    "baseline": "lift",
    "s1": "fuse",
    "s1+s2": "relift",
    "sequence": "align",
    "sequence+fusion": "remend",
}

TARGETS = {
    "none": "no 3D target",
    "closed_form": "a guess from all views together; self-supervised",
    "pose3d": "the recordings' ground truth; supervised",
}


@dataclass(frozen=True)
class DataConfig:
    """Which recordings are read."""

    train: list[str] = field(default_factory=list)  # globs, from where the program is started
    test: list[str] = field(default_factory=list)
    target: str = "none"  # row of TARGETS, for the terms that learn from 3D
    supervised: list[str] = field(default_factory=list)  # of train: 3D of these alone is read
    window_s: float = 2.0  # closed_form: seconds in which cameras keep their relative rotations
    simulate: SimulateConfig | None = None  # film a session into RUN/session, and read that
    shards: str | None = None  # folder for copies, to train on more than fits into memory

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise unknown("data.target", self.target, TARGETS)
        if not 0 <= self.window_s < math.inf:
            raise ValueError(f"data.window_s must not be negative, got {self.window_s}")
        if self.supervised and self.target == "pose3d":
            raise ValueError(
                "data.target: pose3d reads the 3D of all recordings, data.supervised that of "
                "some; set data.target to none or closed_form for the others, or "
                "data.supervised to []"
            )
        if self.simulate is None and not self.train:
            raise ValueError("data.train names no recordings and data.simulate films none")
        if self.simulate is not None and (self.train or self.test):
            raise ValueError(
                "data.simulate films the recordings, so data.train and data.test would not be "
                "read; set data.simulate=null to read them"
            )


@dataclass(frozen=True)
class ConvergenceConfig:
    """When a phase is over before its steps are: its mean loss stopped falling."""

    window: int = 500  # steps that one mean is taken over
    tolerance: float = 0.002  # relative fall that counts as progress
    patience: int = 3  # windows without progress

    def __post_init__(self) -> None:
        if self.window < 1 or self.patience < 1:
            raise ValueError("convergence.window and convergence.patience must be positive")


@dataclass(frozen=True)
class PhaseConfig:
    """One part of the training: its own weights, its own optimiser."""

    name: str
    weights: dict[str, float]  # term of `objective.TERMS` -> its factor
    steps: int  # at most
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    warmup: int = 0  # steps until the full learning rate
    decay: str = "none"  # "cosine": to 0 over `steps`
    decay_at: list[int] = field(default_factory=list)  # steps at which it drops tenfold
    clip_norm: float | None = None  # gradient norm ceiling; None leaves gradients alone
    convergence: ConvergenceConfig = field(default_factory=ConvergenceConfig)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"phase {self.name!r}: steps must be positive, got {self.steps}")
        if not self.learning_rate > 0 or self.warmup < 0 or self.weight_decay < 0:
            raise ValueError(
                f"phase {self.name!r}: learning_rate must be positive, warmup and weight_decay "
                f"not negative; got {self.learning_rate}, {self.warmup} and {self.weight_decay}"
            )
        if self.decay not in ("none", "cosine"):
            raise unknown(f"phase {self.name!r}: decay", self.decay, ("none", "cosine"))

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step of this phase, counted from 0."""
        rate = self.learning_rate * min(1.0, (step + 1) / (self.warmup + 1))
        if self.decay == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return rate * 0.1 ** sum(step >= at for at in self.decay_at)


@dataclass(frozen=True)
class Config:
    """One experiment. Every field is written to the run."""

    schedule: list[PhaseConfig]
    data: DataConfig
    seed: int = 0
    skeleton: str = "h36m17"
    variant: str = "s1+s2"
    batch_size: int = 32
    flip: bool = False  # show every other batch mirrored left to right
    lifter: LifterConfig = field(default_factory=LifterConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    sequence: SequenceConfig = field(default_factory=SequenceConfig)  # in place of `lifter`
    start_from: str | None = None  # a finished run, or MotionBERT's weights, to begin with
    checkpoint_seconds: float = 30.0  # the most that a crash can cost
    device: str = "auto"  # or any torch device

    def __post_init__(self) -> None:
        if self.skeleton not in SKELETONS:
            raise unknown("skeleton", self.skeleton, SKELETONS)
        if self.variant not in VARIANTS:
            raise unknown("variant", self.variant, VARIANTS)
        known = {name for joints in SKELETONS.values() for name in joints}
        for name in self.fusion.never:
            if name not in known:
                raise unknown("fusion.never", name, sorted(known))
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {self.batch_size}")
        if not self.checkpoint_seconds >= 0:
            raise ValueError(
                f"checkpoint_seconds must not be negative, got {self.checkpoint_seconds}"
            )
        if self.is_sequence and self.data.shards is not None:
            raise ValueError(
                f"data.shards holds single frames, which variant {self.variant!r} cannot use; "
                "set data.shards=null"
            )
        if not self.schedule:
            raise ValueError("schedule needs at least one phase")
        for phase in self.schedule:
            self.objective(phase)

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the skeleton's joints."""
        return SKELETONS[self.skeleton]

    @property
    def is_sequence(self) -> bool:
        """Whether windows are lifted, and not single frames."""
        return issubclass(STAGES[VARIANTS[self.variant]].produces, MotionPass)

    @property
    def terms(self) -> list[str]:
        """Names of all terms that some phase computes."""
        return sorted({name for phase in self.schedule for name in self.objective(phase).weights})

    @property
    def measures(self) -> list[str]:
        """Names of all that some phase measures beside its terms."""
        objectives = [self.objective(phase) for phase in self.schedule]
        return sorted({name for objective in objectives for name in objective.measures})

    def objective(self, phase: PhaseConfig) -> Objective:
        """What a phase minimises in this variant.

        Raises:
            ValueError: if there is no such term, or nothing is left to minimise.
        """
        produces = STAGES[VARIANTS[self.variant]].produces
        try:
            for name in filter(TERMS.get, phase.weights):
                over_time = issubclass(TERMS[name].reads, MotionPass)
                if phase.weights[name] and over_time != self.is_sequence:
                    kind = "windows" if over_time else "single frames"
                    raise ValueError(
                        f"term {name!r} is of {kind}, which variant {self.variant!r} does not "
                        "lift; give it the weight 0"
                    )
            fed = {
                name: weight
                for name, weight in phase.weights.items()
                if name not in TERMS or issubclass(produces, TERMS[name].reads)
            }
            blind = self.data.target == "none" and not self.data.supervised
            needy = [name for name in SUPERVISED if fed.get(name) and blind]
            if needy:
                raise ValueError(
                    f"term {needy[0]!r} needs data.target: closed_form (or pose3d); "
                    "or give it the weight 0"
                )
            if blind:
                fed = {name: weight for name, weight in fed.items() if name not in SUPERVISED}
            return Objective(fed, produces)
        except ValueError as error:
            raise ValueError(f"phase {phase.name!r}: {error}") from error


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML config and apply overrides such as `seed=1` or `schedule.0.steps=9`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file and the key, with the nearest valid name.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such config; see the folder configs")
    try:
        given = OmegaConf.load(path)
        for override in overrides:
            key, equals, value = override.partition("=")
            if not equals:
                raise ValueError(f"{override!r} is not of the form key=value")
            try:
                OmegaConf.update(given, key, yaml.safe_load(value))
            except IndexError as error:
                raise ValueError(f"{key}: there is no such entry in the list") from error
        for split in ("train", "test", "supervised") if OmegaConf.is_dict(given) else ():
            if isinstance(glob := OmegaConf.select(given, f"data.{split}"), str):
                OmegaConf.update(given, f"data.{split}", [glob])  # one glob needs no brackets
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), given))
    except OmegaConfBaseException as error:
        message = str(error).partition("\n")[0]
        raise ValueError(": ".join(filter(None, (str(path), error.full_key, message)))) from error
    except (yaml.YAMLError, ValueError, TypeError, OSError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    return config


def to_yaml(config: Config) -> str:
    """The resolved config, complete."""
    return OmegaConf.to_yaml(OmegaConf.create(asdict(config)))


def from_yaml(text: str) -> Config:
    """Read back what `to_yaml` wrote."""
    merged: Any = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(text))
    return OmegaConf.to_object(merged)
