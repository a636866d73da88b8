"""Converted CelebA-HQ classifiers as a scorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from editbench.base.errors import EditbenchError
from editbench.networks.celebahq.network import CelebAHQClassifiers, average_blocks
from editbench.networks.celebahq.store import load_classifiers
from editbench.networks.scorers.module import ModuleScorer


class CelebAHQScorer(ModuleScorer):
    """Images (N, 1 or 3, H, H) in [-1, 1] -> logits (N, number of attributes).

    H is a multiple of the classifiers' size. Larger images are averaged over blocks of pixels, once
    for all classifiers (Karras et al. 2019, the separability metric). A logit does not depend on
    the other images of its batch, see `CelebAHQClassifier`.

    Args:
        path: of a file that `editbench convert` wrote.
        attributes: one binary attribute per classifier, see `ModuleScorer`; `positive_is_low` gives
            the sign.
        columns: the classifier of each attribute, by its position in the file; None for all, in
            order. Other classifiers are not run.

    Raises:
        BadFile: the file is missing, altered or not converted.
        EditbenchError: attributes and classifiers do not match; or, at a call, the images have
            another size.
    """

    def __init__(
        self,
        path: Path | str,
        attributes: Sequence[Mapping[str, Any]],
        columns: Sequence[int] | None = None,
    ) -> None:
        if columns is not None and not _are_places(columns):
            raise EditbenchError(
                f"scorer.columns must list classifiers of {path} by index, e.g. [0, 3]; got "
                f"{columns!r}"
            )
        network = CelebAHQClassifiers(load_classifiers(path, columns))
        self.resolution = network.resolution
        size = (self.resolution, self.resolution)
        # The outputs are logits, since the last layer is linear; the range of values cannot tell.
        super().__init__(network, attributes, size, source=str(path), output="logits")

    def resize(self, images: Tensor) -> Tensor:
        """Average over blocks of pixels."""
        return average_blocks(images, self.resolution)


def _are_places(columns: object) -> bool:
    """Whether a value is a non-empty list of positions."""
    if not isinstance(columns, list | tuple) or not columns:
        return False
    return all(type(place) is int for place in columns)
