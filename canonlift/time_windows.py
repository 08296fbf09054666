"""Overlapping windows that together cover a number of consecutive frames."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def window_starts(
    n_frames: int, length: int, stride: int | None = None, device: torch.device | None = None
) -> Int[Tensor, " N"]:
    """First frame of each window; the last window ends with the last frame.

    So the last window may overlap the one before by more than the others do. There is one window,
    from frame 0, where the frames are no more than `length`.

    Args:
        n_frames: frames to cover, at least 1.
        length: frames of a window.
        stride: frames from one window to the next; more than `length` leaves frames out. None:
            half the length, at least 1.
        device: where the result is.

    Raises:
        ValueError: if the stride is not at least 1.
    """
    last = max(0, n_frames - length)
    stride = max(1, length // 2) if stride is None else stride
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    count = -(-last // stride) + 1
    return (stride * torch.arange(count, device=device)).clamp_max(last)


def window_frames(
    n_frames: int, length: int, stride: int | None = None, device: torch.device | None = None
) -> Int[Tensor, "N L"]:
    """Frames of the windows of `window_starts`; shorter ones where there are too few frames."""
    length = min(length, n_frames)
    first = window_starts(n_frames, length, stride, device)
    return first[:, None] + torch.arange(length, device=device)


def triangle_weights(length: int, like: Tensor, edge: float = 1.0) -> Float[Tensor, " length"]:
    """Weight of each frame of a window: `edge` at both ends, and 1 more per frame inwards.

    The weighted mean over the windows that contain a frame fades from one window to the next. The
    dtype and the device are those of `like`.
    """
    place = torch.arange(length, dtype=like.dtype, device=like.device) + edge
    return torch.minimum(place, place.flip(0))
