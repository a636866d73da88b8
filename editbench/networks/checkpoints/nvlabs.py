"""NVlabs' PyTorch generators of StyleGAN2: pickles and state dicts.

The pickles are from stylegan2-ada-pytorch, or from stylegan3 with a StyleGAN2 configuration. Names
of tensors: mapping.embed, mapping.fcN, mapping.w_avg; synthesis.bR.const, .conv0 (up), .conv1,
.torgb, .skip, each with affine.weight and affine.bias, weight, bias, noise_const, noise_strength.
All tensors are used unchanged: the up-convolution is a transposed one with the kernel as stored.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from editbench.base.errors import BadFile, Unsupported
from editbench.networks.checkpoints.assemble import (
    CONV_PARTS,
    RGB_PARTS,
    Assumed,
    CheckpointContent,
    Rule,
    explain_architecture,
    filter_taps,
    layers,
    resolution_of,
    shape_of,
    size_option,
)
from editbench.networks.pickles import Opaque
from editbench.networks.pickles.modules import walk_modules
from editbench.networks.stylegan2.network import StyleGAN2Config

# Every block has conv1; the first one has no conv0.
BLOCK = re.compile(r"synthesis\.b(\d+)\.conv1\.weight")
LAYER = {"up": "conv0", "conv": "conv1", "rgb": "torgb"}
PART = {"noise": "noise_const"}


def read_nvlabs(
    path: Path,
    tensors: dict[str, Tensor],
    module: Opaque | None,
    assumed: Assumed,
) -> CheckpointContent:
    """The source of a generator with NVlabs' names.

    Args:
        path: of the file.
        tensors: of the generator, by NVlabs' names.
        module: the pickled generator, which also has the gain of the mapping and the clamp; None
            for a state dict.
        assumed: gain of the mapping and clamp of the layers, for a state dict.
    """
    resolution = resolution_of((int(m[1]) for m in map(BLOCK.fullmatch, tensors) if m), path)
    # Sizes double, from 4 x 4.
    sizes = [4 * 2**k for k in range(resolution.bit_length() - 2)]
    channels = tuple(
        shape_of(tensors, f"synthesis.b{size}.conv1.weight", path, 4)[0] for size in sizes
    )
    w_dim = shape_of(tensors, "synthesis.b4.conv1.affine.weight", path, 2)[1]
    if module is None:
        kind = "state dict in NVlabs' names"
        facts: dict[str, Any] = dict(assumed)
    else:
        kind = "NVlabs PyTorch pickle"
        facts = pickled_facts(path, module)
    rgb = f"synthesis.b{resolution}.torgb.weight"
    filters = {name: value for name, value in tensors.items() if name.endswith(".resample_filter")}
    with explain_architecture(path, "StyleGAN2"):
        config = StyleGAN2Config(
            resolution,
            channels,
            img_channels=shape_of(tensors, rgb, path, 4)[0],
            architecture=_architecture(tensors, resolution),
            fir=filter_taps(filters, path),
            **mapping_sizes(path, tensors, w_dim),
            **facts,
        )
    noisy = any(name.endswith(".noise_const") for name in tensors)
    notes = [("noise", "constant maps" if noisy else "none: the network was made without")]
    notes += half_precision_notes(module)
    return CheckpointContent(
        path,
        kind,
        config,
        tensors,
        _nvlabs_rules(config, noisy),
        beside=set(filters),
        notes=notes,
        assumed=tuple(assumed) if module is None else (),
    )


def half_precision_notes(module: Opaque | None) -> list[tuple[str, str]]:
    """A note if layers of a pickled network ran in half precision; otherwise none."""
    if module is None:
        return []
    # As text: a damaged file may have an array there, which has no truth value.
    if not any(str(state.get("use_fp16")) == "True" for _, state in walk_modules(module)):
        return []
    text = "its fp16 layers are run in the precision of the run, fp32 by default"
    return [("half precision", text)]


def mapping_sizes(path: Path, tensors: dict[str, Tensor], w_dim: int) -> dict[str, int]:
    """The part of the configuration that follows from the shapes of a mapping.

    Args:
        path: of the file, for messages.
        tensors: by NVlabs' names.
        w_dim: of the network, from an affine map.

    Raises:
        BadFile: a tensor is missing or has another number of axes.
    """
    first = shape_of(tensors, "mapping.fc0.weight", path, 2)
    embed: tuple[int, ...] = (0, 0)
    if "mapping.embed.weight" in tensors:
        embed = shape_of(tensors, "mapping.embed.weight", path, 2)
    # Published mappings have 8 layers, or 2 with ADA's `auto` configuration.
    depth = sum(1 for name in tensors if re.fullmatch(r"mapping\.fc\d+\.weight", name))
    return {
        "z_dim": first[1] - embed[0],
        "w_dim": w_dim,
        "mapping_layers": depth,
        "c_dim": embed[1],
        "embed_dim": size_option(embed[0], w_dim),
        "mapping_width": size_option(first[0], w_dim) if depth > 1 else 0,
    }


def _architecture(tensors: dict[str, Tensor], resolution: int) -> str:
    """Which of the architectures of Karras et al. 2020, figure 7, a generator has."""
    # Only the residual architecture has this branch.
    if f"synthesis.b{resolution}.skip.weight" in tensors:
        return "resnet"
    if "synthesis.b4.torgb.weight" in tensors:
        return "skip"
    return "orig"


def _nvlabs_rules(config: StyleGAN2Config, noisy: bool) -> dict[str, Rule | None]:
    """Our names -> Rules with NVlabs' names; `noisy`: whether the file has noise maps."""
    rules = mapping_rules(config.mapping_layers)
    rules["synthesis.const"] = Rule("synthesis.b4.const")
    for name, kind, size in layers(config):
        theirs = f"synthesis.b{size}.{LAYER[kind]}"
        for part in RGB_PARTS if kind == "rgb" else CONV_PARTS:
            # A network without noise has neither noise maps nor strengths.
            absent = part.startswith("noise") and not noisy
            rules[f"synthesis.layers.{name}.{part}"] = (
                None if absent else Rule(f"{theirs}.{PART.get(part, part)}")
            )
        rules[f"synthesis.skips.{name}.weight"] = Rule(f"synthesis.b{size}.skip.weight")
    return rules


