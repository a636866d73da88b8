"""How far the answers can be trusted: repeats answered alike, raters that agree, sides that are not
preferred.
"""

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
    """Columns CONSISTENCY, a row a question asked and rater, and one for all raters.

    - alike: repeats, shown with swapped sides, that got the same method or twice none, of those
      with both answers; share, low, high: with Wilson's interval.
    - left_share: of the first showings that were no tie, with left_p, an exact binomial p against
      1/2.
    - seconds: median of a screen.
    """
    rows = []
    for asked, part in votes.groupby("asked"):
        # Raters one by one as well: one who answers at random is hidden in the mean.
        groups = [(ALL, part), *((str(name), own) for name, own in part.groupby("rater"))]
        for rater, own in groups:
            # A repeat's sides follow from its first showing, on which sides and ties are counted.
            first = own[own["repeat_of"] == ""]
            # An inner join: a repeat needs the answer to its first showing to be judged by.
            again = own[own["repeat_of"] != ""].merge(
                first[["rater", "question", "winner"]],
                left_on=["rater", "repeat_of"],
                right_on=["rater", "question"],
                suffixes=("", "_first"),
            )
            # Winners and not sides are compared, since the repeat has its sides swapped.
            alike = int((again["winner"] == again["winner_first"]).sum())
            low, high = wilson(alike, len(again))
            decided = first[first["answer"] != "none"]
            # Sides are balanced, so a rater with a favourite side shows in a share away from 1/2.
            left = int((decided["answer"] == "left").sum())
            rows.append(
                {
                    "asked": asked,
                    "rater": rater,
                    "repeats": len(again),
                    "alike": alike,
                    "share": alike / len(again) if len(again) else np.nan,
                    "low": low,
                    "high": high,
                    "left_share": left / len(decided) if len(decided) else np.nan,
                    "left_p": float(binomtest(left, len(decided), 0.5).pvalue)
                    if len(decided)
                    else np.nan,
                    "tie_share": 1 - len(decided) / len(first) if len(first) else np.nan,
                    # A rater may leave a screen open over lunch, which would carry a mean away.
                    "seconds": first["seconds"].median(),
                }
            )
    return pd.DataFrame(rows, columns=list(CONSISTENCY))


def agreement(votes: pd.DataFrame) -> pd.DataFrame:
    """Columns AGREEMENT, over all attributes and for each: only of comparisons that two raters or
    more answered.

    percent: share of the pairs of raters, over comparisons, that gave the same answer; alpha:
    Krippendorff's, nominal. The answers are: the method that comes first in the alphabet, the other
    one, none.
    """
    rows = []
    for asked, attribute, own in scopes(votes):
        # By method and not by side, since raters may have seen the pair on swapped sides.
        answer = np.select([own["winner"] == "", own["winner"] == own["a"]], [0, 1], 2)
        counts = pd.crosstab(own["comparison"], answer).to_numpy(np.float64)
        # One answer alone makes no pair and says nothing of agreement.
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
    """counts (units, categories): how many raters gave a unit each category, at least two a unit.

    Returns the share of agreeing pairs, Krippendorff's nominal alpha (Krippendorff, 2011) and the
    number of pairs; NaN where there is no unit, or for alpha where only one category occurs.
    """
    size = counts.sum(1)
    # Pairs of raters within a unit; units may have different numbers of them.
    pairs = size * (size - 1) / 2
    if not len(counts):
        return float("nan"), float("nan"), 0
    same = (counts * (counts - 1) / 2).sum(1)
    # Observed disagreement; a unit weighs its raters.
    seen = (2 * (pairs - same) / (size - 1)).sum()
    totals = counts.sum(0)
    n = size.sum()
    # Disagreement of pairs drawn from all answers without replacement, hence n - 1.
    expected = (n * n - (totals**2).sum()) / (n - 1)
    alpha = 1 - seen / expected if expected > 0 else float("nan")
    return float(same.sum() / pairs.sum()), float(alpha), int(pairs.sum())
