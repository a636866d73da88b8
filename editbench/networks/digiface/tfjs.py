"""Weights of TensorFlow.js models: one binary file, and a manifest that describes its content."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from editbench.base.errors import BadFile

# Storage types of numbers. TensorFlow.js always writes little-endian.
STORED = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint8": "u1", "uint16": "<u2"}


def read_weights(
    manifest: Sequence[Mapping[str, Any]], data: bytes, name: str
) -> dict[str, Tensor]:
    """The weights of a manifest, in TensorFlow's layouts.

    Quantised weights are q * scale + min. Half-precision weights are converted to float32.

    Args:
        manifest: groups of weights, as in *-weights_manifest.json or in a model's
            `weightsManifest`.
        data: the bytes of the binary file that all groups share.
        name: of the file, for messages.

    Returns:
        Name -> tensor, float32 or int64.

    Raises:
        BadFile: the storage type is unknown, or the number of bytes differs from the manifest.
    """
    found: dict[str, Tensor] = {}
    place = 0
    for group in manifest:
        for entry in group["weights"]:
            quantization = entry.get("quantization") or {}
            stored = str(quantization.get("dtype", entry["dtype"]))
            if stored not in STORED:
                raise BadFile(
                    f"{name}: weight '{entry['name']}' is stored as {stored}; "
                    f"only {', '.join(STORED)} are read"
                )
            kind = np.dtype(STORED[stored])
            shape = tuple(int(size) for size in entry["shape"])
            count = math.prod(shape)
            if place + count * kind.itemsize > len(data):
                raise BadFile(f"{name}: {len(data)} bytes, fewer than its manifest says")
            values = np.frombuffer(data, kind, count, place).reshape(shape)
            place += count * kind.itemsize
            found[str(entry["name"])] = _tensor(values, entry["dtype"], quantization)
    if place != len(data):
        raise BadFile(f"{name}: {len(data)} bytes, but its manifest says {place}")
    return found


def _tensor(values: np.ndarray, dtype: str, quantization: Mapping[str, Any]) -> Tensor:
    if dtype == "int32":
        return torch.from_numpy(values.astype(np.int64))
    if "scale" not in quantization:
        return torch.from_numpy(values.astype(np.float32))
    # In float64, as TensorFlow.js computes with JavaScript's numbers before rounding to float32.
    wide = values.astype(np.float64) * quantization["scale"] + quantization["min"]
    return torch.from_numpy(wide.astype(np.float32))
