"""A network of styles as a generator: codes of Z, W, W+ or S to pictures, from a safetensors file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self, cast

import torch
from torch import Tensor, nn

from editbench.base.errors import EditbenchError, SpaceMismatch, UnknownName
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator
from editbench.networks.stylegan import StyleNetwork
from editbench.networks.weights import save_tensors, tensors_digest


class StyleGenerator(Generator):
    """A network of styles with constant weights, differentiable in its codes.

    Z (N, z_dim); W (N, w_dim); W_PLUS (N, num_ws, w_dim); S (N, sum of style_sizes): the styles of
    all layers, side by side in the order of `layer_names`. Truncation belongs to `map`: W, W+ and S
    codes are decoded as they are. THETA: codes with a `WeightShift` move the stored weight of one
    layer, each sample along its own direction.

    Args:
        network: the trained network; it is put in evaluation mode and its parameters stop asking
            for gradients.
        truncation_psi: share of the distance to the mean w that `map` keeps; 1 keeps all.
        label: of a conditional network, the class of every picture: its number, or a vector of
            c_dim values.
        truncation_cutoff: truncate this many first rows of w_plus alone. A w is then not truncated
            itself but where `w_plus` repeats it, so W codes are truncated too and W+ and S codes
            are decoded as they are.

    Raises:
        EditbenchError: an option out of range, a conditional network without a label, or a label
            for another.
    """

    network_type: ClassVar[type[StyleNetwork]]  # of the files, set by the subclass
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
        if not isinstance(truncation_psi, (int, float)) or not 0 <= truncation_psi <= 1:
            raise EditbenchError(f"truncation_psi must be between 0 and 1, got {truncation_psi}")
        # By type(): 8.0 and true are in the range, but no rows can be cut there.
        is_count = type(truncation_cutoff) is int and 0 <= truncation_cutoff <= config.num_ws
        if truncation_cutoff is not None and not is_count:
            raise EditbenchError(
                f"truncation_cutoff must be a number of rows of w_plus, 0 to {config.num_ws}, "
                f"got {truncation_cutoff}"
            )
        # A buffer moves with the module; it is no part of the weights, so it is not saved.
        self.register_buffer("label", label_vector(label, config.c_dim), persistent=False)
        self.truncation_cutoff = truncation_cutoff
        # Gradients go to the codes alone; the weights are constant in every method but one.
        self.network = network.eval().requires_grad_(False)
        self.config = config
        self.truncation_psi = truncation_psi
        self.resolution = config.resolution
        self.z_dim = config.z_dim
        self.w_dim = config.w_dim
        self.num_ws = config.num_ws
        self.layer_names = tuple(network.synthesis.layers)
        self.style_sizes = tuple(len(affine.bias) for affine in network.synthesis.affines())
        # Options that are not set stay out of the digest, so that it does not change with new ones.
        options = {
            "label": None if self.label is None else self.label.tolist(),
            "cutoff": truncation_cutoff,
        }
        given = [(name, value) for name, value in options.items() if value is not None]
        self.digest = tensors_digest(
            network.state_dict(), config.as_dict(), float(truncation_psi), *given
        )

    # -- from space to space ----------------------------------------------------------------------
    def map(self, z: Tensor) -> Tensor:
        """z (N, z_dim) -> w (N, w_dim), truncated unless there is a cutoff."""
        # One label for all pictures: a walk must not change the class.
        label = None
        if self.label is not None:
            label = self.label.to(z.dtype).expand(len(z), -1)
        w = self.network.mapping(z, label)
        if self.truncation_cutoff is not None:
            return w
        return self.network.truncate(w, self.truncation_psi)

    def w_plus(self, w: Tensor) -> Tensor:
        """w (N, w_dim) -> every row the same, (N, num_ws, w_dim).

        With a cutoff the rows before it truncated.
        """
        rows = super().w_plus(w)
        # Rows at and after the cutoff keep their full spread (stylegan2, `truncation_cutoff`).
        cutoff = self.truncation_cutoff
        if cutoff is None:
            return rows
        return torch.cat(
            [self.network.truncate(rows[:, :cutoff], self.truncation_psi), rows[:, cutoff:]], 1
        )

    def styles(self, w_plus: Tensor) -> Tensor:
        """w_plus (N, num_ws, w_dim) -> S codes (N, sum of style_sizes)."""
        # Side by side, since one vector a sample is what editors of S take.
        return torch.cat(self.network.synthesis.styles(w_plus), 1)

    def kernels(self) -> dict[str, Tensor]:
        """The stored weights of all modulated convolutions, ToRGB among them, by layer name."""
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
        """S codes (N, sum of style_sizes) -> one (N, channels) a layer, in the order of
        `layer_names`; views.
        """
        return s.split(self.style_sizes, 1)

    # -- pictures ---------------------------------------------------------------------------------
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
        """Raise SpaceMismatch for codes whose shape is not that of their space, and for THETA,
        which has none.
        """
        # W+ codes have an axis of rows; those of other spaces are vectors.
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
        """Write the network; truncation and label are options of loading and are not saved.

        Args:
            path: of the file.
            half: store the weights in half precision, in half the space.
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

        BadFile names the file and the remedy.
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
        """`from_file` of the options in conf/generator, where the file may be missing."""
        if not weights:
            raise EditbenchError(
                f"generator={cls.network_type.kind} needs a network: "
                "generator.weights=FILE.safetensors, made from a checkpoint of yours with "
                "`editbench convert`"
            )
        return cls.from_file(weights, truncation_psi, "cpu", label, truncation_cutoff)


def label_vector(label: int | Sequence[float] | None, c_dim: int) -> Tensor | None:
    """The label (1, c_dim) of every picture, None of an unconditional network.

    EditbenchError says how to give it.
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
        # A class is one of c_dim columns (one-hot), as in the training of the networks.
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
