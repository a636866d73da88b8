"""Several seeds of a method in one cell: the mean, its interval and failures, against closed forms."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from editbench.report import load, print_table
from editbench.report.means import MeanComparison
from editbench.report.numbers import numbers_of
from editbench.report.paired import paired_table
from editbench.report.tables import main_table
from editbench.stats.intervals import (
    crossed_means,
    crossed_share,
    seed_spread,
    shared_seed_spread,
    wilson,
)
from tests.fake_records import fake_run, metric_rows, printed_table, report_of, start_samples
from tests.runs_of_samples import ATTRIBUTES, NO_CONTROL, N, one_run, outcomes

KERNEL = "metric == 'kernel_distance_up'"


# -- seeds -----------------------------------------------------------------------------------------
def seeded(root: Path, method: str, values: np.ndarray, **options: object) -> None:
    """A run a column of (starts, seeds)."""
    for seed, column in enumerate(values.T):
        one_run(root, method, "smile", column, seed=seed, **options)


def test_one_seed_has_the_interval_of_its_record(tmp_path: Path) -> None:
    seeded(tmp_path, "a", outcomes(0.4, 0)[:, None])
    alone, pooled = (
        main_table(load(tmp_path, by_seed=flag)).drop(columns="run_id") for flag in (True, False)
    )
    pd.testing.assert_frame_equal(alone, pooled)


def test_seeds_are_one_cell_with_the_mean_over_starts_and_seeds(tmp_path: Path) -> None:
    values = np.stack([outcomes(share, k) for k, share in enumerate((0.3, 0.5, 0.6))], 1)
    seeded(tmp_path, "a", values)
    fake_run(tmp_path, "a", "smile", seed=7, status="failed", reason="NonFinite: step 3")
    results = load(tmp_path, by_seed=False)
    row = main_table(results).iloc[0]
    assert row["accuracy"] == pytest.approx(values.mean()) and row["n"] == N
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx(crossed_share(values))
    assert (row["seeds"], row["seed"]) == (3, "0, 1, 2")
    assert row["reason"] == "seed 7 failed: NonFinite: step 3"
    # The three seeds differ by more than chance at single starts, so the interval is wider.
    narrow = wilson(int(values[:, 1].sum()), N)
    assert row["accuracy_high"] - row["accuracy_low"] > narrow[1] - narrow[0]
    assert len(main_table(load(tmp_path))) == 4
    # Without values of single starts: the mean of the seeds' numbers.
    flips = load(tmp_path).rows.query("metric == 'off_target_flips'")
    assert row["off_target_flips"] == pytest.approx(flips["value"].mean())
    assert row["off_target_flips_low"] < row["off_target_flips"]


def test_a_part_of_the_results_has_the_values_by_seed_of_its_own_cells_alone(
    tmp_path: Path,
) -> None:
    for k, method in enumerate(("a", "b")):
        seeded(tmp_path, method, np.stack([outcomes(0.5, 2 * k), outcomes(0.6, 2 * k + 1)], 1))
    results = load(tmp_path, by_seed=False)
    part = results.kept(results.runs["method"] == "b")
    assert {run for run, _ in results.by_seed} == set(results.runs["run_id"])
    assert {run for run, _ in part.by_seed} == set(part.runs["run_id"])


def test_seeds_without_a_control_are_failures_on_every_start(tmp_path: Path) -> None:
    values = np.stack([outcomes(0.6, seed) for seed in range(3)], 1)
    ads = [np.full(N, ad) for ad in (0.2, 0.3, 0.4)]
    for seed, (column, ad) in enumerate(zip(values.T, ads)):
        one_run(tmp_path, "a", "smile", column, ad, seed=seed + 1)
    # The first and the last seed, since the cell is named after a seed that has numbers.
    for seed in (0, 7):
        fake_run(tmp_path, "a", "smile", **NO_CONTROL, seed=seed, made={"fit_seconds": 9.0})
    fake_run(tmp_path, "a", "smile", seed=9, status="skipped", reason="too few examples")
    results = load(tmp_path, by_seed=False).with_failures()
    row = main_table(results).iloc[0]
    counted = np.concatenate([values, np.zeros((N, 2))], 1)
    assert row["status"] == "done" and row["accuracy"] == pytest.approx(counted.mean())
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx(crossed_share(counted))
    assert row["success_rate"] == pytest.approx((values.mean(0) + 0.2).sum() / 5)
    # What does not exist without an edit is over the seeds with a control.
    assert row["ad_at"] == pytest.approx(0.3)
    assert row["off_target_flips"] == pytest.approx(1.3 * 0.3)
    assert (row["seeds"], row["no_control"], row["seed"]) == (5, 2, "0, 1, 2, 3, 7")
    # All five seeds were fitted, but only three walked.
    assert row["fit_seconds"] == pytest.approx((3 * 1.5 + 2 * 9.0) / 5)
    assert row["walk_seconds"] == pytest.approx(4.8)
    assert "seed 9 skipped: too few examples" in row["reason"]
    spread = results.rows.set_index("metric").loc["accuracy", "seed_variance"]
    assert spread == pytest.approx(seed_spread(counted).variance) and spread > 0
    # Paired tests take the values of each seed.
    (by_seed,) = (table for (_, key), table in results.by_seed.items() if "accuracy" in key)
    np.testing.assert_array_equal(by_seed[[1, 2, 3, 0, 7]].to_numpy(), counted)


def test_one_seed_with_a_control_keeps_the_other_numbers_of_its_record(tmp_path: Path) -> None:
    one_run(tmp_path, "a", "smile", outcomes(0.6, 0), seed=1)
    alone = main_table(load(tmp_path)).iloc[0]
    fake_run(tmp_path, "a", "smile", **NO_CONTROL, seed=0)
    row = main_table(load(tmp_path, by_seed=False).with_failures()).iloc[0]
    assert row["accuracy"] == pytest.approx(alone["accuracy"] / 2)
    for name in ("ad_at", "ad_at_low", "ad_at_high", "off_target_flips", "path_length"):
        assert row[name] == alone[name]


@pytest.mark.parametrize("by_seed", [True, False])
def test_a_method_without_a_control_gets_0_and_takes_no_attribute_from_the_others(
    tmp_path: Path, by_seed: bool
) -> None:
    for k, attribute in enumerate(("smile", "age", "beard")):
        one_run(tmp_path, "good", attribute, outcomes(0.8, k))
        if attribute != "beard":
            one_run(tmp_path, "rare", attribute, outcomes(0.9, 10 + k))
    fake_run(tmp_path, "rare", "beard", **NO_CONTROL)
    # Not a failure: the method cannot be asked for this.
    fake_run(tmp_path, "other", "beard", status="skipped", reason="needs S codes")
    results = load(tmp_path, by_seed=by_seed).with_failures()
    found = numbers_of("", results)
    means = found.means.set_index("method")
    kept = [outcomes(0.9, 10 + k).mean() for k in range(2)]
    assert means.loc["rare", "accuracy"] == pytest.approx(sum(kept) / 3)
    assert means.loc["rare", "served"] == 2 and means.loc["rare", "accuracy_attributes"] == 3
    good = np.mean([outcomes(0.8, k).mean() for k in range(3)])
    assert means.loc["good", "accuracy"] == pytest.approx(good)
    assert means.loc["good", "ad_at_attributes"] == 2  # AD needs an edit
    row = main_table(results).set_index(["method", "attribute"]).loc[("rare", "beard")]
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx(wilson(0, N))
    assert main_table(results)["accuracy"].isna().sum() == 1  # of the method that needs S
    out = printed_table(results, 200)
    assert re.search(r"rare +no control +", out) and re.search(r"other +skipped +", out)
    assert "a failure on every start" in out
    assert "no control: rare on beard: no control found" in out
    page = report_of(tmp_path)
    assert 'title="no control found">no control</td>' in page.read_text(encoding="utf-8")
    for name in ("accuracy", "means"):
        text = (page.parent / "latex" / f"{name}.tex").read_text(encoding="utf-8")
        assert "failure on every start" in text and "rare/beard" in text
    # Records, pins and exports keep what was measured.
    assert load(tmp_path).rows["run_id"].nunique() == 5


def test_a_number_without_values_of_starts_joins_the_seeds_intervals(tmp_path: Path) -> None:
    """Each half is the mean of the seeds' halves and the seeds' own part, in quadrature."""
    values = np.array([4.0, 5.0, 9.0])
    below = np.array([1.0, 2.0, 0.6])
    above = np.array([0.5, 1.5, 4.0])
    for seed, value in enumerate(values):
        rows = metric_rows(path_length=value)
        ends = value - below[seed], value + above[seed], 100 + seed
        rows.loc[rows["metric"] == "path_length", ["low", "high", "count"]] = ends
        # A number that no seed has, and one that a seed lacks.
        lacked = ["wrong_direction", "off_target_flips"][: 2 - (seed > 0)]
        rows.loc[rows["metric"].isin(lacked), ["value", "low", "high"]] = np.nan
        made = {"peak_memory_mb": 900.0 - seed, "device": "cuda"}
        fake_run(tmp_path, "a", "smile", rows, seed=seed, fit_seconds=float(seed), made=made)
    results = load(tmp_path, by_seed=False)
    row = main_table(results).iloc[0]
    part = scipy.stats.t.ppf(0.975, 2) * values.std(ddof=1) / np.sqrt(3)
    assert row["path_length"] == pytest.approx(6)
    high = 6 + np.sqrt(above.mean() ** 2 + part**2)
    assert row["path_length_high"] == pytest.approx(high)
    # Student's t reaches below 0, which no length is.
    assert 6 - np.sqrt(below.mean() ** 2 + part**2) < 0 == row["path_length_low"]
    (joined,) = results.rows.query("metric == 'path_length'").to_dict("records")
    assert (joined["count"], joined["seeds"]) == (100, 3)
    assert joined["seed_variance"] == pytest.approx(values.var(ddof=1) / 3)
    others = results.rows.set_index("metric")
    assert others.loc["wrong_direction", ["value", "low", "high"]].isna().all()
    assert others.loc["off_target_flips", "value"] == pytest.approx(1.3 * 0.4)
    # Times are means, and a machine must have the most memory.
    (run,) = results.runs.to_dict("records")
    assert (run["fit_seconds"], run["peak_memory_mb"]) == (1.0, 900.0)


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_means_over_attributes_cover_whatever_seeds_have_in_common(shared: float) -> None:
    """Seeds that draw once for all attributes, such as examples, move all of them together."""
    rng = np.random.default_rng(0)
    inside = 0
    trials = 200
    for _ in range(trials):
        common = rng.normal(size=5) * np.sqrt(shared)
        values, spreads, by_seed = {}, {}, []
        for name in ATTRIBUTES:
            seeds = 0.5 * (common + rng.normal(size=5) * np.sqrt(1 - shared))
            noise = rng.normal(size=(N, 1)) + 0.7 * rng.normal(size=(N, 5))
            hits = (noise + seeds > 0).astype(float)
            values[name] = pd.DataFrame({"a": hits.mean(1)})
            spreads["a", name] = seed_spread(hits)
            by_seed.append(hits.mean(0))
        both = {"a": shared_seed_spread(np.stack(by_seed, 1))}
        compared = MeanComparison("accuracy", 4, values, spreads, both, ("a",))
        low, high = compared.intervals()[:, 0]
        inside += low <= 0.5 <= high
    # Three standard deviations of a share of 0.95 among the trials; above it is no defect.
    assert inside / trials > 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials)


def test_the_mean_of_seeds_that_move_all_attributes_together_is_less_certain(
    tmp_path: Path,
) -> None:
    shares = np.array([0.3, 0.45, 0.5, 0.7])
    by_seed = {}
    for together in (True, False):
        for k, name in enumerate(("age", "beard", "smile")):
            # The same seeds, in the same order for all attributes or in another one for each.
            order = shares if together else np.roll(shares, k)
            values = np.stack([np.arange(N) < round(share * N) for share in order], 1)
            for seed, column in enumerate(values.astype(float).T):
                one_run(tmp_path, f"together {together}", name, column, seed=seed)
            by_seed.setdefault(together, []).append(values.mean(0))
    # On one attribute a seed found no control, so only the other seeds say what they share.
    for k, name in enumerate(("age", "beard", "smile")):
        for seed, share in enumerate(shares[: 4 - (k == 0)]):
            one_run(tmp_path, "fewer", name, outcomes(share, seed), seed=seed)
    numbers = numbers_of("", load(tmp_path, by_seed=False))
    found = numbers.compared["accuracy"].shared_spreads
    for together, means in by_seed.items():
        assert found[f"together {together}"] == shared_seed_spread(np.stack(means, 1))
    assert found["fewer"].seeds == 3
    rows = numbers.means.set_index("method")
    width = rows["accuracy_high"] - rows["accuracy_low"]
    assert rows.loc["together True", "accuracy"] == rows.loc["together False", "accuracy"]
    assert width["together True"] > 1.3 * width["together False"]


def test_a_start_counts_only_where_every_seed_has_a_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A seed with small changes that reaches the effect twice as often as one with large changes."""
    hits = outcomes(0.5, 0)
    small = 0.1 + 0.001 * np.arange(float(N))
    large = 1.2 + 0.001 * np.arange(float(N))
    large[1::2] = np.nan
    for seed, ad in enumerate((small, large)):
        one_run(tmp_path, "a", "smile", hits, ad, seed=seed)
    results = load(tmp_path, by_seed=False)
    row = main_table(results).iloc[0]
    both = np.stack([small, large], 1)[::2]
    assert row["ad_at"] == pytest.approx(both.mean())
    assert (row["ad_at_low"], row["ad_at_high"]) == pytest.approx(crossed_means(both))
    kept = results.samples.query("metric == 'ad_at'")
    np.testing.assert_allclose(kept["value"], both.mean(1))
    print_table(results)
    assert "AD: over the starts that reach its effect with every seed" in capsys.readouterr().out
    # Accuracy has a value for every seed of every start.
    assert row["n"] == N and row["accuracy"] == pytest.approx(hits.mean())


