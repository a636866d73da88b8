"""Reliability of answers: consistent repeats, agreement of raters, and preference for a side."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from editbench.stats.intervals import wilson
from editbench.studies.human.preferences import ALL, scopes

CONSISTENCY = (
    "asked",
    "rater",
    "repeats",
    "alike",
    "share",
    "low",
    "high",
    "left_share",
    "left_p",
    "tie_share",
    "seconds",
)
AGREEMENT = ("asked", "attribute", "raters", "comparisons", "pairs", "percent", "alpha")


def consistency(votes: pd.DataFrame) -> pd.DataFrame:
    """The consistency of each rater, and of all raters together.

    Args:
        votes: one row per answer, with the columns VOTES of editbench.studies.human.responses.

    Returns:
        One row per question asked and rater, with the columns CONSISTENCY:

        - `repeats`, repeats with both answers, and `alike`, those in which the same method was
          chosen, or twice none; `share` with Wilson's interval `low` to `high`;
        - `left_share`, share of answers 'left' among the first showings without ties, and `left_p`,
          of an exact binomial test against 1/2;
        - `tie_share`, share of ties among the first showings;
        - `seconds`, median time per screen.
    """
    rows = []
    for asked, part in votes.groupby("asked"):
        # Each rater separately too, since a mean would hide one who answers at random.
        groups = [(ALL, part), *((str(name), own) for name, own in part.groupby("rater"))]
        for rater, own in groups:
            # Sides and ties are counted on first showings, since those of repeats follow from them.
            first = own[own["repeat_of"] == ""]
            # An inner join, since a repeat counts only if its first showing was answered too.
            again = own[own["repeat_of"] != ""].merge(
                first[["rater", "question", "winner"]],
                left_on=["rater", "repeat_of"],
                right_on=["rater", "question"],
                suffixes=("", "_first"),
            )
            # Methods are compared and not sides, since a repeat has swapped sides.
            alike = int((again["winner"] == again["winner_first"]).sum())
            low, high = wilson(alike, len(again))
            decided = first[first["answer"] != "none"]
            # Sides are balanced, so without a preference for a side the share is about 1/2.
            left = int((decided["answer"] == "left").sum())
            left_share = left_p = np.nan
            if len(decided):
                left_share = left / len(decided)
                left_p = float(binomtest(left, len(decided), 0.5).pvalue)
            rows.append(
                {
                    "asked": asked,
                    "rater": rater,
                    "repeats": len(again),
                    "alike": alike,
                    "share": alike / len(again) if len(again) else np.nan,
                    "low": low,
                    "high": high,
                    "left_share": left_share,
                    "left_p": left_p,
                    "tie_share": 1 - len(decided) / len(first) if len(first) else np.nan,
                    # The median, since a rater may leave a screen open for hours.
                    "seconds": first["seconds"].median(),
                }
            )
    return pd.DataFrame(rows, columns=list(CONSISTENCY))


def agreement(votes: pd.DataFrame) -> pd.DataFrame:
    """The agreement of raters, over all attributes and for each attribute.

    Only comparisons with at least two answers count. An answer is one of the two methods, or none.

    Args:
        votes: one row per answer, with the columns VOTES of editbench.studies.human.responses.

    Returns:
        Columns AGREEMENT. `percent` is the share of pairs of raters, over all comparisons, that
        gave the same answer, and `alpha` is Krippendorff's nominal alpha.
    """
    rows = []
    for asked, attribute, own in scopes(votes):
        # By method and not by side, since raters may have seen the pair with swapped sides.
        answer = np.select([own["winner"] == "", own["winner"] == own["a"]], [0, 1], 2)
        counts = pd.crosstab(own["comparison"], answer).to_numpy(np.float64)
        # A single answer makes no pair of raters.
        counts = counts[counts.sum(1) > 1]
        percent, alpha, pairs = krippendorff(counts)
        rows.append(
            {
                "asked": asked,
                "attribute": attribute,
                "raters": own["rater"].nunique(),
                "comparisons": len(counts),
                "pairs": pairs,
                "percent": percent,
                "alpha": alpha,
            }
        )
    return pd.DataFrame(rows, columns=list(AGREEMENT))


def krippendorff(counts: np.ndarray) -> tuple[float, float, int]:
    """Agreement of raters (Krippendorff, 2011).

    Args:
        counts: (units, categories), how many raters assigned each category to a unit; at least two
            raters per unit.

    Returns:
        The share of agreeing pairs of raters, the nominal alpha, and the number of pairs. Both
        shares are NaN if there is no unit, and alpha is NaN if only one category occurs.
    """
    size = counts.sum(1)
    # Pairs of raters within a unit; units may have different numbers of them.
    pairs = size * (size - 1) / 2
    if not len(counts):
        return float("nan"), float("nan"), 0
    same = (counts * (counts - 1) / 2).sum(1)
    # Observed disagreement; the weight of a unit is its number of raters.
    seen = (2 * (pairs - same) / (size - 1)).sum()
    totals = counts.sum(0)
    n = size.sum()
    # Disagreement of pairs drawn from all answers without replacement, hence n - 1.
    expected = (n * n - (totals**2).sum()) / (n - 1)
    alpha = 1 - seen / expected if expected > 0 else float("nan")
    return float(same.sum() / pairs.sum()), float(alpha), int(pairs.sum())
