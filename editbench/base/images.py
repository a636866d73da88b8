"""Images as bytes."""

from __future__ import annotations

from torch import Tensor


def to_uint8(image: Tensor) -> Tensor:
    """Convert images from floating point to bytes.

    Args:
        image: any shape, in [-1, 1]; values outside are clamped.

    Returns:
        uint8 of the same shape in 0..255, on the CPU, row by row in memory as files hold it.
    """
    # Rounding, not truncation: a conversion to bytes alone would darken the image by half a level.
    return ((image.clamp(-1, 1) + 1) * 127.5).round().byte().cpu().contiguous()
