"""Laws of training: one config, one result, whatever happens on the way."""

import copy
import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import astuple, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import train
from canonlift.body.skeleton import H36M17
from canonlift.data import recording as recordings
from canonlift.data import samples as sessions
from canonlift.evaluation.evaluate import evaluate
from canonlift.inference.predict import predict
from canonlift.methods import fusion
from canonlift.methods.fusion import FusionConfig, fuse
from canonlift.methods.stages import Repair
from canonlift.methods.terms import TERMS
from canonlift.output.figures import pictures
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.session import SimulateConfig, session, write_session
from canonlift.training import checkpoint, metrics_log, mirror, runs
from canonlift.training import config as configs
from canonlift.types import Lifted, Views

REPOSITORY = Path(train.__file__).parent

# As configs/demo.yaml is: both stages after a start in closed form.
TINY = """
batch_size: 8
flip: true
device: cpu
checkpoint_seconds: 0.05
data:
  target: closed_form
  simulate: {n_train: 2, n_test: 1, n_people_train: 2, n_people_test: 1, n_frames: 24,
    cameras: {n_views: 3}}
lifter: {width: 16, rotation: 6d}
fusion: {method: triangulate, extent: 0.7}
schedule:
  - {name: bootstrap, steps: 12, learning_rate: 1.0e-3, warmup: 3, decay: cosine,
    weights: {imitation: 1.0}}
  - {name: stage 1, steps: 12, learning_rate: 3.0e-2, convergence: {window: 3, patience: 4},
    weights: {reprojection: 1, refinement: 1, fused_reprojection: 0.01, consistency_3d: 0.01}}
  - {name: stage 2, steps: 13, learning_rate: 1.0e-3, decay: cosine, convergence: {window: 5},
    weights: {reprojection: 0.01, refinement: 0.01, fused_reprojection: 1, consistency_3d: 1}}
"""

# Two short phases in which every setting of a phase has something to do.
SHORT = """
batch_size: 8
device: cpu
data: {train: [TAKES/train_*.npz], target: closed_form}
lifter: {width: 16, rotation: 6d}
fusion: {method: triangulate}
schedule:
  - {name: first, steps: 8, learning_rate: 1.0e-3, weights: {imitation: 1.0, reprojection: 1.0},
    warmup: 1, convergence: {window: 2, tolerance: 0.5, patience: 2}}
  - {name: second, steps: 4, learning_rate: 1.0e-3, weights: {refinement: 1.0, reprojection: 1.0}}
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def takes(tiny, tmp_path_factory):
    """The recordings that the tiny config films."""
    folder = tmp_path_factory.mktemp("takes")
    write_session(configs.load(tiny).data.simulate, folder)
    return folder


def draw_little(patch, kind):
    """Have one kind of frame drawn, small: drawing takes longer than training."""
    found = pictures.notable_frames
    patch.setattr(pictures, "DPI", 20)
    patch.setattr(
        pictures,
        "notable_frames",
        lambda *args: {k: v for k, v in found(*args).items() if k == kind},
    )


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory):
    """A run folder that `python train.py` left, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "LOG_EVERY", 5)
        draw_little(patch, "most_repaired")
        patch.setattr(sys, "argv", ["train.py", str(tiny), "--out", str(out)])
        train.main()
    return out


@pytest.fixture
def short(takes, tmp_path):
    """Trains the short config with overrides, in a new folder, which it returns."""
    path = tmp_path / "short.yaml"
    path.write_text(SHORT.replace("TAKES", str(takes)))

    def fit(*overrides, name=""):
        out = tmp_path / (name or f"run {len(list(tmp_path.iterdir()))}")
        train.train(configs.load(path, overrides), out)
        return out

    fit.config = lambda *overrides: configs.load(path, overrides)
    return fit


# A small model of sequences, from a start in closed form.
OVER_TIME = """
variant: sequence
batch_size: 4
device: cpu
flip: true
data: {train: [TAKES/train_*.npz], target: closed_form}
sequence: {length: 9, stride: 4, segment: 4, depth: 1, heads: 2, width: 16}
schedule:
  - {name: first, steps: 6, learning_rate: 1.0e-3, weights: {position: 1, velocity: 0.5}}
  - {name: second, steps: 6, learning_rate: 1.0e-3, weights: {image: 1.0, consistency: 1.0}}
"""


@pytest.fixture
def over_time(takes, tmp_path):
    """As `short`, of sequences."""
    path = tmp_path / "over_time.yaml"
    path.write_text(OVER_TIME.replace("TAKES", str(takes)))

    def fit(*overrides):
        out = tmp_path / f"run {len(list(tmp_path.iterdir()))}"
        train.train(configs.load(path, overrides), out)
        return out

    fit.config = lambda *overrides: configs.load(path, overrides)
    return fit


