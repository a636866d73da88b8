"""Values of a configuration that have the wrong kind: an error that names the key."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from editbench.base.errors import EditbenchError

KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
    "bool": ((bool,), "true or false"),
}


def check_kind(key: str, value: object, kind: str) -> None:
    """Raise EditbenchError unless value is an int, float, str or bool as `kind` says; a bool is no number."""
    types, words = KINDS[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and kind != "bool"):
        raise EditbenchError(f"{key}={value} must be {words}")


def check_fields(group: str, spec: Any) -> None:
    """`check_kind` for every field of a dataclass of plain values."""
    for item in fields(spec):
        check_kind(f"{group}.{item.name}", getattr(spec, item.name), str(item.type))
