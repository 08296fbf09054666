"""Laws of fixed cameras: where they stand, from one path through the room."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from solve_scene import constant, disturbed, filmed, no_priors, seen, windows

import canonlift
from canonlift.body.skeleton import H36M17
from canonlift.data.calibration import Calibration
from canonlift.geometry.alignment import align_similarity
from canonlift.solver.bundle import adjust, standing_matrix
from canonlift.solver.observed import observe
from canonlift.solver.rig import placed_rig


@pytest.fixture(scope="module")
def walk():
    """A person who walks about, exactly seen, by cameras of different lenses."""
    return filmed(n_frames=40, n_views=3, fps=10.0, motion="run", seed=3, fixed=True)


@pytest.fixture(scope="module")
def solved(walk):
    return canonlift.solve(walk[0])


def true_calibration(recording, cameras):
    matrix = np.tile(np.eye(3), (len(recording.views), 1, 1))
    matrix[:, [0, 1], [0, 1]] = cameras.focal_px[0][:, None]
    matrix[:, :2, 2] = recording.image_size / 2
    rotation, position = cameras.rotation[0], cameras.position[0]
    return Calibration(
        recording.views,
        recording.image_size.astype(float),
        matrix,
        np.zeros((len(matrix), 5)),
        rotation,
        -np.einsum("vrc,vc->vr", rotation, position),
    )


def test_cameras_and_path_are_those_of_the_room(walk, solved):
    recording, cameras = walk
    path = recording.pose3d[:, 0, 0] @ cameras.rotation[0, 0] + cameras.position[0, 0]
    found, true = (
        torch.from_numpy(np.concatenate(x).astype(np.float32))[None]
        for x in ((solved.position, solved.root), (cameras.position[0], path))
    )
    gap = (align_similarity(found, true)(found) - true)[0].norm(dim=-1).numpy()
    distance = np.linalg.norm(cameras.position[0] - path.mean(0), axis=-1)
    assert (gap[:3] / distance).max() < 0.02
    assert gap[3:].max() < 0.05  # metres
    assert np.abs(np.log(solved.focal_px[0] / cameras.focal_px[0])).max() < 0.03


def test_pose_and_path_are_imaged_where_joints_were_detected(walk, solved):
    recording, _ = walk
    place = solved.pose[:, None] + solved.root[:, None, None] - solved.position[:, None]
    point = np.einsum("tvrc,tvjc->tvjr", solved.rotation, place)
    image = solved.focal_px[..., None, None] * point[..., :2] / point[..., 2:]
    image = image + recording.image_size[:, None] / 2
    assert np.abs(image - recording.keypoints).mean() < 3
    root = H36M17.index("pelvis")
    np.testing.assert_allclose(point[:, :, root, 2], solved.distance, rtol=1e-3)


def test_the_true_cameras_of_exact_images_are_a_fixed_point_found_from_nearby():
    pose, cameras = windows()
    cameras = cameras._replace(
        origin=cameras.origin[:, :1].expand_as(cameras.origin),
        log_nearness=cameras.log_nearness[:, :1].expand_as(cameras.log_nearness),
    )
    basis = constant(pose.shape[1])._replace(standing=True)
    start = disturbed(pose, cameras, by=0.02)
    start = start._replace(
        cameras=start.cameras._replace(
            origin=start.cameras.origin[:, :1].expand_as(cameras.origin),
            log_nearness=start.cameras.log_nearness[:, :1].expand_as(cameras.log_nearness),
        )
    )
    found = adjust(start, seen(pose, cameras), no_priors(pose, cameras, 1e-12), basis, 1.0, 25)
    assert found.cost.max() < 1e-12
    for part in found.cameras:
        torch.testing.assert_close(part, part[:, :1].expand_as(part))


def test_nothing_determines_a_similarity_of_the_room():
    pose, cameras = windows(n=1)
    cameras = cameras._replace(
        origin=cameras.origin[:, :1].expand_as(cameras.origin),
        log_nearness=cameras.log_nearness[:, :1].expand_as(cameras.log_nearness),
    )
    state = disturbed(pose, cameras, by=0.0)
    matrix = standing_matrix(state, seen(pose, cameras), no_priors(pose, cameras, 1e-14), 1.0)
    value = torch.linalg.eigvalsh(matrix.reshape(21, 21))
    assert value[:7].abs().max() < 1e-6 * value[-1]
    assert value[7] > 1e-6 * value[-1]


def test_known_cameras_stay_where_they_are(walk):
    recording, cameras = walk
    found = canonlift.solve(recording, calibration=true_calibration(recording, cameras))
    np.testing.assert_allclose(found.rotation[5], cameras.rotation[5], atol=1e-5)
    scale = np.linalg.norm(found.position[1] - found.position[0]) / np.linalg.norm(
        cameras.position[0, 1] - cameras.position[0, 0]
    )
    np.testing.assert_allclose(found.position, scale * cameras.position[0], atol=1e-4)
    true = scale * recording.pose3d
    gap = found.in_camera - (true - true[:, :, :1])
    assert np.abs(gap).mean() < 0.004


def test_rays_of_known_cameras_meet_in_the_joints(walk):
    recording, cameras = walk
    observed = observe(recording, cameras.focal_px[0], torch.float64)
    rotation, position = (
        torch.from_numpy(x[0]).double() for x in (cameras.rotation, cameras.position)
    )
    rig, track = placed_rig(observed, rotation, position)
    path = rig.path(track, torch.ones(track.log_focal.shape, dtype=torch.float64))
    unit = position[0, 0] / rig.position[0, 0]
    found = unit * (track.pose + path[:, None])
    true = recording.pose3d[:, 0] @ cameras.rotation[0, 0] + cameras.position[0, 0]
    np.testing.assert_allclose(found, true, atol=2e-3)


def test_known_lenses_help_and_are_kept_where_cameras_move(walk):
    recording, cameras = walk
    lenses = replace(true_calibration(recording, cameras), rotation=None, translation=None)
    found = canonlift.solve(replace(recording, rig=""), calibration=lenses)
    np.testing.assert_allclose(found.focal_px[0], cameras.focal_px[0], rtol=1e-3)
    assert found.position is None


def test_cameras_that_are_alike_have_one_focal_length(walk):
    found = canonlift.solve(walk[0], same_focal=True)
    np.testing.assert_allclose(found.focal_px, found.focal_px[0, 0], rtol=1e-5)


def test_without_image_sizes_nothing_is_placed_and_the_reason_is_printed(walk):
    from canonlift.cli.solve import describe  # noqa: PLC0415

    found = canonlift.solve(replace(walk[0], image_size=None))
    assert found.position is None
    assert found.root is None
    assert "no image sizes" in "\n".join(describe("walk", found))


def test_places_are_read_back(solved, tmp_path):
    solved.save(tmp_path / "walk.npz")
    again = canonlift.read_solution(tmp_path / "walk.npz")
    np.testing.assert_array_equal(again.position, solved.position)
    np.testing.assert_array_equal(again.root, solved.root)
    replace(solved, position=None, root=None).save(tmp_path / "none.npz")
    assert canonlift.read_solution(tmp_path / "none.npz").position is None


def test_frames_that_nobody_saw_and_a_view_that_saw_nothing_have_no_place(walk):
    recording, cameras = walk
    confidence = recording.confidence.copy()
    confidence[10:14] = 0
    gap = canonlift.solve(replace(recording, confidence=confidence))
    assert np.isnan(gap.root[10:14]).all()
    assert np.isfinite(gap.root[14:]).all()
    assert np.isfinite(gap.position).all()
    confidence[:, 2] = 0
    blind = replace(recording, confidence=confidence)
    assert canonlift.solve(blind).position is None  # two views do not tell focal lengths
    blind = canonlift.solve(blind, focal_px=cameras.focal_px[0])
    assert np.isnan(blind.position[2]).all()
    assert np.isfinite(blind.position[:2]).all()
