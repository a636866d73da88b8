"""The reconstructor R of NaviGAN, eq. (2): pictures before and after an edit -> direction, shift.

Cherepkov, Voynov & Babenko, CVPR 2021, section 3.2: a ResNet-18 (He, Zhang, Ren & Sun, CVPR 2016)
with two heads on the pair stacked to 6 channels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RESNET_WIDTHS = (64, 128, 256, 512)  # two blocks each
SMALL_WIDTHS = (32, 64, 96)  # at 1/2, 1/4 and 1/8 of the resolution


class BasicBlock(nn.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        # Without a change of shape the shortcut has no parameters, as in the ResNet paper.
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.body(x))


class Reconstructor(nn.Module):
    """Two linear heads on the mean over positions of a trunk's features.

    Args:
        trunk: (N, 2 C, R, R) -> (N, width, h, w).
        width: channels of its output.
        directions: K.
        resolution: to which the pair is resized by nearest neighbours; None does not resize.
        difference: replace the second image by its difference from the first. The information is
            the same, but the first layer need not learn to subtract.
        shift_unit: value of t that corresponds to an output of 1 of the shift head.
    """

    def __init__(
        self,
        trunk: nn.Module,
        width: int,
        directions: int,
        resolution: int | None,
        difference: bool,
        shift_unit: float,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.resolution = resolution
        self.difference = difference
        self.shift_unit = shift_unit
        self.which = nn.Linear(width, directions)
        self.shift = nn.Linear(width, 1)
        # torchvision's initialisation of ResNets, as in the published code.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the direction and the shift of each pair, (k_hat, t_hat) of eq. (1).

        Args:
            before: (N, C, R, R) unedited images.
            after: (N, C, R, R) the same images under the shift.

        Returns:
            Logits of the direction (N, K), and the shift t_hat (N,) in units of t.
        """
        pair = torch.cat([before, after - before if self.difference else after], 1)
        if self.resolution is not None and pair.shape[-1] != self.resolution:
            # The default mode, nearest neighbours, is that of the published code.
            pair = F.interpolate(pair, (self.resolution, self.resolution))
        features = self.trunk(pair.contiguous(memory_format=torch.channels_last)).mean((2, 3))
        return self.which(features), self.shift(features)[:, 0] * self.shift_unit


def resnet18(
    channels: int, directions: int, shift_unit: float = 1.0, resolution: int | None = 256
) -> Reconstructor:
    """The paper's network: trained from scratch, on images at 256 x 256.

    Args:
        channels: C of one picture.
        directions: K.
        shift_unit: what a 1 of the shift head means, in units of t.
        resolution: that pictures are brought to; None leaves them.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(2 * channels, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    n_in = RESNET_WIDTHS[0]
    for n_out in RESNET_WIDTHS:
        # Every stage but the first halves the resolution.
        stride = 1 if n_in == n_out else 2
        layers += [BasicBlock(n_in, n_out, stride), BasicBlock(n_out, n_out, 1)]
        n_in = n_out
    return Reconstructor(nn.Sequential(*layers), n_in, directions, resolution, False, shift_unit)


def small(
    channels: int, directions: int, shift_unit: float = 1.0, resolution: int | None = None
) -> Reconstructor:
    """Three convolutions with stride 2, for small images and a small budget [ours].

    Args: as of `resnet18`.
    """
    widths = (2 * channels, *SMALL_WIDTHS)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Conv2d(n_in, n_out, 3, 2, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
    return Reconstructor(
        nn.Sequential(*layers), widths[-1], directions, resolution, True, shift_unit
    )


RECONSTRUCTORS = {"resnet18": resnet18, "small": small}
