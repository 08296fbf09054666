"""Skeleton morphing on definitions that are known."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from canonlift.body.skeleton import H36M17, conversion
from canonlift.readers import skeleton_morphing
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.session import SimulateConfig, session

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

EXACT = DetectorConfig(error_scale=0.0, leg_swap_rate=0.0, arm_swap_rate=0.0)


def otherwise_defined(points):
    """Other hips, nose, head and ankles, each affine in the joints."""
    matrix = conversion(H36M17, H36M17).astype(np.float64)
    at = H36M17.index
    for name, toward, share in [
        ("l_hip", "thorax", 0.1), ("r_hip", "thorax", 0.1), ("l_hip", "r_hip", -0.2),
        ("r_hip", "l_hip", -0.2), ("nose", "thorax", 0.3), ("l_ankle", "l_knee", 0.08),
        ("r_ankle", "r_knee", 0.08), ("head", "nose", -0.2),
    ]:  # fmt: skip
        matrix[at(name), at(name)] -= share
        matrix[at(name), at(toward)] += share
    return np.einsum("ij,tvjc->tvic", matrix, points).astype(np.float32)


@cache
def filmed():
    config = SimulateConfig(n_train=3, n_test=1, n_frames=120, detector=EXACT)
    return dict(session(config))


def takes(split):
    for name, take in filmed().items():
        if name.startswith(split):
            yield replace(take, keypoints_true=otherwise_defined(take.keypoints_true))


def error(recording):
    """Mean 2D distance over the size of the person."""
    gap = np.linalg.norm(recording.keypoints - recording.keypoints_true, axis=-1)
    size = np.ptp(recording.keypoints_true, axis=2).max(-1)
    return np.nanmean(gap / size[..., None])


@pytest.fixture(scope="module")
def network():
    return skeleton_morphing.fit(list(takes("train")), steps=400, width=128)


def test_learns_another_definition_of_joints_for_people_outside_the_training_set(network):
    (test,) = takes("test")
    assert error(test) > 0.009  # of the person's size, on average over 17 joints
    assert error(skeleton_morphing.apply(network, test)) < error(test) / 3


def test_place_and_size_in_the_image_make_no_difference(network):
    (test,) = takes("test")
    moved = replace(test, keypoints=(3 * test.keypoints + [100, -20]).astype(np.float32))
    found = skeleton_morphing.apply(network, moved).keypoints
    expected = 3 * skeleton_morphing.apply(network, test).keypoints + [100, -20]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_what_was_not_seen_stays_unseen_and_moves_nothing_else(network):
    (test,) = takes("test")
    lost = test.confidence == 0
    assert lost.any()
    changed = replace(test, keypoints=np.where(lost[..., None], 7, test.keypoints))
    found = skeleton_morphing.apply(network, test)
    np.testing.assert_array_equal(found.confidence, test.confidence)
    assert np.isnan(found.keypoints[lost]).all()
    keypoints, confidence = torch.randn(2, 1, 17, 2), torch.tensor([1.0, 0.0]).expand(2, 1, 2)
    confidence = torch.cat([confidence, torch.ones(2, 1, 15)], dim=-1)
    other = keypoints.clone()
    other[:, :, 1] = torch.nan
    one, two = network(keypoints, confidence), network(other, confidence)
    assert torch.equal(one[:, :, 2:], two[:, :, 2:])
    again = skeleton_morphing.apply(network, changed).keypoints
    np.testing.assert_array_equal(again[~lost], found.keypoints[~lost])


def test_untrained_it_is_the_identity():
    (test,) = takes("test")
    found = skeleton_morphing.apply(skeleton_morphing.Morphing(H36M17), test)
    np.testing.assert_allclose(found.keypoints, test.keypoints, atol=1e-3)


def test_joints_of_low_confidence_count_less():
    """Unsure joints that are far off pull less, in proportion to their confidence."""
    generator = np.random.default_rng(0)
    parts = []
    for take in takes("train"):
        blunder = generator.random(take.confidence.shape) < 0.3
        keypoints = take.keypoints + 200 * blunder[..., None]
        confidence = np.where(blunder, 0.01, take.confidence) * (take.confidence > 0)
        parts.append(replace(take, keypoints=keypoints.astype(np.float32), confidence=confidence))
    (test,) = takes("test")
    found = skeleton_morphing.apply(skeleton_morphing.fit(parts, steps=400, width=128), test)
    assert error(found) < 0.7 * error(test)


def test_does_not_depend_on_3d_truth():
    blind = [replace(take, pose3d=take.pose3d * np.nan) for take in takes("train")]
    again = skeleton_morphing.fit(blind, steps=5, width=128)
    other = skeleton_morphing.fit(list(takes("train")), steps=5, width=128)
    for one, two in zip(again.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_save_and_load_keep_the_network(network, tmp_path):
    (test,) = takes("test")
    skeleton_morphing.save(network, tmp_path / "morphing.pt")
    found = skeleton_morphing.apply(skeleton_morphing.load(tmp_path / "morphing.pt"), test)
    np.testing.assert_array_equal(
        found.keypoints, skeleton_morphing.apply(network, test).keypoints
    )


def test_refuses_recordings_without_truth_or_on_another_skeleton(network):
    (test,) = takes("test")
    with pytest.raises(ValueError, match="all with keypoints_true; got 2 recordings on 1 skel"):
        skeleton_morphing.fit([test, replace(test, keypoints_true=None)])
    other = test.on_skeleton(H36M17[::-1])
    with pytest.raises(ValueError, match="got 2 recordings on 2 skeletons"):
        skeleton_morphing.fit([test, other])
    with pytest.raises(ValueError, match="morphing is for pelvis r_hip"):
        skeleton_morphing.apply(network, other)
