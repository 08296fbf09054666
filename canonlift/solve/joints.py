"""All joints in every frame, for cameras whose turns and focal lengths are known by then."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from canonlift.body.skeleton import mirrored
from canonlift.solve.body_prior import Tree, moving_mean
from canonlift.solve.bundle import (
    Basis,
    Detections,
    Priors,
    Solved,
    adjust,
    joint_covariance,
    robust_weights,
)
from canonlift.solve.observed import Observed, Windows, cut, place_cameras
from canonlift.solve.tracks import TOLERANCE, Track

FIRST, LAST = (2.2, 3), (1.0, 5)  # tolerance, relative to TOLERANCE, and steps
POSE_WEIGHT, NEARNESS_WEIGHT = 0.2, 0.1
MEAN_S = 0.12  # of the mean over neighbouring frames
# Limbs whose labels detectors exchange as a whole.
LIMBS = {
    "legs": ("hip", "knee", "ankle", "heel", "bigtoe", "smalltoe"),
    "arms": ("shoulder", "elbow", "wrist", "hand", "pinky", "index", "thumb"),
}
SWAP_GAIN, SWAP_LEFT = 0.7, 0.5  # cost that an exchange must save, and may leave, per joint
MOST_FRAMES = 4096  # worked on together


class Finished(NamedTuple):
    """What is found of T frames; places and lengths in the image in pixels."""

    pose: Float[Tensor, "T J 3"]
    covariance: Float[Tensor, "T J 3 3"]
    origin: Float[Tensor, "T V 2"]
    log_nearness: Float[Tensor, "T V"]
    image: Float[Tensor, "T V J 2"]
    weight: Float[Tensor, "T V J"]  # share of its confidence that a detection has kept
    swapped: Bool[Tensor, "T V L"]  # of which limbs left and right were exchanged


def finish(
    observed: Observed, tracked: Track, known: list[int], joints: Sequence[str], fps: float
) -> Finished:
    """Solve for every joint; `known` are those of the track among `joints`."""
    tree = Tree.of(joints, observed.keypoints)
    width = 1 + 2 * max(1, round(MEAN_S * fps / 2))
    frames = torch.arange(len(observed.keypoints), device=observed.keypoints.device)
    parts = [
        _finish(observed, tracked, frames[some], known, joints, tree, width)
        for some in frames.split(MOST_FRAMES)
    ]
    return Finished(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _finish(observed, tracked, frames, known, joints, tree, width) -> Finished:
    windows = cut(observed, frames[None])
    windows = windows._replace(log_focal=tracked.log_focal[frames][None] - windows.size.log())
    body, rotation = tracked.pose[frames][None], tracked.rotation[frames][None]
    seen = Detections(
        windows.detections.points[..., known, :], windows.detections.confidence[..., known]
    )
    cameras = place_cameras(windows._replace(detections=seen), body, rotation)
    cameras = cameras._replace(log_nearness=tracked.log_nearness[frames][None])
    pose = body.new_zeros(1, len(frames), len(joints), 3)
    pose[..., known, :] = body
    rest = [index for index in range(len(joints)) if index not in known]
    if rest:
        pose[..., rest, :] = _by_rays(windows, cameras, rest)
    basis = Basis(pose.new_zeros(len(frames), 0), pose.new_zeros(len(frames), 0))
    state = Solved.begin(pose, cameras)
    swapped = torch.zeros(*windows.log_focal.shape[1:], len(LIMBS), dtype=torch.bool)
    for factor, steps in (FIRST, LAST):
        priors = _priors(state, tree, width, windows)
        state = adjust(state, windows.detections, priors, basis, TOLERANCE * factor, steps)
        if factor != 1.0:
            windows, swapped = _unswapped(windows, state, joints)
    image = state.cameras.images(state.pose)
    square = (image - windows.detections.points).square().sum(-1)
    weight = robust_weights(square, windows.detections.confidence, TOLERANCE)
    variance = (weight * square).sum((0, 1, 2)) / weight.sum((0, 1, 2)).clamp_min(1e-9)
    covariance = joint_covariance(state, windows.detections, priors, TOLERANCE)[0]
    return Finished(
        state.pose[0],
        covariance * variance[:, None, None],
        (state.cameras.origin * windows.size[..., None])[0],
        state.cameras.log_nearness[0],
        (image * windows.size[..., None, None])[0],
        (weight / windows.detections.confidence.clamp_min(1e-9))[0],
        swapped,
    )


def _priors(state: Solved, tree: Tree, width: int, windows: Windows) -> Priors:
    return Priors(
        pose=tree.with_steady_bones(moving_mean(state.pose, width)),
        pose_weight=POSE_WEIGHT,
        origin=state.cameras.origin,
        log_nearness=moving_mean(state.cameras.log_nearness, width),
        nearness_weight=NEARNESS_WEIGHT,
        log_focal=windows.log_focal,
        focal_weight=0.0,
    )


def _by_rays(windows: Windows, cameras, joints: list[int]) -> Float[Tensor, "N T J 3"]:
    """Where the rays of joints come nearest to each other, without perspective."""
    scale = (cameras.log_focal + cameras.log_nearness).exp()
    points = windows.detections.points[..., joints, :] - cameras.origin[..., None, :]
    points = points / scale[..., None, None]
    weight = windows.detections.confidence[..., joints]
    axes = cameras.rotation[..., :2, :]
    normal = torch.einsum("ntvj,ntvrc,ntvrd->ntjcd", weight, axes, axes)
    right = torch.einsum("ntvj,ntvrc,ntvjr->ntjc", weight, axes, points)
    eye = torch.eye(3, dtype=points.dtype, device=points.device)
    return torch.linalg.solve_ex(normal + 1e-2 * eye, right[..., None]).result[..., 0]


def _unswapped(
    windows: Windows, state: Solved, joints: Sequence[str]
) -> tuple[Windows, Bool[Tensor, "T V L"]]:
    """Detections with left and right exchanged where the other views say that they were."""
    points, confidence = windows.detections
    image = state.cameras.images(state.pose)
    partner = list(mirrored(joints))

    def cost(points: Tensor, confidence: Tensor) -> Tensor:
        square = (points - image).square().sum(-1) / TOLERANCE**2
        return confidence * square.log1p()

    other_points, other_confidence = points[..., partner, :], confidence[..., partner]
    now, then = cost(points, confidence), cost(other_points, other_confidence)
    found = []
    for parts in LIMBS.values():
        limb = [i for i, name in enumerate(joints) if name[:2] in ("l_", "r_") and name[2:] in parts]
        total = confidence[..., limb].sum(-1).clamp_min(1e-6)
        before, after = now[..., limb].sum(-1) / total, then[..., limb].sum(-1) / total
        swap = (before - after > SWAP_GAIN) & (after < SWAP_LEFT * before)
        found.append(swap)
        mask = torch.zeros(len(joints), dtype=torch.bool, device=points.device)
        mask[limb] = True
        where = swap[..., None] & mask
        points = torch.where(where[..., None], other_points, points)
        confidence = torch.where(where, other_confidence, confidence)
    return windows._replace(detections=Detections(points, confidence)), torch.stack(found, -1)[0]