@pytest.fixture(scope="session")
def plain_weights(takes, tmp_path_factory):
    """What the short config comes to."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "short.yaml").write_text(SHORT.replace("TAKES", str(takes)))
    train.train(configs.load(folder / "short.yaml"), folder / "run")
    return weights(folder / "run")


@pytest.fixture
def plant(takes, tmp_path):
    """Writes a changed copy of a take, and returns its path."""

    def write(name, take="train_00", **change):
        original = recordings.load(takes / f"{take}.npz")
        change = {k: v(original) if callable(v) else v for k, v in change.items()}
        recordings.save(replace(original, **change), tmp_path / "planted" / f"{name}.npz")
        return tmp_path / "planted" / f"{name}.npz"

    return write


def weights(run):
    return checkpoint.load(run)["lifter"]


def same(one, other):
    """Bit-identical weights."""
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def table(run):
    """The log without its clock."""
    with (run / metrics_log.FILE).open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


# --- a run


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
    schedule = {phase.name: phase.weights for phase in configs.load(tiny).schedule}
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
    model = checkpoint.load_model(trained, "cpu")
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
    run = SimpleNamespace(lifter=lambda _: lifted)
    found = train._mean_pose(run, sessions.Session(data, torch.zeros(1).long(), ("a",)))
    expected = turns.mean().apply(pose[0, 0] / pose.norm())
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_recordings_on_disk_train_as_the_session_they_came_from(trained, takes, tiny, tmp_path):
    """The embedded session has no other way into the training than the format."""
    files = [f"data.train=[{takes}/train_*.npz]", f"data.test=[{takes}/test_*.npz]"]
    config = configs.load(tiny, ["data.simulate=null", *files])
    assert train.train(config, tmp_path / "run") == [takes / "test_00.npz"]
    assert same(weights(tmp_path / "run"), weights(trained))


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(short, plain_weights):
    assert same(weights(short()), plain_weights)
    assert not same(weights(short("seed=1")), plain_weights)


def test_variants_train_and_differ(short, plain_weights):
    found = {name: weights(short(f"variant={name}")) for name in ("baseline", "s1")}
    assert not same(found["baseline"], found["s1"])
    assert same(found["s1"], plain_weights)  # no phase has a term that needs the second lifting
    more = "schedule.1.weights.consistency_3d=1"
    assert not same(weights(short(more)), plain_weights)
    assert same(weights(short(more, "variant=s1")), plain_weights)


def test_does_not_compute_what_no_term_reads(short, monkeypatch):
    def refuse(*_):
        raise AssertionError("repaired, though no loss asked for it")

    monkeypatch.setattr(Repair, "__call__", refuse)
    short("schedule.1.weights.refinement=0", "variant=baseline")
    with pytest.raises(AssertionError, match="no loss asked"):
        short()


# --- what may not be trained on


def poisoned(takes, tmp_path, *keys):
    """Copies of the takes whose ground truth is NaN."""
    folder = tmp_path / "-".join(keys)
    for path in takes.glob("*.npz"):
        take = recordings.load(path)
        lies = {key: np.full_like(getattr(take, key), np.nan) for key in keys}
        recordings.save(replace(take, **lies), folder / path.name)
    return folder


def test_self_supervised_training_never_reads_the_truth(trained, takes, tiny, tmp_path):
    """Nor do the switch of stages, the choice of weights and the vote on the mirrored world."""
    lies = poisoned(takes, tmp_path, "pose3d", "keypoints_true")
    config = configs.load(tiny, ["data.simulate=null", f"data.train=[{lies}/train_*.npz]"])
    train.train(config, tmp_path / "run")
    found, expected = checkpoint.load(tmp_path / "run"), checkpoint.load(trained)
    assert same(found["lifter"], expected["lifter"])
    assert torch.equal(found["mean_pose"], expected["mean_pose"])
    assert found["mirror"] == expected["mirror"]


def test_supervised_training_reads_pose3d_and_says_so(short, takes, tmp_path, capsys):
    """The counter-test: this is what the test above would see."""
    whole = weights(short("data.target=pose3d"))
    assert "SUPERVISED" in capsys.readouterr().out
    lies = {key: poisoned(takes, tmp_path, key) for key in ("pose3d", "keypoints_true")}
    found = {
        key: weights(short("data.target=pose3d", f"data.train=[{folder}/train_*.npz]"))
        for key, folder in lies.items()
    }
    assert not same(found["pose3d"], whole)
    assert same(found["keypoints_true"], whole)


def test_a_model_of_sequences_never_reads_the_truth_but_that_of_the_recordings_named(
    over_time, takes, tmp_path, capsys
):
    """`data.supervised` is semi-supervision: of all other recordings the 3D may be lies."""
    lies = poisoned(takes, tmp_path, "pose3d", "keypoints_true")
    blind = weights(over_time())
    assert same(weights(over_time(f"data.train=[{lies}/train_*.npz]")), blind)
    assert "SUPERVISED" not in capsys.readouterr().out

    mixed = f"data.train=[{takes}/train_00.npz, {lies}/train_01.npz]"
    some = weights(over_time("data.target=none", "data.supervised=train_00.npz"))
    said = capsys.readouterr().out
    assert f"IN PART: training reads pose3d of {takes}/train_00.npz (data.sup" in said
    assert same(
        weights(over_time("data.target=none", "data.supervised=train_00.npz", mixed)), some
    )
    assert not same(some, blind)
    # The counter-test, beside a guess for the others: what is named is read.
    poisoned_too = weights(over_time("data.supervised=[train_01.npz]", mixed))
    assert not same(poisoned_too, weights(over_time("data.supervised=[train_01.npz]")))


def test_one_frame_lifters_too_learn_from_the_recordings_named(short, takes, tmp_path):
    lies = poisoned(takes, tmp_path, "pose3d", "keypoints_true")
    mixed = f"data.train=[{takes}/train_00.npz, {lies}/train_01.npz]"
    found = weights(short("data.target=none", "data.supervised=train_00*", mixed))
    assert same(weights(short("data.target=none", "data.supervised=train_00*")), found)


def test_refuses_to_supervise_by_what_is_not_trained_on(short):
    with pytest.raises(ValueError, match=r"data.supervised: 'test_00\*' names none of the 2 tr"):
        short("data.target=none", "data.supervised=[train_01.npz, 'test_00*']")


def test_supervision_needs_the_truth(short, plant):
    path = plant("blind", pose3d=None)
    with pytest.raises(ValueError, match="blind.npz: has no pose3d .* data.target: closed_form"):
        short("data.target=pose3d", f"data.train=[{path}]")


def test_refuses_a_recording_in_training_and_test(short, takes, tmp_path):
    (tmp_path / "link.npz").symlink_to(takes / "train_01.npz")
    for test in (takes / "train_01.npz", takes / ".." / takes.name / "train_01.npz",
                 tmp_path / "link.npz"):  # fmt: skip
        with pytest.raises(ValueError, match="train_01.npz: in data.train and in data.test"):
            short(f"data.test=[{test}]")


def test_refuses_globs_that_match_nothing(short, takes):
    for key in ("train", "test"):
        with pytest.raises(FileNotFoundError, match="'.*/tarin_.*' matches no recording"):
            short(f"data.{key}=[{takes}/tarin_*.npz]")


def test_a_mistake_in_the_config_does_not_cost_the_folder(short, tmp_path):
    """Nothing was trained yet, so the corrected command may be given in the same place."""
    with pytest.raises(FileNotFoundError, match="matches no recording"):
        short("data.train=[nowhere/*.npz]", name="again")
    assert not (tmp_path / "again").exists()
    short(name="again")
    config = short.config()
    assert configs.from_yaml((tmp_path / "again" / "config.yaml").read_text()) == config


def test_neither_does_a_film_that_does_not_serve(tiny, tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("no")

    monkeypatch.setattr(train, "_read", refuse)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".half").touch()
    with pytest.raises(ValueError, match="no"):
        train.train(configs.load(tiny), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".half"]


def test_a_run_that_is_there_outlives_recordings_that_are_gone(short, tmp_path):
    config = short.config("data.train=[nowhere/*.npz]")
    run = runs.start(config, tmp_path / "begun", resume=False)
    for begun in ({"config.yaml"}, {"config.yaml", checkpoint.FILE}):
        with pytest.raises(FileNotFoundError, match="matches no recording"):
            train.train(config, run.out, resume=True)
        assert {path.name for path in run.out.iterdir()} == begun
        run.save()


def test_a_guess_that_nobody_can_trust_is_warned_of(short, plant, capsys):
    def two(take):
        return np.where(np.arange(3)[:, None] < 2, take.confidence, 0.0).astype(np.float32)

    short("schedule.0.steps=1", "schedule.1.steps=1")
    assert "WARNING" not in capsys.readouterr().out
    plant("a", confidence=two)
    short(f"data.train=[{plant('b', confidence=two).parent}/*.npz]", "schedule.0.steps=1",
          "schedule.1.steps=1")  # fmt: skip
    said = capsys.readouterr().out
    assert "0% of the frames trusted" in said
    assert said.count("WARNING: there is next to nothing to imitate") == 1
    assert "configs/sequence.yaml data.target=none" in said


def test_refuses_a_single_camera(short, plant):
    one = plant(
        "alone",
        keypoints=lambda r: r.keypoints[:, :1],
        confidence=lambda r: r.confidence[:, :1],
        views=("only",),
        image_size=None,
        pose3d=None,
        keypoints_true=None,
    )
    with pytest.raises(ValueError, match=r"alone.npz: has 1 view\(s\), training needs 2"):
        short(f"data.train=[{one}]")


def test_refuses_recordings_in_which_nothing_was_seen(short, plant):
    blank = plant("blank", confidence=lambda r: np.zeros_like(r.confidence))
    with pytest.raises(ValueError, match="blank.npz: not a single observed joint"):
        short(f"data.train=[{blank}]")


def test_empty_frames_and_cameras_do_no_harm(short, plant, takes):
    """Nobody in the image, in all views, in one, or through a whole recording."""

    def lost(take):
        confidence = take.confidence.copy()
        confidence[:10] = 0
        confidence[10:20, 1] = 0
        confidence[20:25, :, 5:] = 0
        confidence[25:30, :2] = 0
        return confidence

    path = plant("lost", confidence=lost)
    blank = plant("blank", confidence=lambda r: np.zeros_like(r.confidence))
    out = short(f"data.train=[{path}, {blank}, {takes}/train_01.npz]")
    assert all(value.isfinite().all() for value in weights(out).values())


def test_recordings_of_different_numbers_of_views_train_together(short, plant, takes, capsys):
    few = plant(
        "few",
        keypoints=lambda r: r.keypoints[:, :2],
        confidence=lambda r: r.confidence[:, :2],
        views=("a", "b"),
        image_size=None,
        pose3d=lambda r: r.pose3d[:, :2],
        keypoints_true=None,
    )
    alone = weights(short(f"data.train=[{takes}/train_01.npz]"))
    for target in ("closed_form", "pose3d"):
        out = short(f"data.train=[{few}, {takes}/train_01.npz]", f"data.target={target}")
        assert "2 recordings, 48 frames, up to 3 views (2.5 on average)" in capsys.readouterr().out
        found = weights(out)
        assert all(value.isfinite().all() for value in found.values())
        assert not same(found, alone)


def test_camera_consistency_binds_recordings_of_one_rig_and_no_others(short, tmp_path, capsys):
    """CanonPose's term: nothing for cameras that may move, which is said."""
    config = SimulateConfig(
        n_train=2, n_test=0, n_frames=20, cameras=CameraConfig(n_views=3, fixed=True)
    )
    film = [take for _, take in session(config)]
    found = {}
    for rigs in (("hall", "hall"), ("hall", "track"), ("", "")):
        folder = tmp_path / ("rigs " + "-".join(rigs))
        for i, rig in enumerate(rigs):
            recordings.save(replace(film[i], rig=rig), folder / f"{i}.npz")
        out = short(
            f"data.train=[{folder}/*.npz]", "variant=baseline",
            "schedule.0.weights={imitation: 0, reprojection: 1, camera_consistency: 1}",
        )  # fmt: skip
        found[rigs] = weights(out)
        idle = "camera_consistency does nothing" in capsys.readouterr().out
        assert idle == (rigs == ("", ""))
    free = weights(short(f"data.train=[{folder}/*.npz]", "variant=baseline",
                         "schedule.0.weights={imitation: 0, reprojection: 1}"))  # fmt: skip
    assert same(found["", ""], free)
    assert not same(found["hall", "hall"], free)
    assert not same(found["hall", "track"], found["hall", "hall"])


