"""No setting is idle: each changes something."""

from dataclasses import fields, is_dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from training_scene import same, weights

from canonlift.body.skeleton import H36M17
from canonlift.methods.fusion import FusionConfig, fuse
from canonlift.simulation.session import session
from canonlift.training import checkpoint, metrics_log
from canonlift.training import config as configs
from canonlift.training import session as sessions

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

CHANGES_WEIGHTS = {
    "skeleton": "limbs14",
    "batch_size": "9",
    "flip": "true",
    "model.width": "17",
    "model.rotation": "axis_angle",
    "model.precision": "bfloat16",
    "data.target": "pose3d",
    "schedule.0.weights": "{target_pose: 1.0, reprojection: 0.5}",
    "schedule.0.steps": "5",
    "schedule.0.learning_rate": "2e-3",
    "schedule.0.weight_decay": "0.5",
    "schedule.0.warmup": "3",
    "schedule.0.decay": "cosine",
    "schedule.0.decay_at": "[2]",
    "schedule.0.clip_norm": "1e-3",
    "schedule.0.convergence.interval": "3",
    "schedule.0.convergence.tolerance": "-1.0",  # any interval counts as progress
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
    "detector.offset_m": "[0.02, 0.04]",
    "detector.limb_error_rate": "0.5",
    "detector.hidden": "[l_knee]",
}
TESTED_BY_NAME = {  # each below, or above
    "seed", "data.train", "data.test", "start_from", "device", "checkpoint_seconds",
    "schedule.0.name",
    "data.supervised",
    "data.shards",  # in test_shards.py
    "model.name", "model.depth", "model.heads", "model.head_width",  # over time
    "relation.name", "relation.segment",
    "windows.length", "windows.stride", "windows.fps", "windows.gap",
}  # fmt: skip
CHANGES_WEIGHTS_OVER_TIME = {
    "model": "{name: frame, heads: 4}",
    "windows.length": "8",
    "windows.stride": "3",
    "windows.fps": "20",
    "windows.gap": "0",
    "relation.segment": "1",
    "model.depth": "2",
    "model.heads": "1",
    "model.width": "18",
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
        found = weights(over_time(*quick, f"{key}={value}"))
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


def test_phases_are_logged_by_their_name(short):
    out = short("schedule.0.name=warm up", log_every=6)
    assert [row["phase"] for row in metrics_log.read(out)] == ["warm up"]


def test_the_device_of_the_config_is_used(short, monkeypatch):
    asked = []

    def pick(name):
        asked.append(name)
        return torch.device("cpu")

    monkeypatch.setattr(checkpoint, "pick_device", pick)
    monkeypatch.setattr(sessions, "pick_device", pick)
    short("device=auto")
    assert set(asked) == {"auto"}
