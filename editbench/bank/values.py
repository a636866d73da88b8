"""What the numbers are that enter as logits: logits, probabilities, or hard labels.

A classifier's files and outputs seldom say it. Values that all lie in [0, 1] are hardly logits:
taken as such, every sample would be on the positive side. They are recognised here, and converted
or refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile
from editbench.networks.scorers.columns import TINY

KINDS = ("logits", "probabilities", "labels")
OPTION = "--values"
ROWS = 65536  # rows that are read at once, as an array may be larger than the memory


@dataclass
class Values:
    """How the values of files are taken.

    Args:
        stated: of KINDS, what values in [0, 1] are by the command's option; None: nothing was said.
        convention: of KINDS, what they are by the convention of the file's source; None: there is
            none.
    """

    stated: str | None = None
    convention: str | None = None
    # Attribute -> what its values were, of those that were converted.
    converted: dict[str, str] = field(default_factory=dict)

    def as_logits(
        self, values: np.ndarray, layout: Attributes, sources: Mapping[str, Path]
    ) -> np.ndarray:
        """Values of all attributes as logits.

        Args:
            values: (n, width).
            layout: the attributes, in the order of the columns.
            sources: attribute -> the file of its values, for messages.

        Returns:
            (n, width): `values` itself where nothing is converted.

        Raises:
            BadFile: values in [0, 1] of which nothing says what they are, or another kind than the
                stated one.
        """
        # Shapes are checked by the reader of the file, with a message of its own: that of no rows too,
        # as nothing says what no values are.
        if values.ndim != 2 or values.shape[1] != layout.width or not len(values):
            return values
        out = values
        for item in layout:
            place = layout.slices[item.name]
            found = recognise(values[:, place])
            kind = self._kind(found, item.name, sources[item.name])
            if kind == "logits":
                continue
            # The array may be memory-mapped, and is copied once.
            if out is values:
                out = np.array(values, np.float64)
            out[:, place] = CONVERSIONS[kind](out[:, place])
            self.converted[item.name] = kind
        return out

    def check_used(self) -> None:
        """Raise BadFile where values were stated to be no logits, and no values are so."""
        if self.stated in ("probabilities", "labels") and not self.converted:
            raise BadFile(
                f"{OPTION} {self.stated}: no attribute's values all lie in [0, 1], so they are "
                "logits; leave the option out"
            )

    def options(self) -> dict[str, dict[str, str]]:
        """What determines the bank beside its files; empty where nothing was converted."""
        return {"values": dict(self.converted)} if self.converted else {}

    def _kind(self, found: str, name: str, source: Path) -> str:
        """What the values of an attribute are taken for."""
        if found == "logits":
            return "logits"
        if self.stated is not None:
            if self.stated == "labels" and found != "labels":
                raise BadFile(
                    f"{source}: {OPTION} labels is set, but the values of '{name}' lie between 0 "
                    f"and 1: use {OPTION} probabilities"
                )
            return self.stated
        if found == "probabilities" and self.convention is not None:
            return self.convention
        raise BadFile(
            f"{source}: the values of '{name}' all lie in [0, 1], as {found} do, but logits are "
            f"needed; state what they are: {OPTION} probabilities (their log-odds are taken), "
            f"{OPTION} labels (0 becomes -1: no sample is surer than another) or {OPTION} logits"
        )


def recognise(values: np.ndarray) -> str:
    """What values look like: 'labels' (0 and 1 alone), 'probabilities' (in [0, 1]) or 'logits'.

    Args:
        values: (n, columns) of one attribute or of several.
    """
    # From the narrowest kind on: one value can only widen it.
    found = "labels"
    for first in range(0, len(values), ROWS):
        part = values[first : first + ROWS]
        if (part < 0).any() or (part > 1).any():
            return "logits"
        if found == "labels" and not np.isin(part, (0, 1)).all():
            found = "probabilities"
    return found


def log_odds(values: np.ndarray) -> np.ndarray:
    """Probabilities (n, columns) as logits: ln p / (1 - p) of one column, ln p of many."""
    # A saturated sigmoid would have an infinite logit.
    inside = np.clip(values, TINY, 1 - TINY)
    if values.shape[1] == 1:
        return np.log(inside) - np.log1p(-inside)
    return np.log(inside)


def sides(values: np.ndarray) -> np.ndarray:
    """Labels 0 and 1 as -1 and 1, the sides of the boundary without a distance from it."""
    return 2 * values - 1


CONVERSIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "probabilities": log_odds,
    "labels": sides,
}
