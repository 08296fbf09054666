"""Cross-view self-fusion: repair a detection with what the other views saw (CVSF, Sec. 3.3).

The map of a joint is a Gaussian where it was detected plus, for every other view, a ridge along
the epipolar line of that view's detection; each is as high as its confidence (Eq. 2).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from canonlift.geometry.epipolar import epipolar_lines
from canonlift.geometry.scale import norm
from canonlift.multiview import Sight, triangulate
from canonlift.names import unknown
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
    """The maps of K joints, as the parts they are sums of: no pixel is drawn yet.

    The first axis of the lines is the view they come from; a line that does not count has
    height 0, as the joint itself has where it was not observed.
    """

    joint: Float[Tensor, "K 2"]
    joint_height: Float[Tensor, " K"]
    normal: Float[Tensor, "K V 2"]
    offset: Float[Tensor, "K V"]
    line_height: Float[Tensor, "K V"]

    def __getitem__(self, index: Tensor | slice) -> "Maps":
        return Maps(*(part[index] for part in tuple(self)))

    def at(self, points: Float[Tensor, "K P 2"], config: FusionConfig) -> Float[Tensor, "K P"]:
        """Value of Eq. 2's sum at P points of each map."""
        gap = (points - self.joint[:, None]).square().sum(-1) / (2 * config.joint_sigma**2)
        across = torch.einsum("kpc,kvc->kpv", points, self.normal) - self.offset[:, None]
        lines = (-across.square() / (2 * config.line_sigma**2)).exp()
        return self.joint_height[:, None] * (-gap).exp() + torch.einsum(
            "kpv,kv->kp", lines, self.line_height
        )


def fuse(views: Views, lifted: Lifted, config: FusionConfig, joints: Sequence[str]) -> Views:
    """Repair unsure joints by what the other views saw, with a gradient to the rotations.

    An unobserved joint is placed where two or more other views say, and is as sure as they are
    on average. All other confidences, and the scale of the keypoints, stay.
    """
    where = to_repair(views, lifted, config, joints)
    if len(where) == 0:
        return views
    place, found = METHODS[config.method](views, lifted, where, config)
    index = tuple(where.unbind(-1))
    scale = norm(views.keypoints, views.observed)[index[0], index[1], 0]
    inside = place.detach().abs().amax(-1) <= config.extent
    moved = torch.where(inside[:, None], place * scale, views.keypoints[index])

    own = views.confidence[index]
    sure = torch.where((own == 0) & inside, found.detach().clamp(0.0, 1.0), own)
    return Views(
        views.keypoints.index_put(index, moved),
        views.confidence.index_put(index, sure),
        views.rig,
    )


def to_repair(
    views: Views, lifted: Lifted, config: FusionConfig, joints: Sequence[str]
) -> Int[Tensor, "K 3"]:
    """(sample, view, joint) of the unsure joints about which other views have something to say."""
    n_lines = (_line_heights(views, _sines(lifted), config) > 0).sum(1)
    enough = torch.where(views.observed, n_lines >= 1, n_lines >= 2)
    enough &= views.observed.any(-1, keepdim=True)  # an empty view has no scale to place it in
    names = [name not in config.never for name in joints]
    refined = torch.tensor(names, device=views.confidence.device)
    return (enough & refined & (views.confidence < config.threshold)).nonzero()


def joint_maps(
    views: Views, lifted: Lifted, where: Int[Tensor, "K 3"], config: FusionConfig
) -> Maps:
    """The maps of the joints at `where`."""
    keypoints = views.keypoints / norm(views.keypoints, views.observed)
    keypoints = torch.where(views.observed[..., None], keypoints, 0.0)
    n_views = keypoints.shape[1]
    m_from_n = torch.einsum("bmrk,bnck->bnmrc", lifted.rotation, lifted.rotation)
    points = keypoints[:, :, None].expand(-1, -1, n_views, -1, -1)  # from n, for every m
    if config.scale_ratio:
        points = points * _scale_ratio(views, lifted)
    lines = epipolar_lines(points, m_from_n)
    height = _line_heights(views, _sines(lifted), config)
    sample, view, joint = where.unbind(-1)
    return Maps(
        keypoints[sample, view, joint],
        views.confidence[sample, view, joint],
        lines.normal[sample, :, view],
        lines.offset[sample, :, view, joint],
        height[sample, :, view, joint],
    )


def _sines(lifted: Lifted) -> Float[Tensor, "B V V"]:
    """Sine of the angle between the optical axes of every two views."""
    axis = lifted.rotation[:, :, 2].detach()
    # By the cross product: the cosine cannot tell small angles from 0 in float32.
    return torch.linalg.cross(axis[:, :, None], axis[:, None], dim=-1).norm(dim=-1)


def _line_heights(
    views: Views, sine: Float[Tensor, "B V V"], config: FusionConfig
) -> Float[Tensor, "B V V J"]:
    """Height of the line of every joint of view n (first V) in view m; 0: no line."""
    n_views = sine.shape[1]
    other = ~torch.eye(n_views, dtype=torch.bool, device=sine.device)
    if config.angle_weight:
        weight = sine * (sine > config.smallest_sine) * other
    else:
        weight = ((sine > SMALLEST_SINE) & other).to(sine.dtype)
    return views.confidence[:, :, None] * weight[..., None]


