"""The inversion of a job: computed once and cached, or opened by its path."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import OF_CACHE, explain_disk_errors, file_state
from editbench.base.identity import described
from editbench.base.instantiate import build
from editbench.base.spaces import Codes
from editbench.inversion.build import Task, build_inversion
from editbench.inversion.images import open_images
from editbench.inversion.projector import check_invertible
from editbench.inversion.spec import ProjectionSpec
from editbench.inversion.store import Inversion
from editbench.networks.external import freeze
from editbench.networks.generator import Generator
from editbench.networks.perceptual import FeatureDistance, Perceptual, PixelDistance
from editbench.networks.roles import Networks

# Inversions that this process has already opened and verified. The key has the state of
# inversion.json, so that one that was made again is opened again.
_OPEN: dict[tuple[Path, tuple[int, int, int] | None], Inversion] = {}


@dataclass(frozen=True)
class InversionRequest:
    """The inversion that a job's walks start from.

    Args:
        images: folder of pictures, or 'faces:N'; not used where `path` is set.
        path: folder of a finished inversion; None computes one.
        perceptual: 'teacher', 'pixels', or a mapping with the `_target_` of a Perceptual.
        block: images that are optimised together.
        projection: how they are inverted.
        networks: the generator that is inverted, the teacher and the judge.
        code: hash of the networks' source code.
        device: of the computation.
        cache: folder that jobs share.
    """

    images: str | None
    path: str | None
    perceptual: object
    block: int
    projection: ProjectionSpec
    networks: Networks
    code: str
    device: str
    cache: Path

    def load(self) -> Inversion:
        """Open the inversion. If it is not cached, compute it first.

        Raises:
            EditbenchError: the images cannot be opened, or the generator cannot be inverted.
            BadFile: the folder `inversion.path` was made with other networks.
        """
        if self.path:
            folder = Path(self.path)
            found = _OPEN.get(_stamped(folder))
            if found is None:
                found = _keep(Inversion(folder))
            return _check_inversion(found, self.networks)
        folder = self.cache / "inversions" / self.task.id
        found = _OPEN.get(_stamped(folder))
        if found is not None:
            return found
        with explain_disk_errors(folder, OF_CACHE):
            return _keep(build_inversion(folder, self.task))

    @property
    def id(self) -> str:
        """Identity of the inversion; known before it is computed, unless it is given by a path."""
        if self.path:
            return self.load().id
        return self.task.id

    # Cached, since it reads the images and builds the network of the perceptual distance.
    @cached_property
    def task(self) -> Task:
        """What to invert, and how.

        Raises:
            EditbenchError: the images cannot be opened, or the generator cannot be inverted.
        """
        assert self.images is not None  # checked with the settings
        check_invertible(self.networks.generator, self.projection.space)
        perceptual, distance = _distance_of(self.perceptual, self.networks, self.device)
        images = open_images(self.images, _picture_shape(self.networks.generator, self.device))
        return Task(
            images,
            self.networks,
            self.code,
            perceptual,
            distance,
            self.projection,
            self.block,
            self.device,
        )


def _stamped(folder: Path) -> tuple[Path, tuple[int, int, int] | None]:
    """A key of _OPEN."""
    return folder, file_state(folder / "inversion.json")


def _keep(inversion: Inversion) -> Inversion:
    _OPEN[_stamped(inversion.folder)] = inversion
    return inversion


def _check_inversion(inversion: Inversion, networks: Networks) -> Inversion:
    """The inversion itself. Raises BadFile if it was made with other networks than the job has."""
    for role, network in vars(networks).items():
        if inversion.meta[role] != network.digest:
            raise BadFile(
                f"inversion {inversion.folder} was made with another {role} "
                f"({inversion.meta[role]}) than this run's ({network.digest}): unset "
                "inversion.path, or make it again"
            )
    return inversion


def _distance_of(option: object, networks: Networks, device: str) -> tuple[Perceptual, object]:
    """A perceptual distance and its identity, by the option `inversion.perceptual`."""
    if option == "teacher":
        return FeatureDistance(networks.teacher), "teacher"
    if option == "pixels":
        return PixelDistance(), "pixels"
    if not isinstance(option, dict) or "_target_" not in option:
        raise EditbenchError(
            f"inversion.perceptual={option}: give teacher, pixels, or a mapping such as "
            "{_target_: editbench.networks.perceptual.LPIPS, weights: [FILE, FILE], size: 256}"
        )
    made = build(option)
    if not isinstance(made, Perceptual):
        raise EditbenchError(
            f"inversion.perceptual: {option['_target_']} is not an "
            "editbench.networks.perceptual.Perceptual"
        )
    made = freeze(made, device)
    return made, [described(option), getattr(made, "digest", made.about)]


def _picture_shape(generator: Generator, device: str) -> tuple[int, ...]:
    """(C, H, W) of a generator's images, found by decoding one code of zeros."""
    space = generator.latent_space
    code = torch.zeros(1, generator.code_dim(space), device=device)
    with torch.no_grad():
        return tuple(generator.decode(Codes(space, code)).shape[1:])
