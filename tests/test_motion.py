"""Laws of the procedural athlete: what is true of every body in every motion."""

from functools import cache

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from canonlift.body.skeleton import H36M17, bones
from canonlift.simulation.athlete import ANKLE_HEIGHT, perform, sample_person
from canonlift.simulation.motions import MOTIONS
from canonlift.simulation.noise import smooth_noise

each_motion = pytest.mark.parametrize("motion", MOTIONS)
FPS = 120.0  # higher than of the video, to detect jerks between its frames


@cache
def performed(motion):
    """Three people doing one motion (3, T, 17, 3)."""
    generators = [np.random.default_rng(seed) for seed in (3, 14, 15)]
    return np.stack([perform(sample_person(g), [motion], 720, FPS, g) for g in generators])


def at(pose, name):
    return pose[..., H36M17.index(name), :]


def folds(pose, upper, middle, lower, axis):
    """Bend in degrees, and how it turns about the axis that points to the body's left."""
    first, second = at(pose, middle) - at(pose, upper), at(pose, lower) - at(pose, middle)
    first, second, axis = (
        v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (first, second, axis)
    )
    bend = np.degrees(np.arccos(np.clip((first * second).sum(-1), -1, 1)))
    return bend, np.linalg.det(np.stack([axis, first, second], -1))


@each_motion
def test_bones_keep_their_length_and_left_equals_right(motion):
    pose = performed(motion)
    length = np.stack([np.linalg.norm(pose[:, :, b] - pose[:, :, a], axis=-1)
                       for a, b in bones(H36M17)], -1)  # fmt: skip
    np.testing.assert_allclose(length, length[:, :1].repeat(720, 1), atol=1e-9)
    name = [H36M17[joint] for _, joint in bones(H36M17)]
    left = [i for i, joint in enumerate(name) if joint.startswith("l_")]
    right = [name.index("r_" + name[i][2:]) for i in left]
    np.testing.assert_allclose(length[..., left], length[..., right], atol=1e-9)


