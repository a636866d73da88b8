"""The host and the device: copies between them, and what memory is free on either."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from editbench.base.compute_options import is_gpu

# Where a container's limit of memory stands: version 2 of cgroups, then version 1.
MEMORY_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def device_kind(device: str | torch.device) -> str:
    """What computes: 'cpu', or the model of a GPU. Kinds may differ in the last digits."""
    return torch.cuda.get_device_name(device) if is_gpu(device) else "cpu"


# -- copies ----------------------------------------------------------------------------------------
def to_host(*tensors: Tensor) -> list[Tensor]:
    """Copies of tensors on the host, for which it waits once.

    A GPU works behind the program. Each `.cpu()` waits until it has caught up, and while the host
    then prepares the next work, the GPU has none; here all copies are on their way before the host
    waits.

    Args:
        tensors: of one device.

    Returns:
        As many tensors; those that are on the host already are returned as they are.
    """
    # torch gives such copies memory that the device can write into by itself.
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    for tensor in tensors:
        if is_gpu(tensor.device):
            torch.cuda.current_stream(tensor.device).synchronize()
            break
    return copies


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device, without waiting for the work that is under way there."""
    return tensor.to(device, non_blocking=True)


# -- memory ----------------------------------------------------------------------------------------
def device_of(network: torch.nn.Module) -> torch.device:
    """Where a network lies; the host, where it has no tensors."""
    tensors = network.state_dict().values()
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def memory() -> int:
    """Bytes of main memory, or what a container may use of it."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in MEMORY_LIMITS:
        try:
            text = Path(name).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if text.isdigit():  # 'max' is no limit
            return min(whole, int(text))
        return whole
    return whole


def free_memory(device: str | torch.device = "cpu") -> int:
    """Bytes of a device that can be had without swapping; 0 where nothing says.

    Args:
        device: 'cpu', 'cuda', 'cuda:1'.
    """
    if is_gpu(device):
        free, _ = torch.cuda.mem_get_info(device)
        # What torch keeps for later tensors of this process is as good as free.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    for line in lines:
        if line.startswith("MemAvailable"):
            return min(int(line.split()[1]) * 1024, memory())  # the file gives KiB
    return 0


def forget_peak(device: str) -> None:
    """Begin to measure the peak of a GPU's memory anew: what came before is another job's.

    On a CPU nothing is forgotten. A process keeps freed memory for its next blocks, so that what a
    job needs there is what its process needed at most.
    """
    if is_gpu(device):
        torch.cuda.reset_peak_memory_stats(device)
