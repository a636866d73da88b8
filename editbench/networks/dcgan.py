"""The generator of DCGAN (Radford, Metz & Chintala 2016), in the form of PyTorch's tutorial."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class DCGAN(nn.Module):
    """z (N, z_dim), z ~ N(0, I) -> images (N, colours, S, S) in [-1, 1], S = 4 * 2^len(channels).

    Transposed convolutions with kernels of 4 x 4 and no bias; batch normalisation and ReLU between
    them, tanh at the end. Tensor names: main.0.weight, main.1.weight, main.1.running_mean, ...

    Args:
        z_dim: size of z.
        channels: of the 4 x 4 picture, then of each that has twice its side.
        colours: channels of the image.
    """

    def __init__(
        self,
        z_dim: int = 100,
        channels: Sequence[int] = (512, 256, 128, 64),
        colours: int = 3,
    ) -> None:
        super().__init__()
        # The first layer turns one pixel into 4 x 4; every other one doubles the side.
        layers: list[nn.Module] = [nn.ConvTranspose2d(z_dim, channels[0], 4, 1, 0, bias=False)]
        for wide, narrow in zip(channels, [*channels[1:], colours]):
            layers += [nn.BatchNorm2d(wide), nn.ReLU()]
            layers.append(nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False))
        self.main = nn.Sequential(*layers, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.main(z[:, :, None, None])
