"""Win rates of every two methods, and Bradley-Terry strengths where there are more.

Ties ('none / both / not applicable') are left out of rates and strengths and told beside them.
Votes of one rater, and votes on one comparison, are not independent. Wilson intervals and binomial
tests take them as if they were; the bootstrap does not: raters and comparisons are both resampled
(the pigeonhole bootstrap of Owen, 2007), and a vote weighs the product of their counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from editbench.base import seeding
from editbench.report.paired import FEWEST
from editbench.stats.intervals import holm, percentiles, wilson
from editbench.studies.human.bradley_terry import RIDGE, connected, fit

ALL = "all"
# Each draw fits strengths for every scope, and 1,000 draws leave 25 beyond each end.
DRAWS = 1000
CHUNK = 5_000_000  # weights at once, 40 MB a table of them
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
OPEN = 0.025  # share of draws without finite strengths beyond which an interval has no end


def scopes(votes: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(asked, attribute or 'all', its first showings: one vote a rater and comparison)."""
    # A repeat is there to measure the rater; as a second vote it would count twice. A comparison
    # may stand on several pages, and counts once too.
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
        votes: one row an answer, columns VOTES of editbench.studies.human.responses.
        seed: of the bootstrap.
        draws: of the bootstrap.

    Returns:
        rates: columns RATES. rate_a: a's share of the votes that were no tie, with Wilson's
            interval and the bootstrap's (NaN where fewer than two comparisons were no tie); p:
            exact binomial test against 1/2, p_holm: adjusted over the pairs of methods of a
            question ('all'), or over its attributes and pairs.
        strengths: columns STRENGTHS. strength: log-odds, mean zero over the methods; only where
            more than two methods were compared.
    """
    rates = []
    strengths = []
    for asked, attribute, part in scopes(votes):
        methods = sorted(set(part["a"]) | set(part["b"]))
        wins = win_counts(part, methods)
        # Once for rates and strengths, so that both are of the same draws.
        drawn = bootstrap_wins(part, methods, seed, draws)
        for i, j in combinations(range(len(methods)), 2):
            pair = part[(part["a"] == methods[i]) & (part["b"] == methods[j])]
            # Two methods may never have met, for instance where few starts were crossed by both.
            if len(pair):
                rates.append(
                    {"asked": asked, "attribute": attribute, "a": methods[i], "b": methods[j]}
                    | _rate(pair, int(wins[i, j]), int(wins[j, i]), drawn[:, i, j], drawn[:, j, i])
                )
        # With two methods the strengths differ by the log-odds of the rate: nothing new.
        if len(methods) > 2:
            strengths += [
                {"asked": asked, "attribute": attribute} | row
                for row in _strengths(part, methods, wins, drawn)
            ]
    table = pd.DataFrame(rates, columns=list(RATES))
    # The overall rows and those of attributes are two questions; together, many attributes would
    # hide an overall preference.
    family = table["asked"] + np.where(table["attribute"] == ALL, "/all", "/each")
    for _, rows in table.groupby(family):
        table.loc[rows.index, "p_holm"] = holm(rows["p"].to_numpy(np.float64))
    return table, pd.DataFrame(strengths, columns=list(STRENGTHS))


def win_counts(votes: pd.DataFrame, methods: list[str]) -> np.ndarray:
    """How often the row's method was chosen over the column's; ties do not count.

    Args:
        votes: rows of answers with winner, a and b.
        methods: m names, the order of rows and columns.

    Returns:
        (m, m).
    """
    place = _places(votes, methods)
    m = len(methods)
    # -1 is a tie. Pairs that never met have no entry but for `minlength`.
    return np.bincount(place[place >= 0], minlength=m * m).reshape(m, m).astype(np.float64)


def bootstrap_wins(votes: pd.DataFrame, methods: list[str], seed: int, draws: int) -> np.ndarray:
    """`win_counts` with raters and comparisons resampled; a single rater is not.

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
    # sort=True: numbers of raters must not depend on the order in which files were given.
    items, raters = (pd.factorize(votes[name], sort=True)[0] for name in ("comparison", "rater"))
    choice = np.zeros((len(votes), m * m))
    choice[np.flatnonzero(place >= 0), place[place >= 0]] = 1.0
    rng = seeding.rng(seed, "human bootstrap", items.max() + 1, raters.max() + 1)
    sums = []
    # Draws in pieces bound the memory, whatever the number of votes.
    size = max(1, CHUNK // len(votes))
    for begin in range(0, draws, size):
        count = min(size, draws - begin)
        weights = _counts(items.max() + 1, count, rng)[:, items]
        # A single rater, drawn again, is always the same one.
        if raters.max():
            weights = weights * _counts(raters.max() + 1, count, rng)[:, raters]
        # A weighted sum of one-hot rows: the wins of all pairs in one product.
        sums.append(weights @ choice)
    return np.concatenate(sums).reshape(draws, m, m)


def _counts(n: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    # Of n draws with replacement only the number of times that each is drawn matters.
    return rng.multinomial(n, np.full(n, 1 / n), draws).astype(np.float64)


def _places(votes: pd.DataFrame, methods: list[str]) -> np.ndarray:
    """(votes,) winner * m + loser, -1 for a tie."""
    index = {name: k for k, name in enumerate(methods)}
    winner, a, b = (votes[name].map(index) for name in ("winner", "a", "b"))
    # Of the two numbers the one that did not win; NaN for a tie, which becomes -1.
    loser = a + b - winner
    return (winner * len(methods) + loser).fillna(-1).to_numpy(np.int64)


def _rate(
    pair: pd.DataFrame, wins_a: int, wins_b: int, drawn_a: np.ndarray, drawn_b: np.ndarray
) -> dict:
    decided = wins_a + wins_b
    low, high = wilson(wins_a, decided)
    # A draw may hold ties only; `percentiles` leaves it out.
    with np.errstate(invalid="ignore"):
        ends = percentiles((drawn_a / (drawn_a + drawn_b))[:, None])[:, 0]
    # Resampling one comparison gives that comparison again: it says nothing of others.
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
    # Without a chain of wins between all methods the likelihood has no maximum (Ford, 1957).
    whole = bool(connected(wins))
    values = fit(wins) if whole else np.full(len(methods), np.nan)
    # The ridge puts draws without finite strengths far out, where they count as beyond the end.
    ends = percentiles(fit(drawn, RIDGE))
    # More of them than lie beyond one end of the interval make that end a product of the ridge.
    open_share = 1 - float(connected(drawn).mean())
    note = (
        ""
        if whole
        else "no finite strengths: the methods fall into groups of which one was never beaten"
    )
    if whole and open_share > OPEN:
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
    # NaN has no order, so without strengths the names decide.
    return sorted(rows, key=lambda row: (-row["strength"] if whole else 0.0, row["method"]))
