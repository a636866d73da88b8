"""An editor's state is a flat mapping of tensors; names of groups are prefixes of its keys."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one group under the keys PREFIX.NAME."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def group(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What `prefixed` wrote: the tensors whose keys begin with PREFIX, without that prefix."""
    # With the dot, so that `move` does not take in the keys of `moved`.
    start = f"{prefix}."
    found = {}
    for key, value in state.items():
        if key.startswith(start):
            found[key.removeprefix(start)] = value
    return found
