"""Finds the generators in a checkpoint, inside any wrappers.

A generator is recognised by the names of its tensors. Any prefix of these names is a wrapper:
'module.' (DataParallel, AveragedModel), '_orig_mod.' (torch.compile), 'decoder.' (pSp, e4e), keys
of dicts, attributes of a Lightning module, in any nesting. No list of wrappers is needed, and if
several networks are found, the error lists their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from torch import Tensor

from editbench.base.errors import BadFile
from editbench.networks.checkpoints.rosinality import MEAN
from editbench.networks.pickles import Opaque
from editbench.networks.pickles.modules import module_state, module_tensors

# Names that only a generator has: NVlabs' StyleGAN2, NVlabs' StyleGAN3.
MARKERS = (
    re.compile(r"(?P<before>(?:.+\.)?)synthesis\.b\d+\.(?:conv0|conv1|torgb)\..+"),
    re.compile(r"(?P<before>(?:.+\.)?)synthesis\.(?:L\d+_\d+_\d+|input)\..+"),
)
# rosinality's names are common words, so both of these are required.
PAIR = ("style.1.weight", "conv1.conv.weight")
# Parts of names for weights that are averaged over training, which give better images.
AVERAGED = re.compile(r"(^|_)(ema|swa|avg|averaged|shadow)(_|$)", re.IGNORECASE)


@dataclass(frozen=True)
class GeneratorPart:
    """A generator in a checkpoint.

    Args:
        name: its key in the file, with dots for nested keys; '' for the whole file.
        tensors: by the names of the generator's layout.
        module: the pickled module; None for a state dict.
    """

    name: str
    tensors: dict[str, Tensor]
    module: Opaque | None = None


def find_generators(content: Any) -> list[GeneratorPart]:
    """All generators in a checkpoint, in the order of the file."""
    found = []
    for place, tensors, module in _groups(content):
        prefixes = _prefixes(tensors)
        for before in prefixes:
            own = _under(tensors, before, prefixes)
            name = f"{place}{before}".rstrip(".")
            found.append(GeneratorPart(name, own, _inner(module, before)))
            found += _dotless_averages(place, tensors, own)
    return found


def choose_generator(parts: list[GeneratorPart], path: Path, chosen: str | None) -> GeneratorPart:
    """The only generator, or the only averaged one.

    Args:
        parts: result of `find_generators`, not empty.
        path: of the file, for messages.
        chosen: the value of --name with which they were found.

    Raises:
        BadFile: there are several; the message lists their names.
    """
    # A common prefix of all names does not distinguish the parts.
    columns = zip(*[part.name.split(".") for part in parts])
    shared = len(list(takewhile(lambda pieces: len(set(pieces)) == 1, columns)))
    # If there are both, averaged weights are chosen, since they give better images.
    averaged = []
    for part in parts:
        if any(AVERAGED.search(piece) for piece in part.name.split(".")[shared:]):
            averaged.append(part)
    for group in (parts, averaged):
        if len(group) == 1:
            return group[0]
    before = f"{chosen}." if chosen else ""
    names = [f"--name {before}{part.name}" for part in averaged or parts]
    raise BadFile(f"{path}: holds {len(names)} generators; choose one with {' or '.join(names)}")


def _groups(value: Any, place: str = "") -> Iterator[tuple[str, dict[str, Tensor], Opaque | None]]:
    """(name with a final dot, tensors, module) of all state dicts and modules in a value."""
    if module_state(value) is not None:
        yield place, module_tensors(value), value
        return
    if not isinstance(value, Mapping):
        return
    tensors = flat(value)
    if tensors:
        yield place, tensors, None
    for key, inner in value.items():
        if isinstance(key, str):
            yield from _groups(inner, f"{place}{key}.")


def _prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """The prefixes of generators' names, '' or with a final dot."""
    found: dict[str, None] = {}
    for name in tensors:
        for marker in MARKERS:
            if match := marker.fullmatch(name):
                found[match["before"]] = None
        before = name.removesuffix(PAIR[0])
        whole = before == "" or before.endswith(".")
        if name.endswith(PAIR[0]) and whole and f"{before}{PAIR[1]}" in tensors:
            found[before] = None
    return list(found)


def _under(tensors: Mapping[str, Tensor], before: str, prefixes: list[str]) -> dict[str, Tensor]:
    """The tensors of one generator, without those of another generator nested in it."""
    inner = tuple(name for name in prefixes if name != before and name.startswith(before))
    return {
        name.removeprefix(before): value
        for name, value in tensors.items()
        if name.startswith(before) and not name.startswith(inner)
    }


def _inner(module: Opaque | None, before: str) -> Opaque | None:
    """The submodule of a pickled module whose tensors' names begin with `before`."""
    for name in before.split(".")[:-1]:
        state = module_state(module)
        if state is None:
            return None
        module = state["_modules"].get(name)
    return module


def _dotless_averages(
    place: str, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> list[GeneratorPart]:
    """Averages that are stored under the names of a network without dots (LitEma).

    Such a wrapper has only parameters; the buffers are those of the network.
    """
    plain = {name.replace(".", ""): name for name in own}
    # Names that are equal without their dots would be ambiguous.
    weights = [short for short, name in plain.items() if name.endswith(".weight")]
    if not weights or len(plain) != len(own):
        return []
    found = []
    for key in tensors:
        before = key.removesuffix(weights[0])
        if before in ("", key):
            continue
        averages = {}
        for short, name in plain.items():
            if before + short in tensors:
                averages[name] = tensors[before + short]
        found.append(GeneratorPart(f"{place}{before}".rstrip("."), {**own, **averages}))
    return found


def find_mean(content: Any, name: str) -> Tensor | None:
    """rosinality's mean w, which is next to a generator or one of its wrappers.

    Args:
        content: of the file.
        name: of the generator in the file.

    Returns:
        The nearest one; None if there is none.
    """
    found = None
    nearest = -1
    for place, tensors, _ in _groups(content):
        for before in [full.removesuffix(MEAN) for full in tensors if full.endswith(MEAN)]:
            around = f"{place}{before}"
            # The name of a wrapper is a prefix of the generator's name.
            if f"{name}.".startswith(around) and len(around) > nearest:
                found = tensors[f"{before}{MEAN}"]
                nearest = len(around)
    return found


def flat(part: Any) -> dict[str, Tensor]:
    """The tensors of a state dict; empty for anything else."""
    if not isinstance(part, Mapping):
        return {}
    return {
        key: value
        for key, value in part.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
