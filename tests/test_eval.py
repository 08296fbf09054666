"""Laws of the evaluation: every number means what it says, and nothing is lost or invented."""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from scipy.spatial.transform import Rotation

import eval as program
from canonlift.body import skeleton
from canonlift.body.skeleton import COCO17, H36M17
from canonlift.data import recording as recordings
from canonlift.data.prediction import Fused, Prediction
from canonlift.data.recording import Recording
from canonlift.data.samples import centre, to_views
from canonlift.evaluation import evaluate as scoring
from canonlift.inference.predict import predict
from canonlift.inference.reconstruction import reconstruct
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.motions import MOTIONS
from canonlift.simulation.session import film
from canonlift.training import checkpoint, metrics_log, runs
from canonlift.training import config as configs

CONFIG = """
device: cpu
data: {train: [nowhere], test: [FOLDER/take.npz]}
lifter: {width: 16, rotation: 6d}
fusion: {method: triangulate}
schedule: [{name: only, steps: 1, weights: {reprojection: 1.0}}]
"""
VOTE = {"mirrored": 1, "upright": 3, "turned_round": False, "certainty": 0.75}


def take(n_frames=10, n_views=3, seed=0, **change):
    """A filmed athlete with the truth, not everything of whom was seen."""
    g = np.random.default_rng(seed)
    pose = perform(sample_person(g), list(MOTIONS), n_frames, 10.0, g)
    detector = DetectorConfig(joint_miss_rate=0.1, frame_miss_rate=0.1)
    filmed = film(pose, H36M17, 10.0, CameraConfig(n_views=n_views), detector, g)
    return replace(filmed, **change)


def without_truth(recording):
    return replace(recording, pose3d=None, keypoints_true=None)


