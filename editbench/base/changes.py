"""Detecting in-place changes of shared tensors."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def change_counts(tensors: Iterable[Tensor | None]) -> list[int]:
    """Number of in-place changes of each tensor; None and inference tensors are left out.

    torch counts the changes of a tensor and of its views for autograd; the count has no public
    name. Changes by NumPy through `tensor.numpy()` are not counted.
    """
    return [
        tensor._version
        for tensor in tensors
        if tensor is not None and not tensor.is_inference()  # they have no such count
    ]
