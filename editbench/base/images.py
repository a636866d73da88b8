"""Pictures as bytes."""

from __future__ import annotations

from torch import Tensor


def to_uint8(image: Tensor) -> Tensor:
    """[-1, 1] -> 0..255."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round().byte().cpu()
