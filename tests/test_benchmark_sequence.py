"""The benchmark of sequences on procedural motion, a few steps long; and that its plans hold."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from test_ptz import mocap, motions, work  # noqa: F401

from benchmarks import films, rows, sequence, sequence_speed, sequence_tables
from benchmarks.sequence_films import delayed, first_views
from benchmarks.sequence_studies import REFERENCES, SETTINGS, STUDIES, Experiment, Study
from canonlift.data.recording import load
from canonlift.models.config import ModelConfig
from figures.sequence import draw

pytestmark = pytest.mark.usefixtures("shapes_unchecked")


def made(folder):
    """Empty files where the films would be."""
    for name in ("expmap-train-running_1.npz", "asf-03_1.npz", "asf-01_1.npz"):
        path = folder / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize("name", STUDIES)
def test_every_experiment_of_a_study_can_be_trained_and_is_there_once(name, tmp_path):
    every = list(STUDIES[name].experiments())
    assert len(set(every)) == len(every)
    for one in every:
        config = sequence.fine_tuning(one, made(tmp_path), tmp_path)
        assert one.setting in SETTINGS
        assert (config is None) == (one.method in (*REFERENCES, "pretrained"))
        if config is None:
            continue
        assert "asf-01" not in str(config.data.train)
        labelled = {
            "3d of one": config.data.train,
            "3d of one+ours": config.data.supervised,
        }.get(one.method)
        if labelled is None:
            assert (config.data.target == "pose3d") == one.method.startswith("3d")
            assert not config.data.supervised
        else:  # the 3D of that one person, and of no other
            assert labelled
            assert all("asf-03" in name for name in labelled)
        weights = config.schedule[-1].weights
        assert ("consistency" in weights) == one.method.endswith(("+consistency", "+ours"))
        if one.weight is not None:
            assert one.weight in weights.values()


def test_late_views_show_what_was_seen_before(mocap, work):  # noqa: F811
    film = films.shoot("phones", mocap, work)
    take = load(next(iter(sorted((film / "train").glob("asf-03*.npz")))))
    late = delayed(take, 2 / 30)
    np.testing.assert_array_equal(late.keypoints[:, ::2], take.keypoints[:, ::2])
    np.testing.assert_allclose(late.keypoints[2:, 1], take.keypoints[:-2, 1], rtol=1e-5)
    between = delayed(take, 0.5 / 30).keypoints[1:, 1]
    both = (take.keypoints[1:, 1] + take.keypoints[:-1, 1]) / 2
    np.testing.assert_allclose(between, both, rtol=1e-5)
    assert first_views(take, 1).keypoints.shape[1] == 1


def test_a_row_is_trained_evaluated_and_shown(mocap, work, tmp_path, monkeypatch):  # noqa: F811
    one = Experiment("2d+as printed", "pair90", weight=2.0, offset_ms=20.0, steps_scale=0.002)
    study = Study(lambda: iter([replace(one, steps_scale=1.0)]), "weight", "weight")
    monkeypatch.setitem(STUDIES, "weight", study)
    row = sequence.run(one, mocap, work, tmp_path)
    assert json.loads((tmp_path / "sequence.jsonl").read_text()) == row
    assert {name: row[name] for name in asdict(one)} == asdict(one)
    assert 0 < row["pa_mpjpe_mm"] < row["mpjpe_mm"] < 900
    text = sequence_tables.show("weight", tmp_path, 0.002)
    assert f"| 2d+as printed, per sequence | 2 | {row['mpjpe_mm']:.1f} |" in text
    found = sequence_tables.of_study("weight", rows.read(tmp_path / "sequence.jsonl"), 0.002)
    assert draw("weight", found, tmp_path).stat().st_size > 1000


def test_the_truth_at_a_lower_rate_is_next_to_true_and_a_still_body_moves_at_0(
    mocap,  # noqa: F811
    work,  # noqa: F811
    tmp_path,
):
    truth, still = (
        sequence.run(Experiment(name, "pair"), mocap, work, tmp_path)
        for name in ("truth", "still")
    )
    assert 0 < truth["pa_mpjpe_mm"] < truth["mpjpe_mm"] < 10 < still["mpjpe_mm"]
    assert 0 < truth["mpjve_mm_s"] < still["mpjve_mm_s"]
    assert still["train_seconds"] is None


def test_speed_is_measured():
    small = ModelConfig("temporal", width=8)
    row = sequence_speed.speed_of(small, n_views=2, batch=1, device="cpu", rounds=1)
    assert list(row) == ["step_s", "frames_per_second", "peak_gb"]
    assert torch.tensor(list(row.values())).gt(0).all()
