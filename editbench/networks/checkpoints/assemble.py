"""From tensors of another project's names to our network, with nothing missing or left over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from editbench.base.errors import BadFile
from editbench.base.seeding import normals
from editbench.networks.stylegan import StyleConfig, StyleNetwork
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.networks.stylegan2.ops import FIR
from editbench.networks.weights import listed

# of z that the mean w is measured over; rosinality's generate.py takes 4,096
W_AVG_SAMPLES = 10_000
# Tensors of a convolution with a style, by our names; a ToRGB has no noise.
CONV_PARTS = ("affine.weight", "affine.bias", "weight", "bias", "noise_strength", "noise")
RGB_PARTS = CONV_PARTS[:4]


def unchanged(value: Tensor) -> Tensor:
    return value


@dataclass(frozen=True)
class Rule:
    """Where one of our tensors comes from.

    Args:
        source: name of the tensor in the file.
        change: makes it ours; the shape is checked afterwards.
    """

    source: str
    change: Callable[[Tensor], Tensor] = unchanged


@dataclass
class CheckpointContent:
    """What a reader found in a file.

    Args:
        path: of the file.
        format: in words.
        config: the architecture that its shapes and options say.
        tensors: by the names of the file.
        rules: a Rule for each of our names; None where the file lacks what the network can do
            without (noise becomes zero, w_avg is measured).
        beside: names that say what the configuration already has, as low-pass filters.
        notes: (what, value) lines to show.
        assumed: configuration that such a file does not hold.
        network: what it is of.
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
    """(our name, 'up' or 'conv' or 'rgb', pixels) of the synthesis layers in their order."""
    for block in range(config.blocks):
        size = 4 * 2**block
        if block:
            yield f"conv{size}_up", "up", size
        yield f"conv{size}", "conv", size
        if config.architecture == "skip" or size == config.resolution:
            yield f"rgb{size}", "rgb", size


def shape_of(tensors: Mapping[str, Tensor], name: str, path: Path, axes: int) -> tuple[int, ...]:
    """Shape of a tensor that the architecture is read from; BadFile where it has other axes."""
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
    """The largest of the block sizes, which must be 4, 8, 16, ... without a gap."""
    found = sorted(set(sizes))
    # A gap means that tensors are missing, which the shapes of the others would hide.
    if not found or found != [4 * 2**k for k in range(len(found))]:
        raise BadFile(
            f"{path}: blocks of {', '.join(map(str, found)) or 'no'} pixels, expected 4, 8, 16, "
            "... without a gap: the file is truncated or of another architecture"
        )
    return found[-1]


def filter_taps(filters: Mapping[str, Tensor], path: Path) -> tuple[float, ...]:
    """The taps of the low-pass filter that all of `filters` must be, whatever their gain.

    FIR where there is none.
    """
    found: Tensor | None = None
    for name, value in filters.items():
        taps = _taps_of(name, value.double(), path)
        if found is not None and not _alike(found, taps):
            raise BadFile(f"{path}: its layers have different low-pass filters; they must be equal")
        found = taps
    common = torch.tensor(FIR, dtype=torch.float64)
    if found is None or _alike(found, common / common.sum()):
        return FIR
    return tuple(found.tolist())


def _taps_of(name: str, value: Tensor, path: Path) -> Tensor:
    """The taps (L,) of a filter (L,) or (L, L), of unit sum."""
    # A square filter of one row of taps has row sums proportional to the taps.
    taps = value.sum(0) if value.dim() != 1 else value
    if (
        value.dim() not in (1, 2)
        or not torch.isfinite(value).all()
        or not taps.sum() > 0
        or len(taps) < 2
    ):
        raise BadFile(f"{path}: '{name}' {tuple(value.shape)} is not a low-pass filter")
    # Gains differ by layer (1 or 4) and are applied by our own operations.
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
    """Raise BadFile for what a configuration refuses in this block.

    Args:
        path: of the file.
        network: what the file should hold, such as 'StyleGAN2'.
    """
    try:
        yield
    except (ValueError, TypeError, ArithmeticError) as error:
        raise BadFile(
            f"{path}: its shapes and options are not those of a {network} ({error})"
        ) from error


def size_option(size: int, w_dim: int) -> int:
    """A size as a configuration has it: 0 where it is that of w."""
    return 0 if size == w_dim else size


def assemble(source: CheckpointContent) -> StyleNetwork:
    """The network of a source, float32, in evaluation mode.

    Raises:
        BadFile: tensors are missing, left over or of another shape than the architecture needs,
            listed by the names of the file; or hold NaN or infinity.
    """
    # Shapes without memory: a network of 1024 x 1024 has 30 million parameters.
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
        value = as_float(source.tensors[rule.source], rule, shape)
        if value is None:
            given = tuple(source.tensors[rule.source].shape)
            wrong.append(f"{rule.source} {given} (for {name} {shape})")
        else:
            state[name] = value
    # All differences at once: they show whether a wrong part was chosen or the file is cut.
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
    # Converted networks are decoded, not trained.
    network.eval().requires_grad_(False)
    # Without it truncation would pull to zero, which is no face.
    if source.rules.get("mapping.w_avg") is None:
        network.mapping.w_avg.copy_(mean_w(network))
    return network


def as_float(value: Tensor, rule: Rule, shape: tuple[int, ...]) -> Tensor | None:
    """The changed tensor as contiguous float32, None where it does not have the shape."""
    try:
        value = rule.change(value.detach().float())
    except (RuntimeError, IndexError):  # a permutation of other axes, for one
        return None
    if tuple(value.shape) == shape:
        return value.contiguous()
    return None


def mean_w(network: StyleNetwork) -> Tensor:
    """Mean of w (w_dim,) over W_AVG_SAMPLES z; labels, where there are any, in turn."""
    config = network.config
    z = torch.from_numpy(normals(0, "w_avg", 0, W_AVG_SAMPLES, config.z_dim)).float()
    # Classes in equal shares, as their shares in training are not in the file.
    label = None
    if config.c_dim:
        label = torch.eye(config.c_dim)[torch.arange(len(z)) % config.c_dim]
    return network.mapping(z, label).double().mean(0).float()
