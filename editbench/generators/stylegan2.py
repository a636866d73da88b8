"""StyleGAN2 (Karras et al. 2020), skip architecture, any resolution and width up to the 1024x1024 config-f layout.

Spaces: z (N, z_dim) -> w (N, w_dim) -> w_plus (N, num_ws, w_dim) -> styles, a list of (N, channels), one an affine map
in the order conv 4x4, ToRGB 4x4, up-conv 8x8, conv 8x8, ToRGB 8x8, ... -> image (N, 3, R, R) in about [-1, 1].
Odd rows of w_plus drive a ToRGB and the next block's up-convolution. Noise is constant.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from editbench.generators.layers import EqualLinear, StyledConv, ToRGB
from editbench.generators.ops import fir_kernel, fir_upsample, scaled_leaky_relu
from editbench.spaces import WeightShift

State = tuple[Tensor, Tensor | None]  # features (N, C, h, w) and the image so far


@dataclasses.dataclass(frozen=True)
class StyleGAN2Config:
    """Architecture. `channels` lists the width at 4, 8, ..., resolution pixels."""

    resolution: int
    channels: tuple[int, ...]
    z_dim: int = 512
    w_dim: int = 512
    mapping_layers: int = 8
    mapping_lr: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        if self.resolution < 4 or self.resolution & (self.resolution - 1):
            raise ValueError(f"resolution must be a power of two of at least 4, got {self.resolution}")
        if len(self.channels) != self.blocks:
            raise ValueError(f"a {self.resolution}x{self.resolution} generator has {self.blocks} blocks, "
                             f"but channels lists {len(self.channels)} widths: {self.channels}")

    @property
    def blocks(self) -> int:
        return int(math.log2(self.resolution)) - 1

    @property
    def num_ws(self) -> int:
        return 2 * self.blocks

    @classmethod
    def config_f(cls, resolution: int) -> StyleGAN2Config:
        """The published config-f widths: min(512, 2^15 / resolution) channels at each resolution."""
        sizes = [4 * 2**i for i in range(int(math.log2(resolution)) - 1)]
        return cls(resolution, tuple(min(512, 32768 // size) for size in sizes))


class Mapping(nn.Module):
    """z -> w: normalisation to unit second moment and fully connected layers."""

    w_avg: Tensor

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        widths = [config.z_dim] + [config.w_dim] * config.mapping_layers
        self.layers = nn.ModuleList(EqualLinear(a, b, config.mapping_lr) for a, b in pairwise(widths))
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(self, z: Tensor) -> Tensor:
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.layers:
            x = scaled_leaky_relu(layer(x))
        return x


class Synthesis(nn.Module):
    """w_plus -> styles -> image. `layers` holds the affine-driven layers in the order of the space S."""

    fir: Tensor

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.randn(config.channels[0], 4, 4))
        self.register_buffer("fir", fir_kernel(4.0), persistent=False)
        self.layers = nn.ModuleDict()
        self.rows: list[int] = []  # the w_plus row that drives each layer
        width = config.channels[0]
        for block, channels in enumerate(config.channels):
            size = 4 * 2**block
            if block:
                self._add(f"conv{size}_up", StyledConv(width, channels, config.w_dim, size, up=True), 2 * block - 1)
            self._add(f"conv{size}", StyledConv(channels, channels, config.w_dim, size, up=False), 2 * block)
            self._add(f"rgb{size}", ToRGB(channels, config.w_dim), 2 * block + 1)
            width = channels

    def _add(self, name: str, layer: nn.Module, row: int) -> None:
        self.layers[name] = layer
        self.rows.append(row)

    def styles(self, w_plus: Tensor) -> list[Tensor]:
        """Affine maps: w_plus (N, num_ws, w_dim) -> list of (N, channels)."""
        return [affine(w_plus[:, row]) for affine, row in zip(self.affines(), self.rows)]

    def affines(self) -> list[EqualLinear]:
        """The maps from w to the style of each layer, in the order of the space S."""
        return [cast(EqualLinear, layer.affine) for layer in self.layers.values()]

    def forward(self, styles: Sequence[Tensor], noise: bool = True, shift: WeightShift | None = None) -> Tensor:
        _, image = self.run(self.begin(len(styles[0])), styles, noise, shift)
        assert image is not None
        return image

    def begin(self, n: int) -> State:
        """The state before the first layer: the constant, and no image yet."""
        return self.const.expand(n, -1, -1, -1).contiguous(memory_format=torch.channels_last), None

    def run(self, state: State, styles: Sequence[Tensor], noise: bool = True, shift: WeightShift | None = None,
            first: int = 0, last: int | None = None) -> State:
        """Layers [first, last) on (features, image): what precedes an edited layer is computed once and kept.

        styles: of all layers; shift: moves the weight of the layer it names, if that is among them.
        """
        x, image = state
        names = list(self.layers)
        for name, style in zip(names[first:last], styles[first:last]):
            layer, own = self.layers[name], shift if shift is not None and shift.layer == name else None
            if isinstance(layer, StyledConv):
                x = layer(x, style, noise, own)
            else:
                rgb = layer(x, style, own)
                image = rgb if image is None else fir_upsample(image, self.fir) + rgb
        return x, image


class StyleGAN2(nn.Module):
    """The network alone; `editbench.generators.base.Generator` wraps it for the harness."""

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.config = config
        self.mapping = Mapping(config)
        self.synthesis = Synthesis(config)

    def truncate(self, w: Tensor, truncation_psi: float) -> Tensor:
        """Move w (..., w_dim) towards the running mean: psi 1 leaves it, psi 0 gives the mean face."""
        return w if truncation_psi == 1 else torch.lerp(self.mapping.w_avg, w, truncation_psi)

    def forward(self, z: Tensor, truncation_psi: float = 1.0) -> Tensor:
        w = self.truncate(self.mapping(z), truncation_psi)
        w_plus = w.unsqueeze(1).expand(-1, self.config.num_ws, -1)
        return self.synthesis(self.synthesis.styles(w_plus))
