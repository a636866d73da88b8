"""A scorer that calls a Python function, or any other callable, from images to logits."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from editbench.base.errors import EditbenchError, UnknownName
from editbench.base.files import digest
from editbench.networks.digests import describe, network_digest, source_of
from editbench.networks.scorers.module import ModuleScorer


class FunctionNetwork(nn.Module):
    """Wraps a callable as a module; arrays that it returns become tensors."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Any:
        out = self.function(images)
        # NumPy results are on the host and have no gradients.
        if isinstance(out, np.ndarray):
            return torch.from_numpy(out).to(images.device)
        return out


class CallableScorer(ModuleScorer):
    """A callable as a scorer: images (N, C, H, W) in [-1, 1] -> logits (N, width).

    Images are first converted to the callable's channels, size and range.

    Args:
        function: a dotted name, or in YAML the `{_target_: dotted.name, ...}` of an object that
            creates the callable. It gets a float32 tensor (N, channels, height, width) on the run's
            device and returns (N, columns), a tensor or an array. A row must depend only on its
            image. If it does not consist of torch operations, it has no gradients, and editors that
            need them are skipped.
        version: to be changed whenever the function's results change. Its source file, the user's
            modules that it imports and what it contains (arguments of a partial, attributes of an
            object, a closure) are hashed automatically, but not weights that it loads from files.

    The other arguments are those of ModuleScorer.

    Raises:
        UnknownName: there is no such module or function.
        EditbenchError: it is not callable, or its output does not fit the attributes.
    """

    def __init__(
        self,
        function: str | Callable[[Tensor], Any],
        attributes: Sequence[Mapping[str, Any]],
        input_size: Sequence[int] | None,
        version: str = "1",
        **declared: Any,
    ) -> None:
        # The name in records and in the digest.
        name = function if isinstance(function, str) else type(function).__name__
        called = function
        if isinstance(function, str):
            called = resolve(function)
        if not callable(called):
            raise EditbenchError(
                f"scorer.function {name} is a {type(called).__name__}, not a function of images"
            )
        network = called if isinstance(called, nn.Module) else FunctionNetwork(called)
        super().__init__(network, attributes, input_size, source=name, **declared)
        # A module is identified by its weights and settings, a function by its source.
        if not isinstance(called, nn.Module):
            self.digest = digest(
                ["callable", name, str(version), describe(called, with_source=True), self.declared]
            )
        else:
            parts: list[object] = [str(version), *self.declared]
            # The source of a `_target_` is part of the identity of a bank already.
            if isinstance(function, str):
                parts.append(digest(source_of(type(called))))
            self.digest = network_digest(called, *parts)


def resolve(name: str) -> Any:
    """The object of a dotted name, package.module.object (or .Class.method).

    Raises:
        UnknownName: the module or the object in it does not exist.
        EditbenchError: importing the module fails.
    """
    parts = name.split(".")
    # The longest part that is a module; the rest are attributes.
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError as error:
            # The module itself is missing, not a module that it imports.
            if error.name is not None and ".".join(parts[:end]).startswith(error.name):
                continue
            raise EditbenchError(
                f"scorer.function {name}: importing it failed ({error})"
            ) from error
        except Exception as error:  # importing a user's module may raise anything
            raise EditbenchError(
                f"scorer.function {name}: importing it failed ({type(error).__name__}: {error})"
            ) from error
        for part in parts[end:]:
            if not hasattr(found, part):
                raise UnknownName(
                    f"function of {getattr(found, '__name__', found)}",
                    part,
                    [key for key in vars(found) if not key.startswith("_")],
                )
            found = getattr(found, part)
        return found
    raise UnknownName(
        "module (put it into the current folder or beside --config-dir)",
        parts[0] if len(parts) > 1 else name,
        [],
    )
