"""Bundle adjustment: bodies and cameras together, by the method of Levenberg and Marquardt.

The sum of robust squares over joints, frames and views (Cauchy's function of the distance in the
image) and of weak priors is minimised. Every step solves the normal equations exactly, in three
parts (Schur complements): the three coordinates of each joint are eliminated, then what a camera
has of its own in each frame (where the body is in the image, and how near), which leaves a few
numbers per camera and window: its turns and focal lengths. Windows are solved side by side, and
nothing waits for the device.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from canonlift.geometry.rotations import from_axis_angle
from canonlift.solver.perspective import Cameras, derivatives, project

N_LOCAL = 3  # unknowns of a camera in each frame: the origin's image and the nearness
LONGEST = 1.0  # change of a logarithm in one step, at most
FASTER, SLOWER = 0.2, 8.0  # factors of the damping after a good step and after a bad one


class Detections(NamedTuple):
    """Joints detected in N windows, in units of each view of each window."""

    points: Float[Tensor, "N T V J 2"]  # finite
    confidence: Float[Tensor, "N T V J"]  # 0: unobserved


class Priors(NamedTuple):
    """What is expected before any detection; weights are those of a residual of confidence 1."""

    pose: Float[Tensor, "N T J 3"]
    pose_weight: float
    origin: Float[Tensor, "N T V 2"]
    log_nearness: Float[Tensor, "N T V"]
    nearness_weight: float
    log_focal: Float[Tensor, "N T V"]
    focal_weight: float
    origin_weight: float = 1e-6
    turn_weight: float = 0.0  # against turning of the cameras from one knot to the next


class Basis(NamedTuple):
    """How a camera's turn and focal length may vary in a window: weights of K and L knots.

    No knots: they stay as they are.
    """

    turn: Float[Tensor, "T K"]
    focal: Float[Tensor, "T L"]
    shared_focal: bool = False  # all views have one focal length
    standing: bool = False  # cameras stand still: poses are in the room, origins are its origin

    @property
    def n_of_view(self) -> int:
        """Unknowns of a camera in a window."""
        return 3 * self.turn.shape[1] + self.focal.shape[1]


class Solved(NamedTuple):
    """Bodies and cameras, and how well they fit."""

    pose: Float[Tensor, "N T J 3"]
    cameras: Cameras
    cost: Float[Tensor, " N"]
    damping: Float[Tensor, " N"]

    @classmethod
    def begin(cls, pose: Float[Tensor, "N T J 3"], cameras: Cameras) -> "Solved":
        """Where to start from."""
        return cls(pose, cameras, pose.new_full(pose.shape[:1], torch.inf), pose.new_full(
            pose.shape[:1], 1e-3))  # fmt: skip


def adjust(
    start: Solved,
    detections: Detections,
    priors: Priors,
    basis: Basis,
    tolerance: float,
    steps: int,
) -> Solved:
    """Take so many steps; where one would raise the cost, a window stays and damps the next.

    Args:
        start: poses and cameras to begin with.
        detections: what is to be explained.
        priors: what is expected anyway.
        basis: how cameras may vary.
        tolerance: distance in the image, in units of the view, at which a detection has lost
            half of its weight.
        steps: how many.
    """
    state = start._replace(
        cost=_cost(start.pose, start.cameras, detections, priors, basis, tolerance)
    )
    for _ in range(steps):
        pose, cameras = _step(state, detections, priors, basis, tolerance)
        found = _cost(pose, cameras, detections, priors, basis, tolerance)
        better = found < state.cost
        state = Solved(
            _where(better, pose, state.pose),
            Cameras(*(_where(better, n, o) for n, o in zip(cameras, state.cameras, strict=True))),
            torch.where(better, found, state.cost),
            (state.damping * torch.where(better, FASTER, SLOWER)).clamp(1e-7, 1e4),
        )
    return state


def _where(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(mask.view(-1, *(1,) * (new.ndim - 1)), new, old)


def robust_weights(
    square: Float[Tensor, "*shape"], confidence: Float[Tensor, "*shape"], tolerance: float
) -> Float[Tensor, "*shape"]:
    """Weights of detections at a squared distance from the solution (Cauchy)."""
    return confidence / (1 + square / tolerance**2)


def _cost(
    pose: Tensor,
    cameras: Cameras,
    detections: Detections,
    priors: Priors,
    basis: Basis,
    tolerance: float,
) -> Float[Tensor, " N"]:
    square = (project(cameras, pose).image - detections.points.movedim(-1, 0)).square_().sum(0)
    parts = [
        tolerance**2 * detections.confidence * (square / tolerance**2).log1p(),
        priors.pose_weight * (pose - priors.pose).square(),
        priors.origin_weight * (priors.origin - cameras.origin).square(),
        priors.nearness_weight * (priors.log_nearness - cameras.log_nearness).square(),
        priors.focal_weight * (priors.log_focal - cameras.log_focal).square(),
    ]
    if basis.turn.shape[1] > 1:
        parts.append(priors.turn_weight * _turns(cameras, basis).square())
    return torch.stack([part.flatten(1).sum(1) for part in parts]).sum(0)


def _turns(cameras: Cameras, basis: Basis) -> Float[Tensor, "N K_1 V 3"]:
    """How each camera turns from one knot to the next: the axis times the sine of the angle."""
    rotation = cameras.rotation[:, basis.turn.argmax(0)]
    turn = rotation[:, 1:] @ rotation[:, :-1].mT
    odd = turn - turn.mT
    return 0.5 * torch.stack([odd[..., 2, 1], odd[..., 0, 2], odd[..., 1, 0]], dim=-1)


class _Normal(NamedTuple):
    """Normal equations after the joints are eliminated, and what gives the joints back."""

    matrix: Float[Tensor, "N T V P V P"]
    right: Float[Tensor, "N T V P"]
    root: Float[Tensor, "3 3 N T J"]  # root^T root is the inverse of a joint's own matrix
    coupling: Float[Tensor, "N T VP J3"]  # root times a joint's part in the cameras' equations
    joints: Float[Tensor, "N T J3"]  # root times a joint's right-hand side


def _step(
    state: Solved, detections: Detections, priors: Priors, basis: Basis, tolerance: float
) -> tuple[Tensor, Cameras]:
    pose, cameras = state.pose, state.cameras
    normal = _eliminate_joints(state, detections, priors, tolerance, basis.n_of_view > 0)
    if basis.standing:
        change = _solve_standing(normal, basis)
    else:
        change = _solve_cameras(normal, cameras, priors, basis)
    flat = change.flatten(2)[..., None]
    joints = normal.joints - (normal.coupling.mT @ flat)[..., 0]
    joints = joints.unflatten(2, (3, -1))
    joints = torch.einsum("rcntj,ntrj->ntjc", normal.root, joints)
    cameras = cameras._replace(
        origin=cameras.origin + change[..., :2],
        log_nearness=cameras.log_nearness + change[..., 2].clamp(-LONGEST, LONGEST),
    )
    if basis.n_of_view:
        cameras = cameras._replace(
            rotation=from_axis_angle(change[..., 3:6]) @ cameras.rotation,
            log_focal=cameras.log_focal + change[..., 6].clamp(-LONGEST, LONGEST),
        )
    return pose + joints, cameras


def _eliminate_joints(
    state: Solved, detections: Detections, priors: Priors, tolerance: float, turning: bool
) -> _Normal:
    pose, cameras = state.pose, state.cameras
    seen = project(cameras, pose)
    by_joint, by_camera = derivatives(cameras, seen, turning)
    residual = detections.points.movedim(-1, 0) - seen.image
    weight = robust_weights(residual.square().sum(0), detections.confidence, tolerance)
    root, damping = weight.sqrt(), state.damping[:, None, None]
    # Coordinates come first, so that all arithmetic is of long rows; 3 x 3 matrices are too small.
    of_joint, of_camera, gap = by_joint.mul_(root), by_camera.mul_(root), residual.mul_(root)

    matrix = torch.stack([_dot(of_joint[:, i], of_joint[:, j]) for i, j in LOWER]).sum(-2)
    trace = (matrix[0] + matrix[2] + matrix[5]) / 3
    matrix[DIAGONAL] += damping * trace + (priors.pose_weight + 1e-9)
    right = _dot(of_joint, gap[:, None]).sum(-2)
    right += priors.pose_weight * (priors.pose - pose).movedim(-1, 0)
    inverse = _inverse_cholesky(matrix)  # 3 3 N T J
    coupling = _dot(of_joint[:, :, None], of_camera[:, None])  # 3 P N T V J
    turned = inverse[:, 0, None, :, :, None] * coupling[0]
    turned.addcmul_(inverse[:, 1, None, :, :, None], coupling[1])
    turned.addcmul_(inverse[:, 2, None, :, :, None], coupling[2])
    coupling = turned.permute(2, 3, 4, 1, 0, 5).flatten(4).flatten(2, 3)  # N T VP 3J
    joints = torch.einsum("rcntj,cntj->ntrj", inverse, right).flatten(2)

    n, t, v = cameras.log_focal.shape
    rows = of_camera.permute(2, 3, 4, 1, 0, 5).flatten(4)  # N T V P 2J
    own = rows @ rows.mT
    right_of_camera = (rows @ gap.permute(1, 2, 3, 0, 4).flatten(3)[..., None])[..., 0]
    expected, prior = (part[..., : rows.shape[3]] for part in _camera_priors(cameras, priors))
    diagonal = own.diagonal(dim1=-2, dim2=-1)
    diagonal += damping[..., None] * diagonal + prior + 1e-9
    whole = (coupling @ coupling.mT).neg_().view(n, t, v, -1, v, rows.shape[3])
    whole.diagonal(dim1=2, dim2=4).add_(own.permute(0, 1, 3, 4, 2))
    right_of_camera += prior * expected
    right_of_camera -= (coupling @ joints[..., None]).view(right_of_camera.shape)
    return _Normal(whole, right_of_camera, inverse, coupling, joints)


LOWER = ((0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2))  # of a symmetric 3 x 3 matrix
DIAGONAL = [0, 2, 5]


def _dot(a: Float[Tensor, "2 ..."], b: Float[Tensor, "2 ..."]) -> Tensor:
    """Products of image coordinates, summed."""
    return (a[0] * b[0]).addcmul_(a[1], b[1])


def _camera_priors(
    cameras: Cameras, priors: Priors
) -> tuple[Float[Tensor, "N T V 7"], Float[Tensor, "N T V 7"]]:
    """What is expected of a camera's unknowns beyond what they are, and its weight."""
    zero = torch.zeros_like(cameras.log_nearness)[..., None].expand(-1, -1, -1, 3)
    gap = [
        priors.origin - cameras.origin,
        (priors.log_nearness - cameras.log_nearness)[..., None],
        zero,
        (priors.log_focal - cameras.log_focal)[..., None],
    ]
    weight = [
        torch.full_like(gap[0], priors.origin_weight),
        torch.full_like(gap[1], priors.nearness_weight),
        zero,
        torch.full_like(gap[3], priors.focal_weight),
    ]
    return torch.cat(gap, -1), torch.cat(weight, -1)


