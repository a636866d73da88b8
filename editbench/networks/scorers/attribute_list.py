"""Declaration of a third-party classifier's attributes: names, classes, and signs of outputs.

    attributes:
      - {name: smile, classes: [neutral, smiling]}
      - {name: age, classes: [young, old], positive_is_low: true}

The negative class of a binary attribute comes first. If a LOW output of the network means the
second class, `positive_is_low` negates the column, so that the rest of the benchmark never sees a
reversed sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError, UnknownName

# Keys of one attribute; `head` is for classifiers of W codes.
KEYS = ("name", "classes", "ordered", "positive_is_low", "head")


def declare(config: Sequence[Mapping[str, Any]]) -> tuple[Attributes, list[float]]:
    """The attributes and their signs: +1, or -1 if a low output means class 1.

    Raises:
        EditbenchError: the list is empty, an entry lacks its name or classes, labels are not
            distinct texts, or an attribute of more than two classes has a sign.
        UnknownName: a key is not one of KEYS.
    """
    if (
        not isinstance(config, (list, tuple))
        or not config
        or not all(isinstance(entry, Mapping) for entry in config)
    ):
        raise EditbenchError(
            "a scorer needs one attribute or more: list them under 'attributes', each "
            "{name: smile, classes: [neutral, smiling]}"
        )
    items = []
    signs = []
    for entry in config:
        for key in entry:
            if key not in KEYS:
                raise UnknownName("key of an attribute", str(key), KEYS)
        if "name" not in entry or "classes" not in entry:
            raise EditbenchError(f"an attribute needs 'name' and 'classes', got {dict(entry)}")
        # YAML 1.1 reads no, yes, off and on as booleans.
        labels = entry["classes"]
        name = str(entry["name"])
        if not isinstance(labels, (list, tuple)) or len({str(label) for label in labels}) < len(
            labels
        ):
            raise EditbenchError(
                f"attribute '{name}': classes must be a list of different names, got {labels}"
            )
        if any(isinstance(label, bool) for label in labels):
            raise EditbenchError(
                f"attribute '{name}': YAML reads its classes as {labels}; put them in quotes"
            )
        # In quotes, false would be a text, and any text counts as true.
        ordered = entry.get("ordered", False)
        low = entry.get("positive_is_low", False)
        if not isinstance(ordered, bool) or not isinstance(low, bool):
            raise EditbenchError(
                f"attribute '{name}': ordered and positive_is_low must be true or false, without "
                f"quotes; got {ordered!r} and {low!r}"
            )
        item = Attribute(name, tuple(str(label) for label in labels), ordered)
        if low and not item.binary:
            raise EditbenchError(
                f"attribute '{item.name}' has {len(labels)} classes: positive_is_low is only for "
                "two"
            )
        items.append(item)
        # The only place where signs are handled.
        signs.append(-1.0 if low else 1.0)
    return Attributes(items), signs
