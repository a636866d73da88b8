"""The nn.Modules in the content of a pickle: their attributes, submodules and tensors.

A module is pickled with its class by name, or by NVlabs' torch_utils.persistence with the source
code of its class, which is ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from editbench.networks.pickles.reader import Opaque

# NVlabs' decorator pickles the source code of the class with its state.
PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"


def module_state(value: Any) -> dict[str, Any] | None:
    """The attributes of a pickled nn.Module, persistent or plain; None if it is something else."""
    if not isinstance(value, Opaque):
        return None
    state = value.state
    if value.name == PERSISTENT and value.args and isinstance(value.args[0], dict):
        state = value.args[0].get("state")
    if isinstance(state, dict) and isinstance(state.get("_modules"), dict):
        return state
    return None


def class_name(value: Opaque) -> str:
    """The name of an object's class, without its module."""
    if value.name == PERSISTENT and value.args and isinstance(value.args[0], dict):
        return str(value.args[0].get("class_name"))
    return value.name.rpartition(".")[2]


def walk_modules(value: Any, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a pickled module and all its submodules, parents first.

    Args:
        value: of a pickle; nothing is yielded unless it is a module.
        prefix: dotted name of the module with a final dot; '' for the outermost.

    Yields:
        (dotted name with a final dot, attributes).
    """
    state = module_state(value)
    if state is not None:
        yield prefix, state
        for name, child in state["_modules"].items():
            yield from walk_modules(child, f"{prefix}{name}.")


def module_tensors(value: Any) -> dict[str, Tensor]:
    """The state dict of a pickled module."""
    found = {}
    for prefix, state in walk_modules(value):
        for key in ("_parameters", "_buffers"):
            group = state.get(key)
            for name, item in group.items() if isinstance(group, dict) else ():
                if isinstance(item, Tensor):
                    found[f"{prefix}{name}"] = item
    return found
