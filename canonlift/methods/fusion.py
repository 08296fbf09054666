"""Cross-view self-fusion: repair a detection by those of the other views (CVSF, Sec. 3.3).

The map of a joint is a Gaussian where it was detected plus, for every other view, a ridge along
the epipolar line of that view's detection; each is as high as its confidence (Eq. 2).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from canonlift.geometry.epipolar import epipolar_normals
from canonlift.geometry.ridges import Ridges, Widths, highest_points, newton_step
from canonlift.geometry.scale import norm
from canonlift.methods.triangulation import Observations, triangulate
from canonlift.suggestions import unknown
from canonlift.types import Lifted, Views


@dataclass(frozen=True)
class FusionConfig:
    """How detections are repaired. Lengths are in units of the pose's norm (about 1.9 m)."""

    method: str = "grid"  # row of METHODS
    resolution: int = 64  # cells of the map's side
    extent: float = 0.5  # the map covers [-extent, extent]; joints outside stay as they are
    joint_sigma: float = 3 / 64  # the released code of CVSF: 3 cells
    line_sigma: float = 2 / 64  # and 2 cells
    threshold: float = 0.85  # only joints with less confidence are repaired
    never: tuple[str, ...] = ("pelvis", "thorax", "nose", "head")  # nor ever these
    scale_ratio: bool = False  # draw lines in the target view's units; CVSF neglects the ratio
    angle_weight: bool = False  # weigh a line by the sine between optical axes, and drop below:
    smallest_sine: float = 0.1

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise unknown("fusion.method", self.method, METHODS)
        for name in ("resolution", "extent", "joint_sigma", "line_sigma"):
            if not getattr(self, name) > 0:
                raise ValueError(f"fusion.{name} must be positive, got {getattr(self, name)}")
        if not (self.threshold >= 0 and self.smallest_sine >= 0):
            raise ValueError(
                "fusion.threshold and fusion.smallest_sine must not be negative, got "
                f"{self.threshold} and {self.smallest_sine}"
            )


Method = Callable[
    [Views, Lifted, Tensor, FusionConfig], tuple[Float[Tensor, "K 2"], Float[Tensor, " K"]]
]


class Maps(NamedTuple):
    """The maps of K joints, as the parts that they are sums of; nothing is rasterised yet.

    Each of the N lines comes from one view; a line that does not count has height 0, as the
    joint itself has where it was not observed.
    """

    joint: Float[Tensor, "K 2"]
    joint_height: Float[Tensor, " K"]
    normal: Float[Tensor, "K N 2"]
    offset: Float[Tensor, "K N"]
    line_height: Float[Tensor, "K N"]

    def pick(self, index: Tensor | slice) -> "Maps":
        """The maps of some of the joints."""
        return Maps(*(part[index] for part in self))

    def at(self, points: Float[Tensor, "K P 2"], config: FusionConfig) -> Float[Tensor, "K P"]:
        """Value of Eq. 2's sum at P points of each map."""
        gap = (points - self.joint[:, None]).square().sum(-1) / (2 * config.joint_sigma**2)
        across = torch.einsum("kpc,kvc->kpv", points, self.normal) - self.offset[:, None]
        lines = (-across.square() / (2 * config.line_sigma**2)).exp()
        return self.joint_height[:, None] * (-gap).exp() + torch.einsum(
            "kpv,kv->kp", lines, self.line_height
        )


