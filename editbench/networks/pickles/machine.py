"""The pickle machine: a stack, a memo, and stand-ins for names, which are never imported or called.

Written out rather than derived from Python's own unpickler, whose C version calls __setstate__, __reduce__ and hash
functions where a subclass cannot see it, and which has no bound on memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from editbench.networks.pickles.arrays import set_state
from editbench.networks.pickles.atoms import DAMAGED, Cursor
from editbench.networks.pickles.keys import as_key, pay_number
from editbench.networks.pickles.limits import Budget, Refused
from editbench.networks.pickles.opaque import SIZE, Global, Opaque, shown

Builder = Callable[..., Any]
EASY_DICT = "dnnlib.EasyDict"  # copies of it lie in many packages
MOST_ARGS = 64  # of a function of ours; each call copies them, and a long tuple can be handed over again and again


class Machine:
    """The state while one pickle is read, and what its opcodes do to it.

    Args:
        cursor: at the first opcode.
        budget: paid before memory is used.
        table: a global's name -> our function of (budget, *args) that stands for it.
        persistent: what a persistent id stands for; without it they are refused.
    """

    def __init__(
        self,
        cursor: Cursor,
        budget: Budget,
        table: dict[str, Builder],
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.cursor, self.budget, self.table, self.persistent = cursor, budget, table, persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def mark(self) -> None:
        self.budget.take(104)
        self.marks.append(self.stack)
        self.stack = []

    def items(self) -> list[Any]:
        """What was pushed since the last mark."""
        found, self.stack = self.stack, self.marks.pop()
        return found

    def top(self, number: int) -> list[Any]:
        """The last values, taken off."""
        if len(self.stack) < number:
            raise Refused(DAMAGED.format("an opcode lacks its values"))
        values = self.stack[-number:]
        del self.stack[-number:]
        return values

    def push(self, value: Any) -> None:
        if isinstance(value, (tuple, list, set, frozenset, dict)):
            self.budget.take(sys.getsizeof(value) + 16)
        self.stack.append(value)

    def find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused(DAMAGED.format("a global's name is not text"))
        self.budget.take(SIZE + 4 * (len(module) + len(name)))
        self.stack.append(Global(EASY_DICT if name == "EasyDict" else f"{module}.{name}"))

    def call(self, function: Any, args: Any, kwargs: Any = None) -> Any:
        """What stands for function(*args): our own function of that name, or an Opaque."""
        if type(function) is not Global:
            raise Refused(
                f"it calls {shown(function)}, which is not a name; no data needs this, do not trust the file"
            )
        if not isinstance(args, tuple) or not isinstance(kwargs or {}, dict):
            raise Refused(DAMAGED.format("arguments are not a tuple"))
        if function.name in self.table and not kwargs:
            if len(args) > MOST_ARGS:
                raise Refused(DAMAGED.format(f"{len(args):,} arguments of {function.name!a}"))
            self.budget.take(80)
            return self.table[function.name](self.budget, *args)
        self.budget.take(SIZE + 80 * len(kwargs or ()))
        return Opaque(function.name, args, kwargs=dict(kwargs or {}))

    def append(self, target: Any, values: list[Any]) -> None:
        self.budget.take(16 * len(values))
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, Opaque) and type(target) is not Global:
            target.items.extend(values)
        else:
            raise Refused(
                f"it appends to {shown(target)}; the file is damaged or not to be trusted"
            )

    def assign(self, target: Any, flat: list[Any]) -> None:
        """Items of a mapping from key, value, key, value, ..."""
        if len(flat) % 2:
            raise Refused(DAMAGED.format("a key has no value"))
        self.budget.take(40 * len(flat))
        if isinstance(target, dict):
            for key, value in zip(flat[::2], flat[1::2]):
                target[as_key(self.budget, key, len(target))] = value
        elif isinstance(target, Opaque) and type(target) is not Global:
            target.items.extend(zip(flat[::2], flat[1::2]))
        else:
            raise Refused(
                f"it sets items of {shown(target)}; the file is damaged or not to be trusted"
            )

    def add(self, target: Any, values: list[Any]) -> None:
        self.budget.take(
            136 * len(values)
        )  # a set that has just grown has 8 places of 16 bytes for each
        if isinstance(target, set):
            target.update([as_key(self.budget, value, len(target)) for value in values])
        else:
            self.append(target, values)

    def build(self, target: Any, state: Any) -> None:
        """What BUILD does to a stand-in: keep the state, or fill the array that waits for it."""
        if isinstance(target, np.ndarray):
            set_state(self.budget, target, state)
        elif isinstance(target, Opaque) and type(target) is not Global:
            target.state = state
        elif not isinstance(
            target, dict
        ):  # attributes of a dict's class, as state_dict's _metadata, are dropped
            raise Refused(
                f"it sets the state of {shown(target)}; the file is damaged or not to be trusted"
            )

    def keep(self, key: int) -> None:
        self.budget.take(96)
        pay_number(self.budget, key, len(self.memo))
        self.memo[key] = self.stack[-1]

    def recall(self, key: int) -> None:
        if key not in self.memo:
            raise Refused(
                DAMAGED.format(f"it refers to entry {key} of its memo, which is not there")
            )
        self.stack.append(self.memo[key])

    def fetch(self, identity: Any) -> None:
        if self.persistent is None:
            raise Refused(
                "it refers to objects outside of itself (persistent ids), which only torch.save files may do"
            )
        self.stack.append(self.persistent(identity))

    def frame(self) -> None:
        length, left = self.cursor.number("<Q"), len(self.cursor.data) - self.cursor.at
        if length > left:
            raise Refused(
                DAMAGED.format(f"a frame of {length:,} bytes is declared, {left:,} are left")
            )

    def protocol(self) -> None:
        if (version := self.cursor.number("<B")) > 5:
            raise Refused(DAMAGED.format(f"protocol {version}; 0 to 5 are known"))
