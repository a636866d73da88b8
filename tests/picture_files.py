"""Files of pictures, sound and broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

R = 16


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)  # type: ignore[arg-type]
    return path


def folder(tmp_path: Path, n: int = 12) -> Path:
    for i in range(n):
        save(tmp_path / "in" / f"{i % 3}" / f"{i:02d}.png", noise(9 + i, 20 - i, seed=i))
    return tmp_path / "in"
