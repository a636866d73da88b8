"""StyleGAN2 (Karras et al. 2020), any resolution and width up to the 1024x1024 config-f layout.

Spaces: z (N, z_dim) -> w (N, w_dim) -> w_plus (N, num_ws, w_dim) -> styles, a list of
(N, channels), one per affine map in the order conv 4x4, ToRGB 4x4, up-conv 8x8, conv 8x8, ToRGB
8x8, ... -> image (N, C, R, R) in about [-1, 1]. An odd row of w_plus controls a ToRGB and the
up-convolution of the next block. In architectures without skips, only the last row controls a
ToRGB. Noise is constant.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from editbench.base.precision import DTYPES, exact
from editbench.base.spaces import WeightShift
from editbench.networks.stylegan import State, StyleConfig, StyleNetwork, StyleSynthesis
from editbench.networks.stylegan2.layers import Skip, StyledConv, ToRGB
from editbench.networks.stylegan2.ops import FIR, fir_kernel, fir_upsample

ARCHITECTURES = ("skip", "resnet", "orig")


@dataclasses.dataclass(frozen=True)
class StyleGAN2Config(StyleConfig):
    """The architecture; `channels` are the widths at 4, 8, ..., resolution pixels.

    The first eight arguments are those of `StyleConfig`.

    Args:
        architecture: 'skip' sums the ToRGBs of all resolutions; 'resnet' has residual blocks;
            'orig' has neither. 'resnet' and 'orig' have one ToRGB at the end (Karras et al. 2020,
            fig. 7).
        fir: taps of the low-pass filter.
        conv_clamp: bound of the outputs of layers, in networks trained in half precision.
        embed_dim: size of the embedded label; 0 for w_dim.
        mapping_width: width of the hidden layers of the mapping; 0 for w_dim.
    """

    stated = ("z_dim", "w_dim", "mapping_layers", "mapping_lr")

    architecture: str = "skip"
    fir: tuple[float, ...] = FIR
    conv_clamp: float | None = None
    embed_dim: int = 0
    mapping_width: int = 0

    def __post_init__(self) -> None:
        # The only way to set a field of a frozen dataclass. A configuration of a file has a list.
        object.__setattr__(self, "fir", tuple(float(tap) for tap in self.fir))
        super().__post_init__()
        if len(self.channels) != self.blocks:
            raise ValueError(
                f"a {self.resolution}x{self.resolution} generator has {self.blocks} blocks, "
                f"but channels lists {len(self.channels)} widths: {self.channels}"
            )
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"architecture must be one of {', '.join(ARCHITECTURES)}, got {self.architecture!r}"
            )
        if len(self.fir) < 2 or not math.isfinite(sum(self.fir)) or not sum(self.fir) > 0:
            raise ValueError(f"fir must list two or more taps with a positive sum, got {self.fir}")

    @property
    def blocks(self) -> int:
        return int(math.log2(self.resolution)) - 1

    @property
    def num_ws(self) -> int:
        return 2 * self.blocks

    @property
    def summary(self) -> str:
        return self.architecture

    def facts(self) -> dict[str, str]:
        """Facts for listings: the widths by side in pixels, and the filter."""
        return {
            "widths": " ".join(f"{4 << k}:{width}" for k, width in enumerate(self.channels)),
            "low-pass filter": " ".join(f"{tap:g}" for tap in self.fir),
        }

    @classmethod
    def config_f(cls, resolution: int) -> StyleGAN2Config:
        """The published widths of config-f: min(512, 2^15 / resolution) channels."""
        sizes = [4 * 2**i for i in range(int(math.log2(resolution)) - 1)]
        return cls(resolution, tuple(min(512, 32768 // size) for size in sizes))


class Synthesis(StyleSynthesis):
    """w_plus -> styles -> image.

    `layers` has the layers with styles, in the order of the space S.
    """

    fir: Tensor

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        # StyleGAN starts from a learned constant; z acts only through the styles.
        self.const = nn.Parameter(torch.randn(config.channels[0], 4, 4))
        self.register_buffer("fir", fir_kernel(4.0, config.fir), persistent=False)
        self.layers = nn.ModuleDict()
        # In the resnet architecture: up-convolution -> its residual branch.
        self.skips = nn.ModuleDict()
        self.rows = []
        width = config.channels[0]
        how = (config.fir, config.conv_clamp)
        for block, channels in enumerate(config.channels):
            size = 4 * 2**block
            if block:
                up = StyledConv(width, channels, config.w_dim, size, True, *how)
                self._add(f"conv{size}_up", up, 2 * block - 1)
                if config.architecture == "resnet":
                    self.skips[f"conv{size}_up"] = Skip(width, channels, config.fir)
            self._add(
                f"conv{size}",
                StyledConv(channels, channels, config.w_dim, size, False, *how),
                2 * block,
            )
            # The other architectures have one ToRGB, at full resolution.
            if config.architecture == "skip" or size == config.resolution:
                rgb = ToRGB(channels, config.w_dim, config.img_channels, config.conv_clamp)
                self._add(f"rgb{size}", rgb, 2 * block + 1)
            width = channels

    def _add(self, name: str, layer: nn.Module, row: int) -> None:
        self.layers[name] = layer
        self.rows.append(row)

    def _onto(self, image: Tensor | None, rgb: Tensor) -> Tensor:
        """Up-sample the image so far and add the output of the next ToRGB, in float32."""
        # Half precision would lose the small contributions of the last layers.
        with exact(rgb.device):
            if rgb.dtype in DTYPES.values():
                rgb = rgb.float()
            if image is None:
                return rgb
            return fir_upsample(image, self.fir) + rgb

    def begin(self, n: int) -> State:
        """The state before the first layer: the constant, and no image yet."""
        return self.const.expand(n, -1, -1, -1).contiguous(memory_format=torch.channels_last), None

    def step(
        self, name: str, state: State, style: Tensor, noise: bool, shift: WeightShift | None
    ) -> State:
        x, image = state
        layer = self.layers[name]
        if isinstance(layer, ToRGB):
            return x, self._onto(image, layer(x, style, shift))
        if name in self.skips:
            return layer(x, style, noise, shift), self.skips[name](x)
        x = layer(x, style, noise, shift)
        if self.skips and image is not None:
            # Each branch contributes half of the variance (Karras et al. 2020, figure 7).
            return torch.add(image, x, alpha=math.sqrt(0.5)), None
        return x, image


class StyleGAN2(StyleNetwork):
    """The network; `StyleGAN2Generator` wraps it as a Generator."""

    kind = "stylegan2"
    config_type = StyleGAN2Config
    makers = (
        "make one with `editbench convert`, or with `editbench world train-gan` and "
        "`editbench world pack`"
    )

    config: StyleGAN2Config
    synthesis: Synthesis

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__(config)
        self.synthesis = Synthesis(config)
