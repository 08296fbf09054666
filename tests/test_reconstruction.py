"""Laws of the sequence that is made of all views: one body, one frame, one size."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from synthetic_scene import random_rotations

from canonlift.body.anatomy import body_length
from canonlift.body.skeleton import H36M17
from canonlift.data.prediction import Prediction
from canonlift.data.recording import Recording
from canonlift.geometry.rotations import from_axis_angle
from canonlift.inference import reconstruction
from canonlift.inference.reconstruction import (
    Windows,
    average_cameras,
    blend_windows,
    chain_windows,
    reconstruct,
    settle_windows,
)
from canonlift.simulation.athlete import perform, sample_person
from canonlift.simulation.motions import MOTIONS
from canonlift.time_windows import window_frames


def shot(
    n_frames=60, n_views=3, fps=10.0, noise=0.0, lift_noise=0.0, pan_deg=0.0, unseen=(), seed=0
):
    """A recording, what a lifter might say of it, the true motion and the true cameras.

    The cameras see without perspective. The lifter has a canonical frame of its own in every
    frame, and errs in each view by itself.
    """
    g = np.random.default_rng(seed)
    body = perform(sample_person(g), list(MOTIONS), max(2, n_frames), fps, g)
    body = (body - body[:, :1])[:n_frames]
    around = 360 / n_views * np.arange(n_views) + 20 * g.standard_normal(n_views)
    pan = np.sin(np.linspace(0, 3, n_frames))[:, None] * np.linspace(-1, 1, n_views)
    tilts = np.tile(g.uniform(-20, 20, n_views), n_frames)
    heading, tilt, upside = (
        Rotation.from_rotvec(np.outer(angle, axis), degrees=True)
        for angle, axis in (((around + pan_deg * pan).ravel(), [0, 1, 0]),
                            (tilts, [1, 0, 0]), ([180], [1, 0, 0]))
    )  # fmt: skip
    cameras = (tilt * upside * heading).as_matrix().reshape(n_frames, n_views, 3, 3)
    in_camera = np.einsum("tvrc,tjc->tvjr", cameras, body)

    scale = g.uniform(100, 300, (n_views, 1, 1))
    keypoints = scale * (
        in_camera[..., :2] + noise * g.standard_normal((*in_camera.shape[:-1], 2))
    )
    confidence = g.uniform(0.5, 1, keypoints.shape[:-1])
    for frame, view in unseen:
        confidence[frame, view] = 0
    names = tuple(f"cam{v}" for v in range(n_views))
    image = (500 + keypoints).astype(np.float32)
    recording = Recording(image, confidence.astype(np.float32), H36M17, names, fps)

    wrong = Rotation.from_rotvec(lift_noise * g.standard_normal((n_frames * n_views, 3)))
    wrong = wrong.as_matrix().reshape(cameras.shape)
    canonical = random_rotations(n_frames, 1, seed=seed).numpy()
    pose = in_camera + 0.3 * lift_noise * g.standard_normal(in_camera.shape)
    pose = pose - pose[:, :, :1]
    pose = pose / body_length(torch.from_numpy(pose), H36M17).numpy()[..., None, None]
    lost = (confidence == 0).all(-1)[..., None, None]
    lifted = Prediction(
        recording,
        np.where(lost, np.nan, pose).astype(np.float32),
        np.where(lost, np.nan, wrong @ cameras @ canonical).astype(np.float32),
        image,
    )
    return recording, lifted, body, cameras


def seen_as(lifted, **change):
    """The same poses of a recording with other detections."""
    return replace(lifted, recording=replace(lifted.recording, **change))


def by_views(lifted, views):
    """The same by some of the cameras, in some order."""
    recording = lifted.recording
    arrays = {name: getattr(recording, name)[:, views] for name in ("keypoints", "confidence")}
    names = tuple(recording.views[v] for v in views)
    parts = (getattr(lifted, name)[:, views] for name in ("pose", "rotation", "keypoints_refined"))
    return Prediction(replace(recording, **arrays, views=names), *parts)


def against(pose, body):
    """Mean distance in metres from the truth, and each frame's turn, after one similarity."""
    known = np.isfinite(pose).all((1, 2))
    pose, body = pose[known].astype(np.float64), body[known]
    rotation, _ = Rotation.align_vectors(body.reshape(-1, 3), pose.reshape(-1, 3))
    turned = pose @ rotation.as_matrix().T
    turned = turned * (turned * body).sum() / np.square(turned).sum()
    turns = [Rotation.align_vectors(b, p)[0] for b, p in zip(body, turned, strict=True)]
    return np.linalg.norm(turned - body, axis=-1).mean(), turns


