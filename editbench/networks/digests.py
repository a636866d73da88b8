"""Digests of a user's own networks and functions: of everything that determines their output.

A network is known by its weights, its structure, its source, and what its classes keep besides
weights. A function is known by its source and by what it contains.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import file_sha256
from editbench.base.identity import tensors_digest
from editbench.base.sources import source_hashes
from editbench.base.user_code import is_ours, is_users_file

# Attributes that every module has: its mode, and where PyTorch keeps parameters, layers and hooks.
MODULE_KEYS = frozenset(vars(nn.Module()))
# Kinds of objects whose content changes no output.
WITHOUT_EFFECT = (torch.device, PurePath, logging.Logger)


def network_digest(network: nn.Module, *extra: object) -> str:
    """Hash of a network's weights, structure, source files and settings, and the repr of `extra`.

    The source files are those of its modules' classes, except PyTorch's. Their text is hashed, so a
    changed comment changes the digest. The settings are what its own classes keep besides
    parameters, persistent buffers and layers: a temperature, the label of a conditional network, a
    buffer that is not persistent. The classes of editbench are left out of the settings, since they
    take such values from their weights.

    Args:
        network: any module.
        extra: further values that determine the output, such as the declared range of its images.
    """
    return _network_digest(network, extra, ())


def _network_digest(network: nn.Module, extra: tuple[object, ...], above: tuple[int, ...]) -> str:
    """`network_digest` of a network that is contained in the objects with the ids `above`."""
    files: set[str] = set()
    for module in network.modules():
        name = type(module).__module__
        # The version of PyTorch is recorded elsewhere.
        if not name.startswith("torch.") and getattr(sys.modules.get(name), "__file__", None):
            files.add(inspect.getfile(type(module)))
    sources = sorted(file_sha256(Path(file)) for file in files)
    own = _settings(network, above)
    return tensors_digest(network.state_dict(), repr(network), sources, *extra, *own)


def _settings(network: nn.Module, above: tuple[int, ...]) -> list[tuple[str, str, object]]:
    """(name of the module, name of the attribute, its description) of a network's settings."""
    deeper = (*above, *(id(module) for module in network.modules()))
    found: list[tuple[str, str, object]] = []
    for name, module in network.named_modules():
        if type(module).__module__.startswith(("torch.", "editbench.")):
            continue
        values = {key: value for key, value in vars(module).items() if key not in MODULE_KEYS}
        for key in module._non_persistent_buffers_set:
            values[key] = module.get_buffer(key)
        found += [(name, key, describe(values[key], deeper)) for key in sorted(values)]
    return found


def describe(value: object, above: tuple[int, ...] = (), with_source: bool = False) -> object:
    """A value as text that is equal in every process, which a repr with an address is not.

    A function or class is described by its name and what it holds. Of a device, a logger, and the
    path of a file or folder only the kind counts, and so it does of an object that has neither
    attributes nor a repr of its own.

    Args:
        value: an attribute of a module, a function, or a part of one.
        above: `id` of the objects that contain it, outermost first.
        with_source: also count the source of functions and classes, see `source_of`, and paths. A
            network needs neither: its source is counted with its modules, and the place of its
            weights changes no output. A function may read its weights from a path that it holds.

    Returns:
        Nested lists of text.
    """
    if with_source and isinstance(value, Path):
        return repr(value)
    if isinstance(value, str) and not with_source and os.sep in value and os.path.exists(value):
        return "path"
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, torch.dtype)):
        return repr(value)
    # An object that contains itself would cause an infinite recursion.
    if id(value) in above:
        return "itself"
    deeper = (*above, id(value))

    def inside(part: object) -> object:
        return describe(part, deeper, with_source)

    if isinstance(value, nn.Module):
        return _network_digest(value, (), deeper)
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype.hasobject:  # its bytes are addresses
            return [array.shape, inside(array.ravel().tolist())]
        # Not by its repr, which leaves out the middle of a long array.
        return [array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).hexdigest()]
    if isinstance(value, Tensor):
        return tensors_digest({"": value.to_dense() if value.layout != torch.strided else value})
    if isinstance(value, Mapping):
        return [[inside(key), inside(part)] for key, part in value.items()]
    if isinstance(value, (list, tuple, deque)):
        return [inside(part) for part in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(inside(part)) for part in value)
    if isinstance(value, ModuleType):
        return value.__name__
    if with_source and callable(value) and not inspect.ismethod(value):
        # The decorated function, not its decorator.
        value = inspect.unwrap(value)
    return _describe_object(value, inside, with_source)


def _describe_object(
    value: object, inside: Callable[[object], object], with_source: bool
) -> object:
    """`describe` of a function, a class, or an object that is no container.

    Args:
        value: the object.
        inside: describes what it holds.
        with_source: see `describe`.
    """
    # An object is an instance of a class, which has the name and the source.
    named: Any = value if inspect.isroutine(value) or isinstance(value, type) else type(value)
    # Methods of built-in types have no module.
    module = getattr(named, "__module__", "")
    qualname = getattr(named, "__qualname__", "")
    name = f"{module}.{qualname}"
    if isinstance(value, WITHOUT_EFFECT):
        return name
    held = _held_values(value)
    # A value without attributes, such as a range, has no source either.
    if with_source and (held or hasattr(value, "__dict__") or callable(value)):
        return [module, qualname, source_of(named), inside(held)]
    if isinstance(value, functools.partial):
        return inside(held)
    if any(held):
        return [name, inside(held)]
    shown = repr(value)
    # A range or a date shows its content.
    return name if named is value or " at 0x" in shown else [name, shown]


def _held_values(value: object) -> list[object] | dict[str, object]:
    """What a function or an object contains besides its source or that of its class.

    Args:
        value: no container, array or network.

    Returns:
        Of a method, the function and the object; of a partial, the function and its arguments; of
        another function, its default values and its closure; otherwise the attributes by name.
    """
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if inspect.ismethod(value):
        return [value.__func__, value.__self__]
    if inspect.isfunction(value):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__defaults__, value.__kwdefaults__, cells]
    # What a class contains is in its source.
    if isinstance(value, type):
        return {}
    found = dict(getattr(value, "__dict__", {}))
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if not slot.startswith("__") and hasattr(value, slot):
                found[slot] = getattr(value, slot)
    return found


def source_of(made: Any) -> str | dict[str, str]:
    """The source that defines a function or class.

    Args:
        made: the function or class.

    Returns:
        Of a user's own code, the modules that it consists of and imports: name -> hash of the text.
        Modules of editbench are left out: they determine a bank, but should not seed its starts. Of
        other code, the hash of its file; '' if there is none.
    """
    try:
        file = inspect.getfile(made)
    except (TypeError, OSError):
        return ""
    if is_users_file(file):
        # A script or a cell of a notebook is no module that could be found by its name.
        with suppress(EditbenchError):
            found = source_hashes(made.__module__)
            return {name: text_hash for name, text_hash in found.items() if not is_ours(name)}
    try:
        return file_sha256(Path(file))
    except BadFile:
        return ""
