"""Settings of a third-party network that change its output, but are in neither its weights nor its
repr. They are part of its digest."""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import os
from collections import deque
from collections.abc import Mapping
from pathlib import PurePath
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from editbench.base.identity import tensors_digest
from editbench.networks.external import network_digest

# Attributes that every module has: its mode, and where PyTorch keeps parameters, layers and hooks.
MODULE_KEYS = frozenset(vars(nn.Module()))
# Kinds of objects whose content changes no output.
WITHOUT_EFFECT = (torch.device, PurePath, logging.Logger)


def settings(network: nn.Module, above: tuple[int, ...] = ()) -> list[tuple[str, str, object]]:
    """What a network's own classes keep beside parameters, persistent buffers and layers.

    Examples are a temperature, the label of a conditional network, or a buffer that is not
    persistent. The classes of editbench are left out, since they take such values from their
    weights.

    Args:
        network: any module.
        above: `id` of the objects that contain it, outermost first.

    Returns:
        Name of the module, name of the attribute, and its description, see `describe`; equal for
        equal networks of different processes.
    """
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


def describe(value: object, above: tuple[int, ...]) -> object:
    """A value as text that is equal in every process, which a repr with an address is not.

    Args:
        value: an attribute of a module, or a part of one.
        above: `id` of the objects that contain it.

    Returns:
        Nested lists of text. A function or class is described by its name and what it holds, without
        its source, which is part of the identity of banks and runs already. Of a device, a logger,
        and the path of a file or folder only the kind counts: the place of weights changes no
        output. So it is with an object that has neither attributes nor a repr of its own.
    """
    if isinstance(value, str) and os.sep in value and os.path.exists(value):
        return "path"
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, torch.dtype)):
        return repr(value)
    # An object that contains itself would cause an infinite recursion.
    if id(value) in above:
        return "itself"
    deeper = (*above, id(value))
    if isinstance(value, nn.Module):
        return network_digest(value, *settings(value, deeper))
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype.hasobject:  # its bytes are addresses
            return [array.shape, describe(array.ravel().tolist(), deeper)]
        # Not by its repr, which leaves out the middle of a long array.
        return [array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).hexdigest()]
    if isinstance(value, Tensor):
        return tensors_digest({"": value.to_dense() if value.layout != torch.strided else value})
    if isinstance(value, Mapping):
        return [[describe(key, deeper), describe(part, deeper)] for key, part in value.items()]
    if isinstance(value, (list, tuple, deque)):
        return [describe(part, deeper) for part in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(describe(part, deeper)) for part in value)
    if isinstance(value, functools.partial):
        return [describe(part, deeper) for part in (value.func, value.args, value.keywords)]
    if isinstance(value, ModuleType):
        return value.__name__
    named = value if inspect.isroutine(value) or isinstance(value, type) else type(value)
    # Methods of built-in types have no module.
    name = f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}"
    if isinstance(value, WITHOUT_EFFECT):
        return name
    held = held_values(value)
    if any(held):
        return [name, describe(held, deeper)]
    shown = repr(value)
    # A range or a date shows its content.
    return name if named is value or " at 0x" in shown else [name, shown]


def held_values(value: object) -> list[object] | dict[str, object]:
    """What a function or an object contains besides its source or that of its class.

    Args:
        value: no container, array or network.

    Returns:
        Of a method, the function and the object; of another function, its default values and its
        closure; otherwise the attributes by name.
    """
    if inspect.ismethod(value):
        return [value.__func__, value.__self__]
    if inspect.isfunction(value):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__defaults__, value.__kwdefaults__, cells]
    # What a class or a module contains is in its source.
    if isinstance(value, (type, ModuleType)):
        return {}
    found = dict(getattr(value, "__dict__", {}))
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if not slot.startswith("__") and hasattr(value, slot):
                found[slot] = getattr(value, slot)
    return found
