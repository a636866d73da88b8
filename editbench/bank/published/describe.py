"""What a published file holds, in a few lines. Nothing in the file is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch import Tensor

from editbench.bank.published.arrays import as_array
from editbench.bank.published.directions import component
from editbench.bank.published.interfacegan import UNIT
from editbench.bank.published.npy import read_npy
from editbench.bank.published.stylespace import (
    MARGIN,
    RATE,
    REGIONS,
    read_semantic,
    select_channels,
)
from editbench.base.errors import BadFile
from editbench.networks.pickles import Opaque, read_pickle, read_torch
from editbench.networks.pickles.modules import module_tensors

SHOWN = 12  # entries of a container in an outline
DEEP = 3  # levels of an outline
NAME = 60  # characters of a key or a value; a hostile file may have very long ones
MOST_LAYERS = 64  # more rows than any generator has layers are samples, not a direction


def describe(path: Path) -> list[str]:
    """Describe a published file.

    Args:
        path: a .npy, .pkl, .pt or .pth file, a pickle without suffix, or a GradCtrl folder.

    Returns:
        Lines of text.

    Raises:
        BadFile: the file is missing, damaged, hostile or of another kind.
    """
    if path.is_dir():
        return _describe_gradctrl(path)
    if path.suffix == ".npy":
        return _describe_array(read_npy(path))
    if path.suffix in (".pt", ".pth"):
        content = read_torch(path)
    # StyleSpace publishes pickles without a suffix.
    elif path.suffix in (".pkl", ""):
        content = read_pickle(path)
    else:
        raise BadFile(
            f"{path}: only .npy, .pkl, .pt and .pth files and GradCtrl data folders can be read"
        )
    if isinstance(content, dict) and "lat_comp" in content:
        return _describe_component(content, path)
    if _has_rates(content):
        return _describe_rates(path)
    return list(_outline(content))


def _has_rates(content: Any) -> bool:
    """Whether the content looks like StyleSpace's rates: a list of (channels, regions) arrays."""
    if not isinstance(content, list) or not content:
        return False
    for layer in content:
        if not isinstance(layer, np.ndarray):
            return False
        if layer.ndim != 2 or layer.shape[1] != len(REGIONS):
            return False
    return True


def _describe_array(array: np.ndarray) -> list[str]:
    """Say what a plain array may be; nothing in a .npy file tells its meaning."""
    lines = [f"{array.dtype} {array.shape}"]
    if array.dtype.kind != "f" or array.ndim not in (1, 2) or not array.size:
        return lines
    if not np.isfinite(array).all():
        return [*lines, "holds NaN or infinite values"]
    lengths = np.linalg.norm(np.atleast_2d(array), axis=1)
    # A vector may be one score a sample or one direction, so both readings are shown.
    if array.shape[-1] == 1 or array.ndim == 1:
        lines.append(
            f"scores? {len(array)} rows from {array.min():.4g} to {array.max():.4g}, "
            f"{(array > 0).mean():.3f} above 0: bank import --scores"
        )
    if array.ndim == 1 or len(array) == 1:
        unit = ""
        if abs(lengths[0] - 1) < UNIT:
            unit = ", unit as a boundary's normal"
        lines.append(f"a direction of length {lengths[0]:.6g}{unit}: method=direction")
    elif array.shape[-1] > 1 and len(array) <= MOST_LAYERS:
        lines.append(
            f"a W+ direction of {len(array)} rows? their lengths {lengths.min():.4g} to "
            f"{lengths.max():.4g}, together {np.linalg.norm(array):.4g}: method=direction"
        )
    return lines


def _describe_component(content: dict, path: Path) -> list[str]:
    """The principal direction of a GANSpace export."""
    given = component(content, path)
    reach = "all layers"
    if given.layers is not None:
        reach = f"layers [{given.layers[0]}, {given.layers[1]})"
    return [
        f"a GANSpace component {given.name!a} in {given.space or 'an unnamed space'}: "
        f"{given.rows.shape}, length {np.linalg.norm(given.rows):.6g}, "
        f"standard deviation {given.stdev:.6g}, {reach}: method=direction"
    ]


