"""Laws of phases: how they end, with which weights, and what the log keeps of them."""

import copy
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch
from training_scene import same

from canonlift.inference.model import load
from canonlift.training import config as configs
from canonlift.training import metrics_log, mirror, runs
from canonlift.training import session as sessions
from canonlift.training.schedule import ConvergenceConfig, PhaseConfig, Progress
from canonlift.training.train import HOOKS

pytestmark = pytest.mark.usefixtures("shapes_unchecked")


def test_a_mirrored_lifter_is_turned_round_exactly(trained, tiny, takes, capsys):
    """And one that is not mirrored is left alone."""
    config = configs.load(tiny)
    data = sessions.read(config, sorted(takes.glob("train_*.npz")))
    capsys.readouterr()
    lifter = load(trained, "cpu").network
    optimiser = runs.HaltingAdam(lifter.parameters())
    run = runs.Run(Path(), config, Progress(), lifter, optimiser, {}, {})
    if mirror.vote(lifter, data, config.joints).turn_round:
        lifter.mirror()
    upright = copy.deepcopy(lifter.state_dict())

    mirror.check_mirror(run, data)
    decided = run.notes["mirror"]
    assert (decided["turned_round"], decided["mirrored"]) == (False, 0)
    assert same(lifter.state_dict(), upright)

    lifter.mirror()
    assert not same(lifter.state_dict(), upright)
    mirror.check_mirror(run, data)
    decided = run.notes["mirror"]
    assert (decided["turned_round"], decided["upright"], decided["certainty"]) == (True, 0, 1.0)
    assert same(lifter.state_dict(), upright)
    assert capsys.readouterr().out.splitlines() == [
        "  mirror check: 2 of 2 recordings upright",
        "  mirror check: 0 of 2 recordings upright; the network was mirrored",
    ]


def test_every_phase_ends_with_a_vote_and_the_model_obeys_the_last(short, monkeypatch):
    """With the ballots exchanged the run ends in the mirror image, and says so."""
    one_phase = ("schedule.0.convergence.patience=1", "schedule.0.steps=3")
    votes, vote = [], mirror.vote

    def record(*args):
        votes.append(vote(*args))
        return votes[-1]

    monkeypatch.setattr(mirror, "vote", record)
    out = short(*one_phase)
    assert len(votes) == 2
    assert votes[0].mirrored + votes[0].upright == 2
    plain = load(out, "cpu")

    calls = iter((False, True))

    def contrary(*args):
        found = vote(*args)
        return mirror.Vote(*reversed(astuple(found))) if next(calls) else found

    monkeypatch.setattr(mirror, "vote", contrary)
    other = load(short(*one_phase), "cpu")
    assert other.mirror["turned_round"] is not plain.mirror["turned_round"]
    flat_depth = torch.tensor([1.0, 1.0, -1.0])
    torch.testing.assert_close(other.mean_pose, plain.mean_pose * flat_depth)
    plain.network.mirror()
    assert same(plain.network.state_dict(), other.network.state_dict())


def test_a_resumed_log_drops_what_lies_after_the_checkpoint_and_what_was_cut_short(tmp_path):
    def row(step):
        return {"step": step, "phase": "a, b", "loss": step / 7, "reprojection": 0.5,
                "learning_rate": 1e-3, "seconds": 2.0}  # fmt: skip

    first = metrics_log.MetricsLog(tmp_path, ["reprojection"], 0)
    for step in (5, 10, 15):
        first.write(row(step))
    with first.path.open("a") as file:
        file.write("20,a")
    assert [row["step"] for row in metrics_log.read(tmp_path)] == ["5", "10", "15"]
    again = metrics_log.MetricsLog(tmp_path, ["reprojection"], 10)
    again.write(row(15))
    rows = metrics_log.read(tmp_path)
    assert [row["step"] for row in rows] == ["5", "10", "15"]
    assert rows[2] == {name: str(value) for name, value in row(15).items()}
    assert metrics_log.read(tmp_path / "nowhere") == []


CRITERION = ConvergenceConfig(interval=2, tolerance=0.1, patience=2)


def progress_after(losses, criterion=CRITERION):
    progress = Progress()
    return progress, [progress.count(loss, criterion) for loss in losses]


