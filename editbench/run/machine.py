"""What a machine can do: its devices, and the kinds of numbers that they compute with, tried and timed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
LOOSE = {
    "fp32": 1e-5,
    "tf32": 5e-3,
    "bf16": 5e-2,
    "fp16": 1e-2,
}  # relative error of a product that is still right
REPEATS = 5


@dataclass(frozen=True)
class Kind:
    """One kind of numbers on one device.

    works: whether products and convolutions run and are right. error: of a product, root mean square, relative to
    float64. matmul, conv: speed relative to fp32, 0 where it does not run. reason: why it does not work.
    """

    name: str
    works: bool
    error: float = 0.0
    matmul: float = 0.0
    conv: float = 0.0
    reason: str = ""


def devices() -> list[dict[str, Any]]:
    """The processor, then every CUDA device: name, what it is, memory in bytes, and what of it is free."""
    found: list[dict[str, Any]] = [
        {"name": "cpu", "what": processor(), "memory": memory(), "free": free_memory()}
    ]
    for k in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(k)
        free, whole = torch.cuda.mem_get_info(k)
        found.append(
            {
                "name": f"cuda:{k}",
                "what": f"{about.name}, compute {about.major}.{about.minor}",
                "memory": whole,
                "free": free,
            }
        )
    return found


def processor() -> str:
    from editbench.run.record import processor as model

    return f"{model()}, {usable_cores()} cores, {torch.get_num_threads()} torch threads"


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of main memory, or what a container may use of it."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        return min(whole, int(text)) if text.isdigit() else whole
    return whole


def free_memory() -> int:
    """Bytes that can be had without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    found = next((line for line in lines if line.startswith("MemAvailable")), "0 0")
    return min(int(found.split()[1]) * 1024, memory())


@torch.no_grad()
def kinds(device: str, side: int = 0, repeats: int = REPEATS) -> list[Kind]:
    """Try every kind of numbers on a device: a product (side x side) and a 3x3 convolution, against fp32.

    side: 0 takes 512 on a processor and 4096 on a GPU. tf32 is tried on GPUs alone: elsewhere it is fp32.
    """
    cuda = device.startswith("cuda")
    side = side or (4096 if cuda else 512)
    base: tuple[float, float] | None = None
    found = []
    for name, dtype in KINDS.items():
        if name == "tf32" and not (cuda and torch.cuda.get_device_capability(device)[0] >= 8):
            found.append(Kind(name, False, reason="needs a GPU of compute capability 8 or more"))
            continue
        with tf32(name == "tf32"):
            try:
                error = product_error(device, dtype)
                times = timed(device, dtype, side, repeats)
            except RuntimeError as failure:
                found.append(Kind(name, False, reason=str(failure).splitlines()[0]))
                continue
        base = base or times
        found.append(
            Kind(
                name,
                error <= LOOSE[name],
                error,
                base[0] / times[0],
                base[1] / times[1],
                "" if error <= LOOSE[name] else f"a product is off by {error:.1e}",
            )
        )
    return found


@contextmanager
def tf32(wanted: bool):  # type: ignore[no-untyped-def]
    """Whether products and convolutions of float32 may round to tf32; as it was afterwards."""
    kept = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if wanted else "highest")
    torch.backends.cudnn.allow_tf32 = wanted
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(kept[0])
        torch.backends.cudnn.allow_tf32 = kept[1]


def product_error(device: str, dtype: torch.dtype, side: int = 128) -> float:
    """Root mean square error of a product, relative to its size in float64."""
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=rng, dtype=torch.float64) for _ in range(2))
    exact, found = a @ b, (a.to(device, dtype) @ b.to(device, dtype)).double().cpu()
    return float((found - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def timed(device: str, dtype: torch.dtype, side: int, repeats: int) -> tuple[float, float]:
    """Seconds of a product and of a convolution, the fastest of `repeats`."""
    a = torch.randn(side, side, device=device).to(dtype)
    x = torch.randn(8, 64, 64, 64, device=device).to(dtype)
    weight = torch.randn(64, 64, 3, 3, device=device).to(dtype)
    jobs: list[Callable[[], Tensor]] = [lambda: a @ a, lambda: F.conv2d(x, weight, padding=1)]
    return tuple(min(_seconds(job, device) for _ in range(repeats + 1)) for job in jobs)  # type: ignore[return-value]


def _seconds(job: Callable[[], Tensor], device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    job()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return max(time.perf_counter() - began, 1e-9)
