"""The ranking of methods by mean accuracy over attributes, with ties if a test cannot separate two.

The means are those of editbench.report.means, over the same attributes and starts for all methods.
Starts are resampled within each attribute, and all methods share the drawn starts, so every
difference is paired. P-values are adjusted over all pairs (Holm, 1979). A rank is a range: from one
plus the number of methods that are significantly better, to the number of methods minus those that
are significantly worse. Floors are last and have no rank, but the methods that they are not
separated from are listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd

from editbench.figures.theme import Theme
from editbench.report.means import MeanComparison
from editbench.report.paired import PER_PAIR, SIGNIFICANCE
from editbench.stats.intervals import DRAWS, holm, two_sided

FLOOR = "floor"  # in place of a rank
COLUMNS = (
    "setting",
    "rank",
    "best_rank",
    "worst_rank",
    "method",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "attributes",
    "asked",
    "n",
    "tied_with",
)


@dataclass(frozen=True)
class Ranking:
    """Methods by mean accuracy.

    Args:
        table: columns COLUMNS, best first, floors last; empty where nothing can be ranked.
        compared: what the means are over.
        leaders: the best method and those that are not behind it; empty if none is behind it.
        ties: method -> methods that it is not separated from, best first.
    """

    table: pd.DataFrame
    compared: MeanComparison
    leaders: frozenset[str] = frozenset()
    ties: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def ranking(compared: MeanComparison, setting: str = "") -> Ranking:
    """Rank the methods of one setting.

    Args:
        compared: of accuracy.
        setting: its name, for the table.
    """
    empty = pd.DataFrame(columns=list(COLUMNS))
    if len(compared.methods) < 2:
        return Ranking(empty, compared)
    table, leaders, ties = _ranked(compared)
    return Ranking(table.assign(setting=setting)[list(COLUMNS)], compared, leaders, ties=ties)


def describe_ranking(found: Ranking, theme: Theme) -> list[str]:
    """Sentences that a reader needs in addition to the table.

    Args:
        found: the ranking.
        theme: how methods and attributes are written.
    """
    compared = found.compared
    left = compared.left(theme).items()
    missing = [f"not ranked: {theme.method(method)}: {why}" for method, why in left]
    if found.table.empty:
        note = compared.note(theme) or "fewer than two methods can be compared"
        return [f"no ranking: {note}", *missing]
    return [
        f"ranking: by mean {compared.title(theme)} over {compared.over} "
        f"({theme.join_attributes(compared.attributes)}), the same for every method; a rank is a range "
        f"if the paired tests do not determine it (adjusted p below {SIGNIFICANCE:g}, Holm); floors "
        "have no rank",
        *missing,
    ]


def _ranked(
    compared: MeanComparison,
) -> tuple[pd.DataFrame, frozenset[str], dict[str, tuple[str, ...]]]:
    """The table, the methods that lead, and for each method those that it is not separated from."""
    methods = [*compared.methods, *compared.floors]
    pairs = list(combinations(range(len(methods)), 2))
    means = compared.averages()
    draws = compared.draws(max(DRAWS, PER_PAIR * len(pairs)))
    # The draws of all methods are over the same starts. The intervals are those of the table of
    # means, whose number of draws does not depend on the number of pairs.
    low, high = compared.intervals()
    a, b = np.array(pairs).T
    adjusted = holm(two_sided(draws[:, a] - draws[:, b], means[a] - means[b]))
    apart = np.zeros((len(methods),) * 2, bool)
    apart[a, b] = apart[b, a] = adjusted < SIGNIFICANCE
    # Floors are baselines and do not count for ranks.
    ranked = len(compared.methods)
    rival = apart[:, :ranked]
    # Entry k is the number of methods that are separated from method k and better, or worse.
    ahead = (rival & (means[None, :ranked] > means[:, None])).sum(1)
    behind = (rival & (means[None, :ranked] < means[:, None])).sum(1)
    # Ties are sorted by name, so that the table does not depend on the order of the runs.
    order = sorted(range(len(methods)), key=lambda k: (k >= ranked, -means[k], methods[k]))
    rows = []
    ties = {}
    for k in order:
        # From one plus the methods that are better to those that are not worse.
        best = 1 + int(ahead[k])
        worst = ranked - int(behind[k])
        text = str(best) if best == worst else f"{best}–{worst}"
        floor = k >= ranked
        ties[methods[k]] = tuple(methods[j] for j in order if j != k and not apart[k, j])
        rows.append(
            {
                "rank": FLOOR if floor else text,
                "best_rank": pd.NA if floor else best,
                "worst_rank": pd.NA if floor else worst,
                "method": methods[k],
                "accuracy": float(means[k]),
                "accuracy_low": float(low[k]),
                "accuracy_high": float(high[k]),
                "attributes": len(compared.attributes),
                "asked": compared.asked,
                "n": compared.starts,
                "tied_with": ", ".join(ties[methods[k]]),
            }
        )
    first = order[0]
    # As for a single attribute, see `paired.find_leaders`.
    behind = apart[first] | (high < low[first])
    leaders = frozenset(methods[k] for k in order if k < ranked and not behind[k])
    table = pd.DataFrame(rows).astype({"best_rank": "Int64", "worst_rank": "Int64"})
    return table, leaders if len(leaders) < ranked else frozenset(), ties
