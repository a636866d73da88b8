"""StyleGAN2 as a generator: codes of Z, W, W+ or S to images, from a safetensors file."""

from __future__ import annotations

from typing import ClassVar

from editbench.networks.style_generator import StyleGenerator
from editbench.networks.stylegan import StyleNetwork
from editbench.networks.stylegan2.network import StyleGAN2


class StyleGAN2Generator(StyleGenerator):
    """A StyleGAN2 with constant noise; see `StyleGenerator` for its spaces and options."""

    network_type: ClassVar[type[StyleNetwork]] = StyleGAN2
    network: StyleGAN2


# The _target_ in conf/generator/stylegan2.yaml.
load_stylegan2 = StyleGAN2Generator.load
