"""Builds NumPy arrays and torch tensors from the arguments of the pickled calls.

Only numbers and text of fixed size are supported, and every size is checked against the available
bytes. The names of functions are those that versions of numpy and torch have used in pickles.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from editbench.networks.pickles import unpickle
from editbench.networks.pickles.unpickle import Global, Opaque, Refused, Storage, damaged

# Numbers, and text of up to 10^7 characters.
DTYPE = re.compile(r"([<>|=]?)([?]|b1|[iu][1248]|f[248]|c8|c16|[SU][0-9]{1,7})")
# Dtypes of tensors on untyped storages. bool is missing, since its storage is always typed.
TENSOR_DTYPES = {f"torch.{name}" for name, _ in unpickle.STORAGES.values() if name != "bool"}
TENSOR_DTYPES |= {"torch.uint16", "torch.uint32", "torch.uint64"}
MOST_AXES = 32  # limit of NumPy 1; torch allows 64, which data do not need
LARGEST_EMPTY = 1 << 24  # maximum elements along the other axes of an empty array
LARGEST = 1 << 48  # maximum elements of an expanded tensor; torch allows more
LAST_CHARACTER = 0x10FFFF  # of Unicode
CHUNK = 1 << 20  # bytes


# -- common to both --------------------------------------------------------------------------------
def as_lengths(lengths: Any) -> tuple[int, ...]:
    """Check a shape, strides or an order of axes."""
    good = isinstance(lengths, (tuple, list)) and len(lengths) <= MOST_AXES
    if not good or any(type(length) is not int or not 0 <= length < 1 << 62 for length in lengths):
        raise damaged(f"a shape has other lengths than up to {MOST_AXES} integers from 0 on")
    return tuple(lengths)


def as_shape(lengths: Any) -> tuple[int, ...]:
    """Check a shape; the sizes of its reductions are limited too."""
    shape = as_lengths(lengths)
    most = LARGEST_EMPTY if 0 in shape else LARGEST
    if math.prod(length or 1 for length in shape) > most:
        raise damaged(f"an array has too many elements, or is an empty one of shape {shape[:8]}")
    return shape


# -- NumPy ----------------------------------------------------------------------------------------
def as_dtype(value: Any) -> np.dtype:
    """The dtype for a stand-in of numpy.dtype(code, align, copy) with its pickled state."""
    if not isinstance(value, Opaque) or value.name != "numpy.dtype" or not value.args:
        raise damaged("an array's dtype is not numpy.dtype(...)")
    code = value.args[0]
    if not isinstance(code, str):
        code = type(code).__name__
    found = DTYPE.fullmatch(code)
    if not found:
        raise Refused(
            f"it holds an array of dtype {code[:40]!a}; only numbers and fixed-size text are read, "
            "so save objects as separate arrays"
        )
    order, kind = found.groups()
    # The byte order is in the state, or in the code if there is no state.
    if isinstance(value.state, tuple) and len(value.state) > 1:
        order = value.state[1]
    return np.dtype(f"{order}{kind}" if order in ("<", ">") else kind)


def from_buffer(raw: Any, dtype: Any, lengths: Any, order: Any, *axes: Any) -> np.ndarray:
    """Protocol 5's _frombuffer(raw, dtype, shape, order, axes), in the machine's byte order.

    With order K, the array has this shape before it is transposed by `axes`.
    """
    shape = as_shape(lengths)
    kind = as_dtype(dtype)
    number = math.prod(shape)
    if isinstance(raw, str):  # bytes of Python 2
        raw = raw.encode("latin-1")
    if not isinstance(raw, (bytes, bytearray)):
        raise damaged("an array's data are not bytes")
    if len(raw) != number * kind.itemsize or not kind.itemsize:
        raise damaged(f"an array of {number:,} x {kind.itemsize} bytes comes with {len(raw):,}")
    # astype copies, since the raw data may be shared or read-only.
    values = np.frombuffer(raw, kind) if raw else np.empty(0, kind)
    values = values.astype(kind.newbyteorder("="))
    if kind.kind == "b" and values.view(np.uint8).max(initial=0) > 1:
        raise damaged("an array of booleans has other bytes than 0 and 1")
    if kind.kind == "U" and values.view(np.uint32).max(initial=0) > LAST_CHARACTER:
        raise damaged("an array of text has bytes that are no characters")
    if order == "K":
        return values.reshape(shape).transpose(as_lengths(axes[0]))
    return values.reshape(shape, order=order)


def reconstruct(of: Any, *others: Any) -> np.ndarray:
    """numpy's _reconstruct, whose state is (version, shape, dtype, is Fortran order, data)."""
    if not isinstance(of, Global) or of.name not in ("numpy.ndarray", "numpy.memmap"):
        raise Refused("an array is not a numpy.ndarray; save it with numpy.asarray")
    *_, lengths, dtype, fortran, raw = others[-1]
    # In Fortran order, the elements are stored in that order.
    return from_buffer(raw, dtype, lengths, "F" if fortran else "C")


