"""NumPy arrays and scalars out of pickles: plain numbers and fixed-size text, sizes checked before anything is made."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from editbench.networks.pickles.limits import Budget, Refused
from editbench.networks.pickles.opaque import Global, Opaque

CODES = {
    "?",
    "b1",
    *(f"i{n}" for n in (1, 2, 4, 8)),
    *(f"u{n}" for n in (1, 2, 4, 8)),
    "f2",
    "f4",
    "f8",
    "c8",
    "c16",
}
MOST_AXES = 32
LARGEST_EMPTY = 1 << 24


def as_dtype(value: Any) -> np.dtype:
    """The dtype that a stand-in for numpy.dtype(code, align, copy) with its pickled state means."""
    if not isinstance(value, Opaque) or value.name != "numpy.dtype" or not value.args:
        raise Refused(
            "an array's dtype is not numpy.dtype(...); the file is damaged or of a kind not read"
        )
    code = value.args[0]
    if isinstance(code, bytes):
        code = code.decode("latin-1")
    plain = code.lstrip("<>|=") if isinstance(code, str) else ""
    text = plain[:1] in ("S", "U") and plain[1:].isdecimal() and len(plain) <= 8
    if plain not in CODES and not text:
        raise Refused(
            f"it holds an array of dtype {str(code)[:40]!a}; only numbers and fixed-size text are "
            "read, so save objects as separate arrays"
        )
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else code[:1]
    order = order.decode("latin-1") if isinstance(order, bytes) else order
    return np.dtype(plain).newbyteorder(">" if order == ">" else "<" if order == "<" else "=")


def as_shape(shape: Any, most: int = MOST_AXES) -> tuple[int, ...]:
    if (
        not isinstance(shape, (tuple, list))
        or len(shape) > most
        or not all(_is_length(n) for n in shape)
    ):
        raise Refused(
            f"an array's shape is not a tuple of up to {most} lengths; the file is damaged"
        )
    return tuple(shape)


def _is_length(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 1 << 62


def check_empty(shape: tuple[int, ...]) -> None:
    """Refuse an empty array whose other axes would make a reduction of it huge."""
    if math.prod(n for n in shape if n) > LARGEST_EMPTY:
        raise Refused(f"an empty array of shape {shape[:8]}; the file is damaged")


def as_bytes(raw: Any) -> bytes:
    """Raw data; Python 2 wrote it as a string of the same bytes."""
    if isinstance(raw, str):
        return raw.encode("latin-1")
    if not isinstance(raw, (bytes, bytearray)):
        raise Refused(
            "an array's data are not bytes (an array of objects?); save plain numeric arrays"
        )
    return bytes(raw)


def checked(raw: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """All elements of an array of that shape, 1-D, in the machine's byte order; the bytes must be exactly as many."""
    number = math.prod(shape)
    if len(raw) != number * dtype.itemsize or not dtype.itemsize:
        raise Refused(
            f"an array of {number:,} x {dtype.itemsize} bytes comes with {len(raw):,}; the file is damaged"
        )
    if not number:
        check_empty(shape)
        return np.empty(number, dtype.newbyteorder("="))
    values = np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="))
    if dtype.kind == "b" and values.view(np.uint8).max() > 1:
        raise Refused("an array of booleans has other bytes than 0 and 1; the file is damaged")
    if dtype.kind == "U" and values.view(np.uint32).max() > 0x10FFFF:
        raise Refused("an array of text has bytes that are no characters; the file is damaged")
    return values


def reconstruct(budget: Budget, *args: Any) -> np.ndarray:
    """numpy's _reconstruct: an array that waits for its state (`set_state`), whatever the arguments."""
    if (
        not args
        or not isinstance(args[0], Global)
        or args[0].name not in ("numpy.ndarray", "numpy.memmap")
    ):
        raise Refused(
            "it reconstructs an array of another class than numpy.ndarray; save it with numpy.asarray"
        )
    budget.take(256)
    return np.empty(0)


def set_state(budget: Budget, array: np.ndarray, state: Any) -> None:
    """Fill an array from (version, shape, dtype, fortran order, data)."""
    if not isinstance(state, tuple) or len(state) not in (4, 5) or array.size:
        raise Refused(
            "an array's state is not (version, shape, dtype, order, data); the file is damaged"
        )
    shape, dtype, fortran, raw = (
        as_shape(state[-4]),
        as_dtype(state[-3]),
        bool(state[-2]),
        as_bytes(state[-1]),
    )
    budget.take(3 * len(raw))
    values = checked(raw, dtype, shape)
    # NumPy's own setter, on arguments now known to fit together; it keeps the identity that the memo holds
    array.__setstate__((1, shape, values.dtype, fortran, values.tobytes()))  # type: ignore[arg-type]


def scalar(budget: Budget, dtype: Any = None, raw: Any = b"") -> np.generic:
    data = as_bytes(raw)
    budget.take(4 * len(data) + 64)
    return checked(data, as_dtype(dtype), (1,))[0]


def from_buffer(
    budget: Budget,
    raw: Any = b"",
    dtype: Any = None,
    shape: Any = (),
    order: Any = "C",
    axes: Any = None,
) -> np.ndarray:
    """Protocol 5's _frombuffer, its buffer within the stream; order K: of this shape, then transposed by `axes`."""
    if order not in ("C", "F") and not (order == "K" and isinstance(axes, tuple)):
        raise Refused("an array's order is none of C, F and K; the file is damaged")
    data, lengths = as_bytes(raw), as_shape(shape)
    budget.take(2 * len(data) + 256)
    values = checked(data, as_dtype(dtype), lengths)
    if order == "K":
        return values.reshape(lengths).transpose(as_shape(axes))
    return values.reshape(lengths, order=order)