# --- sequences


def test_a_run_over_time_is_logged_and_evaluated_view_by_view(over_time, takes, monkeypatch):
    monkeypatch.setattr(train, "LOG_EVERY", 3)
    draw_little(monkeypatch, "most_repaired")
    out = over_time("sequence.fps=20")
    rows = metrics_log.read(out)
    assert [row["spread"] != "" for row in rows] == [True] * 4
    assert [row["degenerate"] != "" for row in rows] == [False] * 2 + [True] * 2
    model = checkpoint.load_model(out, "cpu")
    take = recordings.load(takes / "test_00.npz")
    together = predict(model, take)
    assert np.isfinite(together.pose[(take.confidence > 0).any(-1)]).all()
    for view in range(3):
        alone = predict(model, single_view(take, view))
        np.testing.assert_allclose(alone.pose[:, 0], together.pose[:, view], atol=1e-5)
    result = evaluate(model, [takes / "test_00.npz"], out / "eval", out, n_drawn=1)
    assert result["protocol"]["input"] == (
        "one view at a time, windows of 9 frames at 20 fps, blended"
    )
    assert result["metrics"]["mpjve_mm_s"] > 0
    assert (out / "eval" / "figures" / "test_00-most_repaired-pose.png").is_file()


def single_view(take, view):
    only = slice(view, view + 1)
    return replace(
        take,
        keypoints=take.keypoints[:, only],
        confidence=take.confidence[:, only],
        views=take.views[only],
        image_size=None,
        pose3d=None,
        keypoints_true=None,
    )