def _scale_ratio(views: Views, lifted: Lifted) -> Float[Tensor, "B V V 1 1"]:
    """Norm of view n's own image over that of the image the same pose makes in view m.

    Every view is divided by its own norm, but a frontal and a side view of one pose are not
    equally large; the pose lifted from view n knows by how much.
    """
    image = lifted.in_every_camera.detach()[..., :2]
    size = norm(image, views.observed[:, None])
    own = torch.diagonal(size, dim1=1, dim2=2).permute(0, 3, 1, 2)[:, :, None]
    return own / size


def grid_peaks(maps: Maps, config: FusionConfig) -> Float[Tensor, "K 2"]:
    """Maximum over a grid of cells, then of the parabola through the 3 x 3 cells around it.

    The parabola is what carries the gradient: the cell itself does not move with the rotations.
    A place outside of the extent means that there is no maximum in it.
    """
    cell = 2 * config.extent / config.resolution
    with torch.no_grad():
        blocks = torch.arange(len(maps.joint), device=maps.joint.device).split(256)
        best = torch.cat([_best_cell(maps[block], config) for block in blocks])
    steps = torch.tensor([-1.0, 0.0, 1.0], dtype=best.dtype, device=best.device) * cell
    window = torch.cartesian_prod(steps, steps)  # x varies slowest
    value = maps.at(best[:, None] + window, config).unflatten(-1, (3, 3))
    # In a border cell the map still rises outward: its maximum is not in here.
    border = best.abs().amax(-1) > config.extent - cell
    peak = best + cell * _parabola_peak(value)
    return torch.where(border[:, None], 2 * config.extent, peak)


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
    return _newton_step(torch.stack([x, y], -1), xx, yy, xy).clamp(-1.0, 1.0)


def _newton_step(
    gradient: Float[Tensor, "K 2"],
    xx: Float[Tensor, " K"],
    yy: Float[Tensor, " K"],
    xy: Float[Tensor, " K"],
) -> Float[Tensor, "K 2"]:
    """-H^-1 g of a function that curves downward, or is made to."""
    with torch.no_grad():  # along a lone ridge the map is flat: lean on a small curvature there
        middle, radius = 0.5 * (xx + yy), (0.25 * (xx - yy).square() + xy.square()).sqrt()
        lean = (middle + radius + 1e-3 * (radius - middle)).clamp_min(0.0) + 1e-12
    xx, yy = xx - lean, yy - lean
    determinant = (xx * yy - xy.square()).clamp_min(1e-24)
    x, y = gradient.unbind(-1)
    return torch.stack([xy * y - yy * x, xy * x - xx * y], -1) / determinant[:, None]


def exact_peaks(maps: Maps, config: FusionConfig) -> Float[Tensor, "K 2"]:
    """Maximum of the very map inside the extent, and the exact gradient of its place.

    A slope that the border cuts off is no maximum, even where it is higher than all of them.
    Without a grid: a maximum lies near the joint, near its foot on a line, or near where two
    lines cross. From the best of these, reweighted least squares climb: each step maximises a
    lower bound of the map that touches it, so none can lose height. The gradient is that of the
    condition "the map is level here" (implicit function theorem).
    """
    with torch.no_grad():
        starts = _candidates(maps)
        best = _height_inside(maps, starts, config).topk(min(CLIMBERS, starts.shape[1])).indices
        points = starts.gather(1, best[..., None].expand(-1, -1, 2))
        for _ in range(CLIMBS):
            points = _climb(maps, points, config)
        points = torch.cat([points, starts], dim=1)
        best = _height_inside(maps, points, config).argmax(-1)
        peak = points[torch.arange(len(points), device=points.device), best]
    return _newton(maps, peak, config)


def _height_inside(
    maps: Maps, points: Float[Tensor, "K P 2"], config: FusionConfig
) -> Float[Tensor, "K P"]:
    """Height of the map, and below everything outside of the extent."""
    outside = points.abs().amax(-1) > config.extent
    return maps.at(points, config).masked_fill(outside, -1.0)


def _candidates(maps: Maps) -> Float[Tensor, "K C 2"]:
    """The joint, its feet on the lines, and the crossings of all pairs of lines."""
    gap = torch.einsum("kc,kvc->kv", maps.joint, maps.normal) - maps.offset
    feet = maps.joint[:, None] - gap[..., None] * maps.normal
    first, second = torch.triu_indices(*2 * maps.offset.shape[1:], 1, device=gap.device)
    a, b = maps.normal[:, first], maps.normal[:, second]
    p, q = maps.offset[:, first], maps.offset[:, second]
    determinant = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    parallel = determinant.abs() < 1e-3
    determinant = torch.where(parallel, 1.0, determinant)
    x = (p * b[..., 1] - q * a[..., 1]) / determinant
    y = (q * a[..., 0] - p * b[..., 0]) / determinant
    crossings = torch.where(parallel[..., None], maps.joint[:, None], torch.stack([x, y], -1))
    return torch.cat([maps.joint[:, None], feet, crossings], dim=1)


