"""Latent spaces and typed codes. A W code handed to a Z editor is an error, not a scary picture."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor


class Space(StrEnum):
    """Z (N, z_dim); W (N, w_dim); W_PLUS (N, num_ws, w_dim); S (N, style channels in layer order); THETA: weights."""

    Z = "z"
    W = "w"
    W_PLUS = "w_plus"
    S = "s"
    THETA = "theta"


@dataclass(frozen=True)
class Codes:
    """A batch of N codes and the space they live in."""

    space: Space
    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Tensor | slice) -> Codes:
        return Codes(self.space, self.values[index])
