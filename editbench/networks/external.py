"""Networks and weights of others: plain safetensors files, read strictly, and content hashes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn

from editbench.base.errors import BadFile, EditbenchError, no_such
from editbench.networks.torchscript import expect_kind
from editbench.networks.weights import (
    check_finite,
    file_digest,
    load_strict,
    read_safetensors,
    tensors_digest,
)

REMEDY = (
    "check the path (relative ones start at the working directory; data=FOLDER moves ${data}), or "
    "copy it again"
)
SAVE_WEIGHTS = "save its state dict with safetensors.torch.save_file(module.state_dict(), PATH)"

BATCHES = (1, 2, 3, 4, 5, 8, 16, 32, 64)  # that networks are traced at
WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel, DDP and AveragedModel; of torch.compile


def read_tensors(path: Path | str, needed: Sequence[str] = ()) -> dict[str, Tensor]:
    """Tensors, on the host, of a safetensors file by anybody; floating ones as float32.

    Args:
        path: of the file; no code from it is run.
        needed: names that it must hold.

    Raises:
        BadFile: the file is missing, truncated or not safetensors, and then says what it is; lacks
            a name of `needed`; or holds NaN or infinity.
    """
    path = Path(path)
    if not path.is_file():
        raise BadFile(f"{path}: {no_such('file', path)}; {REMEDY}")
    expect_kind(path, "safetensors", SAVE_WEIGHTS)
    _, tensors = read_safetensors(path, REMEDY)
    # All that are missing at once, so that one message is enough.
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise BadFile(
            f"{path}: lacks {', '.join(missing)}; it holds "
            f"{', '.join(sorted(tensors)) or 'nothing'}"
        )
    tensors = {
        # Half-precision files would make every later sum half precision, too.
        name: value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
    }
    check_finite(path, tensors, REMEDY)
    return tensors


def as_module(network: nn.Module | Sequence[nn.Module]) -> nn.Module:
    """A module, or a list of layers that become one nn.Sequential (names 0., 1., ...).

    Of a program of torch.export its graph.
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
    """The network with its weights: evaluation mode, constant. `weights` None keeps those it came
    with.

    Raises:
        BadFile: `read_tensors`, or names and shapes differ; the message lists what is missing and
            what is too much.
    """
    network = as_module(network)
    if weights is not None:
        tensors = read_tensors(weights)
        # Only what does not fit as it is has a wrapper's name in front: a network may have a child
        # that is called `module`.
        if set(tensors) != set(network.state_dict()):
            tensors = unwrapped(tensors)
        load_strict(network, tensors, weights)
    return cast(nn.Module, frozen(network))


def frozen(network: object, device: torch.device | str | None = None) -> Any:
    """A network of anybody: in evaluation mode, constant, on a device.

    Args:
        network: a module, a program of torch.export, or a function, which stays as it is.
        device: where it goes; None leaves it where it is.
    """
    if isinstance(network, torch.export.ExportedProgram):
        network = network.module()
    if not isinstance(network, nn.Module):
        return network
    fix_modes(network)
    network.to(device).eval()
    # Not `network.requires_grad_`, which a TorchScript module refuses.
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network


def fix_modes(network: nn.Module) -> None:
    """Let graphs of torch.export within a network take `train` and `eval`, which they refuse: their
    mode was fixed when they were exported."""
    for part in network.modules():
        if isinstance(part, torch.fx.GraphModule) and {"train", "eval"} <= vars(part).keys():
            part.train = MethodType(_keep_mode, part)  # type: ignore[method-assign]
            part.eval = MethodType(_keep_mode, part)  # type: ignore[method-assign]


def _keep_mode(network: nn.Module, mode: bool = False) -> nn.Module:
    """`train` and `eval` of a network that has no modes."""
    return network


@torch.no_grad()
def fixed_batch(network: Callable[[Tensor], object], shape: Sequence[int]) -> int | None:
    """The only number of samples that a network takes, as one that was traced at it does.

    Args:
        network: from a batch to a tensor of as many rows.
        shape: of one sample.

    Returns:
        The number; None where it takes none of those that are tried, or several.
    """
    found = []
    rng = torch.Generator().manual_seed(0)
    for n in BATCHES:
        try:
            out = network(torch.rand(n, *shape, generator=rng) * 2 - 1)
        # Whatever a network of others raises: here it only says that it does not take this batch.
        except (RuntimeError, ValueError, TypeError, IndexError, EditbenchError):
            continue
        if isinstance(out, Tensor) and out.dim() and len(out) == n:
            found.append(n)
    return found[0] if len(found) == 1 else None


def refuse_fixed_batch(
    network: Callable[[Tensor], object],
    shape: Sequence[int],
    source: str,
    samples: str,
    cause: Exception | None,
) -> None:
    """Raise EditbenchError, with the remedy, where a network takes one number of samples alone.

    Args:
        network: see `fixed_batch`.
        shape: see there.
        source: of the network, for the message.
        samples: what it takes, in the plural.
        cause: what it raised at another number.
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
    """Names without the heads that DataParallel and torch.compile put before all of them."""
    for head in WRAPPERS:
        if tensors and all(name.startswith(head) for name in tensors):
            return unwrapped({name.removeprefix(head): tensors[name] for name in tensors})
    return tensors


def network_digest(network: nn.Module, *extra: object) -> str:
    """Hash of weights, structure, the source files of its classes other than PyTorch's, and the
    repr of `extra`.
    """
    files = set()
    for module in network.modules():
        name = type(module).__module__
        # The version of PyTorch is recorded elsewhere; here the user's own code counts.
        if not name.startswith("torch.") and getattr(sys.modules.get(name), "__file__", None):
            files.add(inspect.getfile(type(module)))
    return tensors_digest(
        network.state_dict(), repr(network), sorted(map(file_digest, files)), *extra
    )
