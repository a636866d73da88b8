"""Tensors that are computed once from the frozen weights of a network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class FromFrozen:
    """A tensor that is computed from a weight, and kept as long as the weight stays the same.

    Args:
        compute: weight -> the tensor.
    """

    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        self._compute = compute
        # The weight, its memory, its state, and the tensor.
        self._kept: tuple[Tensor, torch.UntypedStorage, tuple[int, int], Tensor] | None = None

    def of(self, weight: Tensor) -> Tensor:
        """The tensor for this weight, which is kept if the weight `is_frozen`."""
        if not is_frozen(weight):
            return self._compute(weight)
        # Training and loading increment the version. Moving a network gives the parameter other
        # memory, at another address, since the old memory is held here.
        state = (weight.data_ptr(), weight._version)
        if self._kept is None or self._kept[0] is not weight or self._kept[2] != state:
            # Not an inference tensor, since later calls may need gradients.
            with torch.inference_mode(False):
                tensor = self._compute(weight)
            self._kept = (weight, weight.untyped_storage(), state, tensor)
        return self._kept[3]


def is_frozen(weight: Tensor) -> bool:
    """Whether this is the frozen parameter of a network: edited weights are not parameters."""
    if not isinstance(weight, nn.Parameter) or weight.requires_grad or weight.is_inference():
        return False
    # A compiled or exported graph must contain how it is computed, and a captured CUDA graph must
    # compute it at each replay, where the version does not change.
    if torch.compiler.is_compiling():
        return False
    return not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())