@pytest.mark.parametrize("n_views", [2, 3, 6])
@pytest.mark.parametrize("n_frames", [1, 9, 50])
def test_finds_the_motion_and_the_cameras_where_nothing_errs(n_frames, n_views, monkeypatch):
    """Whatever the canonical frames of the lifter are, which change in every frame."""
    monkeypatch.setattr(reconstruction, "BLUR_S", 0.0)  # it costs some millimetres
    recording, lifted, body, cameras = shot(n_frames, n_views)
    fused = reconstruct(lifted)
    assert against(fused.pose, body)[0] < 1e-5
    from_first = fused.rotation @ fused.rotation[:, :1].swapaxes(-1, -2)
    true = cameras @ cameras[:, :1].swapaxes(-1, -2)
    np.testing.assert_allclose(from_first, true, atol=1e-5)


def test_one_size_and_the_axes_of_the_first_camera():
    recording, lifted, _, _ = shot(noise=0.02, lift_noise=0.2)
    fused = reconstruct(lifted)
    length = body_length(torch.from_numpy(fused.pose), H36M17)
    assert abs(length.median() - 1) < 1e-5
    assert length.std() < 0.02
    assert (fused.pose[:, 0] == 0).all()
    mean = Rotation.from_matrix(fused.rotation[:, 0]).mean()
    assert mean.magnitude() < 1e-3


@pytest.mark.parametrize("n_views", [2, 4])
def test_is_nearer_to_the_truth_than_what_any_view_says(n_views):
    recording, lifted, body, _ = shot(noise=0.02, lift_noise=0.3, n_views=n_views)
    fused = reconstruct(lifted)
    error, turns = against(fused.pose, body)
    single = against(lifted.pose[:, 0], body)[0]
    assert error < 0.4 * single
    assert np.median([turn.magnitude() for turn in turns]) < np.radians(6)


def test_nothing_jumps_from_frame_to_frame():
    """Though windows meet, cameras pan, and the lifter's canonical frame is another every time."""
    recording, lifted, body, _ = shot(120, 3, noise=0.01, lift_noise=0.2, pan_deg=20)
    turns = against(reconstruct(lifted).pose, body)[1]
    steps = [(b * a.inv()).magnitude() for a, b in zip(turns, turns[1:], strict=False)]
    assert np.degrees(max(steps)) < 8
    assert np.degrees(np.median(steps)) < 2


def test_small_errors_do_not_add_up_over_a_long_take():
    recording, lifted, body, _ = shot(900, 2, noise=0.02, lift_noise=0.3)
    turns = against(reconstruct(lifted).pose, body)[1]
    off = np.degrees([turn.magnitude() for turn in turns])
    assert np.median(off[:300]) < 8
    assert np.median(off[-300:]) < 8


def test_views_and_joints_may_be_missing():
    """At times one view is left, and at times none."""
    unseen = [(slice(10, 20), 0), (slice(15, 40), 1), (slice(15, 18), 2)]
    recording, lifted, body, _ = shot(60, 3, noise=0.005, lift_noise=0.05, unseen=unseen)
    confidence = recording.confidence.copy()
    confidence[30:, :, H36M17.index("l_wrist")] = 0
    confidence[::3, 2, 5] = 0
    lifted = seen_as(lifted, confidence=confidence)
    fused = reconstruct(lifted)
    lost = np.zeros(60, dtype=bool)
    lost[15:18] = True
    np.testing.assert_array_equal(np.isnan(fused.pose).any((1, 2)), lost)
    np.testing.assert_array_equal(np.isnan(fused.pose).all((1, 2)), lost)
    blank = (confidence == 0).all(-1)
    np.testing.assert_array_equal(np.isnan(fused.rotation).any((2, 3)), blank)
    np.testing.assert_array_equal(fused.seen_by, (confidence > 0).sum(1))
    assert against(fused.pose, body)[0] < 0.03
    keypoints = np.where((confidence == 0)[..., None], np.float32(1e6), recording.keypoints)
    absurd = reconstruct(seen_as(lifted, keypoints=keypoints))
    np.testing.assert_allclose(absurd.pose, fused.pose, atol=1e-6)


def test_nobody_seen_at_all_is_nowhere():
    recording, lifted, _, _ = shot(12, 2, unseen=[(slice(None), slice(None))])
    fused = reconstruct(lifted)
    assert np.isnan(fused.pose).all()
    assert np.isnan(fused.rotation).all()
    assert not fused.seen_by.any()


def test_a_camera_that_never_saw_anything_changes_nothing():
    recording, lifted, _, _ = shot(40, 3, noise=0.02, lift_noise=0.2, unseen=[(slice(None), 2)])
    np.testing.assert_allclose(
        reconstruct(lifted).pose, reconstruct(by_views(lifted, [0, 1])).pose, atol=1e-5
    )


