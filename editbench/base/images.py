"""Images as bytes."""

from __future__ import annotations

from torch import Tensor


def to_bytes(image: Tensor) -> Tensor:
    """Convert images from floating point to bytes, on the device where they are.

    Args:
        image: any shape, in [-1, 1]; values outside are clamped.

    Returns:
        uint8 of the same shape in 0..255.
    """
    # The conversion to bytes truncates. Without rounding, the image would be half a level darker.
    return ((image.clamp(-1, 1) + 1) * 127.5).round().byte()


def to_host_bytes(image: Tensor) -> Tensor:
    """Convert images to bytes on the CPU, in contiguous memory, as files store them."""
    return to_bytes(image).cpu().contiguous()
