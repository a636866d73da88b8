"""How many samples a network takes at once: what the memory holds, halved where it ends after all.

A result depends on the size of a batch by rounding alone. Sizes that are `auto` are asked of the
memory that is free and of what one sample needs.
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

# Most samples that a size of `auto` takes: more are no faster, on a CPU far earlier than on a GPU.
MOST_ON_CPU = 64
MOST_ON_GPU = 256
# Share of the free memory that a batch may take. On a CPU nobody refuses a batch that is too large:
# the system ends the process instead.
SHARE_ON_CPU = 0.25
SHARE_ON_GPU = 0.7
# Convolutions have workspaces that no tensor shows.
WORKSPACE = 1.5
# What torch says where there is no more memory. It has a type of its own for a GPU alone, which the
# interpreter of TorchScript does not pass on.
MESSAGES = ("not enough memory", "can't allocate memory", "out of memory")

T = TypeVar("T")


class Counted(Protocol):
    """What counts the samples that it decodes: a generator."""

    decoded: int


class Batches:
    """Runs work in parts of a size, which shrinks where the memory ends.

    Args:
        size: samples at once, at first.
        what: of which, for the notice.
        counted: counts samples; those of a part that failed are not counted twice.
    """

    def __init__(self, size: int, what: str, counted: Counted | None = None) -> None:
        self.size = size
        self.what = what
        self.counted = counted

    def run(self, count: int, work: Callable[[slice], T]) -> list[T]:
        """What `work` gives for each part of `count` samples, in their order.

        Args:
            count: of the samples.
            work: rows -> result. It may leave nothing behind where it fails.

        Raises:
            torch.OutOfMemoryError: one sample alone is too much.
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
            # Only here the error is gone, and with it the tensors of the part that failed.
            if self.counted is not None:
                self.counted.decoded = before
            self.size = halve_batch(rows.stop - first, self.what)
        return found


def halve_batch(size: int, what: str) -> int:
    """Half of a size that was too much; says so, and gives the device's memory back.

    Args:
        size: of a batch.
        what: of which, for the notice.
    """
    smaller = max(1, size // 2)
    print_message(f"{what}: {size} samples at once are too much for the memory; on with {smaller}")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return smaller


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the host, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    return isinstance(error, RuntimeError) and any(text in message for text in MESSAGES)


# -- how many fit ----------------------------------------------------------------------------------
def fitting_batch(
    one: Callable[[], object],
    device: str,
    most: int = 0,
    workers: int = 1,
    counted: Counted | None = None,
) -> int:
    """The largest power of two of samples that the free memory holds.

    Args:
        one: passes one sample through the networks.
        device: where they run.
        most: at most so many; 0: as many as are of use on this kind of device.
        workers: processes that share the memory.
        counted: counts samples; the one of the trial is no cost of anybody.
    """
    gpu = is_gpu(device)
    most = most or (MOST_ON_GPU if gpu else MOST_ON_CPU)
    before = counted.decoded if counted is not None else 0
    try:
        need = WORKSPACE * peak_bytes(one)
    except Exception:
        # A network of one fixed batch size takes no single sample; what is wrong shows in the job.
        need = 0.0
    if counted is not None:
        counted.decoded = before
    free = free_memory(device)
    # Nothing says what is free, as on macOS: a batch is halved only where memory has ended.
    if free == 0:
        return most
    room = free * (SHARE_ON_GPU if gpu else SHARE_ON_CPU) / workers
    size = 1
    while 2 * size <= most and 2 * size * need <= room:
        size *= 2
    # `most` itself, where it is no power of two.
    return most if most * need <= room else size


def peak_bytes(work: Callable[[], object]) -> int:
    """Most bytes of new tensors that are alive at once while `work` runs, on whatever device."""
    with _Alive() as alive:
        result = work()
    del result
    return alive.most


class _Alive(TorchDispatchMode):
    """Adds up the memory of the tensors that are made, and takes off what is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.most = 0
        self._seen: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keeps torch from importing its compiler, which takes two seconds of every process."""
        return False

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        # A view, or what was changed in place, has the memory of a tensor that is known already.
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
