"""Detects the format of a checkpoint, and finds the generator in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from editbench.base.errors import BadFile, UnknownName
from editbench.networks.checkpoints.assemble import Assumed, CheckpointContent
from editbench.networks.checkpoints.nvlabs import read_nvlabs
from editbench.networks.checkpoints.parts import (
    GeneratorPart,
    choose_generator,
    find_generators,
    find_mean,
    flat,
)
from editbench.networks.checkpoints.rosinality import MEAN, read_rosinality
from editbench.networks.checkpoints.stylegan3 import is_stylegan3, read_stylegan3
from editbench.networks.checkpoints.tensorflow import is_network, read_tensorflow
from editbench.networks.pickles import Opaque, read_pickle
from editbench.networks.pickles.modules import class_name, module_state, module_tensors
from editbench.networks.weights import METADATA_KEY, listed, read_safetensors

USUAL = (
    "G_ema",
    "g_ema",
    "params_ema",
    "generator_ema",
    "G",
    "g",
    "generator",
    "state_dict",
    "model",
)
# Prefixes of names that nn.DataParallel and training scripts add, also nested.
WRAPPERS = rf"(?:(?:{'|'.join((*USUAL, 'module', '_orig_mod', 'netG', 'decoder'))})\.)*"
TRIPLE = ("G", "D", "Gs")  # the networks in a TensorFlow pickle, in this order
# Descriptions of unsupported files by the names of tensors: (pattern, description).
OTHERS = (
    (
        r"(b\d+\.fromrgb|b4\.out|b4\.mbstd|final_linear\.\d|convs\.\d+\.conv[12]\.\d)",
        "a discriminator; choose the generator with --name",
    ),
    (
        r"(g_synthesis\.|g_mapping\.|generator\.progression\.|.*\.style_mod\.|.*\.epi\d\.)",
        "a StyleGAN of 2018 (StyleGAN1); StyleGAN2 and StyleGAN3 are read",
    ),
    (
        r"synthesis\.layers\.(conv4|input)\.",
        "the state of a network of editbench itself; write it with the generator's `save`",
    ),
)


def read_content(path: Path) -> Any:
    """The content of a checkpoint in plain containers; see `read_pickle`."""
    # By the ending, since safetensors files have no signature.
    if path.suffix != ".safetensors":
        return read_pickle(path)
    header, tensors = read_safetensors(path, "copy it again from where it came")
    # editbench's own layout is different, and the later error message would mislead.
    if METADATA_KEY in header:
        raise BadFile(
            f"{path}: was written by editbench already; use it with generator=stylegan2, or "
            f"stylegan3, and generator.weights={path}"
        )
    return tensors


def source_of(
    path: Path,
    content: Any,
    name: str | None = None,
    mapping_lr: float = 0.01,
    conv_clamp: float | None = None,
) -> CheckpointContent:
    """Find the generator in the content of a checkpoint.

    Args:
        path: of the file, for messages.
        content: from `read_content`.
        name: key of the generator in the file, with dots for nested keys; by default the only
            generator, or the only one with averaged weights.
        mapping_lr: for files that do not contain it, see CheckpointContent.assumed.
        conv_clamp: for files that do not contain it.

    Raises:
        BadFile: the file is damaged, has several generators (the message lists their names), or
            has no supported generator (the message says what it is, if recognised).
        UnknownName: the file has no `name`.
    """
    part = _pick(content, name, path)
    if is_network(part):
        return read_tensorflow(path, part)
    found = find_generators(part)
    if not found:
        _refuse(path, part if name else _usual_part(part))
    chosen = choose_generator(found, path, name)
    place = ".".join(filter(None, (name, chosen.name)))
    assumed = {"mapping_lr": mapping_lr, "conv_clamp": conv_clamp}
    source = _read_layout(path, content, chosen, place, assumed)
    # If a file has several networks, the note says which one was used.
    if place:
        source.notes.append(("part of the file", place))
    return source


def _read_layout(
    path: Path,
    content: Any,
    part: GeneratorPart,
    place: str,
    assumed: Assumed,
) -> CheckpointContent:
    """The source of a generator, whose layout is detected from the names of its tensors.

    `place` is its name in the file.
    """
    tensors = part.tensors
    _refuse_others(path, tensors)
    if is_stylegan3(tensors):
        return read_stylegan3(path, tensors, part.module, assumed)
    if any(re.match(r"synthesis\.b\d+\.", key) for key in tensors):
        return read_nvlabs(path, tensors, part.module, assumed)
    mean = find_mean(content, place)
    if mean is not None and MEAN not in tensors:
        tensors[MEAN] = mean
    return read_rosinality(path, tensors, assumed)


def _refuse_others(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise BadFile for tensors whose names, without wrappers, are those of another network."""
    for pattern, other in OTHERS:
        if any(re.match(WRAPPERS + pattern, key) for key in tensors):
            raise BadFile(f"{path}: this is {other}")


def _refuse(path: Path, part: Any) -> NoReturn:
    """Raise BadFile for a part without a generator; the message describes it."""
    is_module = module_state(part) is not None
    tensors = module_tensors(part) if is_module else flat(part)
    if not tensors:
        raise BadFile(
            f"{path}: {_describe(part)}, but a generator or its state dict is needed; choose one with "
            "--name"
        )
    _refuse_others(path, tensors)
    about = f"a {class_name(part)}" if is_module else "a state dict"
    raise BadFile(
        f"{path}: {about} with {listed(sorted(tensors))}, not a StyleGAN2 or StyleGAN3 generator "
        "of a layout known here (NVlabs' PyTorch or TensorFlow, rosinality)"
    )


def _usual_part(content: Any) -> Any:
    """The part that usually is the generator, if none was found; otherwise the whole content."""
    for key in USUAL:
        if isinstance(content, Mapping) and content.get(key) is not None:
            return content[key]
    return content


def _pick(content: Any, name: str | None, path: Path) -> Any:
    """The part of the content with this name, see `source_of`.

    Without a name it is the whole content, or Gs, the averaged generator of a TensorFlow pickle.
    Raises UnknownName if there is no such part, and BadFile if it is None.
    """
    if (
        isinstance(content, (tuple, list))
        and len(content) == len(TRIPLE)
        and all(map(is_network, content))
    ):
        content = dict(zip(TRIPLE, content))
        name = name or "Gs"
    if not name:
        return content
    part = content
    for key in name.split("."):
        known = part if isinstance(part, Mapping) else _children(part)
        if key in known:
            part = known[key]
            continue
        # State dicts of several networks have dotted names instead of nested dicts.
        inner = {
            str(full)[len(key) + 1 :]: value
            for full, value in known.items()
            if str(full).startswith(f"{key}.")
        }
        if not inner:
            raise UnknownName(
                f"part of {path}", name, [str(key) for key in known] or [_describe(part)]
            )
        part = inner
    if part is None:
        raise BadFile(f"{path}: has no network under '{name}'; choose another part with --name")
    return part


def _children(part: Any) -> Mapping[str, Any]:
    """The submodules of a pickled module; empty for anything else."""
    state = module_state(part)
    return {} if state is None else state["_modules"]


def _describe(part: Any) -> str:
    if isinstance(part, Opaque):
        return f"it holds a {class_name(part)}"
    if isinstance(part, Mapping):
        return f"it holds {listed(sorted(map(str, part)))}"
    return f"it holds a {type(part).__name__}"