def one_view(recording, view=0):
    """The same take by one of its cameras."""
    names = ("keypoints", "confidence", "pose3d", "keypoints_true")
    parts = {name: getattr(recording, name) for name in names}
    parts = {name: x if x is None else x[:, [view]] for name, x in parts.items()}
    size = None if recording.image_size is None else recording.image_size[[view]]
    return replace(recording, **parts, views=(recording.views[view],), image_size=size)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run whose lifter learned nothing, but has an opinion on rotations."""
    folder = tmp_path_factory.mktemp("eval")
    (folder / "my.yaml").write_text(CONFIG.replace("FOLDER", str(folder)))
    recordings.save(take(), folder / "take.npz")
    begun = runs.start(configs.load(folder / "my.yaml"), folder / "run", resume=False)
    with torch.no_grad():
        begun.lifter.rotation[-1].weight.mul_(20)
    begun.mirror, begun.progress.seconds = VOTE, 12.5
    mean_pose = torch.randn(17, 3, generator=torch.Generator().manual_seed(0))
    begun.save(mean_pose=mean_pose - mean_pose[:1])
    return folder / "run"


@pytest.fixture(scope="module")
def model(run):
    return checkpoint.load_model(run, "cpu")


@pytest.fixture
def evaluate(model, run, tmp_path, monkeypatch):
    """Evaluates recordings, without pictures unless asked."""

    def write_and_evaluate(n_drawn=0, **takes):
        for name, recording in takes.items():
            recordings.save(recording, tmp_path / f"{name}.npz")
        if not n_drawn:
            monkeypatch.setattr(scoring, "draw_run", lambda *_: [])
        paths = [tmp_path / f"{name}.npz" for name in takes]
        return scoring.evaluate(model, paths, tmp_path / "out", run, n_drawn)

    write_and_evaluate.out = tmp_path / "out"
    return write_and_evaluate


def same(one, other, atol=2e-6):
    """Equal predictions but for rounding; in pixels that is a thousand times as much."""
    for name, scale in (("pose", 1), ("rotation", 1), ("keypoints_refined", 1e4)):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name),
                                   rtol=0, atol=scale * atol, err_msg=name)  # fmt: skip


# --- predictions


def test_predictions_have_the_promised_shapes_and_units(model):
    recording = take()
    seen = to_views(recording).observed.any(-1).numpy()
    assert not seen.all()
    found = predict(model, recording)
    assert found.pose.shape == (10, 3, 17, 3)
    assert found.rotation.shape == (10, 3, 3, 3)
    assert found.keypoints_refined.shape == (10, 3, 17, 2)
    assert all(array.dtype == np.float32 for array in vars(found).values())
    start, end = (list(side) for side in zip(*skeleton.bones(H36M17), strict=True))
    bones = np.linalg.norm(found.pose[:, :, start] - found.pose[:, :, end], axis=-1).sum(-1)
    np.testing.assert_allclose(bones[seen], 1, atol=1e-5)
    assert (found.pose[seen][:, 0] == 0).all()
    turn = found.rotation[seen]
    np.testing.assert_allclose(turn @ turn.swapaxes(-1, -2), np.tile(np.eye(3), (len(turn), 1, 1)),
                               atol=1e-5)  # fmt: skip
    assert np.linalg.det(turn).min() > 0.99


def test_views_in_which_nobody_was_seen_hold_nan_and_nothing_else_does(model):
    recording = take()
    keypoints, confidence = recording.keypoints.copy(), recording.confidence.copy()
    confidence[2], confidence[5, 1] = 0, 0
    keypoints[confidence == 0] = np.nan
    recording = replace(recording, keypoints=keypoints, confidence=confidence)
    found = predict(model, recording)
    blank = ~to_views(recording).observed.any(-1).numpy()
    assert blank[2].all()
    assert blank[5, 1]
    for array in (found.pose, found.rotation):
        np.testing.assert_array_equal(np.isnan(array).all((-1, -2)), blank)
        np.testing.assert_array_equal(np.isnan(array).any((-1, -2)), blank)
    assert np.isnan(found.keypoints_refined[blank]).all()
    assert np.isfinite(found.keypoints_refined[~blank][confidence[~blank] > 0]).all()


def test_lifts_one_view_alone_as_it_does_among_others(model):
    recording = take()
    among = predict(model, recording)
    for view in range(3):
        alone = predict(model, one_view(recording, view))
        for name in ("pose", "rotation"):
            np.testing.assert_allclose(
                getattr(alone, name)[:, 0], getattr(among, name)[:, view], rtol=0, atol=2e-6
            )
    nonsense = recording.keypoints.copy()
    nonsense[:, 1:] = nonsense[::-1, 1:]
    nonsense[recording.confidence == 0], nonsense[np.isnan(nonsense)] = np.nan, 0
    other = predict(model, replace(recording, keypoints=nonsense))
    np.testing.assert_allclose(other.pose[:, 0], among.pose[:, 0], rtol=0, atol=2e-6)
    assert np.nanmax(np.abs(other.pose[:, 1:] - among.pose[:, 1:])) > 1e-3


def test_a_camera_alone_repairs_nothing(model):
    recording = one_view(take())
    found = predict(model, recording).keypoints_refined
    detected, *_ = centre(recording)
    unseen = ~to_views(recording).observed.numpy()
    expected = np.where(unseen[..., None], np.nan, detected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.01)


def test_repair_moves_unsure_joints_only_and_keeps_the_place_in_the_image(model):
    recording = take(n_frames=40)
    found = predict(model, recording).keypoints_refined
    detected, confidence, _, rooted = centre(recording)
    never = np.isin(H36M17, model.config.fusion.never)
    seen = (confidence > 0) & rooted[..., None]
    kept = seen & (never | (confidence >= model.config.fusion.threshold))
    np.testing.assert_allclose(found[kept], detected[kept], rtol=0, atol=0.01)
    unsure = seen & ~kept
    moved = np.linalg.norm(found - detected, axis=-1) > 1
    assert moved[unsure].mean() > 0.5
    placed = ~seen & rooted[..., None] & ~never
    assert np.isfinite(found[placed]).all(-1).mean() > 0.5


@pytest.mark.parametrize("block", [1, 3, 10])
def test_predictions_do_not_depend_on_the_block_size(model, block):
    same(predict(model, take(), block), scoring.predict(model, take()))


@pytest.mark.parametrize("n_views", [2, 5])
def test_any_number_of_views(model, n_views):
    assert predict(model, take(4, n_views)).pose.shape == (4, n_views, 17, 3)


# --- files


def test_results_hold_every_promised_key(evaluate):
    results = evaluate(one=take(), two=take(7, 4, seed=1, processing="smoothed"))
    text = (evaluate.out / "results.json").read_text()
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


def test_predictions_are_read_back_without_pickles(evaluate, model):
    takes = {"one": take(), "two": take(4, 5, seed=1)}
    evaluate(**takes)
    with np.load(evaluate.out / "predictions.npz", allow_pickle=False) as file:
        assert set(file.files) == {
            f"{name}/{key}"
            for name in takes
            for key in (
                *Prediction.__annotations__,
                *(f"fused_{key}" for key in Fused.__annotations__),
            )
        }
        np.testing.assert_array_equal(
            file["one/fused_pose"],
            reconstruct(takes["one"], predict(model, takes["one"])).pose,
        )
        for name, recording in takes.items():
            read = Prediction(*(file[f"{name}/{key}"] for key in Prediction.__annotations__))
            same(read, predict(model, recording))
    names = [path.name for path in evaluate.out.iterdir()]
    assert sorted(names) == ["predictions.npz", "results.json"]


def test_a_recording_that_fails_leaves_no_half_written_predictions(evaluate):
    bad = take(joints=tuple(name.replace("hip", "hop") for name in H36M17))
    bad = replace(bad, joints=tuple(name.replace("pelvis", "pelvos") for name in bad.joints))
    with pytest.raises(ValueError, match="bad.npz: cannot make pelvis, r_hip, l_hip of"):
        evaluate(good=take(), bad=bad)
    assert list(evaluate.out.iterdir()) == []


def test_recordings_of_one_name_are_told_apart():
    def names(*paths):
        return scoring.unique_names([Path(path) for path in paths])

    assert names("a/take.npz") == ["take"]
    assert names("a/one.npz", "b/two.v2.npz") == ["one", "two.v2"]
    assert names("x/a/take.npz", "x/b/take.npz") == ["a-take", "b-take"]
    assert names("x/a/take.npz", "y/a/take.npz", "y/a/b.npz") == ["x-a-take", "y-a-take", "y-a-b"]
    assert names("take.npz", "a/take.npz") == ["take", "a-take"]
    with pytest.raises(ValueError, match="the same recording is given twice: a.npz, a.npz"):
        names("a.npz", "a.npz")


def test_figures_and_predictions_but_no_table_without_ground_truth(evaluate):
    blind = without_truth(take(4))
    results = evaluate(n_drawn=1, blind=blind, other=without_truth(take(4, seed=1)))
    assert not {"metrics", "per_joint", "baselines", "refinement"} & results.keys()
    assert results["protocol"]["poses"] == 0
    drawn = {path.name for path in (evaluate.out / "figures").iterdir()}
    assert drawn
    assert all(name.startswith("blind-") for name in drawn)
    assert "MPJPE" not in scoring.table(results)


def test_all_views_together_have_a_block_of_their_own(evaluate, model):
    """With errors in camera axes like those of single views, and how many views there were."""
    takes = {"three": take(), "two": take(7, 2, seed=1), "one": one_view(take(5, seed=2))}
    results = evaluate(**takes)
    fused = results["fused"]
    protocol = fused["protocol"]
    assert (protocol["fewest_views"], protocol["most_views"]) == (2, 3)
    assert (protocol["recordings"], protocol["frames"]) == (2, 17)
    sequences = {
        name: reconstruct(takes[name], predict(model, takes[name])) for name in ("three", "two")
    }
    errors = []
    for name, sequence in sequences.items():
        seen = to_views(takes[name]).observed.any(-1).numpy()
        truth = 1000 * takes[name].pose3d[seen].astype(np.float64)
        pose, truth = sequence.in_camera[seen], truth - truth[:, :1]
        fit = (pose * truth).sum((1, 2)) / np.square(pose).sum((1, 2))
        errors.append(np.linalg.norm(fit.clip(0)[:, None, None] * pose - truth, axis=-1))
    assert fused["metrics"]["n_mpjpe_mm"] == pytest.approx(np.concatenate(errors).mean(), rel=1e-3)
    assert fused["reprojection_pct"] > 0
    assert "2 to 3 views" in scoring.table(results)


def test_bones_that_keep_their_length_have_no_spread():
    g = np.random.default_rng(0)
    pose = np.repeat(g.standard_normal((1, 17, 3)), 20, axis=0)
    turned = pose @ Rotation.random(20, rng=g).as_matrix()
    turned[3] = np.nan
    assert scoring.bone_spread(turned, H36M17) < 1e-12
    assert scoring.bone_spread(turned * (1 + 0.1 * (-1) ** np.arange(20))[:, None, None],
                                  H36M17) == pytest.approx(0.1, rel=0.01)  # fmt: skip


def test_exports_on_the_command_line(run, tmp_path, monkeypatch, capsys):
    """Files in metres, the notes printed and kept, predictions as they are without."""
    recordings.save(without_truth(take()), tmp_path / "take.npz")
    for out, more in (("a", ["--export", "trc,npz", "--height", "1.8", "--filter",
                             "butterworth:2"]), ("b", [])):  # fmt: skip
        call(monkeypatch, run, "--recordings", tmp_path / "take.npz", "--out", tmp_path / out,
             "--figures", "0", *more)  # fmt: skip
    said = capsys.readouterr().out
    assert "take, fused: 1 body unit is" in said
    assert {path.name for path in (tmp_path / "a" / "export").iterdir()} == {
        f"take-{name}.{suffix}" for name in ("cam0", "cam1", "cam2", "fused")
        for suffix in ("trc", "npz")
    }  # fmt: skip
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert results["export"]["take"]["notes"].keys() == {"cam0", "cam1", "cam2", "fused"}
    with np.load(tmp_path / "a" / "predictions.npz") as a, \
         np.load(tmp_path / "b" / "predictions.npz") as b:  # fmt: skip
        for key in b.files:
            np.testing.assert_array_equal(a[key], b[key])
    assert not (tmp_path / "b" / "export").exists()
    with pytest.raises(SystemExit, match="eval.py: --export must be one of"):
        call(monkeypatch, run, "--export", "trk")


def test_one_camera_with_truth_is_compared_but_not_repaired(evaluate):
    results = evaluate(single=one_view(take()))
    assert "fused" not in results
    assert "metrics" in results
    assert "refinement" not in results
    assert "px" not in scoring.table(results)


def test_another_detectors_joints_are_converted(evaluate, model):
    g = np.random.default_rng(0)
    shape = (6, 2, 17)
    coco = Recording(
        g.uniform(0, 900, (*shape, 2)).astype(np.float32),
        g.uniform(0.1, 1, shape).astype(np.float32),
        COCO17,
        ("a", "b"),
        25.0,
    )
    results = evaluate(coco=coco)
    assert results["protocol"]["joints"] == list(H36M17)
    with np.load(evaluate.out / "predictions.npz") as file:
        assert np.isfinite(file["coco/pose"]).all()
        assert file["coco/pose"].shape == (6, 2, 17, 3)
    same(predict(model, coco.on_skeleton(H36M17)),
         Prediction(*(np.load(evaluate.out / "predictions.npz")[f"coco/{key}"]
                      for key in Prediction.__annotations__)))  # fmt: skip


def test_what_was_never_seen_or_known_makes_no_numbers(evaluate):
    """And the results stay JSON, which knows no NaN."""
    blank = take()
    blank = replace(blank, confidence=np.zeros_like(blank.confidence))
    unknown = take(seed=1)
    unknown = replace(
        unknown,
        pose3d=np.full_like(unknown.pose3d, np.nan),
        keypoints_true=np.full_like(unknown.keypoints_true, np.nan),
    )
    results = evaluate(blank=blank, unknown=unknown)
    assert not {"metrics", "per_recording", "refinement"} & results.keys()
    with np.load(evaluate.out / "predictions.npz") as file:
        assert np.isnan(file["blank/pose"]).all()

    half = take(seed=2)
    pose3d, true = half.pose3d.copy(), half.keypoints_true.copy()
    pose3d[3], true[3] = np.nan, np.nan
    nose = H36M17.index("nose")
    pose3d[:, :, nose] = np.nan
    evaluate(blank=blank, half=replace(half, pose3d=pose3d, keypoints_true=true))

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    text = (evaluate.out / "results.json").read_text()
    results = json.loads(text, parse_constant=refuse)
    assert results["per_recording"].keys() == {"half"}
    assert set(results["per_joint"]["nose"].values()) == {None}
    assert results["metrics"]["n_mpjpe_mm"] > 0


# --- numbers


def planted(model, recording, **arrays):
    """Scores of a prediction that differs from the model's own in the given arrays."""
    scores = scoring.Scores(model)
    prediction = replace(predict(model, recording), **arrays)
    scores.add("planted", recording, prediction)
    return scores.results()


