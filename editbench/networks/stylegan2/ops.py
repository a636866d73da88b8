"""Signal operations of StyleGAN2 in plain PyTorch: FIR resampling and the scaled activation.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", appendix B. It needs no
compiled extensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# The low-pass filter of the published networks (`resample_kernel`).
FIR = (1.0, 3.0, 3.0, 1.0)
# He et al. 2015: on average half of the units are zero, which halves the second moment.
ACTIVATION_GAIN = math.sqrt(2)


def fir_kernel(gain: float = 1.0, taps: Sequence[float] = FIR) -> Tensor:
    """A separable low-pass filter as a kernel of sum `gain`.

    Args:
        gain: sum of the kernel.
        taps: (L,) weights of one axis, of any sum above 0.

    Returns:
        (L, L).
    """
    row = torch.tensor(taps)
    kernel = torch.outer(row, row)
    return kernel * (gain / kernel.sum())


def fir_filter(x: Tensor, kernel: Tensor, pad: tuple[int, int]) -> Tensor:
    """Convolve each channel with a kernel.

    Args:
        x: (N, C, H, W).
        kernel: (L, L).
        pad: zeros (before, after) on both axes.

    Returns:
        (N, C, H + before + after - L + 1, and W likewise).
    """
    before, after = pad
    # conv2d can only pad both ends equally.
    if before != after:
        x = F.pad(x, (before, after, before, after))
        before = 0
    # conv2d is a correlation, so the kernel is flipped. Each channel is a separate group.
    weight = kernel.to(x.dtype).flip((0, 1)).expand(x.shape[1], 1, *kernel.shape)
    return F.conv2d(x, weight, padding=before, groups=x.shape[1])


def fir_upsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Double the size of images or features.

    Args:
        x: (N, C, H, W).
        kernel: (L, L), with a gain of 4, which compensates for the inserted zeros.

    Returns:
        (N, C, 2 H, 2 W).
    """
    height = 2 * x.shape[2]
    width = 2 * x.shape[3]
    # The transposed convolution inserts zeros between pixels and filters in one step.
    taps = len(kernel)
    weight = kernel.to(x.dtype).expand(x.shape[1], 1, *kernel.shape)
    x = F.conv_transpose2d(x, weight, stride=2, padding=taps // 2 - 1, groups=x.shape[1])
    # A filter of odd length gives one row and one column too many.
    if taps % 2:
        return x[:, :, :height, :width]
    return x


def scaled_leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2 with the gain sqrt(2), which preserves the variance."""
    return F.leaky_relu(x, 0.2) * ACTIVATION_GAIN
