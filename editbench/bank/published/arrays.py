"""Converts the result of a restricted reader to an array.

The result may be an array, a tensor, or a list of arrays, tensors or numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from editbench.base.errors import BadFile

MOST_AXES = 32  # of an array of NumPy 1
FLOATS = (np.float32, np.float64)


def as_array(value: Any, source: Path | str) -> np.ndarray:
    """Convert a value to an array of real numbers.

    Args:
        value: an array, a tensor, a number, or a list or tuple of these.
        source: file of the value, for messages.

    Returns:
        float32 or float64, of any shape.

    Raises:
        BadFile: the value is of another kind, or has NaN or infinity.
    """
    if isinstance(value, (list, tuple)) and value:
        if not _all_numbers(value):
            return _stack(value, source)
        value = _array_of_numbers(value, source)
    if isinstance(value, Tensor):
        # NumPy has no bfloat16. float16 is widened in the same way.
        if value.is_floating_point() and value.element_size() < 4:
            value = value.float()
        value = value.numpy()
    if isinstance(value, (int, float)):
        value = np.asarray(value)
    # Kinds f, i and u: floats and integers. Booleans, text and objects are no measurements.
    if not isinstance(value, (np.ndarray, np.generic)) or np.asarray(value).dtype.kind not in "fiu":
        raise BadFile(
            f"{source}: contains {_describe_kind(value)}, but an array of real numbers is needed; "
            "save one with numpy.save or pickle"
        )
    array = np.asarray(value)
    if array.dtype not in FLOATS:
        array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise BadFile(f"{source}: contains NaN or infinite values; remove those rows")
    return array


def _all_numbers(values: list | tuple) -> bool:
    """Whether all parts are plain numbers."""
    # By type(), since isinstance counts True as an int.
    return all(type(part) in (int, float) for part in values)


def _array_of_numbers(values: list | tuple, source: Path | str) -> np.ndarray:
    """(n,) float64 array of n plain numbers, made in one call for speed."""
    try:
        return np.array(values, np.float64)
    # A Python integer may be too large for float64.
    except OverflowError as error:
        raise BadFile(
            f"{source}: contains an integer too large for a float; save an array"
        ) from error


def _stack(values: list | tuple, source: Path | str) -> np.ndarray:
    """The parts of a list as arrays along a new first axis."""
    parts = [as_array(part, source) for part in values]
    shape = parts[0].shape
    for part in parts:
        if part.shape != shape:
            raise BadFile(
                f"{source}: a list of arrays of different shapes, such as {shape} and {part.shape}; "
                "save one array"
            )
    # NumPy's own error does not name the file.
    if len(shape) >= MOST_AXES:
        raise BadFile(f"{source}: lists are nested more than {MOST_AXES} deep; save one array")
    return np.stack(parts)


def _describe_kind(value: Any) -> str:
    """What a value is, for a message."""
    # An object that the reader did not build has the name of its class, which comes from the file:
    # it is shortened and escaped to ASCII.
    name = getattr(value, "name", None)
    if isinstance(name, str):
        return f"an object of the class {name[:60]!a}"
    return f"a {type(value).__name__}"
