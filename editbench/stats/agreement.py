"""How far two classifiers agree beyond chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# Kappa up to here is "slight" agreement (Landis & Koch 1977); below 0 it is contradiction.
SLIGHT = 0.2
# Share of equal classes below which logits are not those of a scorer. Rounding moves hardly any.
SAME = 0.98


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Cohen's kappa (Cohen 1960): (p - q) / (1 - q).

    p is the share of equal answers, q the share that independent classifiers with the same shares
    of classes would give. 1: the same answers; 0: what chance gives.

    Args:
        first: (n,) classes as whole numbers from 0.
        second: (n,) of the other classifier.

    Returns:
        NaN where both give one class alone, or where there are no samples.
    """
    if not len(first):
        return float("nan")
    classes = int(max(first.max(), second.max())) + 1
    shares = []
    for labels in (first, second):
        shares.append(np.bincount(labels, minlength=classes) / len(labels))
    equal = float((first == second).mean())
    chance = float((shares[0] * shares[1]).sum())
    if chance == 1:
        return float("nan")
    return (equal - chance) / (1 - chance)


def contradicted(agreement: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Attributes on which two classifiers agree hardly more than chance, or less.

    Args:
        agreement: attribute -> 'kappa', Cohen's, or None where it is undefined.

    Returns:
        Attribute -> kappa, of those whose kappa is at most SLIGHT.
    """
    found = {}
    for name, values in agreement.items():
        kappa = values.get("kappa")
        if kappa is not None and kappa <= SLIGHT:
            found[name] = float(kappa)
    return found


def foreign(imported: Mapping[str, Mapping[str, float]]) -> dict[tuple[str, str], float]:
    """Logits of an imported bank that are not those of the run's own scorer.

    Args:
        imported: role -> attribute -> share of equal classes.

    Returns:
        (role, attribute) -> share, of those whose share is below SAME.
    """
    found = {}
    for role, shares in imported.items():
        for name, share in shares.items():
            if share < SAME:
                found[role, name] = share
    return found
