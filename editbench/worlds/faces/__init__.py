"""The embedded world `faces`: cartoon faces with known factors, and the networks trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from editbench.attributes import Attribute, Attributes
from editbench.errors import UnknownName
from editbench.worlds.faces.factors import CLASSES, TRAITS

if TYPE_CHECKING:  # importing a world must not import networks
    from editbench.generators.embedded import StyleGAN2Generator
    from editbench.scorers.convnet import ConvScorer
    from editbench.worlds.parser import RegionParser

RESOLUTION = 32
ROLES = ("teacher", "judge", "witness")
WEIGHTS = ("generator", *ROLES, "parser")


def attributes() -> Attributes:
    """The seven attributes of the world in the order of its labels; neighbouring yaw bins touch."""
    return Attributes([Attribute(trait, CLASSES[trait], ordered=trait == "yaw") for trait in TRAITS])


def weights_path(name: str) -> Path:
    """Where the package keeps the weights of 'generator', 'teacher', 'judge', 'witness' or 'parser'."""
    if name not in WEIGHTS:
        raise UnknownName("weights of the faces world", name, WEIGHTS)
    return Path(__file__).parent / "weights" / f"{name}{RESOLUTION}.safetensors"


def load_generator(weights: str | Path | None = None, truncation_psi: float = 1.0,
                   device: str = "cpu") -> StyleGAN2Generator:
    """The generator of the world; `weights` overrides the file of the package."""
    from editbench.generators.embedded import StyleGAN2Generator

    return StyleGAN2Generator.from_file(weights or weights_path("generator"), truncation_psi, device)


def load_scorer(role: str, weights: str | Path | None = None, device: str = "cpu") -> ConvScorer:
    """The 'teacher', the 'judge' or the 'witness' of the world; `weights` overrides the file of the package."""
    from editbench.scorers.convnet import ConvScorer

    if role not in ROLES:
        raise UnknownName("role of a scorer", role, ROLES)
    return ConvScorer.from_file(weights or weights_path(role), device)


def load_parser(weights: str | Path | None = None, device: str = "cpu") -> RegionParser:
    """Which region of the face each pixel shows; `weights` overrides the file of the package."""
    from editbench.worlds.parser import RegionParser

    return RegionParser.from_file(weights or weights_path("parser"), device)
