"""The values of `device`, `precision` and of batch sizes. Needs no torch, so that a wrong one is
told at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from editbench.base.errors import EditbenchError, UnknownName
from editbench.base.validation import check_at_least, check_kind, in_yaml

if TYPE_CHECKING:
    import torch

DEVICE = re.compile(r"(cpu|cuda)(:\d+)?")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
AUTO = "auto"  # a batch size that the memory decides


def is_gpu(device: str | torch.device) -> bool:
    """Whether a device is a CUDA GPU."""
    return str(device).startswith("cuda")


def check_device_name(name: str) -> None:
    """Refuse what names no device of editbench. Whether the machine has it is not looked at.

    Raises:
        EditbenchError: it is neither the CPU nor a CUDA GPU.
    """
    if not DEVICE.fullmatch(name):
        raise EditbenchError(f"device={name} is not a device: use cpu, cuda or cuda:0")


def check_precision(precision: str, device: str) -> None:
    """Refuse a precision that a processor does not have. No GPU is looked at, which may be another
    machine's.

    Args:
        precision: one of PRECISIONS.
        device: a name of torch, such as 'cpu' or 'cuda:0'.

    Raises:
        UnknownName: the precision is not one of PRECISIONS.
        EditbenchError: tf32 or fp16 on a processor.
    """
    if precision not in PRECISIONS:
        raise UnknownName("precision", precision, PRECISIONS)
    if is_gpu(device):
        return
    if precision == "tf32":
        raise without_tf32(device)
    if precision == "fp16":
        raise EditbenchError(
            f"precision=fp16 with device={device}: half precision is for GPUs; on a CPU it is "
            "slower than float32 and no better than bf16; use precision=fp32 or bf16"
        )


def without_tf32(device: str) -> EditbenchError:
    """The error for precision=tf32 on a device that has none."""
    return EditbenchError(
        f"precision=tf32 with device={device}: TF32 needs an NVIDIA GPU (Ampere or later); use "
        "precision=fp32, or bf16"
    )


def check_batch(key: str, value: object) -> None:
    """Refuse what is no size of a batch: a whole number from 1 on, or 'auto'."""
    if value == AUTO:
        return
    if isinstance(value, str):
        raise EditbenchError(f"{key}={in_yaml(value)} must be a whole number, or {AUTO}")
    check_kind(key, value, "int", 64)
    check_at_least(key, value, 1)  # type: ignore[arg-type]