def relative(pose):
    return pose - pose[..., :1, :]


def errors_by_hand(pose, truth):
    """N-MPJPE, PA-MPJPE and MPJPE per joint of one pose, by scipy and least squares."""
    pose, truth = relative(pose), relative(truth)
    factor, _ = nnls(pose.reshape(-1, 1), truth.ravel())  # no pose is turned inside out
    normalised = np.linalg.norm(factor * pose - truth, axis=-1)
    given = np.linalg.norm(pose - truth, axis=-1)
    a, b = pose - pose.mean(0), truth - truth.mean(0)
    turn, _ = Rotation.align_vectors(b, a)
    turned = turn.apply(a)
    factor, _ = nnls(turned.reshape(-1, 1), b.ravel())
    return normalised, np.linalg.norm(factor * turned - b, axis=-1), given


def test_metrics_agree_with_scipy_on_planted_predictions(model):
    recording = take(n_frames=12)
    g = np.random.default_rng(0)
    seen = to_views(recording).observed.any(-1).numpy()
    pose = 0.3 * (recording.pose3d + 0.15 * g.normal(size=recording.pose3d.shape))
    pose = np.where(seen[..., None, None], pose, np.nan).astype(np.float32)
    truth = 1000 * recording.pose3d.astype(np.float64)
    results = planted(model, recording, pose=pose)

    def summary(poses):
        poses = poses[seen].astype(np.float64)
        factor, _ = nnls(relative(poses).reshape(-1, 1), relative(truth[seen]).ravel())
        pairs = zip(factor * poses, truth[seen], strict=True)
        errors = zip(*(errors_by_hand(*p) for p in pairs), strict=True)
        normalised, aligned, given = map(np.array, errors)
        within = [(normalised <= t).mean() for t in range(0, 151, 5)]
        return {
            "n_mpjpe_mm": normalised.mean(),
            "pa_mpjpe_mm": aligned.mean(),
            "mpjpe_mm": given.mean(),
            "n_pck_150": 100 * (normalised <= 150).mean(),
            "auc": 100 * np.mean(within),
        }, (normalised.mean(0), aligned.mean(0), given.mean(0))

    expected, by_joint = summary(pose)
    assert 20 < expected["n_pck_150"] < 95
    factor, _ = nnls(relative(pose[seen]).reshape(-1, 1), relative(truth[seen]).ravel())
    gap = factor * relative(pose) - relative(truth)
    steps = [np.linalg.norm(np.diff(gap, n=n, axis=0), axis=-1) * recording.fps**n for n in (1, 2)]
    motion = {
        "mpjve_mm_s": np.nanmean(steps[0]),
        "acceleration_m_s2": np.nanmean(steps[1]) / 1000,
    }
    assert results["metrics"] == pytest.approx(expected | motion, rel=1e-4)
    assert results["per_recording"]["planted"] == pytest.approx(
        expected | motion | {"frames": 12}, rel=1e-4
    )
    found = results["per_joint"]
    for j, name in enumerate(H36M17):
        figures = ("n_mpjpe_mm", "pa_mpjpe_mm", "mpjpe_mm")
        row = {key: errors[j] for key, errors in zip(figures, by_joint, strict=True)}
        assert found[name] == pytest.approx(row, rel=1e-4, abs=1e-3)
    keypoints = np.pad(to_views(recording).keypoints.numpy(), [(0, 0)] * 3 + [(0, 1)])
    mean_pose = np.broadcast_to(model.mean_pose.numpy(), pose.shape)
    for name, poses in (("flat", keypoints), ("mean_pose", mean_pose)):
        assert results["baselines"][name] == pytest.approx(summary(poses)[0], rel=1e-4)
    assert results["protocol"]["poses"] == seen.sum()


