"""What is inverted: the pictures below a folder, or renders of the embedded world that its generator never produced."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError
from editbench.base.files import file_sha256
from editbench.worlds.datasets.images import ImageFolder
from editbench.worlds.faces.factors import CLASSES, TRAITS, FactorLaw, Factors, sample_factors
from editbench.worlds.faces.renderer import render

RENDERS = "faces:"
STREAM = (
    "inversion"  # of the renders: what the networks were trained on was drawn from other streams
)
PREPARED = "central square, LANCZOS"


@dataclass
class Part:
    """Images of a range. index (n,) int64, their numbers; names; pixels (n, C, H, W) float32 in [-1, 1]; truth (n, A),
    true classes in the order of the attributes asked for, -1 where unknown; skipped, name -> reason."""

    index: np.ndarray
    names: list[str]
    pixels: Tensor
    truth: np.ndarray
    skipped: dict[str, str] = field(default_factory=dict)


class Images(abc.ABC):
    """A fixed list of images, read in parts. `identity`: JSON-able, equal for the same images; about: for people."""

    identity: dict
    about: str

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def read(self, start: int, stop: int, attributes: Attributes) -> Part:
        """Images start..stop-1, less those that cannot be read."""


def open_images(text: str, shape: tuple[int, ...]) -> Images:
    """`faces:N` or a folder; shape (C, H, W) of the generator's pictures. Raises EditbenchError for anything else."""
    if len(shape) != 3 or shape[1] != shape[2] or shape[0] not in (1, 3):
        raise EditbenchError(
            "images are inverted by generators of square pictures with 1 or 3 channels; this one's "
            f"are {tuple(shape)}"
        )
    if not text.startswith(RENDERS):
        return FolderImages(Path(text), shape[0], shape[1])
    number = text.removeprefix(RENDERS)
    if not number.isdecimal() or not int(number):
        raise EditbenchError(
            f"inversion.images={text}: write faces:N for N renders, as in faces:128"
        )
    if shape[0] != 3:
        raise EditbenchError(
            "faces:N are colour pictures, this generator's are grey: give a folder of pictures"
        )
    return FaceRenders(int(number), shape[1])


class FaceRenders(Images):
    """N faces by the world's law from a stream of their own: neither generator, teacher nor judge were trained on them.
    Their factors are known, and so is the truth of attributes that have the world's names and classes."""

    def __init__(self, n: int, resolution: int, seed: int = 0) -> None:
        self.n, self.resolution, self.seed = n, resolution, seed
        self.about = f"{n} renders of the embedded world (stream '{STREAM}', seed {seed})"
        folder = Path(__file__).parents[1] / "worlds" / "faces"
        code = [file_sha256(folder / f"{name}.py") for name in ("factors", "renderer")]
        self.identity = {
            "kind": "renders",
            "n": n,
            "seed": seed,
            "resolution": resolution,
            "code": code,
        }

    def __len__(self) -> int:
        return self.n

    def factors(self, start: int, stop: int) -> Factors:
        return sample_factors(FactorLaw(), self.seed, start, stop, STREAM)

    def read(self, start: int, stop: int, attributes: Attributes) -> Part:
        factors = self.factors(start, stop)
        labels, unknown = factors.labels().numpy(), np.full(stop - start, -1)
        truth = [
            labels[:, TRAITS.index(a.name)] if a.classes == CLASSES.get(a.name) else unknown
            for a in attributes
        ]
        return Part(
            np.arange(start, stop),
            [f"face {i}" for i in range(start, stop)],
            render(factors, self.resolution),
            np.stack(truth, 1),
        )


class FolderImages(Images):
    """The pictures below a folder, by path, cut and resized as editbench.worlds.datasets.images says; for a generator of grey
    pictures their luma. An image's number is its place among all files, whether they can be read or not."""

    def __init__(self, folder: Path, channels: int, resolution: int) -> None:
        self.source, self.channels, self.resolution = ImageFolder(folder), channels, resolution
        self.about = f"{len(self.source)} files of {folder.resolve().name} ({PREPARED} to {resolution} pixels)"
        self.identity = self.source.identity | {
            "prepared": PREPARED,
            "resolution": resolution,
            "channels": channels,
        }

    def __len__(self) -> int:
        return len(self.source)

    def read(self, start: int, stop: int, attributes: Attributes) -> Part:
        block = self.source.read(start, stop, self.resolution)
        pixels = block.pixels
        if self.channels == 1:
            grey = [np.asarray(Image.fromarray(one).convert("L"))[:, :, None] for one in pixels]
            pixels = np.stack(grey) if grey else pixels[..., :1]
        values = (
            torch.from_numpy(np.ascontiguousarray(pixels))
            .permute(0, 3, 1, 2)
            .float()
            .div(127.5)
            .sub(1)
        )
        return Part(
            block.kept,
            [self.source.files[i] for i in block.kept],
            values.contiguous(),
            np.full((len(pixels), len(attributes.names)), -1),
            dict(block.problems),
        )
