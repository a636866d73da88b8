"""Groups in an editor's state, which is a flat mapping of tensors: group names prefix the keys."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from editbench.networks.weights import group as group  # reads what `prefixed` wrote


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one group under the keys PREFIX.NAME."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}
