"""Cache of fitted tensors on the device and in the dtype of a walk."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class Ready:
    """Caches results computed from fitted tensors, such as copies on the device of a walk.

    A copy to the GPU in every step would make the program wait for the GPU in every step. An entry
    is valid only for the tensor it was made from, so another fit does not use it.
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
        """The cached result of `make(source, like)`.

        Args:
            name: key in the cache.
            source: fitted tensor; must not be changed in place.
            like: tensor of the walk; gives dtype and device.
            make: (source, like) -> result.
        """
        kept = self._kept.get(name)
        if kept is not None:
            known, before, result = kept
            same_kind = (before.dtype, before.device) == (like.dtype, like.device)
            if known is source and same_kind:
                return result
        result = make(source, like)
        # An empty tensor keeps dtype and device without holding memory.
        self._kept[name] = (source, like.new_empty(0), result)
        return result
