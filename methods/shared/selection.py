"""Which samples a supervised editor learns from; and configuration values that are checked."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from editbench.base.attributes import Attribute
from editbench.base.errors import EditbenchError
from editbench.base.spaces import Space
from editbench.walk.editor import FitData


def walk_space(space: str) -> Space:
    """'w' or 'z' as a Space."""
    if str(space) not in (Space.W, Space.Z):
        raise EditbenchError(f"space: '{space}' is not one of w, z")
    return Space(str(space))


def choice(key: str, value: str, known: tuple[str, ...]) -> str:
    """A configuration value out of a few."""
    if value not in known:
        raise EditbenchError(f"{key}: '{value}' is not one of {', '.join(known)}")
    return value


def class_log_odds(data: FitData, name: str) -> Tensor:
    """Teacher's log-odds of every class over the fit split: (n, K).

    A binary attribute gets both sides, -l and l.
    """
    odds = data.attributes.logits(data.attributes.log_odds(data.fit.logits), name)
    return torch.cat([-odds, odds], 1) if data.attributes[name].binary else odds


def class_counts(data: FitData, name: str) -> Tensor:
    """Fit samples that the teacher puts in each class: (K,) int64."""
    # By the teacher: true labels are not known, and the judge must not be used.
    return torch.bincount(
        data.attributes.labels(data.fit.logits, name), minlength=len(data.attributes[name].classes)
    )


def empty_class(attribute: Attribute, counts: Tensor, least: int = 1) -> str:
    """Why an attribute cannot be learned; '' when it can.

    Args:
        attribute: the attribute.
        counts: (K,) examples of each class.
        least: examples that each class needs.
    """
    # A boundary between classes needs examples on both sides.
    few = [c for c in range(len(counts)) if counts[c] < least]
    if least == 1:
        names = [attribute.classes[c] for c in few]
        amount = "no example"
    else:
        names = [f"{attribute.classes[c]} ({counts[c]})" for c in few]
        amount = f"fewer than {least} examples"
    if not few:
        return ""
    return f"the fit split holds {amount} of {attribute.name}: {', '.join(names)}"


def few_shot(
    odds: Tensor, labels: Tensor, order: np.ndarray, per_class: int, pool: int, extremes: bool
) -> tuple[list[np.ndarray], int]:
    """At most `per_class` samples of each class, and how many labels had to be looked at for them.

    Candidates are the first `pool` samples of `order`. With `extremes` a class takes its most
    confident candidates, otherwise its first ones. Where the candidates hold too few of a class,
    the scan goes on along `order` until they suffice or the samples end; what was scanned is
    counted as labelled.

    Args:
        odds: (n, K) log-odds of the classes.
        labels: (n,) decided classes.
        order: (n,) a permutation of the samples.
        per_class: examples of a class, at most.
        pool: candidates at the head of `order`.
        extremes: take the most confident candidates.

    Returns for each class the positions of its samples, and the number of labels.
    """
    # On the host, where a stable sort is the same for every device.
    odds_of = odds.double().cpu().numpy()[order]
    labels_of = labels.cpu().numpy()[order]
    chosen = []
    # To know which candidates are extreme, all of them must be labelled.
    looked = min(pool, len(order)) if extremes else 0
    for c in range(odds_of.shape[1]):
        members = np.flatnonzero(labels_of == c)
        near = members[members < pool]
        if extremes and len(near) >= per_class:
            # Stable, so that equal log-odds give the same choice on every platform.
            picked = near[np.argsort(-odds_of[near, c], kind="stable")[:per_class]]
        else:
            # The labels are read one by one until the class has enough, or the samples end.
            picked = members[:per_class]
            scanned = int(picked[-1]) + 1 if len(picked) == per_class else len(order)
            looked = max(looked, scanned)
        chosen.append(order[picked])
    return chosen, looked
