"""Residual StyleGAN2 discriminator with minibatch standard deviation, used only in training.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.networks.stylegan2.layers import EqualLinear
from editbench.networks.stylegan2.ops import scaled_leaky_relu

GROUP = 8  # samples whose standard deviation is taken together, at most


class EqualConv(nn.Module):
    """Convolution with equalised learning rate that keeps the size of the picture."""

    def __init__(self, n_in: int, n_out: int, size: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, size, size))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None
        # He's constant at run time: weights stay N(0, 1), and all learn at the same rate.
        self.gain = 1 / math.sqrt(n_in * size**2)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.gain, self.bias, padding=self.weight.shape[2] // 2)


class DownBlock(nn.Module):
    """Two convolutions and a halving, beside a 1x1 shortcut."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = EqualConv(n_in, n_in, 3)
        self.down = EqualConv(n_in, n_out, 3)
        self.skip = EqualConv(n_in, n_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.avg_pool2d(self.down(scaled_leaky_relu(self.conv(x))), 2)
        # sqrt(1/2) keeps the variance of the sum of two branches.
        return (scaled_leaky_relu(y) + self.skip(F.avg_pool2d(x, 2))) * math.sqrt(0.5)


class Discriminator(nn.Module):
    """Pictures (N, 3, R, R) -> logit of being real (N,).

    Args:
        channels: widths at 4, 8, ..., R pixels, in the generator's order.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.rgb = EqualConv(3, channels[-1], 1)
        # From R pixels down to 4: the generator's widths backwards.
        blocks = [DownBlock(a, b) for a, b in zip(channels[::-1], channels[-2::-1])]
        self.blocks = nn.Sequential(*blocks)
        self.conv = EqualConv(channels[0] + 1, channels[0], 3)
        # 4 x 4 positions are left.
        self.hidden = EqualLinear(channels[0] * 16, channels[0])
        self.out = EqualLinear(channels[0], 1)

    def forward(self, image: Tensor) -> Tensor:
        # channels_last is the layout that CPU convolutions prefer.
        image = image.contiguous(memory_format=torch.channels_last)
        x = self.blocks(scaled_leaky_relu(self.rgb(image)))
        x = torch.cat([x, self._minibatch_std(x)], 1)
        x = scaled_leaky_relu(self.conv(x)).flatten(1)
        return self.out(scaled_leaky_relu(self.hidden(x))).squeeze(1)

    def _minibatch_std(self, x: Tensor) -> Tensor:
        """Mean standard deviation within groups of the batch, as one more channel.

        Karras et al., "Progressive Growing of GANs", ICLR 2018, section 3.
        """
        n = len(x)
        # The last batch of a data set may not divide into groups.
        size = math.gcd(n, GROUP)
        grouped = x.float().reshape(size, n // size, *x.shape[1:])
        spread = grouped.var(0, unbiased=False).add(1e-8).sqrt()
        value = spread.mean((1, 2, 3)).repeat(size)
        return value.view(n, 1, 1, 1).expand(n, 1, *x.shape[2:]).to(x.dtype)
