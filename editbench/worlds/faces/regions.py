"""Exact region masks of rendered faces, drawn by the renderer itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.worlds.faces.factors import Factors
from editbench.worlds.faces.renderer import REGIONS, Canvas

__all__ = ["REGIONS", "regions"]


def regions(factors: Factors, resolution: int, supersample: int = 4) -> Tensor:
    """Region of every pixel.

    A point belongs to the region that was painted last with a coverage above one half, so a beard
    or glasses at half their amount are where the trait's own threshold lies. A pixel takes the
    region of most of its supersample^2 points (of the first among equals). Lenses are
    transparent, so `glasses` are rim, bridge and arms; wrinkles are skin.

    Args:
        factors: of N faces.
        resolution: height and width of the result.
        supersample: points along the side of a pixel.

    Returns:
        (N, resolution, resolution) int64, an index into REGIONS.
    """
    # Labels cannot be averaged: the picture is drawn larger, and cells vote.
    canvas = _RegionCanvas(factors, resolution * supersample)
    canvas.draw()
    # With one point to a pixel there is no vote.
    if supersample == 1:
        return canvas.labels
    shares = []
    for k in range(len(REGIONS)):
        shares.append(F.avg_pool2d((canvas.labels == k).float(), supersample))
    return torch.stack(shares, 1).argmax(1)


class _RegionCanvas(Canvas):
    """Draws labels in place of colours."""

    def __init__(self, factors: Factors, size: int) -> None:
        super().__init__(factors, size)
        self.labels = torch.zeros(
            len(factors), size, size, dtype=torch.int64, device=self.image.device
        )

    def paint(
        self, coverage: Tensor, color: Tensor | tuple[float, float, float], region: str
    ) -> None:
        # Later paint covers earlier paint, as in the picture.
        self.labels = torch.where(coverage > 0.5, REGIONS.index(region), self.labels)
