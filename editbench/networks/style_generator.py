"""A generator that wraps a style-based network: codes of Z, W, W+ or S to images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self, cast

import torch
from torch import Tensor, nn

from editbench.base.errors import EditbenchError, SpaceMismatch, UnknownName
from editbench.base.identity import tensors_digest
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator, check_truncation
from editbench.networks.stylegan import StyleNetwork
from editbench.networks.weights import save_tensors


class StyleGenerator(Generator):
    """A style-based network with constant weights, differentiable in its codes.

    Codes are Z (N, z_dim), W (N, w_dim), W_PLUS (N, num_ws, w_dim), or S (N, sum of style_sizes):
    the styles of all layers, concatenated in the order of `layer_names`. In THETA, codes with a
    `WeightShift` shift the stored weight of one layer, with a separate direction for each sample.
    Truncation is part of `map`; W, W+ and S codes are decoded without further truncation.

    Args:
        network: the trained network. It is set to evaluation mode, and its parameters no longer
            require gradients.
        truncation_psi: share of the distance to the mean w that `map` keeps; 1 for no truncation.
        label: for a conditional network, the class of all images: its number, or a vector of c_dim
            values.
        truncation_cutoff: number of rows of w_plus to truncate, from the first. Truncation is then
            part of `w_plus` instead of `map`. It therefore applies to W codes, but not to W+ and S
            codes.

    Raises:
        EditbenchError: an option is out of range, a conditional network has no label, or another
            network has one.
    """

    network_type: ClassVar[type[StyleNetwork]]  # of the network, set by the subclass
    network: StyleNetwork
    label: Tensor | None

    spaces = (Space.Z, Space.W, Space.W_PLUS, Space.S, Space.THETA)

    def __init__(
        self,
        network: StyleNetwork,
        truncation_psi: float = 1.0,
        label: int | Sequence[float] | None = None,
        truncation_cutoff: int | None = None,
    ) -> None:
        super().__init__()
        config = network.config
        # type(), since 8.0 and true would pass a comparison but are not row numbers.
        is_count = type(truncation_cutoff) is int and 0 <= truncation_cutoff <= config.num_ws
        if truncation_cutoff is not None and not is_count:
            raise EditbenchError(
                f"truncation_cutoff must be a number of rows of w_plus, 0 to {config.num_ws}, "
                f"got {truncation_cutoff}"
            )
        # A buffer moves with the module. It is not saved, since it is not part of the weights.
        self.register_buffer("label", _label_vector(label, config.c_dim), persistent=False)
        self.truncation_cutoff = truncation_cutoff
        # Gradients are needed only for the codes.
        self.network = network.eval().requires_grad_(False)
        self.config = config
        self.truncation_psi = check_truncation(truncation_psi, with_zero=True)
        self.resolution = config.resolution
        self.z_dim = config.z_dim
        self.w_dim = config.w_dim
        self.num_ws = config.num_ws
        self.layer_names = tuple(network.synthesis.layers)
        self.style_sizes = tuple(len(affine.bias) for affine in network.synthesis.affines())
        # The digest includes only options that are set, so that new options do not change it.
        options = {
            "label": None if self.label is None else self.label.tolist(),
            "cutoff": truncation_cutoff,
        }
        given = [(name, value) for name, value in options.items() if value is not None]
        self.digest = tensors_digest(
            network.state_dict(), config.as_dict(), self.truncation_psi, *given
        )

    # -- from space to space ----------------------------------------------------------------------
    def map(self, z: Tensor) -> Tensor:
        """z (N, z_dim) -> w (N, w_dim), truncated unless there is a cutoff."""
        # The same label for all images, since a walk must not change the class.
        label = None
        if self.label is not None:
            label = self.label.to(z.dtype).expand(len(z), -1)
        w = self.network.mapping(z, label)
        if self.truncation_cutoff is not None:
            return w
        return self.network.truncate(w, self.truncation_psi)

    def w_plus(self, w: Tensor) -> Tensor:
        """w (N, w_dim) -> equal rows (N, num_ws, w_dim), but those before a cutoff truncated."""
        rows = super().w_plus(w)
        # Rows from the cutoff on are not truncated (stylegan2, `truncation_cutoff`).
        cutoff = self.truncation_cutoff
        if cutoff is None:
            return rows
        return torch.cat(
            [self.network.truncate(rows[:, :cutoff], self.truncation_psi), rows[:, cutoff:]], 1
        )

    def styles(self, w_plus: Tensor) -> Tensor:
        """w_plus (N, num_ws, w_dim) -> S codes (N, sum of style_sizes)."""
        # Concatenated, since editors of S need one vector per sample.
        return torch.cat(self.network.synthesis.styles(w_plus), 1)

    def kernels(self) -> dict[str, Tensor]:
        """The stored weights of all modulated convolutions, including ToRGB, by layer name."""
        return {
            name: cast(Tensor, layer.weight)
            for name, layer in self.network.synthesis.layers.items()
        }

    def inner(self, layer: str) -> nn.Module:
        """A synthesis layer by its name in `layer_names`."""
        if layer not in self.layer_names:
            raise UnknownName("layer", layer, self.layer_names)
        return self.network.synthesis.layers[layer]

    def split_styles(self, s: Tensor) -> Sequence[Tensor]:
        """S codes (N, sum of style_sizes) -> views (N, channels) per layer, as in `layer_names`."""
        return s.split(self.style_sizes, 1)

    # -- images ------------------------------------------------------------------------------------
    def forward(self, codes: Codes) -> Tensor:
        """`decode`, for `torch.func.functional_call` with edited weights."""
        return self.decode(codes)

    def _decode(self, codes: Codes) -> Tensor:
        # Images are not clamped to [-1, 1], since gradients would vanish outside the range.
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
        """Raise SpaceMismatch if codes do not have the shape of their space, or it is THETA."""
        # W+ codes have an axis of rows; codes of other spaces are vectors.
        shape: tuple[int, ...] = (self.code_dim(codes.space),)
        if codes.space is Space.W_PLUS:
            shape = (self.num_ws, *shape)
        given = tuple(codes.values.shape)
        if len(given) != 1 + len(shape) or given[1:] != shape:
            raise SpaceMismatch(
                f"{codes.space.name} codes of this generator have the shape "
                f"(N, {', '.join(map(str, shape))}), got {given}"
            )

    # -- files ------------------------------------------------------------------------------------
    def save(self, path: Path | str, half: bool = False) -> None:
        """Write the network. Truncation and label are options of loading and are not saved.

        Args:
            path: of the file.
            half: store the weights in half precision, which needs half the space.
        """
        tensors = self.network.state_dict()
        if half:
            tensors = {name: tensor.half() for name, tensor in tensors.items()}
        save_tensors(path, tensors, self.network.kind, self.config.as_dict())

    @classmethod
    def from_file(
        cls,
        path: Path | str,
        truncation_psi: float = 1.0,
        device: torch.device | str = "cpu",
        label: int | Sequence[float] | None = None,
        truncation_cutoff: int | None = None,
    ) -> Self:
        """Read a generator written by `save` or by `editbench convert`.

        Args:
            path: of the safetensors file.
            truncation_psi: see `StyleGenerator`, as are the label and the cut-off.
            device: that the generator is moved to.
            label: of all images.
            truncation_cutoff: number of first rows of W+ that are truncated.

        Raises:
            BadFile: it is not a valid file of this network.
            EditbenchError: an option has a wrong value.
        """
        network = cls.network_type.from_file(path)
        return cls(network, truncation_psi, label, truncation_cutoff).to(device)

    @classmethod
    def load(
        cls,
        weights: Path | str | None = None,
        truncation_psi: float = 1.0,
        label: int | Sequence[float] | None = None,
        truncation_cutoff: int | None = None,
    ) -> Self:
        """`from_file` with the options of conf/generator, for which the file may be missing.

        Args:
            weights: path of the file; None is an error with a remedy.
            truncation_psi: see `StyleGenerator`, as are the next two.
            label: of all images.
            truncation_cutoff: number of first rows of W+ that are truncated.

        Raises:
            BadFile: it is not a valid file of this network.
            EditbenchError: there is no file, or an option has a wrong value.
        """
        if not weights:
            raise EditbenchError(
                f"generator={cls.network_type.kind} needs a network: "
                "generator.weights=FILE.safetensors, made from a checkpoint of yours with "
                "`editbench convert`"
            )
        return cls.from_file(weights, truncation_psi, "cpu", label, truncation_cutoff)


def _label_vector(label: int | Sequence[float] | None, c_dim: int) -> Tensor | None:
    """The label (1, c_dim) of all images from a class or c_dim numbers; None without one (c_dim 0).

    Raises EditbenchError if the label is missing or wrong.
    """
    if not c_dim:
        if label is not None:
            raise EditbenchError(
                f"generator.label={label}, but this network is not conditional: leave the label out"
            )
        return None
    if label is None:
        raise EditbenchError(
            f"this network is conditional, on {c_dim} values: set generator.label=0 to {c_dim - 1} "
            f"for a class, or generator.label=[...] for {c_dim} numbers"
        )
    if isinstance(label, int):
        if not 0 <= label < c_dim:
            raise EditbenchError(
                f"generator.label={label}: the classes of this network are 0 to {c_dim - 1}"
            )
        # One-hot, as in the training of the networks.
        return torch.eye(c_dim)[label : label + 1]
    if (
        isinstance(label, str)
        or not isinstance(label, Sequence)
        or not all(isinstance(v, (int, float)) for v in label)
    ):
        raise EditbenchError(
            f"generator.label={label}: a class must be a whole number, a label [{c_dim} numbers]"
        )
    if len(label) != c_dim:
        raise EditbenchError(
            f"generator.label has {len(label)} numbers, this network takes {c_dim}"
        )
    return torch.tensor([[float(value) for value in label]])
