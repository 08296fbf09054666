"""How the cameras of a recording are turned in every frame, and a first guess at the body.

A few frames per second determine that. Moving cameras are solved in overlapping windows, in which
their rotations are interpolated between knots; fixed ones at once, from pieces spread over the
recording.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from canonlift.geometry.rotations import nearest_rotation
from canonlift.solver.body_prior import Tree, moving_mean
from canonlift.solver.bundle import Basis, Priors, Solved, adjust
from canonlift.solver.observed import Observed, Windows, cut, place_cameras
from canonlift.solver.pose_library import look_up
from canonlift.time_windows import triangle_weights, window_frames

RATE_HZ = 5.0  # of the frames that are looked at
WINDOW_S = 6.0
KNOT_S = 1.0  # between knots of a moving camera's rotation
PIECES, PIECE = 24, 10  # of a fixed rig: so many pieces of so many frames
TOLERANCE = 0.08  # distance at which a detection counts half, in units of the view
# The tolerance, relative to its last value, and how many steps are taken with it.
ANNEALING = ((5.0, 3), (3.3, 3), (2.2, 3), (1.5, 3), (1.0, 6))
# Weights of what is expected, beside a detection of confidence 1.
POSE_WEIGHT = 0.1  # the mean over neighbouring frames, with bones of constant length
NEARNESS_WEIGHT = 0.01  # likewise
FOCAL_WEIGHT, GIVEN_FOCAL_WEIGHT = 0.003, 1e4  # of a camera in a window
TURN_WEIGHT = 1.0  # no turning from knot to knot


class Track(NamedTuple):
    """Cameras and a body in T frames, in one frame of reference and one size; pixels."""

    rotation: Float[Tensor, "T V 3 3"]
    origin: Float[Tensor, "T V 2"]
    log_nearness: Float[Tensor, "T V"]
    log_focal: Float[Tensor, "T V"]
    pose: Float[Tensor, "T J 3"]


def track(
    observed: Observed,
    joints: Sequence[str],
    fps: float,
    rig: bool,
    focal_known: bool = False,
    same_focal: bool = False,
    block: int = 64,
) -> Track:
    """Cameras of every frame; `block` windows are solved at a time."""
    n_frames = len(observed.keypoints)
    step = max(1, round(fps / RATE_HZ))
    keys = torch.arange(0, n_frames, step, device=observed.keypoints.device)
    frames, piece = rig_frames(keys) if rig else _window_frames(keys, fps / step)
    seconds = (frames.shape[1] - 1) * step / fps
    basis = Basis(
        _knots(frames.shape[1], 1 if rig else 1 + max(1, round(seconds / KNOT_S)), observed),
        observed.keypoints.new_ones(frames.shape[1], 1),
        same_focal,
    )
    focal_weight = (GIVEN_FOCAL_WEIGHT if focal_known else FOCAL_WEIGHT) / frames.shape[1]
    tree = Tree.of(joints, observed.keypoints)
    used = frames.unique()
    likenesses = look_up(observed.keypoints[used], observed.confidence[used], joints)
    parts = []
    for some in frames.split(block):
        windows = cut(observed, some)
        likeness = likenesses.of(torch.searchsorted(used, some))
        pose, rotation = likeness.start()
        rotation = rotation[:, None].expand(-1, some.shape[1], -1, -1, -1)
        start = Solved.begin(pose, place_cameras(windows, pose, rotation))
        solved = _settle(windows, start, basis, tree, focal_weight, piece)
        found = solved.cameras
        parts.append(
            Track(
                found.rotation,
                found.origin * windows.size[..., None],
                found.log_nearness,
                found.log_focal + windows.size.log(),
                solved.pose,
            )
        )
    together = Track(*(torch.cat(part) for part in zip(*parts, strict=True)))
    seen = (observed.confidence[frames] > 0).to(together.pose.dtype)
    if not rig:
        together = _in_one_frame(together, frames, (seen.sum(2) >= 2).to(seen.dtype))
    at_keys, key_of = _blended(together, frames, seen.mean(-1), flat=rig)
    return _interpolated(at_keys, key_of, n_frames)


def rig_frames(keys: Int[Tensor, " K"]) -> tuple[Int[Tensor, "1 W"], int]:
    """Frames of a fixed rig to look at, and how many in a row are near each other."""
    piece = min(PIECE, len(keys))
    pieces = window_frames(len(keys), piece, piece, device=keys.device)
    if len(pieces) > PIECES:
        pieces = pieces[torch.linspace(0, len(pieces) - 1, PIECES, device=keys.device).long()]
    return keys[pieces.flatten()][None], piece


def _window_frames(keys: Int[Tensor, " K"], rate: float) -> tuple[Int[Tensor, "N W"], int]:
    frames = window_frames(len(keys), max(4, round(WINDOW_S * rate)), device=keys.device)
    return keys[frames], frames.shape[1]


def _knots(n_frames: int, count: int, observed: Observed) -> Float[Tensor, "T K"]:
    """Weights of evenly spaced knots in each frame: linear interpolation."""
    like = observed.keypoints
    if count == 1:
        return like.new_ones(n_frames, 1)
    place = torch.linspace(0, count - 1, n_frames, dtype=like.dtype, device=like.device)
    knot = torch.arange(count, dtype=like.dtype, device=like.device)
    return (1 - (place[:, None] - knot).abs()).clamp_min(0)


def _settle(
    windows: Windows, state: Solved, basis: Basis, tree: Tree, focal_weight: float, piece: int
) -> Solved:
    """Adjust windows, with a tolerance that becomes smaller."""
    for factor, steps in ANNEALING:
        priors = Priors(
            pose=tree.with_steady_bones(moving_mean(state.pose, 3, piece)),
            pose_weight=POSE_WEIGHT,
            origin=state.cameras.origin,
            log_nearness=moving_mean(state.cameras.log_nearness, 3, piece),
            nearness_weight=NEARNESS_WEIGHT,
            log_focal=windows.log_focal,
            focal_weight=focal_weight,
            turn_weight=TURN_WEIGHT,
        )
        state = adjust(state, windows.detections, priors, basis, TOLERANCE * factor, steps)
    return state


def _in_one_frame(
    windows: Track, frames: Int[Tensor, "N W"], weight: Float[Tensor, "N W J"]
) -> Track:
    """Windows turned and scaled, each onto the one before it, by the poses that both have."""
    turn, scale = _chain(windows.pose.double(), frames, weight.double())
    turn, scale = turn.to(windows.pose.dtype), scale.to(windows.pose.dtype)
    return windows._replace(
        pose=scale[:, None, None, None] * (windows.pose @ turn[:, None].mT),
        rotation=windows.rotation @ turn.mT[:, None, None],
        log_nearness=windows.log_nearness - scale.log()[:, None, None],
    )


def _chain(
    pose: Float[Tensor, "N W J 3"], frames: Int[Tensor, "N W"], weight: Float[Tensor, "N W J"]
) -> tuple[Float[Tensor, "N 3 3"], Float[Tensor, " N"]]:
    eye = torch.eye(3, dtype=pose.dtype, device=pose.device)
    turns, scales = [eye], [pose.new_ones(())]
    length = frames.shape[1]
    for index, first in enumerate(frames[1:, :1].tolist(), 1):
        shift = int((frames[index - 1] < first[0]).sum())
        both = (weight[index - 1, shift:] * weight[index, : length - shift])[..., None]
        before, after = pose[index - 1, shift:], pose[index, : length - shift]
        product = torch.einsum("wjr,wjc->rc", both * before, after)
        turn = nearest_rotation(product)
        fit = (product * turn).sum() / (both * after.square()).sum().clamp_min(1e-9)
        turns.append(turns[-1] @ turn)
        scales.append(scales[-1] * torch.where(both.any(), fit, 1.0).clamp(0.5, 2.0))
    return torch.stack(turns), torch.stack(scales)


def _blended(
    windows: Track, frames: Int[Tensor, "N W"], seen: Float[Tensor, "N W V"], flat: bool
) -> tuple[Track, Int[Tensor, " K"]]:
    """Each key frame's mean over its windows, which count most in their middles."""
    share = triangle_weights(frames.shape[1], windows.pose, edge=0.5).expand(frames.shape)
    share = torch.ones_like(share) if flat else share
    # A view that a window did not see has its cameras from others, if there are any.
    of_view = share[..., None] * (seen.sum(1, keepdim=True) + 1e-6)
    keys, place = frames.flatten().unique(return_inverse=True)

    def mean(values: Tensor, weight: Tensor) -> Tensor:
        weight = weight.reshape(*weight.shape, *(1,) * (values.ndim - weight.ndim))
        sums = [
            x.new_zeros(len(keys), *x.shape[2:]).index_add(0, place, x.flatten(0, 1))
            for x in (weight * values, weight)
        ]
        return sums[0] / sums[1]

    blended = Track(
        mean(windows.rotation, of_view),
        mean(windows.origin, of_view),
        mean(windows.log_nearness, of_view),
        mean(windows.log_focal, of_view),
        mean(windows.pose, share),
    )
    return blended, keys


def _interpolated(at_keys: Track, keys: Int[Tensor, " K"], n_frames: int) -> Track:
    """The same in every frame, linearly between key frames."""
    every = torch.arange(n_frames, device=keys.device)
    after = torch.searchsorted(keys, every).clamp(min(1, len(keys) - 1), len(keys) - 1)
    before = (after - 1).clamp_min(0)
    share = (every - keys[before]) / (keys[after] - keys[before]).clamp_min(1)
    share = share.clamp(0, 1).to(at_keys.pose.dtype)

    def between(values: Tensor) -> Tensor:
        weight = share.view(-1, *(1,) * (values.ndim - 1))
        return torch.lerp(values[before], values[after], weight.expand_as(values[after]))

    found = Track(*(between(part) for part in at_keys))
    return found._replace(rotation=nearest_rotation(found.rotation))
