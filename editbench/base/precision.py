"""Arithmetic of decoding and scoring: precision=fp32, tf32, bf16 or fp16.

bf16 and fp16, by torch.autocast: convolutions and matrix products of decoding and scoring run in the lower precision;
codes, styles, the mapping, demodulation, the sum of the ToRGB images and logits stay float32, statistics float64, and
so does what a method computes from the layers itself, beside `decode` and a scorer's call. tf32 is a mode of the
process: every product and convolution of float32 numbers rounds its factors. The precision is part of what identifies a
bank and a run, except fp32, which changes no number and no identity.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from editbench.base.errors import EditbenchError, UnknownName

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
COARSER = {
    "fp32": 1,
    "tf32": 50,
    "bf16": 200,
    "fp16": 50,
}  # what another batch size changes of a logit, against fp32
# tf32 is no dtype of torch: its numbers are float32, and a mode of the GPU rounds them.
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def casting(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a network of this precision runs; nothing at all for fp32 and tf32."""
    return torch.autocast(device.type, DTYPES[precision]) if precision in DTYPES else nullcontext()


def lowered(device: torch.device) -> bool:
    """Whether convolutions run in a lower precision just now."""
    # Available first: torch raises where it is asked about a device without autocast.
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def exact(device: torch.device) -> AbstractContextManager[object]:
    """A context in which nothing is lowered."""
    return torch.autocast(device.type, enabled=False) if lowered(device) else nullcontext()


def use_precision(precision: str, device: str) -> None:
    """Check that the device has it, and switch TF32 on or off for the process where there is a GPU.

    Raises:
        UnknownName: not one of PRECISIONS; EditbenchError: tf32 without a GPU of Ampere or newer, fp16 on a processor.
    """
    if precision not in PRECISIONS:
        raise UnknownName("precision", precision, PRECISIONS)
    gpu = device.startswith("cuda")
    if precision == "tf32" and not (gpu and torch.cuda.get_device_capability(device)[0] >= 8):
        raise EditbenchError(
            f"precision=tf32 with device={device}: TF32 is a mode of NVIDIA GPUs from Ampere on; use "
            "precision=fp32, or bf16"
        )
    if precision == "fp16" and not gpu:
        raise EditbenchError(
            f"precision=fp16 with device={device}: half precision is for GPUs, on a processor it is "
            "slower than float32 and no better than bf16; use precision=fp32 or bf16"
        )
    # Matrix products and the convolutions of cuDNN have a flag each.
    if gpu:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = (
            precision == "tf32"
        )
