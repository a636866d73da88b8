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
        self.remedy = f"call module.eval() before you {'export' if kind == 'export' else 'save'} it"
        super().__init__(
            Held(network, str(path)), attributes, input_size, source=str(path), **declared
        )
        # The file contains weights and architecture.
        self.digest = digest(["file", file_sha256(Path(path)), self.declared])
