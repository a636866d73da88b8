"""What a configuration says about a third-party classifier's outputs: names, classes, and which side is positive.

    attributes:
      - {name: smile, classes: [neutral, smiling]}
      - {name: age, classes: [young, old], positive_is_low: true}

The classes of a binary attribute are listed negative side first. Where a network's LOW output means the second class,
`positive_is_low` negates the column, so that the rest of the benchmark never sees a reversed sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from editbench.attributes import Attribute, Attributes
from editbench.errors import EditbenchError, UnknownName

KEYS = ("name", "classes", "ordered", "positive_is_low", "head")


def declare(config: Sequence[Mapping[str, Any]]) -> tuple[Attributes, list[float]]:
    """The attributes, and for each of them +1, or -1 where a low output means class 1.

    Raises:
        EditbenchError: an empty list, an entry without name or classes, or a sign for an attribute of many classes;
        UnknownName: a key that is not one of KEYS.
    """
    if not config:
        raise EditbenchError("a scorer needs one attribute or more: list them under 'attributes'")
    items, signs = [], []
    for entry in config:
        for key in entry:
            if key not in KEYS:
                raise UnknownName("key of an attribute", str(key), KEYS)
        if "name" not in entry or "classes" not in entry:
            raise EditbenchError(f"an attribute needs 'name' and 'classes', got {dict(entry)}")
        classes = tuple(str(label) for label in entry["classes"])
        item = Attribute(str(entry["name"]), classes, bool(entry.get("ordered", False)))
        low = bool(entry.get("positive_is_low", False))
        if low and not item.binary:
            raise EditbenchError(f"attribute '{item.name}' has {len(classes)} classes: positive_is_low is for two")
        items.append(item)
        signs.append(-1.0 if low else 1.0)
    return Attributes(items), signs
