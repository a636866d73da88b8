"""Reading CelebA-HQ classifiers in their two common formats.

TensorFlow: NVIDIA's `celebahq-classifier-NN-NAME.pkl`, pickles of dnnlib.tflib.network.Network.
PyTorch: retrained ones, `net_best.pth` with epoch, valacc and state_dict. Both apply the gain
sqrt(2 / fan_in) of He et al. 2015 at run time, and 1 / sqrt(fan_in) in the last layer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.base.errors import BadFile
from editbench.networks.celebahq.network import CelebAHQClassifier, ClassifierConfig
from editbench.networks.checkpoints.assemble import resolution_of, shape_of
from editbench.networks.checkpoints.parts import flat
from editbench.networks.checkpoints.tensorflow import is_network, variables_of
from editbench.networks.external import unwrapped
from editbench.networks.weights import listed, load_strict

TENSORFLOW = "TensorFlow CelebA-HQ classifier"
PYTORCH = "PyTorch CelebA-HQ classifier (net_best.pth)"
# StyleGAN's discriminator has tensors of the same names, but blurs before down-sampling.
BLURRED = ("D_basic", "D_stylegan", "D_stylegan2", "D_main")
# Tensors of progressive growing, which are unused at full resolution.
GROWING = re.compile(r"lod|lod_in|FromRGB_lod[1-9]\d*/.+|fromrgb_lod[1-9]\d*\..+")
# Our layer -> theirs, in TensorFlow and in PyTorch.
LAYERS = {
    "rgb": ("FromRGB_lod0", "fromrgb_lod0.conv"),
    "conv": ("4x4/Conv", "4x4.conv"),
    "dense0": ("4x4/Dense0", "4x4.dense0"),
    "dense1": ("4x4/Dense1", "4x4.dense1"),
}
# Names within a layer of `net_best.pth`.
INNER = ("conv.weight", "linear.weight")


@dataclass
class ReadClassifier:
    """A classifier that was read from a file.

    Args:
        path: of the file.
        format: TENSORFLOW or PYTORCH.
        network: the classifier, float32, in evaluation mode.
        notes: (name, value) lines to show.
    """

    path: Path
    format: str
    network: CelebAHQClassifier
    notes: list[tuple[str, str]]


def is_classifier(content: Any) -> bool:
    """Whether the content of a file is a CelebA-HQ classifier."""
    if is_network(content):
        known = isinstance(content.state, Mapping) and (
            str(content.state.get("build_func_name")) not in BLURRED
        )
        return known and {"FromRGB_lod0/weight", "4x4/Dense1/weight"} <= _names(content.state)
    state = _state_dict(content)
    return "4x4.dense1.linear.weight" in state and "4x4.conv.conv.weight" in state


def read_classifier(path: Path, content: Any) -> ReadClassifier:
    """The classifier in a file's content.

    Args:
        path: of the file, for messages.
        content: as returned by the pickle reader, see `is_classifier`.

    Raises:
        BadFile: tensors are missing, unexpected, of another shape or not finite.
    """
    if is_network(content):
        tensors = variables_of(content, path)
        return _assemble(path, TENSORFLOW, _plain(path, _tensorflow_layers(tensors)), [])
    notes = []
    # Information about its training, only to be shown.
    for key in ("epoch", "valacc"):
        if isinstance(content, Mapping) and isinstance(content.get(key), (int, float)):
            notes.append((key, f"{content[key]:g}"))
    return _assemble(path, PYTORCH, _plain(path, _pytorch_layers(_state_dict(content))), notes)


def _names(state: Mapping[str, Any]) -> set[str]:
    """Names of the variables of a TensorFlow network. A damaged file may hold anything there."""
    variables = state.get("variables")
    names = set()
    for item in variables if isinstance(variables, list) else ():
        if isinstance(item, tuple) and item and isinstance(item[0], str):
            names.add(item[0])
    return names


def _state_dict(content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, or of a checkpoint that contains one, without prefixes."""
    if not isinstance(content, Mapping):
        return {}
    inner = content.get("state_dict")
    return unwrapped(flat(inner if isinstance(inner, Mapping) else content))


