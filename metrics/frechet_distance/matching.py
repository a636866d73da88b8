"""Moments of reference pictures by class, from which a reference of any share of an attribute is
mixed.

The Fréchet distance of edited pictures from real ones grows with the edit itself: where only more
faces wear glasses, and all else is as real as before, the distance rises many times over. Hence the
reference is given the share of the attribute that the edited pictures have:

- The embedded world can draw the pictures of the reference again with one factor exchanged
  (`Reference.can_edit`). Part of the pictures is replaced by that perfect edit of theirs. What else
  depends on the attribute in the data, such as the age on the glasses, stays as it was: an editor
  is not asked to change it.
- Other references are reweighted by the judge's classes. Weights can move only what pictures there
  are: what goes with the attribute in the data comes along, and few pictures of a class count for
  many, which a row's note says.

The sums below add up, so any share is mixed from them without another picture
(editbench.stats.moments.mixture).
"""

from __future__ import annotations

import numpy as np

from editbench.stats.moments import mixture

SETS = ("class", "other")  # of the reference's pictures, and of as many further ones
FEW = 30  # pictures of a class: fewer have no covariance worth the name


class ClassReference:
    """One set of real pictures, at any share of the edited attribute.

    Args:
        arrays: what `class_statistics` gave.
        name: of SETS.
    """

    def __init__(self, arrays: dict[str, np.ndarray], name: str = SETS[0]) -> None:
        self.count = arrays[f"{name}_count"]
        self.total = arrays[f"{name}_sum"]
        self.outer = arrays[f"{name}_outer"]
        self.edits = f"{name}_edited_count" in arrays
        if self.edits:
            self.count = np.concatenate([self.count, arrays[f"{name}_edited_count"]])
            self.total = np.concatenate([self.total, arrays[f"{name}_edited_sum"]])
            self.outer = np.concatenate([self.outer, arrays[f"{name}_edited_outer"]])
        # Shares of the classes among the pictures as they are.
        self.classes = len(arrays[f"{name}_count"])
        self.natural = self.count[: self.classes] / self.count[: self.classes].sum()

    def shares(self, wanted: np.ndarray) -> np.ndarray:
        """Share of every group of pictures, at wanted shares of the classes.

        Args:
            wanted: (K,) counts or shares of the classes.

        Returns:
            (K,) of the pictures by class; (2 K,) where there are edited ones: as many of the
            pictures stay as they are as no class forbids, the others are sent where they lack.
        """
        wanted = wanted / wanted.sum()
        if not self.edits:
            return wanted
        there = self.natural > 0
        kept = float((wanted[there] / self.natural[there]).min())
        sent = np.maximum(wanted - kept * self.natural, 0.0)
        # What rounding leaves of a class that is complete must not ask for a picture of it.
        sent[sent < 1e-12] = 0.0
        return np.concatenate([kept * self.natural, sent])

    def at(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """The reference at wanted shares of the classes: (K,) counts or shares.

        Returns:
            Mean (d,) of its features, covariance (d, d) and effective number of pictures; NaN where a
            class that is needed has no picture.
        """
        return mixture(self.count, self.total, self.outer, self.shares(wanted))

    def doubt(self, wanted: np.ndarray, classes: list[str]) -> str:
        """Why a number against the reference at these shares is missing or in doubt, or ''.

        Args:
            wanted: (K,) counts or shares of the classes.
            classes: their names.
        """
        share = self.shares(wanted)
        needed = share > 0
        few = needed & (self.count < FEW)
        notes = []
        for group in np.flatnonzero(few):
            about = classes[group % self.classes]
            notes.append(f"{int(self.count[group])} reference pictures of class '{about}'")
        if not self.edits and not (self.count[needed] < 1).any():
            # Edited pictures are no fewer faces than there were.
            n = int(self.count.sum())
            _, _, effective = self.at(wanted)
            if effective < n / 2:
                notes.append(f"reweighted to {effective:.0f} effective of {n} reference pictures")
        if not notes:
            return ""
        return ", ".join(notes) + ": raise n, or give a reference with more of the class"
