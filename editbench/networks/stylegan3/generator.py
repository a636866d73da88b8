"""StyleGAN3 as a generator: codes of Z, W, W+ or S to images, from a safetensors file."""

from __future__ import annotations

from typing import ClassVar

from editbench.networks.style_generator import StyleGenerator
from editbench.networks.stylegan import StyleNetwork
from editbench.networks.stylegan3.network import StyleGAN3


class StyleGAN3Generator(StyleGenerator):
    """A StyleGAN3, t or r; see `StyleGenerator` for its spaces and options.

    S begins with the four styles of the input, which rotate and translate the image.
    """

    network_type: ClassVar[type[StyleNetwork]] = StyleGAN3
    network: StyleGAN3


# The _target_ in conf/generator/stylegan3.yaml.
load_stylegan3 = StyleGAN3Generator.load
