"""Laws of the robust least squares over views."""

import numpy as np
import torch
from scipy.linalg import polar
from synthetic_scene import random, scene, turned, uniform
from torch.testing import assert_close

from canonlift.geometry.alignment import align_similarity
from canonlift.methods.triangulation import (
    Observations,
    nearest_orthonormal_pair,
    resect,
    triangulate,
)
from canonlift.types import Views


def pose_error(pose, truth):
    """Mean distance after the best similarity, in units of the truth's norm."""
    truth = truth / truth.norm(dim=(-2, -1), keepdim=True)
    return (align_similarity(pose, truth)(pose) - truth).norm(dim=-1).mean()


def test_observations_put_every_view_in_the_scale_of_one_pose(exact):
    views, truth = exact
    seen = Observations.of(views, truth)
    image = torch.einsum("bvrc,bjc->bvjr", truth.rotation[:, :, :2], seen.prior)
    assert_close(seen.points, image)


def test_triangulation_equals_a_slow_weighted_least_squares(noisy):
    views, lifted = noisy
    seen = Observations.of(views, lifted)
    found, weight = triangulate(seen, lifted.rotation, seen.prior)
    for b, j in ((0, 3), (2, 16)):
        rows, values = [0.1**0.5 * torch.eye(3).double()], [0.1**0.5 * seen.prior[b, j]]
        for v in range(views.keypoints.shape[1]):
            root = weight[b, v, j].sqrt()
            rows.append(root * lifted.rotation[b, v, :2])
            values.append(root * seen.points[b, v, j])
        expected = torch.linalg.lstsq(torch.cat(rows), torch.cat(values)[:, None]).solution[:, 0]
        assert_close(found[b, j], expected)


def test_resection_equals_a_slow_least_squares_made_orthonormal(noisy):
    views, lifted = noisy
    seen = Observations.of(views, lifted)
    pose, weight = triangulate(seen, lifted.rotation, seen.prior)
    found = resect(seen, lifted.rotation, pose, weight)
    for b, v in ((0, 1), (2, 0)):
        near = lifted.rotation[b, v]
        turned = (pose[b] @ near.T).numpy()
        of_joint = weight[b, v].numpy()[:, None]
        damping = 0.05 * (of_joint * turned**2).sum() * np.eye(3)
        normal = turned.T @ (of_joint * turned) + damping
        rows = np.linalg.solve(
            normal, turned.T @ (of_joint * seen.points[b, v].numpy()) + damping[:, :2]
        )
        x, y = polar(rows.T, side="left")[0]
        expected = np.stack([x, y, np.cross(x, y)]) @ near.numpy()
        assert_close(found[b, v].numpy(), expected)


def test_rows_become_orthonormal_or_shorter_where_they_are_all_but_parallel():
    x = random(200, 3, seed=1).float()
    apart = 10.0 ** torch.linspace(-9, 0, 200)[:, None]
    pair = torch.stack(
        nearest_orthonormal_pair(x, x + apart * random(200, 3, seed=2).float()), dim=1
    )
    gram = pair @ pair.mT
    assert (torch.linalg.eigvalsh(gram) < 1 + 1e-2).all()
    assert_close(gram[-40:], torch.eye(2).expand(40, 2, 2), atol=1e-4, rtol=0)
    still = nearest_orthonormal_pair(torch.zeros(1, 3), torch.zeros(1, 3))
    assert_close(torch.cat(still), torch.zeros(2, 3))


def test_a_detection_far_off_loses_its_weight(exact):
    views, truth = exact
    keypoints = views.keypoints.clone()
    keypoints[:, 1, 13] += 3 * keypoints[:, 1].norm(dim=-1).amax(-1, keepdim=True)
    wrong = Views(keypoints, views.confidence, views.rig)
    seen = Observations.of(views, truth)._replace(points=Observations.of(wrong, truth).points)
    pose, weight = triangulate(seen, truth.rotation, seen.prior)
    assert (weight[:, 1, 13] < 0.02).all()
    others = weight[:, [0, 2, 3]][:, :, 13]
    assert (others > 0.5).all()


def test_unobserved_detections_do_not_matter(noisy):
    views, lifted = noisy
    confidence = views.confidence.clone()
    confidence[:, 2] = 0
    confidence[:, 0, 5] = 0
    absurd = torch.where((confidence == 0)[..., None], 1e6 * random(2), views.keypoints)
    found = []
    for keypoints in (views.keypoints, absurd):
        seen = Observations.of(Views(keypoints, confidence, views.rig), lifted)
        found.append(triangulate(seen, lifted.rotation, lifted.pose[:, 0])[0])
    assert_close(*found)


def test_resection_brings_turned_rotations_back():
    views, truth = scene(n_samples=4)
    off = turned(truth, 0.3, seed=5)
    seen = Observations.of(views, truth)
    rotation = off.rotation
    for _ in range(20):
        rotation = resect(seen, rotation, seen.prior, views.confidence)
    assert (rotation - truth.rotation).abs().max() < 1e-3
    assert (off.rotation - truth.rotation).abs().max() > 0.1


def test_resection_returns_rotations(noisy):
    views, lifted = noisy
    seen = Observations.of(views, lifted)
    rotation = resect(seen, lifted.rotation, seen.prior, uniform(*views.confidence.shape))
    eye = torch.eye(3, dtype=torch.float64).expand_as(rotation)
    assert_close(rotation @ rotation.mT, eye)
    assert_close(torch.linalg.det(rotation), torch.ones_like(rotation[..., 0, 0]))


def test_triangulation_has_the_gradient_of_its_last_least_squares(noisy):
    views, lifted = (x[:1] for x in noisy)
    prior = Observations.of(views, lifted).prior

    def fixed_weight(rotation, points):
        # With a tolerance this wide no detection loses any weight.
        seen = Observations.of(views, lifted)._replace(points=points)
        return triangulate(seen, rotation, prior, tolerance=1e9)[0]

    points = Observations.of(views, lifted).points.clone().requires_grad_()
    rotation = lifted.rotation.clone().requires_grad_()
    assert torch.autograd.gradcheck(fixed_weight, (rotation, points))
