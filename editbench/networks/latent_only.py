"""Generators without images: only W codes, for classifiers of codes. Tables mark such runs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.identity import tensors_digest
from editbench.base.spaces import Codes, Space
from editbench.networks.external import read_tensors
from editbench.networks.generator import Generator, check_truncation

# For products of rows, since published components are stored in float32.
UNIT_TOLERANCE = 1e-3


class LatentOnly(Generator):
    """W codes that decode to themselves. It cannot sample, so its bank is imported (bank.path).

    It has no W+, since a classifier of one w cannot judge different rows. Jobs of editors with a
    layer range are recorded as skipped.
    """

    spaces = (Space.W,)
    output = "w"

    def __init__(self, w_dim: int = 512, z_dim: int = 0) -> None:
        super().__init__()
        if w_dim < 1:
            raise EditbenchError(f"generator.w_dim must be positive, got {w_dim}")
        self.w_dim = w_dim
        self.z_dim = z_dim
        # There are no weights, so the generator is identified by its size.
        self.digest = tensors_digest({}, type(self).__name__, w_dim)

    def map(self, z: Tensor) -> Tensor:
        raise EditbenchError(
            f"{type(self).__name__} cannot sample new w codes: import a bank of (w, logits) with "
            "`editbench bank import` and set bank.path"
        )

    def _decode(self, codes: Codes) -> Tensor:
        if codes.values.shape[1:] != (self.w_dim,):
            raise EditbenchError(
                f"W codes are (N, {self.w_dim}) here, got {tuple(codes.values.shape)}"
            )
        return codes.values


class PCALatents(LatentOnly):
    """A normal distribution of w from published principal components.

    w = mean + psi (z * std) @ comp, with z ~ N(0, I_k). z is used only to draw the samples of the
    bank. Its k coordinates are not the Z of the generator that the statistics come from, so editors
    cannot use Z. The samples have that generator's mean and leading covariance, but not its tails.

    Args:
        path: safetensors with mean (1, d), comp (k, d) with orthonormal rows, std (k,).
        truncation_psi: factor of std, as in StyleGAN; 1 for none.

    Raises:
        BadFile: the file lacks a tensor, or they do not fit together.
        EditbenchError: truncation_psi is not above 0 and at most 1.
    """

    mean: Tensor
    comp: Tensor
    std: Tensor

    def __init__(self, path: Path | str, truncation_psi: float = 1.0) -> None:
        psi = check_truncation(truncation_psi)
        tensors = read_tensors(path, ("mean", "comp", "std"))
        # GANSpace stores the mean as one row.
        mean = tensors["mean"].reshape(-1)
        comp = tensors["comp"]
        std = tensors["std"].reshape(-1)
        if comp.dim() != 2 or comp.shape != (len(std), len(mean)):
            raise BadFile(
                f"{path}: mean (d), comp (k, d) and std (k) do not fit together: "
                f"{tuple(mean.shape)}, {tuple(comp.shape)}, {tuple(std.shape)}"
            )
        if (comp @ comp.T - torch.eye(len(comp))).abs().max() > UNIT_TOLERANCE or std.min() < 0:
            raise BadFile(
                f"{path}: the rows of comp must be orthonormal and std at least 0; this is another "
                "format"
            )
        super().__init__(w_dim=len(mean), z_dim=len(std))
        # Truncation is included in std.
        for name, value in (("mean", mean), ("comp", comp), ("std", std * psi)):
            self.register_buffer(name, value.clone())
        self.digest = tensors_digest(self.state_dict(), type(self).__name__)

    def map(self, z: Tensor) -> Tensor:
        """z (N, k) -> w (N, d)."""
        if z.shape[1:] != (self.z_dim,):
            raise EditbenchError(
                f"this sampler takes z (N, {self.z_dim}), one number per component, got "
                f"{tuple(z.shape)}"
            )
        return self.mean + (z * self.std) @ self.comp