def _describe_rates(path: Path) -> list[str]:
    """StyleSpace's rates, and how many channels each region has by the published rule."""
    layers = read_semantic(path)
    found = select_channels(layers)
    channels = sum(map(len, layers))
    listing = ", ".join(f"{region} {len(own)}" for region, own in found.items())
    return [
        f"rates of {channels} style channels in {len(layers)} layers and {len(found)} regions",
        f"channels of one region (rate above {RATE}, margin above {MARGIN}): {listing}",
    ]


def _describe_gradctrl(folder: Path) -> list[str]:
    """A GradCtrl data folder, and a list of attributes to begin a configuration with."""
    files = {}
    for path in sorted((folder / "logits").glob("logits_*.pkl")):
        files[path.stem.removeprefix("logits_")] = path
    latents = folder / "latents.pkl"
    if not latents.is_file() or not files:
        raise BadFile(
            f"{folder}: not a GradCtrl data folder with latents.pkl and logits/logits_NAME.pkl"
        )
    lines = [f"latents {as_array(read_pickle(latents), latents).shape}"]
    config = []
    for name, path in files.items():
        logits = _read_logits(path)
        width = logits.shape[1]
        # The files have no names of classes, so these are placeholders.
        if width == 1:
            above = (logits > 0).mean()
            # The published training labels a sample 1 where its logit is negative.
            lines.append(
                f"{name}: 2 classes, {above:.3f} above 0 (the published labels call those 0)"
            )
            classes = ["low", "high"]
        else:
            shares = np.bincount(logits.argmax(1), minlength=width) / len(logits)
            listing = ", ".join(f"{share:.3f}" for share in shares)
            lines.append(f"{name}: {width} classes, shares {listing}")
            classes = list(map(str, range(width)))
        config.append({"name": name, "classes": classes})
    lines.append("attributes to begin with:")
    listing = yaml.safe_dump(config, default_flow_style=None, sort_keys=False)
    for line in listing.splitlines():
        lines.append(f"  {line}")
    return lines


def _read_logits(path: Path) -> np.ndarray:
    """The logits of one attribute, (n, 1 or K)."""
    logits = as_array(read_pickle(path), path)
    if not logits.size or not logits.ndim:
        raise BadFile(
            f"{path}: shape {logits.shape}, expected one row of logits per sample; score the "
            "samples again"
        )
    return logits.reshape(len(logits), -1)


def _outline(value: Any, name: str = "", level: int = 0) -> Iterator[str]:
    """A container as an indented list; long and deep ones are cut."""
    begin = "  " * level
    if name:
        begin += f"{name}: "
    yield begin + _headline(value)
    # A file can nest deeper than Python can recurse.
    if level >= DEEP:
        return
    parts = _parts(value)
    for key, part in parts[:SHOWN]:
        yield from _outline(part, key, level + 1)
    if len(parts) > SHOWN:
        yield "  " * (level + 1) + f"... and {len(parts) - SHOWN} more"


def _headline(value: Any) -> str:
    """One line about a value, without its parts. All text of the file is shown as ASCII."""
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, np.ndarray):
        return f"array {tuple(value.shape)} {value.dtype}"
    if isinstance(value, Opaque):
        return f"{value.name[:80]!a}, left as it is"
    if isinstance(value, dict):
        return f"dict of {len(value)}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"{type(value).__name__} of {len(value)}"
    # Bytes are data, such as an image, and their text says nothing.
    if isinstance(value, (bytes, bytearray)):
        return f"{type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {ascii(value)[:NAME]}"


def _parts(value: Any) -> list[tuple[str, Any]]:
    """(name, part) of each part of a container; none of anything else."""
    # Of a whole nn.Module its state dict: most of its own attributes are empty.
    if tensors := module_tensors(value):
        value = tensors
    if isinstance(value, Opaque):
        parts = []
        for name in ("args", "state", "items"):
            part = getattr(value, name)
            # An array has no truth value, so only containers are checked for being empty.
            empty = isinstance(part, (tuple, list, type(None))) and not part
            if not empty:
                parts.append((name, part))
        return parts
    if isinstance(value, dict):
        # Control characters would reach the terminal; ascii() escapes them. [1:-1] cuts the quotes.
        return [(ascii(str(key)[:NAME])[1:-1], part) for key, part in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [(str(k), part) for k, part in enumerate(value)]
    return []
