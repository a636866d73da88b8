"""Ranks with ties against scipy, hand-made orders and the single paired test."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, ttest_rel

from editbench.figures.theme import Theme
from editbench.report import load
from editbench.report.load import Results
from editbench.report.means import compare_methods
from editbench.report.paired import find_leaders, paired_differences, paired_table
from editbench.report.ranking import Ranking, describe_ranking
from editbench.report.ranking import ranking as rank
from editbench.report.tables import main_table
from editbench.stats.intervals import holm
from tests.fake_records import fake_run, metric_rows, printed_table, report_of
from tests.paired_by_hand import paired_difference


def outcomes(shares: dict[str, float], n: int = 300, seed: int = 0) -> pd.DataFrame:
    """Starts x methods, 0 or 1; methods share the hardness of a start, so pairing matters."""
    rng = np.random.default_rng(seed)
    hardness = rng.uniform(size=n)
    return pd.DataFrame(
        {
            name: (0.7 * hardness + 0.3 * rng.uniform(size=n) < share).astype(float)
            for name, share in shares.items()
        },
        index=100 + np.arange(n),
    )


def ranking(results: Results) -> Ranking:
    """Of accuracy, as a report makes it."""
    return rank(compare_methods(results, main_table(results), "accuracy"))


def write(root: Path, values: pd.DataFrame, attribute: str) -> None:
    for name in values:
        samples = pd.DataFrame(
            {"metric": "accuracy", "start": values.index, "value": values[name].to_numpy()}
        )
        fake_run(root, str(name), attribute, samples=samples.dropna())


def test_all_pairs_at_once_equal_the_single_paired_test() -> None:
    values = outcomes({"a": 0.6, "b": 0.55, "c": 0.55, "random": 0.1})
    found = paired_differences(values)
    single = {(a, b): paired_difference(values[a], values[b]) for a, b in found}
    adjusted = holm(np.array([one.p for one in single.values()]))
    for (pair, row), p_holm in zip(found.items(), adjusted):
        one = single[pair]
        assert row == pytest.approx(
            (one.n, one.difference, one.low, one.high, one.p, p_holm), abs=1e-12
        )


def test_missing_starts_leave_only_their_own_pairs() -> None:
    values = outcomes({"a": 0.6, "b": 0.5, "c": 0.3})
    values.loc[values.index[:120], "c"] = np.nan
    found = paired_differences(values)
    whole, part = values, values.iloc[120:]
    assert found["a", "b"][0] == 300 and found["a", "c"][0] == 180
    assert found["a", "b"][1] == pytest.approx((whole["a"] - whole["b"]).mean())
    assert found["a", "c"][1] == pytest.approx((part["a"] - part["c"]).mean())
    p = ttest_rel(part["a"], part["c"])
    assert found["a", "c"][2:4] == pytest.approx(p.confidence_interval(), abs=0.01)
    nothing = paired_differences(pd.DataFrame({"a": [1.0, np.nan], "b": [np.nan, 1.0]}))["a", "b"]
    assert nothing[0] == 0 and np.isnan(nothing[1:]).all()


def test_p_values_of_noise_of_a_shift_and_of_a_single_start() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(size=400)
    shifted = noise + 0.5 + rng.normal(0, 0.5, 400)
    assert paired_differences(pd.DataFrame({"a": noise, "b": noise}))["a", "b"][4] == 1.0
    assert paired_differences(pd.DataFrame({"a": shifted, "b": noise}))["a", "b"][4] < 0.001
    tests = [pd.DataFrame({"a": rng.normal(size=60), "b": np.zeros(60)}) for _ in range(300)]
    assert (
        np.mean([paired_differences(table, draws=200)["a", "b"][4] < 0.05 for table in tests]) < 0.1
    )
    # Every draw of one start is that start: no interval and no test, however far it lies from 0.
    n, difference, low, high, p, adjusted = paired_differences(
        pd.DataFrame({"a": [5.0], "b": [1.0]})
    )["a", "b"]
    assert (n, difference) == (1, 4.0) and np.isnan([low, high, p, adjusted]).all()


@pytest.mark.parametrize("growth", [-1, 0, 2])
def test_tests_over_some_of_the_starts_have_the_variance_of_the_seeds_there(growth: float) -> None:
    """Equal methods, of which one has five seeds that differ less, or more, at the other starts."""
    rng = np.random.default_rng(0)
    hard = np.linspace(0, 1, 150)
    common = hard < 0.4
    rejected = 0
    for _ in range(300):
        # 1 in the mean over the common starts.
        weight = 1 + growth * (hard - hard[common].mean())
        seeds = rng.normal(0, 0.05, 5) * weight[:, None] + rng.normal(0, 0.05, (150, 5))
        one = rng.normal(0, 0.05, 150)
        table = pd.DataFrame({"a": seeds.mean(1), "b": np.where(common, one, np.nan)})
        found = paired_differences(table, {"a": pd.DataFrame(seeds)}, draws=200)
        rejected += found["a", "b"][4] < 0.05
    # Three standard errors of 300 tests about 5 %.
    assert abs(rejected / 300 - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize("n", [2, 3, 5, 9, 10, 30])
def test_tests_of_two_equal_methods_reject_about_as_often_as_they_may(n: int) -> None:
    """Skewed values, such as dependencies: a test that exists has about its nominal 5 %."""
    rng = np.random.default_rng(n)
    found = []
    for _ in range(400):
        easy = rng.normal(size=(n, 1))
        values = np.exp(easy + rng.normal(0, 0.7, (n, 2)))
        found.append(paired_differences(pd.DataFrame(values, columns=["a", "b"]))["a", "b"])
    p = np.array(found)[:, 4]
    # Three standard errors of 400 tests beyond 6 %.
    assert (p < 0.05).mean() < 0.06 + 3 * np.sqrt(0.05 * 0.95 / 400)
    # Few starts give the difference alone, and many also the rest.
    assert np.isfinite(np.array(found)[:, :2]).all()
    assert np.isfinite(np.array(found)[:, 2:]).all() == (n >= 10)


def test_pairs_with_few_starts_do_not_count_for_the_adjustment() -> None:
    values = outcomes({"a": 0.6, "b": 0.5})
    alone = paired_differences(values)["a", "b"]
    # The third method shares 9 starts with each of the others.
    values["few"] = values["a"].iloc[:9]
    found = paired_differences(values)
    assert found["a", "b"][4] == found["a", "b"][5]
    assert found["a", "b"][:4] == pytest.approx(alone[:4], abs=0.01)
    assert found["a", "few"][0] == 9 and np.isnan(found["a", "few"][2:]).all()


def test_sixteen_methods_can_still_be_separated() -> None:
    """120 pairs: the smallest p that 2000 draws give, times 120, is above 0.05."""
    values = outcomes({f"m{k:02d}": 0.9 if k else 0.1 for k in range(16)})
    assert paired_differences(values)["m00", "m01"][5] < 0.05


def test_clear_order_and_tie(tmp_path: Path) -> None:
    for k, attribute in enumerate(("smile", "age")):
        values = outcomes({"good": 0.8, "twin": 0.5, "random": 0.1}, seed=k)
        values["other twin"] = (
            values["twin"].sample(frac=1, random_state=k).to_numpy()
        )  # the same mean, exactly
        write(tmp_path, values, attribute)
    found = ranking(load(tmp_path))
    table = found.table.set_index("method")
    assert table["rank"].to_dict() == {
        "good": "1",
        "twin": "2–3",
        "other twin": "2–3",
        "random": "floor",
    }
    assert list(table.index)[-1] == "random" and table["best_rank"].tolist()[:3] == [1, 2, 2]
    assert found.leaders == {"good"}
    assert table.loc["twin", "tied_with"] == "other twin" and table.loc["good", "tied_with"] == ""
    assert found.compared.attributes == ("age", "smile") and (table["n"] == 600).all()
    assert (table["accuracy_low"] < table["accuracy"]).all()
    assert (table["accuracy"] < table["accuracy_high"]).all()


def test_interval_of_a_mean_over_attributes_is_the_stratified_one(tmp_path: Path) -> None:
    sizes, rng = {"smile": 400, "age": 100}, np.random.default_rng(1)
    variance = 0.0
    for attribute, n in sizes.items():
        values = pd.DataFrame({"a": rng.uniform(size=n), "b": rng.uniform(size=n)})
        variance += values["a"].var(ddof=0) / n / 4
        write(tmp_path, values, attribute)
    row = ranking(load(tmp_path)).table.set_index("method").loc["a"]
    half = (row["accuracy_high"] - row["accuracy_low"]) / 2
    assert half == pytest.approx(1.96 * np.sqrt(variance), rel=0.06)


def test_a_mean_of_equal_outcomes_has_the_interval_of_its_number_of_starts(tmp_path: Path) -> None:
    for attribute, n in (("age", 60), ("smile", 40)):
        values = pd.DataFrame({"a": np.ones(n), "b": np.ones(n), "random": np.zeros(n)})
        values.loc[: n // 2, "b"] = 0.0
        write(tmp_path, values, attribute)
    results = load(tmp_path)
    low, high = compare_methods(results, main_table(results), "accuracy").intervals()
    expected = binomtest(100, 100).proportion_ci(method="wilson")
    assert (low[0], high[0]) == pytest.approx((expected.low, 1.0))
    assert 0 < low[1] < high[1] < 1
    none = binomtest(0, 100).proportion_ci(method="wilson")
    assert (low[2], high[2]) == pytest.approx((0.0, none.high))


def test_same_seeds_of_attributes_of_one_size_are_independent(tmp_path: Path) -> None:
    """Two attributes with opposite outcomes: one resampling for both would leave no spread at all."""
    values = outcomes({"a": 0.5, "b": 0.2})
    write(tmp_path, values, "smile")
    write(tmp_path, 1 - values, "age")
    row = ranking(load(tmp_path)).table.iloc[0]
    assert row["accuracy_high"] - row["accuracy_low"] > 0.05


def test_equal_methods_are_tied_and_more_starts_separate(tmp_path: Path) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    write(few, outcomes({"a": 0.5, "b": 0.56}, n=25), "smile")
    write(many, outcomes({"a": 0.5, "b": 0.56}, n=6000), "smile")
    assert list(ranking(load(few)).table["rank"]) == ["1–2", "1–2"]
    assert list(ranking(load(many)).table["rank"]) == ["1", "2"]


def test_all_ranked_methods_run_over_the_same_attributes(tmp_path: Path) -> None:
    for attribute in ("smile", "age", "beard"):
        write(tmp_path, outcomes({"a": 0.5, "b": 0.3}), attribute)
    write(tmp_path, outcomes({"half": 0.9}), "smile")
    write(tmp_path, outcomes({"half": 0.9}), "age")
    fake_run(tmp_path, "half", "beard", status="skipped", reason="no control found")
    write(tmp_path, outcomes({"rare": 1.0}), "smile")
    found = ranking(load(tmp_path))
    assert found.compared.attributes == ("age", "smile")
    assert set(found.table["method"]) == {"a", "b", "half"}
    assert found.compared.left(Theme({})) == {"rare": "accuracy is valid on only 1 of 3 attributes"}
    assert any("not ranked: rare" in line for line in describe_ranking(found, Theme({})))


def test_nothing_to_rank_says_why(tmp_path: Path) -> None:
    write(tmp_path, outcomes({"a": 0.5}), "smile")
    assert "fewer than two" in describe_ranking(ranking(load(tmp_path)), Theme({}))[0]
    values = outcomes({"b": 0.5})
    values.index += 10_000
    write(tmp_path, values, "smile")
    found = ranking(load(tmp_path))
    note = found.compared.note(Theme({}))
    assert found.table.empty and "share at least 1 start on only 0 of 1 attribute" in note
    assert "No ranking" in report_of(tmp_path).read_text()


def test_runs_of_a_setting_with_other_weights_of_the_judge_are_named(tmp_path: Path) -> None:
    same = {"generator": "11aa", "teacher": "22bb"}
    for method in ("a", "b"):
        fake_run(tmp_path, method, "smile", made={"hashes": same | {"judge": "33cc"}})
    assert load(tmp_path).problems == ()
    other = fake_run(tmp_path, "c", "smile", made={"hashes": same | {"judge": "44dd"}})
    # Records without hashes, such as those of failed jobs, say nothing.
    fake_run(tmp_path, "d", "smile", status="failed", reason="no")
    (found,) = load(tmp_path).problems
    assert found.name == "judge"
    assert f"not comparable: {other.name} and a-smile" in found.reason
    assert "out=FOLDER" in found.reason
    assert "weights or code of the network differ" in report_of(tmp_path).read_text()
    for method in ("e", "f", "g"):
        fake_run(tmp_path, method, "smile", made={"hashes": same | {"judge": "33cc"}})
    (found,) = load(tmp_path).problems
    assert f"{other.name} and a-smile" in found.reason and " and 2 more; run" in found.reason
    # Two worlds are two settings.
    for world, weights in (("one", "11aa"), ("other", "55ee")):
        made = {"hashes": {"generator": weights}}
        fake_run(tmp_path / "worlds", "a", "smile", made=made, generator=world, tag=world)
    assert load(tmp_path / "worlds").problems == ()


def test_mixed_metric_versions_are_named_and_the_rest_is_made(tmp_path: Path) -> None:
    rows = metric_rows()
    old = fake_run(
        tmp_path, "a", "smile", rows.assign(version=np.where(rows["metric"] == "ad", 2, 1))
    )
    fake_run(tmp_path, "b", "smile", rows)
    fake_run(tmp_path, "b", "age", rows)
    found = load(tmp_path).problems
    assert [problem.name for problem in found] == ["ad"]
    assert f"version 2 in {old.name}; version 1 in b-age" in found[0].reason
    page = report_of(tmp_path)
    assert "mixed versions" in page.read_text() and len(pd.read_csv(page.parent / "table.csv")) == 3
    fake_run(tmp_path / "worlds", "a", "smile", rows)
    fake_run(tmp_path / "worlds", "b", "smile", rows.assign(version=2), generator="other")
    assert load(tmp_path / "worlds").problems == ()  # never in one table


def leaders(
    pairs: pd.DataFrame, means: dict[str, float], better: bool = True, floors: Collection[str] = ()
) -> set[str]:
    """`find_leaders` of methods whose intervals are 0.4 wide."""
    records = [
        {"method": method, "status": "done", "m": m, "m_low": m - 0.2, "m_high": m + 0.2}
        for method, m in means.items()
    ]
    return find_leaders(pairs, records, "m", better, floors)


def test_leaders_are_the_best_and_what_is_not_behind_it(tmp_path: Path) -> None:
    values = outcomes({"a": 0.7, "b": 0.7, "random": 0.1})
    write(tmp_path, values, "smile")
    means = values.mean().to_dict()
    pairs = paired_table(load(tmp_path), ("accuracy",))
    assert leaders(pairs, means) == {"a", "b"} and leaders(pairs, means, False) == {"random"}
    assert leaders(pairs, {"a": 0.7}) == set() and leaders(pairs.iloc[:0], means) == set()
    assert leaders(pairs, means | {"a": np.nan}) == {"b"}
    # With random a floor, nobody is behind a and b: there is no best.
    assert leaders(pairs, means, floors={"random"}) == set()
    # Whatever the test could not separate: an interval beside the best's is behind it, one that
    # reaches into it is not.
    untested = pairs.assign(p_holm=1.0)
    assert leaders(untested, {"a": 0.9, "b": 0.55, "random": 0.45}) == {"a", "b"}
    assert leaders(untested, {"a": 0.1, "b": 0.45, "random": 0.55}, better=False) == {"a", "b"}
    assert leaders(untested, {"a": 0.9, "b": 0.55}) == set()


def test_the_best_of_easy_starts_does_not_lead_over_what_is_better_on_them(tmp_path: Path) -> None:
    """AD is over the starts that a method moves far enough, and tests are over the common ones."""
    rng = np.random.default_rng(0)
    hard = np.linspace(0, 1, 120)
    values = pd.DataFrame({"thorough": 0.2 + hard, "other": 0.9 + hard})
    # It reaches the effect from the 40 easiest starts only, where it changes more than `thorough`.
    values["picky"] = (0.3 + hard + rng.normal(0, 0.01, 120))[:40].tolist() + [np.nan] * 80
    write(tmp_path, values, "smile")
    means = values.mean().to_dict()
    assert means["picky"] < means["thorough"]
    pairs = paired_table(load(tmp_path), ("accuracy",))
    (row,) = pairs[(pairs["a"] == "picky") & (pairs["b"] == "thorough")].to_dict("records")
    assert row["n"] == 40 and row["difference"] > 0 and row["p_holm"] < 0.05
    assert leaders(pairs, means, better=False) == {"thorough"}
    # Also if the interval of the other one, over all its starts, is far from that of the first.
    assert leaders(pairs, means | {"picky": 0.1}, better=False) == {"thorough"}
    # Without the pair that speaks against it, the method with the best number leads.
    others = pairs[pairs["n"] == 120]
    assert leaders(others, means, better=False) == {"picky", "thorough"}


def test_ranking_is_in_terminal_csv_markdown_and_page(tmp_path: Path) -> None:
    write(tmp_path, outcomes({"good": 0.8, "bad": 0.2}), "smile")
    text = printed_table(load(tmp_path), 120)
    assert "ranking: by mean accuracy over 1 of 1 attribute, 300 starts (smile)" in text
    page = report_of(tmp_path)
    table = pd.read_csv(page.parent / "ranking.csv")
    assert table["method"].tolist() == ["good", "bad"] and table["best_rank"].tolist() == [1, 2]
    assert "| rank | method |" in (page.parent / "table.md").read_text()
    assert "data-ranking" in page.read_text()
