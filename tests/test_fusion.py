"""Laws of self-fusion: three ways to repair, each against loops, grids and exact scenes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_scene import (
    HOME,
    disturbed,
    normalised,
    random,
    random_rotations,
    scene,
    turned,
    uniform,
)
from torch.autograd import gradcheck
from torch.testing import assert_close

from canonlift.body.skeleton import H36M17
from canonlift.geometry import ridges
from canonlift.geometry.rotations import from_axis_angle
from canonlift.geometry.scale import norm
from canonlift.methods import frame_losses, fusion
from canonlift.methods.fusion import (
    METHODS,
    FusionConfig,
    Maps,
    exact_peaks,
    fuse,
    grid_peaks,
    joint_maps,
    to_repair,
)
from canonlift.types import Lifted, Views

DEPTH = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
NEVER = [H36M17.index(name) for name in FusionConfig().never]
PEAKS = {"grid": grid_peaks, "exact": exact_peaks}
each_method = pytest.mark.parametrize("method", METHODS)
each_map_method = pytest.mark.parametrize("method", PEAKS)
CORRECTED = {"scale_ratio": True, "angle_weight": True}


def repaired(views, lifted, everywhere=None, **config):
    return fuse(views, lifted, FusionConfig(**config), H36M17, everywhere)


def hidden(views, share, seed=0):
    """The same with a share of the joints, though never the root, not observed."""
    seen = uniform(*views.confidence.shape, seed=seed) >= share
    seen[:, :, HOME] = True
    return replace(views, confidence=views.confidence * seen)


# Invariances


@each_method
@pytest.mark.parametrize("options", [{}, CORRECTED])
def test_a_sample_does_not_depend_on_the_rest_of_the_batch(method, options):
    """What the released code of CVSF fails: it weighs every sample by the first one's."""
    views, lifted = disturbed(*scene(8, 4))
    views = hidden(views, 0.1)
    together = repaired(views, lifted, method=method, **options)
    assert not torch.equal(together.keypoints, views.keypoints)
    for i in range(len(views)):
        alone = repaired(views[i : i + 1], lifted[i : i + 1], method=method, **options)
        assert_close(together[i : i + 1].keypoints, alone.keypoints)
        assert_close(together[i : i + 1].confidence, alone.confidence)


@each_method
@pytest.mark.parametrize("options", [{}, CORRECTED])
def test_permuting_the_views_permutes_the_result(method, options, noisy):
    views, lifted = noisy
    views, order = hidden(views, 0.1), [2, 0, 3, 1]
    permuted = Views(views.keypoints[:, order], views.confidence[:, order], views.rig)
    other = Lifted(lifted.pose[:, order], lifted.rotation[:, order])
    expected = repaired(views, lifted, method=method, **options)
    found = repaired(permuted, other, method=method, **options)
    assert_close(found.keypoints, expected.keypoints[:, order])
    assert_close(found.confidence, expected.confidence[:, order])


@each_method
def test_blind_to_canonical_frame_mirror_and_size_of_the_lifted_pose(method, noisy):
    views, lifted = noisy
    expected = repaired(views, lifted, method=method, **CORRECTED).keypoints
    turn = random_rotations(1, seed=9)[0]
    for other in (
        Lifted(7.0 * lifted.pose @ turn.mT, lifted.rotation @ turn.mT),
        Lifted(lifted.pose * DEPTH, DEPTH[:, None] * lifted.rotation * DEPTH),
    ):
        found = repaired(views, other, method=method, **CORRECTED).keypoints
        assert_close(found, expected, atol=1e-3, rtol=0)  # pixels


@each_method
def test_the_size_of_an_image_is_kept(method, noisy):
    views, lifted = noisy
    expected = repaired(views, lifted, method=method).keypoints
    size = torch.tensor([0.01, 1.0, 5.0, 300.0], dtype=torch.float64)[:, None, None]
    found = repaired(replace(views, keypoints=size * views.keypoints), lifted, method=method)
    assert_close(found.keypoints, size * expected, atol=0, rtol=1e-6)


