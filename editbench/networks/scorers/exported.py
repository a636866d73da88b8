"""A classifier from a file that contains its architecture: TorchScript or torch.export (.pt2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from editbench.base.batches import is_out_of_memory
from editbench.base.errors import EditbenchError
from editbench.base.files import digest, file_sha256
from editbench.networks.exported import REMEDY, ExportedNetwork, read_exported
from editbench.networks.scorers.module import ModuleScorer
from editbench.networks.torchscript import expect_kind, kind_of, read_torchscript, telling_line


class Held(nn.Module):
    """Wraps a network from a file; errors of its interpreter become EditbenchErrors."""

    def __init__(self, network: nn.Module, source: str) -> None:
        super().__init__()
        self.network = network
        self.source = source

    def forward(self, images: Tensor) -> Any:
        try:
            return self.network(images)
        except (torch.jit.Error, RuntimeError) as error:
            # The batch is too large; this is not an error of the declaration.
            if is_out_of_memory(error):
                raise
            raise EditbenchError(
                f"{self.source}: the network does not take images {tuple(images.shape)} "
                f"({telling_line(error)}); change the scorer's input_size or channels"
            ) from error


class FileScorer(ModuleScorer):
    """A network from a file as a scorer: images (N, C, H, W) in [-1, 1] -> logits (N, width).

    Images are first converted to the network's channels, size and range.

    Args:
        path: a TorchScript or torch.export file; the format is detected. The modules
            editbench.networks.torchscript and editbench.networks.exported say which risks of such
            files are excluded and which are not.

    The other arguments are those of ModuleScorer.

    Raises:
        BadFile: the file is missing, truncated, a state dict, has weights without a network, or has
            code that is not allowed.
        EditbenchError: input or output are not as declared, the output for an image depends on its
            batch, or the network was exported for a fixed number of images. All are detected when
            loading.
        Unsupported: an editor needs gradients, and the network has none.
    """

    def __init__(
        self,
        path: Path | str,
        attributes: Sequence[Mapping[str, Any]],
        input_size: Sequence[int] | None,
        **declared: Any,
    ) -> None:
        # Detected by content, since both formats may have the ending .pt.
        kind = kind_of(path)
        if kind not in ("torchscript", "export"):
            expect_kind(
                path, "torchscript", "save it with torch.jit.script(module.eval()).save(PATH)"
            )
        network = read_torchscript(path) if kind == "torchscript" else read_exported(path)
        if isinstance(network, ExportedNetwork) and network.batch is not None:
            raise EditbenchError(
                f"{path}: exported for batches of exactly {network.batch} images, but the "
                f"benchmark uses any number; {REMEDY}"
            )
        super().__init__(
            Held(network, str(path)), attributes, input_size, source=str(path), **declared
        )
        self._check_batches(network)
        # The file contains weights and architecture.
        self.digest = digest(["file", file_sha256(Path(path)), self.declared])

    @torch.no_grad()
    def _check_batches(self, network: nn.Module) -> None:
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
            how = "save"
            if isinstance(network, ExportedNetwork):
                how = "export"
            raise EditbenchError(
                f"{self.source}: the logits of an image change by {gap:.3g} with the other images "
                "of its batch, or from call to call: batch normalisation or dropout is in training "
                f"mode; call module.eval() before you {how} it"
            )
