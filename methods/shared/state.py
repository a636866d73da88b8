"""Groups and text in an editor's state, which is a flat mapping of tensors.

The name of a group is the prefix of its keys. Text is stored as a tensor of bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from editbench.networks.weights import group as group  # reads what `prefixed` wrote


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one group under the keys PREFIX.NAME."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def text_to_tensor(text: str) -> Tensor:
    """The UTF-8 bytes of a text: (n,) uint8."""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def tensor_to_text(tensor: Tensor) -> str:
    """Restore what `text_to_tensor` made."""
    return bytes(tensor.tolist()).decode()
