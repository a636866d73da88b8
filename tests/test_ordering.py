"""AUC against scikit-learn, against counting pairs, and what it is invariant to."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from editbench.stats.ordering import auc, mean_auc


def by_counting(scores: np.ndarray, positive: np.ndarray) -> float:
    pairs = [(p, n) for p in scores[positive] for n in scores[~positive]]
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_it_is_that_of_scikit_learn_with_and_without_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for share in (0.05, 0.5, 0.9):
        positive = rng.random(300) < share
        scores = rng.integers(0, levels, 300) + positive * rng.integers(0, 2, 300)
        found = auc(scores, positive)
        assert found == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
        assert found == pytest.approx(by_counting(scores, positive), abs=1e-12)


def test_the_order_alone_counts_and_reversing_it_mirrors_the_value() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(200) < 0.3
    scores = rng.normal(size=200) + positive
    found = auc(scores, positive)
    assert auc(np.exp(3 * scores - 40), positive) == found
    assert auc(-scores, positive) == pytest.approx(1 - found, abs=1e-12)
    assert auc(np.zeros(200), positive) == 0.5
    assert auc(positive, positive) == 1.0


def test_many_classes_are_the_mean_of_one_against_the_rest() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 500)
    scores = rng.normal(size=(500, 4)) + 1.5 * np.eye(4)[labels]
    each = [roc_auc_score(labels == c, scores[:, c]) for c in range(4)]
    assert mean_auc(scores, labels) == pytest.approx(np.mean(each), abs=1e-12)
    # Two columns of one logit are one question asked twice.
    binary = np.stack([-scores[:, 0], scores[:, 0]], 1)
    assert mean_auc(binary, labels // 2) == pytest.approx(
        roc_auc_score(labels // 2, scores[:, 0]), abs=1e-12
    )


def test_without_both_sides_or_with_nan_there_is_no_value() -> None:
    scores = np.arange(4.0)
    assert np.isnan(auc(scores, np.ones(4, bool))) and np.isnan(auc(scores, np.zeros(4, bool)))
    assert np.isnan(auc(np.array([0, np.nan, 1, 2]), np.array([True, False, True, False])))
    assert np.isnan(mean_auc(np.zeros((4, 2)), np.zeros(4, int)))
    # A class that no sample has is left out of the mean.
    labels = np.array([0, 0, 1, 1])
    assert mean_auc(np.eye(3)[labels], labels) == 1.0
    # Fewer samples than classes: 1 for class 0, and 0 for class 2.
    assert mean_auc(np.array([[1, 0, 0.5], [0, 0, 0.2]]), np.array([0, 2])) == 0.5