def _climb(
    maps: Maps, points: Float[Tensor, "K P 2"], config: FusionConfig
) -> Float[Tensor, "K P 2"]:
    """One step of reweighted least squares towards the joint and the lines that are near."""
    across = torch.einsum("kpc,kvc->kpv", points, maps.normal) - maps.offset[:, None]
    line = maps.line_height[:, None] * (-0.5 * (across / config.line_sigma).square()).exp()
    line = line / config.line_sigma**2
    gap = (points - maps.joint[:, None]).square().sum(-1)
    own = maps.joint_height[:, None] * (-0.5 * gap / config.joint_sigma**2).exp()
    own = own / config.joint_sigma**2
    nx, ny = maps.normal[:, None].unbind(-1)
    # Damped, so that lines all but parallel do not throw a point far away; it still climbs.
    damped = own + 1e-4 * (own + line.sum(-1)) + 1e-12
    xx, yy = damped + (line * nx.square()).sum(-1), damped + (line * ny.square()).sum(-1)
    xy = (line * nx * ny).sum(-1)
    # What pulls: the way to the joint, and the way to each line along its normal.
    x = own * (maps.joint[:, None, 0] - points[..., 0]) - (line * across * nx).sum(-1)
    y = own * (maps.joint[:, None, 1] - points[..., 1]) - (line * across * ny).sum(-1)
    determinant = (xx * yy - xy.square()).clamp_min(1e-30)
    step = torch.stack([yy * x - xy * y, xx * y - xy * x], -1) / determinant[..., None]
    return points + step.clamp(-config.joint_sigma, config.joint_sigma)


def _newton(maps: Maps, peak: Float[Tensor, "K 2"], config: FusionConfig) -> Float[Tensor, "K 2"]:
    """One Newton step from a maximum: no way to go, but the gradient of where it lies."""
    away = peak - maps.joint
    own = maps.joint_height * (-0.5 * away.square().sum(-1) / config.joint_sigma**2).exp()
    own = own / config.joint_sigma**2
    across = torch.einsum("kc,kvc->kv", peak, maps.normal) - maps.offset
    line = maps.line_height * (-0.5 * (across / config.line_sigma).square()).exp()
    line = line / config.line_sigma**2
    gradient = -own[:, None] * away - torch.einsum("kv,kvc->kc", line * across, maps.normal)
    with torch.no_grad():
        bend_own = away / config.joint_sigma
        bend = line * ((across / config.line_sigma).square() - 1)
        nx, ny = maps.normal.unbind(-1)
        xx = own * (bend_own[:, 0].square() - 1) + (bend * nx.square()).sum(-1)
        yy = own * (bend_own[:, 1].square() - 1) + (bend * ny.square()).sum(-1)
        xy = own * bend_own[:, 0] * bend_own[:, 1] + (bend * nx * ny).sum(-1)
    step = _newton_step(gradient, xx, yy, xy)
    shorten = (config.line_sigma / step.detach().norm(dim=-1).clamp_min(1e-12)).clamp_max(1.0)
    return peak + shorten[:, None] * step


def from_maps(peaks: Callable[[Maps, FusionConfig], Tensor]) -> Method:
    """Repair by the maximum of the map of Eq. 2, found by `peaks`."""

    def repair(
        views: Views, lifted: Lifted, where: Int[Tensor, "K 3"], config: FusionConfig
    ) -> tuple[Float[Tensor, "K 2"], Float[Tensor, " K"]]:
        maps = joint_maps(views, lifted, where, config)
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

    Each view's detection says two of a joint's three canonical coordinates, in the scale of that
    view; detections far from the common solution lose their say (Cauchy weights). The mean of
    the lifted poses has a small say too, where the detections leave a direction open. The maps
    of Eq. 2 have no such prior: where all cameras stand equally high their lines are all but
    parallel, and the maximum slides along them.
    """
    seen = Sight.of(views, lifted)
    pose, say = triangulate(seen, lifted.rotation, seen.prior, config.line_sigma)
    image = torch.einsum("bvrc,bjc->bvjr", lifted.rotation[:, :, :2], pose) / seen.size
    sample, view, joint = where.unbind(-1)
    agreed = say.sum(1) / views.observed.sum(1).clamp_min(1)
    return image[sample, view, joint], agreed[sample, joint]


# Each returns where the joints at `where` are, in units of their view's norm, and how surely.
METHODS: Mapping[str, Method] = {
    "grid": from_maps(grid_peaks),
    "exact": from_maps(exact_peaks),
    "triangulate": by_triangulation,
}
SMALLEST_SINE = 1e-6  # below, two views look along one axis and draw no lines in each other
CLIMBERS = 16  # candidates that climb; with 4, the highest peak is missed at 1 joint in 200
CLIMBS = 8
