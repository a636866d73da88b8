"""The images that are inverted.

They are the pictures below a folder, or renders of the embedded world that its generator never produced.
"""

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
from editbench.base.text import printable
from editbench.worlds.datasets.images import ImageFolder
from editbench.worlds.faces.factors import CLASSES, TRAITS, FactorLaw, Factors, sample_factors
from editbench.worlds.faces.renderer import render

RENDERS = "faces:"
# The stream of the renders. The pictures that the networks were trained on come from other streams.
STREAM = "inversion"
PREPARED = "central square, LANCZOS"


@dataclass
class ImageBatch:
    """Some images of a list.

    Args:
        index: (n,) int64, their numbers.
        names: of the images, as `printable` text.
        pixels: (n, C, H, W) float32 in [-1, 1].
        truth: (n, A) true classes in the order of the requested attributes; -1 where unknown.
        skipped: name of an image that could not be read -> reason.
    """

    index: np.ndarray
    names: list[str]
    pixels: Tensor
    truth: np.ndarray
    skipped: dict[str, str] = field(default_factory=dict)


class Images(abc.ABC):
    """A fixed list of images, which is read in parts.

    `identity` is JSON-able and equal for the same images; `about` is a line for people.
    """

    identity: dict
    about: str

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def read(self, start: int, stop: int, attributes: Attributes) -> ImageBatch:
        """Images start..stop-1, without those that cannot be read."""


def open_images(text: str, shape: tuple[int, ...]) -> Images:
    """Open a list of images by what a user wrote.

    Args:
        text: a folder, or `faces:N` for N renders of the embedded world.
        shape: (C, H, W) of the generator's pictures.

    Raises:
        EditbenchError: the shape is not square, or the text is neither.
    """
    if len(shape) != 3 or shape[1] != shape[2] or shape[0] not in (1, 3):
        raise EditbenchError(
            "an inversion needs a generator of square images with 1 or 3 channels; this one's "
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
            "faces:N are colour images, but this generator's are grey: give a folder of images"
        )
    return FaceRenders(int(number), shape[1])


class FaceRenders(Images):
    """N faces by the world's law, from a stream of their own.

    Neither generator, teacher nor judge was trained on them. Their factors are known, and so is the
    truth of every attribute that has the world's name and classes.

    Args:
        n: how many.
        resolution: pixels a side.
        seed: of the factors.
    """

    def __init__(self, n: int, resolution: int, seed: int = 0) -> None:
        self.n = n
        self.resolution = resolution
        self.seed = seed
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

    def read(self, start: int, stop: int, attributes: Attributes) -> ImageBatch:
        factors = self.factors(start, stop)
        labels = factors.labels().numpy()
        truth = []
        for attribute in attributes:
            if attribute.classes == CLASSES.get(attribute.name):
                truth.append(labels[:, TRAITS.index(attribute.name)])
            else:  # another attribute of the same name, or one that the world does not have
                truth.append(np.full(stop - start, -1))
        names = [f"face {number}" for number in range(start, stop)]
        pixels = render(factors, self.resolution)
        return ImageBatch(np.arange(start, stop), names, pixels, np.stack(truth, 1))


class FolderImages(Images):
    """The pictures below a folder, in the order of their paths.

    They are cut and resized as `editbench.worlds.datasets.images` does. An image's number is its
    place among all files, whether they can be read or not.

    Args:
        folder: with pictures in any subfolders.
        channels: of the generator; with 1 the luma of the pictures is taken.
        resolution: pixels a side.
    """

    def __init__(self, folder: Path, channels: int, resolution: int) -> None:
        self.source = ImageFolder(folder)
        self.channels = channels
        self.resolution = resolution
        name = printable(folder.resolve().name)
        self.about = f"{len(self.source)} files of {name} ({PREPARED} to {resolution} pixels)"
        self.identity = self.source.identity | {
            "prepared": PREPARED,
            "resolution": resolution,
            "channels": channels,
        }

    def __len__(self) -> int:
        return len(self.source)

    def read(self, start: int, stop: int, attributes: Attributes) -> ImageBatch:
        block = self.source.read(start, stop, self.resolution)
        pixels = block.pixels
        if self.channels == 1:
            grey = [np.asarray(Image.fromarray(one).convert("L"))[:, :, None] for one in pixels]
            pixels = np.stack(grey) if grey else pixels[..., :1]
        planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
        values = planes.float().div(127.5).sub(1)  # 0..255 to [-1, 1]
        names = [printable(self.source.files[number]) for number in block.kept]
        # Nothing is known of a user's pictures.
        truth = np.full((len(pixels), len(attributes.names)), -1)
        return ImageBatch(block.kept, names, values.contiguous(), truth, dict(block.problems))
