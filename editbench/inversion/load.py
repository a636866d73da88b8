"""The inversion that a configuration asks for: an option of the Hydra group `inversion`, made once and cached."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import file_sha256
from editbench.base.instantiate import build, plain
from editbench.base.sources import content, source_digest
from editbench.base.spaces import Codes, Space
from editbench.base.validation import check_kind
from editbench.inversion.build import Task, build_inversion
from editbench.inversion.images import open_images
from editbench.inversion.projector import Projection, check_invertible
from editbench.inversion.schedule import Schedule
from editbench.inversion.store import Inversion
from editbench.networks.perceptual import FeatureDistance, Perceptual, PixelDistance
from editbench.networks.roles import Networks
from editbench.run.loading import load_networks

OWN = (
    "images",
    "path",
    "perceptual",
    "block",
)  # of the group; the rest are fields of Projection and Schedule

_OPEN: dict[Path, Inversion] = {}


def asked(cfg: DictConfig) -> bool:
    """Whether the starts of a job are inverted images."""
    options = cfg.get("inversion")
    return bool(options) and options.name != "none"


def load_inversion(cfg: DictConfig) -> Inversion | None:
    """Open the inversion of a configuration, making it first if need be; None where the starts are the bank's."""
    if not asked(cfg):
        return None
    if cfg.inversion.path:
        check_kind("inversion.path", cfg.inversion.path, "str")
        folder = Path(cfg.inversion.path)
        if folder not in _OPEN:
            _OPEN[folder] = Inversion(folder)
        return check_inversion(_OPEN[folder], load_networks(cfg))
    task = inversion_task(cfg)
    folder = Path(cfg.cache) / "inversions" / task.id
    if folder not in _OPEN:
        _OPEN[folder] = build_inversion(folder, task)
    return _OPEN[folder]


def inversion_id(cfg: DictConfig) -> str:
    """Identity of a configuration's inversion, known before it is made; '' where the starts are the bank's."""
    if not asked(cfg):
        return ""
    if cfg.inversion.path:
        found = load_inversion(cfg)
        assert found is not None
        return found.id
    return inversion_task(cfg).id


def inversion_key(cfg: DictConfig) -> list[str]:
    """What a record's name takes of it: the codes' identity, and the code that walks from them."""
    return [inversion_id(cfg), file_sha256(Path(__file__).with_name("walks.py"))]


def check_inversion(inversion: Inversion, networks: Networks) -> Inversion:
    """An inversion given by path must have been made with these very networks."""
    for role, network in vars(networks).items():
        if inversion.meta[role] != network.digest:
            raise BadFile(
                f"inversion {inversion.folder} was made with another {role} ({inversion.meta[role]}) than "
                f"this run's ({network.digest}): unset inversion.path, or make it again"
            )
    return inversion


def inversion_task(cfg: DictConfig) -> Task:
    """What a configuration asks to be inverted, and how. Raises EditbenchError for what cannot be."""
    networks, options = load_networks(cfg), plain(cfg.inversion)
    if not options.get("images"):
        raise EditbenchError(
            "inversion.images is not set: give a folder of pictures or faces:N, or a finished "
            "inversion as inversion.path=FOLDER"
        )
    check_kind("inversion.images", options["images"], "str")
    check_kind("inversion.block", options["block"], "int")
    if options["block"] < 1:
        raise EditbenchError(f"inversion.block must be at least 1, got {options['block']}")
    spec = projection(options)
    check_invertible(networks.generator, spec.space)
    perceptual, distance = distance_of(options["perceptual"], networks, cfg.device)
    images = open_images(options["images"], picture_shape(networks, cfg.device))
    return Task(images, networks, perceptual, distance, spec, options["block"], cfg.device)


def projection(options: dict[str, Any]) -> Projection:
    """Projection and Schedule of the group's keys."""
    times = {item.name for item in fields(Schedule)}
    given = {key: value for key, value in options.items() if key not in OWN}
    schedule = Schedule(**{key: value for key, value in given.items() if key in times})
    return Projection(
        **{key: value for key, value in given.items() if key not in times}, schedule=schedule
    )


def distance_of(option: object, networks: Networks, device: str) -> tuple[Perceptual, object]:
    """A distance and its identity: 'teacher', 'pixels', or a mapping with the `_target_` of a Perceptual."""
    if option == "teacher":
        return FeatureDistance(networks.teacher), "teacher"
    if option == "pixels":
        return PixelDistance(), "pixels"
    if not isinstance(option, dict) or "_target_" not in option:
        raise EditbenchError(
            f"inversion.perceptual={option}: give teacher, pixels, or a mapping such as "
            "{_target_: editbench.networks.perceptual.LPIPS, weights: [FILE, FILE], size: 256}"
        )
    made = build(cast(DictConfig, OmegaConf.create(option)))
    if not isinstance(made, Perceptual):
        raise EditbenchError(
            f"inversion.perceptual: {option['_target_']} is no editbench.networks.perceptual.Perceptual"
        )
    made = made.to(device).eval().requires_grad_(False)
    source = source_digest(f"{type(made).__module__}.{type(made).__qualname__}")
    return made, [content(option), getattr(made, "digest", made.about), source]


def picture_shape(networks: Networks, device: str) -> tuple[int, ...]:
    """(C, H, W) of the generator's pictures."""
    generator = networks.generator
    space = Space.W if Space.W in generator.spaces else Space.Z
    with torch.no_grad():
        return tuple(
            generator.decode(
                Codes(space, torch.zeros(1, generator.code_dim(space), device=device))
            ).shape[1:]
        )
