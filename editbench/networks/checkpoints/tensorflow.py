"""NVlabs' TensorFlow pickles of StyleGAN2, (G, D, Gs).

These are the official config-f networks and those of StyleGAN2-ADA for TensorFlow. A network is a
dnnlib.tflib.Network with static_kwargs, components (mapping, synthesis) and variables, a list of
(name, array). Names: dlatent_avg; mapping/DenseN/{weight,bias} and mapping/LabelEmbed;
synthesis/4x4/Const/const,
synthesis/RxR/{Conv,Conv0_up,Conv1,ToRGB}/{weight,bias,mod_weight,mod_bias,noise_strength},
synthesis/RxR/Skip/weight, synthesis/noiseN. G_main of StyleGAN2 also has lod, of progressive
growing, which its synthesis does not use.

Differences from our layout: dense weights are transposed; kernels are (height, width, in, out), and
those of the up-convolution are rotated by 180 degrees, since it is written as a convolution of the
up-sampled image; mod_bias lacks the 1 that is its initial value here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from editbench.base.errors import BadFile, Unsupported
from editbench.networks.checkpoints.assemble import (
    CONV_PARTS,
    RGB_PARTS,
    CheckpointContent,
    Rule,
    explain_architecture,
    filter_taps,
    layers,
    resolution_of,
    shape_of,
    size_option,
    unchanged,
)
from editbench.networks.pickles import Opaque
from editbench.networks.stylegan2.network import StyleGAN2Config
from editbench.networks.stylegan2.ops import FIR

# The module was moved between releases of dnnlib.
NAMES = ("dnnlib.tflib.network.Network", "tfutil.Network", "stylegan2.dnnlib.tflib.network.Network")
# Our name of a part -> theirs.
PART = {"affine.weight": "mod_weight", "affine.bias": "mod_bias"}
# Options that change the computation, and their values in our network.
USUAL = {
    "normalize_latents": (True,),
    "nonlinearity": ("lrelu",),
    "mapping_nonlinearity": ("lrelu",),
}
BOX = (1.0, 1.0)  # the meaning of resample_kernel=None
UNUSED = "lod"  # the stage of progressive growing
BLOCK = re.compile(r"synthesis/(\d+)x\1/(?:Conv|Conv1)/weight")


def is_network(value: Any) -> bool:
    return isinstance(value, Opaque) and (
        value.name in NAMES or value.name.endswith(".tflib.network.Network")
    )


def variables_of(network: Opaque, path: Path, prefix: str = "") -> dict[str, Tensor]:
    """All variables of a network and of its components, by path.

    Args:
        network: dnnlib.tflib.Network, not imported.
        path: of the file, for messages.
        prefix: of the names of the variables: the components that contain the network.

    Raises:
        BadFile: the network has no variables, or one is not an array of numbers.
    """
    state = network.state
    if not isinstance(state, dict) or not isinstance(state.get("variables"), list):
        raise BadFile(
            f"{path}: its TensorFlow network has no list of variables: older than StyleGAN2, or "
            "damaged"
        )
    found = {}
    for item in state["variables"]:
        if not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[0], str):
            raise BadFile(
                f"{path}: the variables of its TensorFlow network are not (name, array) pairs; it "
                "is damaged"
            )
        try:
            # Copied, since arrays of a pickle may be read-only, about which torch warns.
            found[prefix + item[0]] = torch.from_numpy(np.array(item[1]))
        except TypeError as error:
            raise BadFile(
                f"{path}: its variable '{prefix}{item[0]}' is not an array of numbers"
            ) from error
    # Mapping and synthesis are separate networks with their own variables.
    components = state.get("components")
    for name, part in components.items() if isinstance(components, dict) else ():
        if is_network(part):
            found |= variables_of(part, path, f"{prefix}{name}/")
    return found


def read_tensorflow(path: Path, network: Opaque) -> CheckpointContent:
    """The source of a TensorFlow StyleGAN2 generator.

    Args:
        path: of the file.
        network: dnnlib.tflib.Network of the generator, not imported.

    Raises:
        BadFile: it is a discriminator or a StyleGAN1, or its tensors do not fit.
        Unsupported: labels are concatenated to z without an embedding (StyleGAN2 before ADA), or
            options change the computation.
    """
    tensors = variables_of(network, path)
    # Before shapes are read, so that the message says what the network is.
    _refuse_others(path, tensors)
    kwargs = network.state.get("static_kwargs", {})
    if not isinstance(kwargs, dict):
        raise BadFile(
            f"{path}: the static_kwargs of its TensorFlow network are not a dict; it is damaged"
        )
    # Rejected, since the images would be different.
    for name, values in USUAL.items():
        if name in kwargs and kwargs[name] not in values:
            raise Unsupported(
                f"{path}: its network was made with {name}={kwargs[name]!r}; only {values[0]!r} is "
                "known"
            )
    resolution = resolution_of((int(m[1]) for m in map(BLOCK.fullmatch, tensors) if m), path)
    conv = ["synthesis/4x4/Conv"]
    for k in range(1, resolution.bit_length() - 2):
        conv.append(f"synthesis/{4 << k}x{4 << k}/Conv1")
    w_dim = shape_of(tensors, "synthesis/4x4/Conv/mod_weight", path, 2)[0]
    first = shape_of(tensors, "mapping/Dense0/weight", path, 2)
    label = "mapping/LabelEmbed/weight"
    embed = shape_of(tensors, label, path, 2) if label in tensors else (0, 0)
    depth = sum(1 for name in tensors if re.fullmatch(r"mapping/Dense\d+/weight", name))
    architecture = "orig"
    if any(name.endswith("/Skip/weight") for name in tensors):
        architecture = "resnet"
    elif "synthesis/4x4/ToRGB/weight" in tensors and resolution > 4:
        architecture = "skip"
    rgb = f"synthesis/{resolution}x{resolution}/ToRGB/weight"
    with explain_architecture(path, "StyleGAN2"):
        # None means no smoothing, which is a box filter of two pixels.
        taps = torch.tensor([float(tap) for tap in kwargs.get("resample_kernel", FIR) or BOX])
        clamp = kwargs.get("conv_clamp")
        config = StyleGAN2Config(
            resolution,
            tuple(shape_of(tensors, f"{name}/weight", path, 4)[3] for name in conv),
            z_dim=first[0] - embed[1],
            w_dim=w_dim,
            mapping_layers=depth,
            mapping_lr=float(kwargs.get("mapping_lrmul", 0.01)),
            img_channels=shape_of(tensors, rgb, path, 4)[3],
            c_dim=embed[0],
            architecture=architecture,
            fir=filter_taps({"resample_kernel": taps}, path),
            conv_clamp=None if clamp is None else float(clamp),
            embed_dim=size_option(embed[1], w_dim),
            mapping_width=size_option(first[1], w_dim),
        )
    noisy = any(re.fullmatch(r"synthesis/noise\d+", name) for name in tensors)
    notes = [("noise", "constant maps" if noisy else "none: the network was made without")]
    return CheckpointContent(
        path,
        "TensorFlow StyleGAN2 pickle",
        config,
        tensors,
        _tensorflow_rules(config, noisy),
        beside={UNUSED},
        notes=notes,
    )


def _refuse_others(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raise BadFile or Unsupported for a network that is no StyleGAN2 generator known here."""
    if any("FromRGB" in name for name in tensors):
        raise BadFile(
            f"{path}: this network is a discriminator; choose the generator with --name Gs"
        )
    if any("StyleMod" in name for name in tensors):
        raise BadFile(
            f"{path}: this is a StyleGAN of 2018 (StyleGAN1), whose synthesis normalises "
            "activations; only StyleGAN2 is read here"
        )
    if any("ToRGB_lod" in name for name in tensors):
        raise Unsupported(
            f"{path}: a network that grows progressively (config B to D of StyleGAN2); E and F are "
            "read"
        )
    if "mapping/LabelConcat/weight" in tensors:
        raise Unsupported(
            f"{path}: a conditional StyleGAN2 from before ADA, which normalises z and label "
            "together; networks with LabelEmbed are read"
        )