def test_the_truth_itself_in_any_size_costs_nothing_and_its_mirror_does(model):
    recording = take()
    perfect = planted(model, recording, pose=0.01 * recording.pose3d)["metrics"]
    assert perfect["n_mpjpe_mm"] == pytest.approx(0, abs=1e-2)
    assert (perfect["n_pck_150"], perfect["auc"]) == (100, pytest.approx(100, abs=4))
    mirrored = recording.pose3d * np.float32([1, 1, -1])
    mirrored = planted(model, recording, pose=mirrored)["metrics"]
    assert mirrored["pa_mpjpe_mm"] > 20
    turned = recording.pose3d @ Rotation.from_euler("y", 90, degrees=True).as_matrix().T
    turned = planted(model, recording, pose=turned.astype(np.float32))["metrics"]
    assert turned["pa_mpjpe_mm"] == pytest.approx(0, abs=1e-2)
    assert turned["n_mpjpe_mm"] > 50  # in camera axes


def test_recordings_are_pooled_by_pose_not_by_recording(model):
    scores = scoring.Scores(model)
    takes = {"long": take(12), "short": take(4, seed=1)}
    for name, recording in takes.items():
        scores.add(name, recording, predict(model, recording))
    results = scores.results()
    rows = results["per_recording"]
    n = {name: to_views(r).observed.any(-1).sum().item() for name, r in takes.items()}
    expected = sum(n[name] * rows[name]["pa_mpjpe_mm"] for name in n) / sum(n.values())
    assert results["metrics"]["pa_mpjpe_mm"] == pytest.approx(expected, rel=1e-6)
    assert rows["long"]["pa_mpjpe_mm"] != pytest.approx(rows["short"]["pa_mpjpe_mm"], rel=1e-3)