def test_a_run_over_time_goes_on_as_if_never_stopped(over_time, monkeypatch, tmp_path):
    whole = over_time()

    def stop(run):
        if run.progress.total_step == 7:
            raise KeyboardInterrupt

    save = runs.Run.save

    def save_and_stop(run, **finished):
        save(run, **finished)
        stop(run)

    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train.train(over_time.config("checkpoint_seconds=0"), tmp_path / "again")
    train.train(over_time.config("checkpoint_seconds=0"), tmp_path / "again", resume=True)
    assert same(weights(tmp_path / "again"), weights(whole))


def test_its_mirror_image_is_turned_round_as_well(over_time, takes):
    config = over_time.config()
    data = train._read(config, sorted(takes.glob("train_*.npz")))
    lifter = checkpoint.load_model(over_time("schedule.0.steps=40"), "cpu").lifter
    if mirror.vote(lifter, data, config.joints).turn_round:
        lifter.mirror()
    upright = mirror.vote(lifter, data, config.joints)
    lifter.mirror()
    found = mirror.vote(lifter, data, config.joints)
    assert (found.mirrored, found.upright) == (upright.upright, upright.mirrored)
    assert found.turn_round


def test_single_views_and_both_kinds_of_fusion_train(over_time, plant, takes, capsys):
    one = plant("alone", **{k: v for k, v in vars(single_view(
        recordings.load(takes / "train_00.npz"), 1)).items()})  # fmt: skip
    simple = ("data.target=none", "schedule.0.weights={position: 0, velocity: 0, image: 1}")
    alone = weights(over_time(f"data.train=[{one}]", *simple))
    assert "no recording has two views, so nothing holds views together" in capsys.readouterr().out
    assert all(value.isfinite().all() for value in alone.values())
    both = weights(over_time(f"data.train=[{one}, {takes}/train_01.npz]", *simple))
    assert all(value.isfinite().all() for value in both.values())
    fused = "schedule.1.weights={image: 0.01, mended_image: 1, mended_consistency: 1}"
    mended = weights(over_time("variant=sequence+fusion", "fusion.threshold=2", fused))
    assert not same(mended, weights(over_time(fused, "variant=sequence")))


def test_poses_that_collapse_stop_the_run_with_advice(over_time, monkeypatch, capsys):
    """What the authors warn of. The loss that does not reward shrinking does not do it."""
    monkeypatch.setattr(train, "LOG_EVERY", 2)
    options = (
        "sequence.backbone=dstformer", "schedule.0.steps=40", "schedule.0.learning_rate=1e-2",
    )  # fmt: skip
    weights = "{position: 0, velocity: 0, image: 0.01, consistency_as_printed: 9}"
    advice = "lower the weight of consistency_as_printed .now 9., or use `consistency`"
    with pytest.raises(train.Collapsed, match=advice):
        over_time(*options, f"schedule.0.weights={weights}")
    assert "% of the size of what was seen" in capsys.readouterr().out


def watch(weights=None, **measured):
    """What comes of measuring these, one after another; the others are as they should be."""
    phase = SimpleNamespace(weights=weights or {})
    run = SimpleNamespace(progress=runs.Progress(), phase=phase)
    for values in zip(*measured.values(), strict=True):
        row = dict(zip(measured, values, strict=True))
        train._watch(run, {"spread": 1.0, "depth": 1.0, "movement": 0.8} | row)


def test_only_poses_that_stay_small_have_collapsed(capsys):
    """At its start a network may say next to nothing."""
    watch(spread=9 * [0.05] + [0.6] + 9 * [0.05])
    watch(spread=30 * [0.2])
    with pytest.raises(train.Collapsed, match="give `image` a weight, or raise it"):
        watch(spread=10 * [0.05])
    assert capsys.readouterr().out.count("WARNING: step 0: the poses have") == 4


def test_flat_poses_are_noticed(capsys):
    watch(depth=[0.3] + 12 * [0.01])
    assert capsys.readouterr().out.count("the poses are flat, 1% as deep as wide") == 1


def test_rods_are_noticed(capsys):
    watch(depth=9 * [4.0] + [2.0] + 12 * [6.5])
    assert capsys.readouterr().out.count("the poses are 6.5 times as deep as wide") == 1


def test_bodies_that_stay_the_same_are_noticed(capsys):
    agreeing = {"image": 1.0, "consistency": 1.0}
    watch(agreeing, movement=9 * [0.1] + [0.5] + 12 * [0.39])
    assert capsys.readouterr().out.count("move 39% as much as what was seen") == 1
    watch(agreeing, movement=12 * [0.41])
    watch({"image": 1.0, "consistency": 0.0}, movement=12 * [0.1])
    assert capsys.readouterr().out == ""


# --- the mirrored world


def test_a_mirrored_lifter_is_turned_round_exactly(trained, tiny, takes, capsys):
    """And one that is not mirrored is left alone."""
    config = configs.load(tiny)
    data = sessions.read(sorted(takes.glob("train_*.npz")), config.joints, least_views=2)
    lifter = checkpoint.load_model(trained, "cpu").lifter
    optimiser = torch.optim.Adam(lifter.parameters())
    run = runs.Run(Path(), config, runs.Progress(), lifter, optimiser, {}, {})
    if mirror.vote(lifter, data, config.joints).turn_round:
        lifter.mirror()
    upright = copy.deepcopy(lifter.state_dict())

    decided = train._turn_round(run, data)
    assert (decided["turned_round"], decided["mirrored"]) == (False, 0)
    assert same(lifter.state_dict(), upright)

    lifter.mirror()
    assert not same(lifter.state_dict(), upright)
    decided = train._turn_round(run, data)
    assert (decided["turned_round"], decided["upright"], decided["certainty"]) == (True, 0, 1.0)
    assert same(lifter.state_dict(), upright)
    said = capsys.readouterr().out.splitlines()
    assert [line.rpartition("; ")[2] for line in said] == ["kept", "turned round"]


