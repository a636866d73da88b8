"""A small residual classifier, the teacher and the judge of an embedded world.

It is designed for CPUs: the first layer reduces the number of pixels to a quarter, all tensors are
channels-last, and no layer depends on the batch. Positions are not pooled before the first linear
layer, since head pose is a matter of positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile, EditbenchError
from editbench.base.identity import tensors_digest
from editbench.networks.scorer import Scorer
from editbench.networks.weights import load_strict, load_tensors, save_tensors

KIND = "convnet"


class Residual(nn.Module):
    """x + conv(act(conv(act(x)))).

    The second convolution has small initial weights, which replaces normalisation.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.2)

    def forward(self, x: Tensor) -> Tensor:
        # In place, since allocation costs more than the arithmetic and the gradient does not need
        # the overwritten values. x is kept for the sum.
        branch = self.second(F.relu(self.first(F.relu(x)), inplace=True))
        return branch.add_(x)


class ConvScorer(Scorer):
    """Images -> logits in the layout of `attributes`.

    Args:
        attributes: the attributes to score.
        resolution: height and width of its input, a multiple of 16.
        widths: channels at 1/2, 1/4 and 1/8 of the resolution.
        hidden: size of the penultimate features.
    """

    def __init__(
        self,
        attributes: Attributes,
        resolution: int = 32,
        widths: Sequence[int] = (32, 64, 96),
        hidden: int = 128,
    ) -> None:
        super().__init__()
        if resolution < 16 or resolution % 16:
            raise EditbenchError(
                f"the resolution of a ConvScorer must be a multiple of 16, got {resolution}"
            )
        self.attributes = attributes
        self.resolution = resolution
        self.widths = tuple(widths)
        self.hidden = hidden
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 4, stride=2, padding=1),
            Residual(widths[0]),
        ]
        for before, after in pairwise(widths):
            layers += [
                nn.ReLU(inplace=True),
                nn.Conv2d(before, after, 4, stride=2, padding=1),
                Residual(after),
            ]
        self.trunk = nn.Sequential(*layers, nn.ReLU(inplace=True))
        # Each entry of `widths` halves the sides.
        cells = (resolution >> len(self.widths)) ** 2
        self.neck = nn.Linear(self.widths[-1] * cells, hidden)
        self.head = nn.Linear(hidden, attributes.width)

    def features(self, decoded: Tensor) -> Tensor:
        """Penultimate activations: (N, 3, R, R) in [-1, 1] -> (N, hidden) float32.

        Raises:
            EditbenchError: the input has another shape than in training.
        """
        # Resizing would silently give wrong scores.
        expected = (3, self.resolution, self.resolution)
        if decoded.dim() != 4 or tuple(decoded.shape[1:]) != expected:
            raise EditbenchError(
                f"this scorer takes images (N, {', '.join(map(str, expected))}) but was given "
                f"{tuple(decoded.shape)}; resize them or use a scorer of that resolution"
            )
        # Convolutions on a CPU are faster in this layout.
        x = self.trunk(decoded.contiguous(memory_format=torch.channels_last))
        return F.silu(self.neck(x.flatten(1)))

    def forward(self, decoded: Tensor) -> Tensor:
        return self.head(self.features(decoded)).float()

    def seal(self) -> ConvScorer:
        """Prepare for use: evaluation mode, constant weights, digest."""
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.digest = tensors_digest(self.state_dict(), self.config())
        return self

    # -- files ------------------------------------------------------------------------------------
    def config(self) -> dict:
        return {
            "attributes": self.attributes.as_config(),
            "resolution": self.resolution,
            "widths": list(self.widths),
            "hidden": self.hidden,
        }

    def save(self, path: Path | str) -> None:
        save_tensors(path, self.state_dict(), KIND, self.config())

    @classmethod
    def from_file(cls, path: Path | str, device: torch.device | str = "cpu") -> ConvScorer:
        """Read a scorer written by `save`.

        Args:
            path: of a safetensors file.
            device: that the scorer is moved to.

        Returns:
            The scorer in evaluation mode, without gradients of its weights.

        Raises:
            BadFile: it is not a valid one.
        """
        config, tensors = load_tensors(path, KIND, "train one with `editbench world train-scorers`")
        try:
            config["attributes"] = Attributes.from_config(config["attributes"])
            scorer = cls(**config)
        # Another version of the project may have written it.
        except (KeyError, TypeError) as error:
            raise BadFile(
                f"{path}: its configuration is not that of a {cls.__name__} ({error}); train it again"
            ) from error
        load_strict(scorer, tensors, path)
        return scorer.to(device).seal()


def classification_loss(logits: Tensor, labels: Tensor, attributes: Attributes) -> Tensor:
    """Cross-entropy, averaged over attributes.

    Args:
        logits: (N, width).
        labels: (N, A) int64, classes.
        attributes: the layout of the logits.
    """
    losses = []
    for column, item in enumerate(attributes):
        part = attributes.logits(logits, item.name)
        label = labels[:, column]
        losses.append(
            F.binary_cross_entropy_with_logits(part[:, 0], label.to(part.dtype))
            if item.binary
            else F.cross_entropy(part, label)
        )
    return torch.stack(losses).mean()
