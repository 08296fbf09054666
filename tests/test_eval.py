"""Laws of `canonlift eval`: what it writes and prints."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from eval_scene import VOTE, filmed, finished_run, one_view, without_truth
from quick_pictures import draw_quickly

from canonlift.body.skeleton import COCO17, H36M17
from canonlift.cli.main import main
from canonlift.data.frames import to_views
from canonlift.data.prediction import read_predictions
from canonlift.data.recording import Recording, save
from canonlift.evaluation.evaluate import evaluate
from canonlift.evaluation.recordings import by_name, held_out, trained_on, unique_names
from canonlift.evaluation.report import Results
from canonlift.inference import model as models
from canonlift.simulation.session import SimulateConfig
from canonlift.training import checkpoint, metrics_log, runs
from canonlift.training import config as configs

pytestmark = pytest.mark.usefixtures("shapes_unchecked")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def model(run):
    return models.load(run, "cpu")


@pytest.fixture(autouse=True)
def nobody_looks_at_the_figures(monkeypatch):
    draw_quickly(monkeypatch)


@pytest.fixture
def evaluated(model, run, tmp_path):
    """Evaluates recordings, and draws none unless asked."""

    def write_and_evaluate(n_drawn=0, **recordings):
        for name, recording in recordings.items():
            save(recording, tmp_path / f"{name}.npz")
        paths = [tmp_path / f"{name}.npz" for name in recordings]
        return evaluate(model, paths, tmp_path / "out", run, n_drawn)

    write_and_evaluate.out = tmp_path / "out"
    return write_and_evaluate


def test_results_hold_every_promised_key(evaluated):
    results = evaluated(one=filmed(), two=filmed(7, 4, seed=1, processing="smoothed"))
    text = (evaluated.out / "results.json").read_text()
    assert json.loads(text) == results
    assert {
        "protocol", "metrics", "per_joint", "per_recording", "baselines", "refinement", "mirror",
        "train_seconds", "frames_per_second",
    } <= results.keys()  # fmt: skip
    figures = {"n_mpjpe_mm", "pa_mpjpe_mm", "mpjpe_mm", "n_pck_150", "auc"}
    moving = figures | {"mpjve_mm_s", "acceleration_m_s2"}
    assert results["metrics"].keys() == moving
    assert results["baselines"].keys() == {"flat", "mean_pose"}
    assert all(row.keys() == figures for row in results["baselines"].values())
    assert results["per_joint"].keys() == set(H36M17)
    assert results["per_recording"].keys() == {"one", "two"}
    assert all(row.keys() == moving | {"frames"} for row in results["per_recording"].values())
    joints = {"hip", "knee", "ankle", "shoulder", "elbow", "wrist"}
    assert {"detected_px", "refined_px", "jdr_detected", "jdr_refined"} <= results[
        "refinement"
    ].keys()
    assert results["refinement"]["jdr_refined"].keys() == joints
    protocol = results["protocol"]
    assert protocol["joints"] == list(H36M17)
    assert {"root", "alignment", "frames", "units", "poses"} <= protocol.keys()
    assert (protocol["recordings"], protocol["frames"]) == (2, 17)
    assert protocol["keypoints"] == ["as detected", "smoothed"]
    assert (results["mirror"], results["train_seconds"]) == (VOTE, 12.5)
    assert results["frames_per_second"] > 0


def test_predictions_are_those_of_the_model(evaluated, model):
    given = {"one": filmed(), "two": filmed(4, 5, seed=1)}
    evaluated(**given)
    read = read_predictions(evaluated.out)
    assert list(read) == list(given)
    for name, recording in given.items():
        expected = model.lift(recording)
        for array in ("pose", "rotation", "keypoints_refined"):
            np.testing.assert_array_equal(getattr(read[name], array), getattr(expected, array))
        np.testing.assert_array_equal(read[name].fused.pose, expected.fused.pose)
        np.testing.assert_array_equal(read[name].recording.pose3d, recording.pose3d)
    names = [path.name for path in evaluated.out.iterdir()]
    assert sorted(names) == ["figures", "predictions.npz", "results.json"]


def test_a_recording_that_fails_leaves_no_half_written_predictions(evaluated):
    bad = filmed(joints=tuple(name.replace("hip", "hop") for name in H36M17))
    bad = replace(bad, joints=tuple(name.replace("pelvis", "pelvos") for name in bad.joints))
    with pytest.raises(ValueError, match="bad.npz: cannot make pelvis, r_hip, l_hip of"):
        evaluated(good=filmed(), bad=bad)
    assert list(evaluated.out.iterdir()) == []


def test_recordings_of_one_name_are_told_apart():
    def names(*paths):
        return unique_names([Path(path) for path in paths])

    assert names("a/walk.npz") == ["walk"]
    assert names("a/one.npz", "b/two.v2.npz") == ["one", "two.v2"]
    assert names("x/a/walk.npz", "x/b/walk.npz") == ["a-walk", "b-walk"]
    assert names("x/a/walk.npz", "y/a/walk.npz", "y/a/b.npz") == ["x-a-walk", "y-a-walk", "y-a-b"]
    assert names("walk.npz", "a/walk.npz") == ["walk", "a-walk"]
    with pytest.raises(ValueError, match="the same recording is given twice: a.npz, a.npz"):
        names("a.npz", "a.npz")


def test_recordings_are_given_as_files_globs_or_values(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recording = filmed(2)
    for name in ("a1", "a2", "b [1]"):  # a glob would read the last as "b 1"
        save(recording, Path(f"{name}.npz"))
    assert by_name("a1.npz") == {"a1": Path("a1.npz")}
    assert list(by_name(["b [1].npz", "a*.npz"])) == ["b [1]", "a1", "a2"]
    assert by_name([recording, Path("a1.npz")]) == {"recording-1": recording, "a1": Path("a1.npz")}
    assert by_name({"mine": recording}) == {"mine": recording}
    assert list(by_name(recording)) == ["recording-1"]
    with pytest.raises(FileNotFoundError, match="'c.npz' matches no recording"):
        by_name("c.npz")


def test_a_notebook_gets_the_same_results_and_no_files(evaluated, model, tmp_path):
    recording = filmed()
    results = evaluate(model, {"one": recording})
    assert not list(tmp_path.iterdir())
    assert results.metrics == evaluated(one=recording).metrics
    assert results.metrics["n_mpjpe_mm"] > 0
    results.save(str(tmp_path / "mine.json"))
    assert json.loads((tmp_path / "mine.json").read_text()) == results
    with pytest.raises(ValueError, match="has no frames"):
        evaluate(model, Recording(**empty(recording)))


def empty(recording):
    """The fields of a recording that has no frames."""
    frames = ("keypoints", "confidence", "pose3d", "keypoints_true")
    return vars(recording) | {name: getattr(recording, name)[:0] for name in frames}


def test_figures_and_predictions_but_no_table_without_ground_truth(evaluated):
    blind = without_truth(filmed(4))
    results = evaluated(n_drawn=1, blind=blind, other=without_truth(filmed(4, seed=1)))
    assert not {"metrics", "per_joint", "baselines", "refinement"} & results.keys()
    assert results["protocol"]["poses"] == 0
    drawn = {path.name for path in (evaluated.out / "figures").iterdir()}
    assert drawn
    assert all(name.startswith("blind-") for name in drawn)
    assert "MPJPE" not in results.table()


def test_all_views_together_have_a_block_of_their_own(evaluated, model):
    """With errors in camera axes like those of single views, and how many views there were."""
    given = {"three": filmed(), "two": filmed(7, 2, seed=1), "one": one_view(filmed(5, seed=2))}
    results = evaluated(**given)
    fused = results["fused"]
    protocol = fused["protocol"]
    assert (protocol["fewest_views"], protocol["most_views"]) == (2, 3)
    assert (protocol["recordings"], protocol["frames"]) == (2, 17)
    sequences = {name: model.lift(given[name]).fused for name in ("three", "two")}
    errors = []
    for name, sequence in sequences.items():
        seen = to_views(given[name]).observed.any(-1).numpy()
        truth = 1000 * given[name].pose3d[seen].astype(np.float64)
        pose, truth = sequence.in_camera[seen], truth - truth[:, :1]
        fit = (pose * truth).sum((1, 2)) / np.square(pose).sum((1, 2))
        errors.append(np.linalg.norm(fit.clip(0)[:, None, None] * pose - truth, axis=-1))
    assert fused["metrics"]["n_mpjpe_mm"] == pytest.approx(np.concatenate(errors).mean(), rel=1e-3)
    assert fused["reprojection_pct"] > 0
    assert "2 to 3 views" in results.table()


def test_one_camera_with_truth_is_compared_but_not_repaired(evaluated):
    results = evaluated(single=one_view(filmed()))
    assert "fused" not in results
    assert "metrics" in results
    assert "refinement" not in results
    assert "px" not in results.table()


def test_another_detectors_joints_are_converted(evaluated, model):
    g = np.random.default_rng(0)
    shape = (6, 2, 17)
    coco = Recording(
        g.uniform(0, 900, (*shape, 2)).astype(np.float32),
        g.uniform(0.1, 1, shape).astype(np.float32),
        COCO17,
        ("a", "b"),
        25.0,
    )
    results = evaluated(coco=coco)
    assert results["protocol"]["joints"] == list(H36M17)
    pose = read_predictions(evaluated.out)["coco"].pose
    assert np.isfinite(pose).all()
    np.testing.assert_array_equal(pose, model.lift(coco.on_skeleton(H36M17)).pose)


def test_what_was_never_seen_or_known_makes_no_numbers(evaluated):
    """And the results stay JSON, which knows no NaN."""
    blank = filmed()
    blank = replace(blank, confidence=np.zeros_like(blank.confidence))
    unknown = filmed(seed=1)
    unknown = replace(
        unknown,
        pose3d=np.full_like(unknown.pose3d, np.nan),
        keypoints_true=np.full_like(unknown.keypoints_true, np.nan),
    )
    results = evaluated(blank=blank, unknown=unknown)
    assert not {"metrics", "per_recording", "refinement"} & results.keys()
    with np.load(evaluated.out / "predictions.npz") as file:
        assert np.isnan(file["blank/pose"]).all()

    half = filmed(seed=2)
    pose3d, true = half.pose3d.copy(), half.keypoints_true.copy()
    pose3d[3], true[3] = np.nan, np.nan
    nose = H36M17.index("nose")
    pose3d[:, :, nose] = np.nan
    evaluated(blank=blank, half=replace(half, pose3d=pose3d, keypoints_true=true))

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    text = (evaluated.out / "results.json").read_text()
    results = json.loads(text, parse_constant=refuse)
    assert results["per_recording"].keys() == {"half"}
    assert set(results["per_joint"]["nose"].values()) == {None}
    assert results["metrics"]["n_mpjpe_mm"] > 0


def test_the_table_says_what_the_results_say(evaluated):
    results = evaluated(one=filmed())
    text = results.table()
    assert f"{results['metrics']['n_mpjpe_mm']:.1f} mm" in text
    for row in results["baselines"].values():
        assert f"{row['pa_mpjpe_mm']:.1f} mm" in text
    assert f"{results['refinement']['refined_unsure_px']:.1f} px" in text
    assert Results(protocol={}).table() == ""


# --- the command


def call(*argv):
    main(["eval", *map(str, argv)])


def refusal(capsys, *argv):
    """What is printed where the command ends with status 2."""
    with pytest.raises(SystemExit) as stop:
        call(*argv)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_results_are_never_overwritten(run, capsys):
    """Without --out every call gets a folder of its own."""
    for folder in ("eval", "eval-2", "eval-3"):
        call(run, "--figures", "0")
        assert str(run / folder / "results.json") in capsys.readouterr().out
    before = (run / "eval" / "results.json").read_bytes()
    words = "eval already holds results; choose another --out"
    assert words in refusal(capsys, run, "--out", run / "eval")
    assert (run / "eval" / "results.json").read_bytes() == before
    assert json.loads(before)["per_recording"].keys() == {"walk"}


def test_prints_why_there_is_no_table_and_where_the_files_are(run, tmp_path, capsys):
    save(without_truth(one_view(filmed())), tmp_path / "phone.npz")
    call(run, "--recordings", tmp_path / "ph*.npz", "--out", tmp_path / "out", "--figures", "0")
    printed = capsys.readouterr().out
    assert "No ground truth" in printed
    assert "MPJPE" not in printed
    assert str(tmp_path / "out" / "predictions.npz") in printed


def test_the_losses_are_drawn_from_the_run(model, tmp_path):
    """From the log of the run, wherever the results go."""
    rows = metrics_log.MetricsLog(tmp_path / "run", ["reprojection"], 0)
    for step in (50, 100):
        rows.write({"step": step, "phase": "a", "loss": 1.0, "reprojection": 1.0,
                    "learning_rate": 1.0, "seconds": 1.0})  # fmt: skip
    save(without_truth(filmed(2)), tmp_path / "walk.npz")
    evaluate(model, [tmp_path / "walk.npz"], tmp_path / "out", tmp_path / "run", 0)
    assert [path.name for path in (tmp_path / "out" / "figures").iterdir()] == ["losses.png"]


def with_data(config, **change):
    return replace(config, data=replace(config.data, **change))


def test_a_simulated_run_is_tested_on_its_own_session(model, tmp_path):
    odd = tmp_path / "run [1]"  # a glob would read this as "run 1"
    for name in ("train_00", "test_00", "test_01"):
        save(filmed(2), odd / "session" / f"{name}.npz")
    config = with_data(model.config, train=[], test=[], simulate=SimulateConfig())
    assert [path.name for path in held_out(config, odd)] == ["test_00.npz", "test_01.npz"]
    assert [path.name for path in trained_on(config, odd)] == ["train_00.npz"]


def test_warns_where_the_model_was_trained_on_what_is_evaluated(tmp_path, capsys):
    run = finished_run(tmp_path, train="s*.npz")
    seen, unseen = tmp_path / "seen.npz", tmp_path / "unseen.npz"
    for path in (seen, unseen):
        save(filmed(2), path)
    every = tmp_path / "*een.npz"
    call(run, "--recordings", every, "--out", tmp_path / "out", "--figures", "0")
    assert f"WARNING: the model was trained on {seen};" in capsys.readouterr().out
    call(run, "--recordings", unseen, "--out", tmp_path / "more", "--figures", "0")
    assert "WARNING" not in capsys.readouterr().out


def test_a_joint_that_no_view_observed_is_named(evaluated, capsys):
    confidence = filmed().confidence.copy()
    confidence[..., H36M17.index("head")] = 0
    evaluated(headless=filmed(confidence=confidence))
    assert "WARNING: headless: never observed: head; guessed" in capsys.readouterr().out


def test_a_run_without_test_recordings_asks_for_some(run, model):
    with pytest.raises(FileNotFoundError, match="set no test recordings aside; give --recordings"):
        held_out(with_data(model.config, test=[]), run)
    with pytest.raises(FileNotFoundError, match="no recordings to evaluate"):
        evaluate(model, [], run / "none", run)


def test_bad_input_ends_with_one_line_and_status_2(run, tmp_path, capsys):
    for argv, words in (
        ((tmp_path / "nothing",), "no checkpoint; is"),
        ((run, "--recordings", "nothing/*.npz"), "matches no recording"),
        ((run, "--device", "gpu"), "device 'gpu' does not work here"),
        ((run, "--group-by", "("), "is no regular expression"),
    ):
        printed = refusal(capsys, *argv)
        assert printed.startswith("canonlift eval: error: ")
        assert words in printed
        assert printed.count("\n") == 1


# --- the model


def test_an_unfinished_run_comes_with_the_advice_to_resume(run, tmp_path):
    begun = runs.start(configs.load(run / "config.yaml"), tmp_path / "begun", resume=False)
    begun.save()
    with pytest.raises(ValueError, match="training has not finished; continue") as error:
        models.load(tmp_path / "begun", "cpu")
    command = shlex.split(str(error.value).split("`")[1])
    assert command[:2] == ["canonlift", "train"]
    assert command[3:] == ["--out", str(tmp_path / "begun"), "--resume"]
    again = configs.load(Path(command[2]))
    runs.start(again, Path(command[4]), resume=True)


def test_what_is_no_checkpoint_is_refused_by_name(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint; is .* the folder of a run"):
        checkpoint.load(tmp_path)
    path = tmp_path / "checkpoint.pt"
    whole = (run / "checkpoint.pt").read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path}: damaged, or not a checkpoint"):
            checkpoint.load(tmp_path)
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=f"{path}: not a checkpoint of canonlift"):
        checkpoint.load(tmp_path)
    torch.save({"config": "", "lifter": Path("x")}, path)  # a pickled object
    with pytest.raises(ValueError, match="damaged, or not a checkpoint"):
        checkpoint.load(tmp_path)


def test_a_model_comes_back_as_it_was(run, model):
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, state["lifter"][name])
    assert torch.equal(model.mean_pose, state["mean_pose"])
    assert model.joints == H36M17
    assert not model.network.training
