"""The images to invert: pictures in a folder, or renders of the embedded world.

The renders are not outputs of the world's generator.
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
# Random stream of the renders, different from those of the images that the networks trained on.
STREAM = "inversion"
PREPARED = "central square, LANCZOS"


@dataclass
class ImageBatch:
    """Some images of a list.

    Args:
        index: (n,) int64, positions in the list.
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
    """A fixed list of images, read in parts.

    Attributes:
        identity: a JSON-like value, equal for the same images.
        about: a description in one line.
    """

    identity: dict
    about: str

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def read(self, start: int, stop: int, attributes: Attributes) -> ImageBatch:
        """Images start..stop-1, except those that cannot be read.

        Args:
            start: position of the first image in the list.
            stop: position of the last image + 1.
            attributes: whose true classes are wanted, if they are known.
        """


def open_images(text: str, shape: tuple[int, ...]) -> Images:
    """Open the list of images that the option `inversion.images` gives.

    Args:
        text: a folder, or `faces:N` for N renders of the embedded world.
        shape: (C, H, W) of the generator's images.

    Raises:
        EditbenchError: the images are not square, or the text has neither form.
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
    """Renders of N faces, with factors from the world's distribution.

    The generator, teacher and judge were not trained on them. Since the factors are known, so are
    the true classes of attributes that have the names and classes of the world's.

    Args:
        n: number of faces.
        resolution: side in pixels.
        seed: of the factors.
    """

    def __init__(self, n: int, resolution: int, seed: int = 0) -> None:
        self.n = n
        self.resolution = resolution
        self.seed = seed
        self.about = f"{n} renders of the embedded world (stream '{STREAM}', seed {seed})"
        folder = Path(__file__).parents[1] / "worlds" / "faces"
        # The images are not stored, so the code that draws them identifies them.
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
        """The factors of some faces, drawn from a stream that the networks never saw.

        Args:
            start: number of the first face.
            stop: number of the last face + 1.
        """
        return sample_factors(FactorLaw(), self.seed, start, stop, STREAM)

    def read(self, start: int, stop: int, attributes: Attributes) -> ImageBatch:
        factors = self.factors(start, stop)
        labels = factors.labels().numpy()
        truth = []
        for attribute in attributes:
            if attribute.classes == CLASSES.get(attribute.name):
                truth.append(labels[:, TRAITS.index(attribute.name)])
            else:  # not an attribute of the world, or one with other classes
                truth.append(np.full(stop - start, -1))
        names = [f"face {number}" for number in range(start, stop)]
        pixels = render(factors, self.resolution)
        return ImageBatch(np.arange(start, stop), names, pixels, np.stack(truth, 1))


class FolderImages(Images):
    """The images in a folder and its subfolders, in the order of their paths.

    They are cropped and resized as in `editbench.worlds.datasets.images`. The number of an image is
    its position among all files, including those that cannot be read.

    Args:
        folder: of the images.
        channels: of the generator; 1 converts images to their luma.
        resolution: side in pixels.
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
        # The true classes of a user's images are unknown.
        truth = np.full((len(pixels), len(attributes.names)), -1)
        return ImageBatch(block.kept, names, values.contiguous(), truth, dict(block.problems))
