"""A pretend GPU: tensors that say `cudax:0`, hold their values on the host, and refuse tensors of the host.

Where a real GPU would raise because tensors are on two devices, it raises too. Every wait of the host for the device is
counted with the line that asked for it: a value that is read, rows chosen by a mask, a copy either way from memory that
is not pinned. Numbers are those of the CPU, to the bit.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.backend_registration as backends
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils._python_dispatch import TorchDispatchMode

from editbench.base import compute_options

ROOT = Path(__file__).parents[1]
NAME = "cudax"  # begins as the names of real GPUs do, so that the branches for them are taken
DEVICE = f"{NAME}:0"
MEMORY = 16 * 2**30  # bytes that are free on it
REGISTER = "_setup_privateuseone_for_python_backend"  # of torch 2.9 and later
needs_pretend_gpu = pytest.mark.skipif(
    not hasattr(backends, REGISTER), reason="this torch has no devices that are written in Python"
)

aten = torch.ops.aten
# The host waits for what these find: a value, or how many rows there are.
READS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten.bincount.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
}
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
COPIES = {aten._to_copy.default, aten.copy_.default}


class Waits:
    """How often the host waited for the device, and why."""

    def __init__(self) -> None:
        self.places: Counter[tuple[str, str]] = Counter()  # (kind, lines of the product) -> times

    def add(self, kind: str) -> None:
        self.places[kind, _where()] += 1

    def clear(self) -> None:
        self.places.clear()

    @property
    def total(self) -> int:
        return sum(self.places.values())

    def __str__(self) -> str:
        return "\n".join(f"{n:6} {kind} {where}" for (kind, where), n in self.places.most_common())


WAITS = Waits()


class OnDevice(torch.Tensor):
    """A tensor of the pretend device; `inner` has its values."""

    inner: Tensor
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        wrapped = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(DEVICE),
        )
        wrapped.inner = inner
        return wrapped

    def tolist(self) -> Any:
        WAITS.add("read tolist")
        return self.inner.tolist()

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Module:
    """What torch asks of `torch.cudax`: one device, whose random numbers are the host's."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        pass


# When this file is imported, which is before any test runs: torch counts the devices at its first
# derivative, and knows no other ones afterwards.
if hasattr(backends, REGISTER):
    getattr(backends, REGISTER)(NAME, backend_module=_Module())


class _NoGrad:
    """In the place of inference mode."""

    def __init__(self, wanted: bool) -> None:
        self.context: Any = torch.no_grad() if wanted else nullcontext()

    def __enter__(self) -> None:
        self.context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.context.__exit__(*error)


class _Stream:
    def synchronize(self) -> None:
        WAITS.add("for the stream")


