"""NumPy arrays and torch tensors from the stand-ins of the calls that would have made them.

Only numbers and text of fixed size are rebuilt, and every size is checked against the bytes that
are there. The names are those that numpy and torch have written over the years.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from editbench.networks.pickles.limits import Refused
from editbench.networks.pickles.standins import Global, Opaque

DTYPE_CODES = {"?", "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"} | {
    "f2",
    "f4",
    "f8",
    "c8",
    "c16",
}
STORAGE_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
# Dtypes of tensors on untyped storages. A boolean is missing: its storage is always typed.
TENSOR_DTYPES = {str(dtype): dtype for dtype in STORAGE_DTYPES.values() if dtype != torch.bool} | {
    f"torch.uint{bits}": getattr(torch, f"uint{bits}") for bits in (16, 32, 64)
}
MOST_AXES = 32  # of NumPy 1; torch has 64, which no data need
LARGEST_EMPTY = 1 << 24  # elements along the other axes of an empty array
LAST_CHARACTER = 0x10FFFF  # of Unicode


@dataclass(eq=False, repr=False, slots=True)
class Storage(Opaque):
    """`numel` elements from `first` on of the 1-D tensor `flat`.

    Inert where one is met in a result.
    """

    flat: Tensor = field(default_factory=lambda: torch.empty(0))
    first: int = 0
    numel: int = 0


# -- what both have in common ---------------------------------------------------------------------
def as_lengths(lengths: Any) -> tuple[int, ...]:
    """A shape, strides or an order of axes."""
    if not isinstance(lengths, (tuple, list)) or len(lengths) > MOST_AXES:
        raise Refused(f"a shape is not a tuple of up to {MOST_AXES} lengths; the file is damaged")
    for length in lengths:
        if type(length) is not int or not 0 <= length < 1 << 62:
            raise Refused("a shape has other lengths than 0, 1, 2, ...; the file is damaged")
    return tuple(lengths)


def check_empty(shape: tuple[int, ...]) -> None:
    """Refuse an empty array whose other axes would make a reduction of it huge."""
    if math.prod(length for length in shape if length) > LARGEST_EMPTY:
        raise Refused(f"an empty array of shape {shape[:8]}; the file is damaged")


def arguments(made: Opaque, least: int, what: str) -> tuple[Any, ...]:
    """The arguments of a call, at least so many."""
    if not isinstance(made.args, tuple) or len(made.args) < least:
        raise Refused(f"{what} is made from too few values; the file is damaged")
    return made.args


# -- NumPy ----------------------------------------------------------------------------------------
def as_dtype(value: Any) -> np.dtype:
    """The dtype that a stand-in for numpy.dtype(code, align, copy) with its pickled state means."""
    if not isinstance(value, Opaque) or value.name != "numpy.dtype" or not value.args:
        raise Refused(
            "an array's dtype is not numpy.dtype(...); the file is damaged or of a kind not read"
        )
    code = value.args[0]
    if isinstance(code, bytes):  # Python 2's text
        code = code.decode("latin-1")
    plain = ""
    if isinstance(code, str):
        plain = code.lstrip("<>|=")
    is_text = plain[:1] in ("S", "U") and plain[1:].isdecimal() and len(plain) <= 8
    if plain not in DTYPE_CODES and not is_text:
        raise Refused(
            f"it holds an array of dtype {str(code)[:40]!a}; only numbers and fixed-size text are "
            "read, so save objects as separate arrays"
        )
    # The byte order stands in the state, or in the code where there is no state.
    order = code[:1]
    if isinstance(value.state, tuple) and len(value.state) > 1:
        order = value.state[1]
    if isinstance(order, bytes):
        order = order.decode("latin-1")
    return np.dtype(plain).newbyteorder(order if order in ("<", ">") else "=")


def as_values(raw: Any, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """All elements of an array, 1-D, in the machine's byte order; the bytes must be as many."""
    if isinstance(raw, str):  # Python 2's bytes
        raw = raw.encode("latin-1")
    if not isinstance(raw, (bytes, bytearray)):
        raise Refused(
            "an array's data are not bytes (an array of objects?); save plain numeric arrays"
        )
    number = math.prod(shape)
    if len(raw) != number * dtype.itemsize or not dtype.itemsize:
        raise Refused(
            f"an array of {number:,} x {dtype.itemsize} bytes comes with {len(raw):,}; the file is "
            "damaged"
        )
    if not number:
        check_empty(shape)
        return np.empty(0, dtype.newbyteorder("="))
    # astype copies, as the raw data can be shared and are not always writeable.
    values = np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="))
    if dtype.kind == "b" and values.view(np.uint8).max() > 1:
        raise Refused("an array of booleans has other bytes than 0 and 1; the file is damaged")
    if dtype.kind == "U" and values.view(np.uint32).max() > LAST_CHARACTER:
        raise Refused("an array of text has bytes that are no characters; the file is damaged")
    return values


def reconstruct(made: Opaque) -> np.ndarray:
    """numpy's _reconstruct, whose state is (version, shape, dtype, is Fortran order, data)."""
    of = None
    if made.args:
        of = made.args[0]
    if not isinstance(of, Global) or of.name not in ("numpy.ndarray", "numpy.memmap"):
        raise Refused(
            "it reconstructs an array of another class than numpy.ndarray; save it with "
            "numpy.asarray"
        )
    state = made.state
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        raise Refused(
            "an array's state is not (version, shape, dtype, order, data); the file is damaged"
        )
    shape = as_lengths(state[-4])
    # Fortran order is a matter of memory; the elements come in that order.
    values = as_values(state[-1], as_dtype(state[-3]), shape)
    return values.reshape(shape, order="F" if state[-2] else "C")


