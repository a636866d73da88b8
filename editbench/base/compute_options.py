"""Checks of `device`, `precision` and batch sizes. Does not import torch, so that a wrong value is
reported at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from editbench.base.errors import EditbenchError, UnknownName
from editbench.base.validation import check_at_least, check_kind, in_yaml

if TYPE_CHECKING:
    import torch

DEVICE = re.compile(r"(cpu|cuda)(:\d+)?")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
AUTO = "auto"  # a batch size chosen by the available memory


def is_gpu(device: str | torch.device) -> bool:
    """Whether a device is a CUDA GPU."""
    return str(device).startswith("cuda")


def check_device_name(name: str, key: str = "device=") -> None:
    """Check that a name is a device of editbench. Does not check whether the machine has it.

    Args:
        name: of the device.
        key: what a user writes before the name.

    Raises:
        EditbenchError: it is neither the CPU nor a CUDA GPU.
    """
    if not DEVICE.fullmatch(name):
        raise EditbenchError(f"{key}{name} is not a device: use cpu, cuda or cuda:0")


def check_precision(precision: str, device: str) -> None:
    """Reject a precision that a CPU does not support. A GPU is not checked, since it may belong to
    another machine.

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
    """The error for precision=tf32 on a device without TF32."""
    return EditbenchError(
        f"precision=tf32 with device={device}: TF32 needs an NVIDIA GPU (Ampere or later); use "
        "precision=fp32, or bf16"
    )


def check_batch(key: str, value: object) -> None:
    """Check that a value is a batch size: a positive integer or 'auto'.

    Args:
        key: dotted name of the value, for the message.
        value: of the configuration.

    Raises:
        EditbenchError: it is something else.
    """
    if value == AUTO:
        return
    # A misspelt 'auto' is text; the message of `check_kind` would ask only for a number.
    if isinstance(value, str):
        raise EditbenchError(f"{key}={in_yaml(value)} must be a whole number, or {AUTO}")
    check_kind(key, value, "int", 64)
    check_at_least(key, value, 1)  # type: ignore[arg-type]
