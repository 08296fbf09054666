"""Networks over time: windows of 2D poses in, 3D poses in camera axes out.

All read x, y and confidence of every joint, and lift each view by itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from canonlift.models.mlp import Linear, Residual
from canonlift.suggestions import unknown
from canonlift.types import Motion, Windows

# Settings that the shapes of the weights depend on.
SHAPE = ("backbone", "length", "depth", "heads", "width", "head_width")
LAYER_NORM_EPS = 1e-6  # as MotionBERT's weights were trained with


@dataclass(frozen=True)
class SequenceConfig:
    """Windows, and the network that lifts them. Lengths are in frames."""

    backbone: str = "temporal"  # row of BACKBONES
    length: int = 81  # of a window
    stride: int = 27  # from one window to the next
    fps: float | None = None  # rate that recordings are brought to; null: as they are
    gap: int = 15  # so many frames in which nobody was seen are no cut yet
    segment: int = 0  # that one similarity between views is for; 0: the window, 1: each frame
    depth: int = 3
    heads: int = 4
    width: int = 192
    head_width: int = 0  # dstformer: of the last layer but one; 0: as `width`

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise unknown("sequence.backbone", self.backbone, BACKBONES)
        for name in ("length", "stride", "depth", "heads", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"sequence.{name} must be positive, got {getattr(self, name)}")
        for name in ("gap", "segment", "head_width"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"sequence.{name} must not be negative, got {getattr(self, name)}"
                )
        if self.width % self.heads:
            raise ValueError(
                f"sequence.width must be a multiple of sequence.heads, got {self.width} and "
                f"{self.heads}"
            )
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"sequence.fps must be positive, got {self.fps}")
        if self.segment > self.length:
            raise ValueError(
                f"sequence.segment must not exceed sequence.length, got {self.segment} and "
                f"{self.length}; 0 is the whole window"
            )


class SequenceLifter(nn.Module):
    """Lifts every view of a window by itself, to poses centred on the root joint.

    The input is divided by its size in the whole window, and the result is multiplied by it
    again, so it is in the unit of the keypoints: under weak perspective, x and y are the image.
    """

    def __init__(self, config: SequenceConfig, n_joints: int, root: int) -> None:
        super().__init__()
        self.root = root
        self.backbone = BACKBONES[config.backbone](config, n_joints)

    def forward(self, windows: Windows) -> Motion:
        """Lift each view; frames in which nothing was observed get some finite answer."""
        seen = windows.observed[..., None]
        keypoints = torch.where(seen, windows.keypoints / windows.unit, 0.0)
        given = torch.cat([keypoints, windows.confidence[..., None]], dim=-1)
        pose = self.backbone(given.flatten(0, 1), windows.observed.any(-1).flatten(0, 1))
        pose = pose.to(keypoints.dtype).view_as(given) * windows.unit
        return Motion(pose - pose[..., self.root : self.root + 1, :])

    @torch.no_grad()
    def mirror(self) -> None:
        """Become the exact mirror image in depth: the rows of the last layer that make z."""
        layer = self.backbone.head
        layer.weight[2::3].neg_()
        layer.bias[2::3].neg_()


class Attention(nn.Module):
    """Attention of tokens to each other over the last axis but one (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(
        self, x: Float[Tensor, "*batch n width"], mask: Bool[Tensor, "*#batch 1 1 n"] | None
    ) -> Float[Tensor, "*batch n width"]:
        """Mix tokens; those where the mask is False are listened to by none."""
        split = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.movedim(-3, 0).transpose(-2, -3)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.proj(mixed.transpose(-2, -3).flatten(-2))


class Mlp(nn.Module):
    """Two layers, each token by itself."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, ratio * width)
        self.act = nn.GELU()
        self.fc2 = Linear(ratio * width, width)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Widen, bend, narrow."""
        return self.fc2(self.act(self.fc1(x)))


class DualBlock(nn.Module):
    """One stream of a DSTformer layer: over joints and over time, in one order or the other."""

    def __init__(self, config: SequenceConfig, time_first: bool) -> None:
        super().__init__()
        self.time_first = time_first
        for axis in ("s", "t"):  # the names of MotionBERT's weights
            setattr(self, f"norm1_{axis}", nn.LayerNorm(config.width, eps=LAYER_NORM_EPS))
            setattr(self, f"norm2_{axis}", nn.LayerNorm(config.width, eps=LAYER_NORM_EPS))
            setattr(self, f"attn_{axis}", Attention(config.width, config.heads))
            setattr(self, f"mlp_{axis}", Mlp(config.width, ratio=4))

    def forward(
        self, x: Float[Tensor, "N T J width"], mask: Bool[Tensor, "N 1 1 1 T"]
    ) -> Float[Tensor, "N T J width"]:
        """Both halves in turn."""
        for over_time in (self.time_first, not self.time_first):
            x = self._over_time(x, mask) if over_time else self._over_joints(x)
        return x

    def _over_joints(self, x: Tensor) -> Tensor:
        x = x + self.attn_s(self.norm1_s(x), None)
        return x + self.mlp_s(self.norm2_s(x))

    def _over_time(self, x: Tensor, mask: Tensor) -> Tensor:
        mixed = self.attn_t(self.norm1_t(x).transpose(1, 2), mask)
        x = x + mixed.transpose(1, 2)
        return x + self.mlp_t(self.norm2_t(x))


class DSTformer(nn.Module):
    """Two streams over joints and time, weighed token by token (MotionBERT, Sec. 3.2).

    Parameters have the names of the published weights. Unlike there, frames in which nothing was
    observed are hidden from the others.
    """

    def __init__(self, config: SequenceConfig, n_joints: int) -> None:
        super().__init__()
        width, code = config.width, config.head_width or config.width
        self.joints_embed = Linear(3, width)
        self.temp_embed = nn.Parameter(torch.empty(1, config.length, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, n_joints, width))
        self.blocks_st = nn.ModuleList(DualBlock(config, False) for _ in range(config.depth))
        self.blocks_ts = nn.ModuleList(DualBlock(config, True) for _ in range(config.depth))
        self.ts_attn = nn.ModuleList(Linear(2 * width, 2) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.pre_logits = nn.Sequential()
        self.pre_logits.add_module("fc", Linear(width, code))
        self.pre_logits.add_module("act", nn.Tanh())
        self.head = Linear(code, 3)
        for parameter in (self.temp_embed, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for weigh in self.ts_attn:  # both streams alike
            nn.init.zeros_(weigh.weight)

    def forward(
        self, given: Float[Tensor, "N T J 3"], seen: Bool[Tensor, "N T"]
    ) -> Float[Tensor, "N T J 3"]:
        """Poses; `seen` are the frames in which anything was."""
        x = self.joints_embed(given) + self.pos_embed
        x = x + self.temp_embed[:, : given.shape[1]]
        mask = _attended(seen)[:, None, None, None]
        for first, second, weigh in zip(self.blocks_st, self.blocks_ts, self.ts_attn, strict=True):
            streams = first(x, mask), second(x, mask)
            share = weigh(torch.cat(streams, dim=-1)).softmax(-1)
            x = streams[0] * share[..., :1] + streams[1] * share[..., 1:]
        return self.head(self.pre_logits(self.norm(x)))


class Temporal(nn.Module):
    """A small network: one token per frame, attention over time alone.

    It says how the pose differs from the flat one that was seen, so training starts from that.
    """

    def __init__(self, config: SequenceConfig, n_joints: int) -> None:
        super().__init__()
        width = config.width
        self.encode = nn.Sequential(Linear(3 * n_joints, width), nn.GELU(), Residual(width))
        self.place = nn.Parameter(torch.empty(config.length, width))
        nn.init.trunc_normal_(self.place, std=0.02)
        self.layers = nn.ModuleList(TimeLayer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.head = _last(width, 3 * n_joints)

    def forward(
        self, given: Float[Tensor, "N T J 3"], seen: Bool[Tensor, "N T"]
    ) -> Float[Tensor, "N T J 3"]:
        """Poses; `seen` are the frames in which anything was."""
        x = self.encode(given.flatten(-2)) + self.place[: given.shape[1]]
        mask = _attended(seen)[:, None, None]
        for layer in self.layers:
            x = layer(x, mask)
        return _flat(given) + self.head(self.norm(x)).unflatten(-1, (-1, 3))


class TimeLayer(nn.Module):
    """Attention over time, and two layers for every frame."""

    def __init__(self, config: SequenceConfig) -> None:
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

    def __init__(self, config: SequenceConfig, n_joints: int) -> None:
        super().__init__()
        width = config.width
        self.encode = nn.Sequential(Linear(3 * n_joints, width), nn.LeakyReLU(inplace=True))
        self.layers = nn.Sequential(*(Residual(width) for _ in range(config.depth)))
        self.head = _last(width, 3 * n_joints)

    def forward(
        self,
        given: Float[Tensor, "N T J 3"],
        seen: Bool[Tensor, "N T"],  # noqa: ARG002
    ) -> Float[Tensor, "N T J 3"]:
        """Poses, none of which depends on another frame."""
        x = self.layers(self.encode(given.flatten(-2)))
        return _flat(given) + self.head(x).unflatten(-1, (-1, 3))


def _attended(seen: Bool[Tensor, "N T"]) -> Bool[Tensor, "N T"]:
    """Frames to listen to: those seen, or all where none was, which softmax could not do."""
    return seen | ~seen.any(-1, keepdim=True)


def _last(width: int, n_outputs: int) -> Linear:
    """A layer that begins by saying next to nothing."""
    layer = Linear(width, n_outputs)
    nn.init.trunc_normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


def _flat(given: Float[Tensor, "N T J 3"]) -> Float[Tensor, "N T J 3"]:
    """The pose seen, without depth."""
    return nn.functional.pad(given[..., :2], (0, 1))


# Each has a last layer `head` whose outputs are x, y and z of one joint after another.
BACKBONES: Mapping[str, Callable[[SequenceConfig, int], nn.Module]] = {
    "dstformer": DSTformer,
    "temporal": Temporal,
    "frame": Frame,
}