def fuse(
    views: Views,
    lifted: Lifted,
    config: FusionConfig,
    joints: Sequence[str],
    everywhere: bool | None = None,
) -> Views:
    """Repair unsure joints by the other views' detections, with a gradient to the rotations.

    An unobserved joint is placed where two or more other views put it, with their mean
    confidence. All other confidences, and the scale of the keypoints, stay. `everywhere`
    computes all joints and keeps the unsure ones, which changes no result: it spares waiting
    for their number, and is therefore the default elsewhere than on a CPU.
    """
    unsure = _unsure(views, lifted, config, joints)
    if everywhere is None:
        everywhere = unsure.device.type != "cpu"
    where = _all_places(unsure) if everywhere else unsure.nonzero()
    if len(where) == 0:
        return views
    place, found = METHODS[config.method](views, lifted, where, config)
    index = tuple(where.unbind(-1))
    scale = norm(views.keypoints, views.observed)[index[0], index[1], 0]
    # On the border the map may still rise outward: its maximum is not in here.
    inside = place.detach().abs().amax(-1) < (1 - BORDER) * config.extent
    inside &= unsure[index]
    moved = torch.where(inside[:, None], place * scale, views.keypoints[index])

    own = views.confidence[index]
    sure = torch.where((own == 0) & inside, found.detach().clamp(0.0, 1.0), own)
    return replace(
        views,
        keypoints=views.keypoints.index_put(index, moved),
        confidence=views.confidence.index_put(index, sure),
    )


def to_repair(
    views: Views, lifted: Lifted, config: FusionConfig, joints: Sequence[str]
) -> Int[Tensor, "K 3"]:
    """(sample, view, joint) of the unsure joints for which other views have detections."""
    return _unsure(views, lifted, config, joints).nonzero()


def _unsure(
    views: Views, lifted: Lifted, config: FusionConfig, joints: Sequence[str]
) -> Bool[Tensor, "B V J"]:
    drawn = (_line_weights(lifted, config) > 0).to(views.confidence.dtype)
    seen = views.observed.to(views.confidence.dtype)
    n_lines = drawn.mT @ seen
    enough = torch.where(views.observed, n_lines >= 1, n_lines >= 2)
    enough &= views.observed.any(-1, keepdim=True)  # an empty view has no scale to place it in
    refined = _all_but(tuple(config.never), tuple(joints), views.confidence.device)
    return enough & refined & (views.confidence < config.threshold)


@cache
def _all_but(
    never: tuple[str, ...], joints: tuple[str, ...], device: torch.device
) -> Bool[Tensor, " J"]:
    """Kept, because moving it to a device waits for the device."""
    return torch.tensor([name not in never for name in joints], device=device)


def _all_places(unsure: Bool[Tensor, "B V J"]) -> Int[Tensor, "K 3"]:
    every = [torch.arange(n, device=unsure.device) for n in unsure.shape]
    return torch.cartesian_prod(*every)


def joint_maps(
    views: Views,
    lifted: Lifted,
    where: Int[Tensor, "K 3"],
    config: FusionConfig,
    source: Int[Tensor, "K N"] | None = None,
) -> Maps:
    """The maps of the joints at `where`, with lines from the given views, or from all in order."""
    if source is None:
        n_views = views.keypoints.shape[1]
        source = torch.arange(n_views, device=where.device).expand(len(where), -1)
    sample, view, joint = where.unbind(-1)
    n_views = views.keypoints.shape[1]
    keypoints = views.keypoints / norm(views.keypoints, views.observed)
    keypoints = torch.where(views.observed[..., None], keypoints, 0.0)
    m_from_n = torch.einsum("bmrk,bnck->bnmrc", lifted.to_camera, lifted.to_camera)
    target, across, _ = epipolar_normals(m_from_n)
    if config.scale_ratio:
        across = across * _scale_ratio(views, lifted)[..., 0]
    weight = _line_weights(lifted, config)[..., None]
    # One gather for what belongs to a pair of views, one for what belongs to a joint.
    pairs = torch.cat([target, across, weight], dim=-1).flatten(0, 2)
    joints = torch.cat([keypoints, views.confidence[..., None]], dim=-1).flatten(0, 2)
    seen_from = sample[:, None] * n_views + source
    n_joints = views.keypoints.shape[2]
    pair = pairs.index_select(0, (seen_from * n_views + view[:, None]).flatten())
    other = joints.index_select(0, (seen_from * n_joints + joint[:, None]).flatten())
    own = joints.index_select(0, (sample * n_views + view) * n_joints + joint)
    pair, other = pair.unflatten(0, source.shape), other.unflatten(0, source.shape)
    offset = pair[..., 2] * other[..., 0] + pair[..., 3] * other[..., 1]
    return Maps(own[:, :2], own[:, 2], pair[..., :2], offset, pair[..., 4] * other[..., 2])


