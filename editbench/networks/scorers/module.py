"""A scorer that wraps any nn.Module from images to logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.precision import casting
from editbench.base.validation import check_kind, check_numbers
from editbench.networks.digests import network_digest
from editbench.networks.external import (
    black_and_white,
    load_network,
    refuse_fixed_batch,
)
from editbench.networks.scorer import Scorer
from editbench.networks.scorers.attribute_list import declare
from editbench.networks.scorers.columns import Columns
from editbench.networks.torchscript import telling_line

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def _picture_size(input_size: Sequence[int] | None) -> tuple[int, int] | None:
    if input_size is None:
        return None
    height, width = check_numbers("scorer.input_size", input_size, 2)
    if min(height, width) < 1 or not (height.is_integer() and width.is_integer()):
        raise EditbenchError(
            f"scorer.input_size must be [height, width] in pixels; got {input_size}"
        )
    return int(height), int(width)


class ModuleScorer(Scorer):
    """A network as a scorer: images (N, C, H, W) in [-1, 1] -> logits (N, width).

    Images are first converted to the network's channels, size and range.

    Args:
        network: the module, or a list of layers; in YAML `{_target_: dotted.name, ...}`. Its output
            columns are those of the attributes, in order: one for a binary attribute, K for an
            attribute of K classes. Log-probabilities are accepted as logits.
        attributes: see editbench.networks.scorers.attribute_list.
        input_size: (height, width) to which images are resized bilinearly; None for any size.
        input_range: the network's values of black and white.
        channels: 1 or 3; greyscale is repeated, colour is converted to luma.
        mean: one number per channel, subtracted after the conversion of the range.
        std: one number per channel, by which the difference is divided.
        antialias: low-pass filter before shrinking, as in Pillow; otherwise as torch interpolates.
        weights: a safetensors file with exactly the network's tensors; None keeps its weights.
        columns: the outputs to use, see editbench.networks.scorers.columns.
        output: the kind of these outputs, see editbench.networks.scorers.columns. If it is not
            declared, a network whose outputs for a bank's samples are all in [0, 1] is rejected.
        quality: the output that says how well an image can be judged, higher is better, such as the
            log-odds of "this is a face"; None if there is none. A bank stores it, and
            starts.min_quality excludes starts by it.

    Raises:
        BadFile: the weights do not fit the network.
        EditbenchError: the output does not fit the attributes, has undeclared probabilities, is
            random, or depends on the other images of the batch.
        NonFinite: the output has NaN or infinity. All of these are detected when loading.
        Unsupported: an editor needs gradients, and the network has none.
    """

    # What to do about an output that depends on the batch or on chance.
    remedy = (
        "no layer may mix the samples of a batch, and forward must neither draw random numbers nor "
        "call train()"
    )
    sign: Tensor  # (width,)
    mean: Tensor  # (channels, 1, 1)
    std: Tensor

    def __init__(
        self,
        network: nn.Module | Sequence[nn.Module],
        attributes: Sequence[Mapping[str, Any]],
        input_size: Sequence[int] | None,
        input_range: Sequence[float] = (-1.0, 1.0),
        channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        antialias: bool = False,
        weights: Path | str | None = None,
        columns: Sequence[int | Sequence[int]] | None = None,
        output: str | None = None,
        source: str = "",
        quality: int | None = None,
    ) -> None:
        super().__init__()
        check_kind("scorer.channels", channels, "int")
        check_kind("scorer.antialias", antialias, "bool")
        if channels not in (1, 3):
            raise EditbenchError(f"scorer.channels={channels} must be 1 or 3")
        self.input_size = _picture_size(input_size)
        self.input_range = black_and_white("scorer.input_range", input_range)
        self.attributes, signs = declare(attributes)
        if any("head" in entry for entry in attributes):
            raise EditbenchError(
                "'head' of an attribute is for heads of W codes; choose outputs with columns: [...]"
            )
        self.channels = channels
        self.antialias = antialias
        if quality is not None and (type(quality) is not int or quality < 0):
            raise EditbenchError(
                f"scorer.quality={quality!r} is not an output; write its number, counted from 0, "
                "or null"
            )
        self.quality = quality
        self.has_quality = quality is not None
        self.network = load_network(network, weights)
        self.source = source or str(weights or type(self.network).__name__)
        self.columns = Columns(self.attributes, columns, output)
        self.says_output = self.columns.stated
        # One sign per column, not per attribute.
        widths = [item.width for item in self.attributes]
        self.register_buffer(
            "sign", torch.tensor(signs).repeat_interleave(torch.tensor(widths)), persistent=False
        )
        for name, values, default in (("mean", mean, 0.0), ("std", std, 1.0)):
            given = [default] * channels
            if values is not None:
                given = check_numbers(f"scorer.{name}", values, channels)
            row = torch.tensor(given)
            if name == "std" and not bool((row > 0).all()):
                raise EditbenchError(f"scorer.std needs positive numbers; got {row.tolist()}")
            self.register_buffer(name, row.view(-1, 1, 1), persistent=False)
        self._check()
        self._check_batches()
        parts = (
            signs,
            self.attributes.as_config(),
            self.input_size,
            self.input_range,
            channels,
            antialias,
            mean,
            std,
        )
        self.declared = parts + self.columns.declared
        # Included only if set, so that digests of scorers without it do not change.
        if quality is not None:
            self.declared += (("quality", quality),)
        self.digest = network_digest(self.network, *self.declared)

    def prepare(self, images: Tensor) -> Tensor:
        """Convert images (N, 1 or 3, H, W) in [-1, 1] to the network's input."""
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise EditbenchError(
                f"a scorer takes images (N, 1 or 3, H, W), got {tuple(images.shape)}"
            )
        low, high = self.input_range
        # [-1, 1] -> [low, high]; for the range [-1, 1] this is exactly x.
        scale = (high - low) / 2
        x = images * scale + (low + scale)
        if x.shape[1] < self.channels:
            x = x.expand(-1, self.channels, -1, -1)
        elif x.shape[1] > self.channels:
            x = (x * x.new_tensor(LUMA).view(-1, 1, 1)).sum(1, keepdim=True)
        x = self.resize(x)
        return (x - self.mean) / self.std

    def resize(self, images: Tensor) -> Tensor:
        """Resize images (N, channels, H, W) to the network's size."""
        if self.input_size is None or tuple(images.shape[2:]) == self.input_size:
            return images
        return F.interpolate(
            images,
            size=self.input_size,
            mode="bilinear",
            align_corners=False,
            antialias=self.antialias,
        )

    def outputs(self, decoded: Tensor) -> Tensor:
        """The network's outputs (N, its columns) float32; NaN for images that are not finite."""
        out = self.network(self.prepare(decoded)).float()
        # A network may clip images or convert them to bytes, and would assign NaN images a class.
        broken = ~torch.isfinite(decoded).flatten(1).all(1)
        return out.masked_fill(broken.unsqueeze(1), torch.nan)

    def assess(self, decoded: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.quality is None:
            return self(decoded), None
        # One pass gives both.
        with casting(self.precision, decoded.device):
            out = self.outputs(decoded)
            return self.columns(out) * self.sign, out[:, [self.quality]]

    def forward(self, decoded: Tensor) -> Tensor:
        out = self.columns(self.outputs(decoded)) * self.sign
        # Without this check, an editor would get zero gradients and seem to fail.
        if decoded.requires_grad and torch.is_grad_enabled() and not out.requires_grad:
            raise Unsupported(
                f"the scorer {self.source} gives no gradients with respect to the image, which this "
                "editor needs: use a teacher that does (one that is not made of numpy, rounding or "
                "torch.no_grad)"
            )
        return out

    def refuse_fixed_batch(self, cause: Exception | None = None) -> None:
        """Raise EditbenchError if the network accepts only one batch size."""
        shape = (self.channels, *(self.input_size or (64, 64)))
        refuse_fixed_batch(
            lambda images: self.network(self.prepare(images)), shape, self.source, "images", cause
        )

    @torch.no_grad()
    def _check(self) -> None:
        """Score a ramp and a chequerboard, and check the output against the declaration."""
        height, width = self.input_size or (64, 64)
        # All grey values, and all frequencies up to a quarter of the pixels.
        ramp = torch.linspace(-1, 1, height * width).view(1, 1, height, width)
        board = (
            (torch.arange(height)[:, None] // 4 + torch.arange(width) // 4)
            .remainder(2)
            .mul(2.0)
            .sub(1)
        )
        images = torch.cat([ramp, board.expand(1, 1, -1, -1)]).expand(-1, self.channels, -1, -1)
        out = self._probe(images)
        self.columns.check(out, len(images), self.source)
        if self.quality is not None and self.quality >= out.shape[1]:
            raise EditbenchError(
                f"{self.source}: scorer.quality={self.quality}, but the network gives "
                f"{out.shape[1]} outputs, numbered from 0"
            )
        # A network that was traced with two images fails for another number.
        self._probe(images[:1])

    @torch.no_grad()
    def _check_batches(self) -> None:
        """Check that an image gets the same logits alone and in a batch of other images."""
        # 64 x 64 is large enough for the strides of classifiers.
        height, width = self.input_size or (64, 64)
        rng = torch.Generator().manual_seed(0)
        images = torch.rand(3, self.channels, height, width, generator=rng) * 2 - 1
        # A network that was traced with two images has passed the check of the declaration.
        try:
            whole = self(images)
            alone = self(images[:1])
        except EditbenchError as error:
            self.refuse_fixed_batch(error)
            raise
        if len(whole) != len(images) or len(alone) != 1:
            self.refuse_fixed_batch()
        # 1e-3 is far above rounding differences from another order of sums.
        gap = float((whole[:1] - alone).abs().max())
        if not gap <= 1e-3 * (1 + float(whole.abs().max())):
            raise EditbenchError(
                f"{self.source}: the logits of an image change by {gap:.3g} with the other images "
                "of its batch, or from call to call, as with batch normalisation or dropout in "
                f"training mode; {self.remedy}"
            )

    def _probe(self, images: Tensor) -> Any:
        """The network's output for images.

        Raises:
            EditbenchError: it does not accept them, or accepts only another number of images.
        """
        try:
            out = self.network(self.prepare(images))
        except EditbenchError as error:  # raised by a network from a file
            self.refuse_fixed_batch(error)
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            self.refuse_fixed_batch(error)
            raise EditbenchError(
                f"{self.source}: the network does not take images {tuple(images.shape)} "
                f"({telling_line(error)}); change the scorer's input_size or channels"
            ) from error
        if isinstance(out, Tensor) and out.dim() and len(out) != len(images):
            self.refuse_fixed_batch()
        return out
