"""Layers of the StyleGAN2 generator. Styles are the raw output of a layer's affine map: one space S for every use."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.generators.ops import ACTIVATION_GAIN, fir_filter, fir_kernel

DEMODULATION_EPS = 1e-8


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate: weights are stored at unit variance and scaled when used."""

    def __init__(self, n_in: int, n_out: int, lr_multiplier: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((n_out,), bias / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(n_in)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)


class StyledConv(nn.Module):
    """Modulated, demodulated 3x3 convolution, with up-sampling, noise, bias and activation (Karras 2020, eq. 1 to 3).

    The style multiplies the activations and the demodulation the result, which equals modulating the kernel of each
    sample but shares one dense convolution over the batch.
    """

    noise: Tensor
    fir: Tensor

    def __init__(self, n_in: int, n_out: int, w_dim: int, resolution: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.affine = EqualLinear(w_dim, n_in, bias=1.0)
        self.weight = nn.Parameter(torch.randn(n_out, n_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(resolution, resolution))
        self.register_buffer("fir", fir_kernel(4.0), persistent=False)

    def demodulation(self, style: Tensor) -> Tensor:
        """Reciprocal norm of each modulated output kernel: style (N, n_in) -> (N, n_out)."""
        energy = self.weight.square().sum((2, 3))
        return torch.rsqrt(F.linear(style.square(), energy) + DEMODULATION_EPS)

    def forward(self, x: Tensor, style: Tensor, noise: bool = True) -> Tensor:
        # x (N, n_in, h, w), style (N, n_in) -> (N, n_out, H, W), H = 2 h where the layer up-samples
        # The gain of the activation commutes with a leaky ReLU and is cheaper on small factors than on the picture.
        demodulation = self.demodulation(style)[:, :, None, None] * ACTIVATION_GAIN
        x = x * style[:, :, None, None].to(x.dtype)
        if self.up:
            x = F.conv_transpose2d(x, self.weight.transpose(0, 1).to(x.dtype), stride=2)
            x = fir_filter(x, self.fir, (1, 1))
        else:
            x = F.conv2d(x, self.weight.to(x.dtype), padding=1)
        shift = self.bias[:, None, None]
        if noise:
            shift = shift + self.noise * self.noise_strength
        return F.leaky_relu(torch.addcmul((shift * ACTIVATION_GAIN).to(x.dtype), x, demodulation.to(x.dtype)), 0.2)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to RGB, without demodulation or noise."""

    def __init__(self, n_in: int, w_dim: int) -> None:
        super().__init__()
        self.affine = EqualLinear(w_dim, n_in, bias=1.0)
        self.weight = nn.Parameter(torch.randn(3, n_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.gain = 1 / math.sqrt(n_in)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        x = x * (style * self.gain)[:, :, None, None].to(x.dtype)
        return F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype))