def mapping_rules(depth: int) -> dict[str, Rule | None]:
    """Our names -> Rules with theirs, for a mapping of `depth` layers."""
    rules: dict[str, Rule | None] = {"mapping.w_avg": Rule("mapping.w_avg")}
    for part in ("weight", "bias"):
        for k in range(depth):
            rules[f"mapping.layers.{k}.{part}"] = Rule(f"mapping.fc{k}.{part}")
        rules[f"mapping.embed.{part}"] = Rule(f"mapping.embed.{part}")
    return rules


def pickled_facts(
    path: Path, module: Opaque, clamped: tuple[str, ...] = (".conv0.", ".conv1.", ".torgb.")
) -> dict[str, Any]:
    """The gain of the mapping and the clamp, from the attributes of the layers.

    Unsupported options of the layers are rejected.

    Args:
        path: of the file.
        module: the pickled generator.
        clamped: suffixes of the names of layers with a clamp.
    """
    gains = set()
    clamps = set()
    for prefix, state in walk_modules(module):
        activation = state.get("activation", "lrelu")
        # Affine maps, the label embedding and the skip branch have no activation.
        expected = "lrelu"
        if prefix.endswith(("affine.", "embed.", "skip.")):
            expected = "linear"
        if not isinstance(activation, str) or activation != expected:
            raise Unsupported(
                f"{path}: its layer '{prefix[:-1]}' has the activation {activation!r}, "
                f"only {expected!r} is known there"
            )
        # bias_gain is the learning-rate multiplier; weight_gain also depends on the width.
        if re.fullmatch(r"mapping\.fc\d+\.", prefix):
            gains.add(as_number(state.get("bias_gain"), path, f"{prefix}bias_gain"))
        if prefix.endswith(clamped) and "conv_clamp" in state:
            clamp = state["conv_clamp"]
            clamps.add(None if clamp is None else as_number(clamp, path, f"{prefix}conv_clamp"))
    # The configuration has one number for all layers.
    if len(gains) != 1 or len(clamps) > 1:
        raise BadFile(
            f"{path}: its layers have different gains or clamps ({sorted(gains)}, {clamps}); they "
            "must be equal"
        )
    return {"mapping_lr": gains.pop(), "conv_clamp": clamps.pop() if clamps else None}


def as_number(value: Any, path: Path, name: str) -> float:
    """A number of a pickle, as float.

    Args:
        value: from the file, of any type.
        path: of the file, for the message.
        name: of the number, for the message.

    Raises:
        BadFile: it is not a finite number.
    """
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise BadFile(
            f"{path}: '{name}' is a {type(value).__name__}, not a number; the file is damaged"
        ) from error
    if not math.isfinite(number):
        raise BadFile(f"{path}: '{name}' is {number}; the file is damaged")
    return number
