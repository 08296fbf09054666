"""All joints in every frame, for cameras whose turns and focal lengths are known by then."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from canonlift.body.skeleton import mirrored
from canonlift.data.solution import LIMBS
from canonlift.solver.body_prior import Tree, moving_mean
from canonlift.solver.bundle import (
    Basis,
    Detections,
    Priors,
    Solved,
    adjust,
    joint_covariance,
    robust_weights,
)
from canonlift.solver.observed import Observed, Windows, cut, place_cameras
from canonlift.solver.perspective import Cameras
from canonlift.solver.tracks import TOLERANCE, Track

FIRST, LAST = (2.2, 3), (1.0, 5)  # tolerance, relative to TOLERANCE, and steps
POSE_WEIGHT, NEARNESS_WEIGHT = 0.2, 0.1
MEAN_S = 0.12  # of the mean over neighbouring frames
# Detectors exchange left and right of these as a whole.
PARTS: Mapping[str, tuple[str, ...]] = {
    "legs": ("hip", "knee", "ankle", "heel", "bigtoe", "smalltoe"),
    "arms": ("shoulder", "elbow", "wrist", "hand", "pinky", "index", "thumb"),
}
# Mean cost of a limb's joints that an exchange must save, and its share that may be left.
SWAP_SAVES, SWAP_LEAVES = 0.2, 0.85
CAMERAS_TOO = 1.25  # factor on the variance of joints, as cameras are uncertain as well
OWN_EVIDENCE = 0.1  # of what is expected of a pose: most of it is the solution itself
OWN_SHARE = 0.3  # of an undoubted detection in the refined one
MOST_FRAMES = 4096  # worked on together


class Finished(NamedTuple):
    """What is found of T frames; lengths in the image in pixels."""

    pose: Float[Tensor, "T J 3"]
    covariance: Float[Tensor, "T J 3 3"]
    origin: Float[Tensor, "T V 2"]
    log_nearness: Float[Tensor, "T V"]
    refined: Float[Tensor, "T V J 2"]
    inlier: Float[Tensor, "T V J"]  # share of its confidence that a detection has kept
    swapped: Bool[Tensor, "T V L"]  # of which limbs left and right were exchanged


def finish(
    observed: Observed, tracked: Track, known: Sequence[int], joints: Sequence[str], fps: float
) -> Finished:
    """Solve for every joint; `known` are those of the track among `joints`."""
    skeleton = _Skeleton(
        tuple(known),
        tuple(index for index in range(len(joints)) if index not in known),
        Tree.of(joints, observed.keypoints),
        mirrored(joints),
        _limbs(joints, observed.keypoints.device),
    )
    width = 1 + 2 * max(1, round(MEAN_S * fps / 2))
    frames = torch.arange(len(observed.keypoints), device=observed.keypoints.device)
    parts = [
        _finish(observed, tracked, some, skeleton, width) for some in frames.split(MOST_FRAMES)
    ]
    return Finished(*(torch.cat(part) for part in zip(*parts, strict=True)))


class _Skeleton(NamedTuple):
    known: tuple[int, ...]
    others: tuple[int, ...]
    tree: Tree
    partner: tuple[int, ...]  # the same joint of the other side
    limbs: Bool[Tensor, "L J"]


def _limbs(joints: Sequence[str], device: torch.device) -> Bool[Tensor, "L J"]:
    rows = [
        [name[:2] in ("l_", "r_") and name[2:] in PARTS[limb] for name in joints] for limb in LIMBS
    ]
    return torch.tensor(rows, device=device)


def _finish(
    observed: Observed, tracked: Track, frames: Tensor, skeleton: _Skeleton, width: int
) -> Finished:
    windows = cut(observed, frames[None])
    windows = windows._replace(log_focal=tracked.log_focal[frames][None] - windows.size.log())
    state = _begin(windows, tracked, frames, skeleton)
    none = state.pose.new_zeros(len(frames), 0)
    basis, (factor, steps) = Basis(none, none), FIRST
    priors = _priors(state, skeleton.tree, width)
    state = adjust(state, windows.detections, priors, basis, TOLERANCE * factor, steps)
    detections, swapped = _unswapped(windows.detections, state, skeleton)
    factor, steps = LAST
    priors = _priors(state, skeleton.tree, width)
    state = adjust(state, detections, priors, basis, TOLERANCE * factor, steps)

    confidence = detections.confidence
    image = state.cameras.images(state.pose)
    square = (image - detections.points).square().sum(-1)
    weight = robust_weights(square, confidence, TOLERANCE)
    inlier = weight / confidence.clamp_min(1e-9)
    variance = _variance(square, weight, confidence)
    alone = priors._replace(pose_weight=OWN_EVIDENCE * POSE_WEIGHT)
    covariance = joint_covariance(state, detections, alone, TOLERANCE)
    refined = image + OWN_SHARE * inlier[..., None] * (detections.points - image)
    return Finished(
        state.pose[0],
        (CAMERAS_TOO * variance[:, None, None] * covariance)[0],
        (state.cameras.origin * windows.size[..., None])[0],
        state.cameras.log_nearness[0],
        (refined * windows.size[..., None, None])[0],
        inlier[0],
        swapped[0],
    )


def _begin(windows: Windows, tracked: Track, frames: Tensor, skeleton: _Skeleton) -> Solved:
    """The track's cameras and joints, and all other joints where their rays meet."""
    points, confidence = windows.detections
    known, others = list(skeleton.known), list(skeleton.others)
    body, rotation = tracked.pose[frames][None], tracked.rotation[frames][None]
    seen = Detections(points[..., known, :], confidence[..., known])
    cameras = place_cameras(windows._replace(detections=seen), body, rotation)
    cameras = cameras._replace(log_nearness=tracked.log_nearness[frames][None])
    pose = body.new_zeros(*body.shape[:2], confidence.shape[-1], 3)
    pose[..., known, :] = body
    if others:
        of_others = Detections(points[..., others, :], confidence[..., others])
        pose[..., others, :] = _by_rays(of_others, cameras)
    return Solved.begin(pose, cameras)


