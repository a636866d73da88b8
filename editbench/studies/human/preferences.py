"""Win rates of all pairs of methods, and Bradley-Terry strengths for more than two methods.

Ties ('none / both / not applicable') do not count in rates and strengths; their number is given
separately. Votes of one rater, and votes on one comparison, are not independent. Wilson intervals
and binomial tests ignore this. The bootstrap does not: it resamples both raters and comparisons
(the pigeonhole bootstrap of Owen, 2007), and the weight of a vote is the product of their counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from editbench.base import seeding
from editbench.stats.intervals import holm, percentiles, wilson
from editbench.studies.human.bradley_terry import RIDGE, connected, fit

ALL = "all"
DRAWS = 1000  # of the bootstrap, so that 25 draws are beyond each end of an interval
FEWEST = 2  # least number of comparisons of a bootstrap interval; the tests are exact
CHUNK = 5_000_000  # weights in memory at once, 40 MB per table
RATES = (
    "asked",
    "attribute",
    "a",
    "b",
    "raters",
    "comparisons",
    "votes",
    "wins_a",
    "wins_b",
    "ties",
    "tie_share",
    "rate_a",
    "low",
    "high",
    "boot_low",
    "boot_high",
    "p",
    "p_holm",
)
STRENGTHS = (
    "asked",
    "attribute",
    "method",
    "strength",
    "low",
    "high",
    "wins",
    "losses",
    "ties",
    "note",
)
OPEN = 0.025  # if more draws than this share lack finite strengths, there is no interval


def scopes(votes: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(asked, attribute or 'all', votes): one vote per rater and comparison, without repeats."""
    # A repeat measures the rater and is no second vote. A comparison that is on several pages
    # counts once per rater too.
    first = votes[votes["repeat_of"] == ""].drop_duplicates(["asked", "rater", "comparison"])
    for asked, part in first.groupby("asked"):
        yield str(asked), ALL, part
        for attribute, own in part.groupby("attribute"):
            yield str(asked), str(attribute), own


