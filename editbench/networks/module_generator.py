"""A generator with the spaces Z and THETA that wraps any nn.Module from z to images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.base.errors import EditbenchError, NonFinite, UnknownName
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space, WeightShift
from editbench.base.validation import check_numbers
from editbench.networks.digests import network_digest
from editbench.networks.external import (
    black_and_white,
    load_network,
    refuse_fixed_batch,
)
from editbench.networks.generator import Generator, check_truncation
from editbench.networks.stylegan2.layers import contribution
from editbench.networks.torchscript import telling_line

PROBES = 8  # number of z that are decoded to check the declaration
OVERSHOOT = 0.5  # accepted overshoot, relative to the range; outputs need not be squashed
SAME = 1e-2  # accepted difference between batches, relative to the images' standard deviation
UNUSED = 0.02  # least used share of the declared range; images of real data use more
WHOLE = "network"  # layer name for a network that is a single layer
# Layers whose weights can be shifted. Subclasses are excluded, since they may not be linear.
LINEAR = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class ModuleGenerator(Generator):
    """A network as a generator: z (N, z_dim), z ~ N(0, I), -> images (N, C, H, W).

    The network's output may also be flat, (N, C*H*W). In THETA, codes are z with a `WeightShift` of
    one nn.Linear, nn.Conv2d or nn.ConvTranspose2d of the network, given by its dotted name.

    Args:
        network: the module, or a list of layers; in YAML `{_target_: dotted.name, ...}`.
        z_dim: size of z.
        image_shape: (C, H, W).
        image_range: the values of black and white in the network's output; mapped to [-1, 1].
        weights: a safetensors file with exactly the network's tensors; None keeps its weights.
        check_range: reject a network whose output does not seem to have `image_range`.
        truncation_psi: factor of z. Values below 1 keep codes near the centre of the distribution,
            where images are cleaner and vary less (the truncation of Brock et al. 2019, without
            resampling).

    Raises:
        BadFile: the weights do not fit the network.
        EditbenchError: z_dim, shape or range do not fit, an image is random or depends on the
            others in its batch, or the network changes z in place.
        NonFinite: the output has NaN or infinity. All of these are detected when loading.
    """

    spaces = (Space.Z, Space.THETA)

    def __init__(
        self,
        network: nn.Module | Sequence[nn.Module],
        z_dim: int,
        image_shape: Sequence[int],
        image_range: Sequence[float] = (-1.0, 1.0),
        weights: Path | str | None = None,
        check_range: bool = True,
        truncation_psi: float = 1.0,
    ) -> None:
        super().__init__()
        self.truncation_psi = check_truncation(truncation_psi)
        sizes = check_numbers("generator.image_shape", image_shape, 3)
        if min(sizes) < 1 or not all(size.is_integer() for size in sizes):
            raise EditbenchError(
                f"generator.image_shape must be [channels, height, width], got {list(image_shape)}"
            )
        self.z_dim = z_dim
        self.image_shape = tuple(map(int, sizes))
        self.image_range = black_and_white("generator.image_range", image_range)
        self.network = load_network(network, weights)
        # Name of the network in messages.
        self.source = str(weights or type(self.network).__name__)
        self._check(check_range)
        # Included only if truncated, so that digests from before this option do not change.
        options = [("truncation", self.truncation_psi)] if self.truncation_psi < 1 else []
        self.digest = network_digest(
            self.network,
            z_dim,
            self.image_shape,
            self.image_range,
            *options,
        )

    def layers(self) -> list[str]:
        """Dotted names of the network's modules; WHOLE for a network that is a single layer."""
        names = [name for name, _ in self.network.named_modules() if name]
        return names or [WHOLE]

    def inner(self, layer: str) -> nn.Module:
        """A module of the network by its name in `layers`."""
        if layer not in self.layers():
            raise UnknownName("layer", layer, self.layers())
        if not list(self.network.children()):
            return self.network
        return self.network.get_submodule(layer)

    def kernels(self) -> dict[str, Tensor]:
        """The weights of its plain linear and convolutional layers."""
        found = {}
        for name in self.layers():
            layer = self.inner(name)
            if type(layer) in LINEAR:
                found[name] = cast(Tensor, layer.weight)
        return found

    def _decode(self, codes: Codes) -> Tensor:
        self.code_dim(codes.space)  # THETA has no codes of its own
        low, high = self.image_range
        scale = 2 / (high - low)  # for the range [-1, 1], exactly x * 1 + 0
        z = codes.values
        if self.truncation_psi < 1:
            z = z * self.truncation_psi
        out = self.network(z) if codes.shift is None else self._shifted(z, codes.shift)
        return out.reshape(-1, *self.image_shape).float() * scale + (-1 - low * scale)

    def _shifted(self, z: Tensor, shift: WeightShift) -> Tensor:
        """The network's output with a shifted weight."""

        # f(x; W + tX) = f(x; W) + t f(x; X) for linear layers, so no kernel per sample is needed.
        def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if len(inputs[0]) != len(z):
                raise EditbenchError(
                    f"layer '{shift.layer}' of {self.source} sees a batch of {len(inputs[0])} for "
                    f"{len(z)} samples, so its weights do not belong to single samples: shift "
                    "another layer"
                )
            return output + contribution(
                lambda x, weight: _without_bias(layer, x, weight), inputs[0], shift
            )

        hook = self.inner(shift.layer).register_forward_hook(add)
        try:
            return self.network(z)
        finally:
            hook.remove()

    @torch.no_grad()
    def _check(self, check_range: bool) -> None:
        """Decode a few z and check the output against the declaration."""
        # Fixed z, so that the outcome is always the same.
        z = torch.from_numpy(normals(0, "probe", 0, PROBES, self.z_dim)).float()
        given = z.clone()
        out = self._probe(z)
        # Otherwise every decode would move the codes of the bank and of the walks.
        if not torch.equal(z, given):
            raise EditbenchError(
                f"{self.source}: the network changes its input z in place; compute on a new tensor "
                "in its forward: `z = z / norm`, not `z /= norm` or z.div_(norm)"
            )
        if not isinstance(out, Tensor):
            raise EditbenchError(
                f"{self.source}: the network returns {type(out).__name__}, but one tensor is "
                "needed; wrap it in a module that returns the image"
            )
        if out.dim() and len(out) != PROBES:
            self._refuse_fixed_batch()
        channels, height, width = self.image_shape
        if tuple(out.shape) not in (
            (PROBES, *self.image_shape),
            (PROBES, channels * height * width),
        ):
            remedy = "change generator.image_shape"
            if tuple(out.shape) == (PROBES, height, width, channels):
                remedy = "its channels are last: let it return images.permute(0, 3, 1, 2)"
            raise EditbenchError(
                f"{self.source}: the network gives {tuple(out.shape)} for {PROBES} z, which are "
                f"not images {list(self.image_shape)}; {remedy}"
            )
        if not out.is_floating_point():
            raise EditbenchError(
                f"{self.source}: the network gives {out.dtype}, whose values have no gradients; let "
                "it return floats, without rounding"
            )
        if not torch.isfinite(out).all():
            raise NonFinite(f"{self.source}: the network gives NaN or infinity; check its weights")
        if check_range:
            self._check_range(out.min().item(), out.max().item())
        # Detects batch normalisation in training mode and random noise.
        alone = self._probe(z[:1]).reshape(-1)
        together = out.reshape(PROBES, -1)[0]
        if alone.shape != together.shape or (alone - together).abs().max() > SAME * out.std():
            raise EditbenchError(
                f"{self.source}: the network gives a different image for the same z when it is "
                "decoded alone: noise must be constant, and no layer may mix the samples of a batch"
            )

    def _probe(self, z: Tensor) -> Any:
        """The network's output for z. Raises EditbenchError if it does not accept them."""
        try:
            return self.network(z)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            # A network that was traced with PROBES fails only for another number of z.
            self._refuse_fixed_batch(error)
            remedy = "change generator.z_dim"
            # For example a conditional network, called without its label.
            if isinstance(error, TypeError):
                remedy += ", or wrap the network in a module whose forward takes z alone"
            raise EditbenchError(
                f"{self.source}: the network does not take z of shape {tuple(z.shape)} "
                f"({telling_line(error)}); {remedy}"
            ) from error

    def _refuse_fixed_batch(self, cause: Exception | None = None) -> None:
        """Raise EditbenchError if the network accepts only one batch size."""
        refuse_fixed_batch(self.network, (self.z_dim,), self.source, "z", cause)

    def _check_range(self, low: float, high: float) -> None:
        black, white = self.image_range
        span = white - black
        middle = (black + white) / 2
        if low < black - OVERSHOOT * span or high > white + OVERSHOOT * span:
            problem = "leaves that range"
        elif high - low < UNUSED * span:
            problem = "hardly uses that range"
        # For example, images in [0, 1] that are declared as [-1, 1].
        elif low >= middle:
            problem = "uses only its upper half"
        else:
            return
        raise EditbenchError(
            f"{self.source}: image_range is declared [{black:g}, {white:g}], but {PROBES} samples "
            f"span [{low:.3g}, {high:.3g}], which {problem}; change generator.image_range, or set "
            "generator.check_range=false if it is right"
        )


def _without_bias(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """A layer of LINEAR with another weight and no bias."""
    if isinstance(layer, nn.ConvTranspose2d):
        padding = cast(tuple[int, ...], layer.padding)
        return F.conv_transpose2d(
            x,
            weight,
            None,
            layer.stride,
            padding,
            layer.output_padding,
            layer.groups,
            layer.dilation,
        )
    if isinstance(layer, nn.Conv2d):
        return layer._conv_forward(x, weight, None)  # applies the padding mode
    return F.linear(x, weight)
