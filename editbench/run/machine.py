"""The devices of a machine, and tests of the numerical precisions that they support."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.base.compute_options import is_gpu
from editbench.base.devices import free_memory, main_memory
from editbench.base.precision import AMPERE
from editbench.run.environment import processor_model
from editbench.run.launch import available_cores

# Name of a precision -> dtype of the factors. tf32 is fp32 with rounding.
DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
# Largest accepted relative error of a product: a small multiple of the unit round-off.
LARGEST_ERRORS = {
    "fp32": 1e-5,
    "tf32": 5e-3,
    "bf16": 5e-2,
    "fp16": 1e-2,
}
REPEATS = 5  # number of timings; the fastest counts
LONGEST = 1.0  # seconds after which no further timing begins; half precision can be very slow
CPU_SIDE = 512  # of the matrices that are timed; large enough that overhead does not matter
GPU_SIDE = 4096
SHORTEST = 1e-9  # seconds


@dataclass(frozen=True)
class MeasuredPrecision:
    """What a test of one precision on one device has found.

    Args:
        name: a key of DTYPES.
        works: whether products and convolutions run and are accurate enough.
        error: root mean square error of a product, relative to float64.
        matmul: speed of a matrix product relative to fp32; 0 if it does not run.
        conv: speed of a convolution relative to fp32; 0 if it does not run.
        reason: why it does not work.
    """

    name: str
    works: bool
    error: float = 0.0
    matmul: float = 0.0
    conv: float = 0.0
    reason: str = ""


def devices() -> list[dict[str, Any]]:
    """The processor and all CUDA devices: name, description, memory and free memory in bytes."""
    found: list[dict[str, Any]] = [
        {"name": "cpu", "what": processor(), "memory": main_memory(), "free": free_memory()}
    ]
    if not torch.cuda.is_available():
        return found
    for k in range(torch.cuda.device_count()):
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
    """The processor's model, and the cores and threads that this process uses."""
    threads = torch.get_num_threads()
    return f"{processor_model()}, {available_cores()} cores, {threads} torch threads"


@torch.no_grad()
def measure_precisions(
    device: str, side: int = 0, repeats: int = REPEATS
) -> list[MeasuredPrecision]:
    """Test every precision on a device, and compare its speed with fp32.

    Args:
        device: 'cpu', 'cuda', 'cuda:1'.
        side: of the square matrices that are timed; 0 for 512 on a CPU and 4096 on a GPU.
        repeats: number of timings; the fastest counts.

    Returns:
        One entry for each of DTYPES. tf32 is tested only on GPUs; elsewhere it is the same as fp32.
    """
    gpu = is_gpu(device)
    side = side or (GPU_SIDE if gpu else CPU_SIDE)
    found: list[MeasuredPrecision] = []
    base: tuple[float, float] | None = None  # seconds of fp32, which comes first
    for name, dtype in DTYPES.items():
        if name == "tf32" and not (gpu and _has_tf32(device)):
            reason = f"needs a GPU of compute capability {AMPERE} or more"
            found.append(MeasuredPrecision(name, False, reason=reason))
            continue
        with tf32(name == "tf32"):
            try:
                error = product_error(device, dtype)
                times = timed(device, dtype, side, repeats)
            except RuntimeError as failure:  # no such kernel on this device
                found.append(MeasuredPrecision(name, False, reason=str(failure).splitlines()[0]))
                continue
        base = base or times
        works = error <= LARGEST_ERRORS[name]
        reason = "" if works else f"a product is off by {error:.1e}"
        found.append(
            MeasuredPrecision(name, works, error, base[0] / times[0], base[1] / times[1], reason)
        )
    return found


def _has_tf32(device: str) -> bool:
    return torch.cuda.get_device_capability(device)[0] >= AMPERE


@contextmanager
def tf32(wanted: bool) -> Iterator[None]:
    """Allow or forbid TF32 in float32 products and convolutions, within the block."""
    precision = torch.get_float32_matmul_precision()
    in_convolutions = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if wanted else "highest")
    torch.backends.cudnn.allow_tf32 = wanted
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = in_convolutions


def product_error(device: str, dtype: torch.dtype, side: int = 128) -> float:
    """Root mean square error of a product, relative to the root mean square of the product.

    Args:
        device: that multiplies.
        dtype: of the factors. TF32 is float32 within `tf32(True)`.
        side: of the square matrices, whose elements are standard normal.

    Raises:
        RuntimeError: the device has no such product; raised by torch.
    """
    # Drawn on the host with a fixed seed, so that all devices multiply the same numbers.
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(side, side, generator=rng, dtype=torch.float64)
    b = torch.randn(side, side, generator=rng, dtype=torch.float64)
    exact = a @ b
    # Subtracted in float64: a difference of two half precision numbers would be rounded again.
    found = (a.to(device, dtype) @ b.to(device, dtype)).double().cpu()
    return float((found - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def timed(device: str, dtype: torch.dtype, side: int, repeats: int) -> tuple[float, float]:
    """Seconds of a matrix product and of a 3x3 convolution, each the fastest of `repeats`.

    Args:
        device: of the tensors.
        dtype: of the tensors.
        side: of the square matrices.
        repeats: number of timings, after a first call that may compile or allocate.
    """
    a = torch.randn(side, side, device=device).to(dtype)
    # The size of a middle layer of a 256 x 256 StyleGAN2. One image keeps a CPU busy.
    batch = 8 if is_gpu(device) else 1
    x = torch.randn(batch, 64, 64, 64, device=device).to(dtype)
    weight = torch.randn(64, 64, 3, 3, device=device).to(dtype)

    def product() -> Tensor:
        return a @ a

    def convolution() -> Tensor:
        return F.conv2d(x, weight, padding=1)

    return (
        fastest(product, device, repeats, LONGEST),
        fastest(convolution, device, repeats, LONGEST),
    )


def fastest(
    work: Callable[[], object], device: str, repeats: int = REPEATS, longest: float = math.inf
) -> float:
    """Seconds of the fastest call of some work.

    Args:
        work: a function to time.
        device: on which it runs.
        repeats: maximum number of calls, after a first one.
        longest: total seconds after which no further call begins, except for the second.
    """
    # The first call may compile or allocate. It is slow, so it does not affect the minimum.
    spent = [_seconds(work, device)]
    for k in range(repeats):
        if k > 0 and sum(spent) >= longest:
            break
        spent.append(_seconds(work, device))
    return min(spent)


def _seconds(work: Callable[[], object], device: str) -> float:
    # A GPU works asynchronously. Without waiting, only the start of the work would be timed.
    if is_gpu(device):
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if is_gpu(device):
        torch.cuda.synchronize(device)
    return max(time.perf_counter() - began, SHORTEST)
