"""A small classifier, what a scorer declares of it, and its logits by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

DECLARED: dict[str, Any] = {
    "attributes": [
        {"name": "smile", "classes": ["neutral", "smiling"]},
        {"name": "age", "classes": ["young", "old"], "positive_is_low": True},
        {"name": "hair", "classes": ["black", "blond", "brown"]},
    ],
    "input_size": (12, 12),
    "input_range": (0, 1),
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
}


class Classifier(nn.Module):
    """(N, 3, 12, 12) -> 7 outputs, of which a declaration may choose."""

    def __init__(self, outputs: int = 5) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.silu(self.conv(images)).mean((2, 3)))


def export(
    network: nn.Module, path: Path, batch: int = 2, fixed: bool = False, size: int = 12
) -> Path:
    if int(torch.__version__.split(".")[1]) < 8:
        pytest.skip("archives of torch.export are read from torch 2.8 on")
    shapes = None if fixed else ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(
        network, (torch.rand(batch, 3, size, size),), dynamic_shapes=shapes
    )
    torch.export.save(program, path)
    return path


def noise(n: int = 5, size: int = 20) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def function(images: Tensor) -> Tensor:
    return Classifier()(images)


# -- one network, four ways ------------------------------------------------------------------------
def by_hand() -> Tensor:
    """Range, normalisation and signs written out, on images resized beforehand."""
    small = F.interpolate(noise(), (12, 12), mode="bilinear", align_corners=False).double()
    x = ((small + 1) / 2 - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor(
        [0.2, 0.3, 0.4]
    )[:, None, None]
    out = Classifier().double()(x).detach()
    out[:, 1] = -out[:, 1]
    return out