def test_blind_to_the_scale_of_images_and_to_how_it_is_computed():
    recording, lifted, _, _ = shot(90, 3, noise=0.02, lift_noise=0.2)
    expected = reconstruct(lifted)
    factor = np.array([0.2, 1, 7], dtype=np.float32)[:, None, None]
    zoomed = seen_as(lifted, keypoints=factor * recording.keypoints)
    np.testing.assert_allclose(reconstruct(zoomed).pose, expected.pose, atol=1e-5)
    np.testing.assert_allclose(reconstruct(lifted, 7).pose, expected.pose, atol=1e-6)


def test_the_order_of_the_other_cameras_does_not_matter():
    recording, lifted, _, _ = shot(40, 4, noise=0.02, lift_noise=0.2)
    order = [0, 3, 1, 2]
    found, expected = reconstruct(by_views(lifted, order)), reconstruct(lifted)
    np.testing.assert_allclose(found.pose, expected.pose, atol=1e-5)
    np.testing.assert_allclose(found.rotation, expected.rotation[:, order], atol=1e-4)


def test_a_view_lifted_wrongly_for_a_moment_is_outvoted():
    recording, lifted, _, _ = shot(40, 3, noise=0.01, lift_noise=0.05)
    pose = lifted.pose.copy()
    pose[20:23, 1, :, 2] *= -1
    found = reconstruct(replace(lifted, pose=pose))
    expected = reconstruct(lifted)
    assert np.abs(found.pose - expected.pose).max() < 0.02  # of all bones


@pytest.mark.parametrize(("n_frames", "length"), [(1, 8), (7, 8), (8, 8), (29, 8), (100, 20)])
def test_windows_cover_every_frame_and_overlap(n_frames, length):
    frames = window_frames(n_frames, length)
    assert frames.shape[1] == min(n_frames, length)
    assert sorted(set(frames.flatten().tolist())) == list(range(n_frames))
    assert (frames[1:, 0] <= frames[:-1, 0] + frames.shape[1] - frames.shape[1] // 2).all()
    assert (frames[:, -1] < n_frames).all()


def test_cameras_are_exact_where_all_relations_agree():
    """However often each pair was seen together."""
    cameras = random_rotations(2, 5)
    often = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    relations = torch.einsum("nuvrc,nut,nvt->nurvc", cameras[:, :, None] @ cameras[:, None].mT,
                             often, often)  # fmt: skip
    found = average_cameras(relations.flatten(1, 2).flatten(2, 3))
    torch.testing.assert_close(
        found @ found[:, :1].mT, cameras @ cameras[:, :1].mT, atol=1e-9, rtol=0
    )


def windows(n=40, length=8, n_views=3):
    """Windows of a body that holds still, before cameras that do, each in axes of its own."""
    frames = window_frames(length // 2 * (n + 1), length)
    body = torch.randn(1, 1, 17, 3, generator=torch.Generator().manual_seed(0)).double()
    turn = random_rotations(n, seed=1)
    pose = torch.einsum("nrc,nwjc->nwjr", turn, body.expand(n, length, -1, -1))
    rotation = random_rotations(1, n_views, seed=2) @ turn.mT[:, None]
    return Windows(frames, pose, rotation, torch.ones(n, length, n_views).double())


def test_a_chain_that_winds_up_settles_where_the_cameras_always_stand():
    """Errors of a degree from window to window, always the same way."""
    chained = chain_windows(windows())
    torch.testing.assert_close(chained.pose, chained.pose[:1].expand(40, -1, -1, -1))
    wind = torch.linspace(0, 0.7, 40).double()[:, None] * torch.tensor([0.0, 0.6, 0.8])
    turn = from_axis_angle(wind)
    wound = chained._replace(
        pose=torch.einsum("nrc,nwjc->nwjr", turn, chained.pose),
        rotation=chained.rotation @ turn.mT[:, None],
    )
    settled = settle_windows(wound, 8.0)

    def drift(w):
        return (w.pose[-1] - w.pose[0]).norm(dim=-1).mean()

    assert drift(settled) < 0.1 * drift(wound)


def test_windows_fade_into_each_other():
    """Two neighbours that disagree make a slope and no step."""
    still = chain_windows(windows())
    apart = still.pose + torch.arange(40)[:, None, None, None] % 2
    pose, _ = blend_windows(still._replace(pose=apart))
    assert (pose[1:] - pose[:-1]).abs().max() < 0.3
    assert (pose.amax(0) - pose.amin(0)).min() > 0.7


def test_cameras_that_took_turns_are_held_together_by_the_rest_of_the_take():
    """In the first seconds the first camera sees nothing when the second does."""
    turns = [(slice(0, 10), 0), (slice(10, 20), 1), (slice(20, 30), 0)]
    recording, lifted, body, _ = shot(80, 2, unseen=turns, noise=0.005, lift_noise=0.05)
    assert against(reconstruct(lifted).pose, body)[0] < 0.06
