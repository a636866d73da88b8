"""NVIDIA's CelebA-HQ attribute classifiers: the discriminator of ProGAN with one logit.

After Karras et al. 2018 (the architecture, "D_paper") and Karras et al. 2019 (the 40 classifiers of
StyleGAN's separability metric, 256 x 256).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.base.errors import EditbenchError
from editbench.networks.winograd import Conv3x3

SLOPE = 0.2  # of the leaky rectifier
# The minibatch standard deviation of a group of one: sqrt(0 + 1e-8).
STATISTIC = 1e-4


@dataclass(frozen=True)
class ClassifierConfig:
    """The architecture of one classifier.

    Args:
        resolution: pixels of its picture, a power of two.
        widths: channels after each block: of the full resolution first, of 4 x 4 last.
        fused: whether a block halves the picture in its second convolution (kernels of 4 x 4 with
            stride 2), and not by averages of 2 x 2 after the activation.
        statistic: whether its last convolution takes the minibatch standard deviation as a channel.
        first: channels of the picture's first layer.
        dense: channels of the hidden linear layer.
    """

    resolution: int
    widths: tuple[int, ...]
    fused: bool
    statistic: bool
    first: int
    dense: int

    @classmethod
    def published(cls) -> ClassifierConfig:
        """The architecture of NVIDIA's 40: 256 x 256, fmap_base 8192, fmap_max 512."""
        widths = (128, 256, 512, 512, 512, 512, 512)
        return cls(256, widths, fused=True, statistic=True, first=64, dense=512)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClassifierConfig:
        """The configuration of a file's header, which has lists for tuples."""
        return cls(**{**values, "widths": tuple(values["widths"])})

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a file's header."""
        return {**asdict(self), "widths": list(self.widths)}


class Block(nn.Module):
    """Two convolutions that halve the picture.

    Args:
        before: channels of its input.
        after: channels of its output.
        fused: see `ClassifierConfig`.
    """

    def __init__(self, before: int, after: int, fused: bool) -> None:
        super().__init__()
        self.conv0 = Conv3x3(before, before)
        size = 4 if fused else 3
        stride = 2 if fused else 1
        self.conv1 = nn.Conv2d(before, after, size, stride, padding=1)
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        """x (N, before, R, R) -> (N, after, R / 2, R / 2)."""
        x = F.leaky_relu(self.conv0(x), SLOPE)
        x = F.leaky_relu(self.conv1(x), SLOPE)
        # A fused kernel has halved the picture already.
        return x if self.fused else F.avg_pool2d(x, 2)


class CelebAHQClassifier(nn.Module):
    """Images (N, 3, R, R) in [-1, 1] -> one logit (N, 1).

    The gains of the equalised learning rate are in the weights. A judge must not depend on its
    batch: the minibatch statistic is that of a group of one sample, a constant.

    Args:
        config: its architecture.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.rgb = nn.Conv2d(3, config.first, 1)
        # The last of the widths is that of 4 x 4, which has no block.
        widths = (config.first, *config.widths)
        blocks = []
        for before, after in zip(widths[:-2], widths[1:-1]):
            blocks.append(Block(before, after, config.fused))
        self.blocks = nn.Sequential(*blocks)
        self.conv = nn.Conv2d(widths[-2] + config.statistic, widths[-1], 3, padding=1)
        self.dense0 = nn.Linear(widths[-1] * 4 * 4, config.dense)
        self.dense1 = nn.Linear(config.dense, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = F.leaky_relu(self.rgb(images), SLOPE)
        x = self.blocks(x)
        if self.config.statistic:
            x = torch.cat([x, x.new_full((len(x), 1, *x.shape[2:]), STATISTIC)], 1)
        x = F.leaky_relu(self.conv(x), SLOPE)
        x = F.leaky_relu(self.dense0(x.flatten(1)), SLOPE)
        return self.dense1(x)


class CelebAHQClassifiers(nn.Module):
    """Several classifiers of one picture.

    Args:
        networks: the classifiers, all of one resolution.

    Raises:
        EditbenchError: they take pictures of different sizes.
    """

    def __init__(self, networks: Sequence[CelebAHQClassifier]) -> None:
        super().__init__()
        sizes = sorted({network.config.resolution for network in networks})
        if len(sizes) != 1:
            raise EditbenchError(
                f"classifiers of {' and '.join(map(str, sizes))} pixels in one scorer: they share "
                "one picture, so convert those of each size into a file of their own"
            )
        self.resolution = sizes[0]
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """images (N, 3, R, R) in [-1, 1] -> logits (N, number of classifiers)."""
        return torch.cat([network(images) for network in self.networks], 1)


def average_blocks(images: Tensor, size: int) -> Tensor:
    """Pictures made smaller by averages over whole blocks of pixels, as StyleGAN's metric does.

    Args:
        images: (N, C, H, W).
        size: pixels of the result's side.

    Returns:
        (N, C, size, size).

    Raises:
        EditbenchError: a side is no multiple of `size`.
    """
    height, width = images.shape[2:]
    if height % size or width % size or height != width:
        raise EditbenchError(
            f"CelebA-HQ classifiers of {size} x {size} pixels average larger pictures over whole "
            f"blocks, and {height} x {width} has none: take a generator of {size}, {2 * size}, "
            f"{4 * size}, ... pixels"
        )
    if height == size:
        return images
    return F.avg_pool2d(images, height // size)
