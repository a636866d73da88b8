"""Steering a GAN's class shares to the data's while it trains.

A small adversarial game cycles: for long stretches it makes too few frontal faces, then too few turned ones. The
teacher watches the share of every class over the last `memory` images; the gradient of KL(shares || priors) with
respect to the shares, ln(share / prior), weighs the class probabilities of the images at hand. Images at a class
border drift to the class that is missing; where the shares are right the term vanishes. The judge is not used.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from editbench.scorers.base import Scorer


class MarginalSteering:
    """priors: class probabilities of each attribute of the teacher. weight: of the term beside the GAN loss."""

    def __init__(self, teacher: Scorer, priors: Mapping[str, tuple[float, ...]], weight: float = 1.0,
                 memory: int = 2000) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.weight, self.memory = weight, memory
        self.priors = [torch.tensor(priors[a.name]) for a in teacher.attributes]
        self.shares = [prior.clone() for prior in self.priors]

    def loss(self, images: Tensor) -> Tensor:
        """images (N, 3, R, R) -> scalar; also moves the running shares towards this batch's."""
        total = images.new_zeros(())
        logits = self.teacher(images).float()
        for k, attribute in enumerate(self.teacher.attributes):
            part = self.teacher.attributes.logits(logits, attribute.name)
            classes = torch.cat([torch.zeros_like(part), part], 1) if attribute.binary else part
            batch = classes.softmax(1).mean(0)
            self.shares[k] = torch.lerp(self.shares[k], batch.detach().cpu(), min(1.0, len(images) / self.memory))
            pull = torch.log(self.shares[k].clamp_min(1e-3) / self.priors[k])
            total = total + (pull.to(batch) * batch).sum()
        return self.weight * total

    def state_dict(self) -> dict[str, Tensor]:
        return {str(k): share for k, share in enumerate(self.shares)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.shares = [state[str(k)] for k in range(len(self.shares))]
