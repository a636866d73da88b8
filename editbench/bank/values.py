"""Telling apart logits, probabilities and hard labels in values that are imported as logits.

Files and outputs of a classifier seldom say which of these they hold. Values that all lie in [0, 1]
are hardly logits: as logits they would put every sample on the positive side. They are recognised
here, and converted or rejected.
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
ROWS = 65536  # rows read at a time, since an array may be larger than memory


@dataclass
class Values:
    """How the values of files are interpreted.

    Args:
        stated: one of KINDS, what values in [0, 1] are according to the command's option; None if
            the option was not given.
        convention: one of KINDS, what they are by the convention of the files' source; None if
            there is no convention.
    """

    stated: str | None = None
    convention: str | None = None
    # Attribute -> the kind that its values had, for the attributes that were converted.
    converted: dict[str, str] = field(default_factory=dict)

    def as_logits(
        self, values: np.ndarray, layout: Attributes, sources: Mapping[str, Path]
    ) -> np.ndarray:
        """Convert the values of all attributes to logits.

        Args:
            values: (n, width).
            layout: the attributes, in the order of the columns.
            sources: attribute -> the file of its values, for messages.

        Returns:
            (n, width): `values` itself if nothing is converted.

        Raises:
            BadFile: values lie in [0, 1] and their kind is not known, or they are of another kind
                than the stated one.
        """
        # The reader of the file checks shapes, with its own message. This includes a file without
        # rows, whose kind cannot be recognised.
        if values.ndim != 2 or values.shape[1] != layout.width or not len(values):
            return values
        out = values
        for item in layout:
            place = layout.slices[item.name]
            found = recognise(values[:, place])
            kind = self._kind(found, item.name, sources[item.name])
            if kind == "logits":
                continue
            # The array may be a read-only memory map, so it is copied once.
            if out is values:
                out = np.array(values, np.float64)
            out[:, place] = CONVERSIONS[kind](out[:, place])
            self.converted[item.name] = kind
        return out

    def check_used(self) -> None:
        """Raise BadFile if the option named another kind than logits, but no values are of it."""
        if self.stated in ("probabilities", "labels") and not self.converted:
            raise BadFile(
                f"{OPTION} {self.stated}: no attribute's values all lie in [0, 1], so they are "
                "logits; leave the option out"
            )

    def options(self) -> dict[str, dict[str, str]]:
        """What determines the bank besides its files; empty if nothing was converted."""
        return {"values": dict(self.converted)} if self.converted else {}

    def _kind(self, found: str, name: str, source: Path) -> str:
        """The kind that the values of an attribute are interpreted as."""
        # Values outside [0, 1] can only be logits, whatever was stated for the others.
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
    """What values look like: 'labels' (only 0 and 1), 'probabilities' (in [0, 1]) or 'logits'.

    Args:
        values: (n, columns) of one or several attributes.
    """
    # Starts with the narrowest kind; further values can only widen it.
    found = "labels"
    for first in range(0, len(values), ROWS):
        part = values[first : first + ROWS]
        if (part < 0).any() or (part > 1).any():
            return "logits"
        if found == "labels" and not np.isin(part, (0, 1)).all():
            found = "probabilities"
    return found


def log_odds(values: np.ndarray) -> np.ndarray:
    """Probabilities (n, columns) as logits: ln(p / (1 - p)) of a single column, ln p of several."""
    # A saturated sigmoid would have an infinite logit.
    inside = np.clip(values, TINY, 1 - TINY)
    if values.shape[1] == 1:
        return np.log(inside) - np.log1p(-inside)
    return np.log(inside)


def sides(values: np.ndarray) -> np.ndarray:
    """Labels 0 and 1 as logits -1 and 1: the sides of the boundary, without a distance from it."""
    return 2 * values - 1


CONVERSIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "probabilities": log_odds,
    "labels": sides,
}