def test_intervals_by_hand():
    """Means 5, 4, 3.9, 3.8, 3: the third and fourth are better, but not by a tenth."""
    losses = [6.0, 4.0, 4.0, 4.0, 3.8, 4.0, 3.8, 3.8, 2.0, 4.0]
    stale = []
    progress = Progress()
    phase = PhaseConfig("p", {"reprojection": 1.0}, steps=99, convergence=CRITERION)
    best = []
    for loss in losses[:8]:
        assert not progress.over(phase)
        best.append(progress.count(loss, CRITERION))
        stale.append(progress.stale)
    assert best == [False, True] * 4
    assert stale == [0, 0, 0, 0, 0, 1, 1, 2]
    assert progress.over(phase)
    assert progress.best == pytest.approx(3.8)
    for loss in losses[8:]:  # had it gone on
        progress.count(loss, CRITERION)
    assert (progress.stale, progress.best) == (0, 3.0)
    assert (progress.step, progress.total_step) == (10, 10)


def test_a_worse_interval_is_not_the_best():
    progress, best = progress_after([3.0, 1.0, 4.0, 4.0, 2.0, 1.0])
    assert best == [False, True, False, False, False, True]
    assert progress.best == 1.5


def test_the_steps_run_out():
    phase = PhaseConfig("p", {"reprojection": 1.0}, steps=3, convergence=CRITERION)
    assert [progress_after([1.0] * n)[0].over(phase) for n in range(5)] == [
        False, False, False, True, True,
    ]  # fmt: skip


def test_the_next_phase_starts_afresh_but_keeps_counting_steps():
    progress, _ = progress_after([5.0] * 5)
    progress.seconds = 7.0
    progress.next_phase()
    assert progress == Progress(phase=1, total_step=5, seconds=7.0)


def test_a_phase_returns_to_its_best_weights(short, tmp_path):
    """Those at the end of the best interval, an unfinished last one included."""
    config = short.config("schedule.0.convergence.interval=2")

    def play(losses, name):
        run = runs.start(config, tmp_path / name, resume=False)
        with torch.no_grad():
            for step, loss in enumerate(losses, start=1):
                run.network.pose[-1].bias.fill_(step)
                if run.progress.count(float(loss), run.phase.convergence):
                    run.keep_best()
        run.close_phase()
        return run.network.pose[-1].bias[0].item()

    assert play([9, 9, 1, 3, 5, 5], "second interval") == 4
    assert play([9, 9, 1, 3, 5, 5, 1], "last, unfinished") == 7
    assert play([9, 9, 1, 3, 5, 5, 2], "no better") == 4
    assert play([3], "first, unfinished") == 1
    config = short.config("schedule.0.convergence.interval=8")
    assert play([9] * 8 + [1], "too little to tell") == 8
    assert play([9] * 8 + [1, 1], "a quarter of an interval") == 10


def test_training_stops_where_the_loss_has_converged(short):
    """With the weights as they were at the end of the best interval."""
    seen = []

    def note(run, _samples):
        seen.append((run.phase.name, run.progress.step))

    hooks = HOOKS._replace(phase_ends=(note,))
    short("schedule.0.steps=1000", "schedule.0.learning_rate=1e-9", hooks=hooks)
    assert seen == [("first", 6), ("second", 4)]  # intervals end at 2, 4, 6; two are stale


def test_learning_rate_by_hand():
    def phase(**settings):
        return PhaseConfig("p", {"reprojection": 1.0}, 10, learning_rate=8.0, **settings)

    def rates(steps, **settings):
        return [phase(**settings).learning_rate_at(step) for step in steps]

    assert rates([0, 3, 9]) == [8.0, 8.0, 8.0]
    assert rates([0, 1, 2, 3, 4, 9], warmup=3) == [2.0, 4.0, 6.0, 8.0, 8.0, 8.0]
    assert rates([0, 5], decay="cosine") == pytest.approx([8.0, 4.0])
    assert rates([0, 2, 5], decay="cosine", warmup=1) == pytest.approx(
        [4.0, 4 * (1 + np.cos(0.2 * np.pi)), 4.0]
    )
    assert rates([3, 4, 6, 7], decay_at=[4, 7]) == pytest.approx([8.0, 0.8, 0.8, 0.08])


def test_the_optimiser_steps_at_the_rate_of_its_phase(trained, tiny):
    for row in metrics_log.read(trained):
        phase = {p.name: p for p in configs.load(tiny).schedule}[row["phase"]]
        start = {"bootstrap": 0, "stage 1": 12, "stage 2": 24}[phase.name]
        expected = phase.learning_rate_at(int(row["step"]) - 1 - start)
        assert float(row["learning_rate"]) == expected
