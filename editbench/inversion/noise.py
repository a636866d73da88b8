"""Optimising the generator's layer noise in an inversion (Karras et al. 2020, appendix D).

Each image has its own noise maps. A penalty keeps them from encoding image content: a map's
correlation with itself, shifted by one pixel, at every scale down to 8x8. After every step a map is
normalised to zero mean and unit variance. The generator is not changed: the maps replace its
buffers during a call only.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from editbench.base.errors import Unsupported
from editbench.base.seeding import normals
from editbench.base.spaces import Codes
from editbench.networks.generator import Generator
from editbench.networks.stylegan2.layers import StyledConv

SMALLEST = 8  # side of the coarsest scale in pixels
# Images that are decoded at once.
TOGETHER = 32


class NoiseMaps:
    """Noise maps of all layers for n images: name of the buffer -> (n, 1, H, W).

    They are initialised with standard normals.

    Args:
        generator: with noise buffers in its layers.
        seed: of the maps; the maps of an image do not depend on the other images.
        index: (n,) numbers of the images.

    Raises:
        Unsupported: the generator has no layer noise.
    """

    def __init__(self, generator: Generator, seed: int, index: np.ndarray) -> None:
        buffers: dict[str, Tensor] = {}
        for name, layer in generator.named_modules():
            if isinstance(layer, StyledConv):
                buffers[f"{name}.noise"] = layer.noise
        if not buffers:
            raise Unsupported(
                f"{type(generator).__name__} has no layer noise: set inversion.noise=const"
            )
        self.maps: dict[str, Tensor] = {}
        for name, buffer in buffers.items():
            self.maps[name] = _draw_noise(seed, name, index, buffer).requires_grad_()

    def penalty(self) -> Tensor:
        """Sum over layers of `autocorrelation`: (n,)."""
        return torch.stack([autocorrelation(x) for x in self.maps.values()]).sum(0)

    @torch.no_grad()
    def renormalise(self) -> None:
        """Normalise every map to zero mean and unit variance, in place."""
        for x in self.maps.values():
            x -= x.mean((2, 3), keepdim=True)
            x *= x.square().mean((2, 3), keepdim=True).rsqrt()


def decode_with(generator: Generator, codes: Codes, maps: dict[str, Tensor]) -> Tensor:
    """`generator.decode` with the images' own maps instead of the constant noise.

    Args:
        generator: whose buffers are replaced during the call.
        codes: n codes.
        maps: name of a noise buffer -> (n, 1, H, W), one map per image.

    Returns:
        (n, C, H, W) images.
    """
    images = []
    for first in range(0, len(codes), TOGETHER):
        rows = slice(first, first + TOGETHER)
        buffers = {name: x[rows] for name, x in maps.items()}
        images.append(functional_call(generator, buffers, (codes[rows],)))
    return torch.cat(images)


def rows_of_normals(seed: int, stream: str, index: np.ndarray, width: int) -> np.ndarray:
    """Standard normals for some items of a random stream, see `editbench.base.seeding`.

    Args:
        seed: of the stream.
        stream: name of the stream.
        index: (n,) numbers of the items, in ascending order.
        width: numbers per item.

    Returns:
        (n, width) float64.
    """
    first = int(index[0])
    return normals(seed, stream, first, int(index[-1]) + 1, width)[index - first]


def _draw_noise(seed: int, name: str, index: np.ndarray, like: Tensor) -> Tensor:
    """Initial noise (n, 1, H, W) of one layer for images of an ascending index, as its buffer (H, W).

    Each layer has its own random stream. The noise of an image does not depend on the other images.
    """
    values = rows_of_normals(seed, f"inversion/{name}", index, like.numel())
    return torch.from_numpy(values.astype(np.float32)).to(like).reshape(-1, 1, *like.shape)


def autocorrelation(x: Tensor) -> Tensor:
    """Squared mean products of neighbouring pixels, in rows and columns, summed over scales.

    Each scale is half the previous one, by averages of 2x2 pixels. As in the paper's text, a factor
    of 2 keeps the variance of white noise at 1. The published code omits it, which gives coarse
    scales less weight. Maps of 8x8 pixels or fewer have one scale.

    Args:
        x: (n, 1, H, W).

    Returns:
        (n,).
    """
    total = x.new_zeros(len(x))
    while True:
        for axis in (2, 3):
            total = total + (x * x.roll(1, axis)).mean((1, 2, 3)).square()
        if x.shape[2] <= SMALLEST:
            return total
        x = 2 * F.avg_pool2d(x, 2)
