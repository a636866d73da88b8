"""What edited pictures are compared with: real pictures, and their statistics, computed once and cached.

A reference gives picture i by (seed, i) or by its place in a folder. Its statistics are of two sets that share no
picture: 0..n-1 is the reference, n..2n-1 measures the floor, the distance of real from real at the same n.
"""

from __future__ import annotations

import abc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from editbench.base.errors import BadFile, EditbenchError, Unsupported
from editbench.base.files import digest, lock, read_checked, sweep_partials, write_checked
from editbench.base.progress import progress
from editbench.base.sources import source_digest
from editbench.base.spaces import Codes, Space
from editbench.networks.features import FeatureNetwork
from editbench.stats.moments import Moments
from editbench.walk.observation import Scene
from editbench.worlds.datasets.images import ImageFolder
from editbench.worlds.faces.factors import TRAITS, FactorLaw, sample_factors
from editbench.worlds.faces.renderer import render


class Reference(abc.ABC):
    """A set of pictures. name: for tables."""

    name: str

    def check(self, scene: Scene) -> None:  # noqa: B027 - most serve every scene
        """Raise Unsupported where these pictures are no reference for the scene's generator."""

    @abc.abstractmethod
    def identity(self, scene: Scene) -> object:
        """JSON-like; all that decides the pictures."""

    @abc.abstractmethod
    def size(self, scene: Scene) -> int:
        """How many pictures there are."""

    @abc.abstractmethod
    def images(self, scene: Scene, start: int, stop: int, resolution: int) -> Tensor:
        """Pictures start..stop-1: (b, 3, resolution, resolution) in [-1, 1]."""


class Renders(Reference):
    """Renders of the embedded world by the law that its generator was trained on.

    Args:
        seed: of the factors; no other part of the project draws from this stream.
        margin, correlations: of the law, see FactorLaw; None has that of the generator (its attribute `law`), or else
            the world's own.
    """

    def __init__(
        self,
        seed: int = 7_007,
        margin: float | None = None,
        correlations: dict[str, float] | None = None,
        name: str = "renders",
    ) -> None:
        self.seed, self.name = seed, name
        given = {"margin": margin, "correlations": correlations}
        self.given: dict[str, Any] = {
            key: value for key, value in given.items() if value is not None
        }

    def law(self, scene: Scene) -> FactorLaw:
        return replace(getattr(scene.generator, "law", None) or FactorLaw(), **self.given)

    def check(self, scene: Scene) -> None:
        others = [name for name in scene.judge.attributes.names if name not in TRAITS]
        if others:
            raise Unsupported(
                f"reference '{self.name}' shows faces of the embedded world, which has no {others[0]}: "
                "set observation.frechet_distance.reference to a Folder of real pictures, or to BankImages"
            )

    def identity(self, scene: Scene) -> object:
        return ["renders", self.seed, vars(self.law(scene))]

    def size(self, scene: Scene) -> int:
        return 2**62

    def images(self, scene: Scene, start: int, stop: int, resolution: int) -> Tensor:
        return render(
            sample_factors(self.law(scene), self.seed, start, stop, "reference").to(scene.device),
            resolution,
        )


class Folder(Reference):
    """The images below a folder, in the order of their paths, cut and resized as editbench.worlds.datasets.images says."""

    def __init__(self, path: str, name: str | None = None) -> None:
        self.source = ImageFolder(Path(path))
        self.name = name or Path(path).resolve().name

    def identity(self, scene: Scene) -> object:
        return self.source.identity

    def size(self, scene: Scene) -> int:
        return len(self.source)

    def images(self, scene: Scene, start: int, stop: int, resolution: int) -> Tensor:
        block = self.source.read(start, stop, resolution)
        if block.problems:
            raise BadFile(
                f"{self.source.folder / block.problems[0][0]}: {block.problems[0][1]}; take it out of the "
                "reference folder"
            )
        pixels = torch.from_numpy(block.pixels).to(scene.device)
        return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)


class BankImages(Reference):
    """The generator's own unedited pictures, of the bank's fit split: for a generator whose real pictures are not at
    hand. The distance is then what the edit adds, and that of t = 0 is its floor."""

    name = "bank"

    def identity(self, scene: Scene) -> object:
        return ["bank", scene.bank.id]

    def size(self, scene: Scene) -> int:
        first, last = scene.bank.spec.split("fit")
        return last - first

    def images(self, scene: Scene, start: int, stop: int, resolution: int) -> Tensor:
        space = Space.W if Space.W in scene.generator.spaces else Space.Z
        codes = torch.from_numpy(np.array(scene.bank.array(space.value).range(start, stop))).to(
            scene.device
        )
        return scene.generator.decode(Codes(space, codes))


def statistics(
    scene: Scene,
    reference: Reference,
    network: FeatureNetwork,
    n: int,
    kernel: int,
    resolution: int,
) -> dict[str, np.ndarray]:
    """Moments of 0..n-1 (count, sum, outer) and, where there are so many, of n..2n-1 (floor_count, ...), and features
    (kernel, d) float32 of the first pictures. From the cache, where another job made them.

    Raises EditbenchError where the reference has fewer than n pictures.
    """
    if reference.size(scene) < n:
        raise EditbenchError(
            f"reference '{reference.name}' has {reference.size(scene)} pictures, fewer than n={n}: "
            "lower the observation's n, or give a larger reference"
        )
    kind = type(reference)
    key = {
        "reference": reference.identity(scene),
        "source": source_digest(f"{kind.__module__}.{kind.__qualname__}"),
        "network": network.digest,
        "n": n,
        "kernel": kernel,
        "resolution": resolution,
    }
    path = scene.cache / "references" / f"{digest(key)}.safetensors"
    with lock(path):
        try:
            return load(read_checked(path))
        except (BadFile, SafetensorError):  # absent, or damaged and as good as none
            sweep_partials(path)
        made = _compute(scene, reference, network, n, kernel, resolution)
        write_checked(path, save(made))
        return made


@torch.no_grad()
def _compute(
    scene: Scene,
    reference: Reference,
    network: FeatureNetwork,
    n: int,
    kernel: int,
    resolution: int,
) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    features = np.empty((kernel, network.dim), np.float32)
    sets = 2 if reference.size(scene) >= 2 * n else 1
    with progress("reference pictures", sets * n) as advance:
        for place, prefix in enumerate(("", "floor_")[:sets]):
            moments = Moments(n, 1, network.dim)
            for first in range(0, n, scene.batch):
                last = min(first + scene.batch, n)
                x = (
                    network(
                        reference.images(scene, place * n + first, place * n + last, resolution)
                    )
                    .cpu()
                    .numpy()
                )
                moments.update(x, first)
                if not place and first < kernel:
                    features[first:last] = x[: kernel - first]
                advance(last - first)
            sums = moments.arrays()
            found = int(sums["count"].sum())
            if found < n:
                raise Unsupported(
                    f"'{network.name}' gives features that are not finite for "
                    f"{n - found} pictures of reference '{reference.name}'"
                )
            out |= {
                f"{prefix}count": sums["count"],
                f"{prefix}sum": sums["sum"][0],
                f"{prefix}outer": sums["outer"][0],
            }
    return out | {"features": features}