@each_method
@pytest.mark.parametrize("poison", [1e6, torch.nan])
def test_what_was_not_observed_does_not_matter(method, poison, noisy):
    views, lifted = noisy
    views = hidden(views, 0.3)
    views.confidence[1, 3] = 0.0
    poisoned = views.keypoints.masked_fill(~views.observed[..., None], poison)
    expected = repaired(views, lifted, method=method, **CORRECTED)
    found = repaired(replace(views, keypoints=poisoned), lifted, method=method, **CORRECTED)
    assert torch.equal(found.confidence, expected.confidence)
    assert_close(found.keypoints[found.observed], expected.keypoints[found.observed])


@each_method
def test_float32_repairs_as_float64_does(method):
    views, lifted = disturbed(*scene(6, 4))
    single = Lifted(lifted.pose.float(), lifted.rotation.float())
    expected = repaired(views, lifted, method=method)
    found = repaired(views.to(torch.float32), single, method=method)
    assert found.keypoints.dtype == torch.float32
    gap = (found.keypoints.double() - expected.keypoints) / norm(views.keypoints, views.observed)
    gap = gap.norm(dim=-1)[views.confidence < 0.85]
    assert (gap < 1e-4).double().mean() > 0.98  # two peaks may be all but equally high


# What is touched


@each_method
@pytest.mark.parametrize("threshold", [0.3, 0.85])
def test_sure_joints_and_those_named_never_stay_bit_for_bit(method, threshold, noisy):
    views, lifted = noisy
    found = repaired(views, lifted, method=method, threshold=threshold)
    kept = views.confidence >= threshold
    kept[:, :, NEVER] = True
    assert torch.equal(found.keypoints[kept], views.keypoints[kept])
    assert (found.keypoints != views.keypoints).any(-1)[~kept].double().mean() > 0.9
    assert torch.equal(found.confidence, views.confidence)


@each_method
def test_looking_everywhere_repairs_the_same(method, noisy, monkeypatch):
    """As it is where the number of unsure joints is not known in time."""
    views, lifted = noisy
    views = hidden(views, 0.2)
    expected = repaired(views, lifted, method=method)
    looked_at = []

    def noted(views, lifted, where, config):
        looked_at.append(len(where))
        return METHODS[method](views, lifted, where, config)

    with monkeypatch.context() as patch:
        patch.setattr(fusion, "METHODS", {method: noted})
        found = repaired(views, lifted, everywhere=True, method=method)
    assert looked_at == [views.confidence.numel()]
    assert (expected.keypoints != views.keypoints).any()
    assert_close(found.keypoints, expected.keypoints)
    assert_close(found.confidence, expected.confidence)


@each_method
def test_never_is_a_choice(method, noisy):
    views, lifted = noisy
    found = repaired(views, lifted, method=method, never=("l_knee",))
    changed = (found.keypoints != views.keypoints).any(-1).any(0).any(0)
    assert [H36M17[j] for j in range(17) if not changed[j] and j != HOME] == ["l_knee"]


@each_method
def test_a_joint_whose_place_lies_outside_of_the_extent_stays(method, noisy):
    views, lifted = noisy
    views = hidden(views, 0.2)
    found = repaired(views, lifted, method=method, extent=0.15)
    moved = (found.keypoints != views.keypoints).any(-1)
    assert torch.equal(found.confidence[~moved], views.confidence[~moved])
    assert not found.observed[~moved & ~views.observed].any()
    assert (~found.observed).any()
    assert 0.1 < moved.double().mean() < 0.7
    scaled = found.keypoints / norm(views.keypoints, views.observed)
    assert scaled[moved].abs().max() <= 0.15


@each_method
def test_an_unobserved_joint_is_placed_where_two_others_saw_it_and_not_by_one(method):
    views, truth = scene(3, 3)
    elbow, knee = H36M17.index("l_elbow"), H36M17.index("r_knee")
    views.confidence[0, 0, elbow] = 0.0
    views.confidence[1, 0:2, knee] = 0.0
    hole = views.confidence == 0
    emptied = replace(views, keypoints=views.keypoints.masked_fill(hole[..., None], 0.0))
    found = repaired(emptied, truth, method=method, scale_ratio=True, never=())
    assert (found.confidence[0, 0, elbow] > 0.5).all()
    assert (found.confidence <= 1.0).all()
    gap = (found.keypoints - views.keypoints)[0, 0, elbow].norm()
    assert gap < 0.05 * norm(views.keypoints, views.observed)[0, 0, 0, 0]
    rest = torch.ones_like(hole)
    rest[0, 0, elbow] = False
    assert torch.equal(found.keypoints[rest], emptied.keypoints[rest])
    assert torch.equal(found.confidence[rest], emptied.confidence[rest])