@each_motion
@pytest.mark.parametrize("side", ["l", "r"])
def test_knees_fold_backward_and_elbows_forward(motion, side):
    pose = performed(motion)
    hips = at(pose, "l_hip") - at(pose, "r_hip")
    bend, sign = folds(pose, f"{side}_hip", f"{side}_knee", f"{side}_ankle", hips)
    assert (sign > 0).all()
    assert bend.max() < 150

    shoulders = at(pose, "l_shoulder") - at(pose, "r_shoulder")
    bend, sign = folds(pose, f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist", shoulders)
    # Collar bones turn the line of the shoulders, not the elbow: a few frames may seem to err.
    assert (sign[bend > 15] < 0).mean() > 0.98
    assert bend.max() < 150


@each_motion
def test_limbs_do_not_pass_through_the_body(motion):
    """Angle between thigh and trunk, and distance between head and shoulders."""
    pose = performed(motion)
    trunk = at(pose, "spine") - at(pose, "pelvis")
    for side in "lr":
        thigh = at(pose, f"{side}_knee") - at(pose, f"{side}_hip")
        cosine = (trunk * thigh).sum(-1)
        cosine /= np.linalg.norm(trunk, axis=-1) * np.linalg.norm(thigh, axis=-1)
        assert np.degrees(np.arccos(cosine)).min() > 30
        head = np.linalg.norm(at(pose, "head") - at(pose, f"{side}_shoulder"), axis=-1)
        assert head.min() > 0.12


@each_motion
def test_nothing_is_below_the_floor_and_feet_touch_it(motion):
    pose = performed(motion)
    ankles = pose[:, :, [H36M17.index("l_ankle"), H36M17.index("r_ankle")], 1].min(-1)
    assert pose[..., 1].min() > 0.045
    assert ankles.min() > ANKLE_HEIGHT - 1e-9
    assert ankles.min() < ANKLE_HEIGHT + 0.03
    assert np.median(ankles) < ANKLE_HEIGHT + 0.1


@each_motion
def test_accelerations_and_speeds_are_human(motion):
    pose = performed(motion)
    acceleration = np.linalg.norm(np.diff(pose, 2, axis=1), axis=-1) * FPS**2
    assert acceleration.max() < 160  # real hands and feet reach 150 m/s^2 and more
    assert acceleration[..., H36M17.index("pelvis")].max() < 50
    assert np.linalg.norm(np.diff(pose, axis=1), axis=-1).max() * FPS < 16


def test_a_jump_lasts_as_long_as_gravity_makes_it():
    """g T^2 / 8 high; higher only for legs drawn up in flight."""
    time = np.arange(0.0, 5.0, 0.001)
    excess = []
    for seed in range(20):
        height = MOTIONS["jump"](time, np.random.default_rng(seed))["rise"]
        start, land = np.flatnonzero(np.diff(height > 1e-6))[:2]
        if height[start + 1] < 1e-6:  # the motion began in flight
            continue
        flight = height[start : land + 1]
        excess.append(flight.max() / (9.81 * (land - start) ** 2 * 1e-6 / 8))
    assert len(excess) > 10
    assert min(excess) == pytest.approx(1.0, abs=0.15)
    feet = at(performed("jump"), "l_ankle")[..., 1]
    assert (feet.max(1) > ANKLE_HEIGHT + 0.1).all()


def test_running_covers_ground_without_sliding():
    pose = performed("run")
    velocity = np.diff(pose[..., [0, 2]], axis=1) * FPS
    speed = np.linalg.norm(velocity, axis=-1)
    feet = [H36M17.index("l_ankle"), H36M17.index("r_ankle")]
    stands = pose[:, :-1, feet, 1] < ANKLE_HEIGHT + 0.02
    pelvis = np.repeat(speed[..., :1], 2, -1)
    assert pelvis[stands].mean() > 1.5
    assert speed[..., feet][stands].mean() < 0.3 * pelvis[stands].mean()


def test_forward_is_where_the_nose_points():
    pose = performed("slalom")
    travels = np.diff(at(pose, "pelvis"), axis=1)[..., [0, 2]]
    neck = (at(pose, "thorax") + at(pose, "head")) / 2
    faces = (at(pose, "nose") - neck)[:, :-1][..., [0, 2]]
    left = (at(pose, "l_hip") - at(pose, "r_hip"))[:, :-1][..., [0, 2]]
    assert ((travels * faces).sum(-1) > 0).mean() > 0.9
    # Seen from above with z up and x right, the left is 90 degrees clockwise: y is up.
    assert ((left[..., 0] * travels[..., 1] - left[..., 1] * travels[..., 0]) > 0).mean() > 0.99


def test_poses_are_as_varied_as_real_ones():
    """Medians of 155 mm (real motion capture, all clips) after the best similarity."""
    g = np.random.default_rng(8)
    pose = np.concatenate(
        [perform(sample_person(g), list(MOTIONS), 900, 30.0, g) for _ in range(4)]
    )
    pose = pose - pose.mean(1, keepdims=True)
    gaps = []
    for a, b in pose[g.integers(len(pose), size=(150, 2))]:
        turn, _ = Rotation.align_vectors(b, a)
        turned = turn.apply(a)
        scale = (turned * b).sum() / (turned**2).sum()
        gaps.append(np.linalg.norm(scale * turned - b, axis=-1).mean())
    assert np.median(gaps) > 0.14


def test_everybody_is_different_and_of_human_height():
    g = np.random.default_rng(0)
    people = [sample_person(g) for _ in range(200)]
    heights = np.array([person.height for person in people])
    assert 1.55 <= heights.min() < 1.62
    assert 1.88 < heights.max() <= 1.95
    assert np.std([person.thigh / person.shank for person in people]) > 0.03


@each_motion
def test_a_motion_depends_on_its_generator_alone(motion):
    def made(seed):
        g = np.random.default_rng(seed)
        return perform(sample_person(g), [motion], 40, 30.0, g)

    assert made(5).tobytes() == made(5).tobytes()
    assert np.abs(made(5) - made(6)).max() > 0.1


def test_any_length_and_frame_rate_gives_finite_poses():
    g = np.random.default_rng(0)
    person = sample_person(g)
    for n_frames, fps in ((2, 30.0), (7, 5.0), (100, 240.0), (1500, 10.0)):
        pose = perform(person, ["run", "jump", "drill"], n_frames, fps, g)
        assert pose.shape == (n_frames, 17, 3)
        assert np.isfinite(pose).all()


def test_refuses_unknown_motions_and_too_few_frames():
    g = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"\['moonwalk'\]; choose from slalom"):
        perform(sample_person(g), ["run", "moonwalk"], 10, 30.0, g)
    with pytest.raises(ValueError, match="choose from"):
        perform(sample_person(g), [], 10, 30.0, g)
    with pytest.raises(ValueError, match="at least 2 frames, got 1"):
        perform(sample_person(g), ["run"], 1, 30.0, g)


def test_smooth_noise_has_unit_variance_from_the_first_frame_to_the_last():
    noise = smooth_noise(50, (20_000,), 20.0, np.random.default_rng(0))
    np.testing.assert_allclose(noise.std(axis=1), 1.0, atol=0.03)
    np.testing.assert_allclose(noise.mean(axis=1), 0.0, atol=0.03)
    assert np.abs(np.diff(noise, axis=0)).max() < 1.0