class _Mode(TorchDispatchMode):
    """Catches what no tensor of the device takes part in: new tensors, and copies to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    flat = [*_leaves(args), *_leaves(tuple(kwargs.values()))]
    ours = [x for x in flat if isinstance(x, OnDevice)]
    hosts = [x for x in flat if isinstance(x, Tensor) and not isinstance(x, OnDevice)]
    # torch.func's own wrappers come back here with what they hold.
    if any(is_functorch_wrapped_tensor(x) for x in hosts):
        return func(*args, **kwargs)
    # Zeros without memory, of forward derivatives: the wrapper would not tell torch that it has none.
    if func is aten._efficientzerotensor.default:
        func = aten.zeros.default
    asked = kwargs.get("device")
    if not ours and (asked is None or torch.device(asked).type != NAME):
        return func(*args, **kwargs)
    to_device = bool(ours) if asked is None else torch.device(asked).type == NAME
    _check(func, args, kwargs, ours, hosts)
    _count(func, args, kwargs, ours, to_device)
    given = dict(kwargs)
    if asked is not None:
        given["device"] = torch.device("cpu")
    # The host's random numbers: the same as on the CPU, so that results can be compared.
    if to_device and isinstance(given.get("generator"), torch.Generator):
        raise RuntimeError(f"{func}: expected a generator of the device, {_where()}")
    plain = {name: _each(_inner, value) for name, value in given.items()}
    out = func(*_each(_inner, args), **plain)
    if not to_device:
        return out
    # In place: the same object comes back, as from torch.
    by_storage = {id(x.inner): x for x in ours}

    def wrap(x: Any) -> Any:
        if not isinstance(x, Tensor) or isinstance(x, OnDevice):
            return x
        return by_storage[id(x)] if id(x) in by_storage else OnDevice(x)

    return _each(wrap, out)


def _check(
    func: Any, args: Any, kwargs: dict[str, Any], ours: list[OnDevice], hosts: list[Tensor]
) -> None:
    """Raise as CUDA does where tensors of both sides meet; numbers (0-d tensors) may."""
    if func in COPIES or not ours or not hosts:
        return
    if func in INDEXING and isinstance(args[0], OnDevice):
        WAITS.add("to device, an index")
        hosts = [x for x in args[2:3] if isinstance(x, Tensor) and not isinstance(x, OnDevice)]
    if any(x.dim() for x in hosts):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, {_where()}")


def _count(
    func: Any, args: Any, kwargs: dict[str, Any], ours: list[OnDevice], to_device: bool
) -> None:
    if func in READS:
        WAITS.add(f"read {func}")
    if func in INDEXING and any(
        isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1]
    ):
        WAITS.add("read, rows of a mask")
    crosses = False
    if func is aten._to_copy.default:
        crosses = bool(ours) != to_device
    elif func is aten.copy_.default:
        to_device = isinstance(args[0], OnDevice)
        crosses = to_device != isinstance(args[1], OnDevice)
    # A copy that nobody waits for; `torch.cuda.current_stream().synchronize()` counts later.
    if crosses and not kwargs.get("non_blocking") and True not in args[2:]:
        WAITS.add("to device" if to_device else "to host")


def _leaves(values: Any) -> Iterator[Any]:
    """What the arguments of an operator hold; torch's own trees take as long as the operators."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        else:
            yield value


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)([_each(function, item) for item in value])
    return function(value)


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, OnDevice) else x


def _where() -> str:
    """The two innermost lines of the product."""
    frame = sys._getframe(1)
    found: list[str] = []
    while frame is not None and len(found) < 2:
        file = frame.f_code.co_filename
        # Frames that began before the device was pretended do not matter: the innermost come first.
        if file.startswith(str(ROOT)) and file != __file__ and "site-packages" not in file:
            found.append(f"{file.removeprefix(str(ROOT))[1:]}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join(found)


@contextmanager
def pretend_gpu() -> Iterator[Waits]:
    """A machine with one GPU, `cudax:0`; yields the waits, from zero.

    Tensors of other tests stay on the CPU: the device is there, and nothing chooses it.
    """
    with pytest.MonkeyPatch.context() as patch:
        # Tensors of inference mode have no version, which a wrapper needs. Below the decorator, which
        # functions have had since they were imported.
        patch.setattr(torch._C, "_InferenceMode", _NoGrad)
        patch.setattr(compute_options, "DEVICE", re.compile(rf"cpu|{NAME}(:0)?"))
        cuda = torch.cuda
        patch.setattr(cuda, "_lazy_init", lambda: None)
        patch.setattr(cuda, "is_available", lambda: True)
        patch.setattr(cuda, "device_count", lambda: 1)
        patch.setattr(cuda, "current_device", lambda: 0)
        patch.setattr(cuda, "get_device_name", lambda *_: "pretend")
        patch.setattr(cuda, "get_device_capability", lambda *_: (9, 0))
        patch.setattr(cuda, "mem_get_info", lambda *_: (MEMORY, MEMORY))
        patch.setattr(cuda, "current_stream", lambda *_: _Stream())
        for name in ("max_memory_allocated", "memory_allocated", "memory_reserved"):
            patch.setattr(cuda, name, lambda *_: 0)
        for name in ("synchronize", "reset_peak_memory_stats", "empty_cache", "set_device"):
            patch.setattr(cuda, name, lambda *_: None)
        # What a job on a GPU switches on for its process.
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        for name in ("deterministic", "benchmark", "allow_tf32"):
            patch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
        torch._C._set_only_lift_cpu_tensors(True)
        WAITS.clear()
        try:
            with _Mode():
                yield WAITS
        finally:
            torch._C._set_only_lift_cpu_tensors(False)
            torch.use_deterministic_algorithms(False)
