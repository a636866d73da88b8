"""Layers of the StyleGAN3 generator (Karras et al. 2021, section 3 and appendices C, D and F).

Styles are the raw outputs of the layers' affine maps, so there is only one space S. The filters and
the mean magnitudes are buffers; a converted network has those of its file.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.base.precision import exact, lowered
from editbench.base.spaces import WeightShift
from editbench.networks.stylegan2 import layers as stylegan2
from editbench.networks.stylegan2.layers import EqualLinear, ModulatedConv, picked, shifted
from editbench.networks.stylegan2.ops import ACTIVATION_GAIN
from editbench.networks.stylegan3.activation import Resampling, filtered_leaky_relu
from editbench.networks.stylegan3.config import LayerDesign
from editbench.networks.stylegan3.filters import low_pass


class FourierFeatures(nn.Module):
    """The input: sine waves over the plane, rotated and translated by w, then mixed (appendix F).

    The style has four values: (cos, sin) of a rotation, not normalised, and a translation (x, y) in
    units of the image's side, positive to the right and down.

    Args:
        w_dim: size of w.
        channels: number of waves, and channels of the output.
        size: side in pixels.
        rate: pixels per side of the image.
        bandwidth: largest initial frequency, in cycles per image.
    """

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, w_dim: int, channels: int, size: int, rate: int, bandwidth: float) -> None:
        super().__init__()
        self.size = size
        self.rate = rate
        self.bandwidth = bandwidth
        self.gain = 1 / math.sqrt(channels)
        self.affine = EqualLinear(w_dim, 4)
        # Initially there is no motion.
        nn.init.zeros_(self.affine.weight)
        self.affine.bias.data.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        self.weight = nn.Parameter(torch.randn(channels, channels))
        # Uniformly distributed over the disc of frequencies within the bandwidth.
        radius = bandwidth * torch.rand(channels).sqrt()
        angle = 2 * math.pi * torch.rand(channels)
        self.register_buffer("freqs", torch.stack([radius * angle.cos(), radius * angle.sin()], 1))
        self.register_buffer("phases", torch.rand(channels) - 0.5)
        # An additional motion that a user may set; editors do not change it.
        self.register_buffer("transform", torch.eye(3))

    def forward(self, _: Tensor, style: Tensor, shift: WeightShift | None = None) -> Tensor:
        # style (N, 4) -> (N, channels, size, size), channels last in memory. As the first layer, it
        # has no features as input.
        with exact(style.device):
            waves = self.waves(style)
            shift = None if shift is None else picked(shift)
            x = shifted(
                lambda y, weight: F.linear(y, weight * self.gain), waves, self.weight, shift
            )
            return x.permute(0, 3, 1, 2)

    def waves(self, style: Tensor) -> Tensor:
        """style (N, 4) -> (N, size, size, channels), each wave at the centres of the pixels."""
        motion = inverse_motion(style) @ self.transform
        # A point p of the image shows the plane at M p. The waves are transformed instead of p.
        freqs = self.freqs @ motion[:, :2, :2]
        phases = self.phases + (self.freqs @ motion[:, :2, 2:])[:, :, 0]
        # Waves with frequencies too high for the pixels fade out.
        room = self.rate / 2 - self.bandwidth
        amplitudes = (1 - (freqs.norm(dim=2) - self.bandwidth) / room).clamp(0, 1)
        place = torch.arange(self.size, device=style.device, dtype=style.dtype) + 0.5
        place = (place - self.size / 2) / self.rate
        along_x = place[:, None] * freqs[:, None, :, 0]
        along_y = place[:, None] * freqs[:, None, :, 1] + phases[:, None, :]
        angle = along_y[:, :, None, :] + along_x[:, None, :, :]
        return torch.sin(2 * math.pi * angle) * amplitudes[:, None, None, :]


def inverse_motion(style: Tensor) -> Tensor:
    """(N, 4) styles of the input -> (N, 3, 3) matrices M from the image to the plane.

    M = R T, where R is the rotation by the first two values, normalised, and T is the translation
    by the negative of the last two, divided by the same norm (appendix F).
    """
    style = style / style[:, :2].norm(dim=1, keepdim=True)
    cos, sin, x, y = style.unbind(1)
    zero = torch.zeros_like(x)
    rows = (
        (cos, -sin, sin * y - cos * x),
        (sin, cos, -sin * x - cos * y),
        (zero, zero, zero + 1),
    )
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


class FilteredConv(ModulatedConv):
    """Modulated, demodulated convolution, bias, and the alias-free activation.

    As in StyleGAN2, the style multiplies the input and the demodulation the output, so that one
    dense convolution is shared by the batch.

    Args:
        design: sizes and filters.
        w_dim: size of w.
        clamp: bound of the leaky ReLU's output.
    """

    magnitude_ema: Tensor
    up_filter: Tensor
    down_filter: Tensor

    def __init__(self, design: LayerDesign, w_dim: int, clamp: float | None = None) -> None:
        super().__init__()
        self.design = design
        self.gain = 1 / math.sqrt(design.kernel**2 * design.n_in)  # as in StyledConv
        # With a bias of 1, styles are initially 1 on average.
        self.affine = EqualLinear(w_dim, design.n_in, bias=1.0)
        shape = (design.n_out, design.n_in, design.kernel, design.kernel)
        self.weight = nn.Parameter(torch.randn(shape))
        self.bias = nn.Parameter(torch.zeros(design.n_out))
        # Running mean of the squared input over training, by which the input is normalised.
        self.register_buffer("magnitude_ema", torch.ones(()))
        self.register_buffer(
            "up_filter",
            low_pass(
                design.up_taps, design.in_cutoff, design.in_half_width, design.rate, radial=False
            ),
        )
        self.register_buffer(
            "down_filter",
            low_pass(
                design.down_taps,
                design.out_cutoff,
                design.out_half_width,
                design.rate,
                design.radial,
            ),
        )
        before, _ = design.padding
        self.how = Resampling(
            design.up, design.down, design.up_taps - 1 - before, design.out_size, clamp
        )

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        # All outputs that depend on a pixel; the filters later crop the margin.
        return F.conv2d(x, weight.to(x.dtype), padding=self.design.kernel - 1)

    def forward(self, x: Tensor, style: Tensor, shift: WeightShift | None = None) -> Tensor:
        # x (N, n_in, h, h), style (N, n_in) -> (N, n_out, H, H)
        shift = None if shift is None else picked(shift)
        with exact(x.device):
            scale = self.demodulation(style, shift) * self.magnitude_ema.rsqrt()
        # Products with large styles would exceed the range of half precision.
        if lowered(x.device):
            style = style * self.gain
            scale = scale / self.gain
        x = shifted(self.convolve, x * style[:, :, None, None].to(x.dtype), self.weight, shift)
        bias = self.bias[:, None, None].to(x.dtype)
        scale = scale[:, :, None, None].to(x.dtype)
        # As in StyledConv: not in place if a gradient needs x unchanged.
        if torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad):
            x = (x * scale).add_(bias)
        else:
            x.mul_(scale).add_(bias)
        return filtered_leaky_relu(x, *self.taps(), self.how)

    def taps(self) -> tuple[Tensor, Tensor]:
        """The filters with their gains, for `filtered_leaky_relu`."""
        # The gain of the activation commutes with a leaky ReLU, and the inserted zeros reduce the
        # amplitude by `up` per axis. Both gains are split over the two passes.
        gain = self.design.up * math.sqrt(ACTIVATION_GAIN)
        if self.up_filter.dim() == 2:
            gain = gain**2
        return self.up_filter * gain, self.down_filter.flip(list(range(self.down_filter.dim())))


class ToRGB(stylegan2.ToRGB):
    """StyleGAN2's ToRGB with an input normalised to unit variance."""

    magnitude_ema: Tensor

    def __init__(
        self, n_in: int, w_dim: int, channels: int = 3, clamp: float | None = None
    ) -> None:
        super().__init__(n_in, w_dim, channels, clamp)
        self.register_buffer("magnitude_ema", torch.ones(()))

    def forward(self, x: Tensor, style: Tensor, shift: WeightShift | None = None) -> Tensor:
        return super().forward(x, style * self.magnitude_ema.rsqrt(), shift)