def test_every_phase_ends_with_a_vote_and_the_model_obeys_the_last(short, monkeypatch):
    """With the ballots exchanged the run ends in the mirror image, and says so."""
    one_phase = ("schedule.0.convergence.patience=1", "schedule.0.steps=3")
    votes = []

    def record(*args):
        votes.append(mirror.vote(*args))
        return votes[-1]

    monkeypatch.setattr(train, "vote", record)
    out = short(*one_phase)
    assert len(votes) == 2
    assert votes[0].mirrored + votes[0].upright == 2
    plain = checkpoint.load_model(out, "cpu")

    calls = iter((False, True))

    def contrary(*args):
        vote = mirror.vote(*args)
        return mirror.Vote(*reversed(astuple(vote))) if next(calls) else vote

    monkeypatch.setattr(train, "vote", contrary)
    other = checkpoint.load_model(short(*one_phase), "cpu")
    assert other.mirror["turned_round"] is not plain.mirror["turned_round"]
    flat_depth = torch.tensor([1.0, 1.0, -1.0])
    torch.testing.assert_close(other.mean_pose, plain.mean_pose * flat_depth)
    plain.lifter.mirror()
    assert same(plain.lifter.state_dict(), other.lifter.state_dict())


# --- the log


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


# --- when a phase ends, and with which weights


CRITERION = configs.ConvergenceConfig(window=2, tolerance=0.1, patience=2)


def progress_after(losses, criterion=CRITERION):
    progress = runs.Progress()
    return progress, [progress.count(loss, criterion) for loss in losses]


def test_windows_by_hand():
    """Means 5, 4, 3.9, 3.8, 3: the third and fourth are better, but not by a tenth."""
    losses = [6.0, 4.0, 4.0, 4.0, 3.8, 4.0, 3.8, 3.8, 2.0, 4.0]
    stale = []
    progress = runs.Progress()
    phase = configs.PhaseConfig("p", {"reprojection": 1.0}, steps=99, convergence=CRITERION)
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


def test_a_worse_window_is_not_the_best():
    progress, best = progress_after([3.0, 1.0, 4.0, 4.0, 2.0, 1.0])
    assert best == [False, True, False, False, False, True]
    assert progress.best == 1.5


def test_the_steps_run_out():
    phase = configs.PhaseConfig("p", {"reprojection": 1.0}, steps=3, convergence=CRITERION)
    assert [progress_after([1.0] * n)[0].over(phase) for n in range(5)] == [
        False, False, False, True, True,
    ]  # fmt: skip


def test_the_next_phase_starts_afresh_but_keeps_counting_steps():
    progress, _ = progress_after([5.0] * 5)
    progress.seconds = 7.0
    progress.next_phase()
    assert progress == runs.Progress(phase=1, total_step=5, seconds=7.0)


def test_a_phase_returns_to_its_best_weights(short, tmp_path):
    """Those at the end of the best window, an unfinished last one included."""
    config = short.config("schedule.0.convergence.window=2")

    def play(losses, name):
        run = runs.start(config, tmp_path / name, resume=False)
        with torch.no_grad():
            for step, loss in enumerate(losses, start=1):
                run.lifter.pose[-1].bias.fill_(step)
                if run.progress.count(float(loss), run.phase.convergence):
                    run.keep_best()
        run.close_phase()
        return run.lifter.pose[-1].bias[0].item()

    assert play([9, 9, 1, 3, 5, 5], "second window") == 4
    assert play([9, 9, 1, 3, 5, 5, 1], "last, unfinished") == 7
    assert play([9, 9, 1, 3, 5, 5, 2], "no better") == 4
    assert play([3], "first, unfinished") == 1
    config = short.config("schedule.0.convergence.window=8")
    assert play([9] * 8 + [1], "too little to tell") == 8
    assert play([9] * 8 + [1, 1], "a quarter of a window") == 10


def test_training_stops_where_the_loss_has_converged(short, monkeypatch):
    """With the weights as they were at the end of the best window."""
    seen = []
    close = runs.Run.close_phase

    def note(run):
        seen.append((run.phase.name, run.progress.step))
        close(run)

    monkeypatch.setattr(runs.Run, "close_phase", note)
    short("schedule.0.steps=1000", "schedule.0.learning_rate=1e-9")
    assert seen == [("first", 6), ("second", 4)]  # windows end at 2, 4, 6; the last two are stale


def test_learning_rate_by_hand():
    def phase(**settings):
        return configs.PhaseConfig("p", {"reprojection": 1.0}, 10, learning_rate=8.0, **settings)

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


# --- a loss that is not a number


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
    """Reading a loss waits for the device: once for many steps, and where a window ends."""
    read = []
    count = train._count
    monkeypatch.setattr(train, "_count", lambda *a: (read.append(len(a[2])), count(*a))[1])
    plain = short("checkpoint_seconds=1e9")
    assert read == [2, 2, 2, 4]  # windows of 2 until the phase has converged; then 4 steps
    assert same(weights(plain), plain_weights)
    read.clear()
    each = short("checkpoint_seconds=0")
    assert read == [1] * 10
    assert same(weights(each), plain_weights)
    together, apart = ({**checkpoint.load(out)["progress"]} for out in (plain, each))
    assert {**together, "seconds": 0} == {**apart, "seconds": 0}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="only CUDA tells of waiting for it")
@pytest.mark.parametrize("method", fusion.METHODS)
def test_a_step_does_not_wait_for_the_device(short, takes, tmp_path, method):
    overrides = ("lifter.rotation=axis_angle", "flip=true", f"fusion.method={method}")
    config = short.config("device=cuda", *overrides)
    weights = dict.fromkeys(TERMS, 1.0)
    run = runs.start(config, tmp_path / "run", resume=False)
    data = train._read(config, sorted(takes.glob("train_*.npz")))
    compute = train.computation(config, replace(run.phase, weights=weights), run.lifter)
    order = sessions.batches(len(data.views), 8, 0, 0)

    def step():
        samples = next(order).to(data.recording.device, non_blocking=True)
        views = sessions.flip(data.views[samples], config.joints)
        return train.descend(run, compute, views, 1e-3)

    step()  # constants move to the device once
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


# --- from weights that are there


def test_starts_from_the_weights_of_a_finished_run(short):
    first = short()
    still = "schedule.0.learning_rate=1e-9", "schedule.1.learning_rate=1e-9"
    found = weights(short(f"start_from={first}", *still))
    for name, value in weights(first).items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)
    assert not same(found, weights(short(*still)))


