"""Any nn.Module from image to logits as a scorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.errors import EditbenchError, NonFinite
from editbench.scorers.base import Scorer
from editbench.scorers.declared import declare
from editbench.third_party import load_network, network_digest

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class ModuleScorer(Scorer):
    """Images (N, C, H, W) in [-1, 1] -> channels, size and range of the network -> logits (N, width).

    Args:
        network: the module, or a list of layers; in YAML `{_target_: dotted.name, ...}`. Its output columns are
            those of the attributes in order: one for a binary attribute, K for one of K classes; log-probabilities
            will do.
        attributes: see editbench.scorers.declared.
        input_size: (height, width); other sizes are resized bilinearly, None passes any size.
        input_range: the network's black and white.
        channels: 1 or 3; grey is repeated, colour becomes luma.
        mean, std: one number a channel; (x - mean) / std after the change of range.
        antialias: low-pass before shrinking, as Pillow does; without it as torch interpolates.
        weights: a safetensors file with exactly the network's tensors; None keeps the weights it came with.

    Raises:
        BadFile: the weights do not fit; EditbenchError: the output does not fit the attributes or is probabilities;
        NonFinite: NaN or infinity in its output. All at load.
    """

    sign: Tensor  # (width,)
    mean: Tensor  # (channels, 1, 1)
    std: Tensor

    def __init__(self, network: nn.Module | Sequence[nn.Module], attributes: Sequence[Mapping[str, Any]],
                 input_size: Sequence[int] | None, input_range: Sequence[float] = (-1.0, 1.0), channels: int = 3,
                 mean: Sequence[float] | None = None, std: Sequence[float] | None = None, antialias: bool = False,
                 weights: Path | str | None = None) -> None:
        super().__init__()
        if channels not in (1, 3) or (input_size is not None and len(input_size) != 2):
            raise EditbenchError(f"a scorer takes 1 or 3 channels and input_size [height, width]; got {channels} and "
                                 f"{input_size}")
        if len(input_range) != 2 or not input_range[0] < input_range[1]:
            raise EditbenchError(f"scorer.input_range is [black, white], black below white; got {list(input_range)}")
        self.attributes, signs = declare(attributes)
        self.input_size = None if input_size is None else (int(input_size[0]), int(input_size[1]))
        self.input_range = (float(input_range[0]), float(input_range[1]))
        self.channels, self.antialias = channels, antialias
        self.network = load_network(network, weights)
        self.source = str(weights or type(self.network).__name__)
        widths = [item.width for item in self.attributes]
        self.register_buffer("sign", torch.tensor(signs).repeat_interleave(torch.tensor(widths)), persistent=False)
        for name, values, default in (("mean", mean, 0.0), ("std", std, 1.0)):
            row = torch.full((channels,), default) if values is None else torch.tensor([float(v) for v in values])
            if len(row) != channels or (name == "std" and not bool((row > 0).all())):
                raise EditbenchError(f"scorer.{name} needs {channels} numbers, std positive ones; got {row.tolist()}")
            self.register_buffer(name, row.view(-1, 1, 1), persistent=False)
        self._check()
        parts = (signs, self.attributes.as_config(), self.input_size, self.input_range, channels, antialias, mean, std)
        self.digest = network_digest(self.network, *parts)

    def prepare(self, images: Tensor) -> Tensor:
        """Images (N, 1 or 3, H, W) in [-1, 1] -> what the network takes."""
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise EditbenchError(f"a scorer takes images (N, 1 or 3, H, W), got {tuple(images.shape)}")
        low, high = self.input_range
        scale = (high - low) / 2
        x = images * scale + (low + scale)
        if x.shape[1] < self.channels:
            x = x.expand(-1, self.channels, -1, -1)
        elif x.shape[1] > self.channels:
            x = (x * x.new_tensor(LUMA).view(-1, 1, 1)).sum(1, keepdim=True)
        if self.input_size is not None and tuple(x.shape[2:]) != self.input_size:
            x = F.interpolate(x, size=self.input_size, mode="bilinear", align_corners=False, antialias=self.antialias)
        return (x - self.mean) / self.std

    def forward(self, decoded: Tensor) -> Tensor:
        return self.network(self.prepare(decoded)).float() * self.sign

    @torch.no_grad()
    def _check(self) -> None:
        """Score a ramp and a chequerboard and compare with what was declared."""
        height, width = self.input_size or (64, 64)
        ramp = torch.linspace(-1, 1, height * width).view(1, 1, height, width)
        board = (torch.arange(height)[:, None] // 4 + torch.arange(width) // 4).remainder(2).mul(2.0).sub(1)
        images = torch.cat([ramp, board.expand(1, 1, -1, -1)]).expand(-1, self.channels, -1, -1)
        try:
            out = self.network(self.prepare(images))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise EditbenchError(f"{self.source}: the network does not take images {tuple(images.shape)} "
                                 f"({str(error).splitlines()[0]}); change the scorer's input_size or channels"
                                 ) from error
        expected = (len(images), self.attributes.width)
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        if shape != expected:
            raise EditbenchError(f"{self.source}: the network gives {shape}, but its attributes need {expected}: "
                                 f"{', '.join(self.attributes.columns())}")
        if not torch.isfinite(out).all():
            raise NonFinite(f"{self.source}: the network gives NaN or infinity; check its weights")
        totals = [self.attributes.logits(out, item.name).sum(1) for item in self.attributes if not item.binary]
        if totals and out.min() >= 0 and torch.allclose(torch.stack(totals), torch.ones(()), atol=1e-4):
            raise EditbenchError(f"{self.source}: the network gives probabilities, the benchmark needs logits: leave "
                                 "out its softmax, or end it with a log-softmax")
