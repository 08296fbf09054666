"""Laws of the loop: losses that are not finite, and when losses are read."""

import signal
from itertools import chain

import pytest
import torch
from training_scene import same, weights

from canonlift.data import recording as recordings
from canonlift.data.batches import chunks, flip
from canonlift.methods import fusion
from canonlift.methods.objective import Objective
from canonlift.methods.terms import TERMS
from canonlift.training import checkpoint, loop, runs
from canonlift.training import session as sessions

pytestmark = pytest.mark.usefixtures("shapes_unchecked")


def absurd(take):
    keypoints, confidence = take.keypoints.copy(), take.confidence.copy()
    keypoints[7, 1, 3], confidence[7, 1, 3] = 1e30, 0.5
    return {"keypoints": keypoints, "confidence": confidence}


def test_a_loss_that_is_not_finite_names_step_term_and_recording(short, plant, takes):
    path = plant("absurd", **absurd(recordings.load(takes / "train_00.npz")))
    overrides = (f"data.train=[{path}, {takes}/train_01.npz]", "schedule.1.steps=99")
    with pytest.raises(
        FloatingPointError, match=r"step \d+: refinement in \S*absurd.npz"
    ) as error:
        short(*overrides, name="broken")
    assert "train_01" not in str(error.value)
    state = checkpoint.load(path.parent.parent / "broken")
    assert all(value.isfinite().all() for value in state["lifter"].values())


def test_a_learning_rate_that_is_too_high_is_not_blamed_on_recordings(short):
    with pytest.raises(
        FloatingPointError, match="step 1: the network diverged; lower the"
    ) as error:
        short("schedule.0.learning_rate=1e30")
    assert ".npz" not in str(error.value)


def test_a_gradient_that_is_not_finite_never_reaches_a_checkpoint(short, monkeypatch, tmp_path):
    """The root of nothing costs 0, and its slope is infinite: the loss does not show it."""
    term, step = TERMS["reprojection"], iter(range(99))

    def compute(result):
        nothing = 0.0 * result.lifted.pose.square().sum()
        return term.compute(result) + (nothing.sqrt() if next(step) == 2 else nothing)

    monkeypatch.setitem(TERMS, "reprojection", term._replace(compute=compute))
    with pytest.raises(FloatingPointError, match="weights are not finite after step 2: the netw"):
        short("checkpoint_seconds=0", name="steep")
    state = checkpoint.load(tmp_path / "steep")
    assert state["progress"]["total_step"] == 2
    assert all(value.isfinite().all() for value in state["lifter"].values())


def test_reads_losses_together_and_counts_them_as_if_one_by_one(short, monkeypatch, plain_weights):
    """Reading a loss waits for the device: once for many steps, and where an interval ends."""
    read = []
    count = loop.count
    monkeypatch.setattr(loop, "count", lambda *a: (read.append(len(a[2])), count(*a))[1])
    plain = short("checkpoint_seconds=1e9")
    assert read == [2, 2, 2, 4]  # intervals of 2 until the phase has converged; then 4 steps
    assert same(weights(plain), plain_weights)
    read.clear()
    each = short("checkpoint_seconds=0")
    assert read == [1] * 10
    assert same(weights(each), plain_weights)
    together, apart = ({**checkpoint.load(out)["progress"]} for out in (plain, each))
    assert {**together, "seconds": 0} == {**apart, "seconds": 0}


@pytest.mark.cuda  # nothing else tells of waiting for it
@pytest.mark.parametrize("method", fusion.METHODS)
def test_a_step_does_not_wait_for_the_device(short, takes, tmp_path, method):
    overrides = ("model.rotation=axis_angle", "flip=true", f"fusion.method={method}")
    config = short.config("device=cuda", *overrides)
    names = [n for n, term in TERMS.items() if config.provides.issuperset(term.needs)]
    run = runs.start(config, tmp_path / "run", resume=False)
    data = sessions.read(config, sorted(takes.glob("train_*.npz")))
    compute = Objective(run.network, config.method, dict.fromkeys(names, 1.0))
    order = chain.from_iterable(chunks(len(data), 8, 0, 0))

    def step():
        samples = next(order).to("cuda", non_blocking=True)
        views = flip(data[samples], config.joints)
        return loop.descend(run, compute, views, 1e-3)

    step()  # constants move to the device once
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_signals_of_the_caller_come_back(short):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    short()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_short_phase_is_saved_when_it_ends(short, monkeypatch):
    """However short the phases are, a crash costs no more than the one it is in."""
    saved = []
    monkeypatch.setattr(
        checkpoint, "save", lambda _, state: saved.append(state["progress"]["total_step"])
    )
    short("checkpoint_seconds=1e9")
    assert saved == [6, 10]
