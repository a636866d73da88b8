"""Any nn.Module from image to logits as a scorer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.precision import casting
from editbench.networks.external import load_network, network_digest, refuse_fixed_batch
from editbench.networks.scorer import Scorer
from editbench.networks.scorers.columns import Columns
from editbench.networks.scorers.declared import declare
from editbench.networks.torchscript import telling_line

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def numbers(key: str, values: object, count: int) -> list[float]:
    """`count` finite numbers of a configuration; EditbenchError names the key."""
    try:
        found = [float(value) for value in values] if isinstance(values, Sequence) else []
    except (TypeError, ValueError):
        found = []
    # A string is a sequence, too: "12" would be [1, 2].
    if isinstance(values, str) or len(found) != count or not all(map(math.isfinite, found)):
        raise EditbenchError(f"scorer.{key} needs a list of {count} finite numbers; got {values!r}")
    return found


def _picture_size(input_size: Sequence[int] | None) -> tuple[int, int] | None:
    if input_size is None:
        return None
    height, width = numbers("input_size", input_size, 2)
    if min(height, width) < 1 or not (height.is_integer() and width.is_integer()):
        raise EditbenchError(
            f"scorer.input_size must be [height, width] in pixels; got {input_size}"
        )
    return int(height), int(width)


def _black_and_white(input_range: Sequence[float]) -> tuple[float, float]:
    black, white = numbers("input_range", input_range, 2)
    # Black above white would turn the picture into its negative.
    if not black < white:
        raise EditbenchError(
            f"scorer.input_range must be [black, white], black below white; got {list(input_range)}"
        )
    return black, white


class ModuleScorer(Scorer):
    """Images (N, C, H, W) in [-1, 1] -> channels, size and range of the network -> logits (N,
    width).

    Args:
        network: the module, or a list of layers; in YAML `{_target_: dotted.name, ...}`. Its output
            columns are those of the attributes in order: one for a binary attribute, K for one of K
            classes; log-probabilities will do.
        attributes: see editbench.networks.scorers.declared.
        input_size: (height, width); other sizes are resized bilinearly, None passes any size.
        input_range: the network's black and white.
        channels: 1 or 3; grey is repeated, colour becomes luma.
        mean: one number a channel, subtracted after the change of range.
        std: one number a channel, by which the difference is divided.
        antialias: low-pass before shrinking, as Pillow does; without it as torch interpolates.
        weights: a safetensors file with exactly the network's tensors; None keeps the weights it
            came with.
        columns: which of the outputs to take, see editbench.networks.scorers.columns.
        output: what these outputs are, see there. Outputs of a bank's samples that all lie in
            [0, 1] are refused unless it is stated.
        quality: the output that says how well a picture can be judged, higher is better, such as
            the log-odds of "this is a face"; None where there is none. A bank keeps it, and
            starts.min_quality refuses starts by it.

    Raises:
        BadFile: the weights do not fit.
        EditbenchError: the output does not fit the attributes or is probabilities.
        NonFinite: NaN or infinity in its output. All at load.
        Unsupported: an editor needs gradients, and the network gives none.
    """

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
        if channels not in (1, 3) or not isinstance(antialias, bool):
            raise EditbenchError(
                "scorer.channels must be 1 or 3, and scorer.antialias true or false, without "
                f"quotes; got {channels!r} and {antialias!r}"
            )
        self.input_size = _picture_size(input_size)
        self.input_range = _black_and_white(input_range)
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
        # One sign a column, not an attribute.
        widths = [item.width for item in self.attributes]
        self.register_buffer(
            "sign", torch.tensor(signs).repeat_interleave(torch.tensor(widths)), persistent=False
        )
        for name, values, default in (("mean", mean, 0.0), ("std", std, 1.0)):
            row = torch.tensor(
                [default] * channels if values is None else numbers(name, values, channels)
            )
            if name == "std" and not bool((row > 0).all()):
                raise EditbenchError(f"scorer.std needs positive numbers; got {row.tolist()}")
            self.register_buffer(name, row.view(-1, 1, 1), persistent=False)
        self._check()
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
        # What is not set stays out, so that the identities of scorers without it remain.
        if quality is not None:
            self.declared += (("quality", quality),)
        self.digest = network_digest(self.network, *self.declared)

    def prepare(self, images: Tensor) -> Tensor:
        """Images (N, 1 or 3, H, W) in [-1, 1] -> what the network takes."""
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise EditbenchError(
                f"a scorer takes images (N, 1 or 3, H, W), got {tuple(images.shape)}"
            )
        low, high = self.input_range
        # [-1, 1] -> [low, high]; exactly x for [-1, 1].
        scale = (high - low) / 2
        x = images * scale + (low + scale)
        if x.shape[1] < self.channels:
            x = x.expand(-1, self.channels, -1, -1)
        elif x.shape[1] > self.channels:
            x = (x * x.new_tensor(LUMA).view(-1, 1, 1)).sum(1, keepdim=True)
        x = self.resize(x)
        return (x - self.mean) / self.std

    def resize(self, images: Tensor) -> Tensor:
        """Images (N, channels, H, W) -> the network's size."""
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
        """What the network itself gives, NaN of a picture that is not finite: (N, its columns)
        float32."""
        out = self.network(self.prepare(decoded)).float()
        # A network may make bytes of pictures, or clip them: what shows nothing would get a class.
        broken = ~torch.isfinite(decoded).flatten(1).all(1)
        return out.masked_fill(broken.unsqueeze(1), torch.nan)

    def assess(self, decoded: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.quality is None:
            return self(decoded), None
        # One pass for both.
        with casting(self.precision, decoded.device):
            out = self.outputs(decoded)
            return self.columns(out) * self.sign, out[:, [self.quality]]

    def forward(self, decoded: Tensor) -> Tensor:
        out = self.columns(self.outputs(decoded)) * self.sign
        # Without this an editor would move by zero, and be blamed.
        if decoded.requires_grad and torch.is_grad_enabled() and not out.requires_grad:
            raise Unsupported(
                f"the scorer {self.source} gives no gradients with respect to the image, which this "
                "editor needs: use a teacher that does (one that is not made of numpy, rounding or "
                "torch.no_grad)"
            )
        return out

    def refuse_fixed_batch(self, cause: Exception | None = None) -> None:
        """Raise EditbenchError where the network takes one number of images alone."""
        shape = (self.channels, *(self.input_size or (64, 64)))
        refuse_fixed_batch(
            lambda images: self.network(self.prepare(images)), shape, self.source, "images", cause
        )

    @torch.no_grad()
    def _check(self) -> None:
        """Score a ramp and a chequerboard and compare with what was declared."""
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
        # One that was traced at two images fails at another number alone.
        self._probe(images[:1])

    def _probe(self, images: Tensor) -> Any:
        """What the network gives for images; EditbenchError where it does not take them, or takes
        another number of them alone.
        """
        try:
            out = self.network(self.prepare(images))
        except EditbenchError as error:  # which a network of a file raises itself
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
