"""Choosing the samples that a supervised editor learns from, by the teacher's labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from editbench.base.attributes import Attribute
from editbench.base.seeding import uniforms
from editbench.walk.editor import FitData


def class_log_odds(data: FitData, name: str) -> Tensor:
    """The teacher's log-odds of every class over the fit split.

    Args:
        data: the fit split and its logits.
        name: the attribute.

    Returns:
        (n, K). For a binary attribute with log-odds l the columns are -l and l.
    """
    odds = data.attributes.logits(data.attributes.log_odds(data.fit.logits), name)
    # A binary attribute has one column, although it has two classes.
    return torch.cat([-odds, odds], 1) if data.attributes[name].binary else odds


def class_counts(data: FitData, name: str) -> Tensor:
    """Number of fit samples in each class according to the teacher.

    Args:
        data: the fit split and its logits.
        name: the attribute.

    Returns:
        (K,) int64; 0 for a class without samples.
    """
    # The teacher decides, since true labels are unknown and the judge must not be used.
    return torch.bincount(
        # Without `minlength` the last classes would have no entry if they have no samples.
        data.attributes.labels(data.fit.logits, name),
        minlength=len(data.attributes[name].classes),
    )


def empty_class(attribute: Attribute, counts: Tensor, least: int = 1, lower: str = "") -> str:
    """Why an attribute cannot be learned; '' when it can.

    Args:
        attribute: the attribute.
        counts: (K,) examples of each class.
        least: examples that each class needs.
        lower: the option that requires so many examples, if there is one.
    """
    # A boundary between classes needs examples on both sides.
    few = [c for c in range(len(counts)) if counts[c] < least]
    if not few:
        return ""
    if least == 1:
        names = [attribute.classes[c] for c in few]
        amount = "no example"
    else:
        names = [f"{attribute.classes[c]} ({counts[c]})" for c in few]
        amount = f"fewer than {least} examples"
    remedy = f"raise bank.n or lower {lower}" if lower else "raise bank.n"
    if not counts[few].any():
        # More samples do not help if the teacher has wrong outputs or classes.
        remedy += "; `editbench scorer check` shows which classes the teacher assigns at all"
    return f"the fit split holds {amount} of {attribute.name}: {', '.join(names)}; {remedy}"


def example_order(data: FitData) -> np.ndarray:
    """The random order in which fit samples are considered: (n,) positions in the fit split.

    Samples are sorted by a key that depends only on (seed, bank index). A smaller set of examples
    is therefore the beginning of a larger one, methods with the same seed see the same examples,
    and adding samples to the bank does not change the order of the others.
    """
    index = data.fit.index.cpu().numpy()
    keys = uniforms(data.seed, "examples", 0, int(index.max()) + 1, 1)[index, 0]
    return np.argsort(keys, kind="stable")


def random_examples(
    labels: Tensor, classes: int, order: np.ndarray, per_class: int
) -> tuple[list[np.ndarray], int]:
    """The first `per_class` samples of each class in the given order, or all if there are fewer.

    Args:
        labels: (n,) decided classes.
        classes: K.
        order: (n,) a permutation of the samples.
        per_class: largest number of examples per class.

    Returns:
        chosen: for each class the positions of its samples.
        looked: number of labels read, one by one until every class has enough or the samples end.
    """
    labels_of = labels.cpu().numpy()[order]
    chosen = []
    looked = 0
    for c in range(classes):
        picked, scanned = _first_of(labels_of == c, per_class)
        chosen.append(order[picked])
        looked = max(looked, scanned)
    return chosen, looked


def extreme_examples(
    odds: Tensor, labels: Tensor, order: np.ndarray, per_class: int, pool: int
) -> tuple[list[np.ndarray], int]:
    """The `per_class` most confident samples of each class among the first `pool` in an order.

    If the candidates contain too few samples of a class, the scan continues along `order` until
    there are enough or the samples end. All scanned samples count as labelled.

    Args:
        odds: (n, K) log-odds of the classes.
        labels: (n,) decided classes.
        order: (n,) a permutation of the samples.
        per_class: largest number of examples per class.
        pool: number of candidates at the head of `order`.

    Returns:
        chosen: for each class the positions of its samples.
        looked: number of labels read.
    """
    # On the host, so that the stable sort does not depend on the device.
    odds_of = odds.double().cpu().numpy()[order]
    labels_of = labels.cpu().numpy()[order]
    chosen = []
    # All candidates must be labelled to know which of them are extreme.
    looked = min(pool, len(order))
    for c in range(odds_of.shape[1]):
        near = np.flatnonzero(labels_of[:pool] == c)
        if len(near) >= per_class:
            # Stable, so that equal log-odds give the same choice on every platform.
            picked = near[np.argsort(-odds_of[near, c], kind="stable")[:per_class]]
        else:
            picked, scanned = _first_of(labels_of == c, per_class)
            looked = max(looked, scanned)
        chosen.append(order[picked])
    return chosen, looked


def _first_of(member: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """Positions of the first `count` members, and how many positions were scanned to find them."""
    picked = np.flatnonzero(member)[:count]
    if len(picked) < count:
        return picked, len(member)
    return picked, int(picked[-1]) + 1
