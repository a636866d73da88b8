"""Settings of a third-party network that change its output, but are in neither its weights nor its
repr. They are part of its digest."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from editbench.networks.external import network_digest
from editbench.networks.weights import tensors_digest

# Attributes that every module has: its mode, and where PyTorch keeps parameters, layers and hooks.
MODULE_KEYS = frozenset(vars(nn.Module()))


def settings(network: nn.Module, above: tuple[int, ...] = ()) -> list[tuple[str, str, object]]:
    """What a network's own classes keep beside parameters, persistent buffers and layers.

    Examples are a temperature, the label of a conditional network, or a buffer that is not
    persistent. The classes of editbench are left out, since they take such values from their
    weights.

    Args:
        network: any module.
        above: `id` of the objects that contain it, outermost first.

    Returns:
        Name of the module, name of the attribute, and its description, see `_described`; equal for
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
        found += [(name, key, _described(values[key], deeper)) for key in sorted(values)]
    return found


def _described(value: object, above: tuple[int, ...]) -> object:
    """A value as text that is equal in every process, which a repr with an address is not.

    Args:
        value: an attribute of a module, or a part of one.
        above: `id` of the objects that contain it.

    Returns:
        Nested lists of text. A function or class is described by its name alone, since its source
        is part of the identity of banks and runs already. So is an object without attributes, such
        as a device, and the path of a file or folder: the place of weights changes no output.
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
    if isinstance(value, np.ndarray):
        # Not by its repr, which leaves out the middle of a long array.
        return [value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, Tensor):
        return tensors_digest({"": value})
    if isinstance(value, Mapping):
        return [[repr(key), _described(part, deeper)] for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return [_described(part, deeper) for part in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(_described(part, deeper)) for part in value)
    if isinstance(value, functools.partial):
        return [_described(part, deeper) for part in (value.func, value.args, value.keywords)]
    named = value if inspect.isroutine(value) or isinstance(value, type) else type(value)
    name = f"{named.__module__}.{named.__qualname__}"
    if named is value:
        return name
    return [name, _described(getattr(value, "__dict__", {}), deeper)]
