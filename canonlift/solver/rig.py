"""Where fixed cameras stand: one path through the room explains the body's place in all views.

The body is at r in the room, and at R r + t before a camera. How far it is off a camera's axis is
seen in units of the body, whatever the focal length; its depth is proportional to that. So linear
equations give a start: positions, path and a factor on each focal length. Then cameras and joints
in the room are adjusted together.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from canonlift.solver.body_prior import Tree, moving_mean
from canonlift.solver.bundle import Basis, Priors, Solved, adjust, robust_weights, standing_matrix
from canonlift.solver.observed import Observed, Windows, cut
from canonlift.solver.perspective import Cameras
from canonlift.solver.tracks import (
    FOCAL_WEIGHT,
    GIVEN_FOCAL_WEIGHT,
    PIECE,
    PIECES,
    RATE_HZ,
    TOLERANCE,
    Track,
    rig_frames,
)

ANNEALING = ((2.2, 5), (1.0, 8), (1.0, 7))  # tolerance, relative to TOLERANCE, and steps
POSE_WEIGHT = 0.5  # the mean over neighbouring frames, with bones of constant length
FEW = 3  # views, with fewer of which a wrong focal length looks as good as the true one
ALIKE_S = 1.0  # for which the errors of a detector are alike, and tell nothing new
SURE = 0.15  # standard deviation of a log focal length, above which positions are not known
DEPTH_WEIGHT = 0.05  # of the depth in a view, beside where the body is across
ROUNDS = 6  # of reweighting of the linear start
FACTORS = (0.6, 1.6)  # on focal lengths, in the linear start
FACTOR_WEIGHT = 0.003  # of a factor of 1, beside the evidence of a depth of the same size


class Rig(NamedTuple):
    """Fixed cameras in the room of the poses, in the unit of the poses."""

    rotation: Float[Tensor, "V 3 3"]
    position: Float[Tensor, "V 3"]
    log_focal: Float[Tensor, " V"]  # pixels
    centre: Float[Tensor, "V 2"]
    unsure: Float[Tensor, " V"]  # standard deviation of the log focal length

    def to(self, like: Tensor) -> "Rig":
        """The same in the precision, and on the device, of a tensor."""
        return Rig(*(part.to(like) for part in self))

    def turned_to(self, rotation: Float[Tensor, "3 3"]) -> "Rig":
        """The same in a room that is turned so that the first camera has this rotation."""
        turn = self.rotation[0].mT @ rotation
        return self._replace(rotation=self.rotation @ turn, position=self.position @ turn)

    @property
    def sure(self) -> bool:
        """Whether positions are known."""
        return bool((self.unsure < SURE).all())

    def cameras(self, windows: Windows, path: Float[Tensor, "T 3"]) -> Cameras:
        """What each camera has of each frame if the body's origin is on a path in the room."""
        place = torch.einsum("vrc,tvc->tvr", self.rotation, path[:, None] - self.position)
        depth = place[..., 2].clamp_min(1e-3)
        log_focal = (self.log_focal - windows.size.log()).expand(1, len(path), -1)
        away = log_focal.exp()[0, ..., None] * place[..., :2] / depth[..., None]
        return Cameras(
            self.rotation.expand(1, len(path), -1, -1, -1),
            windows.centre + away,
            -depth.log()[None],
            log_focal,
            windows.centre,
            windows.aimed,
        )

    def of(self, track: Track) -> Track:
        """A track with these cameras; a body is seen as large as before."""
        shape = track.log_focal.shape
        return track._replace(
            rotation=self.rotation.expand(*shape, 3, 3),
            log_focal=self.log_focal.expand(shape),
            log_nearness=track.log_nearness + track.log_focal - self.log_focal,
        )

    def path(self, track: Track, seen: Float[Tensor, "T V"]) -> Float[Tensor, "T 3"]:
        """Where the body's origin is in the room, from all views of each frame."""
        across, depth = _places(track, self.centre, self.log_focal)
        place = torch.cat([across, depth[..., None]], -1)
        place = self.position + torch.einsum("vrc,tvr->tvc", self.rotation, place)
        weight = seen[..., None, None] * _precision(self.rotation)
        path = place.mean(1)
        for _ in range(ROUNDS):
            right = torch.einsum("tvcd,tvd->tc", weight, place)
            path = torch.linalg.solve_ex(_firm(weight.sum(1)), right[..., None]).result[..., 0]
            share = _shares(place - path[:, None], self.rotation, seen)
            weight = (share * seen)[..., None, None] * _precision(self.rotation)
        return _filled(path, seen.any(-1))