def _solve_cameras(
    normal: _Normal, cameras: Cameras, priors: Priors, basis: Basis
) -> Float[Tensor, "N T V P"]:
    n, t, v = normal.right.shape[:3]
    size = N_LOCAL * v
    local = normal.matrix[:, :, :, :N_LOCAL, :, :N_LOCAL].reshape(n, t, size, size)
    right = normal.right[..., :N_LOCAL].reshape(n, t, size, 1)
    factor, _ = torch.linalg.cholesky_ex(local)
    if basis.n_of_view == 0:
        return torch.cholesky_solve(right, factor).reshape(n, t, v, N_LOCAL)
    spread = _spread(basis)
    between = normal.matrix[:, :, :, :N_LOCAL, :, N_LOCAL:].reshape(n, t, size * v, 4) @ spread
    between = between.reshape(n, t, size, -1)
    globals_ = normal.matrix[:, :, :, N_LOCAL:, :, N_LOCAL:]
    whole = (
        torch.einsum("tac,ntuavb,tbd->nucvd", spread, globals_, spread).flatten(3).flatten(1, 2)
    )
    pull = torch.einsum("tac,ntva->nvc", spread, normal.right[..., N_LOCAL:])
    both = torch.linalg.solve_triangular(factor, torch.cat([between, right], -1), upper=False)
    known, rest = both[..., :-1], both[..., -1:]
    flat = known.flatten(1, 2)
    whole = whole - flat.mT @ flat
    pull = pull.reshape(n, -1, 1) - flat.mT @ rest.flatten(1, 2)
    found = _solve_globals(whole, pull, cameras, priors, basis)
    local_found = torch.linalg.solve_triangular(
        factor.mT, rest - known @ found[:, None], upper=True
    )
    of_view = torch.einsum("tac,nvc->ntva", spread, found.reshape(n, v, -1))
    return torch.cat([local_found.reshape(n, t, v, N_LOCAL), of_view], -1)


