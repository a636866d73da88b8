"""The contract of a generator: from codes to samples, differentiable, with constant noise."""

from __future__ import annotations

import abc
from typing import Any, Self

from torch import Tensor, nn

from editbench.base.errors import EditbenchError, SpaceMismatch, UnknownName, WrongType
from editbench.base.precision import casting
from editbench.base.spaces import Codes, Space
from editbench.base.validation import in_yaml
from editbench.networks.external import explain_dtype, fix_modes


class Generator(nn.Module, abc.ABC):
    """Base of all generators.

    Attributes:
        spaces: the latent spaces that it can decode.
        z_dim, w_dim, num_ws: sizes; w_dim and num_ws are 0 for a generator without W.
        output: "image" if `decode` returns images (N, C, H, W) in [-1, 1]; "w" if there are no
            images and the codes themselves are judged (latent-only data).
        digest: hash of everything that determines its output (weights, architecture, truncation).
        samples_digest: if this generator produces the images of another one in different
            coordinates, the digest of that generator, so that the same starts are drawn for both;
            otherwise `digest`.
        layer_names: for a generator with S, its layers in the order of S; names of layers that
            produce colours (ToRGB) begin with 'rgb'.
        style_sizes: numbers of channels of these layers.
    """

    # Set by the subclass. 0 or empty means that the generator does not have it.
    spaces: tuple[Space, ...]
    z_dim: int
    w_dim: int = 0
    num_ws: int = 0
    output: str = "image"
    digest: str = ""
    layer_names: tuple[str, ...] = ()
    style_sizes: tuple[int, ...] = ()
    precision: str = "fp32"  # of `decode`, see editbench.base.precision
    # Number of samples decoded so far, including derivative passes: the cost shown in tables.
    decoded: int = 0

    @property
    def samples_digest(self) -> str:
        return self.digest

    def train(self, mode: bool = True) -> Self:
        fix_modes(self)
        return super().train(mode)

    def map(self, z: Tensor) -> Tensor:
        """z (N, z_dim) -> w (N, w_dim), with the generator's truncation."""
        raise EditbenchError(f"{type(self).__name__} has no W space")

    def decode(self, codes: Codes) -> Tensor:
        """Decode codes of one of `spaces`.

        Returns:
            Images (N, C, H, W) float32, about [-1, 1]; or the codes, if output is "w".

        Raises:
            SpaceMismatch: the generator does not have the space of the codes.
            WrongType: the argument is a plain tensor, or the network cannot compute with codes of
                this dtype.
        """
        if not isinstance(codes, Codes):
            raise WrongType(
                f"{type(self).__name__}.decode takes Codes, which know their space, not "
                f"{type(codes).__name__}: pass editbench.Codes(editbench.Space.W, w), or "
                "editbench.codes(generator, count=4)"
            )
        if codes.space not in self.spaces:
            raise SpaceMismatch(
                f"{type(self).__name__} decodes {', '.join(s.name for s in self.spaces)} codes but "
                f"was given {codes.space.name} codes of shape {tuple(codes.values.shape)}"
            )
        # Weight shifts are checked before any computation.
        if codes.shift is not None:
            self._check_shift(codes)
        # Counted before decoding, since a failed pass costs as much.
        self.decoded += len(codes)
        try:
            if self.precision == "fp32":
                return self._decode(codes)
            # Codes and images are always float32, so that metrics see only one type.
            with casting(self.precision, codes.values.device):
                return self._decode(codes).float()
        except RuntimeError:
            explain_dtype(self, codes.values, f"{type(self).__name__} decodes codes")
            raise

    @abc.abstractmethod
    def _decode(self, codes: Codes) -> Tensor:
        """`decode`, after the checks."""

    def code_dim(self, space: Space) -> int:
        """Size of the last axis of the codes of a space."""
        sizes = {
            Space.Z: self.z_dim,
            Space.W: self.w_dim,
            Space.W_PLUS: self.w_dim,
            Space.S: sum(self.style_sizes),
        }
        if space not in sizes or space not in self.spaces:
            known = ", ".join(s.name for s in self.spaces if s in sizes)
            raise SpaceMismatch(f"{space.name} has no codes; the generator has codes in {known}")
        return sizes[space]

    # -- from space to space ----------------------------------------------------------------------
    @property
    def latent_space(self) -> Space:
        """The space of the samples' own latents: W, or Z for a generator without W."""
        return Space.W if Space.W in self.spaces else Space.Z

    def start_space(self, walked: Space) -> Space:
        """The space of the latents that walks start from: Z for walks in Z, else `latent_space`.

        Args:
            walked: space of the walks.
        """
        return Space.Z if walked == Space.Z else self.latent_space

    def latent(self, z: Tensor) -> Codes:
        """z (N, z_dim) -> the samples' own latents, in `latent_space`."""
        if self.latent_space == Space.Z:
            return Codes(Space.Z, z)
        return Codes(Space.W, self.map(z))

    def w_plus(self, w: Tensor) -> Tensor:
        """w (N, w_dim) -> the same w in every row: (N, num_ws, w_dim), a view."""
        return w.unsqueeze(1).expand(-1, self.num_ws, -1)

    def styles(self, w_plus: Tensor) -> Tensor:
        """w_plus (N, num_ws, w_dim) -> S codes (N, sum of style_sizes)."""
        raise SpaceMismatch(f"{type(self).__name__} has no S space")

    def lift(self, latent: Tensor, space: Space) -> Tensor:
        """Convert samples' own latents to codes of a space, to start walks.

        Args:
            latent: (N, w_dim) w, or (N, z_dim) z if the generator has no W; z for walks in Z too.
            space: of the walks.

        Returns:
            Z, W: the latents, unchanged; W_PLUS (N, num_ws, w_dim): equal rows; S (N, sum of
            style_sizes): the styles; THETA (N, 1): zero, the strength of a shift of the weights.
        """
        if space == Space.THETA:
            return latent.new_zeros(len(latent), 1)
        if space == Space.S:
            return self.styles(self.w_plus(latent))
        # Not a view, so that rows can be edited separately.
        if space == Space.W_PLUS:
            return self.w_plus(latent).clone()
        return latent

    # -- inside -----------------------------------------------------------------------------------
    def kernels(self) -> dict[str, Tensor]:
        """Layer name -> weight that a WeightShift can change; empty without THETA."""
        return {}

    def _check_shift(self, codes: Codes) -> None:
        shift = codes.shift
        known = self.kernels()
        assert shift is not None
        if Space.THETA not in self.spaces:
            raise SpaceMismatch(f"the weights of {type(self).__name__} cannot be shifted")
        if shift.layer not in known:
            raise UnknownName("layer", shift.layer, known)
        if shift.kernels.shape[1:] != known[shift.layer].shape or not len(shift) == len(
            codes
        ) == len(shift.magnitude):
            raise SpaceMismatch(
                f"a shift of {shift.layer} takes kernels (K, "
                f"{', '.join(map(str, known[shift.layer].shape))}) and one index and magnitude per "
                f"sample, got {tuple(shift.kernels.shape)} and {len(shift)} for {len(codes)} "
                "samples"
            )

    def layers(self) -> list[str]:
        """Names of the layers, for `inner`, `activation`, `kernels`, shifts and `method.layer`."""
        if self.layer_names:
            return list(self.layer_names)
        return [name for name, _ in self.named_modules() if name]

    def inner(self, layer: str) -> nn.Module:
        """The module of a layer, for `activation`."""
        if layer not in self.layers():
            raise UnknownName("layer", layer, self.layers())
        return self.get_submodule(layer)

    def activation(self, codes: Codes, layer: str) -> Tensor:
        """Output (N, ...) of one layer; the layers after it are not run.

        Args:
            codes: N codes to decode.
            layer: one of `layers`.

        Raises:
            UnknownName: there is no such layer.
            EditbenchError: decoding these codes does not use the layer.
        """

        # An exception stops the forward pass at the layer, since the rest is not needed.
        def stop(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            raise _Reached(output)

        hook = self.inner(layer).register_forward_hook(stop)
        try:
            self.decode(codes)
        except _Reached as reached:
            return reached.output
        finally:
            # A hook that is left behind would stop every later pass at this layer.
            hook.remove()
        raise EditbenchError(f"layer '{layer}' is not used in decoding {codes.space.name} codes")


def check_truncation(psi: Any, with_zero: bool = False) -> float:
    """Check the option truncation_psi of a generator.

    Args:
        psi: of the configuration, of any type.
        with_zero: whether 0 is allowed. Where z is scaled, it would make all samples the same one.

    Returns:
        The number.

    Raises:
        EditbenchError: it is not a number from 0 to 1.
    """
    is_number = isinstance(psi, int | float) and not isinstance(psi, bool)
    if is_number and (0 < psi <= 1 or (psi == 0 and with_zero)):
        return float(psi)
    allowed = "between 0 and 1" if with_zero else "above 0 and at most 1"
    raise EditbenchError(f"generator.truncation_psi={in_yaml(psi)} must be a number {allowed}")


class _Reached(Exception):
    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output