@each_method
def test_a_found_joint_is_as_sure_as_the_views_that_found_it(method):
    views, truth = scene(3, 4)
    elbow = H36M17.index("l_elbow")
    sure = []
    for confidence in (0.2, 0.4, 0.8):
        views.confidence[:, 1:, elbow] = confidence
        views.confidence[:, 0, elbow] = 0.0
        found = repaired(views, truth, method=method, scale_ratio=True, threshold=0.1)
        sure.append(found.confidence[:, 0, elbow])
    assert (sure[0] > 0.1).all()
    assert (sure[2] <= 0.8 + 1e-9).all()
    assert_close(sure[1] / sure[0], torch.full_like(sure[0], 2.0), atol=0.1, rtol=0)
    assert_close(sure[2] / sure[1], torch.full_like(sure[0], 2.0), atol=0.2, rtol=0)


@each_method
def test_a_view_in_which_nothing_was_observed_stays_empty(method, noisy):
    views, lifted = noisy
    views.confidence[0, 2] = 0.0
    views.confidence[2, 1] = 0.0
    found = repaired(views, lifted, method=method)
    assert not found.observed[0, 2].any()
    assert not found.observed[2, 1].any()
    alone = [0, 1, 3]
    without = Views(views.keypoints[:1, alone], views.confidence[:1, alone], views.rig[:1])
    fewer = Lifted(lifted.pose[:1, alone], lifted.rotation[:1, alone])
    assert_close(repaired(without, fewer, method=method).keypoints, found.keypoints[:1, alone])


@each_method
def test_nothing_is_repaired_without_anything_to_repair_it_by(method, noisy):
    views, lifted = noisy
    blind = replace(views, confidence=torch.zeros_like(views.confidence))
    single = Views(views.keypoints[:, :1], views.confidence[:, :1], views.rig)
    for given, truth in (
        (blind, lifted),
        (single, Lifted(lifted.pose[:, :1], lifted.rotation[:, :1])),
    ):
        found = repaired(given, truth, method=method)
        assert torch.equal(found.keypoints, given.keypoints)
        assert torch.equal(found.confidence, given.confidence)