def solve_rig(
    observed: Observed,
    joints: Sequence[str],
    track: Track,
    fps: float,
    focal_known: bool = False,
    same_focal: bool = False,
) -> Rig | None:
    """Adjust the cameras of a track that stand still, over frames from all of the recording.

    None if the principal points are not known, without which a camera that stands still has no
    axis.
    """
    if bool((observed.aimed > 0).any()):
        return None
    n_frames = len(observed.keypoints)
    step = max(1, min(round(fps / RATE_HZ), -(-n_frames // (PIECES * PIECE))))
    keys = torch.arange(0, n_frames, step, device=observed.keypoints.device)
    frames, piece = rig_frames(keys)
    # Neighbouring frames have almost one pose, and together no more weight than at RATE_HZ.
    alike = max(1.0, fps / step / RATE_HZ)
    observed = Observed(*(part.double() for part in observed))
    start = Track(*(part[frames[0]].double() for part in track))
    windows = cut(observed, frames)
    seen = (observed.confidence[frames[0]] > 0).any(-1).double()
    rig, path = _begin(start, seen, observed.centre)
    if focal_known:
        rig = rig._replace(log_focal=observed.log_focal)
    elif same_focal:
        rig = rig._replace(log_focal=rig.log_focal.mean().expand_as(rig.log_focal))
    middle = path.median(0).values
    rig, path = rig._replace(position=rig.position - middle), path - middle
    cameras = rig.cameras(windows, torch.zeros_like(path))
    state = Solved.begin((start.pose + path[:, None])[None], cameras)
    ones = path.new_ones(len(path), 1)
    basis = Basis(ones, ones, same_focal, standing=True)
    focal_weight = (GIVEN_FOCAL_WEIGHT if focal_known else FOCAL_WEIGHT) / len(path)
    tree = Tree.of(joints, observed.keypoints)

    def priors() -> Priors:
        return Priors(
            pose=tree.with_steady_bones(moving_mean(state.pose, 3, piece)),
            pose_weight=POSE_WEIGHT / alike,
            origin=state.cameras.origin,
            log_nearness=state.cameras.log_nearness,
            nearness_weight=0.0,
            log_focal=windows.log_focal,
            focal_weight=focal_weight,
        )

    for factor, steps in ANNEALING:
        state = adjust(state, windows.detections, priors(), basis, TOLERANCE * factor, steps)
    unsure = _uncertainty(state, windows, priors(), max(1.0, ALIKE_S * fps / step), same_focal)
    if not focal_known and bool(seen.any(0).sum() < FEW):
        unsure = torch.full_like(unsure, torch.inf)
    # A view that saw nothing is no reason to doubt the others.
    unsure = torch.where(seen.any(0), unsure, 0.0)
    scale = tree.size(start.pose) / tree.size(state.pose[0])
    found = _from_cameras(state.cameras, windows, observed.centre, scale, unsure)
    return found.turned_to(start.rotation[0, 0]).to(track.pose)


def placed_rig(
    observed: Observed, rotation: Float[Tensor, "V 3 3"], position: Float[Tensor, "V 3"]
) -> tuple[Rig, Track]:
    """Cameras of which everything is known, and the body where rays meet.

    Raises:
        ValueError: if no two views see a joint at once.
    """
    confidence, focal = observed.confidence, observed.log_focal.exp()
    ray = (observed.keypoints - observed.centre[:, None]) / focal[:, None, None]
    ray = torch.cat([ray, torch.ones_like(ray[..., :1])], -1)
    ray = torch.nn.functional.normalize(torch.einsum("vrc,tvjr->tvjc", rotation, ray), dim=-1)
    eye = torch.eye(3, dtype=ray.dtype, device=ray.device)
    across = eye - ray[..., None] * ray[..., None, :]
    seen = confidence > 0
    both = seen.sum(1) >= 2
    if not bool(both.any()):
        raise ValueError("no joint is seen by two views at once")
    weight, joint = confidence, torch.zeros_like(ray[:, 0])
    for _ in range(ROUNDS):
        normal = weight[..., None, None] * across
        right = torch.einsum("tvjcd,vd->tjc", normal, position)
        firm = normal.sum(1) + 1e-9 * eye
        joint = torch.linalg.solve_ex(firm, right[..., None]).result[..., 0]
        gap = joint[:, None] - position[:, None]
        far = torch.linalg.vector_norm(gap, dim=-1).clamp_min(1e-6)
        angle = torch.linalg.vector_norm((across @ gap[..., None])[..., 0], dim=-1) / far
        usual = angle.masked_fill(~(seen & both[:, None]), torch.nan).nanmedian()
        weight = confidence / (1 + (angle / (4 * usual).clamp_min(1e-6)).square()) / far.square()
    joint = joint.masked_fill(~both[..., None], torch.nan)
    middle = joint.nanmedian(1).values
    path = _filled(middle.nan_to_num(), both.any(-1))
    pose = joint - path[:, None]
    pose = torch.where(pose.isnan(), pose.nanmedian(0).values.nan_to_num(), pose)
    # The solver's bodies are of about this size.
    unit = pose.square().sum(-1).mean().sqrt().clamp_min(1e-9)
    sure = torch.zeros_like(observed.log_focal)
    rig = Rig(rotation, position / unit, observed.log_focal, observed.centre, sure)
    place = torch.einsum("vrc,tvc->tvr", rotation, (path[:, None] - position) / unit)
    depth = place[..., 2].clamp_min(1e-3)
    shape = depth.shape
    return rig, Track(
        rotation.expand(*shape, 3, 3),
        observed.centre + focal[:, None] * place[..., :2] / depth[..., None],
        -depth.log(),
        observed.log_focal.expand(shape),
        pose / unit,
    )


def _filled(path: Float[Tensor, "T 3"], known: Bool[Tensor, " T"]) -> Float[Tensor, "T 3"]:
    """Frames in which nobody saw the body lie on a line between those before and after."""
    frames = known.nonzero()[:, 0]
    if len(frames) in (0, len(path)):
        return path
    every = torch.arange(len(path), device=path.device)
    after = torch.searchsorted(frames, every).clamp_max(len(frames) - 1)
    before = (torch.searchsorted(frames, every, right=True) - 1).clamp_min(0)
    before, after = frames[before], frames[after]
    share = ((every - before) / (after - before).clamp_min(1)).clamp(0, 1).to(path.dtype)
    return torch.lerp(path[before], path[after], share[:, None].expand_as(path))


def _from_cameras(
    cameras: Cameras,
    windows: Windows,
    centre: Float[Tensor, "V 2"],
    scale: Float[Tensor, ""],
    unsure: Float[Tensor, " V"],
) -> Rig:
    depth = 1 / cameras.log_nearness[0, 0].exp()
    focal = cameras.log_focal[0, 0].exp()
    off = (cameras.origin - windows.centre)[0, 0] / focal[:, None]
    moved = depth[:, None] * torch.cat([off, torch.ones_like(off[:, :1])], -1)
    rotation = cameras.rotation[0, 0]
    position = -scale * torch.einsum("vrc,vr->vc", rotation, moved)
    return Rig(rotation, position, focal.log() + windows.size[0, 0].log(), centre, unsure)


def _places(
    track: Track, centre: Float[Tensor, "V 2"], log_focal: Float[Tensor, "*T V"]
) -> tuple[Float[Tensor, "T V 2"], Float[Tensor, "T V"]]:
    """Where the body's origin is before each camera: across, and how deep."""
    log_scale = track.log_focal + track.log_nearness
    across = (track.origin - centre) / log_scale.exp()[..., None]
    return across, (log_focal - log_scale).exp()


def _precision(rotation: Float[Tensor, "V 3 3"]) -> Float[Tensor, "V 3 3"]:
    """Weights of a view's word on the place of the body, in the axes of the room."""
    weight = rotation.new_tensor([1.0, 1.0, DEPTH_WEIGHT])
    return rotation.mT @ (weight[:, None] * rotation)


def _firm(matrix: Float[Tensor, "*N K K"]) -> Float[Tensor, "*N K K"]:
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return matrix + 1e-6 * eye


def _shares(
    gap: Float[Tensor, "T V 3"], rotation: Float[Tensor, "V 3 3"], seen: Float[Tensor, "T V"]
) -> Float[Tensor, "T V"]:
    """What views keep of their weight (Cauchy), relative to the usual error."""
    square = torch.einsum("tvc,vcd,tvd->tv", gap, _precision(rotation), gap)
    usual = square.masked_fill(seen == 0, torch.nan).nanmedian().nan_to_num(1.0)
    return 1 / (1 + square / (4 * usual).clamp_min(1e-12))


def _begin(
    track: Track, seen: Float[Tensor, "T V"], centre: Float[Tensor, "V 2"]
) -> tuple[Rig, Float[Tensor, "T 3"]]:
    """The linear start: cameras, and the path of the body."""
    rotation = track.rotation[0]
    n_views = len(rotation)
    across, depth = _places(track, centre, track.log_focal)
    fixed = torch.einsum("vrc,tvr->tvc", rotation[:, :2], across)
    axis = depth[..., None] * rotation[:, 2]  # the part that a focal length is a factor of
    # A view says that the body is at  fixed + factor axis + position;  the latter two are unknown.
    eye = torch.eye(3, dtype=depth.dtype, device=depth.device).expand(*depth.shape, 3, 3)
    design = torch.cat([axis[..., None], eye], -1)  # T V 3 4
    share = torch.ones_like(seen)
    precision = _precision(rotation)
    found, path = depth.new_zeros(n_views, 4), depth.new_zeros(len(depth), 3)
    for _ in range(ROUNDS):
        weight = (share * seen)[..., None, None] * precision
        inverse = torch.linalg.inv_ex(_firm(weight.sum(1))).inverse
        weighted = weight @ design  # T V 3 4
        own = torch.einsum("tvca,tvcb->vab", design, weighted)
        whole = -torch.einsum("tvca,tcd,twdb->vawb", weighted, inverse, weighted)
        whole.diagonal(dim1=0, dim2=2).add_(own.permute(1, 2, 0))
        told = torch.einsum("tvcd,tvd->tvc", weight, fixed)
        gap = told - torch.einsum("tvcd,tde,te->tvc", weight, inverse, told.sum(1))
        right = -torch.einsum("tvca,tvc->va", design, gap)
        firm = FACTOR_WEIGHT * own[:, 0, 0] + 1e-3
        whole[:, 0, :, 0] += torch.diag(firm)
        right[:, 0] += firm
        whole = whole.reshape(4 * n_views, 4 * n_views)
        found = torch.linalg.solve_ex(_firm(whole), right.reshape(-1, 1)).result.view(n_views, 4)
        found[:, 0].clamp_(*FACTORS)
        place = fixed + torch.einsum("tvca,va->tvc", design, found)
        path = torch.einsum("tcd,tvde,tve->tc", inverse, weight, place)
        share = _shares(place - path[:, None], rotation, seen)
    log_focal = track.log_focal[0] + found[:, 0].log()
    return Rig(rotation, found[:, 1:], log_focal, centre, torch.zeros_like(log_focal)), path


def _uncertainty(
    state: Solved, windows: Windows, priors: Priors, alike: float, same_focal: bool
) -> Float[Tensor, " V"]:
    """Standard deviation of log focal lengths, and so of distances, in units of the first's."""
    matrix = standing_matrix(state, windows.detections, priors, TOLERANCE)[0]
    confidence = windows.detections.confidence
    square = (state.cameras.images(state.pose) - windows.detections.points).square().sum(-1)
    weight = robust_weights(square, confidence, TOLERANCE)
    free = (2 * (confidence > 0).sum(2) - 3).clamp_min(0) / (confidence > 0).sum(2).clamp_min(1)
    freedom = (free[:, :, None] * weight / confidence.clamp_min(1e-9).sqrt()).sum()
    variance = alike * (weight * square).sum() / freedom.clamp_min(1.0)
    n_views = len(matrix)
    n_focal = 1 if same_focal else n_views
    # The first camera's place is held, which leaves nothing open.
    spread = matrix.new_zeros(n_views, 7, 6 * (n_views - 1) + n_focal)
    for view in range(n_views):
        spread[view, 6, -1 if same_focal else 6 * (n_views - 1) + view] = 1
        if view:
            at = 6 * (view - 1)
            spread[view, :6, at : at + 6] = torch.eye(6, dtype=matrix.dtype, device=matrix.device)
    flat = spread.flatten(0, 1)
    size = 7 * n_views
    small = flat.mT @ matrix.reshape(size, size) @ flat
    inverse = torch.linalg.pinv(small, hermitian=True)
    of_focal = inverse.diagonal()[-n_focal:].clamp_min(0)
    return (variance * of_focal).sqrt().expand(n_views)
