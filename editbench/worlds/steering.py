"""A loss term that steers the class shares of a GAN, and of pairs of classes, to those of the data.

The class shares of a small GAN drift during training: for a long time it generates too few frontal
faces, or glasses on nearly all of them. A witness measures the joint share of every pair of classes
over the last `memory` images. The gradient of KL(shares || data) with respect to the shares,
ln(share / data), weights the class probabilities of the batch. It moves images near a class
boundary to the class that is too rare, and vanishes if the shares are right. The witness is neither
the editors' teacher nor the judge, so that the generator is optimised against neither of the two.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.devices import to_device

FLOOR = 1e-3  # smaller shares are raised to it, so that the logarithm is finite


def class_probabilities(logits: Tensor, attributes: Attributes) -> Tensor:
    """Probabilities of all classes of all attributes.

    Args:
        logits: (N, width).
        attributes: of the logits.

    Returns:
        (N, C), where C is the sum of the numbers of classes; those of each attribute sum to 1.
    """
    parts = []
    for attribute in attributes:
        part = attributes.logits(logits, attribute.name)
        if attribute.binary:
            # The softmax of (0, l) is the sigmoid of l.
            part = torch.cat([torch.zeros_like(part), part], 1)
        # Separately for each attribute, whose classes exclude each other.
        parts.append(part.softmax(1))
    return torch.cat(parts, 1)


def joint_shares(p: Tensor) -> Tensor:
    """Mean outer product of class probabilities (N, C) -> (C, C); single shares on the diagonal."""
    joint = p.T @ p / len(p)
    return joint - torch.diag(joint.diagonal()) + torch.diag(p.mean(0))


class ShareSteering:
    """A loss that moves the class shares of a generator to those of data.

    Args:
        attributes: of the witness, whose logits give the class probabilities.
        labels: (n, A) of the data, which give the shares to reach.
        weight: of the term relative to the GAN loss.
        memory: number of images that the running shares are over.
    """

    def __init__(
        self, attributes: Attributes, labels: Tensor, weight: float = 1.0, memory: int = 2000
    ) -> None:
        self.attributes = attributes
        self.weight = weight
        self.memory = memory
        sizes = [len(attribute.classes) for attribute in attributes]
        one_hot = [torch.nn.functional.one_hot(labels[:, k], size) for k, size in enumerate(sizes)]
        self.data = joint_shares(torch.cat(one_hot, 1).float())
        # Initially the running shares are those of the data, for which the term vanishes.
        self.shares = self.data.clone()
        # Two classes of one attribute exclude each other, so their joint share is not steered.
        same = torch.block_diag(*(torch.ones(size, size) for size in sizes))
        # The table has each pair of attributes twice.
        self.scale = (1 - same) / 2 + torch.eye(len(same))

    def loss(self, logits: Tensor) -> Tensor:
        """The witness's logits (N, width) -> scalar; updates the running shares with this batch."""
        batch = joint_shares(class_probabilities(logits.float(), self.attributes))
        step = min(1.0, len(logits) / self.memory)
        # The device of the training is known only with the first batch.
        for name in ("shares", "data", "scale"):
            setattr(self, name, to_device(getattr(self, name), batch.device))
        # In place, since a captured step updates the same memory at every replay.
        self.shares.lerp_(batch.detach(), step)
        # The gradient of KL(shares || data), which weights the batch and is not differentiated.
        gradient = self.scale * torch.log(self.shares.clamp_min(FLOOR) / self.data.clamp_min(FLOOR))
        return self.weight * (gradient.to(batch) * batch).sum()

    def state_dict(self) -> dict[str, Tensor]:
        return {"shares": self.shares.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.shares = state["shares"]