def scalar(made: Opaque) -> np.generic:
    dtype, raw = arguments(made, 2, "a number of NumPy")[:2]
    return as_values(raw, as_dtype(dtype), (1,))[0]


def from_buffer(made: Opaque) -> np.ndarray:
    """Protocol 5's _frombuffer(raw, dtype, shape, order, axes).

    Order K: an array of this shape, then transposed by `axes`.
    """
    raw, dtype, shape, order, *axes = arguments(made, 4, "an array")
    shape = as_lengths(shape)
    if order not in ("C", "F", "K") or (order == "K" and not axes):
        raise Refused("an array's order is none of C, F and K; the file is damaged")
    values = as_values(raw, as_dtype(dtype), shape)
    if order == "K":
        return values.reshape(shape).transpose(as_lengths(axes[0]))
    return values.reshape(shape, order=order)


# -- torch ----------------------------------------------------------------------------------------
def rebuild_storage(name: str, raw: bytearray) -> Storage:
    """A storage of a torch class, from its bytes."""
    dtype = STORAGE_DTYPES[name.rpartition(".")[2]]
    flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
    # PyTorch computes wrongly with booleans of other bytes.
    if dtype == torch.bool and raw and max(raw) > 1:
        raise Refused("a tensor of booleans has other bytes than 0 and 1; the file is damaged")
    return Storage(name, flat=flat, numel=len(flat))


def rebuild_view(base: Storage, first: int, numel: int) -> Storage:
    return Storage(base.name, flat=base.flat, first=base.first + first, numel=numel)


def check_metadata(metadata: Any) -> None:
    """Refuse a tensor whose storage holds its conjugate or negative: values would be wrong."""
    if isinstance(metadata, dict) and (metadata.get("conj") or metadata.get("neg")):
        raise Refused(
            "a tensor is a conjugate or negative view; save it after "
            "tensor.resolve_conj().resolve_neg()"
        )


def rebuild_tensor(made: Opaque) -> Tensor:
    """_rebuild_tensor(storage, offset, size, stride) and its version 2 with more arguments."""
    storage, offset, size, stride, *others = arguments(made, 4, "a tensor")
    # After the strides: requires_grad, backward hooks, metadata.
    check_metadata(others[2] if len(others) > 2 else None)
    return view_storage(storage, offset, size, stride)


def rebuild_tensor_v3(made: Opaque) -> Tensor:
    """Of an untyped storage and a dtype given by name."""
    storage, offset, size, stride, _, _, dtype, *others = arguments(made, 7, "a tensor")
    check_metadata(others[0] if others else None)
    name = ""
    if isinstance(dtype, Global):
        name = dtype.name
    if name not in TENSOR_DTYPES or not isinstance(storage, Storage):
        raise Refused(
            f"a tensor's dtype is {name[:40]!a}, which is not read; save it as a usual one"
        )
    # Offsets of untyped storages count bytes.
    width = TENSOR_DTYPES[name].itemsize
    if storage.flat.dtype != torch.uint8 or storage.numel % width or storage.first % width:
        raise Refused("a tensor's bytes are not a whole number of elements; the file is damaged")
    # A view of the same memory, so that tensors of one storage stay tied.
    flat = storage.flat[storage.first : storage.first + storage.numel].view(TENSOR_DTYPES[name])
    return view_storage(Storage(name, flat=flat, numel=len(flat)), offset, size, stride)


def view_storage(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    """The tensor of `size` and `stride` from element `offset` on.

    Every element lies in the storage.
    """
    if not isinstance(storage, Storage):
        raise Refused("a tensor has no storage; the file is damaged or not to be trusted")
    lengths = as_lengths(size)
    steps = as_lengths(stride)
    (first,) = as_lengths((offset,))
    if len(lengths) != len(steps):
        raise Refused(
            f"a tensor of {len(lengths)} axes has {len(steps)} strides; the file is damaged"
        )
    if not math.prod(lengths):
        check_empty(lengths)
        return torch.empty(lengths, dtype=storage.flat.dtype)
    last = first + sum((length - 1) * step for length, step in zip(lengths, steps))
    if last >= storage.numel:
        raise Refused(
            f"a tensor of shape {lengths} reaches element {last:,} of a storage of "
            f"{storage.numel:,}; the file is damaged or not to be trusted"
        )
    # The stride of an axis of one element has no meaning; a huge one would overflow in torch.
    steps = tuple(step if length > 1 else 1 for length, step in zip(lengths, steps))
    return storage.flat.as_strided(lengths, steps, storage.first + first)


def parameter(made: Opaque) -> Tensor:
    """nn.Parameter and its kin: the tensor itself."""
    tensor = arguments(made, 1, "a parameter")[0]
    if not isinstance(tensor, Tensor):
        raise Refused("a parameter holds no tensor; the file is damaged")
    return tensor


def of_type(made: Opaque) -> Any:
    """_rebuild_from_type_v2(function, type, args, state): of a class derived from Tensor."""
    function, _, args = arguments(made, 3, "a tensor")[:3]
    if not isinstance(function, Global) or function.name not in TENSORS:
        raise Refused("a tensor of an unknown kind; save its plain data")
    return TENSORS[function.name](Opaque(function.name, args))


TENSORS: dict[str, Callable[[Opaque], Tensor]] = {
    "torch._utils._rebuild_tensor": rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": parameter,
    "torch._utils._rebuild_parameter_with_state": parameter,
}
REBUILT: dict[str, Callable[[Opaque], Any]] = {
    **TENSORS,
    "torch._tensor._rebuild_from_type_v2": of_type,
}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    REBUILT[f"{_core}.multiarray._reconstruct"] = reconstruct
    REBUILT[f"{_core}.multiarray.scalar"] = scalar
    REBUILT[f"{_core}.numeric._frombuffer"] = from_buffer