def test_refinement_by_numpy_on_planted_joints(model):
    """Over joints that were detected, with known truth, in frames that two views share."""
    recording = take(n_frames=20)
    true = recording.keypoints_true.copy()
    true[4, :, 3] = np.nan
    confidence = recording.confidence.copy()
    confidence[7, 1:] = 0  # one view left: nothing to repair it by
    keypoints = np.where(confidence[..., None] > 0, recording.keypoints, np.nan)
    recording = replace(recording, keypoints=keypoints, confidence=confidence, keypoints_true=true)
    g = np.random.default_rng(0)
    refined = (true + 15 * g.normal(size=true.shape)).astype(np.float32)
    refined[np.isnan(refined)] = 0
    found = planted(model, recording, keypoints_refined=refined)["refinement"]

    detected, *_ = centre(recording)
    seen = to_views(recording).observed.numpy()
    counted = seen & ~np.isnan(true).any(-1) & (seen.any(-1).sum(1) >= 2)[:, None, None]
    assert not counted[7].any()
    unsure = counted & (recording.confidence < model.config.fusion.threshold)
    head = scoring.head_size(recording)
    assert found["unsure_share"] == pytest.approx(unsure.sum() / counted.sum())
    for kind, points in (("detected", detected), ("refined", refined)):
        error = np.linalg.norm(points - true, axis=-1)
        assert found[f"{kind}_px"] == pytest.approx(error[counted].mean(), rel=1e-5)
        assert found[f"{kind}_unsure_px"] == pytest.approx(error[unsure].mean(), rel=1e-5)
        for name, rate in found[f"jdr_{kind}"].items():
            both = np.isin(H36M17, (f"l_{name}", f"r_{name}"))
            here = (error < head[..., None] / 2)[..., both][counted[..., both]]
            assert rate == pytest.approx(100 * here.mean())
            assert 5 < rate < 100


