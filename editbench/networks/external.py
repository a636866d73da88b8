"""Third-party networks and weights: strict reading of plain safetensors files, and batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from editbench.base.errors import BadFile, EditbenchError, WrongType
from editbench.base.validation import check_numbers
from editbench.networks.torchscript import COPY_AGAIN, expect_kind
from editbench.networks.weights import (
    check_finite,
    load_strict,
    read_safetensors,
)

SAVE_WEIGHTS = "save its state dict with safetensors.torch.save_file(module.state_dict(), PATH)"

BATCHES = (1, 2, 3, 4, 5, 8, 16, 32, 64)  # common batch sizes for tracing networks
# Prefixes of names by DataParallel, DDP and AveragedModel; by torch.compile.
WRAPPERS = ("module.", "_orig_mod.")


def read_tensors(path: Path | str, needed: Sequence[str] = ()) -> dict[str, Tensor]:
    """Tensors on the host from any safetensors file; floating-point ones as float32.

    Args:
        path: of the file; no code from it is executed.
        needed: names that it must contain.

    Raises:
        BadFile: the file is missing, truncated or not safetensors (the message names the actual
            format), lacks a name of `needed`, or has NaN or infinity.
    """
    path = Path(path)
    expect_kind(path, "safetensors", SAVE_WEIGHTS)
    _, tensors = read_safetensors(path, COPY_AGAIN)
    # The message lists all missing names.
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise BadFile(
            f"{path}: lacks {', '.join(missing)}; it holds "
            f"{', '.join(sorted(tensors)) or 'nothing'}"
        )
    tensors = {
        # With half-precision weights, all later sums would be in half precision too.
        name: value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
    }
    check_finite(path, tensors, COPY_AGAIN)
    return tensors


def _as_module(network: nn.Module | Sequence[nn.Module]) -> nn.Module:
    """Convert to a module.

    A list of layers becomes an nn.Sequential (names 0., 1., ...), and a torch.export program its
    graph module.
    """
    if isinstance(network, torch.export.ExportedProgram):
        network = network.module()
    if isinstance(network, nn.Module):
        return network
    if isinstance(network, Sequence) and all(isinstance(layer, nn.Module) for layer in network):
        return nn.Sequential(*network)
    raise EditbenchError(
        f"'network' must be an nn.Module or a list of layers, each {{_target_: dotted.name, ...}}; "
        f"got {type(network).__name__}"
    )


def load_network(network: nn.Module | Sequence[nn.Module], weights: Path | str | None) -> nn.Module:
    """The network with its weights, constant and in evaluation mode.

    Args:
        network: see `_as_module`.
        weights: a safetensors file; None keeps the network's weights.

    Raises:
        BadFile: as `read_tensors`; or names or shapes differ, and the message lists the
            differences.
        EditbenchError: a lazy layer of the network has no shape yet.
    """
    network = _as_module(network)
    _refuse_lazy_layers(network)
    if weights is not None:
        tensors = read_tensors(weights)
        # Prefixes of wrappers are removed only if the names do not match otherwise, since a network
        # may have a child named `module`.
        if set(tensors) != set(network.state_dict()):
            tensors = unwrapped(tensors)
        load_strict(network, tensors, weights)
    return cast(nn.Module, freeze(network))


def _refuse_lazy_layers(network: nn.Module) -> None:
    """Raise EditbenchError if a layer such as nn.LazyLinear has no shape yet."""
    for name, layer in network.named_modules():
        if any(is_lazy(weight) for weight in layer.parameters(recurse=False)):
            raise EditbenchError(
                f"layer '{name}' of {type(network).__name__} is an nn.{type(layer).__name__}, whose "
                "weights have no shape before the network is run: give it the size of its input, "
                "as in nn.Linear(512, 10) for nn.LazyLinear(10)"
            )


def freeze(network: object, device: torch.device | str | None = None) -> Any:
    """Make the weights of any network constant, and set it to evaluation mode.

    Args:
        network: a module, a torch.export program, or a function, which is returned unchanged.
        device: to which the network is moved; None for no move.

    Returns:
        The network, changed in place; the module of a program.
    """
    if isinstance(network, torch.export.ExportedProgram):
        network = network.module()
    if not isinstance(network, nn.Module):
        return network
    fix_modes(network)
    network.to(device).eval()
    # Not `network.requires_grad_`, which TorchScript modules do not support.
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network


def fix_modes(network: nn.Module) -> None:
    """Make `train` and `eval` of torch.export graphs in a network do nothing instead of failing.

    Their mode was fixed when they were exported.
    """
    for part in network.modules():
        if isinstance(part, torch.fx.GraphModule) and {"train", "eval"} <= vars(part).keys():
            part.train = MethodType(_keep_mode, part)  # type: ignore[method-assign]
            part.eval = MethodType(_keep_mode, part)  # type: ignore[method-assign]


def _keep_mode(network: nn.Module, mode: bool = False) -> nn.Module:
    """`train` and `eval` for a network without modes."""
    return network


def explain_dtype(network: nn.Module, values: Tensor, what: str) -> None:
    """Say that values have another type than the weights, for a pass that failed.

    Not checked before the pass, since a network may well compute with another type.

    Args:
        network: of the pass.
        values: that were passed to it.
        what: begins the message, such as 'Generator decodes codes'.

    Raises:
        WrongType: the types differ.
    """
    weights = next(network.parameters(), None)
    if weights is not None and weights.dtype != values.dtype:
        raise WrongType(
            f"{what} of {weights.dtype}, not of {values.dtype}: pass values.to({weights.dtype}); "
            "NumPy's arrays are float64 unless they say otherwise"
        )


@torch.no_grad()
def fixed_batch(network: Callable[[Tensor], object], shape: Sequence[int]) -> int | None:
    """The only batch size that a network accepts, for example because it was traced with it.

    Args:
        network: maps a batch to a tensor with as many rows.
        shape: of one sample.

    Returns:
        The batch size; None if the network accepts none of BATCHES, or several.
    """
    found = []
    rng = torch.Generator().manual_seed(0)
    for n in BATCHES:
        try:
            out = network(torch.rand(n, *shape, generator=rng) * 2 - 1)
        # Any of these errors means that the network does not accept this batch size.
        except (RuntimeError, ValueError, TypeError, IndexError, EditbenchError):
            continue
        if isinstance(out, Tensor) and out.dim() and len(out) == n:
            found.append(n)
    return found[0] if len(found) == 1 else None


def black_and_white(key: str, values: object) -> tuple[float, float]:
    """Check the values that a network has for black and white.

    Args:
        key: dotted name of the option, for the message.
        values: of the configuration, of any type.

    Raises:
        EditbenchError: they are not two numbers in ascending order.
    """
    black, white = check_numbers(key, values, 2)
    # If black were above white, images would be inverted.
    if not black < white:
        raise EditbenchError(f"{key} must be [black, white], black below white; got {values}")
    return black, white


def refuse_fixed_batch(
    network: Callable[[Tensor], object],
    shape: Sequence[int],
    source: str,
    samples: str,
    cause: Exception | None,
) -> None:
    """Raise EditbenchError if a network accepts only one batch size.

    Args:
        network: see `fixed_batch`.
        shape: see `fixed_batch`.
        source: of the network, for the message.
        samples: what it takes, in the plural, for the message.
        cause: the network's error for another batch size.
    """
    batch = fixed_batch(network, shape)
    if batch is None:
        return
    raise EditbenchError(
        f"{source}: takes exactly {batch} {samples} at once, but the benchmark uses any number: it "
        f"was traced at a batch of {batch}, which made its shapes constant. Save it with "
        "torch.jit.script(module.eval()), or trace it after writing x.flatten(1) or "
        "x.view(x.shape[0], -1) for its reshapes, and try it on two batches of different sizes"
    ) from cause


def unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that DataParallel and torch.compile add to all names."""
    for head in WRAPPERS:
        if tensors and all(name.startswith(head) for name in tensors):
            return unwrapped({name.removeprefix(head): tensors[name] for name in tensors})
    return tensors
