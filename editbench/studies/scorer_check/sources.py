"""Pictures to check a scorer with: of a generator or of a folder, each by its number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from editbench.base.errors import EditbenchError, no_such
from editbench.base.seeding import normals
from editbench.base.text import printable
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer
from editbench.worlds.datasets.images import Unreadable, load_picture, scan

# Fixed, so that two checks show the same pictures.
SEED = 0
STREAM = "scorer check"
SHOWN = 3  # names of unreadable files in a message


class PictureSource(Protocol):
    """Pictures by their numbers.

    `about` describes them. A call gives pictures (n, C, H, W) in [-1, 1], or W codes (n, d) for
    a generator without pictures.
    """

    about: str

    def __len__(self) -> int: ...

    def __call__(self, numbers: Sequence[int]) -> Tensor: ...


class Generated:
    """n samples of a generator; number i depends on i alone."""

    def __init__(self, generator: Generator, n: int, name: str, device: str = "cpu") -> None:
        self.generator = generator
        self.n = n
        self.device = device
        self.about = f"{n} samples of the generator {name}"

    def __len__(self) -> int:
        return self.n

    @torch.no_grad()
    def __call__(self, numbers: Sequence[int]) -> Tensor:
        # Each z from its own number, whatever the batch.
        rows = [normals(SEED, STREAM, i, i + 1, self.generator.z_dim) for i in numbers]
        z = torch.from_numpy(np.concatenate(rows)).float().to(self.device)
        return self.generator.decode(self.generator.latent(z))


class FolderPictures:
    """The first n readable pictures of a folder, in the order of their names, central squares of
    `resolution`.
    """

    def __init__(self, folder: Path, n: int, resolution: int, device: str = "cpu") -> None:
        if not folder.is_dir():
            raise EditbenchError(f"--images {folder}: {no_such('folder', folder)}")
        self.folder = folder
        self.resolution = resolution
        self.device = device
        self.files: list[str] = []
        broken: list[str] = []
        for name, _, _ in scan(folder)[0]:
            if len(self.files) == n:
                break
            try:
                # 8 x 8 is enough to see that a file can be decoded.
                load_picture(folder / name, 8)
                self.files.append(name)
            except Unreadable as error:
                broken.append(f"{name} ({error})")
        if not self.files:
            raise EditbenchError(f"--images {folder}: holds no readable PNG, JPEG or WebP picture")
        about = f"{len(self.files)} pictures of {folder}"
        if broken:
            about += f"; {len(broken)} left out: {', '.join(broken[:SHOWN])}"
            if len(broken) > SHOWN:
                about += " ..."
        self.about = printable(about)

    def __len__(self) -> int:
        return len(self.files)

    def __call__(self, numbers: Sequence[int]) -> Tensor:
        # load_picture crops to a square and resizes, as for a data set.
        pixels = np.stack(
            [load_picture(self.folder / self.files[i], self.resolution)[0] for i in numbers]
        )
        return (
            torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1).to(self.device)
        )


def resolution_of(scorer: Scorer) -> int:
    """The side that a scorer takes; 256 where it takes any."""
    # Height and width can differ; pictures are central squares.
    size = getattr(scorer, "input_size", None)
    if size:
        return int(max(size))
    return int(getattr(scorer, "resolution", 256))
