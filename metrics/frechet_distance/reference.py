"""What edited pictures are compared with: real pictures, and their statistics from a cache.

A reference gives picture i by (seed, i) or by its place in a folder. Its statistics are of two sets
that share no picture: 0..n-1 is the reference, and n..2n-1 measures the floor, the distance of real
from real at the same n.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from editbench.base.errors import BadFile, Unsupported
from editbench.base.files import digest, find_or_make, read_checked, write_checked
from editbench.base.progress import progress
from editbench.base.sources import source_digest
from editbench.base.spaces import Codes
from editbench.networks.features import FeatureNetwork
from editbench.stats.moments import Moments
from editbench.walk.observation import ObservationContext
from editbench.worlds.datasets.images import ImageFolder
from editbench.worlds.faces import attributes
from editbench.worlds.faces.factors import TRAITS, FactorLaw, Factors, sample_factors
from editbench.worlds.faces.renderer import render
from editbench.worlds.faces.truth import exchange, to_codes, to_factors


class Reference(abc.ABC):
    """A set of real images."""

    name: str  # for tables

    def check(self, context: ObservationContext) -> None:  # noqa: B027 - most serve every job
        """Check that the images are of the generator's kind.

        Raises:
            Unsupported: they cannot be a reference for it.
        """

    @abc.abstractmethod
    def identity(self, context: ObservationContext) -> object:
        """Everything that determines the images, as JSON can hold it; key of the cache."""

    @abc.abstractmethod
    def size(self, context: ObservationContext) -> int:
        """Number of images."""

    @abc.abstractmethod
    def images(self, context: ObservationContext, start: int, stop: int, resolution: int) -> Tensor:
        """Some of the pictures.

        Args:
            context: what is edited.
            start: first picture.
            stop: picture after the last.
            resolution: of the pictures.

        Returns:
            (b, 3, resolution, resolution) in [-1, 1].
        """

    def can_edit(self, context: ObservationContext) -> bool:
        """Whether the edited attribute of these images can be exchanged without error."""
        return False

    def edited(
        self, context: ObservationContext, start: int, stop: int, resolution: int, target: int
    ) -> Tensor:
        """The same images with all of them in one class of the edited attribute, all else equal.

        Args:
            context: what is edited.
            start: first picture.
            stop: picture after the last.
            resolution: of the pictures.
            target: the class, by index.

        Returns:
            As `images`.

        Raises:
            Unsupported: `can_edit` is False.
        """
        raise Unsupported(f"pictures of reference '{self.name}' cannot be edited")


class Renders(Reference):
    """Renders of the embedded world, with the factor law that its generator was trained on."""

    def __init__(
        self,
        seed: int = 7_007,
        margin: float | None = None,
        correlations: dict[str, float] | None = None,
        name: str = "renders",
    ) -> None:
        """Choose the law.

        Args:
            seed: of the factors; no other part of the project draws from this stream.
            margin: of the law, see FactorLaw; None for that of the generator (its attribute `law`),
                or else the world's own.
            correlations: of the law, likewise.
            name: for tables.
        """
        self.seed = seed
        self.name = name
        self.given: dict[str, Any] = {}
        if margin is not None:
            self.given["margin"] = margin
        if correlations is not None:
            self.given["correlations"] = correlations

    def law(self, context: ObservationContext) -> FactorLaw:
        """The law from which the factors are drawn."""
        # A generator of a dial setting was trained with another law than the world's own.
        return replace(getattr(context.generator, "law", None) or FactorLaw(), **self.given)

    def check(self, context: ObservationContext) -> None:
        # The attributes identify the world: renders of faces are a reference only for faces.
        others = [name for name in context.judge.attributes.names if name not in TRAITS]
        if others:
            raise Unsupported(
                f"reference '{self.name}' shows faces of the embedded world, which has no "
                f"{others[0]}: set observation.frechet_distance.reference to a Folder of real "
                "pictures, or to BankImages"
            )

    def identity(self, context: ObservationContext) -> object:
        return ["renders", self.seed, vars(self.law(context))]

    def size(self, context: ObservationContext) -> int:
        return 2**62  # practically unlimited

    def images(self, context: ObservationContext, start: int, stop: int, resolution: int) -> Tensor:
        return render(self._factors(context, start, stop).to(context.device), resolution)

    def can_edit(self, context: ObservationContext) -> bool:
        # A scorer may use the renderer's name for other classes, which the factor would not match.
        known = attributes()
        if context.attribute not in known.names:
            return False
        return (
            known[context.attribute].classes == context.judge.attributes[context.attribute].classes
        )

    def edited(
        self, context: ObservationContext, start: int, stop: int, resolution: int, target: int
    ) -> Tensor:
        codes = exchange(to_codes(self._factors(context, start, stop)), context.attribute, target)
        return render(to_factors(codes).to(context.device), resolution)

    def _factors(self, context: ObservationContext, start: int, stop: int) -> Factors:
        return sample_factors(self.law(context), self.seed, start, stop, "reference")


class Folder(Reference):
    """The images in a folder and its subfolders, in the order of their paths.

    They are cropped and resized by editbench.worlds.datasets.images.
    """

    def __init__(self, path: str, name: str | None = None) -> None:
        """Open the folder.

        Args:
            path: of the folder.
            name: for tables; None for the folder's own.
        """
        self.source = ImageFolder(Path(path))
        self.name = name or Path(path).resolve().name

    def identity(self, context: ObservationContext) -> object:
        return self.source.identity

    def size(self, context: ObservationContext) -> int:
        return len(self.source)

    def images(self, context: ObservationContext, start: int, stop: int, resolution: int) -> Tensor:
        # A reference must be complete: a missing image would shift all following ones.
        block = self.source.read(start, stop, resolution)
        if block.problems:
            raise BadFile(
                f"{self.source.folder / block.problems[0][0]}: {block.problems[0][1]}; remove it "
                "from the reference folder"
            )
        pixels = torch.from_numpy(block.pixels).to(context.device)
        return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)


class BankImages(Reference):
    """The generator's own unedited images, of the bank's fit split.

    For generators without available real images. The distance is then what the edit adds, and the
    distance at t = 0 is its floor.
    """

    name = "bank"

    def identity(self, context: ObservationContext) -> object:
        # The id of an imported bank does not identify the generator, and a bank given by its path
        # may have been made by an earlier version of the generator's code.
        generator = context.generator
        return ["bank", context.bank.id, generator.digest, _source_of(generator)]

    def size(self, context: ObservationContext) -> int:
        first, last = context.bank.spec.split("fit")
        return last - first

    def images(self, context: ObservationContext, start: int, stop: int, resolution: int) -> Tensor:
        space = context.generator.latent_space
        codes = torch.from_numpy(np.array(context.bank.array(space.value).range(start, stop))).to(
            context.device
        )
        return context.generator.decode(Codes(space, codes))


@dataclass(frozen=True)
class ReferenceFeatures:
    """The images of a reference in the features of a network, as one job measures them.

    Images 0..n-1 are set 0, the reference; images n..2n-1 are set 1, if there are that many.

    Attributes:
        context: editor, networks and bank of the job.
        reference: the images; at least n.
        network: whose features are used.
        n: number of images in a set.
        resolution: of the images.
    """

    context: ObservationContext
    reference: Reference
    network: FeatureNetwork
    n: int
    resolution: int

    @property
    def sets(self) -> int:
        """Number of sets: 1 or 2."""
        return 2 if self.reference.size(self.context) >= 2 * self.n else 1

    def batches(self, number: int, target: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """Yield the position of a batch's first image in its set, and the batch.

        Args:
            number: of the set.
            target: class of the edited attribute to which all images are edited; None leaves them
                unedited.
        """
        for first in range(0, self.n, self.context.batch):
            begin = number * self.n + first
            stop = number * self.n + min(first + self.context.batch, self.n)
            span = (self.context, begin, stop, self.resolution)
            if target is None:
                yield first, self.reference.images(*span)
            else:
                yield first, self.reference.edited(*span, target)

    def cached(
        self, options: dict[str, object], compute: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Statistics from the cache that jobs share; computed and stored there if missing.

        Args:
            options: what determines the statistics besides the images and the network, as JSON can
                hold it.
            compute: computes them.
        """
        key = {
            "reference": self.reference.identity(self.context),
            # In the key, since users may write and change their own reference classes.
            "source": _source_of(self.reference),
            "network": self.network.digest,
            "n": self.n,
            "resolution": self.resolution,
            **options,
        }
        path = self.context.cache / "references" / f"{digest(key)}.safetensors"

        def make() -> dict[str, np.ndarray]:
            made = compute()
            write_checked(path, save(made))
            return made

        return find_or_make(path, lambda: _read_statistics(path), make)