def test_resumes_without_the_run_it_started_from(short, tmp_path):
    first = short()
    config = short.config(f"start_from={first}", "seed=2")
    begun = runs.start(config, tmp_path / "begun", resume=False)
    with torch.no_grad():
        begun.lifter.pose[-1].bias.fill_(7.0)
    begun.save()
    first.rename(tmp_path / "gone")
    again = runs.start(config, tmp_path / "begun", resume=True)
    assert same(again.lifter.state_dict(), begun.lifter.state_dict())


def test_starts_from_weights_whatever_they_were_multiplied_in(short):
    first = short("lifter.precision=bfloat16")
    begun = runs.start(short.config(f"start_from={first}"), first.with_name("begun"), resume=False)
    assert begun.lifter.precision == torch.float32
    assert same(begun.lifter.state_dict(), weights(first))


def test_refuses_to_start_from_what_does_not_fit(short, trained, tmp_path):
    with pytest.raises(ValueError, match="was trained with lifter .*, not .*; set the same"):
        short(f"start_from={trained}", "lifter.width=17")
    words = (
        "with skeleton h36m17, not limbs14; train it with skeleton=limbs14, or leave start_from"
    )
    with pytest.raises(ValueError, match=words):
        short(f"start_from={trained}", "skeleton=limbs14")
    with pytest.raises(FileNotFoundError, match="start_from: .*nothing does not exist; it has"):
        short(f"start_from={tmp_path}/nothing")
    runs.start(short.config(), tmp_path / "begun", resume=False).save()
    with pytest.raises(ValueError, match="training has not finished"):
        short(f"start_from={tmp_path}/begun")


# --- whose folder it is


def test_refuses_a_folder_that_holds_something(trained, tiny, tmp_path):
    config = configs.load(tiny)
    with pytest.raises(FileExistsError, match="already holds a run.*continue it with --resume"):
        train.train(config, trained)
    with pytest.raises(FileExistsError, match="finished run; evaluate it with `python eval.py"):
        train.train(config, trained, resume=True)
    (tmp_path / "thesis.tex").write_text("precious")
    for resume in (False, True):
        with pytest.raises(FileExistsError, match="already holds something else"):
            train.train(config, tmp_path, resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_resumes_with_its_own_config_only(short, tmp_path):
    run = runs.start(short.config(), tmp_path / "begun", resume=False)
    run.save()
    for override in ("seed=1", "lifter.width=17", "schedule.1.steps=5"):
        with pytest.raises(ValueError, match="started with another config .*config.yaml"):
            runs.start(short.config(override), tmp_path / "begun", resume=True)
    runs.start(short.config(), tmp_path / "begun", resume=True)


def test_a_resumed_run_holds_all_that_the_saved_one_held(short, tmp_path):
    config = short.config()
    run = runs.start(config, tmp_path / "begun", resume=False)
    run.next_phase()
    for group in run.optimiser.param_groups:
        for weight in group["params"]:
            weight.grad = torch.ones_like(weight)
    run.optimiser.step()
    run.progress.count(3.5, run.phase.convergence)
    run.progress.seconds = 4.5
    run.mirror = {"mirrored": 2, "upright": 1, "turned_round": True, "certainty": 2 / 3}
    assert not same(run.best, run.lifter.state_dict())
    run.save()

    again = runs.start(config, tmp_path / "begun", resume=True)
    assert same(again.lifter.state_dict(), run.lifter.state_dict())
    assert same(again.best, run.best)
    assert (again.progress, again.mirror, again.phase) == (run.progress, run.mirror, run.phase)
    one, other = run.optimiser.state_dict()["state"], again.optimiser.state_dict()["state"]
    assert one.keys() == other.keys()
    assert all(same(one[key], other[key]) for key in one)


def test_resume_without_a_run_begins_one(short, plain_weights, tmp_path):
    train.train(short.config(), tmp_path / "new", resume=True)
    assert same(weights(tmp_path / "new"), plain_weights)


def test_an_unknown_device_is_refused_before_anything_is_written(short, tmp_path):
    with pytest.raises(ValueError, match="device 'gpu' does not work here; use auto or cpu"):
        short("device=gpu", name="nothing")
    assert not (tmp_path / "nothing").exists()


# --- the programs, in processes that can be killed

# One process imports and then forks a child for every call, since importing takes seconds.
SERVER = """
import gc, json, os, signal, sys, traceback
import torch
import eval as evaluation, train
from canonlift.training import checkpoint, runs
from canonlift.training import metrics_log as log
train.LOG_EVERY = 5
torch.optim.Adam([torch.zeros(1)])  # imports more of torch
gc.freeze()
signal.signal(signal.SIGINT, signal.default_int_handler)  # background shells ignore it

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
signal.alarm(60)  # nobody waits for ever
said = os.open(job["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.dup2(said, 1), os.dup2(said, 2), os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
sys.argv = job["argv"]
code = 0
try:
    exec(job["first"])
    {"train.py": train, "eval.py": evaluation}[sys.argv[0]].main()
except SystemExit as stop:
    code = stop.code
    if isinstance(code, str):
        code = print(code, file=sys.stderr) or 1
except BaseException:
    code = traceback.print_exc() or 1
sys.stdout.flush()
os._exit(code or 0)  # taking the interpreter apart takes longer than training
"""
QUICK = "train.report = lambda *_: None\n"  # no pictures
SLOW = """
import time
descend = train.descend
train.descend = lambda *args: (time.sleep(0.01), descend(*args))[1]
"""


class Programs:
    """`python train.py` and `python eval.py`, with code to run first in their process."""

    def __init__(self, said):
        self.said = said
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # threads do not survive a fork
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *argv, first=""):
        job = {"argv": [str(arg) for arg in argv], "first": first, "said": str(self.said)}
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def wait(self):
        return int(self.server.stdout.readline()), self.said.read_text()

    def run(self, *argv, first=""):
        self.start(*argv, first=first)
        return self.wait()


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    server = Programs(tmp_path_factory.mktemp("programs") / "said")
    yield server
    server.server.stdin.close()
    server.server.wait()
    server.server.stdout.close()


