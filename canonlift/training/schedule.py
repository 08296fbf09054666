"""The schedule of a training: its phases, their learning rates, and when each is over."""

import math
from dataclasses import dataclass, field

from canonlift.methods.terms import TERMS
from canonlift.suggestions import unknown


@dataclass(frozen=True)
class ConvergenceConfig:
    """When a phase is over before its steps are: its mean loss stopped falling."""

    interval: int = 500  # steps over which one mean is taken
    tolerance: float = 0.002  # relative fall that counts as progress
    patience: int = 3  # intervals without progress

    def __post_init__(self) -> None:
        if self.interval < 1 or self.patience < 1:
            raise ValueError("convergence.interval and convergence.patience must be positive")


@dataclass(frozen=True)
class PhaseConfig:
    """One part of the training: its own weights, its own optimiser."""

    name: str
    weights: dict[str, float]  # term of `methods.terms.TERMS` -> its factor; 0: not computed
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
        for name in self.weights:
            if name not in TERMS:
                raise unknown(f"phase {self.name!r}: a term", name, TERMS)
        if not self.terms:
            raise ValueError(f"phase {self.name!r}: at least one term needs a weight other than 0")

    @property
    def terms(self) -> dict[str, float]:
        """The terms that are computed, and their weights."""
        return {name: weight for name, weight in self.weights.items() if weight}

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step of this phase, counted from 0."""
        rate = self.learning_rate * min(1.0, (step + 1) / (self.warmup + 1))
        if self.decay == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return rate * 0.1 ** sum(step >= at for at in self.decay_at)


@dataclass
class Progress:
    """Position in the schedule, and the smoothed loss of the current phase."""

    phase: int = 0
    step: int = 0  # within the phase
    total_step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0  # over the steps of the current interval
    loss_count: int = 0
    best: float = float("inf")  # lowest mean loss of an interval
    stale: int = 0  # intervals since the loss last fell

    def count(self, loss: float, criterion: ConvergenceConfig) -> bool:
        """Count the loss of one step; True when an interval has ended that is the best yet."""
        self.step += 1
        self.total_step += 1
        self.loss_sum += loss
        self.loss_count += 1
        return self.loss_count >= criterion.interval and self.close_interval(criterion.tolerance)

    def steps_to_decision(self, phase: PhaseConfig) -> int:
        """Steps until an interval or the phase ends: no decision is due before."""
        interval = phase.convergence.interval - self.loss_count
        return min(interval, phase.steps - self.step)

    def close_interval(self, tolerance: float = 0.0) -> bool:
        """End the interval; True if it is the best yet."""
        mean = self.loss_sum / self.loss_count
        self.loss_sum, self.loss_count = 0.0, 0
        self.stale = 0 if mean < self.best * (1 - tolerance) else self.stale + 1
        better = mean < self.best
        self.best = min(self.best, mean)
        return better

    def over(self, phase: PhaseConfig) -> bool:
        """Whether the phase has converged or used up its steps."""
        return self.step >= phase.steps or self.stale >= phase.convergence.patience

    def next_phase(self) -> None:
        """Begin the next phase."""
        self.phase += 1
        self.step = self.loss_count = self.stale = 0
        self.loss_sum, self.best = 0.0, float("inf")
