"""Laws of bundle adjustment: truth is a fixed point, and the minimum is that of scipy."""

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from solve_scene import constant, disturbed, no_priors, seen, windows

from canonlift.geometry.rotations import from_axis_angle
from canonlift.solver.bundle import Basis, Detections, Solved, adjust, joint_covariance
from canonlift.solver.perspective import project


def fit(pose, cameras, detections, start, steps=20, tolerance=10.0, basis=None, **priors):
    return adjust(
        start,
        detections,
        no_priors(pose, cameras)._replace(**priors),
        basis or constant(pose.shape[1]),
        tolerance,
        steps,
    )


def test_the_truth_is_a_fixed_point():
    pose, cameras = windows()
    found = fit(pose, cameras, seen(pose, cameras), Solved.begin(pose, cameras), steps=3)
    torch.testing.assert_close(found.pose, pose)
    torch.testing.assert_close(found.cameras.rotation, cameras.rotation)


@pytest.mark.parametrize("aimed", [False, True])
def test_exact_images_are_explained_from_a_start_beside_the_truth(aimed):
    pose, cameras = windows(aimed=aimed)
    detections = seen(pose, cameras)
    found = fit(pose, cameras, detections, disturbed(pose, cameras))
    images = found.cameras.images(found.pose)
    torch.testing.assert_close(images, detections.points, atol=1e-4, rtol=0)
    assert (found.cost < 1e-6).all()


def test_what_was_not_observed_has_no_say():
    pose, cameras = windows()
    points, confidence = seen(pose, cameras)
    confidence[:, :, 1, 2:5] = 0
    start = disturbed(pose, cameras)
    one, other = (
        fit(
            pose,
            cameras,
            Detections(points + away * (confidence == 0)[..., None], confidence),
            start,
        )
        for away in (0.0, 100.0)
    )
    torch.testing.assert_close(one.pose, other.pose)


def test_outliers_hardly_move_the_solution():
    pose, cameras = windows(v=5)
    points, confidence = seen(pose, cameras)
    points[:, :, 1, 4] += 3.0
    found = fit(
        pose, cameras, Detections(points, confidence), disturbed(pose, cameras, 0.02), 30, 0.05
    )
    images, exact = found.cameras.images(found.pose), cameras.images(pose)
    assert (images - exact).norm(dim=-1).max() < 0.02


def test_each_window_is_solved_as_if_it_were_alone():
    pose, cameras = windows()
    detections, start = seen(pose, cameras), disturbed(pose, cameras)
    both = fit(pose, cameras, detections, start, steps=4)
    first = [part[:1] for part in (pose, *detections)]
    alone = fit(
        first[0],
        type(cameras)(*(part[:1] for part in cameras)),
        Detections(*first[1:]),
        Solved(
            start.pose[:1],
            type(cameras)(*(part[:1] for part in start.cameras)),
            start.cost[:1],
            start.damping[:1],
        ),
        steps=4,
    )
    torch.testing.assert_close(both.pose[:1], alone.pose)


def test_turning_the_world_turns_the_solution():
    pose, cameras = windows()
    turn = from_axis_angle(torch.tensor([0.3, -0.8, 0.5], dtype=pose.dtype))
    detections, start = seen(pose, cameras), disturbed(pose, cameras)
    moved = cameras._replace(rotation=cameras.rotation @ turn.mT)
    moved_start = start._replace(
        pose=start.pose @ turn.mT,
        cameras=start.cameras._replace(rotation=start.cameras.rotation @ turn.mT),
    )
    found = fit(pose, cameras, detections, start, steps=3)
    other = fit(pose @ turn.mT, moved, detections, moved_start, steps=3)
    torch.testing.assert_close(found.pose @ turn.mT, other.pose, atol=1e-6, rtol=1e-6)


def test_identical_cameras_share_one_focal_length():
    pose, cameras = windows(v=3)
    one = cameras.log_focal[:, :, :1].expand_as(cameras.log_focal)
    cameras = cameras._replace(log_focal=one)
    basis = constant(pose.shape[1])._replace(shared_focal=True)
    start = disturbed(pose, cameras)
    start = start._replace(cameras=start.cameras._replace(log_focal=one + 0.1))
    found = fit(pose, cameras, seen(pose, cameras), start, 30, basis=basis)
    focal = found.cameras.log_focal
    torch.testing.assert_close(focal, focal[:, :, :1].expand_as(focal))
    assert (found.cost < 1e-5).all()