def others(where: Int[Tensor, "K 3"], n_views: int) -> Int[Tensor, "K N"]:
    """The other views of the joints at `where`, whose lines alone are in their maps."""
    turn = torch.arange(1, n_views, device=where.device)
    return (where[:, 1:2] + turn) % n_views


def _line_weights(lifted: Lifted, config: FusionConfig) -> Float[Tensor, "B V V"]:
    """What a line of view n (first V) counts in view m, times its confidence; 0: no line."""
    axis = lifted.to_camera[:, :, 2].detach()
    # Sine by the cross product: the cosine cannot tell small angles from 0 in float32.
    sine = torch.linalg.cross(axis[:, :, None], axis[:, None], dim=-1).norm(dim=-1)
    other = ~torch.eye(sine.shape[1], dtype=torch.bool, device=sine.device)
    if config.angle_weight:
        return sine * (sine > config.smallest_sine) * other
    return ((sine > SMALLEST_SINE) & other).to(sine.dtype)


def _scale_ratio(views: Views, lifted: Lifted) -> Float[Tensor, "B V V 1 1"]:
    """Norm of view n's own image over that of the image the same pose makes in view m.

    Every view is divided by its own norm, but a frontal and a side view of one pose are not
    equally large; the pose lifted from view n gives the ratio.
    """
    image = lifted.in_every_camera.detach()[..., :2]
    size = norm(image, views.observed[:, None])
    own = torch.diagonal(size, dim1=1, dim2=2).permute(0, 3, 1, 2)[:, :, None]
    return own / size


def grid_peaks(maps: Maps, config: FusionConfig) -> Float[Tensor, "K 2"]:
    """Maximum over a grid of cells, then of the parabola through the 3 x 3 cells around it.

    The parabola is what carries the gradient: the cell itself does not move with the rotations.
    Where the highest cell is one of the border, the place is on the border.
    """
    cell = 2 * config.extent / config.resolution
    with torch.no_grad():
        blocks = torch.arange(len(maps.joint), device=maps.joint.device).split(GRID_BLOCK)
        best = torch.cat([_best_cell(maps.pick(block), config) for block in blocks])
    steps = torch.tensor([-1.0, 0.0, 1.0], dtype=best.dtype, device=best.device) * cell
    window = torch.cartesian_prod(steps, steps)  # x varies slowest
    value = maps.at(best[:, None] + window, config).unflatten(-1, (3, 3))
    peak = best + cell * _parabola_peak(value)
    return torch.where(best.abs() > config.extent - cell, config.extent * best.sign(), peak)