def _solve_standing(normal: _Normal, basis: Basis) -> Float[Tensor, "N T V P"]:
    """One change of each camera for all frames."""
    n, t, v, size = normal.right.shape
    if basis.n_of_view == 0:
        return torch.zeros_like(normal.right)
    matrix = normal.matrix.sum(1).reshape(n, v * size, v * size)
    right = normal.right.sum(1).reshape(n, v * size, 1)
    if basis.shared_focal:
        gather = _shared(v, size - 1, 1, matrix)
        found = gather @ _solve(gather.mT @ matrix @ gather, gather.mT @ right, ridge=1e-9)
    else:
        found = _solve(matrix, right, ridge=1e-9)
    return found.reshape(n, 1, v, size).expand(-1, t, -1, -1)


def standing_matrix(
    solved: Solved, detections: Detections, priors: Priors, tolerance: float
) -> Float[Tensor, "N V P V P"]:
    """Normal matrix of cameras that stand still, all joints eliminated, without damping.

    It determines nothing of a similarity of the room.
    """
    steady = solved._replace(damping=torch.zeros_like(solved.damping))
    return _eliminate_joints(steady, detections, priors, tolerance, turning=True).matrix.sum(1)


def _spread(basis: Basis) -> Float[Tensor, "T 4 G"]:
    """From the unknowns of a camera in a window to its turn (3) and focal length in each frame."""
    n_turn = basis.turn.shape[1]
    made = basis.turn.new_zeros(len(basis.turn), 4, basis.n_of_view)
    for axis in range(3):
        made[:, axis, axis * n_turn : (axis + 1) * n_turn] = basis.turn
    made[:, 3, 3 * n_turn :] = basis.focal
    return made


