"""Laws of what a run reads: recordings, targets, and never the truth unless it says so."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_scene import same, weights

from canonlift.data import recording as recordings
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.session import SimulateConfig, session
from canonlift.training import checkpoint, runs
from canonlift.training import config as configs
from canonlift.training import session as sessions
from canonlift.training.train import train

pytestmark = pytest.mark.usefixtures("shapes_unchecked")


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
    train(config, tmp_path / "run")
    found, expected = checkpoint.load(tmp_path / "run"), checkpoint.load(trained)
    assert same(found["lifter"], expected["lifter"])
    assert torch.equal(found["mean_pose"], expected["mean_pose"])
    assert found["notes"] == expected["notes"]


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
    with pytest.raises(ValueError, match="blind.npz: has no pose3d .* data.target: solved"):
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

    monkeypatch.setattr(sessions, "read", refuse)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".half").touch()
    with pytest.raises(ValueError, match="no"):
        train(configs.load(tiny), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".half"]


def test_a_run_that_is_there_outlives_recordings_that_are_gone(short, tmp_path):
    config = short.config("data.train=[nowhere/*.npz]")
    run = runs.start(config, tmp_path / "begun", resume=False)
    for begun in ({"config.yaml"}, {"config.yaml", checkpoint.FILE}):
        with pytest.raises(FileNotFoundError, match="matches no recording"):
            train(config, run.out, resume=True)
        assert {path.name for path in run.out.iterdir()} == begun
        run.save()


def test_a_guess_that_nobody_can_trust_is_warned_of(short, plant, capsys):
    def one(take):
        return np.where(np.arange(3)[:, None] < 1, take.confidence, 0.0).astype(np.float32)

    short("schedule.0.steps=1", "schedule.1.steps=1")
    assert "WARNING" not in capsys.readouterr().out
    plant("a", confidence=one)
    short(f"data.train=[{plant('b', confidence=one).parent}/*.npz]", "schedule.0.steps=1",
          "schedule.1.steps=1")  # fmt: skip
    said = capsys.readouterr().out
    assert "0% of the frames trusted" in said
    assert said.count("WARNING: there is next to nothing to learn from these targets") == 1
    assert "canonlift train sequence data.target=none" in said


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
    for target in ("solved", "pose3d"):
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
            f"data.train=[{folder}/*.npz]", "schedule.1.weights.refinement=0",
            "schedule.0.weights={target_pose: 0, reprojection: 1, camera_consistency: 1}",
        )  # fmt: skip
        found[rigs] = weights(out)
        idle = "camera_consistency does nothing" in capsys.readouterr().out
        assert idle == (rigs == ("", ""))
    free = weights(short(f"data.train=[{folder}/*.npz]", "schedule.1.weights.refinement=0",
                         "schedule.0.weights={target_pose: 0, reprojection: 1}"))  # fmt: skip
    assert same(found["", ""], free)
    assert not same(found["hall", "hall"], free)
    assert not same(found["hall", "track"], found["hall", "hall"])
