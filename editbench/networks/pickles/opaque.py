"""Inert stand-ins for what a pickle names and this reader does not rebuild."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False, slots=True)
class Opaque:
    """An object of a class, or the result of a function, that was neither imported nor called.

    name: 'module.qualname' as the file has it.
    args, kwargs: what it would have been called with.
    state: what would have been handed to its __setstate__; None without one.
    items: what would have been appended to it; for a mapping (key, value) pairs.
    """

    name: str
    args: tuple = ()
    state: Any = None
    items: list = field(default_factory=list)
    kwargs: dict = field(default_factory=dict)

    def __repr__(self) -> str:  # short: its parts can be large
        return f"{type(self).__name__}({self.name[:120]!a})"


@dataclass(eq=False, repr=False, slots=True)
class Global(Opaque):
    """A bare reference to a name: a class or a function that is not called here."""


SIZE = 320  # bytes of an Opaque with its empty containers


def shown(value: Any) -> str:
    """A value in an error message, without anything of the file that could be long or odd."""
    return (
        f"the stand-in of {value.name[:80]!a}"
        if isinstance(value, Opaque)
        else f"a {type(value).__name__}"
    )
