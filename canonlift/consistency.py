"""What holds the views of a window together: one similarity per pair of views and segment.

Ingwersen et al., "Two Views Are Better than One", Eqs. 1-4. A segment is the whole window where
cameras stand still and a single frame where they move; in between are stretches, which overlap by
half, over which a slowly panning camera hardly turns against the others.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from canonlift import parallel
from canonlift.geometry.alignment import align_both_ways, procrustes
from canonlift.geometry.scale import SMALLEST_NORM
from canonlift.types import Motion, Windows


class Side(NamedTuple):
    """One view of every pair, moved onto the other."""

    moved: Float[Tensor, "B P S N 3"]  # joints of all frames of a segment
    onto: Float[Tensor, "B P S N 3"]
    rotation: Float[Tensor, "B P S 3 3"]
    unit: Float[Tensor, "B P 1 1"]  # size of what was seen in the view moved onto
    size: Float[Tensor, "B P 1 1"]  # and of what is predicted there, in the image


class Alignment(NamedTuple):
    """All unordered pairs of views, in every segment, moved onto each other both ways."""

    frames: Int[Tensor, "S L"]  # of each segment
    pairs: Int[Tensor, "2 P"]
    weight: Float[Tensor, "B P S N"]  # product of both confidences; 0 where nothing can be aligned
    there: Side  # the first view of a pair onto the second
    back: Side
    degenerate: Bool[Tensor, "B P S"]  # something was observed in both, but too little to align


def segments(n_frames: int, length: int) -> Int[Tensor, "S L"]:
    """Frames of segments that overlap by half; the last ends with the last frame.

    A length of 0 is all frames.
    """
    length = min(length or n_frames, n_frames)
    first = torch.arange(0, n_frames - length + 1, max(1, length // 2))
    first = torch.cat([first, torch.tensor([n_frames - length])]).unique()
    return first[:, None] + torch.arange(length)


def align(motion: Motion, windows: Windows, segment: int) -> Alignment:
    """Align every pair of views in every segment of so many frames, by what both observed.

    The gradient goes through scale, rotation and translation (Eqs. 3 and 4). Where fewer than
    three joints of a segment were observed in both views, all its frames together, or one pose
    stands still in a point, there is no similarity, and the weight is 0.
    """
    n_views, n_frames = windows.confidence.shape[1:3]
    device = windows.confidence.device
    frames = segments(n_frames, segment).to(device)
    pairs = torch.triu_indices(n_views, n_views, offset=1, device=device)
    points = motion.in_camera[:, :, frames].flatten(3, 4)
    confidence = windows.confidence[:, :, frames].flatten(3, 4)
    first, second = points[:, pairs[0]], points[:, pairs[1]]
    weight = confidence[:, pairs[0]] * confidence[:, pairs[1]]
    there, back, exists = align_both_ways(first, second, weight)
    units = windows.unit[:, :, :, 0]
    sizes = replace(windows, keypoints=motion.in_camera[..., :2]).unit[:, :, :, 0]
    return Alignment(
        frames,
        pairs,
        weight * exists[..., None],
        Side(there(first), second, there.rotation, units[:, pairs[1]], sizes[:, pairs[1]]),
        Side(back(second), first, back.rotation, units[:, pairs[0]], sizes[:, pairs[0]]),
        (weight > 0).any(-1) & ~exists,
    )


def consistency(aligned: Alignment) -> Float[Tensor, ""]:
    """Mean distance of the poses of two views after alignment, as a share of their size (Eq. 2).

    Unlike printed, distances are divided by the size that the poses moved onto have in the image,
    so that making all poses smaller does not make the loss smaller. (Divided by their size in
    space it would fall when depths grow without end: the poses of all views become one rod.)
    Pairs weigh as much as was observed in both of their views.
    """
    return _mean_distance(aligned, [side.size for side in _sides(aligned)])


def consistency_as_printed(aligned: Alignment) -> Float[Tensor, ""]:
    """`consistency` in the unit of the input, whatever the size of the predictions (Eq. 2).

    Shrinking poses lowers it: a large weight makes points of them, as the authors warn.
    """
    return _mean_distance(aligned, [side.unit for side in _sides(aligned)])


def cross_image(windows: Windows, aligned: Alignment) -> Float[Tensor, ""]:
    """Distance, in the image of each view, of the poses of every other one moved onto it.

    Agreement alone is cheapest for a body that hardly moves: what one view cannot tell from its
    image it had better not say. Here the other side of a pair is what was seen, which does not
    come to meet it. Joints that a view did not see it has to guess, so the confidence is that of
    the other view alone. Not in the papers.
    """
    keypoints = windows.keypoints[:, :, aligned.frames].flatten(3, 4)
    confidence = windows.confidence[:, :, aligned.frames].flatten(3, 4)
    exists = (aligned.weight > 0).any(-1, keepdim=True)
    total, count = 0.0, 0.0
    for side, onto in zip(_sides(aligned), aligned.pairs.flip(0), strict=True):
        weight = confidence[:, onto] * exists
        gap = side.moved[..., :2] - keypoints[:, onto]
        distance = torch.linalg.vector_norm(gap, dim=-1) / side.unit
        total, count = total + (distance * weight).sum(), count + weight.sum()
    total, count = parallel.over_all(total, count)
    return total / count.clamp_min(SMALLEST_NORM)


def degenerate(aligned: Alignment) -> Float[Tensor, ""]:
    """Share of all pairs and segments that were left out although both views saw something."""
    lost = aligned.degenerate.sum()
    count = lost + (aligned.weight > 0).any(-1).sum()
    dtype = aligned.weight.dtype
    lost, count = parallel.over_all(lost.to(dtype), count.to(dtype))
    return lost / count.clamp_min(1.0)


def rotations(
    aligned: Alignment, n_views: int, n_frames: int, reference: Int[Tensor, " B"]
) -> Float[Tensor, "B V T 3 3"]:
    """Rotation of every view, at every frame, from the camera of one view of each sample.

    Where segments overlap it is their mean, in which a segment counts most in its middle. Views
    that cannot be aligned with the reference count as turned like it.
    """
    here, there = aligned.there.rotation, aligned.back.rotation
    eye = torch.eye(3, dtype=here.dtype, device=here.device)
    n_samples, _, n_segments = here.shape[:3]
    table = eye.repeat(n_samples, n_views, n_views, n_segments, 1, 1)
    first, second = aligned.pairs
    table[:, second, first], table[:, first, second] = here, there
    own = table[torch.arange(n_samples, device=here.device), :, reference]

    share = here.new_zeros(n_segments, n_frames)
    weight = triangle(aligned.frames.shape[1], here)
    share.scatter_(1, aligned.frames, weight.expand_as(aligned.frames))
    return procrustes(torch.einsum("bvsrc,st->bvtrc", own, share))


def triangle(length: int, like: Tensor) -> Float[Tensor, " length"]:
    """How much each frame of a window counts where windows overlap: most in the middle."""
    place = torch.arange(1, length + 1, dtype=like.dtype, device=like.device)
    return torch.minimum(place, length + 1 - place)


def _sides(aligned: Alignment) -> tuple[Side, Side]:
    return aligned.there, aligned.back


def _mean_distance(aligned: Alignment, units: list[Tensor]) -> Float[Tensor, ""]:
    gaps = [
        torch.linalg.vector_norm(side.moved - side.onto, dim=-1) / unit
        for side, unit in zip(_sides(aligned), units, strict=True)
    ]
    total, count = parallel.over_all((sum(gaps) * aligned.weight).sum(), 2 * aligned.weight.sum())
    return total / count.clamp_min(SMALLEST_NORM)
