"""What an editor touches while its code runs: a trap for what it may not see, and its costs."""

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
    """Counts over a stretch of editor code."""

    passed: int = 0  # samples that passed the generator's last layer
    counted: int = 0  # samples that `generator.decode` counted
    scored: int = 0  # samples that the teacher scored
    read: bool = False  # whether the teacher's logits of a split were read
    drawn: set[str] = field(default_factory=set)  # modules whose global random state it advanced


@dataclass
class Watch:
    """Observes editor code while it runs."""

    inside: bool = False  # whether editor code runs now
    touched: list[str] = field(default_factory=list)  # what it may not see, such as 'Bank.array'
    tally: Tally = field(default_factory=Tally)

    @contextlib.contextmanager
    def running(self, seed: int) -> Iterator[None]:
        """Editor code runs in this block, under a global random state that is restored after it.

        Args:
            seed: of the global random state.
        """
        before = self.inside
        self.inside = True
        with global_seed(seed):
            seeded = _global_states()
            try:
                yield
            finally:
                # Not False: blocks may be nested.
                self.inside = before
                for name, state in _global_states().items():
                    if state != seeded[name]:
                        self.tally.drawn.add(name)

    @contextlib.contextmanager
    def trap(self, *classes: type) -> Iterator[None]:
        """Note every use that editor code makes of what it may not see.

        Args:
            classes: of judges; Bank and Starts are trapped as well.
        """
        with contextlib.ExitStack() as stack:
            # A Split may be read; only whether its logits were is noted, as a cost.
            for cls in (Bank, Starts, Split, *classes):
                stack.enter_context(self._spy(cls))
            yield

    @contextlib.contextmanager
    def _spy(self, cls: type) -> Iterator[None]:
        plain = cast(Callable[[object, str], object], cls.__getattribute__)
        watch = self
        title = "the judge" if issubclass(cls, nn.Module) else cls.__name__

        def spy(obj: object, name: str) -> object:
            # Python itself reads the double underscores, of `isinstance` and the like.
            if watch.inside and not name.startswith("__"):
                if cls is Split:
                    watch.tally.read |= name == "logits"
                else:
                    watch.touched.append(f"{title}.{name}")
            return plain(obj, name)

        # On the class and not on an object: an editor may find any object of it.
        type.__setattr__(cls, "__getattribute__", spy)
        try:
            yield
        finally:
            type.__delattr__(cls, "__getattribute__")

    @contextlib.contextmanager
    def count(self, last: nn.Module, teacher: nn.Module) -> Iterator[None]:
        """Count the samples that editor code sends through the networks.

        Args:
            last: a layer that every decoded sample passes, whichever way it was decoded.
            teacher: the scorer that the editor may use.
        """

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


def _global_states() -> dict[str, object]:
    """Name of a module -> the state of its global random generator."""
    # Not of torch: every new layer draws weights from it, which a fit may replace by its own.
    _, keys, *position = np.random.get_state()
    return {"random": random.getstate(), "np.random": (np.asarray(keys).tobytes(), *position)}


@contextlib.contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and random, and restore their states afterwards."""
    # All three: an editor may draw from any of them, and the suite must leave none changed.
    python = random.getstate()
    numpy = np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed)
        # torch.manual_seed writes down the stack for every device that has not been used yet.
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
