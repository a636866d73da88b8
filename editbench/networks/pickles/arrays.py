"""Builds NumPy arrays and torch tensors from the calls in a pickle.

Only numbers and text of fixed size are supported. BUILDERS has the functions' names, which are
those that versions of NumPy and torch have used in pickles.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from editbench.networks.pickles.refused import Refused

# Byte order, and a code of numbers or of text of up to 10^7 characters.
DTYPE = re.compile(r"([<>|=]*)([?]|b1|[iu][1248]|f[248]|c8|c16|[SU][0-9]{1,7})")
# Of tensors of untyped storages. bool is missing, since its storage is always typed.
TENSOR_DTYPES = {
    f"torch.{name}": getattr(torch, name)
    for name in ("float64", "float32", "float16", "bfloat16", "complex64", "complex128")
    + ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64")
}
MOST_AXES = 64  # of NumPy and torch; multiplying the lengths of a million axes takes minutes
LARGEST = 1 << 40  # maximum bytes of an expanded tensor, and of the sum of an empty array
LAST_CHARACTER = 0x10FFFF  # of Unicode
NOT_DENSE = "a parameter or buffer is sparse or of another unsupported layout; save a dense tensor"


# -- NumPy -----------------------------------------------------------------------------------------
def array(raw: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    """Protocol 5's _frombuffer(raw, dtype, shape, order, axes), in the machine's byte order.

    Args:
        raw: elements, as bytes, or text of Python 2.
        dtype: stand-in of numpy.dtype.
        shape: lengths of the axes.
        order: 'C', 'F' or 'K'; with K, the array has this shape before it is transposed.
        axes: of the transposition, for order K.

    Raises:
        ValueError: the arguments are inconsistent or too large.
        Refused: the dtype is not one of numbers or text.
    """
    if isinstance(raw, str):  # bytes of Python 2
        raw = bytearray(raw, "latin-1")
    kind = as_dtype(dtype)
    check_shape(shape, kind.itemsize)
    values = np.frombuffer(raw, kind) if raw else np.empty(0, kind)
    values = values.astype(kind.newbyteorder("="), copy=False)
    if kind.kind == "b":
        check_booleans(raw)
    if kind.kind == "U" and values.view(np.uint32).max(initial=0) > LAST_CHARACTER:
        raise ValueError("an array of text has bytes that are no characters")
    if order == "K":
        return values.reshape(shape).transpose(axes)
    return values.reshape(shape, order=order)


def reconstruct(cls: Any, shape: Any, code: Any, state: Any) -> np.ndarray:
    """numpy's _reconstruct, followed by __setstate__.

    Args:
        cls: stand-in of the array's class.
        shape: of the empty array that NumPy makes first; not used.
        code: dtype of that array; not used.
        state: (version, shape, dtype, is Fortran order, data), or without the version.

    Raises:
        ValueError: the state is inconsistent or too large.
        Refused: the class or the dtype is not supported.
    """
    if cls.name not in ("numpy.ndarray", "numpy.memmap"):
        raise Refused("an array is not a numpy.ndarray; save it with numpy.asarray")
    shape, dtype, fortran, raw = state[-4:]
    # In Fortran order, the elements are stored in that order.
    return array(raw, dtype, shape, "F" if fortran else "C")


def scalar(dtype: Any, raw: Any) -> np.generic:
    """numpy's scalar(dtype, raw): one number or text.

    Args:
        dtype: stand-in of numpy.dtype.
        raw: its bytes.
    """
    kind = as_dtype(dtype)
    if kind.itemsize == 0:  # empty text, of which NumPy makes no array
        return kind.type()
    return array(raw, dtype, (1,), "C")[0]


def as_dtype(dtype: Any) -> np.dtype:
    """The dtype for a stand-in of numpy.dtype(code, align, copy) with its pickled state."""
    code = dtype.args[0]
    # The byte order is in the state, (version, byte order, ...), or in the code without a state.
    if dtype.state:
        code = dtype.state[1] + code
    found = DTYPE.fullmatch(code)
    if dtype.name != "numpy.dtype" or not found:
        raise Refused(
            f"it holds an array of dtype {code[:40]!a}; only numbers and fixed-size text are read, "
            "so save objects as separate arrays"
        )
    order, kind = found.groups()
    return np.dtype(f"{'>' if '>' in order else '<'}{kind}")


def check_shape(shape: Any, width: int) -> None:
    """Reject wrong lengths, and an empty array whose sum over an axis would be huge.

    Args:
        shape: lengths of the axes, from the file.
        width: bytes of an element.

    Raises:
        ValueError: a length is negative or no integer, or there are too many axes or elements.
    """
    if len(shape) > MOST_AXES:
        raise ValueError(f"an array has {len(shape):,} axes")
    check_integers(shape)
    # The empty dtype of text has width 0, and NumPy makes it 1 character wide.
    expanded = max(width, 1) * math.prod(n or 1 for n in shape)
    if min(shape, default=0) < 0 or expanded > LARGEST:
        raise ValueError("the shape of an array is negative or too large")


def check_integers(values: Any) -> None:
    """Reject NumPy's integers and tensors too, whose sums and products overflow."""
    if any(type(value) is not int for value in values):
        raise ValueError("the shape, strides or offset of an array are no integers")


