"""What a published file holds, in a few lines: read without running anything in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch import Tensor

from editbench.bank.published.directions import component
from editbench.bank.published.npy import read_npy
from editbench.bank.published.stylespace import read_semantic, select_channels
from editbench.bank.published.values import as_array
from editbench.base.errors import BadFile
from editbench.networks.pickles import Opaque, read_pickle, read_torch

SHOWN, DEEP = 12, 3  # entries of a container, and levels, in an outline


def describe(path: Path) -> list[str]:
    """Lines for a .npy, .pkl, .pt or .pth file, a pickle without suffix, or a GradCtrl folder; else BadFile."""
    if path.is_dir():
        return _gradctrl(path)
    if path.suffix == ".npy":
        return _array(read_npy(path))
    if path.suffix not in (".pkl", ".pt", ".pth", ""):
        raise BadFile(
            f"{path}: what is read are .npy, .pkl, .pt and .pth files, and GradCtrl's data folders"
        )
    content = read_torch(path) if path.suffix in (".pt", ".pth") else read_pickle(path)
    if isinstance(content, dict) and "lat_comp" in content:
        return _component(content, path)
    if (
        isinstance(content, list)
        and content
        and all(
            isinstance(layer, np.ndarray) and layer.ndim == 2 and layer.shape[1] == 11
            for layer in content
        )
    ):
        return _semantic(path)
    return list(_outline(content))


def _array(array: np.ndarray) -> list[str]:
    lines = [f"{array.dtype} {array.shape}"]
    if array.dtype.kind != "f" or array.ndim not in (1, 2) or not array.size:
        return lines
    if not np.isfinite(array).all():
        return [*lines, "holds NaN or infinite values"]
    lengths = np.linalg.norm(np.atleast_2d(array), axis=1)
    if array.shape[-1] == 1 or array.ndim == 1:
        lines.append(
            f"scores? {len(array)} rows from {array.min():.4g} to {array.max():.4g}, "
            f"{(array > 0).mean():.3f} above 0: bank import --scores"
        )
    if array.ndim == 1 or len(array) == 1:
        unit = abs(lengths[0] - 1) < 1e-3
        lines.append(
            f"a direction of length {lengths[0]:.6g}"
            + (", unit as a boundary's normal" if unit else "")
            + ": method=direction"
        )
    elif array.shape[-1] > 1 and len(array) <= 64:
        lines.append(
            f"a W+ direction of {len(array)} rows? their lengths {lengths.min():.4g} to {lengths.max():.4g}, "
            f"together {np.linalg.norm(array):.4g}: method=direction"
        )
    return lines


def _component(content: dict, path: Path) -> list[str]:
    given = component(content, path)
    reach = (
        "all layers" if given.layers is None else f"layers [{given.layers[0]}, {given.layers[1]})"
    )
    return [
        f"a GANSpace component {given.name!a} in {given.space or 'an unnamed space'}: {given.rows.shape}, length "
        f"{np.linalg.norm(given.rows):.6g}, standard deviation {given.stdev:.6g}, {reach}: method=direction"
    ]


def _semantic(path: Path) -> list[str]:
    layers = read_semantic(path)
    counts = select_channels(layers).counts()
    return [
        f"rates of {sum(map(len, layers))} style channels in {len(layers)} layers and {len(counts)} regions",
        "channels of one region (rate above 0.5, margin above 0.25): "
        + ", ".join(f"{region} {number}" for region, number in counts.items()),
    ]


def _gradctrl(folder: Path) -> list[str]:
    files = {
        path.stem.removeprefix("logits_"): path
        for path in sorted((folder / "logits").glob("logits_*.pkl"))
    }
    if not (folder / "latents.pkl").is_file() or not files:
        raise BadFile(
            f"{folder}: no GradCtrl data folder, which holds latents.pkl and logits/logits_NAME.pkl"
        )
    lines = [
        f"latents {as_array(read_pickle(folder / 'latents.pkl'), folder / 'latents.pkl').shape}"
    ]
    config = []
    for name, path in files.items():
        logits = as_array(read_pickle(path), path)
        if not logits.size or not logits.ndim:
            raise BadFile(
                f"{path}: shape {logits.shape}, expected a row of logits a sample; score the samples again"
            )
        logits = logits.reshape(len(logits), -1)
        if logits.shape[1] == 1:
            lines.append(
                f"{name}: 2 classes, {(logits > 0).mean():.3f} above 0 (the published labels call those 0)"
            )
        else:
            shares = np.bincount(logits.argmax(1), minlength=logits.shape[1]) / len(logits)
            lines.append(
                f"{name}: {logits.shape[1]} classes, shares "
                + ", ".join(f"{s:.3f}" for s in shares)
            )
        classes = (
            ["low", "high"] if logits.shape[1] == 1 else [str(k) for k in range(logits.shape[1])]
        )
        config.append({"name": name, "classes": classes})
    listing = yaml.safe_dump(config, default_flow_style=None, sort_keys=False).splitlines()
    return [*lines, "attributes to begin with:", *(f"  {line}" for line in listing)]


def _outline(value: Any, name: str = "", level: int = 0) -> Iterator[str]:
    """A container as an indented list, long and deep ones cut."""
    begin = "  " * level + (f"{name}: " if name else "")
    if isinstance(value, (Tensor, np.ndarray)):
        yield (
            f"{begin}{'tensor' if isinstance(value, Tensor) else 'array'} {tuple(value.shape)} "
            f"{str(value.dtype).removeprefix('torch.')}"
        )
        return
    parts: list[tuple[str, Any]] = []
    if isinstance(value, Opaque):
        parts = [("args", value.args), ("state", value.state), ("items", value.items)]
        parts = [
            (key, part)
            for key, part in parts
            if not (isinstance(part, (tuple, list, type(None))) and not part)
        ]
        yield f"{begin}{value.name[:80]!a}, left as it is"
    elif isinstance(value, dict):
        parts = [(f"{str(key)[:60]!a}"[1:-1], part) for key, part in value.items()]
        yield f"{begin}dict of {len(value)}"
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = [(str(k), part) for k, part in enumerate(value)]
        yield f"{begin}{type(value).__name__} of {len(value)}"
    else:
        yield f"{begin}{type(value).__name__} {ascii(value)[:60] if not isinstance(value, (bytes, bytearray)) else ''}"
    if level < DEEP:
        for key, part in parts[:SHOWN]:
            yield from _outline(part, key, level + 1)
        if len(parts) > SHOWN:
            yield "  " * (level + 1) + f"... and {len(parts) - SHOWN} more"
