"""TensorFlow's padding in PyTorch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def same_margins(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels that padding "SAME" adds before and after one axis of an image.

    The output has ceil(size / stride) pixels. If the total is odd, the extra pixel is added after.
    For example, with an even size, a kernel of 3 and a stride of 2 it is (0, 1), while PyTorch's
    padding=1 is (1, 1) and shifts the image by one pixel.

    Args:
        size: of the axis, in pixels.
        kernel: size of the kernel, in pixels.
        stride: in pixels.
    """
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], value: float) -> Tensor:
    """Pad images (N, C, H, W) like TensorFlow's "SAME".

    Args:
        x: images.
        kernel: (height, width) of the kernel that is applied next.
        stride: (vertical, horizontal) stride of the kernel.
        value: of the new pixels; -inf before a max-pooling.
    """
    top, bottom = same_margins(x.shape[2], kernel[0], stride[0])
    left, right = same_margins(x.shape[3], kernel[1], stride[1])
    return F.pad(x, (left, right, top, bottom), value=value)


def convolve_same(
    x: Tensor, kernel: Tensor, bias: Tensor | None, stride: tuple[int, int], groups: int = 1
) -> Tensor:
    """A convolution with TensorFlow's "SAME" padding.

    Args:
        x: images (N, C, H, W).
        kernel: (out, C / groups, height, width).
        bias: (out,), or None.
        stride: (vertical, horizontal).
        groups: number of groups of channels.
    """
    size = (kernel.shape[2], kernel.shape[3])
    top, bottom = same_margins(x.shape[2], size[0], stride[0])
    left, right = same_margins(x.shape[3], size[1], stride[1])
    # Equal margins can be done by the convolution, without a copy of the image.
    if (top, left) == (bottom, right):
        return F.conv2d(x, kernel, bias, stride, (top, left), groups=groups)
    return F.conv2d(pad_same(x, size, stride, 0.0), kernel, bias, stride, groups=groups)