def _by_rays(detections: Detections, cameras: Cameras) -> Float[Tensor, "N T J 3"]:
    """Where the rays of joints come nearest to each other, without perspective."""
    points, confidence = detections
    scale = (cameras.log_focal + cameras.log_nearness).exp()[..., None, None]
    points = (points - cameras.origin[..., None, :]) / scale
    axes = cameras.rotation[..., :2, :]
    normal = torch.einsum("ntvj,ntvrc,ntvrd->ntjcd", confidence, axes, axes)
    right = torch.einsum("ntvj,ntvrc,ntvjr->ntjc", confidence, axes, points)
    eye = torch.eye(3, dtype=points.dtype, device=points.device)
    return torch.linalg.solve_ex(normal + 0.01 * eye, right[..., None]).result[..., 0]


def _priors(state: Solved, tree: Tree, width: int) -> Priors:
    return Priors(
        pose=tree.with_steady_bones(moving_mean(state.pose, width)),
        pose_weight=POSE_WEIGHT,
        origin=state.cameras.origin,
        log_nearness=moving_mean(state.cameras.log_nearness, width),
        nearness_weight=NEARNESS_WEIGHT,
        log_focal=state.cameras.log_focal,
        focal_weight=0.0,
    )


def _unswapped(
    detections: Detections, state: Solved, skeleton: _Skeleton
) -> tuple[Detections, Bool[Tensor, "N T V L"]]:
    """Detections with left and right of limbs exchanged where that fits the other views."""
    image = state.cameras.images(state.pose)
    partner = list(skeleton.partner)
    other = Detections(detections.points[..., partner, :], detections.confidence[..., partner])

    def cost(given: Detections) -> Float[Tensor, "N T V L"]:
        square = (given.points - image).square().sum(-1) / TOLERANCE**2
        limbs = skeleton.limbs.to(square.dtype).mT
        total = (given.confidence * square.log1p()) @ limbs
        return total / (given.confidence @ limbs).clamp_min(1e-6)

    before, after = cost(detections), cost(other)
    swapped = (before - after > SWAP_SAVES) & (after < SWAP_LEAVES * before)
    where = (swapped[..., None] & skeleton.limbs).any(-2)
    points = torch.where(where[..., None], other.points, detections.points)
    return Detections(points, torch.where(where, other.confidence, detections.confidence)), swapped


def _variance(
    square: Tensor, weight: Tensor, confidence: Float[Tensor, "N T V J"]
) -> Float[Tensor, " J"]:
    """Variance of a detection of confidence 1, of each joint.

    From the weighted residuals, of which those of V views have 2 V - 3 degrees of freedom.
    """
    free = (2 * (confidence > 0).sum(2) - 3).clamp_min(0)
    share = weight.sum(2) / confidence.sum(2).clamp_min(1e-9)
    count = (free * share * confidence.mean(2)).sum((0, 1))
    return (weight * square).sum((0, 1, 2)) / count.clamp_min(1e-9)
