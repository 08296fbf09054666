"""The network: one 2D pose in, a canonical 3D pose and a camera rotation out."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from canonlift.geometry import rotations
from canonlift.geometry.scale import unit_scale
from canonlift.suggestions import unknown
from canonlift.types import Lifted, Views


class RotationHead(NamedTuple):
    """One way to predict a rotation."""

    to_matrix: Callable[[Tensor], Tensor]
    mirror: tuple[int, ...]  # sign of each output in the mirrored world
    start: tuple[float, ...]  # bias that makes the untrained network predict no turn


# With S = diag(1, 1, -1): S R(w) S = R(-S w), and the first two columns of S R S are S times R's.
ROTATIONS: Mapping[str, RotationHead] = {
    "axis_angle": RotationHead(rotations.from_axis_angle, (-1, -1, 1), (0.0, 0.0, 0.0)),
    "6d": RotationHead(rotations.from_six, (1, 1, -1, 1, 1, -1), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
}


PRECISIONS: Mapping[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class LifterConfig:
    """Size of the network, how it speaks of rotations, and how it multiplies."""

    width: int = 1024
    rotation: str = "axis_angle"
    precision: str = "float32"  # of its products in training: row of PRECISIONS

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"lifter.width must be positive, got {self.width}")
        if self.rotation not in ROTATIONS:
            raise unknown("lifter.rotation", self.rotation, ROTATIONS)
        if self.precision not in PRECISIONS:
            raise unknown("lifter.precision", self.precision, PRECISIONS)


class Lifter(nn.Module):
    """Lifts every view by itself, as the network of CanonPose and CVSF does (CVSF, Sec. 3.1).

    The input is divided by its norm, so the result does not depend on the size of the person in
    the image. The pose is centred on the root joint; its scale is arbitrary, since no loss
    that an uncalibrated camera allows can see it.

    Weights, and what is computed from poses and rotations, have the precision of the input.
    In training the layers may multiply in less; in evaluation they never do.
    """

    def __init__(self, config: LifterConfig, n_joints: int, root: int) -> None:
        super().__init__()
        self.root = root
        self.head = ROTATIONS[config.rotation]
        self.precision = PRECISIONS[config.precision]
        width = config.width
        self.encode = nn.Sequential(
            Linear(3 * n_joints, width), nn.LeakyReLU(inplace=True), Residual(width)
        )
        self.pose = nn.Sequential(Residual(width), Residual(width), Linear(width, 3 * n_joints))
        self.rotation = nn.Sequential(
            Residual(width), Residual(width), Linear(width, len(self.head.start))
        )
        with torch.no_grad():
            self.rotation[-1].bias.copy_(torch.tensor(self.head.start))

    def forward(self, views: Views) -> Lifted:
        """Lift each view; views with nothing observed get some finite answer."""
        code = self._encode(views)
        rotation = self._run(self.rotation, code).to(views.keypoints.dtype)
        matrix = self.head.to_matrix(rotation).unflatten(0, views.keypoints.shape[:2])
        return Lifted(self._pose(code, views), matrix)

    def poses(self, views: Views) -> Float[Tensor, "B V J 3"]:
        """The poses of `forward` alone: the rotations are four tenths of its work."""
        return self._pose(self._encode(views), views)

    def _encode(self, views: Views) -> Float[Tensor, "N width"]:
        keypoints = unit_scale(views.keypoints, views.observed)
        keypoints = torch.where(views.observed[..., None], keypoints, 0.0)
        seen = torch.cat([keypoints, views.confidence[..., None]], dim=-1)
        return self._run(self.encode, seen.flatten(2).flatten(0, 1))

    def _pose(self, code: Float[Tensor, "N width"], views: Views) -> Float[Tensor, "B V J 3"]:
        pose = self._run(self.pose, code).to(views.keypoints.dtype)
        pose = pose.view(*views.confidence.shape, 3)
        return pose - pose[:, :, self.root : self.root + 1]

    def _run(self, layers: nn.Module, x: Float[Tensor, "N n"]) -> Float[Tensor, "N m"]:
        less = self.training and self.precision != torch.float32
        with torch.autocast(x.device.type, self.precision) if less else nullcontext():
            return layers(x)

    @torch.no_grad()
    def mirror(self) -> None:
        """Become the exact mirror image in depth: poses S X and rotations S R S.

        Every output of the last layers changes sign or does not, so the change is exact.
        """
        device = self.pose[-1].weight.device
        depth = torch.tensor([1.0, 1.0, -1.0], device=device)
        for layer, sign in (
            (self.pose[-1], depth.repeat(self.pose[-1].out_features // 3)),
            (self.rotation[-1], torch.tensor(self.head.mirror, device=device)),
        ):
            layer.weight.mul_(sign[:, None])
            layer.bias.mul_(sign)


class Residual(nn.Module):
    """Two linear layers and a way around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Linear(width, width),
            nn.LeakyReLU(inplace=True),  # its own result is all that its gradient needs
            Linear(width, width),
            nn.LeakyReLU(inplace=True),
        )

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Add what the layers make of `x` to it."""
        return x + self.layers(x)


class Linear(nn.Linear):
    """`nn.Linear`, whose float32 products on a CPU are oneDNN's, forward and backward.

    The same sums to rounding. PyTorch leaves them to MKL, which on processors that are not
    Intel's does without AVX-512: half as fast, or less, as measured by benchmarks/training.py.
    """

    def forward(self, input: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:  # noqa: A002
        """Rows times the transposed weight, plus the bias."""
        if not by_onednn(input, self.weight):
            return super().forward(input)
        if input.ndim == 2:  # a view would have every in-place activation copied
            return _OneDnnLinear.apply(input, self.weight, self.bias)
        rows = _OneDnnLinear.apply(input.flatten(0, -2), self.weight, self.bias)
        return rows.view(*input.shape[:-1], -1)


def multiply(
    a: Float[Tensor, "n k"], b: Float[Tensor, "m k"], bias: Float[Tensor, " m"] | None = None
) -> Float[Tensor, "n m"]:
    """Product a b^T + bias by oneDNN, in float32 on a CPU.

    The op is not documented, but torch.compile's generated code calls it too.
    """
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")


def by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether `Linear` multiplies these by oneDNN."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and HAS_ONEDNN
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # which chooses by itself
    )


HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(
    torch.ops.mkldnn, "_linear_pointwise"
)


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return multiply(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        to_x = multiply(slope, weight.t()) if ctx.needs_input_grad[0] else None
        return to_x, multiply(slope.t(), x.t()), slope.sum(0)
