"""Moments of reference images by the class of the edited attribute, from a cache.

editbench.metrics.frechet_distance.matching explains how and why they are used.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from editbench.base.progress import progress
from editbench.metrics.frechet_distance.matching import SETS
from editbench.metrics.frechet_distance.reference import ReferenceFeatures
from editbench.stats.moments import Moments


def class_statistics(real: ReferenceFeatures) -> dict[str, np.ndarray]:
    """Moments of a reference by the judge's class of the edited attribute, from the cache if
    another job has computed them.

    Returns:
        class_count (K,), class_sum (K, d), class_outer (K, d (d + 1) / 2): images of set 0 by
        class. class_edited_count and so on: the same images with the attribute exchanged; row c has
        those sent to class c to which the judge assigns class c; only if the reference can be
        edited. other_*: likewise for set 1, if there is one.
    """
    context = real.context
    options = {
        "judge": context.judge.digest,
        "attribute": context.attribute,
        "edited": real.reference.can_edit(context),
    }
    return real.cached(options, lambda: _by_class(real))


@torch.no_grad()
def _by_class(real: ReferenceFeatures) -> dict[str, np.ndarray]:
    judge = real.context.judge
    attribute = real.context.attribute
    classes = range(len(judge.attributes[attribute].classes))
    names = SETS[: real.sets]
    targets = classes if real.reference.can_edit(real.context) else ()
    out: dict[str, np.ndarray] = {}
    total = len(names) * (1 + len(targets)) * real.n
    with progress("reference pictures by class", total) as advance:

        def labelled(number: int, target: int | None) -> Iterator[tuple[Tensor, Tensor]]:
            """Features (b, d) and classes (b,) of the images of a set."""
            for _, images in real.batches(number, target):
                features = real.network(images).float()
                yield features, judge.attributes.labels(judge(images), attribute)
                advance(len(images))

        for number, name in enumerate(names):
            natural = [Moments(real.n, 1, real.network.dim) for _ in classes]
            for features, label in labelled(number, None):
                for c in classes:
                    _add(natural[c], features[label == c])
            out |= _stacked(f"{name}_", natural)
            edited = [Moments(real.n, 1, real.network.dim) for _ in targets]
            for target in targets:
                for features, label in labelled(number, target):
                    # Shares are the judge's, so images that it assigns elsewhere are left out.
                    _add(edited[target], features[label == target])
            if edited:
                out |= _stacked(f"{name}_edited_", edited)
    return out


def _add(moments: Moments, features: Tensor) -> None:
    if len(features):
        # There is one block, so the position of an image does not matter.
        moments.update(features.cpu(), 0)


def _stacked(prefix: str, moments: list[Moments]) -> dict[str, np.ndarray]:
    arrays = [each.arrays() for each in moments]
    return {
        f"{prefix}{name}": np.stack([one[name][0] for one in arrays])
        for name in ("count", "sum", "outer")
    }