MOMENTS = {
    "its first file half written": "os.replace = die",
    "no checkpoint yet": "train._read = die",
    "a checkpoint half written": """
def half(run, state):
    if state["progress"]["total_step"] >= 6:
        os.replace = die
    save(run, state)
save, checkpoint.save = checkpoint.save, half
""",
    "a row of the log ahead of the checkpoint": """
def ahead(self, row):
    write(self, row)
    if row["step"] == 10:
        die()
write, log.MetricsLog.write = log.MetricsLog.write, ahead
""",
    "the first phase over": "train._turn_round = die",
    "the last phase over": """
turn = train._turn_round
train._turn_round = lambda run, *args: die() if run.progress.phase == 2 else turn(run, *args)
""",
    "all but the last checkpoint written": "train._mean_pose = die",
}


def assert_as_if_never_killed(out, trained):
    assert same(weights(out), weights(trained))
    assert torch.equal(checkpoint.load(out)["mean_pose"], checkpoint.load(trained)["mean_pose"])
    assert table(out) == table(trained)


def test_killed_at_every_awkward_moment_it_ends_the_same(programs, trained, tiny, tmp_path):
    out = tmp_path / "run"
    argv = ("train.py", tiny, "--out", out)
    for number, (moment, first) in enumerate(MOMENTS.items()):
        resume = ["--resume"] if number else []
        code, said = programs.run(*argv, *resume, first=QUICK + first)
        assert code == -signal.SIGKILL, f"{moment}: {said}"
    code, said = programs.run(*argv, "--resume", first=QUICK)
    assert code == 0, said
    assert_as_if_never_killed(out, trained)


def test_killed_at_random_moments_it_ends_the_same(programs, trained, tiny, tmp_path):
    out = tmp_path / "run"
    argv = ("train.py", tiny, "--out", out, "--resume")
    kills = 0
    chance = random.Random(time.time_ns())
    for _ in range(4):
        child = programs.start(*argv, first=QUICK + SLOW)
        time.sleep(chance.uniform(0.1, 0.4))
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        code, said = programs.wait()
        kills += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL), said
        if code == 0:
            break
    else:
        code, said = programs.run(*argv, first=QUICK)
        assert code == 0, said
    assert kills > 0
    assert_as_if_never_killed(out, trained)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_asked_to_stop_it_saves_and_can_go_on(programs, trained, tiny, tmp_path, name):
    out = tmp_path / "run"
    first = f"""
descend, count = train.descend, iter(range(99))
def stop(*args):
    if next(count) == 16:
        os.kill(os.getpid(), signal.{name})
    return descend(*args)
train.descend = stop
"""
    code, said = programs.run("train.py", tiny, "--out", out, first=QUICK + first)
    assert code == 130
    assert said.splitlines()[-1] == (f"train.py: {name}: saved at step 17; continue with --resume")
    assert "Traceback" not in said
    assert checkpoint.load(out)["progress"]["total_step"] == 17
    code, said = programs.run("train.py", tiny, "--out", out, "--resume", first=QUICK)
    assert code == 0, said
    assert_as_if_never_killed(out, trained)


def test_ctrl_c_before_the_first_step_is_answered_without_a_traceback(programs, tiny, tmp_path):
    first = "train._read = lambda *_: os.kill(os.getpid(), signal.SIGINT)"
    code, said = programs.run("train.py", tiny, "--out", tmp_path / "run", first=first)
    assert code == 130
    assert said.splitlines()[-1] == "train.py: interrupted; continue with --resume"
    assert "Traceback" not in said


def test_a_second_ctrl_c_kills(programs, tiny, tmp_path):
    first = """
def twice(*_):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
train.descend = twice
"""
    code, said = programs.run("train.py", tiny, "--out", tmp_path / "run", first=first)
    assert code == 130
    assert "saved" not in said


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


@pytest.mark.parametrize(
    ("program", "options"),
    [
        ("train.py", ("CONFIG", "key=value", "--out", "--resume", "configs/demo.yaml")),
        ("eval.py", ("RUN", "--recordings", "--out", "--figures", "--device")),
    ],
)
def test_help_names_every_option(programs, program, options):
    code, said = programs.run(program, "--help")
    assert code == 0
    for option in options:
        assert option.lower() in said.lower()


def test_a_bad_config_ends_in_one_line(programs, tiny, tmp_path):
    """Of the file train.py, as a user starts it."""
    code, said = programs.run(
        "train.py", tiny, "lifter.widht=9", "--out", tmp_path / "run",
        first="import runpy; sys.exit(runpy.run_path(sys.argv[0], run_name='__main__') and 7)",
    )  # fmt: skip
    assert code == 1
    assert said == (
        f"train.py: {tiny}: lifter.widht: Key 'widht' not in 'LifterConfig'. "
        "Did you mean: 'width'?\n"
    )
    assert not (tmp_path / "run").exists()


def test_other_failures_end_in_one_line_too(programs, trained, tiny, tmp_path):
    for argv, message in {
        ("train.py", tmp_path / "no.yaml"): "train.py: .*no.yaml: no such config",
        ("train.py", tiny, "--out", trained): "train.py: .* already holds a run",
        ("eval.py", tmp_path): "eval.py: .*: no checkpoint; is .* a folder that train.py wrote",
        ("eval.py", trained, "--recordings", "nothing/*.npz"): "eval.py: .* matches no recording",
        ("eval.py", trained, "--device", "gpu"): "eval.py: device 'gpu' does not work here",
    }.items():
        code, said = programs.run(*argv)
        assert code == 1
        assert len(said.splitlines()) == 1
        assert re.match(message, said)


# --- no setting is idle

