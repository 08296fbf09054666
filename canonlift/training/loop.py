"""The training loop: it optimises an objective over batches, whatever is learned.

What looks at poses (the mirror check, the monitor, the mean pose) are hooks.
"""

import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from types import FrameType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from canonlift import distributed
from canonlift.data.batches import flip, stream
from canonlift.data.windows import Samples
from canonlift.methods.objective import Objective
from canonlift.models.layers import tf32
from canonlift.training.metrics_log import MetricsLog
from canonlift.training.runs import Run
from canonlift.types import Views

LOG_EVERY = 20

Compute = Callable[[Views], tuple[Float[Tensor, ""], dict[str, Tensor]]]


class Interrupted(Exception):
    """The run was asked to stop, and has saved itself."""


class Hooks(NamedTuple):
    """What is called while a run goes on; each may keep its own entry of `run.notes`."""

    phase_begins: Sequence[Callable[[Run], None]] = ()
    logged: Sequence[Callable[[Run, Mapping[str, Any]], None]] = ()  # a row of metrics.csv
    phase_ends: Sequence[Callable[[Run, Samples], None]] = ()
    finished: Callable[[Run, Samples], dict[str, Any]] = lambda *_: {}  # for the checkpoint


def fit(run: Run, samples: Samples, hooks: Hooks, log_every: int = LOG_EVERY) -> None:
    """Run what is left of the phases, and leave a finished checkpoint.

    Raises:
        FloatingPointError: if the loss is not finite, naming step, term and recording.
        Interrupted: if the process was asked to stop; the run can be resumed.
    """
    columns = [*run.config.terms, *run.config.measures]
    log = MetricsLog(run.out, columns, run.progress.total_step)
    n_steps = sum(phase.steps for phase in run.config.schedule)
    with (
        closing(log),
        stop_signals() as stop,
        tqdm(
            total=n_steps,
            initial=run.progress.total_step,
            disable=None if distributed.is_first() else True,  # None: unless it is a terminal
        ) as bar,
    ):
        while not run.finished:
            _Phase(run, samples, hooks, log, bar, stop, log_every).run_steps()
            converged = run.progress.stale >= run.phase.convergence.patience
            tqdm.write(f"{run.phase.name}: {'converged' if converged else 'out of steps'}")
            run.close_phase()
            for hook in hooks.phase_ends:
                hook(run, samples)
            run.next_phase()
            if not run.finished:
                run.save()
    if distributed.is_first():
        run.save(**hooks.finished(run, samples))


class Step(NamedTuple):
    """A step whose loss has not been read yet: reading waits for the device."""

    loss: Float[Tensor, ""]
    samples: Int[Tensor, " B"]  # of all processes together
    terms: dict[str, Tensor]
    rate: float


class _Phase:
    """The steps of a phase: until it has converged or used them up; the best weights are kept.

    Losses are read several steps at a time, so `run.progress` lags by the steps in `unread`.
    """

    def __init__(
        self,
        run: Run,
        samples: Samples,
        hooks: Hooks,
        log: MetricsLog,
        bar: tqdm,
        stop: list[int],
        log_every: int,
    ) -> None:
        self.run, self.samples, self.hooks = run, samples, hooks
        self.log, self.bar, self.stop, self.log_every = log, bar, stop, log_every
        self.unread: list[Step] = []
        self.saved, self.started = time.monotonic(), time.monotonic() - run.progress.seconds

    def run_steps(self) -> None:
        """Take them."""
        run, progress = self.run, self.run.progress
        compute = objective(run)
        distributed.start_alike(run.network)
        config, first = run.config, progress.total_step
        batches = stream(self.samples, config.batch_size, config.seed, first)
        self.bar.set_description(run.phase.name)
        if progress.step == 0:
            for hook in self.hooks.phase_begins:
                hook(run)
        while not progress.over(run.phase):
            numbers, views = next(batches)
            if config.flip and (progress.total_step + len(self.unread)) % 2:
                views = flip(views, config.joints)
            rate = run.phase.learning_rate_at(progress.step + len(self.unread))
            loss, terms = descend(run, compute, views, rate)
            self.unread.append(Step(loss, numbers, terms, rate))
            self.bar.update()
            self._after_step()

    def _after_step(self) -> None:
        """Read losses, log, save and stop, where that is due."""
        run, progress = self.run, self.run.progress
        logs = (progress.total_step + len(self.unread)) % self.log_every == 0
        # Where one process has to stop or save, all do, at the same step.
        due = time.monotonic() - self.saved > run.config.checkpoint_seconds
        signalled, saves = distributed.highest(
            max(self.stop, default=0), int(bool(self.stop) or due)
        )
        if not (logs or saves or len(self.unread) >= progress.steps_to_decision(run.phase)):
            return
        last = self.unread[-1]
        value = count(run, self.samples, self.unread)
        self.unread.clear()
        progress.seconds = time.monotonic() - self.started
        if logs:
            self._log(last, value)
        if saves:
            run.save()
            self.saved = time.monotonic()
        if signalled:
            name = signal.Signals(signalled).name
            distributed.wait()  # torchrun ends all when one has ended, saved or not
            raise Interrupted(
                f"{name}: saved at step {progress.total_step}; continue with --resume"
            )

    def _log(self, step: Step, value: float) -> None:
        progress = self.run.progress
        self.bar.set_postfix(loss=f"{value:.4f}")
        row = {"step": progress.total_step, "phase": self.run.phase.name, "loss": value}
        row |= {name: term.item() for name, term in step.terms.items()}
        self.log.write(row | {"learning_rate": step.rate, "seconds": progress.seconds})
        for hook in self.hooks.logged:
            hook(self.run, row)