def test_seeds_that_share_no_start_have_no_mean(tmp_path: Path) -> None:
    hits = outcomes(0.5, 0)
    for seed in range(2):
        ad = np.full(N, np.nan)
        ad[seed::2] = 0.3
        one_run(tmp_path, "a", "smile", hits, ad, seed=seed)
    row = main_table(load(tmp_path, by_seed=False)).iloc[0]
    assert np.isnan(row["ad_at"]) and row["ad_at_note"] == "fewer than 30 starts reach this effect"


def test_seeds_of_a_number_over_blocks_keep_students_interval_and_their_count(
    tmp_path: Path,
) -> None:
    """A kernel distance of 2000 images is the mean of 10 blocks."""
    rng = np.random.default_rng(0)
    common = rng.normal(1.0, 0.2, size=10)
    for seed in range(2):
        blocks = common + rng.normal(0, 0.01, size=10)
        rows = metric_rows(kernel_distance_up=blocks.mean(), n=2000)
        ends = scipy.stats.t.interval(0.95, 9, blocks.mean(), scipy.stats.sem(blocks))
        rows.loc[rows["metric"] == "kernel_distance_up", ["low", "high"]] = ends
        samples = start_samples(kernel_distance_up=blocks)
        fake_run(tmp_path, "a", "smile", rows, samples=samples, seed=seed)
    row, *_ = load(tmp_path, by_seed=False).rows.query(KERNEL).to_dict("records")
    alone = load(tmp_path).rows.query(KERNEL)
    assert row["value"] == pytest.approx(alone["value"].mean()) and row["count"] == 2000
    # The seeds share the images, so two seeds know hardly more than one.
    assert row["high"] - row["low"] >= 0.99 * (alone["high"] - alone["low"]).min()