def test_a_moving_camera_is_followed_between_knots():
    pose, cameras = windows(n=1, t=7)
    share = torch.linspace(0, 1, 7, dtype=pose.dtype)[None, :, None, None]
    turn = from_axis_angle(share * torch.tensor([0.0, 0.4, 0.1], dtype=pose.dtype))
    cameras = cameras._replace(rotation=turn @ cameras.rotation)
    place = torch.linspace(0, 2, 7, dtype=pose.dtype)
    hats = (1 - (place[:, None] - torch.arange(3, dtype=pose.dtype)).abs()).clamp_min(0)
    detections = seen(pose, cameras)
    still = cameras._replace(rotation=cameras.rotation[:, 3:4].expand_as(cameras.rotation))
    start = Solved.begin(pose, still)
    free = Basis(hats, constant(7).focal)
    assert fit(pose, cameras, detections, start, 25, basis=free, turn_weight=1e-9).cost < 1e-3
    assert fit(pose, cameras, detections, start, 25).cost > 1e-2


def test_the_minimum_is_that_of_scipy():
    """With numerical derivatives over all unknowns at once, it finds nothing better nearby."""
    pose, cameras = windows(n=1, t=2, v=3, j=6)
    points, confidence = seen(pose, cameras)
    generator = torch.Generator().manual_seed(3)
    points = points + 0.02 * torch.randn(points.shape, generator=generator, dtype=points.dtype)
    detections, tolerance, weight = Detections(points, confidence), 0.05, 1e-3
    priors = no_priors(pose, cameras, weight)
    start = disturbed(pose, cameras, 0.02)
    found = adjust(start, detections, priors, constant(2), tolerance, 40)
    sizes = [pose.numel(), 2 * 2 * 3, 2 * 3, 3 * 3, 3]

    def residuals(x):
        parts = np.split(x, np.cumsum(sizes)[:-1])
        body, origin, near, turn, focal = (torch.from_numpy(p) for p in parts)
        moved = start.cameras._replace(
            rotation=from_axis_angle(turn.view(1, 1, 3, 3)) @ found.cameras.rotation,
            origin=origin.view(1, 2, 3, 2),
            log_nearness=near.view(1, 2, 3),
            log_focal=found.cameras.log_focal + focal,
        )
        body = body.view(pose.shape)
        square = (project(moved, body).image.movedim(0, -1) - points).square().sum(-1)
        robust = tolerance * (square / tolerance**2).log1p().clamp_min(1e-30).sqrt()
        prior = [
            body - pose,
            moved.origin - cameras.origin,
            moved.log_nearness - cameras.log_nearness,
            moved.log_focal - cameras.log_focal,
        ]
        parts = [robust.flatten(), *(weight**0.5 * p.flatten() for p in prior)]
        return torch.cat(parts).numpy()

    begin = [found.pose, found.cameras.origin, found.cameras.log_nearness]
    x = np.concatenate([part.flatten().numpy() for part in begin] + [np.zeros(12)])
    here = np.square(residuals(x)).sum()
    assert here == pytest.approx(float(found.cost), rel=1e-9)
    best = least_squares(residuals, x, x_scale="jac", max_nfev=20)
    assert 2 * best.cost == pytest.approx(here, rel=1e-4)
    elsewhere = np.square(residuals(x + 0.01 * np.cos(np.arange(len(x))))).sum()
    assert elsewhere > 1.2 * here


def test_covariance_is_that_of_repeated_noise():
    pose, cameras = windows(n=1, t=1, v=3, j=1)
    exact, confidence = seen(pose, cameras)
    sigma, n = 0.01, 400
    generator = torch.Generator().manual_seed(0)
    noise = sigma * torch.randn(n, *exact.shape[1:], generator=generator, dtype=exact.dtype)
    many = pose.expand(n, -1, -1, -1)
    repeated = type(cameras)(*(part.expand(n, *part.shape[1:]) for part in cameras))
    held = no_priors(many, repeated)._replace(origin_weight=1e9, nearness_weight=1e9)
    none = torch.zeros(1, 0, dtype=pose.dtype)
    detections = Detections(exact + noise, confidence.expand(n, -1, -1, -1))
    found = adjust(Solved.begin(many, repeated), detections, held, Basis(none, none), 100.0, 6)
    spread = (found.pose - pose)[:, 0, 0].T.cov()
    expected = sigma**2 * joint_covariance(found, detections, held, 100.0)[0, 0, 0]
    torch.testing.assert_close(spread, expected, rtol=0.25, atol=0.05 * float(expected.max()))
