"""StyleGAN3 (Karras et al. 2021, "Alias-Free Generative Adversarial Networks"), t and r.

The spaces are those of StyleGAN2. The layers are 'input' (Fourier features), 'L0_36_512' and so on
(number, side in pixels, channels, as in the published networks), and 'rgb1024'. Row k of w_plus
controls layer k. There is no noise: the image depends only on the styles.
"""

from __future__ import annotations

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
        # Every layer has a row of w_plus of its own, also ToRGB.
        self.rows = list(range(len(self.layers)))

    def begin(self, n: int) -> State:
        """No features yet; the first layer computes them from its style."""
        waves = cast(FourierFeatures, self.layers[INPUT])
        return waves.freqs.new_empty(n, 0), None

    def step(
        self, name: str, state: State, style: Tensor, noise: bool, shift: WeightShift | None
    ) -> State:
        # `noise` has no effect, since there is no noise.
        x, image = state
        layer = self.layers[name]
        if not isinstance(layer, ToRGB):
            return layer(x, style, shift), image
        image = layer(x, style, shift)
        if image.dtype in DTYPES.values():
            image = image.float()
        return x, image * self.output_scale


class StyleGAN3(StyleNetwork):
    """The network; `StyleGAN3Generator` wraps it as a Generator."""

    kind = "stylegan3"
    config_type = StyleGAN3Config

    config: StyleGAN3Config
    synthesis: Synthesis

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__(config)
        self.synthesis = Synthesis(config)