def objective(run: Run) -> Objective:
    """What the current phase of a run minimises."""
    config = run.config
    return Objective(run.network, config.method, run.phase.weights, config.measures)


def descend(
    run: Run, compute: Compute, views: Views, rate: float
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Take one step without waiting for the device; return loss and terms as before it.

    From the first loss that is not finite, the weights stay as they are.
    """
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    run.optimiser.zero_grad(set_to_none=True)
    backward = partial(_backward, run.config.model.precision)
    loss, terms = accumulate(compute, views, run.config.accumulate, backward)
    distributed.average_gradients(run.network)
    if run.phase.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(run.network.parameters(), run.phase.clip_norm)
    halted = run.optimiser.found_inf
    torch.maximum(halted, (~loss.detach().isfinite()).to(halted.dtype), out=halted)
    run.optimiser.step()
    return loss.detach(), terms


def accumulate(
    compute: Compute, views: Views, n_parts: int, backward: Callable[[Tensor], None]
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Loss and terms of a batch, after a backward pass; in parts, of which one is held at a time.

    All terms are functions of sums over the batch (`distributed.over_all`), so these are computed
    first, of all parts without gradients; then each part's gradients, for the sums of the whole.
    The result is that of the whole batch but for rounding, however unevenly parts are observed.

    Raises:
        ValueError: if there are fewer samples than parts.
    """
    if n_parts == 1:
        loss, terms = compute(views)
        backward(loss)
        return loss, terms
    if len(views) < n_parts:
        raise ValueError(
            f"a batch of {len(views)} samples cannot be computed in {n_parts} parts; lower "
            "accumulate"
        )
    ends = [len(views) * number // n_parts for number in range(n_parts + 1)]
    parts = [views[start:end] for start, end in itertools.pairwise(ends)]
    whole = distributed.Parts(n_parts)
    for part in parts:
        with torch.no_grad(), whole.part():
            compute(part)
    whole.add_up()

    def descending(part: Views) -> tuple[Tensor, dict[str, Tensor]]:
        with whole.part():
            loss, terms = compute(part)
        backward(loss / n_parts)
        return loss.detach(), terms

    return [descending(part) for part in parts][-1]  # all return the loss of the whole


def _backward(precision: str, loss: Tensor) -> None:
    with tf32(precision, loss.device):
        loss.backward()


def count(run: Run, samples: Samples, unread: Sequence[Step]) -> float:
    """Read and count the losses of steps, the only place that waits for them; the last one.

    Raises:
        FloatingPointError: if one of them, or a weight, is not finite.
    """
    weights = torch.nn.utils.get_total_norm([p.detach() for p in run.network.parameters()])
    *losses, size = torch.stack([*(step.loss for step in unread), weights]).tolist()
    for index, value in enumerate(losses):
        if not math.isfinite(value):
            step = run.progress.total_step + index
            raise _not_finite(run, samples, unread[index].samples, step)
    if not math.isfinite(size):
        raise FloatingPointError(
            f"the weights are not finite after step {run.progress.total_step + len(unread) - 1}: "
            "the network diverged; lower the learning rate or set clip_norm"
        )
    for value in losses:
        if run.progress.count(value, run.phase.convergence):
            run.keep_best()
    return losses[-1]


@torch.no_grad()
def _not_finite(run: Run, samples: Samples, numbers: Tensor, step: int) -> FloatingPointError:
    """Find out which term of which recordings is not finite, in each process for itself."""
    distributed.leave()
    what = f"the loss is not finite at step {step}"
    if not run.network(samples[numbers]).in_camera.isfinite().all():
        return FloatingPointError(
            f"{what}: the network diverged; lower the learning rate or set clip_norm"
        )
    compute = objective(run)
    culprits = []
    origin = samples.origin(numbers)
    for index in origin.unique().tolist():
        _, terms = compute(samples[numbers[origin == index]])
        bad = [name for name, value in terms.items() if not value.isfinite()]
        if bad:
            culprits.append(f"{', '.join(bad)} in {samples.names[index]}")
    where = "; ".join(culprits) or "no single recording; try a lower learning rate"
    return FloatingPointError(
        f"{what}: {where}. The last checkpoint in {run.out} is from before; check these "
        "recordings for absurd values"
    )


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of the first one.

    Outside of the main thread, where Python handles no signals, nothing is collected.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

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
