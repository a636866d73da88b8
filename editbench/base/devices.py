"""Devices: their names, copies between host and device, and memory."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from editbench.base.compute_options import is_gpu

# Files with a container's memory limit: of cgroups version 2, then version 1.
MEMORY_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def device_kind(device: str | torch.device) -> str:
    """'cpu', or the model of a GPU. Results of different kinds may differ in the last digits."""
    return torch.cuda.get_device_name(device) if is_gpu(device) else "cpu"


def device_of(network: torch.nn.Module) -> torch.device:
    """The device of a network; the host if it has no tensors."""
    tensors = network.state_dict().values()
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


# -- copies ----------------------------------------------------------------------------------------
def to_host(*tensors: Tensor) -> list[Tensor]:
    """Copy tensors to the host and wait only once.

    A GPU works asynchronously. Each `.cpu()` waits until the GPU has finished, and the GPU is then
    idle while the host prepares more work. Here all copies are started before the host waits.

    Args:
        tensors: all on one device.

    Returns:
        The copies; tensors that are already on the host are returned unchanged.
    """
    # torch allocates pinned memory for such copies, into which the device can write directly.
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    for tensor in tensors:
        if is_gpu(tensor.device):
            torch.cuda.current_stream(tensor.device).synchronize()
            break
    return copies


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the host to a device without waiting for the device's pending work.

    Args:
        tensor: on the host.
        device: that the copy is on; if it is the host, the tensor itself is returned.
    """
    return tensor.to(device, non_blocking=True)


# -- memory ----------------------------------------------------------------------------------------
def main_memory() -> int:
    """Bytes of main memory, or the limit of a container."""
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
    """Bytes of a device's memory available without swapping; 0 if unknown.

    Args:
        device: 'cpu', 'cuda', 'cuda:1'.
    """
    if is_gpu(device):
        free, _ = torch.cuda.mem_get_info(device)
        # Memory that torch has reserved for later tensors of this process counts as free.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    for line in lines:
        if line.startswith("MemAvailable"):
            return min(int(line.split()[1]) * 1024, main_memory())  # the file gives KiB
    return 0


def forget_peak(device: str) -> None:
    """Reset the peak of a GPU's memory, since what came before belongs to another job.

    On a CPU nothing is reset. A process keeps freed memory for later allocations, so the memory
    that a job needs is the peak of its process.
    """
    if is_gpu(device):
        torch.cuda.reset_peak_memory_stats(device)
