"""Copies of fitted tensors on the device and in the dtype of a walk."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class DeviceCopies:
    """Keeps copies of fitted tensors, so that each is made once and not in every step.

    A copy to the GPU in every step would make the program wait for the GPU in every step. A copy is
    valid only for the tensor that it was made from, so another fit does not use it.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Tensor, Tensor, Tensor]] = {}  # name -> source, like, copy

    def get(
        self,
        name: str,
        source: Tensor,
        like: Tensor,
        make: Callable[[Tensor, Tensor], Tensor] = Tensor.to,
    ) -> Tensor:
        """The copy of a tensor; made only if there is none yet.

        Args:
            name: of the copy; each tensor needs its own.
            source: fitted tensor; must not be changed in place.
            like: tensor of the walk; gives dtype and device.
            make: (source, like) -> copy.
        """
        kept = self._kept.get(name)
        if kept is not None:
            known, before, copy = kept
            same_kind = (before.dtype, before.device) == (like.dtype, like.device)
            if known is source and same_kind:
                return copy
        copy = make(source, like)
        # An empty tensor keeps dtype and device without holding memory.
        self._kept[name] = (source, like.new_empty(0), copy)
        return copy
