"""The analysis of votes against scipy, sklearn, published and hand numbers; the votes are drawn with known probabilities."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from editbench.stats.intervals import holm
from editbench.studies.human.agreement import agreement, consistency, krippendorff
from editbench.studies.human.bradley_terry import connected, fit
from editbench.studies.human.preferences import bootstrap_wins, preferences, win_counts
from editbench.studies.human.responses import VOTES


def made_votes(
    strength: dict[str, float],
    comparisons: int,
    raters: int,
    tie: float = 0.0,
    seed: int = 0,
    shared: bool = True,
) -> pd.DataFrame:
    """Votes with P(a over b) = 1 / (1 + exp(s_b - s_a)), each pair and rater alike."""
    rng, rows = np.random.default_rng(seed), []
    for a, b in combinations(sorted(strength), 2):
        chance = 1 / (1 + np.exp(strength[b] - strength[a]))
        for k in range(comparisons):
            for rater in range(raters):
                draw = rng.random()
                winner = "" if draw < tie else a if rng.random() < chance else b
                rows.append(
                    {
                        "rater": f"r{rater}",
                        "set": "1",
                        "question": f"{a}{b}{k}",
                        "repeat_of": "",
                        "comparison": f"{a}{b}{k}" + ("" if shared else f"/{rater}"),
                        "attribute": f"x{k % 2}",
                        "a": a,
                        "b": b,
                        "asked": "change",
                        "answer": "none" if not winner else "left" if winner == a else "right",
                        "winner": winner,
                        "seconds": 1.0,
                    }
                )
    return pd.DataFrame(rows, columns=list(VOTES))


def test_win_rates_against_scipy_and_a_slow_count() -> None:
    votes = made_votes({"p": 0.0, "q": 0.8, "r": -0.5}, 40, 1, tie=0.25, seed=3)
    rates, _ = preferences(votes, draws=20)
    for row in rates.to_dict("records"):
        own = [
            vote
            for vote in votes.to_dict("records")
            if (vote["a"], vote["b"]) == (row["a"], row["b"])
            and row["attribute"] in ("all", vote["attribute"])
        ]
        wins = sum(vote["winner"] == row["a"] for vote in own)
        losses, ties = (
            sum(vote["winner"] == row["b"] for vote in own),
            sum(vote["winner"] == "" for vote in own),
        )
        assert (row["wins_a"], row["wins_b"], row["ties"], row["votes"]) == (
            wins,
            losses,
            ties,
            len(own),
        )
        test = binomtest(wins, wins + losses)
        assert row["rate_a"] == pytest.approx(wins / (wins + losses))
        assert row["p"] == pytest.approx(test.pvalue)
        assert (row["low"], row["high"]) == pytest.approx(
            tuple(test.proportion_ci(method="wilson"))
        )
        assert row["tie_share"] == pytest.approx(ties / len(own)) and ties
    for whole in (True, False):  # two families: overall, and every attribute and pair
        family = rates[(rates["attribute"] == "all") == whole]
        np.testing.assert_allclose(family["p_holm"], holm(family["p"].to_numpy()))
        order = family.sort_values("p")
        assert order["p_holm"].iloc[0] == pytest.approx(min(1, len(family) * order["p"].iloc[0]))


def test_a_method_counts_its_votes_on_either_side() -> None:
    # q is always the second of a pair with p, and the first of a pair with r.
    votes = made_votes({"p": 0.0, "q": 0.3, "r": 0.1}, 30, 1, tie=0.3, seed=5)
    _, strengths = preferences(votes, draws=20)
    whole = strengths[strengths["attribute"] == "all"].set_index("method")
    for name in "pqr":
        own = votes[(votes["a"] == name) | (votes["b"] == name)]
        row = whole.loc[name]
        assert row["wins"] == (own["winner"] == name).sum()
        assert row["ties"] == (own["winner"] == "").sum()
        assert row["wins"] + row["losses"] + row["ties"] == len(own) == 60


def test_all_ties_have_no_rate() -> None:
    rates, strengths = preferences(made_votes({"p": 0.0, "q": 0.0}, 5, 1, tie=1.0), draws=20)
    assert rates["rate_a"].isna().all()
    assert rates["p"].isna().all()
    assert (rates["ties"] == rates["votes"]).all()
    assert strengths.empty


def test_one_comparison_has_no_bootstrap_interval() -> None:
    votes = made_votes({"p": 5.0, "q": 0.0}, 1, 4)
    rates, _ = preferences(votes, draws=20)
    assert rates[["boot_low", "boot_high"]].isna().all(axis=None) and rates["low"].notna().all()
    # Of two comparisons, one an attribute, only the row over both attributes has one.
    rates, _ = preferences(made_votes({"p": 5.0, "q": 0.0}, 2, 4), draws=20)
    assert rates["boot_low"].notna().tolist() == (rates["attribute"] == "all").tolist()


def test_bradley_terry_of_two_is_the_log_odds_of_wins() -> None:
    wins = np.array([[[0, 17], [5, 0]], [[0, 3], [3, 0]], [[0, 1], [400, 0]]], float)
    found = fit(wins)
    np.testing.assert_allclose(
        found[:, 0] - found[:, 1], np.log(wins[:, 0, 1] / wins[:, 1, 0]), atol=1e-7
    )
    np.testing.assert_allclose(found.sum(1), 0, atol=1e-12)


def test_bradley_terry_is_the_logistic_regression_of_sklearn() -> None:
    rng = np.random.default_rng(2)
    wins = rng.integers(1, 30, (5, 5)).astype(float)
    np.fill_diagonal(wins, 0)
    rows, weights = [], []
    for i in range(5):
        for j in range(5):
            if i != j:
                rows.append(np.eye(5)[i] - np.eye(5)[j])
                weights.append(wins[i, j])
    both = np.concatenate([rows, -np.array(rows)])
    labels = np.repeat([1, 0], len(rows))
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=10_000)
    model.fit(both, labels, np.tile(weights, 2))
    expected = model.coef_[0] - model.coef_[0].mean()
    np.testing.assert_allclose(fit(wins), expected, atol=1e-5)
    order = rng.permutation(5)
    np.testing.assert_allclose(fit(wins[np.ix_(order, order)]), fit(wins)[order], atol=1e-7)
    np.testing.assert_allclose(fit(np.stack([wins, 3 * wins]))[1], fit(wins), atol=1e-7)


def test_bradley_terry_recovers_planted_strengths() -> None:
    planted = {"p": -1.0, "q": -0.2, "r": 0.3, "s": 0.9}
    votes = made_votes(planted, 500, 4, tie=0.1, seed=1, shared=False)
    _, table = preferences(votes, draws=300)
    table = table[table["attribute"] == "all"].set_index("method")
    assert list(table.index) == ["s", "r", "q", "p"]
    for name, value in planted.items():
        assert table.loc[name, "strength"] == pytest.approx(value, abs=0.12)
        assert table.loc[name, "low"] < value < table.loc[name, "high"]
        assert 0.05 < table.loc[name, "high"] - table.loc[name, "low"] < 0.4


def test_strengths_without_an_end_are_said_to_be() -> None:
    wins = np.array([[0, 4, 4], [0, 0, 3], [0, 2, 0]], float)  # the first was never beaten
    assert not connected(wins) and connected(wins + wins.T)
    assert connected(np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], float))  # a ring of wins
    assert connected(np.stack([wins, wins + wins.T])).tolist() == [False, True]
    votes = made_votes({"p": 30.0, "q": 0.0, "r": 0.0}, 20, 1)
    _, table = preferences(votes, draws=50)
    assert table["strength"].isna().all() and table["note"].str.contains("never beaten").all()
    nearly = made_votes({"p": 3.0, "q": 0.0, "r": 0.0}, 20, 1, seed=6)
    _, table = preferences(nearly, draws=200)
    whole = table[table["attribute"] == "all"]
    assert whole["strength"].notna().all() and whole["low"].isna().all()
    assert whole["note"].str.contains("without an end").all()


def test_bootstrap_keeps_comparisons_whole_and_knows_one_rater_from_many() -> None:
    """Ten raters who all say the same know no more than one: the interval of the bootstrap stays,
    Wilson's shrinks.
    """
    one = made_votes({"p": 0.0, "q": 0.5}, 60, 1, seed=2)
    many = pd.concat([one.assign(rater=f"r{k}") for k in range(10)], ignore_index=True)
    tables = [
        preferences(votes, draws=2000)[0].query("attribute == 'all'").iloc[0]
        for votes in (one, many)
    ]
    widths = [row["boot_high"] - row["boot_low"] for row in tables]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)
    assert tables[1]["high"] - tables[1]["low"] < 0.5 * (tables[0]["high"] - tables[0]["low"])
    rate = tables[0]["rate_a"]
    assert widths[0] == pytest.approx(
        2 * 1.96 * np.sqrt(rate * (1 - rate) / 60), rel=0.15
    )  # one vote a comparison
    drawn = bootstrap_wins(one, ["p", "q"], 0, 50)
    assert (drawn.sum((1, 2)) == len(one)).all() and win_counts(one, ["p", "q"]).sum() == len(one)
    shuffled = bootstrap_wins(one.sample(frac=1, random_state=1), ["p", "q"], 0, 50)
    np.testing.assert_array_equal(shuffled, drawn)  # any order of files
    # one rater for p, one for q: the raters differ more than their 60 comparisons can tell
    split = pd.concat(
        [one.assign(rater="r0", winner="p"), one.assign(rater="r1", winner="q")], ignore_index=True
    )
    row = preferences(split, draws=400)[0].iloc[0]
    assert (row["boot_low"], row["boot_high"]) == (0.0, 1.0) and row["low"] > 0.4


def test_consistency_counts_planted_repeats() -> None:
    first = made_votes({"p": 0.0, "q": 0.0}, 12, 1, tie=0.3, seed=5).assign(seconds=np.arange(12.0))
    again = first.assign(repeat_of=first["question"], question="again" + first["question"])
    again.loc[[1, 4, 6], "winner"] = [
        {"p": "q", "q": "", "": "p"}[one] for one in first.loc[[1, 4, 6], "winner"]
    ]
    stranger = again.iloc[:2].assign(
        rater="r9"
    )  # a repeat whose first showing was not answered counts for nothing
    table = consistency(pd.concat([first, again, stranger], ignore_index=True)).set_index("rater")
    assert (table.loc["r0", "repeats"], table.loc["r0", "alike"]) == (12, 9)
    assert table.loc["r9", "repeats"] == 0
    assert table.loc["all", "share"] == 0.75 and table.loc["r0", "seconds"] == 5.5
    assert (table.loc["r0", "low"], table.loc["r0", "high"]) == pytest.approx(
        tuple(binomtest(9, 12).proportion_ci(method="wilson"))
    )


def test_krippendorff_of_the_published_example() -> None:
    """Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", C: 4 observers, 12 units,
    nominal 0.743.
    """
    none = 0
    units = [
        [1, 1, none, 1],
        [2, 2, 3, 2],
        [3, 3, 3, 3],
        [3, 3, 3, 3],
        [2, 2, 2, 2],
        [1, 2, 3, 4],
        [4, 4, 4, 4],
        [1, 1, 2, 1],
        [2, 2, 2, 2],
        [none, 5, 5, 5],
        [none, none, 1, 1],
        [none, none, 3, none],
    ]
    counts = np.array([[row.count(value) for value in range(1, 6)] for row in units], float)
    percent, alpha, pairs = krippendorff(counts[counts.sum(1) > 1])
    assert alpha == pytest.approx(0.743, abs=5e-4)
    same = [a == b for row in units for a, b in combinations([v for v in row if v], 2)]
    assert percent == pytest.approx(np.mean(same)) and pairs == len(same)
    assert np.isnan(krippendorff(np.array([[2.0, 0.0], [3.0, 0.0]]))[1])
    assert krippendorff(np.zeros((0, 3)))[2] == 0


def test_agreement_of_raters_against_scotts_pi() -> None:
    """With two raters and nothing missing, alpha = pi + (1 - pi) / (2 n) for Scott's pi."""
    votes = made_votes({"p": 0.0, "q": 1.5}, 50, 2, tie=0.2, seed=8)
    row = agreement(votes).query("attribute == 'all'").iloc[0]
    table = votes.pivot(index="comparison", columns="rater", values="winner")
    seen = (table["r0"] == table["r1"]).mean()
    chance = sum(((votes["winner"] == name).mean()) ** 2 for name in ("p", "q", ""))
    pi = (seen - chance) / (1 - chance)
    assert row["percent"] == pytest.approx(seen)
    assert row["alpha"] == pytest.approx(pi + (1 - pi) / 100)
    assert (row["raters"], row["comparisons"], row["pairs"]) == (2, 50, 50)
    alone = agreement(votes[votes["rater"] == "r0"])
    assert (alone["comparisons"] == 0).all() and alone["alpha"].isna().all()
