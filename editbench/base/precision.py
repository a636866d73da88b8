"""Arithmetic of decoding and scoring: precision=fp32, tf32, bf16 or fp16.

- bf16 and fp16, by torch.autocast: convolutions and matrix products of decoding and scoring run in
  the lower precision. Codes, styles, the mapping, demodulation, the sum of the ToRGB images and
  logits stay float32, and statistics float64. What a method computes from the layers itself, beside
  `decode` and a scorer's call, stays float32 too.
- tf32 is a mode of the process: every product and convolution of float32 numbers rounds its factors.

The precision is part of what identifies a bank and a run, except fp32, which changes no number and
no identity.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.utils.deterministic

from editbench.base.compute_options import is_gpu, without_tf32

# How much another batch size changes a logit, as a multiple of the change in fp32.
COARSER = {"fp32": 1, "tf32": 50, "bf16": 200, "fp16": 50}
# tf32 is no dtype of torch: its numbers are float32, and a mode of the GPU rounds them.
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
AMPERE = 8  # major compute capability of the first GPUs that have TF32


def casting(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a network of this precision runs; it does nothing for fp32 and tf32."""
    if precision not in DTYPES:
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def lowered(device: torch.device) -> bool:
    """Whether convolutions run in a lower precision just now."""
    # `is_autocast_enabled` raises for a device without autocast, so the other call comes first.
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def exact(device: torch.device) -> AbstractContextManager[object]:
    """A context in which nothing is lowered."""
    # A device without autocast has none to switch off, and torch raises for it.
    if not lowered(device):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def use_precision(precision: str, device: str) -> None:
    """Set the modes of the process for a precision on a GPU; a processor has none.

    Args:
        precision: one of PRECISIONS, which `check_precision` has seen.
        device: a name of torch, such as 'cpu' or 'cuda:0'.

    Raises:
        EditbenchError: tf32 on a GPU older than Ampere.
    """
    if not is_gpu(device):
        return
    tf32 = precision == "tf32"
    if tf32 and torch.cuda.get_device_capability(device)[0] < AMPERE:
        raise without_tf32(device)
    repeat_numbers()
    # Matrix products and the convolutions of cuDNN have a flag each. Both are also switched off,
    # since an earlier run of the same process may have left them on.
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def repeat_numbers() -> None:
    """Have a GPU give the same numbers for the same work; before CUDA starts in this process.

    A kernel that knows no such way runs all the same, and torch warns.
    """
    # cuBLAS reads it when it starts; two buffers of this size are what NVIDIA names for it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # No result reads memory that was never written; filling it would cost time alone.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    # The fastest algorithm of a first try differs from run to run.
    torch.backends.cudnn.benchmark = False
