"""Tensors of a fit where a walk needs them, moved there once."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class Ready:
    """Keeps what was made of a fitted tensor for the device and the dtype of a walk.

    A copy to a GPU at every step would make the program wait for the GPU at every step. What is
    kept belongs to the tensor that it was made of: another fit has other tensors.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Tensor, Tensor, Tensor]] = {}  # name -> source, like, result

    def __call__(
        self,
        name: str,
        source: Tensor,
        like: Tensor,
        make: Callable[[Tensor, Tensor], Tensor] = Tensor.to,
    ) -> Tensor:
        """What `make` gives of `source` and `like`.

        Args:
            name: under which it is kept.
            source: fitted; it is never changed in place.
            like: of the walk; its dtype and its device count.
            make: (source, like) -> result.
        """
        kept = self._kept.get(name)
        if kept is not None:
            known, before, result = kept
            same_kind = (before.dtype, before.device) == (like.dtype, like.device)
            if known is source and same_kind:
                return result
        result = make(source, like)
        # An empty tensor says dtype and device as well, and holds no memory.
        self._kept[name] = (source, like.new_empty(0), result)
        return result
