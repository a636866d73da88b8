"""How well scores rank labels: the area under the receiver operating characteristic (AUC)."""

from __future__ import annotations

import numpy as np

NAN = float("nan")


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Share of the pairs of a positive and a negative sample that the scores rank correctly.

    Pairs with equal scores count one half. It is the Mann-Whitney statistic over the number of
    pairs (Hanley and McNeil, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve", Radiology 143, 1982).

    Args:
        scores: (n,) on any scale; higher means more likely positive.
        positive: (n,) bool.

    Returns:
        In [0, 1], 0.5 for scores without information; NaN if one side is empty or a score is NaN.
    """
    scores = np.asarray(scores, np.float64)
    positive = np.asarray(positive, bool)
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0 or np.isnan(scores).any():
        return NAN
    # Imported here, since the import takes a second that would delay the check of a job's settings.
    from scipy.stats import rankdata

    # Average ranks count each tied pair as one half.
    ranks = rankdata(scores)
    above = ranks[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))


def mean_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes of the AUC of one class against the rest.

    Args:
        scores: (n, K), one column per class.
        labels: (n,) classes, 0 to K - 1.

    Returns:
        In [0, 1]. A class with no samples, or with all of them, is left out; NaN if no class is
        left or a score is NaN.
    """
    found = []
    for c in range(scores.shape[1]):
        positive = labels == c
        if positive.any() and not positive.all():
            found.append(auc(scores[:, c], positive))
    return float(np.mean(found)) if found else NAN
