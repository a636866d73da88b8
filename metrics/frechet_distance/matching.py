"""Mixing a reference with any share of an attribute, from moments of reference images by class.

The Fréchet distance of edited images from real ones grows with the edit itself: if more faces wear
glasses, the distance increases many times over even if the images are as realistic as before. The
reference is therefore given the same share of the attribute as the edited images:

- The embedded world can render the images of the reference again with one factor exchanged
  (`Reference.can_edit`). Some of the images are replaced by these perfect edits of them. Whatever
  else depends on the attribute in the data, such as age on glasses, stays unchanged, since an
  editor should not change it.
- Other references are reweighted by the judge's classes. This only reweights existing images, so
  whatever is correlated with the attribute in the data changes too, and a few images of a class may
  get a large weight; the row's note then says so.

The sums are additive, so any share is mixed from them without further images
(editbench.stats.moments.mixture).
"""

from __future__ import annotations

import numpy as np

from editbench.stats.moments import mixture

SETS = ("class", "other")  # the reference's images, and as many further ones
FEW = 30  # images of a class; fewer give no reliable covariance


class ClassReference:
    """One set of real images, with any share of the edited attribute.

    Args:
        arrays: what `class_statistics` returned.
        name: one of SETS.
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
        # Shares of the classes among the original images.
        self.classes = len(arrays[f"{name}_count"])
        self.natural = self.count[: self.classes] / self.count[: self.classes].sum()

    def shares(self, wanted: np.ndarray) -> np.ndarray:
        """Share of every group of images, for wanted shares of the classes.

        Args:
            wanted: (K,) counts or shares of the classes.

        Returns:
            (K,) shares of the images by class; (2 K,) if there are edited images: as many images as
            possible stay unedited, the others are sent to the classes that lack images.
        """
        wanted = wanted / wanted.sum()
        if not self.edits:
            return wanted
        there = self.natural > 0
        kept = float((wanted[there] / self.natural[there]).min())
        sent = np.maximum(wanted - kept * self.natural, 0.0)
        # A rounding error must not request an edited image for a class that is complete.
        sent[sent < 1e-12] = 0.0
        return np.concatenate([kept * self.natural, sent])

    def at(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """The reference at wanted shares of the classes: (K,) counts or shares.

        Returns:
            Mean (d,) of its features, covariance (d, d) and effective number of images; NaN if a
            class that is needed has no image.
        """
        return mixture(self.count, self.total, self.outer, self.shares(wanted))

    def doubt(self, wanted: np.ndarray, classes: list[str]) -> str:
        """Why a distance to the reference at these shares is missing or in doubt, or ''.

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
            # Editing does not reduce the number of different faces.
            n = int(self.count.sum())
            _, _, effective = self.at(wanted)
            if effective < n / 2:
                notes.append(f"reweighted to {effective:.0f} effective of {n} reference pictures")
        if not notes:
            return ""
        return ", ".join(notes) + ": raise n, or give a reference with more of the class"
