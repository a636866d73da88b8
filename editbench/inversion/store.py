"""The folder of an inversion. Blocks of images are written atomically, then one table of them all.

- inversion.json: the options, the images and the networks.
- table.parquet: one row per image, see below.
- block-NNNNN/codes.safetensors: the codes, (n, d) or (n, num_ws, d), and, if it was optimised, the
  noise (n, H, W) of each layer.
- pictures.safetensors: the first images and their reconstructions.

The table has these columns:

- index (the image's number) and name; block and row (the place of its code).
- Errors of the reconstruction: mse (of values in [-1, 1]), psnr (dB), perceptual, and noise_mse
  (with the optimised noise maps; NaN without).
- Logits: judge:NAME and teacher:NAME of the reconstruction, real_judge:NAME and real_teacher:NAME
  of the original image.
- truth:ATTRIBUTE: the true class, or -1.

The reconstruction is the image that the benchmark decodes: the code with constant noise.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile
from editbench.base.files import check_folder, compare_checksum, read_json
from editbench.base.spaces import Space

VERSION = 1
RANGE = 2.0  # of pixel values, for the PSNR
KEYS = {
    "id",
    "space",
    "spec",
    "attributes",
    "images",
    "identity",
    "perceptual",
    "skipped",
    "generator",
    "teacher",
    "judge",
}


class Inversion:
    """A complete inversion, opened read-only after a check of its checksums."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "inversion.json").is_file():
            raise BadFile(
                f"{folder} is not a finished inversion: make one with `editbench invert IMAGES "
                f"--out {folder}`"
            )
        self.folder = folder
        self.meta = read_json(folder / "inversion.json", sealed=True)
        if self.meta.get("version") != VERSION:
            raise BadFile(
                f"{folder} has inversion format {self.meta.get('version')}, expected {VERSION}: "
                "make it again"
            )
        if not isinstance(self.meta.get("sha256"), dict) or not KEYS <= set(self.meta):
            raise BadFile(
                f"{folder / 'inversion.json'} is incomplete; delete it and start the inversion "
                "again"
            )
        for name, expected in self.meta["sha256"].items():
            part = folder / Path(name).parts[0]
            compare_checksum(folder / name, expected, _remedy(part))
        for block in sorted(folder.glob("block-*")):
            check_folder(block, _remedy(block))
        self.id: str = self.meta["id"]
        self.space = Space(self.meta["space"])
        self.attributes = Attributes.from_config(self.meta["attributes"])
        try:
            self.table = pd.read_parquet(folder / "table.parquet")
        except (OSError, pa.ArrowException, ValueError) as error:
            raise BadFile(
                f"{folder / 'table.parquet'} is not readable ({error}); delete inversion.json and start the "
                "inversion again"
            ) from error

    def __len__(self) -> int:
        return len(self.table)

    @property
    def skipped(self) -> dict[str, str]:
        """Images that could not be read: name -> reason."""
        return self.meta["skipped"]

    def codes(self, rows: np.ndarray) -> Tensor:
        """Codes of rows of the table, in the given order: (n, d), or (n, num_ws, d) for W+."""
        blocks, places = (self.table[name].to_numpy()[rows] for name in ("block", "row"))
        out: Tensor | None = None
        # The file of a block is read once, however many of its rows are wanted.
        for block in np.unique(blocks):
            mine = torch.from_numpy(blocks == block)
            values = self._read(block)[torch.from_numpy(places[blocks == block])]
            out = values.new_empty(len(rows), *values.shape[1:]) if out is None else out
            out[mine] = values
        assert out is not None, "no rows"
        return out

    def _read(self, block: int) -> Tensor:
        path = block_folder(self.folder, block) / "codes.safetensors"
        try:
            with safe_open(path, "pt") as file:
                return file.get_tensor("codes")
        except (OSError, SafetensorError) as error:
            raise BadFile(f"{path} is not readable ({error}); {_remedy(path.parent)}") from error

    def logits(self, role: str, attributes: Attributes | None = None) -> np.ndarray:
        """Logits of the images.

        Args:
            role: judge, teacher, real_judge or real_teacher.
            attributes: the attributes to include; None for all.

        Returns:
            (n, width) float32.
        """
        kept = self.attributes if attributes is None else attributes
        columns = [f"{role}:{name}" for name in kept.columns()]
        return self.table[columns].to_numpy(np.float32, copy=True)

    def labels(self, role: str) -> np.ndarray:
        """(n, A) classes that a role predicts."""
        return self.attributes.labels(torch.from_numpy(self.logits(role))).numpy()

    @cached_property
    def truth(self) -> np.ndarray:
        """(n, A) true classes, -1 where unknown."""
        return self.table[[f"truth:{name}" for name in self.attributes.names]].to_numpy()

    def pictures(self) -> tuple[Tensor, Tensor]:
        """The first images and their reconstructions: uint8 (k, C, H, W) each; k may be 0."""
        parts = load_file(self.folder / "pictures.safetensors")
        return parts["original"], parts["reconstruction"]

    def summary(self) -> pd.DataFrame:
        """One row per attribute with shares of images, NaN if unknown.

        - kept: the judge assigns the same class to the image and to its reconstruction.
        - real_true: it assigns the true class to the image.
        - true: it assigns the true class to the reconstruction.
        """
        real, made, truth = self.labels("real_judge"), self.labels("judge"), self.truth
        known = truth >= 0

        def share(same: np.ndarray, mask: np.ndarray) -> np.ndarray:
            count = mask.sum(0)
            # np.where computes both branches; the maximum avoids a warning about 0 / 0.
            return np.where(count > 0, (same & mask).sum(0) / np.maximum(count, 1), np.nan)

        return pd.DataFrame(
            {
                "attribute": self.attributes.names,
                "kept": share(real == made, np.ones_like(known)),
                "real_true": share(real == truth, known),
                "true": share(made == truth, known),
            }
        )


def _remedy(part: Path) -> str:
    """What to do about a damaged part of an inversion, for a message."""
    return f"delete {part} and inversion.json and start the inversion again"


def block_folder(folder: Path, block: int) -> Path:
    """Where an inversion keeps the images that were optimised together.

    Args:
        folder: of the inversion.
        block: number of the block, from 0.
    """
    return folder / f"block-{block:05d}"


def psnr(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images in [-1, 1]."""
    return 10 * torch.log10(RANGE**2 / mse.clamp_min(1e-20))