CHANGES_WEIGHTS = {
    "skeleton": "limbs14",
    "batch_size": "9",
    "flip": "true",
    "lifter.width": "17",
    "lifter.rotation": "axis_angle",
    "lifter.precision": "bfloat16",
    "data.target": "pose3d",
    "data.window_s": "0.1",
    "schedule.0.weights": "{imitation: 1.0, reprojection: 0.5}",
    "schedule.0.steps": "5",
    "schedule.0.learning_rate": "2e-3",
    "schedule.0.weight_decay": "0.5",
    "schedule.0.warmup": "3",
    "schedule.0.decay": "cosine",
    "schedule.0.decay_at": "[2]",
    "schedule.0.clip_norm": "1e-3",
    "schedule.0.convergence.window": "3",
    "schedule.0.convergence.tolerance": "-1.0",  # any window counts as progress
    "schedule.0.convergence.patience": "1",
}
CHANGES_REPAIR = {
    "method": "exact",
    "resolution": 32,
    "extent": 0.1,
    "joint_sigma": 0.2,
    "line_sigma": 0.2,
    "threshold": 0.5,
    "never": ("l_knee",),
    "scale_ratio": True,
    "angle_weight": False,
    "smallest_sine": 0.9,
}
CHANGES_FILM = {
    "seed": "1",
    "n_train": "2",
    "n_test": "2",
    "n_people_train": "2",
    "n_people_test": "2",
    "n_frames": "9",
    "fps": "25",
    "motions": "[squat]",
    "cameras.n_views": "4",
    "cameras.distance_m": "[5, 6]",
    "cameras.height_m": "[3, 4]",
    "cameras.arc_deg": "90",
    "cameras.azimuth_jitter_deg": "1",
    "cameras.azimuths_deg": "[0, 10, 20]",
    "cameras.centre_deg": "0",
    "cameras.starts_s": "[0, 0.1, 0.2]",
    "cameras.fixed": "true",
    "cameras.share": "[0.1, 0.2]",
    "cameras.zoom": "false",
    "cameras.lag_s": "0.5",
    "cameras.shake_deg": "2",
    "cameras.roll_deg": "20",
    "cameras.drift_m": "0.5",
    "cameras.image_size": "[640, 640]",
    "detector.confidences": "false",
    "detector.error_scale": "2",
    "detector.leg_swap_rate": "0.9",
    "detector.arm_swap_rate": "0.9",
    "detector.joint_miss_rate": "0.5",
    "detector.frame_miss_rate": "0.5",
}
TESTED_BY_NAME = {  # each below, or above
    "seed", "variant", "data.train", "data.test", "start_from", "device", "checkpoint_seconds",
    "schedule.0.name",
    "data.supervised",
    "data.shards",  # in test_shards.py
}  # fmt: skip
CHANGES_WEIGHTS_OVER_TIME = {
    "backbone": "frame",
    "length": "8",
    "stride": "3",
    "fps": "20",
    "gap": "0",
    "segment": "1",
    "depth": "2",
    "heads": "1",
    "width": "18",
}


def leaves(value, path=""):
    """Dotted names of all settings of a config."""
    if isinstance(value, list) and value and is_dataclass(value[0]):
        return leaves(value[0], f"{path}.0")
    if not is_dataclass(value):
        return {path}
    return set().union(
        *(leaves(getattr(value, f.name), f"{path}.{f.name}".strip(".")) for f in fields(value))
    )


def test_every_setting_is_tested_to_do_something(tiny):
    """A new setting has to be entered into one of the tables above."""
    tested = TESTED_BY_NAME | CHANGES_WEIGHTS.keys()
    tested |= {f"fusion.{name}" for name in CHANGES_REPAIR}
    tested |= {f"data.simulate.{name}" for name in CHANGES_FILM}
    tested |= {f"sequence.{name}" for name in CHANGES_WEIGHTS_OVER_TIME}
    tested |= {"sequence.head_width"}  # in test_backbones.py
    assert leaves(configs.load(tiny)) == tested


@pytest.mark.parametrize("key", CHANGES_WEIGHTS)
def test_no_setting_is_idle_in_training(short, plain_weights, key):
    found = weights(short(f"{key}={CHANGES_WEIGHTS[key]}"))
    shapes = [{name: w.shape for name, w in state.items()} for state in (found, plain_weights)]
    assert shapes[0] != shapes[1] or not same(found, plain_weights)


def test_no_setting_is_idle_in_training_over_time(over_time, plant):
    def lost(take):
        confidence = take.confidence.copy()
        confidence[10:12] = 0
        return confidence

    path = plant("lost", confidence=lost)
    quick = (f"data.train=[{path}]", "data.target=pose3d", "schedule.0.steps=1",
             "schedule.1.steps=2")  # fmt: skip
    plain = weights(over_time(*quick))
    for key, value in CHANGES_WEIGHTS_OVER_TIME.items():
        found = weights(over_time(*quick, f"sequence.{key}={value}"))
        shapes = [{name: w.shape for name, w in state.items()} for state in (found, plain)]
        assert shapes[0] != shapes[1] or not same(found, plain), key


@pytest.mark.parametrize("key", CHANGES_REPAIR)
def test_no_setting_is_idle_in_repair(noisy, key):
    base = FusionConfig(angle_weight=True)
    before, after = (
        fuse(*noisy, config, H36M17).keypoints
        for config in (base, replace(base, **{key: CHANGES_REPAIR[key]}))
    )
    assert not torch.equal(before, after)


@cache
def film(tiny, *overrides):
    config = configs.load(tiny, [f"data.simulate.{override}" for override in overrides])
    takes = dict(session(config.data.simulate))
    return {name: [np.asarray(x) for x in vars(take).values()] for name, take in takes.items()}


@pytest.mark.parametrize("key", CHANGES_FILM)
def test_no_setting_is_idle_in_the_session(tiny, key):
    base = ("n_frames=8", "n_train=1", "n_test=1", "n_people_train=1", "n_people_test=1")
    if key.startswith("n_people"):  # the second recording is of a second person
        base += ("n_train=2", "n_test=2")
    if key == "cameras.centre_deg":
        base += ("cameras.azimuth_jitter_deg=0",)
    before, after = film(tiny, *base), film(tiny, *base, f"{key}={CHANGES_FILM[key]}")
    assert before.keys() != after.keys() or any(
        not np.array_equal(x, y, equal_nan=x.dtype.kind == "f")
        for name in before
        for x, y in zip(before[name], after[name], strict=True)
    )


def test_checkpoint_seconds_says_how_often_to_save(short, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoint, "save", lambda *_: saved.append(0))
    short("checkpoint_seconds=1e9")
    few = len(saved)
    short("checkpoint_seconds=0")
    assert (few, len(saved) - few) == (2, 6 + 4 + 2)


def test_phases_are_logged_by_their_name(short, monkeypatch):
    monkeypatch.setattr(train, "LOG_EVERY", 6)
    assert [row["phase"] for row in metrics_log.read(short("schedule.0.name=warm up"))] == [
        "warm up"
    ]


def test_the_device_of_the_config_is_used(short, monkeypatch):
    asked = []

    def pick(name):
        asked.append(name)
        return torch.device("cpu")

    monkeypatch.setattr(checkpoint, "pick_device", pick)
    short("device=auto")
    assert set(asked) == {"auto"}
