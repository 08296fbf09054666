"""DSTformer, the network of MotionBERT."""

from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from canonlift.models.config import ModelConfig
from canonlift.models.layers import Attention, Linear, Mlp, attended, called, in_full, recomputed

LAYER_NORM_EPS = 1e-6  # with which MotionBERT's weights were trained


class DualBlock(nn.Module):
    """One stream of a DSTformer layer: over joints and over time, in one order or the other."""

    def __init__(self, config: ModelConfig, time_first: bool) -> None:
        super().__init__()
        self.time_first = time_first
        width, heads = config.width, config.heads
        # s: over joints (space), t: over time, the names of MotionBERT's weights
        self.norm1_s = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.norm2_s = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn_s = Attention(width, heads)
        self.mlp_s = Mlp(width, ratio=4)
        self.norm1_t = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.norm2_t = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn_t = Attention(width, heads)
        self.mlp_t = Mlp(width, ratio=4)

    def forward(
        self, x: Float[Tensor, "N T J width"], mask: Bool[Tensor, "M 1 1 T"]
    ) -> Float[Tensor, "N T J width"]:
        """Both halves in turn; the mask has a row for every joint."""
        for over_time in (self.time_first, not self.time_first):
            x = self._over_time(x, mask) if over_time else self._over_joints(x)
        return x

    def _over_joints(self, x: Tensor) -> Tensor:
        x = x + self.attn_s(self.norm1_s(x).flatten(0, 1), None).view_as(x)
        return x + self.mlp_s(self.norm2_s(x))

    def _over_time(self, x: Tensor, mask: Tensor) -> Tensor:
        by_joint = self.norm1_t(x).transpose(1, 2)
        mixed = self.attn_t(by_joint.flatten(0, 1), mask)
        x = x + mixed.view_as(by_joint).transpose(1, 2)
        return x + self.mlp_t(self.norm2_t(x))


class DSTformer(nn.Module):
    """Two streams over joints and time, weighed token by token (MotionBERT, Sec. 3.2).

    Parameters have the names of the published weights. Unlike there, frames in which nothing was
    observed are hidden from the others.
    """

    def __init__(self, config: ModelConfig, length: int, n_joints: int) -> None:
        super().__init__()
        width, code = config.width, config.head_width or config.width
        self.checkpointing = config.checkpointing
        self.joints_embed = Linear(3, width)
        self.temp_embed = nn.Parameter(torch.empty(1, length, 1, width))
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
        for name, parameter in self.ts_attn.named_parameters():
            if name.endswith("weight"):  # both streams alike
                nn.init.zeros_(parameter)

    def forward(
        self, given: Float[Tensor, "N T J 3"], seen: Bool[Tensor, "N T"]
    ) -> Float[Tensor, "N T J 3"]:
        """Poses; `seen` are the frames in which anything was observed."""
        x = self.joints_embed(given) + self.pos_embed
        x = x + self.temp_embed[:, : given.shape[1]]
        mask = attended(seen).repeat_interleave(given.shape[2], dim=0)[:, None, None]
        run = recomputed if self.checkpointing and self.training else called
        for first, second, mix in zip(self.blocks_st, self.blocks_ts, self.ts_attn, strict=True):
            streams = run(first, x, mask), run(second, x, mask)
            x = run(partial(_weigh, mix), *streams)
        return in_full(self.head, self.pre_logits(self.norm(x)))


def _weigh(mix: nn.Module, first: Tensor, second: Tensor) -> Tensor:
    """Both streams, in shares that each token has by itself."""
    share = mix(torch.cat([first, second], dim=-1)).softmax(-1)
    return first * share[..., :1] + second * share[..., 1:]
