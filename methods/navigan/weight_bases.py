"""Directions in the weight of one layer: coefficients over an orthonormal basis.

Cherepkov, Voynov & Babenko, "Navigating the GAN Parameter Space for Semantic Image Editing", CVPR
2021, sections 3.2 and 3.4. Directions have unit Frobenius norm. Both bases are orthonormal, so
unit coefficients and unit directions are the same thing.
"""

from __future__ import annotations

import abc
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from editbench.base.errors import UnknownName
from editbench.networks.generator import Generator

# Stored weight of the 512 x 512 x 3 x 3 kernels that the paper's T are for
PAPER_NORM = math.sqrt(512 * 512 * 3 * 3)


class WeightBasis(abc.ABC):
    """`size` orthonormal directions of shape `shape`, the layer's stored weight's."""

    size: int
    shape: torch.Size

    @abc.abstractmethod
    def combine(self, coefficients: Tensor) -> Tensor:
        """Coefficients (B, size) -> directions (B, *shape), differentiable."""

    def unit(self, coefficients: Tensor) -> Tensor:
        """`combine` of coefficients at unit length: ||xi||_F = 1."""
        return self.combine(F.normalize(coefficients, dim=-1))

    @abc.abstractmethod
    def direction(self, k: int) -> Tensor:
        """The k-th direction of the basis itself: `shape`."""


class SVDBasis(WeightBasis):
    """U e_k V^T of a kernel (Cout, Cin, kx, ky) that is laid out as (kx ky Cin) x Cout = U
    diag(s) V^T.

    u (kx ky Cin, n), s (n,) from large to small, v (n, Cout), n = min(kx ky Cin, Cout).

    Args:
        weight: of the layer, as it is stored.
        transposed: whether it is stored as (Cin, Cout, kx, ky), as in nn.ConvTranspose2d.
    """

    def __init__(self, weight: Tensor, transposed: bool = False) -> None:
        self.shape = weight.shape
        self.transposed = transposed
        laid_out = _laid_out(weight, transposed)
        self.layout = laid_out.shape
        # In float64: nearly equal singular values would mix in single precision.
        self.u, self.s, self.v = torch.linalg.svd(
            flat_kernel(laid_out.detach().double()), full_matrices=False
        )
        self.u = self.u.to(weight)
        self.s = self.s.to(weight)
        self.v = self.v.to(weight)
        self.size = len(self.s)

    def combine(self, coefficients: Tensor) -> Tensor:
        """Coefficients d (B, n) -> U diag(d) V^T."""
        return self._stored((self.u * coefficients.unsqueeze(1)) @ self.v)

    def direction(self, k: int) -> Tensor:
        return self._stored(torch.outer(self.u[:, k], self.v[k]))[0]

    def _stored(self, flat: Tensor) -> Tensor:
        """(..., kx ky Cin, Cout) -> (B, *shape)."""
        found = kernel(flat, self.layout)
        return found.transpose(1, 2).contiguous() if self.transposed else found


def singular_values(weight: Tensor, transposed: bool = False) -> int:
    """Number of singular values of a weight (the size of its `SVDBasis`), without an SVD.

    Args:
        weight: of a layer, as it is stored.
        transposed: see `SVDBasis`.
    """
    return min(flat_kernel(_laid_out(weight, transposed)).shape)


def _laid_out(weight: Tensor, transposed: bool) -> Tensor:
    return weight.transpose(0, 1) if transposed else weight


class VectorBasis(WeightBasis):
    """Combinations of given orthonormal vectors (size, *shape): sum_j c_j v_j."""

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors
        self.size = len(vectors)
        self.shape = vectors.shape[1:]

    def combine(self, coefficients: Tensor) -> Tensor:
        """Coefficients c (B, size) -> sum_j c_j v_j."""
        # One matrix product; the published code repeats the basis for each sample.
        return (coefficients @ self.vectors.flatten(1)).reshape(-1, *self.shape)

    def direction(self, k: int) -> Tensor:
        return self.vectors[k]


# -- layouts ------------------------------------------------------------------
# The layout decides which singular vectors there are: input positions against output channels.
def flat_kernel(weight: Tensor) -> Tensor:
    """(Cout, Cin, kx, ky) or (Cout, Cin) -> (kx ky Cin, Cout), the paper's layout."""
    # A linear layer is a convolution of one pixel.
    if weight.dim() == 2:
        return weight.t()
    return weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])


def kernel(flat: Tensor, shape: torch.Size) -> Tensor:
    """Restore kernels from the paper's layout; the inverse of `flat_kernel`.

    Args:
        flat: (..., kx ky Cin, Cout).
        shape: of one kernel, (Cout, Cin, kx, ky) or (Cout, Cin).

    Returns:
        (B, *shape), where B is the number of kernels in `flat`; 1 if it has no leading dimension.
    """
    if len(shape) == 2:
        return flat.reshape(-1, *reversed(shape)).transpose(1, 2).contiguous()
    n_out, n_in, kx, ky = shape
    return flat.reshape(-1, kx, ky, n_in, n_out).permute(0, 4, 3, 1, 2).contiguous()


# -- the layer at hand --------------------------------------------------------
def layer_name(generator: Generator, layer: str | int) -> str:
    """A layer by its name, or by the published code's number.

    Numbers count the convolutions after the first, without ToRGB.

    Args:
        generator: whose layers have kernels.
        layer: name or number.

    Raises:
        UnknownName: no such layer; lists those that there are.
    """
    known = generator.kernels()
    numbered = [name for name in known if not name.startswith("rgb")][1:]
    if isinstance(layer, int):
        if not 0 <= layer < len(numbered):
            choices = [*known, *map(str, range(len(numbered)))]
            raise UnknownName("method.layer", str(layer), choices)
        return numbered[layer]
    if layer not in known:
        raise UnknownName("method.layer", layer, known)
    return layer


def paper_scale(weight: Tensor) -> float:
    """Size of a shift in this layer that corresponds to a shift of 1 in the paper's layers.

    It is the ratio of the stored weights' Frobenius norms.
    """
    return weight.norm().item() / PAPER_NORM