def _best_cell(maps: Maps, config: FusionConfig) -> Float[Tensor, "K 2"]:
    n = config.resolution
    centres = torch.arange(n, dtype=maps.joint.dtype, device=maps.joint.device)
    centres = (centres + 0.5) * (2 * config.extent / n) - config.extent
    # A Gaussian is a product of its rows and columns; a ridge needs every cell.
    own = ((centres - maps.joint[..., None]).square() / (-2 * config.joint_sigma**2)).exp()
    across = (
        maps.normal[..., 0, None, None] * centres[:, None]
        + (maps.normal[..., 1, None] * centres - maps.offset[..., None])[..., None, :]
    )
    lines = across.square_().mul_(-0.5 / config.line_sigma**2).exp_()
    total = torch.einsum("kvxy,kv->kxy", lines, maps.line_height)
    total += maps.joint_height[:, None, None] * own[:, 0, :, None] * own[:, 1, None, :]
    index = total.flatten(1).argmax(-1)
    return torch.stack([centres[index // n], centres[index % n]], dim=-1)


def _parabola_peak(value: Float[Tensor, "K 3 3"]) -> Float[Tensor, "K 2"]:
    """Where the parabola through 3 x 3 samples is highest, at most one step from the middle."""
    x = 0.5 * (value[:, 2, 1] - value[:, 0, 1])
    y = 0.5 * (value[:, 1, 2] - value[:, 1, 0])
    xx = value[:, 2, 1] - 2 * value[:, 1, 1] + value[:, 0, 1]
    yy = value[:, 1, 2] - 2 * value[:, 1, 1] + value[:, 1, 0]
    xy = 0.25 * (value[:, 2, 2] - value[:, 2, 0] - value[:, 0, 2] + value[:, 0, 0])
    return newton_step(torch.stack([x, y]), xx, yy, xy).T.clamp(-1.0, 1.0)


def exact_peaks(maps: Maps, config: FusionConfig) -> Float[Tensor, "K 2"]:
    """Maximum of the very map within the extent or on its border, and its place's gradient."""
    ridges = Ridges(
        maps.normal.permute(2, 1, 0).contiguous(),
        maps.offset.T.contiguous(),
        maps.line_height.T.contiguous(),
        maps.joint.T.contiguous(),
        maps.joint_height,
    )
    widths = Widths(config.line_sigma, config.joint_sigma)
    return highest_points(ridges, widths, config.extent).T


def from_maps(peaks: Callable[[Maps, FusionConfig], Tensor]) -> Method:
    """Repair by the maximum of the map of Eq. 2, found by `peaks`."""

    def repair(
        views: Views, lifted: Lifted, where: Int[Tensor, "K 3"], config: FusionConfig
    ) -> tuple[Float[Tensor, "K 2"], Float[Tensor, " K"]]:
        maps = joint_maps(views, lifted, where, config, others(where, views.keypoints.shape[1]))
        peak = peaks(maps, config)
        # A joint detected outside of the map stays: its own part of the map is not in it.
        outside = (maps.joint.abs().amax(-1) > config.extent) & (maps.joint_height > 0)
        peak = torch.where(outside[:, None], 2 * config.extent, peak)
        height = maps.at(peak[:, None], config)[:, 0]
        return peak, height / (maps.line_height > 0).sum(-1)

    return repair


def by_triangulation(
    views: Views, lifted: Lifted, where: Int[Tensor, "K 3"], config: FusionConfig
) -> tuple[Float[Tensor, "K 2"], Float[Tensor, " K"]]:
    """Repair by robust least squares in the canonical frame (not in the paper).

    Each view's detection gives two equations for a joint's three canonical coordinates, in the
    scale of that view; detections far from the common solution lose weight (Cauchy). The mean of
    the lifted poses is a weak prior, for directions that the detections leave open. The maps
    of Eq. 2 have no such prior: where all cameras stand equally high their lines are all but
    parallel, and the maximum slides along them.
    """
    observations = Observations.of(views, lifted)
    pose, weight = triangulate(
        observations, lifted.to_camera, observations.prior, config.line_sigma
    )
    image = torch.einsum("bvrc,bjc->bvjr", lifted.to_camera[:, :, :2], pose) / observations.scale
    sample, view, joint = where.unbind(-1)
    agreed = weight.sum(1) / views.observed.sum(1).clamp_min(1)
    return image[sample, view, joint], agreed[sample, joint]


# Each returns where the joints at `where` are, in units of their view's norm, and how surely.
METHODS: Mapping[str, Method] = {
    "grid": from_maps(grid_peaks),
    "exact": from_maps(exact_peaks),
    "triangulate": by_triangulation,
}
SMALLEST_SINE = 1e-6  # below, two views look along one axis and draw no lines in each other
BORDER = 1e-5  # of the extent: nearer than this is on its border
GRID_BLOCK = 64  # maps drawn at a time