# -- layers by their names -------------------------------------------------------------------------
def _tensorflow_layers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors to '<layer>.weight', (out, in, ...), and '<layer>.bias'; others keep names."""
    found = {}
    for name, value in tensors.items():
        layer, _, part = name.rpartition("/")
        # The layouts there are (height, width, in, out) and (in, out).
        if part == "weight" and value.dim() in (2, 4):
            value = value.permute(3, 2, 0, 1) if value.dim() == 4 else value.t()
        for ours, (theirs, _) in LAYERS.items():
            layer = ours if layer == theirs else layer
        block = re.fullmatch(r"(\d+)x\1/(Conv0|Conv1|Conv1_down)", layer)
        if block:
            layer = f"{block[1]}.{block[2].lower()}"
        found[name if GROWING.fullmatch(name) else f"{layer}.{part}"] = value
    return found


def _pytorch_layers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As `_tensorflow_layers`, for net_best.pth."""
    found = {}
    for name, value in tensors.items():
        ours = name
        for layer, (_, theirs) in LAYERS.items():
            if name.startswith(f"{theirs}."):
                ours = f"{layer}.{name.removeprefix(f'{theirs}.')}"
        block = re.match(r"(\d+)x\1\.(conv[01])\.", name)
        if block:
            # An average between convolution and activation, which is one convolution of stride 2.
            kind = "conv1_down" if block[2] == "conv1" else "conv0"
            ours = f"{block[1]}.{kind}.{name[block.end() :]}"
        for inner in INNER:
            ours = ours.replace(f".{inner}", ".weight")
        found[ours.replace(".wscale.b", ".bias")] = value
    return found


def _plain(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in double precision, without those of progressive growing; checks for NaN."""
    found = {}
    for name, value in tensors.items():
        if GROWING.fullmatch(name):
            continue
        if not torch.isfinite(value).all():
            raise BadFile(
                f"{path}: '{name}' holds NaN or infinity; the file is damaged: copy it again"
            )
        found[name] = value.double()
    return found


# -- the network ---------------------------------------------------------------------------------
def _assemble(
    path: Path, kind: str, tensors: dict[str, Tensor], notes: list[tuple[str, str]]
) -> ReadClassifier:
    sizes = [int(found[1]) for name in tensors if (found := re.match(r"(\d+)\.conv0\.w", name))]
    resolution = resolution_of([4, *sizes], path)
    halves = [resolution >> k for k in range(resolution.bit_length() - 3)]
    fused = f"{resolution}.conv1_down.weight" in tensors
    second = "conv1_down" if fused else "conv1"
    widths = [shape_of(tensors, f"{size}.{second}.weight", path, 4)[0] for size in halves]
    last = shape_of(tensors, "conv.weight", path, 4)
    first = shape_of(tensors, "rgb.weight", path, 4)
    # One channel in addition to those of the preceding block is the minibatch statistic.
    extra = last[1] - (widths[-1] if widths else first[0])
    if first[1] != 3 or extra not in (0, 1):
        raise BadFile(
            f"{path}: not a CelebA-HQ classifier: it takes {first[1]} colours, and its last "
            f"convolution {extra} channels more than there are (0, or 1 for the statistic)"
        )
    if shape_of(tensors, "dense1.weight", path, 2)[0] != 1:
        raise BadFile(
            f"{path}: gives {len(tensors['dense1.weight'])} logits, where a CelebA-HQ classifier "
            "gives one; declare it as a ModuleScorer (docs/scorers.md)"
        )
    config = ClassifierConfig(
        resolution=resolution,
        widths=(*widths, last[0]),
        fused=fused,
        statistic=bool(extra),
        first=first[0],
        dense=shape_of(tensors, "dense0.weight", path, 2)[0],
    )
    network = CelebAHQClassifier(config)
    # In double precision until here, so that gains and sums of shifts are rounded only once.
    state = {}
    for name, value in tensors.items():
        layer, _, part = name.rpartition(".")
        if part == "weight":
            value = value * _gain(layer, value)
        if part == "weight" and layer.endswith("conv1_down"):
            value = _halving_kernel(value)
        state[_our_name(layer, part, halves)] = value.float().contiguous()
    try:
        load_strict(network, state, path)
    except BadFile as error:
        raise BadFile(f"{error}\n  it holds {listed(sorted(tensors))}") from error
    return ReadClassifier(path, kind, network.eval().requires_grad_(False), notes)


def _gain(layer: str, weight: Tensor) -> float:
    """The run-time scale of the equalised learning rate, after He et al. 2015."""
    # At least 1, since a damaged file may have an empty tensor.
    fan_in = max(math.prod(weight.shape[1:]), 1)
    gain = 1.0 if layer == "dense1" else math.sqrt(2)
    return gain / math.sqrt(fan_in)


def _our_name(layer: str, part: str, halves: list[int]) -> str:
    size, _, conv = layer.partition(".")
    if conv and size.isdecimal() and int(size) in halves:
        return f"blocks.{halves.index(int(size))}.{conv.removesuffix('_down')}.{part}"
    return f"{layer}.{part}"


def _halving_kernel(weight: Tensor) -> Tensor:
    """A kernel (out, in, 3, 3), then averages of 2 x 2 pixels, as one (out, in, 4, 4) of stride 2."""
    ring = F.pad(weight, (1, 1, 1, 1))
    total = ring[..., 1:, 1:] + ring[..., :-1, 1:] + ring[..., 1:, :-1] + ring[..., :-1, :-1]
    return total * 0.25
