"""Small TorchScript networks with the interfaces of the published ones, for tests that cannot fetch those."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from editbench.networks.registry import Published

DIM = 8
WIDTHS = (3, 5)  # channels of the two depths of the stand-in for LPIPS


class SmallInception(nn.Module):
    """Takes images 0..255, gives DIM features: means of patches of (x - 128) / 128 through a fixed matrix."""

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(DIM, 12, generator=rng))

    def forward(
        self,
        img: Tensor,
        return_features: bool = False,
        use_fp16: bool = False,
        no_output_bias: bool = False,
    ) -> Tensor:
        x = (img.to(torch.float32) - 128) / 128
        features = torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1) @ self.weight.t()
        return features if return_features else features.softmax(1)


class SmallVGG16(nn.Module):
    """Takes images 0..255; return_lpips gives features whose squared distance is LPIPS with two layers."""

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(4)
        self.first = nn.Parameter(0.3 * torch.randn(WIDTHS[0], 3, 3, 3, generator=rng))
        self.second = nn.Parameter(0.3 * torch.randn(WIDTHS[1], WIDTHS[0], 3, 3, generator=rng))
        self.lpips0 = nn.Parameter(torch.rand(WIDTHS[0], generator=rng))
        self.lpips1 = nn.Parameter(torch.rand(WIDTHS[1], generator=rng))

    def forward(
        self,
        img: Tensor,
        resize_images: bool = True,
        return_features: bool = False,
        return_lpips: bool = False,
    ) -> Tensor:
        x = img.to(torch.float32)
        if resize_images:
            x = torch.nn.functional.interpolate(x, (16, 16), mode="bilinear", align_corners=False)
        x = x / 127.5 - 1
        one = torch.conv2d(x, self.first, padding=1).relu()
        two = torch.conv2d(one, self.second, stride=2, padding=1).relu()
        if return_lpips:
            parts = []
            for y, weight in ((one, self.lpips0), (two, self.lpips1)):
                unit = y / (y.square().sum(1, keepdim=True).sqrt() + 1e-10)
                parts.append(
                    (unit * weight.sqrt()[:, None, None]).flatten(1)
                    / float(y.shape[2] * y.shape[3]) ** 0.5
                )
            return torch.cat(parts, 1)
        features = two.mean((2, 3))
        return features if return_features else features.softmax(1)


def save(network: nn.Module, path: Path) -> Path:
    torch.jit.script(network.eval()).save(str(path))
    return path


def published(path: Path, **changed: object) -> Published:
    """The registry's entry of a file, with its true checksum unless one is given."""
    content = path.read_bytes()
    about = {
        "name": path.name,
        "url": "http://127.0.0.1:9/none",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
    }
    return Published(**(about | changed))  # type: ignore[arg-type]
