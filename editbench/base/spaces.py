"""Latent spaces, and codes that know their space.

With `Codes`, passing W codes to an editor of Z raises an error. Otherwise it would silently give a
wrong image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from editbench.base.errors import WrongType

if TYPE_CHECKING:
    from torch import Tensor


class Space(StrEnum):
    """The latent spaces of a generator.

    - Z: (N, z_dim).
    - W: (N, w_dim).
    - W_PLUS: (N, num_ws, w_dim).
    - S: (N, style channels in the order of the layers).
    - THETA: the weights. The codes of a walk in THETA are (N, 1): how far a sample has moved along
      its direction. The decoded codes are the sample's own in Z, W, W+ or S, with a `WeightShift`.

    Examples:
        >>> import editbench as eb
        >>> gan = eb.generator("faces32")
        >>> [space.name for space in gan.spaces]
        ['Z', 'W', 'W_PLUS', 'S', 'THETA']
        >>> gan.code_dim(eb.Space.W)
        128
    """

    # Configurations and records contain these values, so they must not change.
    Z = "z"
    W = "w"
    W_PLUS = "w_plus"
    S = "s"
    THETA = "theta"


@dataclass(frozen=True)
class WeightShift:
    """A shift of one layer's weight for each sample: weight + magnitude[n] * kernels[index[n]].

    Args:
        layer: name of the layer.
        kernels: (K, *weight.shape), K directions.
        index: (N,) int64, the direction of each sample.
        magnitude: (N,).
        known: (N,) int64, `index` on the host, if it is known there; avoids waiting for the device.
    """

    layer: str
    kernels: Tensor
    index: Tensor
    magnitude: Tensor
    known: Tensor | None = None

    # The number of samples, not of directions.
    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Tensor | slice) -> WeightShift:
        # Samples share the kernels, so a part of the samples keeps all of them.
        known = self.known
        if known is not None:
            # Rows on another device would have to be copied to the host.
            known = known[rows] if isinstance(rows, slice) or rows.device == known.device else None
        return replace(self, index=self.index[rows], magnitude=self.magnitude[rows], known=known)


@dataclass(frozen=True)
class Codes:
    """A batch of N codes with their space.

    Args:
        space: the space of `values`.
        values: (N, ...), see `Space`.
        shift: weight shift to decode the codes with (THETA); None for the generator's own weights.

    Raises:
        WrongType: the space is no `Space`, or the values are no tensor.

    Examples:
        >>> import torch
        >>> import editbench as eb
        >>> gan = eb.generator("faces32")
        >>> w = torch.zeros(2, gan.w_dim)  # float32; torch.from_numpy(array).float() for an array
        >>> tuple(gan.decode(eb.Codes(eb.Space.W, w)).shape)
        (2, 3, 32, 32)
    """

    space: Space
    values: Tensor
    shift: WeightShift | None = None

    def __post_init__(self) -> None:
        # Here, since commands that only read configurations do without torch.
        from torch import Tensor

        if not isinstance(self.space, Space):
            raise WrongType(
                f"Codes take a space such as editbench.Space.W, not {self.space!r} of type "
                f"{type(self.space).__name__}"
            )
        if not isinstance(self.values, Tensor):
            raise WrongType(
                f"Codes take a tensor, not {type(self.values).__name__}: pass "
                "torch.as_tensor(values).float()"
            )

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Tensor | slice) -> Codes:
        # A shift has one entry per sample, so it is indexed with the same rows as the values.
        shift = self.shift
        if shift is not None:
            shift = shift[rows]
        return Codes(self.space, self.values[rows], shift)
