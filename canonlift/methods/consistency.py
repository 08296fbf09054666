"""Consistency of the views of a window: one similarity per pair of views and segment.

Ingwersen et al., "Two Views Are Better than One", Eqs. 1-4. A segment is the whole window where
cameras stand still and a single frame where they move; in between are stretches, which overlap by
half, over which a slowly panning camera hardly turns against the others.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from canonlift import distributed
from canonlift.geometry.alignment import align_both_ways
from canonlift.geometry.rotations import nearest_rotation
from canonlift.geometry.scale import SMALLEST_NORM
from canonlift.time_windows import triangle_weights, window_frames
from canonlift.types import Lifted, Views

POINT = 1e-6  # size of a pose, relative to its detections, below which it counts as a point


class Side(NamedTuple):
    """One view of every pair, moved onto the other."""

    moved: Float[Tensor, "B P S N 3"]  # joints of all frames of a segment
    onto: Float[Tensor, "B P S N 3"]
    rotation: Float[Tensor, "B P S 3 3"]
    unit: Float[Tensor, "B P 1 1"]  # size of the detections in the view moved onto
    size: Float[Tensor, "B P 1 1"]  # and of the pose predicted there, in the image


class Alignment(NamedTuple):
    """All unordered pairs of views, in every segment, moved onto each other both ways."""

    frames: Int[Tensor, "S L"]  # of each segment
    pairs: Int[Tensor, "2 P"]
    weight: Float[Tensor, "B P S N"]  # product of both confidences; 0 where nothing can be aligned
    there: Side  # the first view of a pair onto the second
    back: Side
    degenerate: Bool[Tensor, "B P S"]  # observed in both views, but too little to align


def align(lifted: Lifted, views: Views, segment: int) -> Alignment:
    """Align every pair of views in every segment of frames, by the joints that both observed.

    A segment of 0 is the whole window.

    The gradient goes through scale, rotation and translation (Eqs. 3 and 4). Where fewer than
    three joints were observed in both views of a segment, or a pose has shrunk to a point, there
    is no similarity, and the weight is 0.
    """
    n_views, n_frames = views.confidence.shape[1:3]
    device = views.confidence.device
    frames = window_frames(n_frames, segment or n_frames, device=device)
    pairs = torch.triu_indices(n_views, n_views, offset=1, device=device)
    points = lifted.in_camera[:, :, frames]
    confidence = views.confidence[:, :, frames]
    weight = confidence[:, pairs[0]] * confidence[:, pairs[1]]
    joints = (weight > 0).any(-2).sum(-1)
    units = views.unit[:, :, :, 0]
    point = points.detach().abs().amax((3, 4, 5)) < POINT * units[..., 0]
    enough = (joints >= 3) & ~(point[:, pairs[0]] | point[:, pairs[1]])
    first, second = (points[:, side].flatten(3, 4) for side in pairs)
    seen = (weight > 0).any(-1).any(-1)
    weight = (weight * enough[..., None, None]).flatten(3, 4)
    there, back, exists = align_both_ways(first, second, weight)
    sizes = replace(views, keypoints=lifted.in_camera[..., :2]).unit[:, :, :, 0]
    return Alignment(
        frames,
        pairs,
        weight * exists[..., None],
        Side(there(first), second, there.rotation, units[:, pairs[1]], sizes[:, pairs[1]]),
        Side(back(second), first, back.rotation, units[:, pairs[0]], sizes[:, pairs[0]]),
        seen & ~exists,
    )


def consistency(aligned: Alignment) -> Float[Tensor, ""]:
    """Mean distance of the poses of two views after alignment, as a share of their size (Eq. 2).

    Unlike printed, distances are divided by the size that the poses moved onto have in the image,
    so that making all poses smaller does not make the loss smaller. (Divided by their size in
    space it would fall when depths grow without end.) Two optima without a body are left: one
    that never moves, and the rod along the axis of its camera that every view can agree on; see
    `other_views`. Pairs weigh as much as was observed in both of their views.
    """
    return _mean_distance(aligned, [side.size for side in _sides(aligned)])


def consistency_as_printed(aligned: Alignment) -> Float[Tensor, ""]:
    """`consistency` in the unit of the input, whatever the size of the predictions (Eq. 2).

    Shrinking poses lowers it: a large weight makes points of them, as the authors warn.
    """
    return _mean_distance(aligned, [side.unit for side in _sides(aligned)])


def other_views(views: Views, aligned: Alignment) -> Float[Tensor, ""]:
    """Distance, in the image of each view, of the poses of every other one moved onto it.

    `consistency` alone is lowest for a body that hardly moves, since both sides of a pair are
    predictions and can approach each other. Here one side is the detections, which are fixed.
    Only the confidence of the view moved onto counts: joints unobserved in the view that is moved
    have to be predicted. Not in the papers.
    """
    keypoints = views.keypoints[:, :, aligned.frames].flatten(3, 4)
    confidence = views.confidence[:, :, aligned.frames].flatten(3, 4)
    exists = (aligned.weight > 0).any(-1, keepdim=True)
    total = count = aligned.weight.new_zeros(())
    for side, onto in zip(_sides(aligned), aligned.pairs.flip(0), strict=True):
        weight = confidence[:, onto] * exists
        gap = side.moved[..., :2] - keypoints[:, onto]
        distance = torch.linalg.vector_norm(gap, dim=-1) / side.unit
        total, count = total + (distance * weight).sum(), count + weight.sum()
    total, count = distributed.over_all(total, count)
    return total / count.clamp_min(SMALLEST_NORM)


def degenerate(aligned: Alignment) -> Float[Tensor, ""]:
    """Share of pairs and segments that cannot be aligned although both views have detections."""
    lost = aligned.degenerate.sum()
    count = lost + (aligned.weight > 0).any(-1).sum()
    dtype = aligned.weight.dtype
    lost, count = distributed.over_all(lost.to(dtype), count.to(dtype))
    return lost / count.clamp_min(1.0)


def relations(aligned: Alignment, n_views: int) -> Float[Tensor, "B V V S 3 3"]:
    """Rotation of each view (first V) from each other (second); 0 where they were not aligned."""
    first, second = aligned.pairs
    exists = (aligned.weight > 0).any(-1)[..., None, None]
    here, there = aligned.there.rotation * exists, aligned.back.rotation * exists
    n_samples, _, n_segments = here.shape[:3]
    eye = torch.eye(3, dtype=here.dtype, device=here.device)
    views = torch.eye(n_views, dtype=here.dtype, device=here.device)
    table = torch.einsum("uv,rc->uvrc", views, eye)[None, :, :, None]
    table = table.repeat(n_samples, 1, 1, n_segments, 1, 1)
    table[:, second, first], table[:, first, second] = here, there
    return table


def chained(
    table: Float[Tensor, "*batch V V 3 3"], weight: Float[Tensor, "*batch V"]
) -> Float[Tensor, "*batch V 3 3"]:
    """Rotations of all views from one, of sums of relative ones in which 0 is unknown.

    That one is the view with the greatest weight of all that are aligned with another. A view
    that is not aligned with it is reached through those that are. Views that no chain reaches get
    its rotation.
    """
    size = torch.linalg.vector_norm(table.detach(), dim=(-2, -1))
    known = size > 0
    table = table / size.clamp_min(SMALLEST_NORM)[..., None, None]
    linked = known.sum(-1) > 1  # not with itself alone
    reference = ((1 + weight) * linked).argmax(-1, keepdim=True)[..., None]
    found = table.take_along_dim(reference[..., None, None], -3).squeeze(-3)
    reached = known.take_along_dim(reference, -1)
    for _ in range(table.shape[-3] - 2):  # one view further along all chains; six of 8 views
        further = torch.einsum("...uvrc,...vcd->...urd", table, found * reached[..., None])
        found = torch.where(reached[..., None], found, further)
        reached = reached | (known & reached.mT).any(-1, keepdim=True)
    eye = torch.eye(3, dtype=table.dtype, device=table.device)
    return nearest_rotation(torch.where(reached[..., None], found, eye))


def rotations(
    aligned: Alignment, confidence: Float[Tensor, "B V T"]
) -> Float[Tensor, "B V T 3 3"]:
    """Rotation of every view, at every frame, from the camera of one view of that frame.

    It is that of the greatest confidence in all frames, where that is aligned with any other
    (see `chained`). Where segments overlap a rotation is their mean, in which a segment counts
    most in its middle.
    """
    n_views, n_frames = confidence.shape[1:]
    table = relations(aligned, n_views)
    share = table.new_zeros(table.shape[3], n_frames)
    weight = triangle_weights(aligned.frames.shape[1], table)
    share.scatter_(1, aligned.frames, weight.expand_as(aligned.frames))
    by_frame = torch.einsum("buvsrc,st->btuvrc", table, share)
    observed = confidence.sum(2)[:, None].expand(-1, n_frames, -1)
    return chained(by_frame, observed).transpose(1, 2)


def _sides(aligned: Alignment) -> tuple[Side, Side]:
    return aligned.there, aligned.back


def _mean_distance(aligned: Alignment, units: list[Tensor]) -> Float[Tensor, ""]:
    gaps = [
        torch.linalg.vector_norm(side.moved - side.onto, dim=-1) / unit
        for side, unit in zip(_sides(aligned), units, strict=True)
    ]
    total, count = distributed.over_all(
        (sum(gaps) * aligned.weight).sum(), 2 * aligned.weight.sum()
    )
    return total / count.clamp_min(SMALLEST_NORM)
