"""Networks over time: windows of 2D poses in, 3D poses in camera axes out.

All read x, y and confidence of every joint, and lift each view by itself.
"""

from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from canonlift.models.config import ModelConfig
from canonlift.models.layers import (
    Attention,
    Linear,
    Mlp,
    Residual,
    attended,
    called,
    in_full,
    multiplying,
    recomputed,
)
from canonlift.models.network import Network
from canonlift.types import Lifted, Views


class CameraLifter(Network):
    """Lifts every view of a window by itself, to poses centred on the root joint.

    The input is divided by its size in the whole window, and the result is multiplied by it
    again, so it is in the unit of the keypoints: under weak perspective, x and y are the image.

    In training the layers but the last may multiply in less than float32 (`precision`).
    """

    def __init__(self, backbone: nn.Module, root: int, precision: str = "float32") -> None:
        super().__init__()
        self.root, self.precision = root, precision
        self.backbone = backbone

    def forward(self, views: Views) -> Lifted:
        """Lift each view; frames in which nothing was observed get some finite answer."""
        seen = views.observed[..., None]
        keypoints = torch.where(seen, views.keypoints / views.unit, 0.0)
        given = torch.cat([keypoints, views.confidence[..., None]], dim=-1)
        in_frame = views.observed.any(-1).flatten(0, 1)
        with multiplying(self.precision if self.training else "float32", given.device):
            pose = self.backbone(given.flatten(0, 1), in_frame)
        pose = pose.to(keypoints.dtype).view_as(given) * views.unit
        return Lifted(pose - pose[..., self.root : self.root + 1, :], None)

    @torch.no_grad()
    def mirror(self) -> None:
        """Become the exact mirror image in depth: the rows of the last layer that make z."""
        layer = cast(Linear, self.backbone.head)
        layer.weight[2::3].neg_()
        layer.bias[2::3].neg_()


class Temporal(nn.Module):
    """A small network: one token per frame, attention over time alone.

    It predicts the difference from the flat pose that was detected, so training starts from that.
    """

    def __init__(self, config: ModelConfig, length: int, n_joints: int) -> None:
        super().__init__()
        width, self.checkpointing = config.width, config.checkpointing
        self.encode = nn.Sequential(Linear(3 * n_joints, width), nn.GELU(), Residual(width))
        self.place = nn.Parameter(torch.empty(length, width))
        nn.init.trunc_normal_(self.place, std=0.02)
        self.layers = nn.ModuleList(TimeLayer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.head = small_linear(width, 3 * n_joints)

    def forward(
        self, given: Float[Tensor, "N T J 3"], seen: Bool[Tensor, "N T"]
    ) -> Float[Tensor, "N T J 3"]:
        """Poses; `seen` are the frames in which anything was observed."""
        x = self.encode(given.flatten(-2)) + self.place[: given.shape[1]]
        mask = attended(seen)[:, None, None]
        run = recomputed if self.checkpointing and self.training else called
        for layer in self.layers:
            x = run(layer, x, mask)
        return flat(given) + in_full(self.head, self.norm(x)).unflatten(-1, (-1, 3))


class TimeLayer(nn.Module):
    """Attention over time, and two layers for every frame."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.attn = Attention(config.width, config.heads)
        self.mlp = Mlp(config.width, ratio=2)

    def forward(
        self, x: Float[Tensor, "N T width"], mask: Bool[Tensor, "N 1 1 T"]
    ) -> Float[Tensor, "N T width"]:
        """Both in turn."""
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class Frame(nn.Module):
    """Every frame by itself: the one-frame network of CanonPose, without its rotation."""

    def __init__(self, config: ModelConfig, length: int, n_joints: int) -> None:  # noqa: ARG002
        super().__init__()
        width = config.width
        self.encode = nn.Sequential(Linear(3 * n_joints, width), nn.LeakyReLU(inplace=True))
        self.layers = nn.Sequential(*(Residual(width) for _ in range(config.depth)))
        self.head = small_linear(width, 3 * n_joints)

    def forward(
        self,
        given: Float[Tensor, "N T J 3"],
        seen: Bool[Tensor, "N T"],  # noqa: ARG002
    ) -> Float[Tensor, "N T J 3"]:
        """Poses, none of which depends on another frame."""
        x = self.layers(self.encode(given.flatten(-2)))
        return flat(given) + in_full(self.head, x).unflatten(-1, (-1, 3))


def small_linear(width: int, n_outputs: int) -> Linear:
    """A linear layer whose first outputs are close to 0."""
    layer = Linear(width, n_outputs)
    nn.init.trunc_normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


def flat(given: Float[Tensor, "N T J 3"]) -> Float[Tensor, "N T J 3"]:
    """The detected pose, without depth."""
    return nn.functional.pad(given[..., :2], (0, 1))