def heads():
    """A head that is 0.3 m from the thorax, or so; at 100 pixels to a metre."""
    joints = ("pelvis", "thorax", "head", "l_knee")
    upright = [[0, 0.5, 5], [0, 0, 5], [0, -0.3, 5], [0.1, 0.9, 5]]
    bowed = [[0, 0.5, 5], [0, 0, 5], [0, 0, 4.7], [0.1, 0.9, 5]]
    stretched = [[0, 0.5, 5], [0, 0, 5], [0, -0.4, 5], [0.1, 0.9, 5]]
    pose = np.array([[upright], [bowed], [stretched]], np.float32)
    return Recording(
        keypoints=np.zeros((3, 1, 4, 2), np.float32),
        confidence=np.ones((3, 1, 4), np.float32),
        joints=joints,
        views=("a",),
        fps=10.0,
        pose3d=pose,
        keypoints_true=100 * pose[..., :2] + np.float32([640, 360]),
    )


def test_head_size_by_hand():
    """A bowed head is as large as any; nearer cameras see a larger one."""
    near = heads()
    np.testing.assert_allclose(scoring.head_size(near), [[30], [30], [30]], rtol=1e-5)
    zoomed = near.keypoints_true.copy()
    zoomed[2] *= 2
    np.testing.assert_allclose(
        scoring.head_size(replace(near, keypoints_true=zoomed)), [[30], [30], [60]], rtol=1e-5
    )
    flat = scoring.head_size(replace(near, pose3d=None))
    np.testing.assert_allclose(flat, [[30], [0], [40]], rtol=1e-5)


