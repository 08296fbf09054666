"""Tiny runs that tests of the training share."""

import csv
from dataclasses import replace

import pytest
import torch
from quick_pictures import draw_quickly

from canonlift.cli.main import main
from canonlift.data import recording as recordings
from canonlift.output.figures import notable
from canonlift.simulation.session import write_session
from canonlift.training import checkpoint, loop, metrics_log
from canonlift.training import config as configs
from canonlift.training.train import train

# As configs/demo.yaml is: both stages after a start in closed form.
TINY = """
batch_size: 8
flip: true
device: cpu
checkpoint_seconds: 0.05
data:
  target: solved
  simulate: {n_train: 2, n_test: 1, n_people_train: 2, n_people_test: 1, n_frames: 24,
    cameras: {n_views: 3}}
model: {width: 16, rotation: 6d}
fusion: {method: triangulate, extent: 0.7}
schedule:
  - {name: bootstrap, steps: 12, learning_rate: 1.0e-3, warmup: 3, decay: cosine,
    weights: {target_pose: 1.0}}
  - {name: stage 1, steps: 12, learning_rate: 3.0e-2, convergence: {interval: 3, patience: 4},
    weights: {reprojection: 1, refinement: 1, repaired_reprojection: 0.01, consistency_3d: 0.01}}
  - {name: stage 2, steps: 13, learning_rate: 1.0e-3, decay: cosine, convergence: {interval: 5},
    weights: {reprojection: 0.01, refinement: 0.01, repaired_reprojection: 1, consistency_3d: 1}}
"""

# Two short phases in which every setting of a phase has something to do.
SHORT = """
batch_size: 8
device: cpu
data: {train: [TAKES/train_*.npz], target: solved}
model: {width: 16, rotation: 6d}
fusion: {method: triangulate}
schedule:
  - {name: first, steps: 8, learning_rate: 1.0e-3, weights: {target_pose: 1.0, reprojection: 1.0},
    warmup: 1, convergence: {interval: 2, tolerance: 0.5, patience: 2}}
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
    """Have one kind of frame drawn, quickly: drawing takes longer than training."""
    found = notable.notable_frames
    draw_quickly(patch)

    def one(*args):
        return {k: v for k, v in found(*args).items() if k == kind}

    patch.setattr(notable, "notable_frames", one)


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory):
    """A run folder that `canonlift train` left."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_EVERY", 5)
        draw_little(patch, "most_repaired")
        main(["train", str(tiny), "--out", str(out)])
    return out


@pytest.fixture
def short(takes, tmp_path):
    """Trains the short config with overrides, in a new folder, which it returns."""
    path = tmp_path / "short.yaml"
    path.write_text(SHORT.replace("TAKES", str(takes)))

    def fit(*overrides, name="", **options):
        out = tmp_path / (name or f"run {len(list(tmp_path.iterdir()))}")
        train(configs.load(path, overrides), out, **options)
        return out

    fit.config = lambda *overrides: configs.load(path, overrides)
    return fit


# A small model of sequences, from a start in closed form.
OVER_TIME = """
batch_size: 4
device: cpu
flip: true
data: {train: [TAKES/train_*.npz], target: solved}
windows: {length: 9, stride: 4}
model: {name: temporal, depth: 1, heads: 2, width: 16}
relation: {name: procrustes, segment: 4}
schedule:
  - {name: first, steps: 6, learning_rate: 1.0e-3,
    weights: {target_position: 1, target_velocity: 0.5}}
  - {name: second, steps: 6, learning_rate: 1.0e-3, weights: {own_view: 1.0, consistency: 1.0}}
"""


@pytest.fixture
def over_time(takes, tmp_path):
    """As `short`, of sequences."""
    path = tmp_path / "over_time.yaml"
    path.write_text(OVER_TIME.replace("TAKES", str(takes)))

    def fit(*overrides, **options):
        out = tmp_path / f"run {len(list(tmp_path.iterdir()))}"
        train(configs.load(path, overrides), out, **options)
        return out

    fit.config = lambda *overrides: configs.load(path, overrides)
    return fit


@pytest.fixture(scope="session")
def plain_weights(takes, tmp_path_factory):
    """What the short config comes to."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "short.yaml").write_text(SHORT.replace("TAKES", str(takes)))
    train(configs.load(folder / "short.yaml"), folder / "run")
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