def dense(value: Tensor) -> Tensor:
    # TensorFlow stores (in, out), PyTorch (out, in).
    return value.t()


def kernel(value: Tensor) -> Tensor:
    """(height, width, in, out) -> (out, in, height, width)."""
    return value.permute(3, 2, 0, 1)


def turned(value: Tensor) -> Tensor:
    # TensorFlow's up-convolution has the kernel rotated by 180 degrees.
    return kernel(value.flip((0, 1)))


def _tensorflow_rules(config: StyleGAN2Config, noisy: bool) -> dict[str, Rule | None]:
    """Our names -> Rules with TensorFlow's names; `noisy`: whether the file has noise maps."""
    rules: dict[str, Rule | None] = {
        "mapping.w_avg": Rule("dlatent_avg"),
        "mapping.embed.weight": Rule("mapping/LabelEmbed/weight", dense),
        "mapping.embed.bias": Rule("mapping/LabelEmbed/bias"),
        "synthesis.const": Rule("synthesis/4x4/Const/const", lambda value: value.squeeze(0)),
    }
    for k in range(config.mapping_layers):
        rules[f"mapping.layers.{k}.weight"] = Rule(f"mapping/Dense{k}/weight", dense)
        rules[f"mapping.layers.{k}.bias"] = Rule(f"mapping/Dense{k}/bias")
    for name, kind, size in layers(config):
        own = {"up": "Conv0_up", "conv": "Conv" if size == 4 else "Conv1", "rgb": "ToRGB"}[kind]
        theirs = f"synthesis/{size}x{size}"
        # Noise maps are numbered over all convolutions; that of the 4x4 block is 0.
        noise = 2 * (size.bit_length() - 3) - (kind == "up")
        changes = {
            "weight": turned if kind == "up" else kernel,
            "affine.weight": dense,
            # TensorFlow adds 1 to the style; here it is part of the bias.
            "affine.bias": lambda value: value + 1,
            "noise": lambda value: value.squeeze(0).squeeze(0),
        }
        for part in RGB_PARTS if kind == "rgb" else CONV_PARTS:
            source = (
                f"synthesis/noise{noise}"
                if part == "noise"
                else f"{theirs}/{own}/{PART.get(part, part)}"
            )
            rule = Rule(source, changes.get(part, unchanged))
            absent = part.startswith("noise") and not noisy
            rules[f"synthesis.layers.{name}.{part}"] = None if absent else rule
        rules[f"synthesis.skips.{name}.weight"] = Rule(f"{theirs}/Skip/weight", turned)
    return rules