def _solve_globals(
    matrix: Tensor, right: Tensor, cameras: Cameras, priors: Priors, basis: Basis
) -> Float[Tensor, "N VG 1"]:
    n, v, n_turn = len(matrix), cameras.rotation.shape[2], basis.turn.shape[1]
    if n_turn > 1:
        step = torch.eye(n_turn, dtype=matrix.dtype, device=matrix.device).diff(dim=0)
        against = priors.turn_weight * (step.mT @ step)
        turns = torch.einsum("kl,nkvc->nvcl", step, _turns(cameras, basis))
        blocks = matrix.view(n, v, basis.n_of_view, v, basis.n_of_view)
        blocks = blocks.diagonal(dim1=1, dim2=3)  # N G G V
        for axis in range(3):
            at = slice(axis * n_turn, (axis + 1) * n_turn)
            blocks[:, at, at] += against[..., None]
            right.view(n, v, -1)[:, :, at] -= priors.turn_weight * turns[:, :, axis]
    if basis.shared_focal:
        gather = _shared(v, 3 * n_turn, basis.focal.shape[1], matrix)
        reduced = _solve(gather.mT @ matrix @ gather, gather.mT @ right)
        return gather @ reduced
    return _solve(matrix, right)


def _shared(n_views: int, n_turn: int, n_focal: int, like: Tensor) -> Float[Tensor, "VG F"]:
    """Unknowns of all views from those that are left when focal lengths are shared."""
    per_view = n_turn + n_focal
    made = like.new_zeros(n_views, per_view, n_views * n_turn + n_focal)
    for view in range(n_views):
        for turn in range(n_turn):
            made[view, turn, view * n_turn + turn] = 1
        for focal in range(n_focal):
            made[view, n_turn + focal, n_views * n_turn + focal] = 1
    return made.flatten(0, 1)


def _solve(
    matrix: Float[Tensor, "N G G"], right: Float[Tensor, "N G 1"], ridge: float = 1e-6
) -> Tensor:
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    added = ridge * diagonal.mean(-1, keepdim=True).clamp_min(1e-6) + torch.zeros_like(diagonal)
    factor, _ = torch.linalg.cholesky_ex(matrix + torch.diag_embed(added))
    return torch.cholesky_solve(right, factor)


def _inverse_cholesky(lower: Float[Tensor, "6 N T J"]) -> Float[Tensor, "3 3 N T J"]:
    """The inverse of the lower Cholesky factor of positive definite matrices."""
    a, b, d, c, e, f = lower
    xx = a.rsqrt()
    b, c = b * xx, c * xx
    yy = (d - b * b).clamp_min(1e-20).rsqrt()
    e = (e - c * b) * yy
    zz = (f - c * c - e * e).clamp_min(1e-20).rsqrt()
    yx, zy = -yy * b * xx, -zz * e * yy
    zx = -zz * (c * xx + e * yx)
    zero = torch.zeros_like(a)
    return torch.stack([xx, zero, zero, yx, yy, zero, zx, zy, zz]).unflatten(0, (3, 3))


def joint_covariance(
    solved: Solved, detections: Detections, priors: Priors, tolerance: float
) -> Float[Tensor, "N T J 3 3"]:
    """Covariance of joints for cameras that are as they are, for residuals of variance 1."""
    steady = solved._replace(damping=torch.zeros_like(solved.damping))
    root = _eliminate_joints(steady, detections, priors, tolerance, turning=False).root
    return torch.einsum("rcntj,rdntj->ntjcd", root, root)