def test_head_size_is_nan_where_it_cannot_be_known():
    near = heads()
    lost = near.pose3d.copy()
    lost[1] = np.nan
    found = scoring.head_size(replace(near, pose3d=lost))
    np.testing.assert_allclose(found, [[35], [np.nan], [35]], rtol=1e-5)
    headless = replace(near, joints=("pelvis", "thorax", "r_knee", "l_knee"))
    assert np.isnan(scoring.head_size(headless)).all()


def test_the_table_says_what_the_results_say(evaluate):
    results = evaluate(one=take())
    text = scoring.table(results)
    assert f"{results['metrics']['n_mpjpe_mm']:.1f} mm" in text
    for row in results["baselines"].values():
        assert f"{row['pa_mpjpe_mm']:.1f} mm" in text
    assert f"{results['refinement']['refined_unsure_px']:.1f} px" in text
    assert scoring.table({"protocol": {}}) == ""


def test_groups_pool_their_poses_and_weigh_the_same(model):
    takes = {"s9_Walk-1": take(7), "s9_Walk-2": take(9, seed=1), "s9_Sit": take(5, seed=2)}
    groups = scoring.group_names(list(takes), "_([A-Za-z]+)")
    assert groups == {"s9_Walk-1": "Walk", "s9_Walk-2": "Walk", "s9_Sit": "Sit"}
    scores, walk = scoring.Scores(model, groups), scoring.Scores(model)
    for name, recording in takes.items():
        prediction = predict(model, recording)
        scores.add(name, recording, prediction)
        if groups[name] == "Walk":
            walk.add(name, recording, prediction)
    results = scores.results()
    assert results["per_group"].keys() == {"Walk", "Sit"}
    assert results["per_group"]["Walk"] == {"frames": 16} | walk.results()["metrics"]
    mean = (results["per_group"]["Walk"]["auc"] + results["per_group"]["Sit"]["auc"]) / 2
    assert results["mean_over_groups"]["auc"] == pytest.approx(mean)
    assert f"{results['mean_over_groups']['pa_mpjpe_mm']:.1f} mm" in scoring.table(results)


def test_groups_are_what_the_expression_finds():
    assert scoring.group_names(["a_1", "b_1"], "[ab]") == {"a_1": "a", "b_1": "b"}
    with pytest.raises(ValueError, match=r"finds nothing in 1 of 2 names, such as b_1"):
        scoring.group_names(["a_1", "b_1"], "a")
    with pytest.raises(ValueError, match=r"finds nothing in 1 of 2 names, such as b_1"):
        scoring.group_names(["a_1", "b_1"], "(a)?_1")  # the group takes no part
    with pytest.raises(ValueError, match="is no regular expression"):
        scoring.group_names(["a_1"], "(")


# --- the program


def call(monkeypatch, *argv):
    monkeypatch.setattr(sys, "argv", ["eval.py", *map(str, argv)])
    program.main()


def test_results_are_never_overwritten(run, monkeypatch, capsys):
    """Without --out every call gets a folder of its own."""
    monkeypatch.setattr(scoring, "draw_run", lambda *_: [])
    for folder in ("eval", "eval-2", "eval-3"):
        call(monkeypatch, run, "--figures", "0")
        assert str(run / folder / "results.json") in capsys.readouterr().out
    before = (run / "eval" / "results.json").read_bytes()
    with pytest.raises(SystemExit, match=r"eval.py: .*eval already holds results; choose another"):
        call(monkeypatch, run, "--out", run / "eval")
    assert (run / "eval" / "results.json").read_bytes() == before
    assert json.loads(before)["per_recording"].keys() == {"take"}


def test_says_where_there_is_no_table_and_why(run, tmp_path, monkeypatch, capsys):
    recordings.save(without_truth(one_view(take())), tmp_path / "phone.npz")
    call(monkeypatch, run, "--recordings", tmp_path / "ph*.npz", "--out", tmp_path / "out",
         "--figures", "0")  # fmt: skip
    said = capsys.readouterr().out
    assert "No ground truth" in said
    assert "MPJPE" not in said
    assert str(tmp_path / "out" / "predictions.npz") in said


