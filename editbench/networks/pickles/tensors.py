"""PyTorch tensors out of pickles: views of storages, each checked to lie within the bytes that are there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from editbench.networks.pickles.arrays import as_shape, check_empty
from editbench.networks.pickles.limits import Budget, Refused
from editbench.networks.pickles.opaque import Global, Opaque

STORAGES = {
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
DTYPES = {str(dtype): dtype for dtype in STORAGES.values() if dtype != torch.bool} | {
    f"torch.uint{n}": getattr(torch, f"uint{n}") for n in (16, 32, 64)
}  # of tensors on untyped storages
MOST_AXES = 64


@dataclass(eq=False, repr=False, slots=True)
class Storage(Opaque):
    """`numel` elements from `first` on of the 1-D tensor `flat`; an Opaque for who meets one in a result."""

    flat: Tensor = field(default_factory=lambda: torch.empty(0))
    first: int = 0
    numel: int = 0


def storage_dtype(kind: Any) -> torch.dtype:
    name = kind.name if isinstance(kind, Global) else ""
    owner, _, last = name.rpartition(".")
    if owner not in ("torch", "torch.cuda", "torch.storage") or last not in STORAGES:
        raise Refused(
            f"a tensor's storage is of the kind {name[:60]!a}, which is not read; save it as a dense tensor"
        )
    return STORAGES[last]


def whole(name: str, flat: Tensor) -> Storage:
    return Storage(name, flat=flat, numel=len(flat))


def check_booleans(flat: Tensor) -> None:
    if flat.dtype == torch.bool and len(flat) and int(flat.view(torch.uint8).max()) > 1:
        raise Refused("a tensor of booleans has other bytes than 0 and 1; the file is damaged")


def rebuild(
    budget: Budget,
    storage: Any = None,
    offset: Any = 0,
    size: Any = (),
    stride: Any = (),
    grad: Any = False,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    """The tensor of `size` and `stride` from element `offset` of a storage on; every element lies within it."""
    check_metadata(metadata)
    return _view(budget, storage, offset, size, stride)


def check_metadata(metadata: Any) -> None:
    """Refuse a tensor whose storage holds its conjugate or its negative: the storage's own values would be wrong."""
    if isinstance(metadata, dict) and (metadata.get("conj") or metadata.get("neg")):
        raise Refused(
            "a tensor is a conjugate or negative view; save it after tensor.resolve_conj().resolve_neg()"
        )


def rebuild_v3(
    budget: Budget,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> Tensor:
    """As `rebuild`, of an untyped storage and a dtype given by name."""
    check_metadata(metadata)
    name = dtype.name if isinstance(dtype, Global) else ""
    if name not in DTYPES or not isinstance(storage, Storage):
        raise Refused(
            f"a tensor's dtype is {name[:40]!a}, which is not read; save it as a usual one"
        )
    width = DTYPES[name].itemsize
    if storage.flat.dtype != torch.uint8 or storage.numel % width or storage.first % width:
        raise Refused("a tensor's bytes are not a whole number of elements; the file is damaged")
    # the same memory, as the storages of older archives are filled only afterwards
    typed = storage.flat[storage.first : storage.first + storage.numel].view(DTYPES[name])
    return _view(budget, whole(name, typed), offset, size, stride)


def _view(budget: Budget, storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise Refused("a tensor has no storage; the file is damaged or not to be trusted")
    lengths, steps = as_shape(size, MOST_AXES), as_shape(stride, MOST_AXES)
    (first,) = as_shape((offset,))
    if len(lengths) != len(steps):
        raise Refused(
            f"a tensor of {len(lengths)} axes has {len(steps)} strides; the file is damaged"
        )
    number = math.prod(lengths)
    last = first + sum((n - 1) * step for n, step in zip(lengths, steps))
    if number and last >= storage.numel:
        raise Refused(
            f"a tensor of shape {lengths} reaches element {last:,} of a storage of {storage.numel:,}; "
            "the file is damaged or not to be trusted"
        )
    budget.take(
        number * storage.flat.element_size() + 512
    )  # as if contiguous: a stride of 0 costs who copies it
    if not number:
        check_empty(lengths)
        return torch.empty(lengths, dtype=storage.flat.dtype)
    steps = tuple(step if n > 1 else 1 for n, step in zip(lengths, steps))
    return storage.flat.as_strided(lengths, steps, storage.first + first)


def parameter(budget: Budget, data: Any = None, *others: Any) -> Tensor:
    """nn.Parameter and its kin: the tensor itself."""
    if not isinstance(data, Tensor):
        raise Refused("a parameter holds no tensor; the file is damaged")
    return data


def of_type(
    budget: Budget, function: Any = None, cls: Any = None, args: Any = (), state: Any = None
) -> Any:
    """A tensor of a class derived from Tensor: as the plain tensor that it is made of."""
    if (
        not isinstance(function, Global)
        or function.name not in REBUILT
        or not isinstance(args, tuple)
    ):
        raise Refused("a tensor of an unknown kind; save its plain data")
    return REBUILT[function.name](budget, *args)


REBUILT: dict[str, Callable[..., Tensor]] = {
    "torch._utils._rebuild_tensor": rebuild,
    "torch._utils._rebuild_tensor_v2": rebuild,
    "torch._utils._rebuild_tensor_v3": rebuild_v3,
    "torch._utils._rebuild_parameter": parameter,
    "torch._utils._rebuild_parameter_with_state": parameter,
}