def scalar(dtype: Any, raw: Any) -> np.generic:
    return from_buffer(raw, dtype, (1,), "C")[0]


# -- torch ----------------------------------------------------------------------------------------
def read_storage(storage: Storage) -> None:
    """Read the elements of a storage from its stream."""
    raw = bytearray(storage.size)
    left = memoryview(raw)
    stream = storage.open()
    # In chunks, since reading a member of a zip file makes a copy.
    while left:
        number = stream.readinto(left[:CHUNK])
        if not number:
            raise EOFError
        left = left[number:]
    del storage.open  # releases the archive
    dtype = getattr(torch, storage.dtype)
    storage.flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
    # PyTorch gives wrong results for booleans whose bytes are not 0 or 1.
    if dtype == torch.bool and raw and storage.flat.view(torch.uint8).max() > 1:
        raise damaged("a tensor of booleans has other bytes than 0 and 1")


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *others: Any) -> Tensor:
    """_rebuild_tensor(storage, offset, size, stride), and its version 2 with more arguments."""
    if not isinstance(storage, Storage):
        raise damaged("a tensor has no storage")
    # The arguments after the strides are requires_grad, backward hooks, metadata.
    return view_elements(storage.flat, offset, size, stride, *others[2:])


def rebuild_tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *more: Any
) -> Tensor:
    """A tensor from an untyped storage and a dtype given by name."""
    if not isinstance(storage, Storage) or storage.flat.dtype != torch.uint8:
        raise damaged("a tensor has no storage of bytes")
    if not isinstance(dtype, Global) or dtype.name not in TENSOR_DTYPES:
        raise Refused("a tensor's dtype is not supported; save it as a usual one")
    # A view, so that tensors of one storage share memory. torch raises an error if the bytes are
    # not a whole number of elements.
    flat = storage.flat.view(getattr(torch, dtype.name.removeprefix("torch.")))
    return view_elements(flat, offset, size, stride, *more)


def view_elements(
    flat: Tensor, offset: Any, size: Any, stride: Any, metadata: Any = None, *others: Any
) -> Tensor:
    """The tensor of `size` and `stride` from element `offset` on of the 1-D tensor `flat`."""
    # The storage of such a tensor has conjugate or negative values, so the result would be wrong.
    if isinstance(metadata, dict) and (metadata.get("conj") or metadata.get("neg")):
        raise Refused("a tensor is a view; save it after tensor.resolve_conj().resolve_neg()")
    shape = as_shape(size)
    if 0 in shape:
        return torch.empty(shape, dtype=flat.dtype)
    steps = as_lengths(stride)
    (first,) = as_lengths((offset,))
    last = first + sum((length - 1) * step for length, step in zip(shape, steps))
    if len(shape) != len(steps) or last >= len(flat):
        raise damaged(
            f"a tensor of shape {shape[:8]} reaches beyond the {len(flat):,} elements of its storage"
        )
    # The stride of an axis of size 1 has no meaning, and a huge one would overflow in torch.
    steps = tuple(step if length > 1 else 1 for length, step in zip(shape, steps))
    return flat.as_strided(shape, steps, first)


def parameter(tensor: Any, *_: Any) -> Tensor:
    """nn.Parameter and similar classes: the tensor itself."""
    if not isinstance(tensor, Tensor):
        raise damaged("a parameter holds no tensor")
    return tensor


def of_type(function: Any, kind: Any, arguments: Any, *_: Any) -> Tensor:
    """_rebuild_from_type_v2(function, type, args, state), for a class derived from Tensor."""
    if not isinstance(function, Global) or function.name not in TENSORS:
        raise Refused("a tensor of an unknown kind; save its plain data")
    return TENSORS[function.name](*arguments)


TENSORS: dict[str, Callable[..., Tensor]] = {
    "torch._utils._rebuild_tensor": rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": parameter,
    "torch._utils._rebuild_parameter_with_state": parameter,
}
REBUILT: dict[str, Callable[..., Any]] = {
    **TENSORS,
    "torch._tensor._rebuild_from_type_v2": of_type,
}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    REBUILT[f"{_core}.multiarray._reconstruct"] = reconstruct
    REBUILT[f"{_core}.multiarray.scalar"] = scalar
    REBUILT[f"{_core}.numeric._frombuffer"] = from_buffer
