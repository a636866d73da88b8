"""Batch sizes: chosen by the free memory, and halved if the memory is still exhausted.

A batch size changes a result only by rounding. A size of `auto` is computed from the free memory
and the memory that one sample needs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from editbench.base.compute_options import is_gpu
from editbench.base.devices import free_memory
from editbench.base.progress import print_message

# Upper limits of a size of `auto`. Larger batches are not faster.
MOST_ON_CPU = 64
MOST_ON_GPU = 256
# Share of the free memory that a batch may use. It is smaller on a CPU, where a batch that is too
# large raises no error: the system kills the process.
SHARE_ON_CPU = 0.25
SHARE_ON_GPU = 0.7
# Factor for the workspaces of convolutions, which are not tensors.
WORKSPACE = 1.5
# Parts of torch's messages for exhausted memory. Only GPUs have an exception type of their own, and
# TorchScript does not preserve it.
MESSAGES = ("not enough memory", "can't allocate memory", "out of memory")

T = TypeVar("T")


class Counted(Protocol):
    """An object that counts the samples that it decodes: a generator."""

    decoded: int


class Batches:
    """Runs work in batches, whose size is halved when the memory is exhausted.

    Args:
        size: initial number of samples per batch.
        what: name of the work, for the notice.
        counted: generator that counts samples; those of a failed batch are not counted twice.
    """

    def __init__(self, size: int, what: str, counted: Counted | None = None) -> None:
        self.size = size
        self.what = what
        self.counted = counted

    def run(self, count: int, work: Callable[[slice], T]) -> list[T]:
        """The results of `work` for all batches, in order.

        Args:
            count: total number of samples.
            work: rows -> result. It must have no side effects if it fails.

        Raises:
            torch.OutOfMemoryError: even a single sample does not fit.
        """
        found: list[T] = []
        first = 0
        while first < count:
            rows = slice(first, min(first + self.size, count))
            before = self.counted.decoded if self.counted is not None else 0
            try:
                found.append(work(rows))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or rows.stop - first == 1:
                    raise
            else:
                first = rows.stop
                continue
            # Outside the `except` block, so that the error no longer keeps the tensors alive.
            if self.counted is not None:
                self.counted.decoded = before
            self.size = halve_batch(rows.stop - first, self.what)
        return found


def halve_batch(size: int, what: str) -> int:
    """Half of a batch size that was too large. Prints a notice and frees the device's cache.

    Args:
        size: of the batch.
        what: name of the work, for the notice.
    """
    smaller = max(1, size // 2)
    print_message(f"{what}: {size} samples at once are too much for the memory; on with {smaller}")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return smaller


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device or the host has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    return isinstance(error, RuntimeError) and any(text in message for text in MESSAGES)


# -- batch size by free memory ---------------------------------------------------------------------
def fitting_batch(
    one: Callable[[], object],
    device: str,
    most: int = 0,
    workers: int = 1,
    counted: Counted | None = None,
) -> int:
    """The largest batch size, a power of two or `most`, that fits into the free memory.

    Args:
        one: passes one sample through the networks.
        device: of the networks.
        most: upper limit; 0 for the default of this kind of device.
        workers: number of processes that share the memory.
        counted: generator that counts samples; the trial sample is not counted.

    Returns:
        `most` if the free memory is unknown, as on macOS.
    """
    gpu = is_gpu(device)
    most = most or (MOST_ON_GPU if gpu else MOST_ON_CPU)
    before = counted.decoded if counted is not None else 0
    try:
        # In its first pass a network may keep tensors that do not grow with the batch, such as
        # transformed kernels. They are no part of what a sample needs.
        one()
        need = WORKSPACE * peak_bytes(one)
    except Exception:
        # A network with a fixed batch size rejects a single sample. The job reports any error.
        need = 0.0
    if counted is not None:
        counted.decoded = before
    free = free_memory(device)
    # Unknown free memory: the batch is halved only when the memory is exhausted.
    if free == 0:
        return most
    room = free * (SHARE_ON_GPU if gpu else SHARE_ON_CPU) / workers
    size = 1
    while 2 * size <= most and 2 * size * need <= room:
        size *= 2
    # `most` need not be a power of two.
    return most if most * need <= room else size


def peak_bytes(work: Callable[[], object]) -> int:
    """Peak memory in bytes of the tensors that `work` creates, on any device."""
    with _Alive() as alive:
        result = work()
    del result
    return alive.most


class _Alive(TorchDispatchMode):
    """Tracks the memory of new tensors: added when they are created, subtracted when freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.most = 0
        self._seen: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keeps torch from importing its compiler, which would take two seconds per process."""
        return False

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        # The result of a view or an in-place operation shares the memory of its input.
        old = {
            id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)
        }
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage(), old)
        return out

    def _add(self, storage: torch.UntypedStorage, old: set[int]) -> None:
        key = id(storage)
        if key in self._seen or key in old:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size
