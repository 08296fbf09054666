"""Layers that the networks share."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

# What matrices are multiplied in, in training. tf32 is float32 of which a GPU multiplies 10 bits.
PRECISIONS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
}


def multiplying(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """In which the products of a network's forward pass have that precision, and nothing else."""
    if PRECISIONS[precision] != torch.float32:
        return torch.autocast(device.type, PRECISIONS[precision])
    return tf32(precision, device)


def tf32(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """In which a GPU multiplies in TF32, where that is the precision; for backward passes too.

    What torch.compile makes takes the setting of when it is called, so set this around it.
    """
    on = precision == "tf32" and device.type == "cuda" and not torch.compiler.is_compiling()
    return _tf32() if on else nullcontext()


@contextmanager
def _tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def recomputed(block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """What a block makes of its inputs; its activations are computed again when gradients are."""
    if not torch.is_grad_enabled():
        return block(*inputs)
    # Nothing here is random.
    found: Any = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
    return found


def called(block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """What a block makes of its inputs; its activations are kept."""
    return block(*inputs)


def in_full(layer: nn.Linear, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
    """A layer in the precision of its weights: bfloat16 would round positions to 4 mm."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(layer.weight.dtype))


MOST_ROWS = 65535  # of one call of CUDA's kernels of attention


class Attention(nn.Module):
    """Attention of the tokens of each row to each other (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(
        self, x: Float[Tensor, "N n width"], mask: Bool[Tensor, "N 1 1 n"] | None
    ) -> Float[Tensor, "N n width"]:
        """Mix tokens; those where the mask is False are attended to by none.

        There is one axis of rows, as a GPU's kernels take no other, and the alternative to these
        holds every weight of every token.
        """
        split = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        parts = split.movedim(-3, 0).transpose(-2, -3).split(MOST_ROWS, dim=1)
        masks = [None] * len(parts) if mask is None else mask.split(MOST_ROWS)
        mixed = [
            scaled_dot_product_attention(*part, attn_mask=own)
            for part, own in zip(parts, masks, strict=True)
        ]
        return self.proj(torch.cat(mixed).transpose(-2, -3).flatten(-2))


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
