"""The contract of a generator: codes of a space it has -> decoded samples, differentiable, with constant noise."""

from __future__ import annotations

import abc

from torch import Tensor, nn

from editbench.errors import EditbenchError, SpaceMismatch
from editbench.spaces import Codes, Space


class Generator(nn.Module, abc.ABC):
    """Base of all generators.

    Attributes:
        spaces: the latent spaces it can decode.
        z_dim, w_dim, num_ws: sizes; w_dim and num_ws are 0 for a generator without W.
        output: "image" when `decode` gives pictures (N, C, H, W) in [-1, 1]; "w" when there are no pictures and the
            codes themselves are judged (latent-only data).
        digest: hash of all that determines its output (weights, architecture, truncation).
    """

    spaces: tuple[Space, ...]
    z_dim: int
    w_dim: int = 0
    num_ws: int = 0
    output: str = "image"
    digest: str = ""
    decoded: int = 0  # samples decoded so far, the cost that every table shows

    def map(self, z: Tensor) -> Tensor:
        """z (N, z_dim) -> w (N, w_dim), truncated as the generator is configured."""
        raise EditbenchError(f"{type(self).__name__} has no W space")

    def decode(self, codes: Codes) -> Tensor:
        """Codes of one of `spaces` -> images (N, C, H, W) float32, about [-1, 1] (or codes, if output is "w").

        Raises SpaceMismatch for codes of a space the generator does not have.
        """
        if codes.space not in self.spaces:
            raise SpaceMismatch(f"{type(self).__name__} decodes {', '.join(s.name for s in self.spaces)} codes but was "
                                f"given {codes.space.name} codes of shape {tuple(codes.values.shape)}")
        self.decoded += len(codes)
        return self._decode(codes)

    @abc.abstractmethod
    def _decode(self, codes: Codes) -> Tensor:
        """`decode` for a space that was checked."""

    def code_dim(self, space: Space) -> int:
        return {Space.Z: self.z_dim, Space.W: self.w_dim, Space.W_PLUS: self.w_dim}[space]