def preferences(
    votes: pd.DataFrame, seed: int = 0, draws: int = DRAWS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Preferences of every question asked, over all attributes and for each.

    Args:
        votes: one row per answer, with the columns VOTES of editbench.studies.human.responses.
        seed: of the bootstrap.
        draws: of the bootstrap.

    Returns:
        rates: columns RATES. `rate_a` is a's share of the votes without ties, with the intervals of
            Wilson and of the bootstrap (NaN if fewer than two comparisons were no tie). `p` is of
            an exact binomial test against 1/2, and `p_holm` is adjusted over the pairs of methods
            of a question ('all'), or over its attributes and pairs.
        strengths: columns STRENGTHS. `strength` is in log-odds, with mean zero over the methods.
            Empty unless more than two methods were compared.
    """
    rates = []
    strengths = []
    for asked, attribute, part in scopes(votes):
        methods = sorted(set(part["a"]) | set(part["b"]))
        wins = win_counts(part, methods)
        # Shared by rates and strengths, so that both use the same draws.
        drawn = bootstrap_wins(part, methods, seed, draws)
        for i, j in combinations(range(len(methods)), 2):
            pair = part[(part["a"] == methods[i]) & (part["b"] == methods[j])]
            # Some pairs may have no comparison, such as if few starts cross under both.
            if len(pair):
                rates.append(
                    {"asked": asked, "attribute": attribute, "a": methods[i], "b": methods[j]}
                    | _rate(pair, int(wins[i, j]), int(wins[j, i]), drawn[:, i, j], drawn[:, j, i])
                )
        # With two methods, the strengths follow from the rate.
        if len(methods) > 2:
            strengths += [
                {"asked": asked, "attribute": attribute} | row
                for row in _strengths(part, methods, wins, drawn)
            ]
    table = pd.DataFrame(rates, columns=list(RATES))
    # The overall rows and those of attributes are separate families of tests. In one family, many
    # attributes would hide an overall preference.
    family = table["asked"] + np.where(table["attribute"] == ALL, "/all", "/each")
    for _, rows in table.groupby(family):
        table.loc[rows.index, "p_holm"] = holm(rows["p"].to_numpy(np.float64))
    return table, pd.DataFrame(strengths, columns=list(STRENGTHS))


def win_counts(votes: pd.DataFrame, methods: list[str]) -> np.ndarray:
    """How often the row's method was chosen over the column's; ties do not count.

    Args:
        votes: one row per answer, with winner, a and b.
        methods: m names, the order of rows and columns.

    Returns:
        (m, m).
    """
    place = _places(votes, methods)
    m = len(methods)
    # -1 is a tie. `minlength` gives pairs without a comparison an entry too.
    return np.bincount(place[place >= 0], minlength=m * m).reshape(m, m).astype(np.float64)


def bootstrap_wins(votes: pd.DataFrame, methods: list[str], seed: int, draws: int) -> np.ndarray:
    """`win_counts` of resampled raters and comparisons. A single rater is not resampled.

    Args:
        votes: at least one row, with winner, a, b, comparison and rater.
        methods: m names, the order of rows and columns.
        seed: of the draws.
        draws: number of tables.

    Returns:
        (draws, m, m).
    """
    place = _places(votes, methods)
    m = len(methods)
    # Sorted, so that the draws do not depend on the order of the files.
    items, raters = (pd.factorize(votes[name], sort=True)[0] for name in ("comparison", "rater"))
    choice = np.zeros((len(votes), m * m))
    choice[np.flatnonzero(place >= 0), place[place >= 0]] = 1.0
    rng = seeding.rng(seed, "human bootstrap", items.max() + 1, raters.max() + 1)
    sums = []
    # The draws are made in pieces, which limits the memory for any number of votes.
    size = max(1, CHUNK // len(votes))
    for begin in range(0, draws, size):
        count = min(size, draws - begin)
        weights = _counts(items.max() + 1, count, rng)[:, items]
        # Resampling a single rater changes nothing.
        if raters.max():
            weights = weights * _counts(raters.max() + 1, count, rng)[:, raters]
        # A weighted sum of one-hot rows: the wins of all pairs in one product.
        sums.append(weights @ choice)
    return np.concatenate(sums).reshape(draws, m, m)


def _counts(n: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, n) how often each of n items is drawn, in n draws with replacement."""
    return rng.multinomial(n, np.full(n, 1 / n), draws).astype(np.float64)


def _places(votes: pd.DataFrame, methods: list[str]) -> np.ndarray:
    """(votes,) winner * m + loser as positions in `methods`; -1 for a tie."""
    index = {name: k for k, name in enumerate(methods)}
    winner, a, b = (votes[name].map(index) for name in ("winner", "a", "b"))
    # The sum of both positions minus that of the winner; NaN for a tie.
    loser = a + b - winner
    return (winner * len(methods) + loser).fillna(-1).to_numpy(np.int64)


def _rate(
    pair: pd.DataFrame, wins_a: int, wins_b: int, drawn_a: np.ndarray, drawn_b: np.ndarray
) -> dict:
    decided = wins_a + wins_b
    low, high = wilson(wins_a, decided)
    # A draw may have only ties and is then NaN, which `percentiles` leaves out.
    with np.errstate(invalid="ignore"):
        ends = percentiles((drawn_a / (drawn_a + drawn_b))[:, None])[:, 0]
    # Resampling a single comparison says nothing about other comparisons.
    if pair.loc[pair["winner"] != "", "comparison"].nunique() < FEWEST:
        ends[:] = np.nan
    return {
        "raters": pair["rater"].nunique(),
        "comparisons": pair["comparison"].nunique(),
        "votes": len(pair),
        "wins_a": wins_a,
        "wins_b": wins_b,
        "ties": len(pair) - decided,
        "tie_share": 1 - decided / len(pair),
        "rate_a": wins_a / decided if decided else np.nan,
        "low": low,
        "high": high,
        "boot_low": float(ends[0]),
        "boot_high": float(ends[1]),
        "p": float(binomtest(wins_a, decided, 0.5).pvalue) if decided else np.nan,
        "p_holm": np.nan,
    }


def _strengths(
    part: pd.DataFrame, methods: list[str], wins: np.ndarray, drawn: np.ndarray
) -> list[dict]:
    # Without chains of wins between all methods, the likelihood has no maximum (Ford, 1957).
    whole = bool(connected(wins))
    values = fit(wins) if whole else np.full(len(methods), np.nan)
    # With the ridge, draws without finite strengths are far out, beyond the ends of the interval.
    ends = percentiles(fit(drawn, RIDGE))
    # If they are more than the draws beyond one end, that end depends only on the ridge.
    open_share = 1 - float(connected(drawn).mean())
    note = ""
    if not whole:
        note = "no finite strengths: the methods fall into groups of which one was never beaten"
    elif open_share > OPEN:
        note = (
            f"interval without an end: no finite strengths in {100 * open_share:.0f} % of the draws"
        )
        ends[:] = np.nan
    rows = []
    for k, name in enumerate(methods):
        own = part[(part["a"] == name) | (part["b"] == name)]
        rows.append(
            {
                "method": name,
                "strength": float(values[k]),
                "low": float(ends[0, k]) if whole else np.nan,
                "high": float(ends[1, k]) if whole else np.nan,
                "wins": int(wins[k].sum()),
                "losses": int(wins[:, k].sum()),
                "ties": int((own["winner"] == "").sum()),
                "note": note,
            }
        )
    # Without strengths, which are NaN, the methods are sorted by name.
    return sorted(rows, key=lambda row: (-row["strength"] if whole else 0.0, row["method"]))
