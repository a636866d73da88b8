"""A problem of a report: what it could not read, compare or draw."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """Something that could not be read, compared or drawn, and the reason."""

    name: str
    reason: str
