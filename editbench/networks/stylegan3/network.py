"""StyleGAN3 (Karras et al. 2021, "Alias-Free Generative Adversarial Networks"), t and r.

Spaces as in StyleGAN2. The layers are 'input' (Fourier features), 'L0_36_512' and so on (number,
pixels of a side, channels, as in the published networks), and 'rgb1024'. Row k of w_plus drives
layer k. There is no noise: what the picture shows follows from the styles alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from editbench.base.precision import DTYPES
from editbench.base.spaces import WeightShift
from editbench.networks.stylegan import State, StyleNetwork, StyleSynthesis
from editbench.networks.stylegan3.config import StyleGAN3Config
from editbench.networks.stylegan3.layers import FilteredConv, FourierFeatures, ToRGB

INPUT = "input"


class Synthesis(StyleSynthesis):
    """w_plus -> styles -> image."""

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        self.output_scale = config.output_scale
        *designs, last = config.layers()
        self.layers = nn.ModuleDict()
        self.layers[INPUT] = FourierFeatures(
            config.w_dim, config.channels[0], config.sizes[0], config.rates[0], config.first_cutoff
        )
        for design in designs:
            self.layers[design.name] = FilteredConv(design, config.w_dim, config.conv_clamp)
        self.layers[last.name] = ToRGB(last.n_in, config.w_dim, last.n_out, config.conv_clamp)
        self.rows = list(range(len(self.layers)))

    def forward(self, styles: Sequence[Tensor], shift: WeightShift | None = None) -> Tensor:
        _, image = self.run(self.begin(len(styles[0])), styles, shift=shift)
        assert image is not None
        return image

    def begin(self, n: int) -> State:
        """No features yet: the first layer makes them from its style."""
        waves = cast(FourierFeatures, self.layers[INPUT])
        return waves.freqs.new_empty(n, 0), None

    def run(
        self,
        state: State,
        styles: Sequence[Tensor],
        *,
        shift: WeightShift | None = None,
        first: int = 0,
        last: int | None = None,
    ) -> State:
        x, image = state
        names = list(self.layers)
        for name, style in zip(names[first:last], styles[first:last]):
            layer = self.layers[name]
            # The shift is of one layer; the others keep their weights.
            own = None
            if shift is not None and shift.layer == name:
                own = shift
            if not isinstance(layer, ToRGB):
                x = layer(x, style, own)
                continue
            image = layer(x, style, own)
            if image.dtype in DTYPES.values():
                image = image.float()
            image = image * self.output_scale
        return x, image


class StyleGAN3(StyleNetwork):
    """The network alone; `StyleGAN3Generator` wraps it for the harness."""

    kind = "stylegan3"
    config_type = StyleGAN3Config

    config: StyleGAN3Config
    synthesis: Synthesis

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__(config)
        self.synthesis = Synthesis(config)
