"""Latent spaces and typed codes. A W code handed to a Z editor is an error, not a scary picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from torch import Tensor


class Space(StrEnum):
    """Z (N, z_dim); W (N, w_dim); W_PLUS (N, num_ws, w_dim); S (N, style channels in layer order).

    THETA: the weights. The codes of a walk in THETA are (N, 1), how far along its direction a sample has moved; what is
    decoded are the sample's own Z, W, W+ or S codes under a `WeightShift`.
    """

    Z = "z"
    W = "w"
    W_PLUS = "w_plus"
    S = "s"
    THETA = "theta"


@dataclass(frozen=True)
class WeightShift:
    """Each sample's own step in the weight of one layer: weight + magnitude[n] * kernels[index[n]].

    kernels (K, *weight.shape): K directions; index (N,) int64: which of them a sample takes; magnitude (N,).
    """

    layer: str
    kernels: Tensor
    index: Tensor
    magnitude: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Tensor | slice) -> WeightShift:
        # Samples share the kernels, so a part of them keeps them all.
        return replace(self, index=self.index[rows], magnitude=self.magnitude[rows])


@dataclass(frozen=True)
class Codes:
    """A batch of N codes and the space they live in; `shift` decodes them with weights that are moved (THETA)."""

    space: Space
    values: Tensor
    shift: WeightShift | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Tensor | slice) -> Codes:
        return Codes(
            self.space, self.values[rows], None if self.shift is None else self.shift[rows]
        )
