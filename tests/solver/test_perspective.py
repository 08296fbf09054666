"""Laws of perspective images and of their derivatives."""

import pytest
import torch
from solve_scene import windows

from canonlift.geometry.rotations import from_axis_angle
from canonlift.solver.perspective import derivatives, project


def pinhole(pose, cameras):
    """Images by the textbook: points in camera axes over their depth."""
    focal, depth = cameras.log_focal.exp(), (-cameras.log_nearness).exp()
    offset = cameras.origin - cameras.centre
    root = torch.cat([offset / focal[..., None], torch.ones_like(focal)[..., None]], -1)
    points = pose[:, :, None] @ cameras.rotation.mT + (depth[..., None] * root)[..., None, :]
    flat = points[..., :2] / points[..., 2:]
    return focal[..., None, None] * flat + cameras.centre[..., None, :]


def test_images_are_those_of_a_pinhole_camera():
    pose, cameras = windows()
    torch.testing.assert_close(cameras.images(pose), pinhole(pose, cameras))


def test_a_camera_without_a_principal_point_looks_at_the_body():
    pose, cameras = windows(aimed=True)
    looking = cameras._replace(centre=cameras.origin, aimed=torch.zeros_like(cameras.log_focal))
    torch.testing.assert_close(cameras.images(pose), pinhole(pose, looking))


def test_far_away_cameras_are_orthographic():
    pose, cameras = windows()
    far = cameras._replace(
        log_nearness=cameras.log_nearness - 14, log_focal=cameras.log_focal + 14
    )
    scale = (cameras.log_nearness + cameras.log_focal).exp()[..., None, None]
    flat = scale * (pose[:, :, None] @ cameras.rotation.mT)[..., :2] + cameras.origin[..., None, :]
    torch.testing.assert_close(far.images(pose), flat, atol=1e-4, rtol=0)


@pytest.mark.parametrize("aimed", [False, True])
def test_derivatives_are_those_of_autograd(aimed):
    pose, cameras = windows(n=1, t=1, v=2, j=3, aimed=aimed)
    by_joint, by_camera = derivatives(cameras, project(cameras, pose))
    fewer = derivatives(cameras, project(cameras, pose), turning=False)[1]
    torch.testing.assert_close(fewer, by_camera[:, :3])

    def images(pose, change):
        moved = cameras._replace(
            rotation=from_axis_angle(change[..., 3:6]) @ cameras.rotation,
            origin=cameras.origin + change[..., :2],
            log_nearness=cameras.log_nearness + change[..., 2],
            log_focal=cameras.log_focal + change[..., 6],
        )
        return project(moved, pose).image

    none = torch.zeros(1, 1, 2, 7, dtype=pose.dtype)
    to_pose, to_camera = torch.autograd.functional.jacobian(images, (pose, none))
    for view in range(2):
        for joint in range(3):
            got = by_joint[:, :, 0, 0, view, joint]
            torch.testing.assert_close(got, to_pose[:, 0, 0, view, joint, 0, 0, joint])
            got = by_camera[:, :, 0, 0, view, joint]
            torch.testing.assert_close(got, to_camera[:, 0, 0, view, joint, 0, 0, view])
