"""Agreement of two classifiers beyond chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

# Kappa up to here is "slight" agreement (Landis & Koch 1977); below 0 it is contradiction.
SLIGHT = 0.2
# With a lower share of equal classes, logits do not come from the scorer. Rounding changes few.
SAME = 0.98


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Cohen's kappa (Cohen 1960): (p - q) / (1 - q).

    p is the share of equal answers, and q the share expected of independent classifiers with the
    same class frequencies. 1 means equal answers, 0 agreement by chance.

    Args:
        first: (n,) classes as integers from 0.
        second: (n,) classes of the other classifier.

    Returns:
        Kappa; NaN if both give only one and the same class, or if there are no samples.
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
    """Attributes on which two classifiers agree hardly more than by chance, or less.

    Args:
        agreement: attribute -> 'kappa', Cohen's kappa, or None if it is undefined.

    Returns:
        Attribute -> kappa, of those whose kappa is at most SLIGHT.
    """
    found = {}
    for name, values in agreement.items():
        kappa = values.get("kappa")
        if kappa is not None and kappa <= SLIGHT:
            found[name] = float(kappa)
    return found


def single_class(agreement: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Attributes of which both classifiers give all samples one and the same class.

    Args:
        agreement: attribute -> 'kappa', Cohen's kappa, or None, which it is only then.
    """
    return tuple(
        name for name, values in agreement.items() if values.get("kappa", math.nan) is None
    )


def foreign(imported: Mapping[str, Mapping[str, float]]) -> dict[tuple[str, str], float]:
    """Logits of an imported bank that do not match the run's own scorer.

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
