"""The attributes of a scorer: their names and classes, and operations on their logits.

Layout of a logit row: a binary attribute has one column (positive: class 1), an attribute of K > 2
classes has K. Quantities that need one number per attribute use log-odds, ln(p_c / (1 - p_c)). For
a binary attribute this is the logit itself. For class c of several it is l_c minus the logsumexp of
the other logits. Zero is the one-vs-rest boundary of the class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editbench.base.errors import EditbenchError, UnknownName
from editbench.base.validation import check_kind


@dataclass(frozen=True)
class Attribute:
    """One attribute.

    Args:
        name: of the attribute.
        classes: names of its values, two or more. If there are two, the negative one comes first.
        ordered: whether the classes have an order, such as bins of yaw; a class then borders only
            on its neighbours.

    Raises:
        EditbenchError: there are fewer than two classes.
    """

    name: str
    classes: tuple[str, ...]
    ordered: bool = False

    def __post_init__(self) -> None:
        # This is the only way to set a field of a frozen dataclass. Configurations give a list,
        # which can neither be hashed nor compared with a tuple.
        object.__setattr__(self, "classes", tuple(self.classes))
        if len(self.classes) < 2:
            raise EditbenchError(
                f"attribute '{self.name}' needs two classes or more, got {list(self.classes)}"
            )

    @property
    def binary(self) -> bool:
        return len(self.classes) == 2

    @property
    def width(self) -> int:
        """Number of columns in a logit row."""
        # For two classes one column is enough.
        if self.binary:
            return 1
        return len(self.classes)


class Attributes(Sequence[Attribute]):
    """An ordered set of attributes and the layout of their logits.

    Args:
        items: the attributes, in the order of their columns.
        known: names of all attributes of the scorer, if `items` are only some of them; None if they
            are all.

    Raises:
        EditbenchError: two attributes have the same name.
    """

    def __init__(self, items: Sequence[Attribute], known: Sequence[str] | None = None) -> None:
        self.items = tuple(items)
        self.names = tuple(item.name for item in self.items)
        # An option may name an attribute that a job does not evaluate; any other name is misspelt.
        self.known = self.names if known is None else tuple(known)
        if len(set(self.names)) != len(self.names):
            raise EditbenchError(f"attribute names must differ, got {', '.join(self.names)}")
        # Name -> its columns in a logit row. The columns of attributes are adjacent, without gaps.
        self.slices: dict[str, slice] = {}
        self.width = 0
        for item in self.items:
            self.slices[item.name] = slice(self.width, self.width + item.width)
            self.width += item.width

    def __len__(self) -> int:
        return len(self.items)

    def __contains__(self, item: object) -> bool:
        """Whether it has this attribute, or one with this name."""
        return item in self.names or item in self.items

    def __iter__(self) -> Iterator[Attribute]:
        return iter(self.items)

    def __getitem__(self, key: int | str) -> Attribute:  # type: ignore[override]
        if isinstance(key, str):
            if key not in self.slices:
                raise UnknownName("attribute", key, self.names)
            return self.items[self.names.index(key)]
        return self.items[key]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attributes) and self.items == other.items

    def __hash__(self) -> int:
        return hash(self.items)

    def index(self, name: str) -> int:  # type: ignore[override]
        # Raises UnknownName, which lists the names; tuple.index would raise ValueError.
        self[name]
        return self.names.index(name)

    def columns(self) -> list[str]:
        """Names of the logit columns: 'smile', 'hair_color:black', ..."""
        names = []
        for item in self.items:
            if item.binary:
                names.append(item.name)
            else:
                names.extend(f"{item.name}:{class_name}" for class_name in item.classes)
        return names

    def logits(self, logits: Tensor, name: str) -> Tensor:
        """The columns of one attribute.

        Args:
            logits: (..., width) rows with the columns of all attributes.
            name: of the attribute.

        Returns:
            (..., 1) for a binary attribute, (..., K) for one of K classes; a view.

        Raises:
            UnknownName: there is no such attribute.
        """
        # Raises UnknownName, which lists the names; the dict would raise a bare KeyError.
        self[name]
        return logits[..., self.slices[name]]

    def labels(self, logits: Tensor, name: str | None = None) -> Tensor:
        """Predicted classes: the sign of the logit of a binary attribute, the argmax of K logits.

        Args:
            logits: (..., width) rows with the columns of all attributes.
            name: of one attribute; None for all of them.

        Returns:
            int64, (...,) for one attribute, (..., A) for all.

        Raises:
            UnknownName: there is no such attribute.
        """
        if name is None:
            return torch.stack([self.labels(logits, item.name) for item in self.items], -1)
        part = self.logits(logits, name)
        # A logit of exactly 0 lies on the boundary and counts as the negative class.
        if self[name].binary:
            return (part[..., 0] > 0).long()
        return part.argmax(-1)

    def log_odds(self, logits: Tensor) -> Tensor:
        """Log-odds of every column: (..., width) -> (..., width)."""
        parts = []
        for item in self.items:
            part = self.logits(logits, item.name)
            if not item.binary:
                part = log_odds_of_classes(part)
            parts.append(part)
        return torch.cat(parts, -1)

    def column(self, name: str, target: int | Tensor) -> tuple[int | Tensor, int | Tensor]:
        """Column and sign of the log-odds of a class.

        Args:
            name: of the attribute.
            target: a class, or (N,) classes.

        Returns:
            (column, sign), each of the same kind as `target`: sign * log_odds[column] grows towards
            the class.

        Raises:
            UnknownName: there is no such attribute.
        """
        first = self.slices[self[name].name].start
        if self[name].binary:
            # `0 * target` keeps the kind: for a tensor (N,), each sample gets a column and a sign.
            return first + 0 * target, 2 * target - 1
        return first + target, 1 + 0 * target

    def class_index(self, name: str, target: int | str, key: str = "target") -> int:
        """The index of a class.

        Args:
            name: of the attribute.
            target: the index or the name of the class.
            key: the option that it comes from, for the message.

        Raises:
            UnknownName: there is no such attribute or class.
            EditbenchError: the index is out of range or has another type.
        """
        classes = self[name].classes
        if isinstance(target, str):
            if target not in classes:
                raise UnknownName(f"class of attribute '{name}'", target, classes)
            return classes.index(target)
        # Refuses true and false, which Python counts as 1 and 0.
        check_kind(key, target, "int")
        if not 0 <= target < len(classes):
            listing = ", ".join(f"{i} ({c})" for i, c in enumerate(classes))
            raise EditbenchError(
                f"{key}={target} is no class of the attribute '{name}', which has {listing}"
            )
        return target

    def select(self, names: Sequence[str]) -> Attributes:
        """Some of the attributes, in their order here.

        Args:
            names: of the attributes to keep, in any order.

        Raises:
            UnknownName: there is no such attribute.
        """
        for name in names:
            self[name]  # raises UnknownName, which lists the names
        return Attributes([item for item in self.items if item.name in names], self.known)

    def positions(self, part: Attributes) -> list[int]:
        """Positions of the logit columns of a selection in a row: (part.width,) indices."""
        places: list[int] = []
        for name in part.names:
            own = self.slices[name]
            places.extend(range(own.start, own.stop))
        return places

    def boundary_distance(self, logits: Tensor, sigma: Tensor) -> Tensor:
        """Distances of samples to the nearest decision boundary of each attribute.

        For a binary attribute this is |logit| / sigma. For several classes it is the difference of
        the two largest logits, divided by the sigma of the best class's log-odds. It is 0 if two
        classes tie for the best.

        Args:
            logits: (n, width).
            sigma: (width,) standard deviation of each log-odds.

        Returns:
            (n, A) in standard deviations.
        """
        distances = []
        for item in self.items:
            part = self.logits(logits, item.name)
            own = sigma[self.slices[item.name]].to(part)
            if item.binary:
                distances.append(part[:, 0].abs() / own[0])
                continue
            best, classes = part.topk(2, -1)
            distances.append((best[:, 0] - best[:, 1]) / own[classes[:, 0]])
        return torch.stack(distances, 1)

    def as_config(self) -> list[dict]:
        """The attributes as plain values, for JSON and YAML."""
        config: list[dict] = []
        for item in self.items:
            # JSON reads a tuple back as a list, which would not be equal to it.
            config.append(
                {"name": item.name, "classes": list(item.classes), "ordered": item.ordered}
            )
        return config

    @classmethod
    def from_config(cls, config: Sequence[dict]) -> Attributes:
        """The attributes that `as_config` wrote; 'ordered' may be absent and is then False."""
        items = []
        for entry in config:
            ordered = bool(entry.get("ordered", False))
            items.append(Attribute(entry["name"], tuple(entry["classes"]), ordered))
        return cls(items)


def log_odds_of_classes(logits: Tensor) -> Tensor:
    """l_c - logsumexp of l_c' over c' != c, for each class: (..., K) -> (..., K)."""
    k = logits.shape[-1]
    # (..., K, K): row c holds the logits of all classes.
    others = logits.unsqueeze(-2).expand(*logits.shape[:-1], k, k)
    # -inf excludes the class itself from the logsumexp.
    mask = torch.eye(k, dtype=torch.bool, device=logits.device)
    return logits - others.masked_fill(mask, -torch.inf).logsumexp(-1)
