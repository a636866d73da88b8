"""Inert stand-ins for what a pickle names and this reader does not rebuild."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False, slots=True)
class Opaque:
    """An object of a class, or the result of a function, that was neither imported nor called.

    Args:
        name: 'module.qualname' as the file has it.
        args: what it would have been called with.
        state: what would have been handed to its __setstate__; None without one.
        items: what would have been appended to it; for a mapping (key, value) pairs.
        kwargs: the named arguments that it would have been called with.
    """

    name: str
    args: tuple = ()
    state: Any = None
    items: list = field(default_factory=list)
    kwargs: dict = field(default_factory=dict)

    def __repr__(self) -> str:
        # Short, as the parts can be large; ASCII, as the name is the file's choice.
        return f"{type(self).__name__}({self.name[:120]!a})"


@dataclass(eq=False, repr=False, slots=True)
class Global(Opaque):
    """A bare reference to a name: a class or a function that is not called here."""
