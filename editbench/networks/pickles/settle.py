"""The last check of what was read: a finite tree, written out, that code may walk without care."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from editbench.networks.pickles.limits import Budget, Refused
from editbench.networks.pickles.opaque import Opaque


def children(value: Any) -> Iterator[Any] | None:
    """The parts of a container; None for a leaf, as which an empty one counts."""
    if isinstance(value, dict):
        return iter(value.values()) if value else None  # keys are atoms or short tuples of them
    if isinstance(value, (list, tuple, set, frozenset)):
        return iter(value) if value else None
    if isinstance(value, Opaque):
        return iter((value.args, value.state, value.items, value.kwargs))
    return None


def size_of(value: Any) -> int:
    """The bytes of a leaf that can be large."""
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    return value.nbytes if isinstance(value, (np.ndarray, Tensor)) else 0


COST = 208  # bytes that remembering a container takes here


def settle(root: Any, budget: Budget) -> Any:
    """`root`, if it has no cycle and, shared parts counted each time, at most `objects` nodes and `depth` levels, and
    arrays and text of no more bytes than the file may take.

    Shared references can make a small file stand for a tree of 2^50 nodes, or for one array a million times, which only
    whoever walks or stacks it would notice.
    """
    limits = budget.limits
    done: dict[
        int, tuple[int, int, int]
    ] = {}  # id -> (nodes, levels, bytes) of a finished container
    open_ids: set[int] = set()
    path: list[
        list[Any]
    ] = []  # [container, what is left of its parts, nodes so far, levels below, bytes]

    def enter(value: Any) -> tuple[int, int, int] | None:
        """Nodes, levels and bytes of a leaf or of a finished container; otherwise it is put on the path."""
        if id(value) in done:
            return done[id(value)]
        parts = children(value)
        if parts is None:
            return 1, 0, size_of(value)
        if id(value) in open_ids:
            raise Refused("its objects contain themselves; save plain data without cycles")
        if len(path) >= limits.depth:
            raise Refused(
                f"its containers are nested more than {limits.depth} deep; save flatter data"
            )
        budget.take(COST)
        open_ids.add(id(value))
        path.append([value, parts, 1, 0, 0])
        return None

    def count(frame: list[Any], found: tuple[int, int, int]) -> None:
        """Add a part to the container that holds it."""
        frame[2], frame[3], frame[4] = (
            frame[2] + found[0],
            max(frame[3], found[1]),
            frame[4] + found[2],
        )
        if frame[2] > limits.objects or frame[4] > budget.bytes:
            most = (
                f"{limits.objects:,} objects"
                if frame[2] > limits.objects
                else f"{budget.bytes:,} bytes"
            )
            raise Refused(
                f"written out it would have more than {most}, by references to the same parts; do not trust "
                "the file"
            )

    enter(root)
    while path:
        frame = path[-1]
        for part in frame[1]:
            found = enter(part)
            if found is None:
                break
            count(frame, found)
        else:
            path.pop()
            open_ids.discard(id(frame[0]))
            result = frame[2], frame[3] + 1, frame[4]
            if len(path) + result[1] > limits.depth:
                raise Refused(
                    f"its containers are nested more than {limits.depth} deep; save flatter data"
                )
            done[id(frame[0])] = result
            if path:
                count(path[-1], result)
    return root
