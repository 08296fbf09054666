"""Laws of the solver on whole recordings, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from solve_scene import filmed

import canonlift
from canonlift import metrics
from canonlift.body.skeleton import COCO17, H36M17, mirrored
from canonlift.cli.main import main
from canonlift.cli.solve import describe
from canonlift.data.recording import Recording
from canonlift.solver.pose_library import library, look_up


def pa_mpjpe_mm(solution, recording):
    """Of all views; and N-MPJPE."""
    return errors_mm(solution.in_camera, recording.pose3d)


def errors_mm(pose, truth):
    """PA-MPJPE and N-MPJPE."""
    found, truth = (
        torch.from_numpy(np.asarray(x, np.float32)).flatten(0, 1) for x in (pose, truth)
    )
    errors = metrics.joint_errors(found, truth, H36M17.index("pelvis"))
    return 1000 * float(errors.pa_mpjpe.nanmean()), 1000 * float(errors.n_mpjpe.nanmean())


@pytest.fixture(scope="module")
def rig():
    return filmed(fixed=True)


@pytest.fixture(scope="module")
def solved(rig):
    return canonlift.solve(rig[0])


def test_exact_detections_of_a_rig_give_the_pose_and_the_cameras(rig, solved):
    recording, cameras = rig
    pa, n = pa_mpjpe_mm(solved, recording)
    assert pa < 8
    assert n < 12
    turn = np.einsum("vrc,vsc->vrs", solved.rotation[0][1:], solved.rotation[0][:1].repeat(2, 0))
    true = np.einsum("vrc,vsc->vrs", cameras.rotation[0][1:], cameras.rotation[0][:1].repeat(2, 0))
    angle = np.arccos(((np.einsum("vrs,vrs->v", turn, true) - 1) / 2).clip(-1, 1))
    assert np.rad2deg(angle).max() < 2
    assert np.abs(np.log(solved.focal_px[0] / cameras.focal_px[0])).max() < 0.1


def test_moving_zooming_cameras_are_solved_too():
    recording, _ = filmed(n_views=4, seed=2, motion="run")
    assert pa_mpjpe_mm(canonlift.solve(recording), recording)[0] < 15


def test_two_views_without_image_sizes_suffice():
    recording, _ = filmed(n_views=2, azimuths_deg=(0.0, 80.0), seed=1)
    found = canonlift.solve(replace(recording, image_size=None))
    assert pa_mpjpe_mm(found, recording)[0] < 60


def test_the_order_of_joints_and_of_views_does_not_matter(rig, solved):
    recording, _ = rig
    order, views = np.random.default_rng(0).permutation(17), [2, 0, 1]
    mixed = replace(
        recording,
        keypoints=recording.keypoints[:, views][:, :, order],
        confidence=recording.confidence[:, views][:, :, order],
        joints=tuple(recording.joints[i] for i in order),
        views=tuple(recording.views[i] for i in views),
        pose3d=None,
    )
    found = canonlift.solve(mixed)
    gap = found.in_camera - solved.in_camera[:, views][:, :, order]
    assert np.abs(gap).max() < 0.01


def test_a_phone_on_its_side_is_noticed(rig, solved):
    """The image of view 1 is turned by a quarter: the camera is rolled, the person is not."""
    recording, _ = rig
    keypoints = recording.keypoints.copy()
    width, height = recording.image_size[1]
    x, y = keypoints[:, 1, :, 0].copy(), keypoints[:, 1, :, 1].copy()
    keypoints[:, 1, :, 0], keypoints[:, 1, :, 1] = height - y, x
    size = recording.image_size.copy()
    size[1] = height, width
    found = canonlift.solve(replace(recording, keypoints=keypoints, image_size=size))
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    there = np.einsum("rc,tjc->tjr", quarter, solved.in_camera[:, 1])
    assert np.abs(found.in_camera[:, 1] - there).max() < 0.02


def test_exchanged_legs_are_found_undone_and_counted(rig):
    recording, _ = rig
    keypoints = recording.keypoints.copy()
    legs = [i for i, n in enumerate(H36M17) if n[2:] in ("hip", "knee", "ankle")]
    partner = [mirrored(H36M17)[i] for i in legs]
    apart = np.linalg.norm(keypoints[:, 1, legs] - keypoints[:, 1, partner], axis=-1).mean(-1)
    frames = np.flatnonzero(apart > np.median(apart))[::6]
    for frame in frames:
        keypoints[frame, 1, legs] = recording.keypoints[frame, 1, partner]
    found = canonlift.solve(replace(recording, keypoints=keypoints))
    assert found.swapped[frames, 1, 0].mean() > 0.8
    assert found.swapped.sum() <= len(frames)
    refined = found.keypoints_refined[frames, 1] - recording.keypoints[frames, 1]
    assert np.linalg.norm(refined, axis=-1).mean() < 8


def test_the_pose_is_no_mirror_image():
    recording, _ = filmed(n_views=3, seed=4, motion="squat")
    flipped = replace(recording, pose3d=recording.pose3d * [1, 1, -1])
    found = canonlift.solve(recording)
    assert pa_mpjpe_mm(found, recording)[0] < 0.5 * pa_mpjpe_mm(found, flipped)[0]


def test_a_view_without_hips_serves_and_joints_unknown_to_the_library_come_out(rig):
    recording, _ = rig
    toe = recording.keypoints[:, :, [H36M17.index("l_ankle")]] + [5, 9]
    confidence = np.concatenate([recording.confidence, recording.confidence[..., :1]], -1)
    hips = [i for i, name in enumerate(H36M17) if name in ("l_hip", "r_hip", "pelvis")]
    confidence[:, 2][:, hips] = 0
    more = replace(
        recording,
        keypoints=np.concatenate([recording.keypoints, toe], 2).astype(np.float32),
        confidence=confidence,
        joints=(*H36M17, "l_bigtoe"),
        pose3d=None,
    )
    found = canonlift.solve(more)
    assert found.joints[-1] == "l_bigtoe"
    assert np.isfinite(found.pose).all()
    near = found.pose[:, -1] - found.pose[:, H36M17.index("l_ankle")]
    assert np.linalg.norm(near, axis=-1).max() < 0.05
    assert errors_mm(found.in_camera[:, :, :17], recording.pose3d)[0] < 15


def test_frames_that_nobody_saw_hold_nan_and_no_trust(rig):
    recording, _ = rig
    confidence = recording.confidence.copy()
    confidence[10:14] = 0
    confidence[20:24, 1:] = 0
    found = canonlift.solve(replace(recording, confidence=confidence))
    assert np.isnan(found.pose[10:14]).all()
    assert np.isfinite(found.pose[20:24]).all()
    assert (found.trust[[*range(10, 14), *range(20, 24)]] == 0).all()
    assert np.isnan(found.rotation[20:24, 1:]).all()


def test_coco_gets_a_pelvis_and_a_thorax():
    recording, _ = filmed(n_views=3, fixed=True)
    names = [n for n in COCO17 if n in H36M17]
    index = [H36M17.index(n) for n in names]
    found = canonlift.solve(
        Recording(
            recording.keypoints[:, :, index],
            recording.confidence[:, :, index],
            tuple(names),
            recording.views,
            recording.fps,
        )
    )
    assert found.joints == (*names, "pelvis", "thorax")
    np.testing.assert_allclose(found.pose[:, -2], 0, atol=1e-6)


def test_a_known_focal_length_is_kept(rig):
    recording, cameras = rig
    focal = cameras.focal_px[0]
    found = canonlift.solve(recording, focal_px=focal)
    np.testing.assert_allclose(found.focal_px[0], focal, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"views": 1}, {}, "1 view .cam0. cannot be solved"),
        ({"joints": 4}, {}, "at least 6"),
        ({}, {"focal_px": [1.0, 2.0]}, "focal_px must be one positive number"),
        ({}, {"focal_px": -3.0}, "focal_px"),
    ],
)
def test_what_cannot_be_solved_is_refused_with_the_reason(rig, change, options, message):
    recording, _ = rig
    views, joints = change.get("views", 3), change.get("joints", 17)
    part = Recording(
        recording.keypoints[:, :views, :joints],
        recording.confidence[:, :views, :joints],
        recording.joints[:joints],
        recording.views[:views],
        recording.fps,
    )
    with pytest.raises(ValueError, match=message):
        canonlift.solve(part, **options)


def test_the_librarys_own_images_are_found_in_it():
    poses, turns = library()
    chosen = torch.tensor([3, 77, 150])
    image = torch.einsum("vrc,fjc->fvjr", turns[[4, 20, 41], :2], poses[chosen])
    found = look_up(300 + 50 * image, torch.ones(image.shape[:3]), H36M17)
    assert found.residual.max() < 1e-3
    torch.testing.assert_close(found.pose, poses[chosen])


def test_a_solution_is_read_back_and_serves_where_predictions_do(solved, tmp_path):
    solved.save(tmp_path / "walk.npz")
    again = canonlift.read_solution(tmp_path / "walk.npz")
    for name in ("pose", "rotation", "focal_px", "covariance", "trust", "swapped"):
        np.testing.assert_array_equal(getattr(again, name), getattr(solved, name))
    (prediction,) = canonlift.read_predictions(tmp_path / "walk.npz").values()
    np.testing.assert_array_equal(prediction.fused.pose, solved.pose)
    paths = canonlift.export(solved, tmp_path / "out", formats=["trc"], height=1.8)
    assert len(paths) == 4


def test_predictions_are_no_solution(solved, tmp_path):
    solved.prediction.save(tmp_path / "p.npz")
    with pytest.raises(ValueError, match="no solution, it lacks covariance.*canonlift solve"):
        canonlift.read_solution(tmp_path / "p.npz")


def test_the_command_says_what_it_found_and_overwrites_nothing(rig, tmp_path, capsys):
    rig[0].save(tmp_path / "walk.npz")
    main(["solve", str(tmp_path / "walk.npz"), "--same-focal"])
    printed = capsys.readouterr().out
    assert "trust: " in printed
    assert "cam1: focal length" in printed
    assert (tmp_path / "walk-solved" / "predictions.npz").is_file()
    with pytest.raises(SystemExit, match="2"):
        main(["solve", str(tmp_path / "walk.npz")])
    assert "choose another --out" in capsys.readouterr().err


def test_absurd_detections_are_none(rig, solved):
    recording, _ = rig
    keypoints = recording.keypoints.copy()
    keypoints[5:8, 1, 4] = 1e30
    found = canonlift.solve(replace(recording, keypoints=keypoints))
    assert np.abs(found.pose - solved.pose).max() < 0.01


def test_the_command_names_the_view_whose_joints_are_exchanged_throughout(rig):
    recording, _ = rig
    wrong = recording.keypoints.copy()
    wrong[:, 1] = wrong[:, 1][:, list(mirrored(H36M17))]
    lines = describe("walk", canonlift.solve(replace(recording, keypoints=wrong)))
    assert [line.split()[1] for line in lines if "WARNING" in line] == ["cam1"]
    assert "WARNING" not in "".join(describe("walk", canonlift.solve(recording)))
