"""Columns of the rows and samples that metrics return, and the key that identifies a number.

This module is separate from the metrics so that reading a table does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

NAN = float("nan")
ROUNDING = 1e-9  # relative and absolute amount by which a value may lie outside its interval
# The fields that identify a number. Only rows with equal keys can be compared between runs.
KEY_TYPES = {
    "metric": "str",
    "variant": "str",
    "network": "str",
    "resize": "str",
    "reference": "str",
    "n": "float64",
    "effect": "float64",
    "x": "float64",
}
KEY_COLUMNS = tuple(KEY_TYPES)
ROW_TYPES = KEY_TYPES | {
    "value": "float64",
    "low": "float64",
    "high": "float64",
    "count": "float64",
    "note": "str",
}
ROW_COLUMNS = tuple(ROW_TYPES)
SAMPLE_TYPES = KEY_TYPES | {"start": "int64", "value": "float64"}
SAMPLE_COLUMNS = tuple(SAMPLE_TYPES)


def empty_key() -> dict[str, Any]:
    """A key without any field: '' for text and NaN for numbers."""
    return {name: "" if kind == "str" else NAN for name, kind in KEY_TYPES.items()}


def key_of(record: Mapping[Any, Any]) -> tuple:
    """The key of a row or sample as a tuple that can be hashed and compared; NaN becomes None."""
    key: list[Any] = []
    for name, kind in KEY_TYPES.items():
        value = record.get(name, NAN)
        # Text is never missing, and pd.isna is slow.
        is_missing = not isinstance(value, str) and bool(pd.isna(value))
        if kind == "str":
            key.append("" if is_missing else str(value))
        else:
            key.append(None if is_missing else float(value))
    return tuple(key)


def written_key(key: Iterable[Any]) -> str:
    """A key as text for people: 'ad at x = 0.125', 'fid_up (inception@07aa, n = 1000)'.

    It is never parsed.
    """
    fields = dict(zip(KEY_COLUMNS, key))
    details = []
    for name in ("variant", "network", "resize", "reference"):
        if fields[name]:
            details.append(fields[name])
    for name in ("n", "effect"):
        if fields[name] is not None:
            details.append(f"{name} = {fields[name]:g}")
    text = str(fields["metric"])
    if details:
        text += f" ({', '.join(details)})"
    if fields["x"] is not None:
        text += f" at x = {fields['x']:g}"
    return text


def outside_interval(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose value lies outside their interval, or whose interval has low above high."""
    both = rows[rows["low"].notna() & rows["high"].notna()]
    room = ROUNDING * both["value"].abs().fillna(0) + ROUNDING
    below = both["value"] < both["low"] - room
    above = both["value"] > both["high"] + room
    return both[below | above | (both["low"] > both["high"])]


def join_notes(*notes: str) -> str:
    """The notes that are not empty, with '; ' between them."""
    return "; ".join(filter(None, notes))
