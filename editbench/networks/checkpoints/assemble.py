"""Builds a network from another project's tensors, of which none may be missing or unexpected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editbench.base.errors import BadFile
from editbench.base.seeding import normals
from editbench.networks.stylegan import StyleConfig, StyleNetwork
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.networks.stylegan2.ops import FIR
from editbench.networks.weights import listed

# Number of z to compute the mean w; rosinality's generate.py uses 4,096.
W_AVG_SAMPLES = 10_000
# What a state dict does not contain: key of the configuration -> its value.
Assumed = dict[str, Any]
# Tensors of a convolution with a style, by our names. A ToRGB has no noise.
CONV_PARTS = ("affine.weight", "affine.bias", "weight", "bias", "noise_strength", "noise")
RGB_PARTS = CONV_PARTS[:4]


def unchanged(value: Tensor) -> Tensor:
    return value


@dataclass(frozen=True)
class Rule:
    """The source of one of our tensors.

    Args:
        source: name of the tensor in the file.
        change: converts it; the shape is checked afterwards.
    """

    source: str
    change: Callable[[Tensor], Tensor] = unchanged


@dataclass
class CheckpointContent:
    """What a reader found in a file.

    Args:
        path: of the file.
        format: its name.
        config: the architecture, from shapes and options in the file.
        tensors: by their names in the file.
        rules: a Rule for each of our names; None if the file lacks a tensor that is not required
            (noise becomes zero, w_avg is computed).
        beside: names of tensors that the configuration already describes, such as low-pass filters.
        notes: (name, value) lines to show.
        assumed: keys of the configuration that such a file does not contain.
        network: class of the network.
    """

    path: Path
    format: str
    config: StyleConfig
    tensors: dict[str, Tensor]
    rules: dict[str, Rule | None]
    beside: set[str] = field(default_factory=set)
    notes: list[tuple[str, str]] = field(default_factory=list)
    assumed: tuple[str, ...] = ()
    network: type[StyleNetwork] = StyleGAN2


def layers(config: StyleGAN2Config) -> Iterator[tuple[str, str, int]]:
    """(our name, 'up' or 'conv' or 'rgb', side in pixels) of the synthesis layers, in order."""
    for block in range(config.blocks):
        size = 4 * 2**block
        if block:
            yield f"conv{size}_up", "up", size
        yield f"conv{size}", "conv", size
        if config.architecture == "skip" or size == config.resolution:
            yield f"rgb{size}", "rgb", size


def shape_of(tensors: Mapping[str, Tensor], name: str, path: Path, axes: int) -> tuple[int, ...]:
    """Shape of a tensor of a file.

    Args:
        tensors: of the file, by name.
        name: of the tensor.
        path: of the file, for the message.
        axes: how many the tensor must have.

    Raises:
        BadFile: there is no such tensor, or it has another number of axes.
    """
    if name not in tensors:
        raise BadFile(
            f"{path}: lacks '{name}', so it is not a whole generator; it holds "
            f"{listed(sorted(tensors))}"
        )
    if tensors[name].dim() != axes:
        raise BadFile(
            f"{path}: '{name}' has shape {tuple(tensors[name].shape)}, expected {axes} axes"
        )
    return tuple(tensors[name].shape)


def resolution_of(sizes: Iterable[int], path: Path) -> int:
    """The largest of the block sizes, which must be 4, 8, 16, ... without a gap.

    Args:
        sizes: sides of the blocks in pixels, in any order.
        path: of the file, for the message.

    Raises:
        BadFile: there is none, or one is missing.
    """
    found = sorted(set(sizes))
    # A gap means that tensors are missing.
    if not found or found != [4 * 2**k for k in range(len(found))]:
        raise BadFile(
            f"{path}: blocks of {', '.join(map(str, found)) or 'no'} pixels, expected 4, 8, 16, "
            "... without a gap: the file is truncated or of another architecture"
        )
    return found[-1]


def filter_taps(filters: Mapping[str, Tensor], path: Path) -> tuple[float, ...]:
    """The taps of the low-pass filter, which must be the same for all layers up to a gain.

    Args:
        filters: name -> (L,) taps or (L, L) kernel of a layer.
        path: of the file, for the message.

    Returns:
        (L,) taps; FIR if the file has no filter, or one that is proportional to FIR.

    Raises:
        BadFile: the filters differ, or one is not separable.
    """
    found: Tensor | None = None
    for name, value in filters.items():
        taps = _taps_of(name, value.double(), path)
        if found is not None and not _alike(found, taps):
            raise BadFile(f"{path}: its layers have different low-pass filters; they must be equal")
        found = taps
    common = torch.tensor(FIR, dtype=torch.float64)
    # FIR itself, not the taps of unit sum, so that the usual filter is the configuration's default.
    if found is None or _alike(found, common / common.sum()):
        return FIR
    return tuple(found.tolist())


def _taps_of(name: str, value: Tensor, path: Path) -> Tensor:
    """The taps (L,), of unit sum, of a filter (L,) or (L, L)."""
    # The sums of a separable square filter are proportional to its taps.
    taps = value.sum(0) if value.dim() != 1 else value
    if (
        value.dim() not in (1, 2)
        or not torch.isfinite(value).all()
        or not taps.sum() > 0
        or len(taps) < 2
    ):
        raise BadFile(f"{path}: '{name}' {tuple(value.shape)} is not a low-pass filter")
    # Gains differ between layers (1 or 4) and are applied elsewhere.
    taps = taps / taps.sum()
    if value.dim() == 2 and not _alike(value / value.sum(), torch.outer(taps, taps)):
        raise BadFile(
            f"{path}: the filter '{name}' is not one row of taps for both axes, the only kind "
            "supported"
        )
    return taps


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-6)


@contextmanager
def explain_architecture(path: Path, network: str) -> Iterator[None]:
    """Convert errors of a configuration in this block to BadFile.

    Args:
        path: of the file.
        network: what the file should contain, such as 'StyleGAN2'.
    """
    try:
        yield
    except (ValueError, TypeError, ArithmeticError) as error:
        raise BadFile(
            f"{path}: its shapes and options are not those of a {network} ({error})"
        ) from error


def size_option(size: int, w_dim: int) -> int:
    """A size for a configuration: 0 if it is w_dim.

    Args:
        size: number of features in the file.
        w_dim: of the network.
    """
    return 0 if size == w_dim else size


def assemble(source: CheckpointContent) -> StyleNetwork:
    """The network of a source, float32, in evaluation mode.

    Raises:
        BadFile: tensors are missing, unexpected, or have the wrong shape for the architecture (the
            message lists their names in the file); or they have NaN or infinity.
    """
    # Without allocating memory, since a 1024 x 1024 network has 30 million parameters.
    with torch.device("meta"):
        expected = source.network(source.config).state_dict()
    state: dict[str, Tensor] = {}
    missing = []
    wrong = []
    used = set(source.beside)
    for name, like in expected.items():
        shape = tuple(like.shape)
        rule = source.rules.get(name)
        if rule is None:
            state[name] = torch.zeros(shape)
            continue
        used.add(rule.source)
        if rule.source not in source.tensors:
            missing.append(rule.source)
            continue
        value = _as_float(source.tensors[rule.source], rule, shape)
        if value is None:
            given = tuple(source.tensors[rule.source].shape)
            wrong.append(f"{rule.source} {given} (for {name} {shape})")
        else:
            state[name] = value
    # All differences are listed, which shows whether a wrong part was chosen or the file is
    # truncated.
    problems = {
        "missing": missing,
        "unexpected": sorted(set(source.tensors) - used),
        "of another shape": wrong,
    }
    lines = [f"  {what}: {listed(names)}" for what, names in problems.items() if names]
    if lines:
        size = source.config.resolution
        title = (
            f"{source.path}: its tensors are not those of the {source.network.__name__} that its "
            f"shapes describe ({source.format}, {size}x{size}, {source.config.summary})"
        )
        raise BadFile("\n".join([title, *lines]))
    for name, value in state.items():
        if not torch.isfinite(value).all():
            rule = source.rules[name]
            raise BadFile(
                f"{source.path}: '{rule.source if rule else name}' holds NaN or infinity; the "
                "training diverged or the file is damaged: take another checkpoint, or copy it again"
            )
    network = source.network(source.config)
    network.load_state_dict(state)
    # Converted networks are not trained.
    network.eval().requires_grad_(False)
    # With w_avg = 0, truncation would move w towards zero, which is not a typical image.
    if source.rules.get("mapping.w_avg") is None:
        network.mapping.w_avg.copy_(_mean_w(network))
    return network


def _as_float(value: Tensor, rule: Rule, shape: tuple[int, ...]) -> Tensor | None:
    """A tensor of a file by its rule, contiguous float32; None if it has another shape."""
    try:
        value = rule.change(value.detach().float())
    except (RuntimeError, IndexError):  # for example, from a permutation of other axes
        return None
    if tuple(value.shape) == shape:
        return value.contiguous()
    return None


def classes_in_turn(n: int, c_dim: int) -> Tensor | None:
    """Labels (n, c_dim) of the classes 0, 1, ... in turn; None for an unconditional network."""
    return torch.eye(c_dim)[torch.arange(n) % c_dim] if c_dim else None


def _mean_w(network: StyleNetwork) -> Tensor:
    """Mean of w (w_dim,) over W_AVG_SAMPLES z, with all labels in turn if there are any."""
    config = network.config
    z = torch.from_numpy(normals(0, "w_avg", 0, W_AVG_SAMPLES, config.z_dim)).float()
    # Equal shares of classes, since those of the training are unknown.
    return network.mapping(z, classes_in_turn(len(z), config.c_dim)).double().mean(0).float()
