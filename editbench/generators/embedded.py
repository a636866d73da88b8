"""StyleGAN2 as a generator of the harness: codes of Z, W, W+ or S -> pictures, from a safetensors file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from editbench.checkpoint import load_strict, load_tensors, save_module, tensors_digest
from editbench.errors import BadFile, EditbenchError, SpaceMismatch, UnknownName
from editbench.generators.base import Generator
from editbench.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from editbench.spaces import Codes, Space

KIND = "stylegan2"


class StyleGAN2Generator(Generator):
    """A StyleGAN2 with constant noise and constant weights, differentiable in its codes.

    Z (N, z_dim); W (N, w_dim); W_PLUS (N, num_ws, w_dim); S (N, sum of style_sizes): the styles of all layers, side by
    side in the order of `layer_names`. Truncation belongs to `map`: W, W+ and S codes are decoded as they are. THETA:
    codes with a `WeightShift` move the stored weight of one layer, each sample along its own direction.

    Args:
        network: the trained network; it is put in evaluation mode and its parameters stop asking for gradients.
        truncation_psi: share of the distance to the mean w that `map` keeps; 1 keeps all.
    """

    spaces = (Space.Z, Space.W, Space.W_PLUS, Space.S, Space.THETA)

    def __init__(self, network: StyleGAN2, truncation_psi: float = 1.0) -> None:
        super().__init__()
        if not 0 <= truncation_psi <= 1:
            raise EditbenchError(f"truncation_psi lies between 0 and 1, got {truncation_psi}")
        config = network.config
        self.network = network.eval().requires_grad_(False)
        self.config, self.truncation_psi, self.resolution = config, truncation_psi, config.resolution
        self.z_dim, self.w_dim, self.num_ws = config.z_dim, config.w_dim, config.num_ws
        self.layer_names = tuple(network.synthesis.layers)
        self.style_sizes = tuple(len(affine.bias) for affine in network.synthesis.affines())
        self.digest = tensors_digest(network.state_dict(), dataclasses.asdict(config), float(truncation_psi))

    # -- from space to space ----------------------------------------------------------------------------------------
    def map(self, z: Tensor) -> Tensor:
        """z (N, z_dim) -> truncated w (N, w_dim)."""
        return self.network.truncate(self.network.mapping(z), self.truncation_psi)

    def styles(self, w_plus: Tensor) -> Tensor:
        """w_plus (N, num_ws, w_dim) -> S codes (N, sum of style_sizes)."""
        return torch.cat(self.network.synthesis.styles(w_plus), 1)

    def kernels(self) -> dict[str, Tensor]:
        """The stored weights of all modulated convolutions, ToRGB among them, by layer name."""
        return {name: cast(Tensor, layer.weight) for name, layer in self.network.synthesis.layers.items()}

    def inner(self, layer: str) -> nn.Module:
        """A synthesis layer by its name in `layer_names`."""
        if layer not in self.layer_names:
            raise UnknownName("layer", layer, self.layer_names)
        return self.network.synthesis.layers[layer]

    def split_styles(self, s: Tensor) -> Sequence[Tensor]:
        """S codes (N, sum of style_sizes) -> one (N, channels) a layer, in the order of `layer_names`; views."""
        return s.split(self.style_sizes, 1)

    # -- pictures ---------------------------------------------------------------------------------------------------
    def forward(self, codes: Codes) -> Tensor:
        """`decode`, for `torch.func.functional_call` with edited weights."""
        return self.decode(codes)

    def _decode(self, codes: Codes) -> Tensor:
        # Pictures are not clamped to [-1, 1]: gradients must not vanish outside the range.
        self._check(codes)
        if codes.space is Space.S:
            return self.network.synthesis(self.split_styles(codes.values), shift=codes.shift)
        x = codes.values
        if codes.space is Space.Z:
            x = self.map(x)
        if codes.space is not Space.W_PLUS:
            x = self.w_plus(x)
        return self.network.synthesis(self.network.synthesis.styles(x), shift=codes.shift)

    def _check(self, codes: Codes) -> None:
        """Raise SpaceMismatch for codes whose shape is not that of their space, and for THETA, which has none."""
        shape: tuple[int, ...] = (self.code_dim(codes.space),)
        if codes.space is Space.W_PLUS:
            shape = (self.num_ws, *shape)
        given = tuple(codes.values.shape)
        if len(given) != 1 + len(shape) or given[1:] != shape:
            raise SpaceMismatch(f"{codes.space.name} codes of this generator have the shape "
                                f"(N, {', '.join(map(str, shape))}), got {given}")

    # -- files ------------------------------------------------------------------------------------------------------
    def save(self, path: Path | str) -> None:
        """Write the network; truncation is an option of loading and is not saved."""
        save_module(path, self.network, KIND, dataclasses.asdict(self.config))

    @classmethod
    def from_file(cls, path: Path | str, truncation_psi: float = 1.0,
                  device: torch.device | str = "cpu") -> StyleGAN2Generator:
        """Read a generator written by `save`; BadFile names the file and the remedy."""
        config, tensors = load_tensors(path, KIND, "train one with `editbench world train-gan`, then "
                                                   "`editbench world pack`")
        try:
            network = StyleGAN2(StyleGAN2Config(**config))
        except (TypeError, ValueError) as error:
            raise BadFile(f"{path}: its configuration is not that of a StyleGAN2 ({error})") from error
        load_strict(network, tensors, path)
        return cls(network.to(device), truncation_psi)
