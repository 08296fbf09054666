"""Laws of the conversions between skeletons."""

from itertools import product

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from canonlift.body import skeleton
from canonlift.body.skeleton import SKELETONS

DETECTORS = {
    "COCO17": skeleton.COCO17,
    "COCO18": skeleton.COCO18,
    "BODY_25": skeleton.BODY_25,
    "BODY_25B": skeleton.BODY_25B,
}
EVERY = {**SKELETONS, **DETECTORS}
each_skeleton = pytest.mark.parametrize("name", EVERY)
each_conversion = pytest.mark.parametrize(
    ("source", "target"),
    [*product(DETECTORS, SKELETONS), *product(["h36m17", "h36m16"], SKELETONS)],
)


@each_skeleton
def test_names_are_unique(name):
    assert len(set(EVERY[name])) == len(EVERY[name])


def test_detectors_have_the_joints_they_are_named_for():
    sizes = {name: len(joints) for name, joints in DETECTORS.items()}
    assert sizes == {"COCO17": 17, "COCO18": 18, "BODY_25": 25, "BODY_25B": 25}
    # Places in the file that no other law here can tell from a permutation.
    places = {"mid_hip": 8, "r_hip": 9, "l_ankle": 14, "r_eye": 15, "l_ear": 18, "r_heel": 24}
    assert {name: skeleton.BODY_25.index(name) for name in places} == places
    places = {"l_eye": 1, "r_wrist": 10, "l_hip": 11, "upper_neck": 17, "r_bigtoe": 22}
    assert {name: skeleton.BODY_25B.index(name) for name in places} == places


@each_conversion
def test_rows_sum_to_one(source, target):
    matrix = skeleton.conversion(EVERY[source], EVERY[target])
    assert matrix.shape == (len(EVERY[target]), len(EVERY[source]))
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=0, atol=1e-15)


@each_skeleton
def test_conversion_to_its_own_joints_is_the_identity(name):
    joints = EVERY[name]
    np.testing.assert_array_equal(skeleton.conversion(joints, joints), np.eye(len(joints)))


def test_conversion_goes_by_name_whatever_the_order():
    order = np.random.default_rng(0).permutation(25)
    shuffled = tuple(skeleton.BODY_25[i] for i in order)
    expected = skeleton.conversion(skeleton.BODY_25, skeleton.H36M17)
    np.testing.assert_array_equal(
        skeleton.conversion(shuffled, skeleton.H36M17), expected[:, order]
    )


@each_conversion
def test_a_converted_pose_is_seen_where_the_converted_detection_is(source, target):
    """Weak perspective commutes with conversion: made joints are points in space."""
    rng = np.random.default_rng(1)
    matrix = skeleton.conversion(EVERY[source], EVERY[target])
    pose = rng.normal(size=(len(EVERY[source]), 3))
    for turn in Rotation.random(5, rng=rng).as_matrix():
        scale, shift = rng.uniform(50, 500), rng.uniform(0, 2000, 2)

        def seen(points, turn=turn, scale=scale, shift=shift):
            return scale * (points @ turn.T)[:, :2] + shift

        np.testing.assert_allclose(seen(matrix @ pose), matrix @ seen(pose), atol=1e-9)


def sources(source, joint):
    row = skeleton.conversion(source, (joint,))[0]
    return {name: weight for name, weight in zip(source, row, strict=True) if weight}


def test_takes_the_first_recipe_whose_sources_exist():
    """The middle of the hips only where no mid-hip is reported."""
    assert sources(skeleton.BODY_25, "pelvis") == {"mid_hip": 1.0}
    assert sources(skeleton.COCO17, "pelvis") == {"l_hip": 0.5, "r_hip": 0.5}
    assert sources(skeleton.BODY_25B, "head") == {"head_top": 1.0}
    corners = ("l_shoulder", "r_shoulder", "l_hip", "r_hip")
    assert sources(skeleton.COCO17, "spine") == dict.fromkeys(corners, 0.25)


def test_missing_joints_are_listed():
    source = tuple(n for n in skeleton.COCO17 if n not in ("l_hip", "r_knee"))
    with pytest.raises(ValueError, match="cannot make pelvis, r_knee, l_hip, spine of the joints"):
        skeleton.conversion(source, skeleton.H36M17)


def test_only_skeletons_that_can_be_made_are_proposed():
    headless = skeleton.SKELETONS["limbs14"]
    with pytest.raises(ValueError, match=r"; set skeleton: limbs14$"):
        skeleton.conversion(headless, skeleton.H36M17)
    with pytest.raises(ValueError, match="no skeleton can be made of them$"):
        skeleton.conversion(headless[1:5], skeleton.H36M17)


@each_skeleton
def test_mirroring_twice_changes_nothing_and_swaps_sides(name):
    joints = EVERY[name]
    once = skeleton.mirrored(joints)
    assert [once[i] for i in once] == list(range(len(joints)))
    for joint, partner in zip(joints, once, strict=True):
        if joint[:2] in ("l_", "r_"):
            assert joints[partner] == {"l_": "r_", "r_": "l_"}[joint[:2]] + joint[2:]
        else:
            assert joints[partner] == joint


def test_a_joint_without_counterpart_is_its_own_mirror():
    assert skeleton.mirrored(("pelvis", "l_hip", "l_knee", "r_hip")) == (0, 3, 2, 1)


@pytest.mark.parametrize("name", SKELETONS)
def test_bones_are_a_tree_that_reaches_every_joint_from_the_root(name):
    joints = SKELETONS[name]
    pairs = skeleton.bones(joints)
    assert len(pairs) == len(joints) - 1
    reached = {joints.index(skeleton.ROOT)}
    for _ in joints:
        reached |= {child for parent, child in pairs if parent in reached}
    assert reached == set(range(len(joints)))


def test_bones_skip_an_absent_parent():
    assert skeleton.bones(("thorax", "pelvis", "l_elbow")) == ((1, 0), (0, 2))
