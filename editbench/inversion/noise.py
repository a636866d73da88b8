"""The generator's layer noise as variables of an inversion, each image with maps of its own (Karras 2020, appendix D).

A map is kept from carrying picture content by a penalty on its correlation with itself, shifted by one pixel, at every
scale down to 8x8, and is brought back to zero mean and unit variance after every step. The generator is not touched:
the maps take the place of its buffers for the length of one call.
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
from editbench.networks.stylegan2.layers import LARGE, StyledConv

SMALLEST = 8  # pixels of the coarsest scale
TOGETHER = (
    LARGE // 2
)  # images decoded at once: of LARGE maps or more a layer takes their number for its resolution


class NoiseMaps:
    """Noise maps of all layers for n images: name of the buffer -> (n, 1, H, W), standard normal at the start.

    Raises Unsupported for a generator without layer noise.
    """

    def __init__(self, generator: Generator, seed: int, index: np.ndarray) -> None:
        buffers = {
            f"{name}.noise": layer.noise
            for name, layer in generator.named_modules()
            if isinstance(layer, StyledConv)
        }
        if not buffers:
            raise Unsupported(
                f"{type(generator).__name__} has no layer noise: set inversion.noise=const"
            )
        self.maps = {
            name: drawn(seed, name, index, buffer).requires_grad_()
            for name, buffer in buffers.items()
        }

    def penalty(self) -> Tensor:
        """Sum over layers of `autocorrelation`: (n,)."""
        return torch.stack([autocorrelation(x) for x in self.maps.values()]).sum(0)

    @torch.no_grad()
    def renormalise(self) -> None:
        """Every map of every image to zero mean and unit variance, in place."""
        for x in self.maps.values():
            x -= x.mean((2, 3), keepdim=True)
            x *= x.square().mean((2, 3), keepdim=True).rsqrt()


def decode_with(generator: Generator, codes: Codes, maps: dict[str, Tensor]) -> Tensor:
    """`generator.decode` with each image's own maps instead of the constant noise."""
    parts = [slice(first, first + TOGETHER) for first in range(0, len(codes), TOGETHER)]
    return torch.cat(
        [
            functional_call(generator, {name: x[rows] for name, x in maps.items()}, (codes[rows],))
            for rows in parts
        ]
    )


def rows_of_normals(seed: int, stream: str, index: np.ndarray, width: int) -> np.ndarray:
    """Standard normals of the items in `index` (n,), which rises: (n, width) float64."""
    first = int(index[0])
    return normals(seed, stream, first, int(index[-1]) + 1, width)[index - first]


def drawn(seed: int, name: str, index: np.ndarray, like: Tensor) -> Tensor:
    """Noise of images in one layer: (n, 1, H, W)."""
    values = rows_of_normals(seed, f"inversion/{name}", index, like.numel())
    return torch.from_numpy(values.astype(np.float32)).to(like).reshape(-1, 1, *like.shape)


def autocorrelation(x: Tensor) -> Tensor:
    """Squared mean products of neighbours, rows and columns, summed over scales: x (n, 1, H, W) -> (n,).

    Each scale halves the last by averaging 2x2 pixels, times 2, which keeps the variance of white noise at one, as the
    paper's text has it (the published code leaves the factor out, so its coarse scales weigh less). Maps of 8x8 pixels
    or smaller have one scale.
    """
    total = x.new_zeros(len(x))
    while True:
        for axis in (2, 3):
            total = total + (x * x.roll(1, axis)).mean((1, 2, 3)).square()
        if x.shape[2] <= SMALLEST:
            return total
        x = 2 * F.avg_pool2d(x, 2)
