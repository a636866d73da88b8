"""The inversion of a job, from options of the Hydra group `inversion`; computed once and cached."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import OF_CACHE, explain_disk_errors
from editbench.base.identity import described
from editbench.base.instantiate import build
from editbench.base.spaces import Codes
from editbench.base.validation import check_kind
from editbench.inversion.build import Task, build_inversion
from editbench.inversion.images import open_images
from editbench.inversion.projector import check_invertible
from editbench.inversion.schedule import Schedule
from editbench.inversion.spec import ProjectionSpec
from editbench.inversion.store import Inversion
from editbench.networks.external import frozen
from editbench.networks.perceptual import FeatureDistance, Perceptual, PixelDistance
from editbench.networks.roles import Networks

# Keys of the group that are not fields of ProjectionSpec or Schedule.
OWN = ("images", "path", "perceptual", "block")

# Inversions that this process has already opened and verified.
_OPEN: dict[Path, Inversion] = {}


@dataclass(frozen=True)
class InversionRequest:
    """The inversion that a job's walks start from.

    Args:
        options: of the Hydra group `inversion`, without its labels.
        networks: the generator that is inverted, the teacher and the judge.
        code: hash of the networks' source code.
        device: of the computation.
        cache: folder that jobs share.
    """

    options: dict[str, Any]
    networks: Networks
    code: str
    device: str
    cache: Path

    def load(self) -> Inversion:
        """Open the inversion. If it is not cached, compute it first.

        Raises:
            EditbenchError: the options give no images, or a value is out of range.
            BadFile: the folder `inversion.path` was made with other networks.
        """
        if self.options.get("path"):
            check_kind("inversion.path", self.options["path"], "str")
            folder = Path(self.options["path"])
            if folder not in _OPEN:
                _OPEN[folder] = Inversion(folder)
            return check_inversion(_OPEN[folder], self.networks)
        task = self.task()
        folder = self.cache / "inversions" / task.id
        if folder not in _OPEN:
            with explain_disk_errors(folder, OF_CACHE):
                _OPEN[folder] = build_inversion(folder, task)
        return _OPEN[folder]

    def id(self) -> str:
        """Identity of the inversion; known before it is computed, unless it is given by a path."""
        if self.options.get("path"):
            return self.load().id
        return self.task().id

    def task(self) -> Task:
        """What to invert, and how. Raises EditbenchError if the options are wrong."""
        options = self.options
        if not options.get("images"):
            raise EditbenchError(
                "inversion.images is not set: give a folder of images or faces:N, or a finished "
                "inversion as inversion.path=FOLDER"
            )
        check_kind("inversion.images", options["images"], "str")
        check_kind("inversion.block", options["block"], "int")
        if options["block"] < 1:
            raise EditbenchError(f"inversion.block must be at least 1, got {options['block']}")
        spec = projection(options)
        check_invertible(self.networks.generator, spec.space)
        perceptual, distance = distance_of(options["perceptual"], self.networks, self.device)
        images = open_images(options["images"], picture_shape(self.networks, self.device))
        return Task(
            images,
            self.networks,
            self.code,
            perceptual,
            distance,
            spec,
            options["block"],
            self.device,
        )


def check_inversion(inversion: Inversion, networks: Networks) -> Inversion:
    """Check that an inversion was made with these networks. Raises BadFile otherwise."""
    for role, network in vars(networks).items():
        if inversion.meta[role] != network.digest:
            raise BadFile(
                f"inversion {inversion.folder} was made with another {role} "
                f"({inversion.meta[role]}) than this run's ({network.digest}): unset "
                "inversion.path, or make it again"
            )
    return inversion


def projection(options: dict[str, Any]) -> ProjectionSpec:
    """ProjectionSpec and Schedule from the keys of the group."""
    times = {item.name for item in fields(Schedule)}
    given = {key: value for key, value in options.items() if key not in OWN}
    schedule = Schedule(**{key: value for key, value in given.items() if key in times})
    return ProjectionSpec(
        **{key: value for key, value in given.items() if key not in times}, schedule=schedule
    )


def distance_of(option: object, networks: Networks, device: str) -> tuple[Perceptual, object]:
    """A perceptual distance and its identity.

    Args:
        option: 'teacher', 'pixels', or a mapping with the `_target_` of a Perceptual.
        networks: of the job.
        device: of the distance.
    """
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
    made = frozen(made, device)
    return made, [described(option), getattr(made, "digest", made.about)]


def picture_shape(networks: Networks, device: str) -> tuple[int, ...]:
    """(C, H, W) of the generator's images."""
    generator = networks.generator
    space = generator.latent_space
    code = torch.zeros(1, generator.code_dim(space), device=device)
    with torch.no_grad():
        return tuple(generator.decode(Codes(space, code)).shape[1:])