def _read_statistics(path: Path) -> dict[str, np.ndarray] | None:
    """Statistics of the cache; None if they are absent or damaged."""
    try:
        return load(read_checked(path))
    except (BadFile, SafetensorError):
        return None


def statistics(real: ReferenceFeatures, kernel: int) -> dict[str, np.ndarray]:
    """Statistics of a reference, from the cache if another job has computed them.

    Args:
        real: the images.
        kernel: number of images whose features are kept, for the kernel distance.

    Returns:
        count, sum, outer: moments of set 0, see editbench.stats.moments.Moments.
        floor_count, floor_sum, floor_outer: of set 1, if there is one.
        features: (kernel, d) float32, of the first images.

    Raises:
        Unsupported: an image has features that are not finite.
    """
    return real.cached({"kernel": kernel}, lambda: _compute(real, kernel))


@torch.no_grad()
def _compute(real: ReferenceFeatures, kernel: int) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    network = real.network
    features = np.empty((kernel, network.dim), np.float32)
    # Without a second set there is no floor; the distance itself does not need it.
    prefixes = ("", "floor_")[: real.sets]
    with progress("reference pictures", len(prefixes) * real.n) as advance:
        for number, prefix in enumerate(prefixes):
            moments = Moments(real.n, 1, network.dim)
            for first, images in real.batches(number):
                x = network(images).cpu().numpy()
                moments.update(x, first)
                # The last batch may extend past the kernel's images.
                if number == 0 and first < kernel:
                    features[first : first + len(x)] = x[: kernel - first]
                advance(len(x))
            sums = moments.arrays()
            lost = real.n - int(sums["count"].sum())
            # A real image without finite features is a fault of the folder or of the network.
            if lost:
                raise Unsupported(
                    f"'{network.name}' gives features that are not finite for "
                    f"{lost} pictures of reference '{real.reference.name}'"
                )
            out |= {
                f"{prefix}count": sums["count"],
                f"{prefix}sum": sums["sum"][0],
                f"{prefix}outer": sums["outer"][0],
            }
    return out | {"features": features}


def _source_of(part: object) -> str:
    """Hash of the source behind the class of an object."""
    kind = type(part)
    return source_digest(f"{kind.__module__}.{kind.__qualname__}")