def test_the_course_of_the_training_is_drawn_from_the_run(model, tmp_path):
    """From the log of the run, wherever the results go."""
    rows = metrics_log.MetricsLog(tmp_path / "run", ["reprojection"], 0)
    for step in (50, 100):
        rows.write({"step": step, "phase": "a", "loss": 1.0, "reprojection": 1.0,
                    "learning_rate": 1.0, "seconds": 1.0})  # fmt: skip
    recordings.save(without_truth(take(2)), tmp_path / "take.npz")
    scoring.evaluate(model, [tmp_path / "take.npz"], tmp_path / "out", tmp_path / "run", 0)
    assert [path.name for path in (tmp_path / "out" / "figures").iterdir()] == ["losses.png"]


def test_a_simulated_run_is_tested_on_its_own_session(model, tmp_path):
    odd = tmp_path / "run [1]"  # a glob would read this as "run 1"
    for name in ("train_00", "test_00", "test_01"):
        recordings.save(take(2), odd / "session" / f"{name}.npz")
    data = configs.DataConfig(simulate=configs.SimulateConfig())
    simulated = replace(model, config=replace(model.config, data=data))
    found = program.test_recordings(simulated, odd)
    assert [path.name for path in found] == ["test_00.npz", "test_01.npz"]


def test_warns_where_training_has_seen_what_is_evaluated(
    run, model, tmp_path, monkeypatch, capsys
):
    seen, unseen = tmp_path / "seen.npz", tmp_path / "unseen.npz"
    for path in (seen, unseen):
        recordings.save(take(2), path)
    data = replace(model.config.data, train=[str(tmp_path / "s*.npz")])
    other = replace(model, config=replace(model.config, data=data))
    monkeypatch.setattr(checkpoint, "load_model", lambda *_: other)
    monkeypatch.setattr(scoring, "draw_run", lambda *_: [])
    call(monkeypatch, run, "--recordings", tmp_path / "*.npz", "--out", tmp_path / "out",
         "--figures", "0")  # fmt: skip
    said = capsys.readouterr().out
    assert f"WARNING: training has seen {seen};" in said
    call(monkeypatch, run, "--recordings", unseen, "--out", tmp_path / "more", "--figures", "0")
    assert "WARNING" not in capsys.readouterr().out


def test_a_run_without_test_recordings_asks_for_some(run, model):
    data = replace(model.config.data, test=[])
    with pytest.raises(FileNotFoundError, match="set no test recordings aside; give --recordings"):
        program.test_recordings(replace(model, config=replace(model.config, data=data)), run)
    with pytest.raises(FileNotFoundError, match="no recordings to evaluate"):
        scoring.evaluate(model, [], run / "none", run)


def test_an_unfinished_run_comes_with_the_advice_to_resume(run, tmp_path):
    begun = runs.start(configs.load(run / "config.yaml"), tmp_path / "begun", resume=False)
    begun.save()
    with pytest.raises(ValueError, match="training has not finished; continue") as error:
        checkpoint.load_model(tmp_path / "begun", "cpu")
    command = shlex.split(str(error.value).split("`")[1])
    assert command[:2] == ["python", "train.py"]
    assert command[3:] == ["--out", str(tmp_path / "begun"), "--resume"]
    again = configs.load(Path(command[2]))
    runs.start(again, Path(command[4]), resume=True)


def test_what_is_no_checkpoint_is_refused_by_name(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint; is .* a folder that train.py"):
        checkpoint.load(tmp_path)
    path = tmp_path / "checkpoint.pt"
    whole = (run / "checkpoint.pt").read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path}: not a readable checkpoint"):
            checkpoint.load(tmp_path)
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=f"{path}: not a checkpoint of canonlift"):
        checkpoint.load(tmp_path)
    torch.save({"config": "", "lifter": Path("x")}, path)  # a pickled object
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        checkpoint.load(tmp_path)


def test_a_model_comes_back_as_it_was(run, model):
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    for name, value in model.lifter.state_dict().items():
        assert torch.equal(value, state["lifter"][name])
    assert torch.equal(model.mean_pose, state["mean_pose"])
    assert model.joints == H36M17
    assert not model.lifter.training
