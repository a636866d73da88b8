"""What an editor touches while its code runs: the trap for the judge and the test split, and the tally of costs."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from editbench.bank.bank import Bank, Split
from editbench.bank.starts import Starts


@dataclass
class Tally:
    """Counts over a stretch of editor code: samples that passed the generator's last layer, samples that
    `generator.decode` counted, samples the teacher scored, and whether the teacher's logits of a split were read."""

    passed: int = 0
    counted: int = 0
    scored: int = 0
    read: bool = False


@dataclass
class Watch:
    """`inside`: whether editor code runs now. touched: what it may not see, as 'Bank.array'. tally: its costs."""

    inside: bool = False
    touched: list[str] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    @contextlib.contextmanager
    def running(self, seed: int) -> Iterator[None]:
        """Editor code runs in this block, under a global random state that is set before and put back after."""
        before, self.inside = self.inside, True
        with global_seed(seed):
            try:
                yield
            finally:
                self.inside = before

    @contextlib.contextmanager
    def trap(self, *classes: type) -> Iterator[None]:
        """Note every use that editor code makes of a Bank, of Starts, or of an object of these classes (judges)."""
        with contextlib.ExitStack() as stack:
            for cls in (Bank, Starts, Split, *classes):
                stack.enter_context(self._spy(cls))
            yield

    @contextlib.contextmanager
    def _spy(self, cls: type) -> Iterator[None]:
        plain, watch = cast(Callable[[object, str], object], cls.__getattribute__), self
        title = "the judge" if issubclass(cls, nn.Module) else cls.__name__

        def spy(obj: object, name: str) -> object:
            if watch.inside and not name.startswith("__"):
                if cls is Split:
                    watch.tally.read |= name == "logits"
                else:
                    watch.touched.append(f"{title}.{name}")
            return plain(obj, name)

        type.__setattr__(cls, "__getattribute__", spy)
        try:
            yield
        finally:
            type.__delattr__(cls, "__getattribute__")

    @contextlib.contextmanager
    def count(self, last: nn.Module, teacher: nn.Module) -> Iterator[None]:
        """Count the samples that editor code sends through a generator's last layer and through the teacher."""

        def passed(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            self.tally.passed += len(output) if self.inside else 0

        def scored(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            self.tally.scored += len(output) if self.inside else 0

        hooks = [last.register_forward_hook(passed), teacher.register_forward_hook(scored)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@contextlib.contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and random; their states are put back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
