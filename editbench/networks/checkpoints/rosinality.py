"""Generators of rosinality/stylegan2-pytorch.

These are state dicts with style.N, conv1, convs.N, to_rgb1, to_rgbs.N, noises.noise_N. Kernels have
a leading axis of size 1, noise strengths and maps have axes of size 1; values are used unchanged.
The mean w is next to the state dict, as latent_avg (in pSp and e4e, one copy per row of W+). If it
is absent, it is computed, as in rosinality's generate.py. Early files have noise strengths but no
noise maps, so their images cannot be reproduced; noise is then left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from editbench.base.errors import BadFile
from editbench.networks.checkpoints.assemble import (
    CONV_PARTS,
    RGB_PARTS,
    W_AVG_SAMPLES,
    Assumed,
    CheckpointContent,
    Rule,
    explain_architecture,
    filter_taps,
    layers,
    shape_of,
    size_option,
    unchanged,
)
from editbench.networks.stylegan2.network import StyleGAN2Config

# Our name of a part of a convolution -> theirs.
PART = {
    "weight": "conv.weight",
    "bias": "activate.bias",
    "affine.weight": "conv.modulation.weight",
    "affine.bias": "conv.modulation.bias",
    "noise_strength": "noise.weight",
}
# Conversions of tensors that are stored with axes of size 1.
CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "weight": lambda value: value.squeeze(0),
    "noise": lambda value: value.squeeze(0).squeeze(0),
    "noise_strength": lambda value: value.squeeze(),
}
CONV = re.compile(r"convs\.(\d+)\.conv\.weight")
FILTERS = (".blur.kernel", ".upsample.kernel")
MEAN = "latent_avg"


def read_rosinality(path: Path, tensors: dict[str, Tensor], assumed: Assumed) -> CheckpointContent:
    """The source of a generator with rosinality's names.

    Args:
        path: of the file.
        tensors: of the generator, by their names, including latent_avg if the file has it.
        assumed: gain of the mapping and clamp of the layers, which are not in the file.
    """
    convs = [int(m[1]) for m in map(CONV.fullmatch, tensors) if m]
    if sorted(convs) != list(range(len(convs))) or len(convs) % 2:
        raise BadFile(
            f"{path}: it has the convolutions {sorted(convs)}, expected 0, 1, ..., two per "
            "resolution: the file is truncated or of another architecture"
        )
    # The 4 x 4 block has only conv1; all others have an up-convolution and a convolution.
    blocks = len(convs) // 2 + 1
    names = ["conv1.conv.weight", *(f"convs.{2 * k + 1}.conv.weight" for k in range(blocks - 1))]
    channels = tuple(shape_of(tensors, name, path, 5)[1] for name in names)
    first = shape_of(tensors, "style.1.weight", path, 2)
    w_dim = shape_of(tensors, "conv1.conv.modulation.weight", path, 2)[1]
    rgb = "to_rgb1.conv.weight"
    if blocks != 1:
        rgb = f"to_rgbs.{blocks - 2}.conv.weight"
    # style.0 is the normalisation, which has no weights.
    depth = sum(1 for name in tensors if re.fullmatch(r"style\.\d+\.weight", name))
    filters = {name: value for name, value in tensors.items() if name.endswith(FILTERS)}
    with explain_architecture(path, "StyleGAN2"):
        config = StyleGAN2Config(
            4 << (blocks - 1),
            channels,
            z_dim=first[1],
            w_dim=w_dim,
            mapping_layers=depth,
            img_channels=shape_of(tensors, rgb, path, 5)[1],
            fir=filter_taps(filters, path),
            mapping_width=size_option(first[0], w_dim),
            **assumed,
        )
    # Early files have no noise maps.
    noisy = any(name.startswith("noises.") for name in tensors)
    beside = set(filters)
    notes = [("noise", "constant maps")]
    if not noisy:
        beside |= {name for name in tensors if name.endswith(".noise.weight")}
        notes = [("noise", "the file has strengths but no maps: decoded without noise")]
    if MEAN not in tensors:
        notes.append(("w_avg", f"the file has no {MEAN}: the mean of {W_AVG_SAMPLES:,} w"))
    return CheckpointContent(
        path,
        "rosinality",
        config,
        tensors,
        _rosinality_rules(config, noisy, MEAN in tensors),
        beside=beside,
        notes=notes,
        assumed=tuple(assumed),
    )


def _one_row(value: Tensor) -> Tensor:
    """(d,) from (d,), (1, d) or equal rows (n, d); other values are unchanged (rejected later)."""
    # pSp and e4e store a copy for each row of W+.
    rows = value.reshape(-1, value.shape[-1])
    if torch.equal(rows, rows[:1].expand_as(rows)):
        return rows[0]
    return value


def _rosinality_rules(config: StyleGAN2Config, noisy: bool, mean: bool) -> dict[str, Rule | None]:
    """Our names -> Rules with rosinality's names.

    `noisy` and `mean` say whether the file has noise maps and the mean w.
    """
    rules: dict[str, Rule | None] = {
        # Stored with a batch axis of size 1.
        "synthesis.const": Rule("input.input", lambda value: value.squeeze(0)),
        "mapping.w_avg": Rule(MEAN, _one_row) if mean else None,
    }
    for k in range(config.mapping_layers):  # style.0 is the normalisation of z
        rules |= {
            f"mapping.layers.{k}.{part}": Rule(f"style.{k + 1}.{part}")
            for part in ("weight", "bias")
        }
    for name, kind, size in layers(config):
        # Blocks of 4, 8, 16, ... pixels have the numbers 0, 1, 2, ...
        block = size.bit_length() - 3
        number = 2 * block - (kind == "up")  # number of the convolution; the 4x4 one is 0
        # The first ToRGB and the first convolution have special names; the others are numbered.
        if kind == "rgb":
            theirs = f"to_rgbs.{block - 1}" if block else "to_rgb1"
        else:
            theirs = f"convs.{number - 1}" if number else "conv1"
        for part in RGB_PARTS if kind == "rgb" else CONV_PARTS:
            source = f"noises.noise_{number}" if part == "noise" else f"{theirs}.{PART[part]}"
            rule = Rule(source, CHANGES.get(part, unchanged))
            if kind == "rgb" and part == "bias":
                rule = Rule(f"{theirs}.bias", lambda value: value.reshape(-1))
            absent = part.startswith("noise") and not noisy
            rules[f"synthesis.layers.{name}.{part}"] = None if absent else rule
    return rules
