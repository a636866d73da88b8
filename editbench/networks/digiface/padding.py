"""TensorFlow's padding in PyTorch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def same_margins(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels that padding "SAME" adds before and after one side of a picture.

    The output has ceil(size / stride) pixels. Where the sum is odd, the extra one comes after: with
    an even size, a kernel of 3 and a stride of 2 that is (0, 1), while PyTorch's padding=1 gives
    (1, 1) and shifts the picture by a pixel.

    Args:
        size: pixels of the side.
        kernel: pixels of the kernel's side.
        stride: in pixels.
    """
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], value: float) -> Tensor:
    """Pad pictures (N, C, H, W) as TensorFlow's "SAME" does.

    Args:
        x: pictures.
        kernel: (height, width) of the kernel that follows.
        stride: (down, right) of it.
        value: of the new pixels; -inf before a maximum.
    """
    top, bottom = same_margins(x.shape[2], kernel[0], stride[0])
    left, right = same_margins(x.shape[3], kernel[1], stride[1])
    return F.pad(x, (left, right, top, bottom), value=value)


def convolve_same(
    x: Tensor, kernel: Tensor, bias: Tensor | None, stride: tuple[int, int], groups: int = 1
) -> Tensor:
    """A convolution with TensorFlow's "SAME" padding.

    Args:
        x: pictures (N, C, H, W).
        kernel: (out, C / groups, height, width).
        bias: (out,), or None.
        stride: (down, right).
        groups: of channels.
    """
    size = (kernel.shape[2], kernel.shape[3])
    top, bottom = same_margins(x.shape[2], size[0], stride[0])
    left, right = same_margins(x.shape[3], size[1], stride[1])
    # Equal margins are the convolution's own, which spares a copy of the picture.
    if (top, left) == (bottom, right):
        return F.conv2d(x, kernel, bias, stride, (top, left), groups=groups)
    return F.conv2d(pad_same(x, size, stride, 0.0), kernel, bias, stride, groups=groups)
