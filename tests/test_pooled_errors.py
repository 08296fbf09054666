"""Laws of the evaluation: every number means what it is named, and nothing is lost or invented."""

from dataclasses import replace

import numpy as np
import pytest
from eval_scene import filmed, finished_run
from scipy.optimize import nnls
from scipy.spatial.transform import Rotation

from canonlift.body.skeleton import H36M17
from canonlift.data.frames import centre, to_views
from canonlift.data.recording import Recording
from canonlift.evaluation.pooled_errors import PooledErrors
from canonlift.evaluation.recording_errors import bone_spread, head_size
from canonlift.evaluation.recordings import group_names
from canonlift.evaluation.report import Results
from canonlift.inference import model as models


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return models.load(finished_run(tmp_path_factory.mktemp("run")), "cpu")


def planted(model, recording, **arrays):
    """Results of a prediction that differs from the model's own in the given arrays."""
    pooled = PooledErrors(model)
    prediction = replace(model.lift(recording), **arrays)
    pooled.add("planted", prediction)
    return pooled.results()


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
    recording = filmed(n_frames=12)
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
    recording = filmed()
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
    pooled = PooledErrors(model)
    given = {"long": filmed(12), "short": filmed(4, seed=1)}
    for name, recording in given.items():
        pooled.add(name, model.lift(recording))
    results = pooled.results()
    rows = results["per_recording"]
    n = {name: to_views(r).observed.any(-1).sum().item() for name, r in given.items()}
    expected = sum(n[name] * rows[name]["pa_mpjpe_mm"] for name in n) / sum(n.values())
    assert results["metrics"]["pa_mpjpe_mm"] == pytest.approx(expected, rel=1e-6)
    assert rows["long"]["pa_mpjpe_mm"] != pytest.approx(rows["short"]["pa_mpjpe_mm"], rel=1e-3)


def test_refinement_by_numpy_on_planted_joints(model):
    """Over joints that were detected, with known truth, in frames that two views share."""
    recording = filmed(n_frames=20)
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
    head = head_size(recording)
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
    np.testing.assert_allclose(head_size(near), [[30], [30], [30]], rtol=1e-5)
    zoomed = near.keypoints_true.copy()
    zoomed[2] *= 2
    np.testing.assert_allclose(
        head_size(replace(near, keypoints_true=zoomed)), [[30], [30], [60]], rtol=1e-5
    )
    flat = head_size(replace(near, pose3d=None))
    np.testing.assert_allclose(flat, [[30], [0], [40]], rtol=1e-5)


def test_head_size_is_nan_where_it_cannot_be_known():
    near = heads()
    lost = near.pose3d.copy()
    lost[1] = np.nan
    found = head_size(replace(near, pose3d=lost))
    np.testing.assert_allclose(found, [[35], [np.nan], [35]], rtol=1e-5)
    headless = replace(near, joints=("pelvis", "thorax", "r_knee", "l_knee"))
    assert np.isnan(head_size(headless)).all()


def test_bones_that_keep_their_length_have_no_spread():
    g = np.random.default_rng(0)
    pose = np.repeat(g.standard_normal((1, 17, 3)), 20, axis=0)
    turned = pose @ Rotation.random(20, rng=g).as_matrix()
    turned[3] = np.nan
    assert bone_spread(turned, H36M17) < 1e-12
    assert bone_spread(turned * (1 + 0.1 * (-1) ** np.arange(20))[:, None, None],
                                  H36M17) == pytest.approx(0.1, rel=0.01)  # fmt: skip


def test_groups_pool_their_poses_and_weigh_the_same(model):
    given = {"s9_Walk-1": filmed(7), "s9_Walk-2": filmed(9, seed=1), "s9_Sit": filmed(5, seed=2)}
    groups = group_names(list(given), "_([A-Za-z]+)")
    assert groups == {"s9_Walk-1": "Walk", "s9_Walk-2": "Walk", "s9_Sit": "Sit"}
    pooled, walk = PooledErrors(model, groups), PooledErrors(model)
    for name, recording in given.items():
        prediction = model.lift(recording)
        pooled.add(name, prediction)
        if groups[name] == "Walk":
            walk.add(name, prediction)
    results = pooled.results()
    assert results["per_group"].keys() == {"Walk", "Sit"}
    assert results["per_group"]["Walk"] == {"frames": 16} | walk.results()["metrics"]
    mean = (results["per_group"]["Walk"]["auc"] + results["per_group"]["Sit"]["auc"]) / 2
    assert results["mean_over_groups"]["auc"] == pytest.approx(mean)
    assert f"{results['mean_over_groups']['pa_mpjpe_mm']:.1f} mm" in Results(results).table()


def test_groups_are_what_the_expression_finds():
    assert group_names(["a_1", "b_1"], "[ab]") == {"a_1": "a", "b_1": "b"}
    with pytest.raises(ValueError, match=r"finds nothing in 1 of 2 names, such as b_1"):
        group_names(["a_1", "b_1"], "a")
    with pytest.raises(ValueError, match=r"finds nothing in 1 of 2 names, such as b_1"):
        group_names(["a_1", "b_1"], "(a)?_1")  # the group takes no part
    with pytest.raises(ValueError, match="is no regular expression"):
        group_names(["a_1"], "(")
