"""The embedded world `faces`: cartoon faces with known factors, and networks trained on them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import UnknownName
from editbench.base.validation import check_attributes
from editbench.worlds.faces.factors import CLASSES, TRAITS

if TYPE_CHECKING:  # importing a world must not import networks
    from editbench.networks.scorers.convnet import ConvScorer
    from editbench.networks.stylegan2.generator import StyleGAN2Generator
    from editbench.worlds.parser import RegionParser

RESOLUTION = 32
ROLES = ("teacher", "judge", "witness")
WEIGHTS = ("generator", *ROLES, "parser")


def attributes() -> Attributes:
    """The seven attributes of the world in the order of its labels; neighbouring yaw bins touch."""
    items = []
    for trait in TRAITS:
        items.append(Attribute(trait, CLASSES[trait], ordered=trait == "yaw"))
    return Attributes(items)


def check_regions(key: str, named: Iterable[str], scored: Attributes) -> None:
    """Refuse regions of an attribute that neither the scorer nor this world has.

    The shipped YAML names the regions of this world's faces for every scorer.

    Args:
        key: dotted name of the option, for the message.
        named: the attributes that it has regions for.
        scored: the evaluated attributes.

    Raises:
        UnknownName: nobody has one of them.
    """
    check_attributes(key, named, [*scored.known, *TRAITS])


def weights_path(name: str) -> Path:
    """Where the package keeps the weights of 'generator', 'teacher', 'judge', 'witness' or 'parser'."""
    if name not in WEIGHTS:
        raise UnknownName("weights of the faces world", name, WEIGHTS)
    return Path(__file__).parent / "weights" / f"{name}{RESOLUTION}.safetensors"


def load_generator(
    weights: str | Path | None = None, truncation_psi: float = 1.0, device: str = "cpu"
) -> StyleGAN2Generator:
    """The generator of the world.

    Args:
        weights: a file instead of the one of the package.
        truncation_psi: of W; 1 does not truncate.
        device: of the network.

    Raises:
        BadFile: the file is not a generator of this kind.
    """
    # Imported here: whoever wants the attributes alone needs no network.
    from editbench.networks.stylegan2.generator import StyleGAN2Generator

    path = weights or weights_path("generator")
    return StyleGAN2Generator.from_file(path, truncation_psi, device)


def load_scorer(role: str, weights: str | Path | None = None, device: str = "cpu") -> ConvScorer:
    """The 'teacher', the 'judge' or the 'witness' of the world.

    Args:
        role: which of them.
        weights: a file instead of the one of the package.
        device: of the network.

    Raises:
        UnknownName: no such role.
        BadFile: the file is not a scorer of this kind.
    """
    from editbench.networks.scorers.convnet import ConvScorer

    if role not in ROLES:
        raise UnknownName("role of a scorer", role, ROLES)
    return ConvScorer.from_file(weights or weights_path(role), device)


def load_parser(weights: str | Path | None = None, device: str = "cpu") -> RegionParser:
    """The network that says which region of the face each pixel shows.

    Args:
        weights: a file instead of the one of the package.
        device: of the network.

    Raises:
        BadFile: the file is not a parser.
    """
    from editbench.worlds.parser import RegionParser

    return RegionParser.from_file(weights or weights_path("parser"), device)
