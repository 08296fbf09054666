"""Layers that the networks share."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


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
        """Mix tokens; those where the mask is False are attended to by none."""
        split = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.movedim(-3, 0).transpose(-2, -3)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.proj(mixed.transpose(-2, -3).flatten(-2))


class Mlp(nn.Module):
    """Two linear layers, applied to each token by itself."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, ratio * width)
        self.act = nn.GELU()
        self.fc2 = Linear(ratio * width, width)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Both layers, with the nonlinearity between them."""
        return self.fc2(self.act(self.fc1(x)))


class Residual(nn.Module):
    """Two linear layers with a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Linear(width, width),
            nn.LeakyReLU(inplace=True),  # its own result is all that its gradient needs
            Linear(width, width),
            nn.LeakyReLU(inplace=True),
        )

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """`x` plus the layers' output."""
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
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = grad_outputs
        x, weight = ctx.saved_tensors
        to_x = multiply(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        return to_x, multiply(gradient.t(), x.t()), gradient.sum(0)


def attended(seen: Bool[Tensor, "N T"]) -> Bool[Tensor, "N T"]:
    """Frames to attend to: the observed ones, or all where none is, as softmax needs one."""
    return seen | ~seen.any(-1, keepdim=True)
