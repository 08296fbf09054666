"""Laws of frames: from recordings to views, and to batches of them."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from canonlift.body.skeleton import COCO17, H36M17, SKELETONS, mirrored
from canonlift.data import batches as shuffled
from canonlift.data import frames
from canonlift.data import recording as recordings
from canonlift.data.recording import Recording
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.detector import DetectorConfig
from canonlift.simulation.motions import MOTIONS
from canonlift.simulation.session import film
from canonlift.types import Target

PELVIS, L_HIP, R_HIP = (H36M17.index(name) for name in ("pelvis", "l_hip", "r_hip"))


def take(n_frames=12, n_views=3, seed=0, **change):
    """A filmed athlete, as far as the detector saw him."""
    g = np.random.default_rng(seed)
    pose = perform(sample_person(g), list(MOTIONS), n_frames, 10.0, g)
    detector = DetectorConfig(joint_miss_rate=0.1, frame_miss_rate=0.1)
    filmed = film(pose, H36M17, 10.0, CameraConfig(n_views=n_views), detector, g)
    return replace(filmed, **change)


def write(folder, **takes):
    for name, recording in takes.items():
        recordings.save(recording, folder / f"{name}.npz")
    return [folder / f"{name}.npz" for name in takes]


# --- reading


def test_views_are_centred_on_the_root_in_pixels():
    recording = take()
    views = frames.to_views(recording)
    seen = views.observed.numpy()
    assert 0.5 < seen.mean() < 1
    keypoints, _, root, _ = frames.centre(recording)
    expected = (keypoints - root[:, :, None])[seen]
    np.testing.assert_allclose(views.keypoints.numpy()[seen], expected, rtol=1e-5, atol=1e-3)
    assert (views.keypoints[:, :, PELVIS] == 0).all()
    assert (views.keypoints[~views.observed] == 0).all()
    assert views.keypoints.isfinite().all()


def test_a_person_elsewhere_in_the_image_is_the_same_sample():
    recording = take()
    moved = replace(recording, keypoints=recording.keypoints + np.float32([128, -64]))
    one, other = frames.to_views(recording), frames.to_views(moved)
    torch.testing.assert_close(one.keypoints, other.keypoints, rtol=0, atol=1e-3)
    assert torch.equal(one.confidence, other.confidence)


def test_a_missed_root_is_put_between_the_hips_and_is_as_sure_as_the_less_sure():
    recording = take(n_frames=2)
    keypoints, confidence = recording.keypoints.copy(), recording.confidence.copy()
    keypoints[np.isnan(keypoints)], confidence[:] = 100, 0.9
    keypoints[0, 1, [L_HIP, R_HIP]] = [[100, 200], [120, 260]]
    confidence[0, 1, [PELVIS, L_HIP, R_HIP]] = [0, 0.3, 0.7]
    keypoints[0, 1, PELVIS] = np.nan
    views = frames.to_views(replace(recording, keypoints=keypoints, confidence=confidence))
    assert views.confidence[0, 1, PELVIS] == np.float32(0.3)
    assert views.keypoints[0, 1, [L_HIP, R_HIP]].tolist() == [[-10, -30], [10, 30]]
    assert views.confidence[1, 1, PELVIS] == np.float32(0.9)


@pytest.mark.parametrize("lost", [("pelvis", "l_hip"), ("pelvis", "r_hip", "l_hip")])
def test_a_view_without_a_root_counts_as_unobserved(lost):
    recording = take(n_frames=2)
    confidence = np.full_like(recording.confidence, 0.9)
    keypoints = np.nan_to_num(recording.keypoints)
    confidence[1, 2, [H36M17.index(name) for name in lost]] = 0
    views = frames.to_views(replace(recording, keypoints=keypoints, confidence=confidence))
    assert not views.observed[1, 2].any()
    assert views.observed.sum() == (2 * 3 - 1) * 17


def test_a_skeleton_without_hips_has_no_other_root():
    joints = ("pelvis", "thorax")
    keypoints = np.zeros((2, 1, 2, 2), np.float32)
    confidence = np.ones((2, 1, 2), np.float32)
    confidence[1, 0, 0] = 0
    views = frames.to_views(Recording(keypoints, confidence, joints, ("a",), 10.0))
    assert views.observed.flatten(1).tolist() == [[True, True], [False, False]]


def test_reading_does_not_change_the_recording():
    recording = take()
    before = recording.keypoints.copy(), recording.confidence.copy()
    frames.to_views(recording)
    np.testing.assert_array_equal(recording.keypoints, before[0])
    np.testing.assert_array_equal(recording.confidence, before[1])


def test_recordings_with_fewer_views_are_padded_with_unobserved_ones(tmp_path):
    takes = {"few": take(5, 2, 1), "many": take(7, 4, 2)}
    session = frames.read(write(tmp_path, **takes), H36M17)
    assert session.views.keypoints.shape == (12, 4, 17, 2)
    assert session.bounds.tolist() == [0, 5, 12]
    assert [name.rpartition("/")[2] for name in session.names] == ["few.npz", "many.npz"]
    few, many = (frames.to_views(recording) for recording in takes.values())
    assert torch.equal(session.views.keypoints[:5, :2], few.keypoints)
    assert torch.equal(session.views.confidence[5:], many.confidence)
    assert not session.views.observed[:5, 2:].any()
    assert (session.views.keypoints[:5, 2:] == 0).all()


def test_rigs_are_numbered_by_name_and_moving_cameras_belong_to_none(tmp_path):
    rigs = {"a": "hall", "b": "", "c": "track", "d": "hall", "e": ""}
    takes = {name: take(2, rig=rig) for name, rig in rigs.items()}
    session = frames.read(write(tmp_path, **takes), H36M17)
    assert session.views.rig.view(5, 2).tolist() == [[0, 0], [-1, -1], [1, 1], [0, 0], [-1, -1]]


def test_detector_skeletons_are_converted_by_name(tmp_path):
    """A recording on other joints, in another order, is the same session."""
    g = np.random.default_rng(0)
    keypoints = g.uniform(0, 500, (4, 2, 17, 2)).astype(np.float32)
    confidence = g.uniform(0.1, 1, (4, 2, 17)).astype(np.float32)
    coco = Recording(keypoints, confidence, COCO17, ("a", "b"), 25.0)
    order = g.permutation(17)
    shuffled = Recording(
        keypoints[:, :, order],
        confidence[:, :, order],
        tuple(COCO17[i] for i in order),
        ("a", "b"),
        25.0,
    )
    one, other = write(tmp_path, coco=coco, shuffled=shuffled)
    for joints in SKELETONS.values():
        views = [frames.read([path], joints).views for path in (one, other)]
        assert torch.equal(views[0].keypoints, views[1].keypoints)
        assert torch.equal(views[0].confidence, views[1].confidence)
        knee, hips = joints.index("l_knee"), [COCO17.index(h) for h in ("l_hip", "r_hip")]
        expected = keypoints[:, :, COCO17.index("l_knee")] - keypoints[:, :, hips].mean(2)
        np.testing.assert_allclose(views[0].keypoints[:, :, knee], expected, atol=1e-3)


def bare(n_frames, n_views, joints):
    shape = (n_frames, n_views, len(joints))
    keypoints, confidence = np.zeros((*shape, 2), np.float32), np.ones(shape, np.float32)
    return Recording(keypoints, confidence, joints, ("a", "b")[:n_views], 9.0)


@pytest.mark.parametrize(
    ("recording", "message"),
    [
        (bare(1, 2, ("pelvis", "l_knee")), r"cannot make r_hip, .* of the joints pelvis, l_knee"),
        (bare(0, 2, H36M17), "has no frames"),
        (bare(1, 1, H36M17), r"has 1 view\(s\), training needs 2 or more"),
    ],
)
def test_what_cannot_serve_is_refused_by_name(tmp_path, recording, message):
    (path,) = write(tmp_path, take=recording)
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        frames.read([path], H36M17, least_views=2)


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.npz: no such file"):
        frames.read([tmp_path / "nothing.npz"], H36M17)
    with pytest.raises(FileNotFoundError, match="no recordings to read"):
        frames.read([], H36M17)


def test_globs_are_sorted_each_file_comes_once_and_none_may_be_empty(tmp_path):
    for name in ("b.npz", "a.npz", "c.npz", "deep/er/d.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = frames.expand([f"{tmp_path}/c.npz", f"{tmp_path}/*.npz", f"{tmp_path}/**/d.npz"])
    assert [path.name for path in found] == ["c.npz", "a.npz", "b.npz", "d.npz"]
    assert frames.expand([]) == []
    with pytest.raises(FileNotFoundError, match=r"'.*/e\*' matches no recording \(looked from /"):
        frames.expand([f"{tmp_path}/*.npz", f"{tmp_path}/e*"])


def test_describes_what_was_read(tmp_path):
    confidence = np.full((4, 3, 17), 0.5, np.float32)
    confidence[0, 0, 3], confidence[0, 1, 3] = 0.25, 0.875
    confidence[3] = 0
    confidence[:3, 2] = 0
    recording = take(4, 3, confidence=confidence, keypoints=np.ones((4, 3, 17, 2), np.float32))
    session = frames.read(write(tmp_path, a=recording), H36M17)
    assert frames.describe(session) == (
        "1 recordings, 4 frames, up to 3 views (1.5 on average), 50.0% of joints unobserved, "
        "confidence 0.25 to 0.88"
    )


# --- batches


def numbers(n_samples, batch_size, seed, first, how_many):
    return [
        b.tolist() for b in islice(shuffled.batches(n_samples, batch_size, seed, first), how_many)
    ]


def test_an_epoch_shows_every_sample_at_most_once_and_misses_less_than_a_batch():
    for n_samples, batch_size in ((12, 4), (13, 4), (15, 4), (5, 5), (7, 1), (6, 100)):
        size = min(batch_size, n_samples)
        per_epoch = n_samples // size
        for epoch in range(3):
            shown = numbers(n_samples, batch_size, 3, epoch * per_epoch, per_epoch)
            assert all(len(batch) == size for batch in shown)
            flat = [i for batch in shown for i in batch]
            assert len(set(flat)) == len(flat) == n_samples - n_samples % size
            assert set(flat) <= set(range(n_samples))


def test_samples_left_over_have_their_turn_in_other_epochs():
    shown = {i for batch in numbers(7, 3, 0, 0, 20) for i in batch}
    assert shown == set(range(7))


def test_batches_go_on_from_any_number_as_if_never_stopped():
    whole = numbers(13, 4, 5, 0, 11)
    for first in range(11):
        assert numbers(13, 4, 5, first, 11 - first) == whole[first:]


def test_epochs_and_seeds_are_shuffled_differently():
    whole = numbers(40, 40, 0, 0, 4)
    assert len({tuple(batch) for batch in whole}) == 4
    assert not {tuple(b) for b in numbers(40, 40, 1, 0, 4)} & {tuple(b) for b in whole}
    assert whole[0] != sorted(whole[0])


# --- the mirror


def with_truth(recording):
    """Views whose target is the true pose."""
    views = frames.to_views(recording)
    pose = torch.from_numpy(recording.pose3d - recording.pose3d[:, :, PELVIS : PELVIS + 1])
    trust = torch.rand(pose.shape[:-1], generator=torch.Generator().manual_seed(0))
    return replace(views, target=Target(pose, trust))


def test_flipping_twice_changes_nothing():
    views = with_truth(take())
    again = shuffled.flip(shuffled.flip(views, H36M17), H36M17)
    assert torch.equal(again.keypoints, views.keypoints)
    assert torch.equal(again.confidence, views.confidence)
    assert torch.equal(again.target.pose, views.target.pose)
    assert torch.equal(again.target.trust, views.target.trust)
    assert torch.equal(again.rig, views.rig)
    once = shuffled.flip(views, H36M17)
    assert not torch.equal(once.keypoints, views.keypoints)


def test_a_flipped_scene_is_the_film_of_the_mirrored_athlete():
    """Its 3D target lands on its 2D joints, with the perspective that the camera had."""
    recording = take()
    recording = replace(recording, keypoints=recording.keypoints_true,
                        confidence=np.ones_like(recording.confidence))  # fmt: skip
    flipped = shuffled.flip(with_truth(recording), H36M17)
    partner = list(mirrored(H36M17))
    true = recording.pose3d[:, :, partner] * np.float32([-1, 1, 1])
    expected = true - true[:, :, PELVIS : PELVIS + 1]
    np.testing.assert_allclose(flipped.target.pose.numpy(), expected, atol=1e-6)
    ray = true[..., :2] / true[..., 2:]
    ray = ray - ray[:, :, PELVIS : PELVIS + 1]
    image = flipped.keypoints.numpy()
    focal = (ray * image).sum((2, 3)) / np.square(ray).sum((2, 3))
    np.testing.assert_allclose(image, focal[..., None, None] * ray, atol=0.05)
    assert (focal > 100).all()


def test_left_and_right_are_exchanged_with_their_confidence():
    views = with_truth(take())
    flipped = shuffled.flip(views, H36M17)
    for left, right in (("l_knee", "r_knee"), ("r_wrist", "l_wrist"), ("nose", "nose")):
        a, b = H36M17.index(left), H36M17.index(right)
        assert torch.equal(flipped.confidence[:, :, a], views.confidence[:, :, b])
        assert torch.equal(flipped.target.trust[:, :, a], views.target.trust[:, :, b])
        assert torch.equal(flipped.keypoints[:, :, a, 0], -views.keypoints[:, :, b, 0])
        assert torch.equal(flipped.keypoints[:, :, a, 1], views.keypoints[:, :, b, 1])
