"""The network of CanonPose and CVSF: a 2D pose in, a canonical 3D pose and a rotation out."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from canonlift.geometry import rotations
from canonlift.geometry.scale import unit_scale
from canonlift.models.config import ModelConfig
from canonlift.models.layers import Linear, Residual, multiplying
from canonlift.models.network import Network
from canonlift.types import Lifted, Views


class RotationHead(NamedTuple):
    """One way to predict a rotation."""

    to_matrix: Callable[[Tensor], Tensor]
    mirror: tuple[int, ...]  # sign of each output in the mirrored world
    start: tuple[float, ...]  # bias with which the untrained network predicts the identity


# With S = diag(1, 1, -1): S R(w) S = R(-S w), and the first two columns of S R S are S times R's.
ROTATIONS: Mapping[str, RotationHead] = {
    "axis_angle": RotationHead(rotations.from_axis_angle, (-1, -1, 1), (0.0, 0.0, 0.0)),
    "6d": RotationHead(rotations.from_six, (1, 1, -1, 1, 1, -1), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
}


class CanonicalLifter(Network):
    """Lifts every frame of every view by itself (CVSF, Sec. 3.1).

    The input is divided by its norm, so the result does not depend on the size of the person in
    the image. The pose is centred on the root joint; its scale is arbitrary, since no loss
    that an uncalibrated camera allows can see it.

    Weights, and what is computed from poses and rotations, have the precision of the input.
    In training the layers may multiply in less (`precision`); in evaluation they never do.
    """

    def __init__(self, config: ModelConfig, n_joints: int, root: int) -> None:
        super().__init__()
        self.root = root
        self.head = ROTATIONS[config.rotation]
        self.precision = config.precision
        width = config.width
        self.encode = nn.Sequential(
            Linear(3 * n_joints, width), nn.LeakyReLU(inplace=True), Residual(width)
        )
        self.pose = nn.Sequential(Residual(width), Residual(width), Linear(width, 3 * n_joints))
        self.rotation = nn.Sequential(
            Residual(width), Residual(width), Linear(width, len(self.head.start))
        )
        with torch.no_grad():
            cast(Linear, self.rotation[-1]).bias.copy_(torch.tensor(self.head.start))

    def forward(self, views: Views) -> Lifted:
        """Lift each frame of each view; those with nothing observed get some finite answer."""
        code = self._encode(views)
        rotation = self._run(self.rotation, code).to(views.keypoints.dtype)
        matrix = self.head.to_matrix(rotation).unflatten(0, views.confidence.shape[:-1])
        return Lifted(self._pose(code, views), matrix)

    def poses(self, views: Views) -> Float[Tensor, "B V *T J 3"]:
        """The poses of `forward` alone: the rotations are four tenths of its work."""
        return self._pose(self._encode(views), views)

    def _encode(self, views: Views) -> Float[Tensor, "N width"]:
        keypoints = unit_scale(views.keypoints, views.observed)
        keypoints = torch.where(views.observed[..., None], keypoints, 0.0)
        given = torch.cat([keypoints, views.confidence[..., None]], dim=-1)
        return self._run(self.encode, given.flatten(-2).flatten(0, -2))

    def _pose(self, code: Float[Tensor, "N width"], views: Views) -> Float[Tensor, "B V *T J 3"]:
        pose = self._run(self.pose, code).to(views.keypoints.dtype)
        pose = pose.view(*views.confidence.shape, 3)
        return pose - pose[..., self.root : self.root + 1, :]

    def _run(self, layers: nn.Module, x: Float[Tensor, "N n"]) -> Float[Tensor, "N m"]:
        with multiplying(self.precision if self.training else "float32", x.device):
            return layers(x)

    @torch.no_grad()
    def mirror(self) -> None:
        """Become the exact mirror image in depth: poses S X and rotations S R S.

        Every output of the last layers changes sign or does not, so the change is exact.
        """
        pose, rotation = cast(Linear, self.pose[-1]), cast(Linear, self.rotation[-1])
        device = pose.weight.device
        depth = torch.tensor([1.0, 1.0, -1.0], device=device)
        for layer, sign in (
            (pose, depth.repeat(pose.out_features // 3)),
            (rotation, torch.tensor(self.head.mirror, device=device)),
        ):
            layer.weight.mul_(sign[:, None])
            layer.bias.mul_(sign)