def check_booleans(raw: Any) -> None:
    # NumPy and torch give wrong results for booleans whose bytes are not 0 or 1.
    if np.frombuffer(raw, np.uint8).max(initial=0) > 1:
        raise ValueError("booleans have other bytes than 0 and 1")


# -- torch -----------------------------------------------------------------------------------------
def storage(dtype: str, data: bytearray) -> Tensor:
    """The elements of tensors, as a 1-D tensor that shares the memory of the data.

    Args:
        dtype: name in torch, such as 'float32'.
        data: bytes of the elements.

    Raises:
        ValueError: booleans have other bytes than 0 and 1.
    """
    if dtype == "bool":
        check_booleans(data)
    kind = getattr(torch, dtype)
    # torch.frombuffer refuses an empty buffer.
    return torch.frombuffer(data, dtype=kind) if data else torch.empty(0, dtype=kind)


def tensor(flat: Tensor, offset: Any, size: Any, stride: Any, *others: Any) -> Tensor:
    """_rebuild_tensor(storage, offset, size, stride), and its version 2 with more arguments.

    Args:
        flat: the storage, a 1-D tensor.
        offset: of the first element.
        size: lengths of the axes.
        stride: steps of the axes, in elements.
        others: requires_grad, backward hooks and metadata.

    Returns:
        A view of the storage.

    Raises:
        ValueError: the arguments are inconsistent, or reach beyond the storage.
        Refused: the tensor is a conjugate or negative view.
    """
    if flat.dim() != 1 or not flat.is_contiguous():
        raise ValueError("a tensor has no storage")
    metadata = others[2] if len(others) > 2 else None
    # The storage of such a view has conjugate or negative values, so the result would be wrong.
    if metadata and (metadata.get("conj") or metadata.get("neg")):
        raise Refused("a tensor is a view; save it after tensor.resolve_conj().resolve_neg()")
    check_shape(size, flat.element_size())
    if len(stride) != len(size):
        raise ValueError("a tensor has strides for other axes")
    check_integers((offset, *stride))
    # An empty tensor reads no element, so its offset need not lie in the storage.
    if 0 in size:
        return torch.empty(size, dtype=flat.dtype)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride))
    if min((offset, *stride)) < 0 or last >= len(flat):
        raise ValueError(f"a tensor reaches beyond the {len(flat):,} elements of its storage")
    # The stride of an axis of size 1 has no meaning, and a huge one would overflow in torch.
    steps = [step if length > 1 else 1 for length, step in zip(size, stride)]
    return flat.as_strided(size, steps, offset)


def tensor_v3(
    flat: Tensor, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *more: Any
) -> Tensor:
    """_rebuild_tensor_v3: a tensor of an untyped storage, and its dtype.

    Args:
        flat: the storage, a 1-D tensor of bytes.
        offset: as of `tensor`, in elements of the dtype; so are the next arguments.
        size: as of `tensor`.
        stride: as of `tensor`.
        grad: requires_grad; not used.
        hooks: not used.
        dtype: stand-in of a torch.dtype.
        more: metadata.

    Raises:
        ValueError: as `tensor`.
        Refused: the dtype is not supported.
    """
    if dtype.name not in TENSOR_DTYPES:
        raise Refused("a tensor's dtype is not supported; save it as a usual one")
    return tensor(flat.view(TENSOR_DTYPES[dtype.name]), offset, size, stride, grad, hooks, *more)


def parameter(value: Tensor, *_: Any) -> Tensor:
    """nn.Parameter and similar classes: the tensor itself."""
    if not isinstance(value, Tensor):
        raise Refused(NOT_DENSE)
    return value


def of_type(function: Any, kind: Any, arguments: Any, *_: Any) -> Tensor:
    """_rebuild_from_type_v2(function, type, args, state), for a class derived from Tensor.

    Args:
        function: stand-in of a function of BUILDERS.
        kind: the class, instead of which a plain tensor is made.
        arguments: tuple of the function's arguments.

    Raises:
        ValueError: the arguments are no tuple.
        Refused: the function is not supported.
    """
    if function.name not in BUILDERS:
        raise Refused(NOT_DENSE)
    if not isinstance(arguments, tuple):  # bytes as arguments would take 8 times their memory
        raise ValueError("the arguments of a tensor are no tuple")
    return BUILDERS[function.name](*arguments)


BUILDERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": tensor,
    "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_tensor_v3": tensor_v3,
    "torch._utils._rebuild_parameter": parameter,
    "torch._utils._rebuild_parameter_with_state": parameter,
    "torch._tensor._rebuild_from_type_v2": of_type,
}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    BUILDERS[f"{_core}.multiarray._reconstruct"] = reconstruct
    BUILDERS[f"{_core}.multiarray.scalar"] = scalar
    BUILDERS[f"{_core}.numeric._frombuffer"] = array