def test_equal_seeds_add_nothing_to_means_and_paired_differences(tmp_path: Path) -> None:
    a, b = outcomes(0.7, 0), outcomes(0.4, 1)
    for name, values in (("a", a), ("b", b)):
        seeded(tmp_path / "one", name, values[:, None])
        seeded(tmp_path / "three", name, np.stack([values] * 3, 1))
    found = [numbers_of("", load(tmp_path / name, by_seed=False)) for name in ("one", "three")]
    names = ["a", "b", "n", "difference", "low", "high", "p", "p_holm"]
    pd.testing.assert_frame_equal(found[0].paired[names], found[1].paired[names])
    ends = ["accuracy", "accuracy_low", "accuracy_high", "rank"]
    pd.testing.assert_frame_equal(found[0].ranked.table[ends], found[1].ranked.table[ends])


def test_seeds_that_differ_keep_two_methods_from_being_separated(tmp_path: Path) -> None:
    """By one seed a is ahead; over three seeds it is ahead in one and behind in another."""
    shares = {"a": (0.9, 0.5, 0.1), "b": (0.2, 0.2, 0.2)}
    for name, several in shares.items():
        values = np.stack([outcomes(share, k, 200) for k, share in enumerate(several)], 1)
        seeded(tmp_path, name, values)
    apart = paired_table(load(tmp_path), ("accuracy",))
    assert (apart["setting"] == "seed 0").any() and apart["p_holm"].iloc[0] < 0.01
    pooled = paired_table(load(tmp_path, by_seed=False), ("accuracy",)).iloc[0]
    assert pooled["difference"] == pytest.approx(0.3, abs=0.05) and pooled["p_holm"] > 0.05
    # The seeds leave the whole range of a share open, and no more.
    ranked = numbers_of("", load(tmp_path, by_seed=False)).ranked.table.set_index("method")
    assert ranked.loc["a", ["accuracy_low", "accuracy_high"]].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("n", [2, 30])
