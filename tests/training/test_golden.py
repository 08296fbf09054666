"""Golden runs: the same program gives the same weights, and another is found out."""

import sys

import pytest
import torch

from benchmarks import golden
from canonlift.training import checkpoint
from canonlift.training import config as configs

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

WEIGHTS = {"a": torch.tensor([1.0, 2.0]), "b": torch.zeros(3)}


@pytest.fixture
def runs(monkeypatch):
    """Weights that the runs end with, which a test may change."""
    found = {name: value.clone() for name, value in WEIGHTS.items()}
    monkeypatch.setattr(golden, "weights_of", lambda *_: found)
    return found


@pytest.mark.usefixtures("runs")
def test_equal_weights_are_identical(tmp_path, capsys):
    golden.main(["pin", str(tmp_path)])
    golden.main(["compare", str(tmp_path)])
    printed = capsys.readouterr().out
    assert all(f"{name}: identical" in printed for name in golden.RUNS)


def test_another_weight_is_named_and_ends_with_status_1_beyond_the_tolerance(
    runs, tmp_path, capsys
):
    golden.main(["pin", str(tmp_path), "--runs", "smoke"])
    runs["a"][1] += 0.25
    with pytest.raises(SystemExit) as stopped:
        golden.main(["compare", str(tmp_path), "--runs", "smoke", "--tolerance", "0.2"])
    assert stopped.value.code == 1
    assert "smoke: largest difference 2.50e-01, in a" in capsys.readouterr().out
    golden.main(["compare", str(tmp_path), "--runs", "smoke", "--tolerance", "0.3"])


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"a": WEIGHTS["a"]}, "other weights: b"),
        (WEIGHTS | {"b": torch.zeros(4)}, "other shapes: b"),
        (WEIGHTS | {"b": torch.full((3,), torch.nan)}, "not finite: b"),
    ],
)
def test_weights_that_cannot_be_compared_exceed_every_tolerance(now, words):
    assert golden.difference(WEIGHTS, now) == (words, float("inf"))


def test_runs_that_were_not_pinned_are_named(tmp_path):
    with pytest.raises(SystemExit, match=r"about.json: .*pin"):
        golden.main(["compare", str(tmp_path)])


@pytest.mark.parametrize("name", golden.RUNS)
def test_every_run_is_of_a_config_that_canonlift_has(name):
    run = golden.RUNS[name]
    config = configs.load(run.config, run.overrides)
    assert sum(phase.steps for phase in config.schedule) <= 400


class Forked:
    """What golden runs need of a process, which starts at once."""

    def __init__(self, programs, command):
        assert command[:3] == [sys.executable, "-m", "benchmarks.golden"]
        first = "import runpy; runpy.run_module('benchmarks.golden', None, '__main__', True)"
        programs.start(*command[2:], first=f"{first}; sys.exit()")
        self.programs = programs

    def communicate(self):
        self.returncode, printed = self.programs.wait()
        return printed, None


def test_a_run_is_that_of_training(monkeypatch, programs, tmp_path):
    """In a process of its own, as in this one."""
    session = "data.simulate={n_train: 2, n_test: 0, n_frames: 20, fps: 10}"
    short = [f"schedule.{phase}.steps=2" for phase in range(3)]
    tiny = golden.Golden("smoke", (session, "model.width=8", *short))
    monkeypatch.setattr(golden, "RUNS", {"tiny": tiny})
    monkeypatch.setattr(golden, "start_program", lambda command: Forked(programs, command))
    golden.train_here("smoke", tmp_path / "run", tiny.overrides)
    state = checkpoint.load_finished(tmp_path / "run")
    here = {**state["lifter"], "mean_pose": state["mean_pose"]}
    assert golden.difference(here, golden.weights_of("tiny", "cpu")) == ("identical", 0.0)
