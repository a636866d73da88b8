"""The generator's layer noise as variables of an inversion (Karras et al. 2020, appendix D).

Each image has maps of its own. A penalty keeps a map from carrying picture content: its correlation
with itself, shifted by one pixel, at every scale down to 8x8. After every step a map is brought back
to zero mean and unit variance. The generator is not changed: the maps take the place of its buffers
for the length of one call.
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
# Images that are decoded at once. A layer that is given LARGE maps or more takes their number for
# its resolution.
TOGETHER = LARGE // 2


class NoiseMaps:
    """Noise maps of all layers for n images: name of the buffer -> (n, 1, H, W).

    They are standard normal at the start.

    Args:
        generator: whose layers have noise buffers.
        seed: of the maps; image i has the same maps whatever its neighbours are.
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
            self.maps[name] = draw_noise(seed, name, index, buffer).requires_grad_()

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
    images = []
    for first in range(0, len(codes), TOGETHER):
        rows = slice(first, first + TOGETHER)
        buffers = {name: x[rows] for name, x in maps.items()}
        images.append(functional_call(generator, buffers, (codes[rows],)))
    return torch.cat(images)


def rows_of_normals(seed: int, stream: str, index: np.ndarray, width: int) -> np.ndarray:
    """Standard normals of some items of a stream.

    Args:
        seed: of the draws.
        stream: of the draws, so that two uses of a seed differ.
        index: (n,) numbers of the items, in ascending order.
        width: values an item.

    Returns:
        (n, width) float64.
    """
    first = int(index[0])
    return normals(seed, stream, first, int(index[-1]) + 1, width)[index - first]


def draw_noise(seed: int, name: str, index: np.ndarray, like: Tensor) -> Tensor:
    """Noise of images in one layer: (n, 1, H, W)."""
    values = rows_of_normals(seed, f"inversion/{name}", index, like.numel())
    return torch.from_numpy(values.astype(np.float32)).to(like).reshape(-1, 1, *like.shape)


def autocorrelation(x: Tensor) -> Tensor:
    """Squared mean products of neighbours, in rows and columns, summed over scales.

    Each scale halves the last one by averaging 2x2 pixels. The factor 2 keeps the variance of white
    noise at one, as the paper's text has it; the published code leaves it out, so that its coarse
    scales weigh less. Maps of 8x8 pixels or smaller have one scale.

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
