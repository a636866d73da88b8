"""What may be a key of a dict or a member of a set: values whose hash is quick and cannot be forced to collide."""

from __future__ import annotations

from typing import Any

import numpy as np

from editbench.networks.pickles.limits import Budget, Refused
from editbench.networks.pickles.opaque import shown

# Tuples and numbers hash predictably, so a file could choose them to make a dict of them slow: few of them are allowed.
TUPLE_STEPS, NUMBER_STEPS = 1000, 300
DENSE = 1 << 16  # integers up to so much beyond the number of entries are free
LONGEST_TUPLE = 8


def pay_number(budget: Budget, number: float, count: int = 0) -> None:
    """What a number costs as a key of a dict of `count` entries, over and above its memory."""
    if isinstance(number, float) or abs(number) > count + DENSE:
        budget.step(NUMBER_STEPS)


def as_key(budget: Budget, key: Any, count: int = 0) -> Any:
    """A key for a dict or set of `count` entries, a NumPy scalar as Python's own.

    Anything else than text, bytes, numbers and short tuples of them is refused.
    """
    if (
        isinstance(key, tuple)
        and len(key) <= LONGEST_TUPLE
        and not any(isinstance(part, tuple) for part in key)
    ):
        budget.step(TUPLE_STEPS)
        return tuple(as_key(budget, part) for part in key)
    if isinstance(key, np.generic) and key.dtype.kind in "biufSU":
        key = key.item()
    if isinstance(key, float) or (isinstance(key, int) and abs(key) < 1 << 60):
        pay_number(budget, key, count)
        return key
    if isinstance(key, (str, bytes, type(None))):
        return key
    raise Refused(
        f"a key of a dict or set is {shown(key)}; only text, bytes, numbers and short tuples of them are "
        "read: save the data in plain containers"
    )
