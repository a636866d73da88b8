"""A scorer that calls a Python function, or any other callable, from images to logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from editbench.base.errors import EditbenchError
from editbench.base.files import digest
from editbench.base.validation import load_target
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
        EditbenchError: it cannot be imported, is not callable, or its output does not fit the
            attributes.
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
        called: Any = function
        if isinstance(function, str):
            called = load_target("scorer.function", function)
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
