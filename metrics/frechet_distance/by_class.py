"""Moments of reference pictures by the class of the edited attribute, from a cache.

What is made of them, and why, stands in editbench.metrics.frechet_distance.matching.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from editbench.base.progress import progress
from editbench.metrics.frechet_distance.matching import SETS
from editbench.metrics.frechet_distance.reference import Reference, cached, reference_key
from editbench.networks.features import FeatureNetwork
from editbench.stats.moments import Moments
from editbench.walk.observation import ObservationContext


def class_statistics(
    context: ObservationContext,
    reference: Reference,
    network: FeatureNetwork,
    n: int,
    resolution: int,
) -> dict[str, np.ndarray]:
    """Moments of a reference by the judge's class of the edited attribute, from the cache where
    another job made them.

    Args:
        context: what is edited.
        reference: the pictures.
        network: whose features are taken.
        n: pictures; others n..2n-1, where there are so many, are a second set.
        resolution: of the pictures.

    Returns:
        class_count (K,), class_sum (K, d), class_outer (K, d (d + 1) / 2): pictures 0..n-1 by
        class. class_edited_count and so on: of the same pictures with the attribute exchanged,
        row c of those sent to class c which the judge puts there; only where the reference can be
        edited. other_*: likewise of pictures n..2n-1.
    """
    key = reference_key(context, reference, network, n, resolution) | {
        "judge": context.judge.digest,
        "attribute": context.attribute,
        "edited": reference.can_edit(context),
    }
    return cached(context.cache, key, lambda: _by_class(context, reference, network, n, resolution))


@torch.no_grad()
def _by_class(
    context: ObservationContext,
    reference: Reference,
    network: FeatureNetwork,
    n: int,
    resolution: int,
) -> dict[str, np.ndarray]:
    classes = len(context.judge.attributes[context.attribute].classes)
    names = SETS if reference.size(context) >= 2 * n else SETS[:1]
    # None: the pictures as they are; a number: all of them sent to that class.
    versions: list[int | None] = [None]
    if reference.can_edit(context):
        versions += range(classes)
    out: dict[str, np.ndarray] = {}
    with progress("reference pictures by class", len(names) * len(versions) * n) as advance:
        for place, name in enumerate(names):
            natural = [Moments(n, 1, network.dim) for _ in range(classes)]
            edited = [Moments(n, 1, network.dim) for _ in range(classes)]
            for target in versions:
                for first in range(0, n, context.batch):
                    last = min(first + context.batch, n)
                    span = (place * n + first, place * n + last)
                    if target is None:
                        images = reference.images(context, *span, resolution)
                    else:
                        images = reference.edited(context, *span, resolution, target)
                    features = network(images).float()
                    label = context.judge.attributes.labels(
                        context.judge(images), context.attribute
                    )
                    if target is None:
                        for c in range(classes):
                            _add(natural[c], features[label == c])
                    else:
                        # The judge's share is compared, so what it does not see is left out.
                        _add(edited[target], features[label == target])
                    advance(last - first)
            out |= _stacked(f"{name}_", natural)
            if len(versions) > 1:
                out |= _stacked(f"{name}_edited_", edited)
    return out


def _add(moments: Moments, features: Tensor) -> None:
    if len(features):
        # One block holds all: the place of a picture within it does not matter.
        moments.update(features.cpu(), 0)


def _stacked(prefix: str, moments: list[Moments]) -> dict[str, np.ndarray]:
    arrays = [each.arrays() for each in moments]
    return {
        f"{prefix}{name}": np.stack([one[name][0] for one in arrays])
        for name in ("count", "sum", "outer")
    }
