"""StyleGAN3 written out slowly from its paper, in double precision: one sample, one kernel, one channel at a time.

A network is a state dict in the official names and its design; nothing of editbench's layers is used. Up- and
down-sampling insert zeros, pad, convolve with the whole two-dimensional filter, and drop samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.slow_stylegan2 import moment


def slow_w(state: Mapping[str, Tensor], z: Tensor, label: Tensor | None, gain: float) -> Tensor:
    """z (N, z_dim), label (N, c) -> w (N, w_dim)."""
    x = moment(z.double())
    if label is not None:
        weight = state["mapping.embed.weight"].double()
        embedded = label.double() @ weight.T / weight.shape[1] ** 0.5
        x = torch.cat([x, moment(embedded + state["mapping.embed.bias"].double())], 1)
    k = 0
    while f"mapping.fc{k}.weight" in state:
        weight = state[f"mapping.fc{k}.weight"].double() * gain
        x = x @ weight.T / weight.shape[1] ** 0.5 + state[f"mapping.fc{k}.bias"].double() * gain
        x = torch.where(x > 0, x, 0.2 * x) * 2**0.5
        k += 1
    return x


def square(taps: Tensor) -> Tensor:
    taps = taps.double()
    return torch.outer(taps, taps) if taps.dim() == 1 else taps


def resampled(
    x: Tensor, taps: Tensor, up: int, down: int, padding: tuple[int, int], gain: float
) -> Tensor:
    """x (C, H, W) with up - 1 zeros after each sample, padded, convolved, every down-th sample kept."""
    channels, height, width = x.shape
    spread = x.new_zeros(channels, height * up, width * up)
    spread[:, ::up, ::up] = x
    before, after = padding
    spread = F.pad(spread, (before, after, before, after))  # negative: cut off
    kernel = square(taps).flip((0, 1))[None, None] * gain
    return F.conv2d(spread[:, None], kernel)[:, 0, ::down, ::down]


def activated(
    x: Tensor,
    up_taps: Tensor,
    down_taps: Tensor,
    up: int,
    down: int,
    padding: tuple[int, int],
    clamp: float | None,
) -> Tensor:
    """x (C, H, W) -> up-sampled, leaky ReLU with gain, clamped, down-sampled."""
    y = resampled(x, up_taps, up, 1, padding, up**2)
    y = torch.where(y > 0, y, 0.2 * y) * 2**0.5
    if clamp is not None:
        y = y.clamp(-clamp, clamp)
    return resampled(y, down_taps, 1, down, (0, 0), 1.0)


def features(
    state: Mapping[str, Tensor], style: Tensor, size: int, rate: int, band: float
) -> Tensor:
    """The input, pixel by pixel: style (4,) -> (C, size, size)."""
    cos, sin, x, y = (float(v) for v in style / style[:2].norm())
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    move = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    motion = turn @ move @ state["synthesis.input.transform"].double().numpy()
    freqs = state["synthesis.input.freqs"].double().numpy()
    phases = state["synthesis.input.phases"].double().numpy()
    weight = state["synthesis.input.weight"].double().numpy()
    out = np.zeros((len(weight), size, size))
    length = np.linalg.norm(freqs @ motion[:2, :2], axis=1)
    height = np.clip(1 - (length - band) / (rate / 2 - band), 0, 1)
    for row in range(size):
        for column in range(size):
            place = np.array([(column + 0.5 - size / 2) / rate, (row + 0.5 - size / 2) / rate, 1])
            seen = (motion @ place)[:2]
            waves = np.sin(2 * math.pi * (freqs @ seen + phases)) * height
            out[:, row, column] = weight @ waves / len(freqs) ** 0.5
    return torch.from_numpy(out)


def slow_image(state: Mapping[str, Tensor], designs: list, config, rows: Tensor) -> Tensor:
    """One sample's rows of w_plus (num_ws, w_dim) -> image (C, R, R)."""

    def style(layer: str, row: int) -> Tensor:
        weight = state[f"synthesis.{layer}.affine.weight"].double()
        bias = state[f"synthesis.{layer}.affine.bias"].double()
        return weight @ rows[row].double() / weight.shape[1] ** 0.5 + bias

    first = designs[0]
    x = features(state, style("input", 0), first.in_size, config.rates[0], config.first_cutoff)
    for k, design in enumerate(designs):
        own = {
            name.removeprefix(f"synthesis.{design.published}."): value.double()
            for name, value in state.items()
            if name.startswith(f"synthesis.{design.published}.")
        }
        last = k == len(designs) - 1
        kernel = own["weight"] * style(design.published, k + 1)[None, :, None, None]
        if last:
            kernel = kernel / own["weight"][0].numel() ** 0.5
        else:
            kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        kernel = kernel / own["magnitude_ema"].sqrt()
        x = F.conv2d(x[None], kernel, padding=design.kernel - 1)[0] + own["bias"][:, None, None]
        if last:
            bound = math.inf if config.conv_clamp is None else config.conv_clamp
            return x.clamp(-bound, bound) * config.output_scale
        x = activated(
            x,
            own["up_filter"],
            own["down_filter"],
            design.up,
            design.down,
            design.padding,
            config.conv_clamp,
        )
    raise AssertionError("no ToRGB")


def slow_images(state: Mapping[str, Tensor], config, w: Tensor) -> Tensor:
    """w (N, w_dim) -> images (N, C, R, R) float64."""
    designs = config.layers()
    return torch.stack(
        [slow_image(state, designs, config, row.expand(config.num_ws, -1)) for row in w]
    )
