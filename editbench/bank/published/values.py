"""Arrays out of what a restricted reader gives: an array, a tensor, or a list of either or of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from editbench.base.errors import BadFile

MOST_AXES = 32


def as_array(value: Any, source: Path | str) -> np.ndarray:
    """Real numbers as float32 or float64, of any shape; BadFile names `source` where there are none, or NaN."""
    if (
        isinstance(value, (list, tuple))
        and value
        and all(type(part) in (int, float) for part in value)
    ):
        try:
            value = np.array(value, np.float64)
        except OverflowError as error:
            raise BadFile(
                f"{source}: holds an integer that no float is as large as; save an array"
            ) from error
    elif isinstance(value, (list, tuple)) and value:
        parts = [as_array(part, source) for part in value]
        if len({part.shape for part in parts}) > 1:
            raise BadFile(
                f"{source}: a list of arrays of different shapes, such as {parts[0].shape} and "
                f"{next(p.shape for p in parts if p.shape != parts[0].shape)}; save one array"
            )
        if parts[0].ndim >= MOST_AXES:
            raise BadFile(f"{source}: lists nested more than {MOST_AXES} deep; save one array")
        return np.stack(parts)
    if isinstance(value, Tensor):
        value = (
            value.float().numpy()
            if value.is_floating_point() and value.element_size() < 4
            else value.numpy()
        )
    if isinstance(value, (int, float)):
        value = np.asarray(value)
    if not isinstance(value, (np.ndarray, np.generic)) or np.asarray(value).dtype.kind not in "fiu":
        raise BadFile(
            f"{source}: holds {_named(value)}, where an array of real numbers is read; save that with "
            "numpy.save or pickle"
        )
    array = np.asarray(value)
    array = array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    if not np.isfinite(array).all():
        raise BadFile(f"{source}: holds NaN or infinite values; remove those rows")
    return array


def _named(value: Any) -> str:
    name = getattr(value, "name", None)
    return (
        f"an object of the class {name[:60]!a}"
        if isinstance(name, str)
        else f"a {type(value).__name__}"
    )
