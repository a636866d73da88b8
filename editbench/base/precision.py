"""Numerical precision of decoding and scoring: precision=fp32, tf32, bf16 or fp16.

- bf16 and fp16 use torch.autocast: convolutions and matrix products of decoding and scoring run in
  the lower precision. Codes, styles, the mapping, demodulation, the sum of the ToRGB images and
  logits stay float32, and statistics float64. Computations of a method on the layers, other than
  `decode` and calls of a scorer, stay float32 too.
- tf32 is a mode of the process: every float32 product and convolution rounds its factors.

The precision is part of the identity of banks and runs, except for fp32, which changes no number.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.utils.deterministic

from editbench.base.compute_options import is_gpu, without_tf32

# How much a different batch size changes a logit, relative to the change in fp32.
COARSER = {"fp32": 1, "tf32": 50, "bf16": 200, "fp16": 50}
# tf32 is not a dtype of torch: numbers are float32, and the GPU rounds them.
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
AMPERE = 8  # major compute capability of the first GPUs with TF32


def casting(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which to run a network with this precision; does nothing for fp32 and tf32.

    Args:
        precision: one of PRECISIONS.
        device: of the network and of its inputs.
    """
    # tf32 is no dtype to cast to, but a mode of the process, see `use_precision`.
    if precision not in DTYPES:
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def lowered(device: torch.device) -> bool:
    """Whether convolutions currently run in a lower precision."""
    try:
        return torch.is_autocast_enabled(device.type)
    # A device without autocast. `is_autocast_available` would tell, but torch.export of torch 2.6
    # cannot trace it.
    except RuntimeError:
        return False


def exact(device: torch.device) -> AbstractContextManager[object]:
    """A context in which all operations keep full precision."""
    # torch raises an error for a device without autocast.
    if not lowered(device):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def use_precision(precision: str, device: str) -> None:
    """Set the modes of the process for a precision on a GPU. On a CPU there is nothing to set.

    Args:
        precision: one of PRECISIONS, already checked by `check_precision`.
        device: as in torch, such as 'cpu' or 'cuda:0'.

    Raises:
        EditbenchError: tf32 on a GPU older than Ampere.
    """
    if not is_gpu(device):
        return
    tf32 = precision == "tf32"
    if tf32 and torch.cuda.get_device_capability(device)[0] < AMPERE:
        raise without_tf32(device)
    _repeat_numbers()
    # Matrix products and cuDNN's convolutions have separate flags. They are also switched off here,
    # since an earlier run in the same process may have switched them on.
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def _repeat_numbers() -> None:
    """Make GPU computations reproducible. Call this before CUDA is initialised in the process.

    A kernel without a deterministic version still runs, with a warning by torch.
    """
    # cuBLAS reads this when it is initialised; the value is NVIDIA's recommendation.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # No result reads uninitialised memory, so filling it would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    # The benchmark would choose the fastest algorithm, which differs from run to run.
    torch.backends.cudnn.benchmark = False