@each_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("opposite", [False, True])
@pytest.mark.parametrize("options", [{}, CORRECTED])
def test_views_along_one_axis_say_nothing_of_each_other(method, dtype, opposite, options):
    """Equal views, up to a turn of the camera about its own axis, or opposite ones."""
    views, lifted = disturbed(*scene(8, 5))
    views.confidence[:, 0, 5] = 0.0
    rotation = lifted.rotation[:, :1].expand(-1, 5, -1, -1)
    if opposite:
        flip = torch.tensor([[1.0], [-1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)
        rotation = torch.stack([flip / flip, flip, flip], 1) * rotation
    spin = torch.zeros(8, 5, 3, dtype=torch.float64)
    spin[..., 2] = random(8, 5)
    rotation = (from_axis_angle(spin) @ rotation).to(dtype).requires_grad_()
    given = views.to(dtype)
    found = repaired(given, Lifted(lifted.pose.to(dtype), rotation), method=method, **options)
    assert torch.equal(found.keypoints, given.keypoints)
    assert torch.equal(found.confidence, given.confidence)


@each_method
@pytest.mark.parametrize("angle", [1e-8, 1e-4, 0.02])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_views_along_almost_one_axis_keep_all_finite(method, angle, dtype):
    views, lifted = disturbed(*scene(8, 4))
    views = hidden(views, 0.2).to(dtype)
    same = Lifted(lifted.pose, lifted.rotation[:, :1].expand(-1, 4, -1, -1))
    rotation = turned(same, angle).rotation.to(dtype).requires_grad_()
    found = repaired(views, Lifted(lifted.pose.to(dtype), rotation), method=method)
    assert found.keypoints.isfinite().all()
    assert found.confidence.isfinite().all()
    if found.keypoints.requires_grad:
        frame_losses.refinement(views, found).backward()
        assert rotation.grad.isfinite().all()


# Repair


@each_method
def test_an_unsure_wrong_joint_is_repaired(method):
    views, truth = scene(6, 4)
    size = norm(views.keypoints, views.observed)
    hit = uniform(*views.confidence.shape, seed=3) < 0.1
    hit[:, :, NEVER] = False
    away = torch.nn.functional.normalize(random(6, 4, 17, 2, seed=8), dim=-1)
    wrong = replace(
        views,
        keypoints=views.keypoints + hit[..., None] * 0.12 * size * away,
        confidence=torch.where(hit, 0.3, views.confidence),
    )
    found = repaired(wrong, truth, method=method, scale_ratio=True)

    def errors(of):
        return ((of.keypoints - views.keypoints) / size).norm(dim=-1)[hit]

    assert errors(found).mean() < 0.4 * errors(wrong).mean()
    assert (errors(found) < errors(wrong)).double().mean() > 0.9


@each_method
def test_the_surer_of_two_contradicting_views_wins(method):
    """On an exact scene a wrong weighting of the views would pass."""
    views, truth = scene(20, 4)
    wrist = H36M17.index("l_wrist")
    size = norm(views.keypoints, views.observed)
    wrong = views.keypoints.clone()
    wrong[:, 3, wrist] += 0.2 * size[:, 3, 0]
    errors = []
    for sure in (0.1, 1.0):
        confidence = views.confidence.clone()
        confidence[:, 0, wrist], confidence[:, 3, wrist] = 0.05, sure
        given = replace(views, keypoints=wrong, confidence=confidence)
        found = repaired(given, truth, method=method, scale_ratio=True)
        errors.append(((found.keypoints - views.keypoints) / size)[:, 0, wrist].norm(dim=-1))
    assert errors[0].mean() < 0.7 * errors[1].mean()


@each_map_method
def test_minimising_refinement_alone_turns_rotations_toward_the_truth(method):
    views, truth = scene(4, 3)
    views = replace(views, confidence=0.3 + 0.4 * uniform(*views.confidence.shape))
    start = turned(truth, 0.15)
    config = FusionConfig(method=method, scale_ratio=True, never=())
    vector = torch.zeros(4, 3, 3, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.Adam([vector], lr=0.01)
    for _ in range(30):
        lifted = Lifted(truth.pose, from_axis_angle(vector) @ start.rotation)
        loss = frame_losses.refinement(views, fuse(views, lifted, config, H36M17))
        descent.zero_grad()
        loss.backward()
        descent.step()

    def relative(rotation):
        return torch.einsum("bmrk,bnck->bmnrc", rotation, rotation)

    before, after = (
        (relative(r.rotation.detach()) - relative(truth.rotation)).norm() for r in (start, lifted)
    )
    assert after < 0.6 * before


# The map of Eq. 2


def drawn_map(views, lifted, where, config):
    """Eq. 2 for one joint, cell by cell: values (resolution, resolution) and cell centres."""
    i, m, j = where.tolist()
    points = normalised(views)[i].numpy()
    rotation, confidence = lifted.rotation[i].numpy(), views.confidence[i].numpy()
    centres = (np.arange(config.resolution) + 0.5) / config.resolution * 2 - 1
    centres = centres * config.extent
    value = np.zeros((config.resolution, config.resolution))
    for a, x in enumerate(centres):
        for b, y in enumerate(centres):
            cell = np.array([x, y])
            away = np.linalg.norm(cell - points[m, j])
            value[a, b] = confidence[m, j] * np.exp(-(away**2) / (2 * config.joint_sigma**2))
            for n in set(range(len(points))) - {m}:
                # The line is what view m sees of the ray of view n.
                scale = 1.0
                if config.scale_ratio:
                    pose = lifted.pose[i, n].numpy()
                    scale = np.linalg.norm((pose @ rotation[n].T)[:, :2]) / np.linalg.norm(
                        (pose @ rotation[m].T)[:, :2]
                    )
                ray = [np.append(scale * points[n, j], depth) for depth in (0.0, 1.0)]
                start, end = (rotation[m] @ rotation[n].T @ p for p in ray)
                start, along = start[:2], end[:2] - start[:2]
                sine = np.linalg.norm(along)
                across = abs(np.cross(np.append(along, 0), np.append(cell - start, 0))[2]) / sine
                height = confidence[n, j]
                if config.angle_weight:
                    height = height * sine * (sine > config.smallest_sine)
                value[a, b] += height * np.exp(-(across**2) / (2 * config.line_sigma**2))
    return value, centres


@pytest.mark.parametrize("options", [{}, CORRECTED])
def test_the_grid_finds_the_cell_that_a_loop_over_eq_2_finds(options):
    views, lifted = disturbed(*scene(2, 3))
    config = FusionConfig(resolution=24, joint_sigma=0.07, line_sigma=0.05, **options)
    where = to_repair(views, lifted, config, H36M17)[::12]
    maps = joint_maps(views, lifted, where, config)
    peaks = grid_peaks(maps, config)
    cell = 2 * config.extent / config.resolution
    for k in range(len(where)):
        value, centres = drawn_map(views, lifted, where[k], config)
        grid = torch.cartesian_prod(*2 * [torch.from_numpy(centres)])
        assert_close(
            maps.pick(slice(k, k + 1)).at(grid[None], config)[0], torch.from_numpy(value.ravel())
        )
        best = grid[value.argmax()]
        assert (peaks[k] - best).abs().max() <= cell * (1 + 1e-9)
        if best.abs().max() < config.extent - cell:
            assert (
                maps.pick(slice(k, k + 1)).at(peaks[None, k : k + 1], config) >= value.max() - 1e-3
            )


@each_map_method
@pytest.mark.parametrize("options", [{}, CORRECTED])
def test_a_peak_does_not_depend_on_lines_that_do_not_count(method, options):
    """Where a view has nothing to say, its line has height 0 and may lie anywhere."""
    views, lifted = disturbed(*scene(4, 4))
    config = FusionConfig(**options)
    maps = joint_maps(views, lifted, to_repair(views, lifted, config, H36M17), config)
    nothing = maps.line_height == 0
    assert 0.2 < nothing.double().mean() < 0.6
    elsewhere = maps._replace(
        normal=torch.where(nothing[..., None], torch.tensor([0.6, 0.8]).double(), maps.normal),
        offset=torch.where(nothing, 0.1, maps.offset),
    )
    found, expected = (
        maps.at(PEAKS[method](m, config)[:, None], config) for m in (elsewhere, maps)
    )
    assert_close(found, expected, atol=0, rtol=1e-6)


@each_map_method
def test_gradient_of_a_peak(method, monkeypatch):
    # As level as float64 can be; by default a few flat peaks are left early.
    monkeypatch.setattr(ridges, "SCHEDULE", (ridges.Stage(float("inf"), 40, 0.95),))
    views, lifted = disturbed(*scene(2, 3))
    config = FusionConfig(method=method)
    where = to_repair(views, lifted, config, H36M17)[::5]
    maps = [part.requires_grad_() for part in joint_maps(views, lifted, where, config)]
    assert gradcheck(
        lambda *parts: PEAKS[method](Maps(*parts), config), maps, atol=1e-4, fast_mode=True
    )


def test_the_gradient_of_exact_peaks_is_right_at_most_joints_as_configured():
    views, lifted = disturbed(*scene(4, 4))
    config = FusionConfig(method="exact")
    maps = joint_maps(views, lifted, to_repair(views, lifted, config, H36M17), config)
    way = [random(*part.shape, seed=i) for i, part in enumerate(maps)]
    step = 1e-6

    def along(sign):
        moved = [part + sign * step * w for part, w in zip(maps, way, strict=True)]
        return exact_peaks(Maps(*moved), config)

    _, found = torch.autograd.functional.jvp(
        lambda *parts: exact_peaks(Maps(*parts), config), tuple(maps), tuple(way)
    )
    gap = (found - (along(1) - along(-1)) / (2 * step)).norm(dim=-1)
    assert (gap < 0.05 * found.norm(dim=-1)).double().mean() > 0.95


@each_map_method
def test_gradient_of_repair_with_respect_to_detections_and_rotations(method, monkeypatch):
    monkeypatch.setattr(ridges, "SCHEDULE", (ridges.Stage(float("inf"), 40, 0.95),))
    views, lifted = disturbed(*scene(1, 3))

    def repair(keypoints, confidence, rotation):
        given = Views(keypoints, confidence, views.rig)
        return repaired(given, Lifted(lifted.pose, rotation), method=method).keypoints / 100

    inputs = [views.keypoints / 100, views.confidence, lifted.rotation]
    inputs = [part.clone().requires_grad_() for part in inputs]
    assert gradcheck(lambda k, c, r: repair(100 * k, c, r), inputs, atol=1e-3, fast_mode=True)


def test_triangulation_carries_a_gradient_to_the_rotations(noisy):
    views, lifted = noisy
    rotation = lifted.rotation.clone().requires_grad_()
    found = repaired(views, Lifted(lifted.pose, rotation), method="triangulate")
    frame_losses.refinement(views, found).backward()
    assert (rotation.grad.abs().amax((-2, -1)) > 0).all()
    assert rotation.grad.isfinite().all()


# Options


def everywhere(views):
    return views.observed.nonzero()


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_scale_ratio_draws_lines_through_the_true_points(share):
    """Trap 2: views of norm 1 do not have one scale."""
    views, truth = scene(6, 4)
    views = hidden(views, share)
    miss = {}
    for ratio in (False, True):
        maps = joint_maps(views, truth, everywhere(views), FusionConfig(scale_ratio=ratio))
        gap = torch.einsum("kc,kvc->kv", maps.joint, maps.normal) - maps.offset
        miss[ratio] = gap.abs()[maps.line_height > 0].mean()
    assert miss[True] < 1e-12
    assert miss[False] > 0.01


@pytest.mark.parametrize("smallest", [0.1, 0.5])
def test_angle_weight_weighs_lines_by_the_sine_and_drops_small_ones(smallest, noisy):
    views, lifted = noisy
    where = everywhere(views)
    config = FusionConfig(angle_weight=True, smallest_sine=smallest)
    height = joint_maps(views, lifted, where, config).line_height
    plain = joint_maps(views, lifted, where, FusionConfig()).line_height
    axis = lifted.rotation[:, :, 2]
    sine = (1 - torch.einsum("bnc,bmc->bnm", axis, axis).square()).clamp_min(0).sqrt()
    sample, view, joint = where.unbind(-1)
    sine = sine[sample, view]
    own = torch.arange(4) == view[:, None]
    confidence = views.confidence[sample, :, joint].masked_fill(own, 0.0)
    assert_close(plain, confidence)
    assert_close(height, confidence * sine * (sine > smallest), atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("setting", "what"),
    [({"method": "cells"}, "grid, exact, triangulate"), ({"line_sigma": 0.0}, "line_sigma"),
     ({"extent": -1.0}, "extent"), ({"resolution": 0}, "resolution")],
)  # fmt: skip
def test_refuses_impossible_settings(setting, what):
    with pytest.raises(ValueError, match=what):
        FusionConfig(**setting)


@each_map_method
def test_a_joint_stays_where_its_map_is_highest_on_the_border(method):
    """All lines of an unseen joint cross where it is: with a small extent, beyond the border."""
    views, truth = scene(6, 4)
    elbow = H36M17.index("l_elbow")
    views.confidence[:, 0, elbow] = 0.0
    place = (views.keypoints / norm(views.keypoints, views.observed))[:, 0, elbow]
    for i, size in enumerate(place.abs().amax(-1).tolist()):
        for extent, found in ((0.9 * size, False), (1.1 * size, True)):
            config = FusionConfig(method=method, scale_ratio=True, never=(), extent=extent)
            given = views[i : i + 1]
            fused = fuse(given, truth[i : i + 1], config, H36M17)
            assert fused.observed[0, 0, elbow] == found
            moved = (fused.keypoints != given.keypoints).any(-1)
            assert moved[0, 0, elbow] == found


def test_a_cell_of_the_border_is_the_border_to_the_grid():
    config = FusionConfig()
    cell = 2 * config.extent / config.resolution
    nothing = torch.zeros(2, 1, dtype=torch.float64)
    joint = torch.tensor([[0.5 - 0.7 * cell, 0.1], [0.5 - 1.5 * cell, 0.1]], dtype=torch.float64)
    maps = Maps(
        joint, nothing[:, 0] + 1, torch.stack([nothing + 1, nothing], -1), nothing, nothing
    )
    place = grid_peaks(maps, config)
    assert place[0, 0] == config.extent
    assert_close(place[1], joint[1], atol=1e-3, rtol=0)
    assert_close(exact_peaks(maps, config), joint)
