"""Laws of a training run: what it leaves, and what its weights depend on."""

import json

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from training_scene import same, weights

from canonlift.data import frames, windows
from canonlift.data.windows import WindowConfig
from canonlift.inference.model import load
from canonlift.methods import fusion
from canonlift.models.temporal import CameraLifter
from canonlift.training import checkpoint, metrics_log
from canonlift.training import config as configs
from canonlift.training.loop import Hooks
from canonlift.training.mean_pose import mean_pose
from canonlift.training.train import train
from canonlift.types import Lifted, Views


def test_a_run_leaves_everything_that_was_promised(trained, tiny):
    names = {path.name for path in trained.iterdir()}
    assert {
        "checkpoint.pt", "config.yaml", "metrics.csv", "results.json", "predictions.npz",
        "figures", "session",
    } <= names  # fmt: skip
    assert not [name for name in names if name.startswith(".")]
    assert {path.name for path in (trained / "session").iterdir()} == {
        "train_00.npz", "train_01.npz", "test_00.npz",
    }  # fmt: skip
    figures = [path.name for path in (trained / "figures").iterdir()]
    assert {"losses.png", "joint_errors.png"} < set(figures)
    assert all(name.startswith("test_00-") for name in figures if "-" in name)
    assert len(figures) == 5
    assert configs.from_yaml((trained / "config.yaml").read_text()) == configs.load(tiny)
    assert json.loads((trained / "results.json").read_text())["protocol"]["frames"] == 24


def test_the_log_has_every_logged_step_once_with_the_terms_of_its_phase(trained, tiny):
    rows = metrics_log.read(trained)
    assert [int(row["step"]) for row in rows] == [5, 10, 15, 20, 25, 30, 35]
    assert [row["phase"] for row in rows] == [
        "bootstrap", "bootstrap", "stage 1", "stage 1", "stage 2", "stage 2", "stage 2",
    ]  # fmt: skip
    schedule = {phase.name: phase.terms for phase in configs.load(tiny).schedule}
    every = {name for weight in schedule.values() for name in weight}
    for row in rows:
        weight = schedule[row["phase"]]
        assert {name for name in every if row[name]} == weight.keys()
        total = sum(weight[name] * float(row[name]) for name in weight)
        assert float(row["loss"]) == pytest.approx(total, rel=1e-5)
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)


def test_a_finished_checkpoint_holds_the_model_and_no_optimiser(trained):
    state = checkpoint.load(trained)
    assert "optimiser" not in state
    assert "best" not in state
    model = load(trained, "cpu")
    assert model.train_seconds > 0
    decided = {"mirrored", "upright", "turned_round", "certainty"}
    assert decided | {"phases"} == model.mirror.keys()
    assert list(model.mirror["phases"]) == ["bootstrap", "stage 1", "stage 2"]
    assert all(phase.keys() == decided for phase in model.mirror["phases"].values())
    assert model.mean_pose.norm().item() == pytest.approx(1)
    assert torch.equal(model.mean_pose[0], torch.zeros(3))


def test_the_mean_pose_does_not_mix_headings_and_leaves_unseen_views_out(exact):
    """Of one pose in many headings the mean is that pose, in the mean heading."""
    views, truth = exact
    pose = truth.pose[:1, :1]
    turns = Rotation.random(9, rng=np.random.default_rng(0)) ** 0.6
    rotation = torch.from_numpy(turns.as_matrix())[None]
    lifted = Lifted((3.0 * pose).repeat(1, 10, 1, 1), torch.cat([rotation, rotation[:, :1]], 1))
    lifted.pose[:, 9] = torch.randn(17, 3, generator=torch.Generator().manual_seed(0))
    confidence = torch.ones(1, 10, 17)
    confidence[:, 9] = 0
    data = Views(torch.ones(1, 10, 17, 2), confidence, views.rig[:1])

    class Fixed(CameraLifter):
        def __init__(self):
            torch.nn.Module.__init__(self)

        def forward(self, _views):
            return Lifted(lifted.in_camera[:, :, None], None)

    held = frames.FramesInMemory(data, torch.tensor([0, 1]), ("a",))
    found = mean_pose(Fixed(), windows.cut(held, WindowConfig()))
    expected = turns.mean().apply(pose[0, 0] / pose.norm())
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_recordings_on_disk_train_as_the_session_they_came_from(trained, takes, tiny, tmp_path):
    """The embedded session has no other way into the training than the format."""
    files = [f"data.train=[{takes}/train_*.npz]", f"data.test=[{takes}/test_*.npz]"]
    config = configs.load(tiny, ["data.simulate=null", *files])
    outcome = train(config, tmp_path / "run")
    assert outcome == (tmp_path / "run", [takes / "test_00.npz"])
    assert same(weights(tmp_path / "run"), weights(trained))


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(short, plain_weights):
    assert same(weights(short()), plain_weights)
    assert not same(weights(short("seed=1")), plain_weights)


def test_terms_train_and_differ(short, plain_weights):
    baseline = weights(short("schedule.1.weights.refinement=0"))
    assert not same(baseline, plain_weights)
    more = weights(short("schedule.1.weights.consistency_3d=1"))
    assert not same(more, plain_weights)
    off = weights(short("schedule.1.weights.consistency_3d=0"))
    assert same(off, plain_weights)


def test_does_not_compute_what_no_term_reads(short, monkeypatch):
    def refuse(*_):
        raise AssertionError("repaired, though no loss asked for it")

    monkeypatch.setitem(fusion.METHODS, "triangulate", refuse)
    short("schedule.1.weights.refinement=0")
    with pytest.raises(AssertionError, match="no loss asked"):
        short()


def test_trains_without_hooks(short, plain_weights):
    """They look, and keep what a model needs; the weights do not depend on them."""
    out = short(hooks=Hooks(finished=lambda *_: {"mean_pose": torch.zeros(17, 3)}))
    turned_round = checkpoint.load(short())["notes"]["mirror"]["turned_round"]
    assert checkpoint.load(out)["notes"] == {}
    assert same(weights(out), plain_weights) or turned_round
