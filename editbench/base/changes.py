"""Whether tensors that are shared were changed in place."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def change_counts(tensors: Iterable[Tensor | None]) -> list[int]:
    """How often torch has seen each tensor change in place; None and inference tensors are left out.

    torch counts the changes of a tensor and of its views for autograd, and has no public name for
    the count. What NumPy changes through `tensor.numpy()` is not counted.
    """
    return [
        tensor._version
        for tensor in tensors
        if tensor is not None and not tensor.is_inference()  # whose changes nobody counts
    ]
