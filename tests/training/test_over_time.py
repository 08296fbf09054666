"""Laws of runs over time, and of what the monitor notices in them."""

import numpy as np
import pytest
from training_scene import draw_little, same, single_view, weights

from canonlift.data import recording as recordings
from canonlift.evaluation.evaluate import evaluate
from canonlift.inference.model import load
from canonlift.training import metrics_log, mirror, monitor, runs
from canonlift.training import session as sessions
from canonlift.training.train import train


def test_a_run_over_time_is_logged_and_evaluated_view_by_view(over_time, takes, monkeypatch):
    draw_little(monkeypatch, "most_repaired")
    out = over_time("windows.fps=20", log_every=3)
    rows = metrics_log.read(out)
    assert [row["spread"] != "" for row in rows] == [True] * 4
    assert [row["degenerate"] != "" for row in rows] == [False] * 2 + [True] * 2
    model = load(out, "cpu")
    take = recordings.load(takes / "test_00.npz")
    together = model.lift(take)
    assert np.isfinite(together.pose[(take.confidence > 0).any(-1)]).all()
    for view in range(3):
        alone = model.lift(single_view(take, view))
        np.testing.assert_allclose(alone.pose[:, 0], together.pose[:, view], atol=1e-5)
    result = evaluate(model, [takes / "test_00.npz"], out / "eval", out, n_drawn=1)
    assert result["protocol"]["input"] == (
        "one view at a time, windows of 9 frames at 20 fps, blended"
    )
    assert result["metrics"]["mpjve_mm_s"] > 0
    assert (out / "eval" / "figures" / "test_00-most_repaired-pose.png").is_file()


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
            train(over_time.config("checkpoint_seconds=0"), tmp_path / "again")
    train(over_time.config("checkpoint_seconds=0"), tmp_path / "again", resume=True)
    assert same(weights(tmp_path / "again"), weights(whole))


def test_its_mirror_image_is_turned_round_as_well(over_time, takes):
    config = over_time.config()
    data = sessions.read(config, sorted(takes.glob("train_*.npz")))
    lifter = load(over_time("schedule.0.steps=40"), "cpu").network
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
    simple = (
        "data.target=none",
        "schedule.0.weights={target_position: 0, target_velocity: 0, own_view: 1}",
    )
    alone = weights(over_time(f"data.train=[{one}]", *simple))
    assert (
        "no recording has two views, so there are no other views to learn from"
        in capsys.readouterr().out
    )
    assert all(value.isfinite().all() for value in alone.values())
    both = weights(over_time(f"data.train=[{one}, {takes}/train_01.npz]", *simple))
    assert all(value.isfinite().all() for value in both.values())
    fused = "schedule.1.weights={own_view: 0.01, repaired_own_view: 1, repaired_consistency: 1}"
    mended = weights(over_time("fusion.threshold=2", fused))
    assert not same(mended, weights(over_time()))


def test_poses_that_collapse_stop_the_run_with_advice(over_time, capsys):
    """What the authors warn of. The loss that does not reward shrinking does not do it."""
    options = (
        "model.name=dstformer", "schedule.0.steps=40", "schedule.0.learning_rate=1e-2",
    )  # fmt: skip
    weights = "{target_position: 0, target_velocity: 0, own_view: 0.01, consistency_as_printed: 9}"
    advice = "lower the weight of consistency_as_printed .now 9., or use `consistency`"
    with pytest.raises(monitor.Collapsed, match=advice):
        over_time(*options, f"schedule.0.weights={weights}", log_every=2)
    assert "% of the size of the detections" in capsys.readouterr().out


@pytest.fixture
def watch(over_time, tmp_path):
    """Shows the monitor these measures, one after another; the others are as they should be."""

    def show(weights="{own_view: 1}", run=None, **measured):
        if run is None:
            config = over_time.config("data.target=pose3d", f"schedule.0.weights={weights}")
            run = runs.start(config, tmp_path / str(len(list(tmp_path.iterdir()))), resume=False)
        for values in zip(*measured.values(), strict=True):
            row = dict(zip(measured, values, strict=True))
            monitor.watch_poses(run, {"spread": 1.0, "depth": 1.0, "movement": 0.8} | row)
        return run

    return show


def test_only_poses_that_stay_small_have_collapsed(watch, capsys):
    """At its start a network may predict next to nothing."""
    watch(spread=9 * [0.05] + [0.6] + 9 * [0.05])
    watch(spread=30 * [0.2])
    with pytest.raises(monitor.Collapsed, match="give `own_view` a weight, or raise it"):
        watch(spread=10 * [0.05])
    assert capsys.readouterr().out.count("WARNING: step 0: the poses have") == 4


def test_flat_poses_are_noticed(watch, capsys):
    watch(depth=[0.3] + 12 * [0.01])
    assert capsys.readouterr().out.count("the poses are flat, 1% as deep as wide") == 1


def test_rods_are_noticed(watch, capsys):
    watch(depth=9 * [4.0] + [2.0] + 12 * [6.5])
    assert capsys.readouterr().out.count("the poses are 6.5 times as deep as wide") == 1


def test_bodies_that_stay_the_same_are_noticed(watch, capsys):
    consistent = "{own_view: 1, consistency: 1}"
    watch(consistent, movement=9 * [0.1] + [0.5] + 12 * [0.39])
    assert capsys.readouterr().out.count("move 39% as much as what was detected") == 1
    watch(consistent, movement=12 * [0.41])
    watch("{own_view: 1, consistency: 0}", movement=12 * [0.1])
    assert capsys.readouterr().out == ""


def test_counts_go_on_after_a_restart_and_begin_anew_in_every_phase(watch, capsys):
    run = watch(depth=5 * [0.01])
    run.save()
    again = runs.start(run.config, run.out, resume=True)
    watch(run=again, depth=5 * [0.01])
    assert capsys.readouterr().out.count("the poses are flat") == 1
    monitor.begin_phase(run)
    watch(run=run, depth=9 * [0.01])
    assert capsys.readouterr().out == ""


def test_nothing_is_watched_where_nothing_is_measured(watch, capsys):
    run = watch(depth=[1.0])
    for _ in range(20):
        monitor.watch_poses(run, {"loss": 1.0})
    assert capsys.readouterr().out == ""


PACE = ("schedule.0.learning_rate=5e-3", "schedule.0.steps=30", "schedule.1.steps=1")


def test_in_bfloat16_the_loss_falls_as_in_float32(over_time):
    """Of the same batches; were it other steps, it would differ by as much as it falls."""
    curves = [
        [float(row["loss"]) for row in metrics_log.read(over_time(*PACE, *more, log_every=1))]
        for more in ([], ["model.precision=bfloat16"])
    ]
    full, less = np.array(curves)
    fall = full[:3].mean() - full[-3:].mean()
    assert fall > 0.2 * full[0]
    assert 0 < np.abs(less - full).max() < 0.05 * fall