def test_spread_of_seeds_is_that_of_the_analysis_of_variance(n: int) -> None:
    rng = np.random.default_rng(0)
    seeds = 4
    values = (
        rng.normal(size=(n, 1)) + 0.5 * rng.normal(size=(1, seeds)) + rng.normal(size=(n, seeds))
    )
    by_seed = (
        n * sum((values[:, s].mean() - values.mean()) ** 2 for s in range(seeds)) / (seeds - 1)
    )
    chance = 0.0
    for i in range(n):
        for s in range(seeds):
            fitted = values[i].mean() + values[:, s].mean() - values.mean()
            chance += (values[i, s] - fitted) ** 2 / ((n - 1) * (seeds - 1))
    assert by_seed > chance
    assert seed_spread(values).variance == pytest.approx((by_seed - chance) / (n * seeds))
    assert seed_spread(values[:, :1]).variance == 0.0
    assert seed_spread(np.repeat(values[:, :1], 3, 1)).variance == 0.0
    # With one start of all seeds: the means 1, 3 and 3 of the seeds, whose variance is 4 / 3.
    few = np.array([[1.0, 2.0, 3.0], [np.nan, 4.0, np.nan]])
    assert seed_spread(few).variance == pytest.approx(4 / 3 / 3)


def test_a_mean_of_ad_has_the_variance_of_its_seeds_at_the_effect_and_the_shared_starts(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    hits = outcomes(0.5, 0)
    # Three seeds that differ more at the later half of the starts, and much more at another effect.
    seeds = 0.4 + 0.1 * rng.normal(size=3) * np.linspace(0, 1, N)[:, None]
    seeds = seeds + rng.normal(0, 0.01, (N, 3))
    other = 0.8 + rng.normal(size=3) + rng.normal(0, 0.01, (N, 3))
    reached = np.where(np.arange(N) < N // 2, 0.5, np.nan)
    for seed in range(3):
        rows = metric_rows(hits.mean(), seeds[:, seed].mean(), n=N)
        extra = rows[rows["metric"] == "ad_at"].assign(x=2.0, value=other[:, seed].mean())
        samples = start_samples(accuracy=hits, ad_at=seeds[:, seed])
        samples["x"] = np.where(samples["metric"] == "ad_at", 1.0, np.nan)
        more = start_samples(ad_at=other[:, seed]).assign(x=2.0)
        fake_run(
            tmp_path,
            "several",
            "smile",
            pd.concat([rows, extra]),
            samples=pd.concat([samples, more]),
            seed=seed,
        )
    one_run(tmp_path, "one", "smile", hits, reached)
    numbers = numbers_of("", load(tmp_path, by_seed=False))
    spread = numbers.compared["ad_at"].spreads["several", "smile"]
    expected = seed_spread(seeds[: N // 2])
    assert spread.variance == pytest.approx(expected.variance, rel=1e-6)
    assert spread.variance < 0.5 * seed_spread(seeds).variance
