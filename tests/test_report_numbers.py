"""Means, seeds and floors: the same numbers in every output, against closed forms and slow loops."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from rich.console import Console

from editbench.figures.theme import Theme, theme_of
from editbench.report import figure_trade, load, print_table
from editbench.report.cells import FLOOR_MARKS
from editbench.report.facts import facts
from editbench.report.means import MeanComparison
from editbench.report.numbers import Numbers, numbers_of
from editbench.report.paired import paired_differences, paired_table
from editbench.report.tables import FLOORS_APART, main_table
from editbench.stats.intervals import (
    bootstrap_mean,
    crossed_means,
    crossed_share,
    seed_spread,
    shared_seed_spread,
    wilson,
)
from tests.fake_records import fake_run, metric_rows, report_of, start_samples

ATTRIBUTES = ("age", "beard", "hat", "smile")
N = 60
KERNEL = "metric == 'kernel_distance_up'"
NO_CONTROL = {"status": "skipped", "reason": "no control found", "no_control": True}


def outcomes(share: float, seed: int, n: int = N) -> np.ndarray:
    return (np.random.default_rng(seed).uniform(size=n) < share).astype(float)


def one_run(
    root: Path,
    method: str,
    attribute: str,
    values: np.ndarray,
    ad: np.ndarray | None = None,
    **options: object,
) -> None:
    """A run whose numbers are those of its samples."""
    ad = 0.3 + 0.01 * np.arange(float(len(values))) if ad is None else ad
    rows = metric_rows(float(values.mean()), float(np.nanmean(ad)), n=len(values))
    samples = start_samples(accuracy=values, ad_at=ad)
    samples["x"] = np.where(samples["metric"] == "ad_at", 1.0, np.nan)
    rows.loc[rows["metric"] == "ad_at", "count"] = np.isfinite(ad).sum()
    low, high = wilson(int(values.sum()), len(values))
    rows.loc[rows["metric"] == "accuracy", ["low", "high"]] = low, high
    fake_run(root, method, attribute, rows, samples=samples, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods on three of four attributes each, one that serves one, two floors."""
    folder = tmp_path_factory.mktemp("runs")
    for k, attribute in enumerate(ATTRIBUTES):
        one_run(folder, "good", attribute, outcomes(0.8, k))
        if attribute != "hat":
            ad = 0.5 + 0.02 * np.arange(float(N))
            ad[::3] = np.nan
            one_run(folder, "fair", attribute, outcomes(0.4, 10 + k), ad)
        one_run(folder, "random", attribute, outcomes(0.1, 20 + k), floor=True)
        one_run(folder, "searched", attribute, outcomes(0.3, 30 + k), floor=True)
    one_run(folder, "rare", "smile", outcomes(0.9, 40))
    report_of(folder)
    return folder


@pytest.fixture(scope="module")
def numbers(root: Path) -> Numbers:
    return numbers_of("", load(root, by_seed=False))


class Cells(HTMLParser):
    """Rows of the table of means, as lists of cell texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += f" {data.strip()}"


def found_means(rows: list[list[str]], heads: list[str], text: str) -> dict[str, tuple[str, ...]]:
    """Method -> mean accuracy, mean AD and what they are over, of rows with headings.

    Args:
        text: with the lines below the table, which say what the means are over.
    """
    names = [head.strip(" ↑↓") for head in heads]
    over = [
        re.search(rf"[Mm]ean {name}: over (.*? starts)", text).group(1)  # type: ignore[union-attr]
        for name in ("accuracy", "AD")
    ]
    out = {}
    for row in rows:
        cells = dict(zip(names, row))
        first = [(cells[name].split() or [""])[0] for name in ("accuracy", "AD")]
        digits = [value.rstrip(FLOOR_MARKS) for value in first]
        out[cells["method"].split()[0]] = (*digits, *over)
    return out


def test_means_are_the_same_in_terminal_page_csv_latex_and_figures(
    root: Path, numbers: Numbers
) -> None:
    folder = root / "report"
    # The slow way: age, beard and smile, all starts for accuracy, those of fair for AD.
    expected = {}
    for method in ("good", "fair"):
        accuracy, dependency = [], []
        for k, attribute in enumerate(ATTRIBUTES):
            if attribute != "hat":
                first = 0 if method == "good" else 10
                accuracy.append(outcomes(0.8 if method == "good" else 0.4, first + k).mean())
                kept = np.arange(N)[np.arange(N) % 3 > 0]
                line = 0.3 + 0.01 * kept if method == "good" else 0.5 + 0.02 * kept
                dependency.append(line.mean())
        expected[method] = (
            f"{np.mean(accuracy):.3f}",
            f"{np.mean(dependency):.3f}",
            "3 of 4 attributes, 180 starts",
            "3 of 4 attributes, 120 starts",
        )

    console = Console(width=400, file=StringIO())
    print_table(load(root, by_seed=False), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = text[text.index("means over the same") : text.index("ranking")].splitlines()[1:]
    split = [re.split(r"\s{2,}", line.strip()) for line in lines if line.strip()]
    terminal = found_means(split[1:], split[0], text)

    page = (folder / "index.html").read_text(encoding="utf-8")
    part = page[page.index("data-means") :]
    cells = Cells(part[: part.index("</table>")]).rows
    html = found_means(cells[1:], cells[0], page)

    means = pd.read_csv(folder / "means.csv").set_index("method")
    csv = {
        str(method): (
            f"{row['accuracy']:.3f}",
            f"{row['ad_at']:.3f}",
            f"{row['accuracy_attributes']} of {row['asked']} attributes, "
            f"{row['accuracy_starts']} starts",
            f"{row['ad_at_attributes']} of {row['asked']} attributes, {row['ad_at_starts']} starts",
        )
        for method, row in means.loc[["good", "fair"]].iterrows()
    }

    latex = {}
    for method in ("good", "fair"):
        digits, overs = [], []
        for name in ("accuracy", "ad"):
            table = (folder / "latex" / f"{name}.tex").read_text()
            line = next(line for line in table.splitlines() if line.startswith(f"{method} &"))
            digits.append(re.search(r"\d+\.\d+", line.split("&")[-1]).group())  # type: ignore
            overs.append(re.search(r"Mean: over (.*? starts)", table).group(1))  # type: ignore
        latex[method] = (*digits, *overs)

    figure = figure_trade.trade_figure(numbers.costs, theme_of(numbers.results.runs))
    axes = figure.axes[0]
    drawn = {}
    for method, (*_, first, second) in expected.items():
        row = numbers.costs.set_index("method").loc[method]
        points = [line.get_xydata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
        x, y = min(points, key=lambda point: abs(point[1] - row["accuracy"]))
        drawn[method] = (f"{y:.3f}", f"{x:.3f}", first, second)
        assert first in axes.get_ylabel().replace(",\n", ", ") and second in axes.get_xlabel()

    for output in (terminal, html, csv, latex, drawn):
        assert {method: output[method] for method in expected} == expected
    # A method that serves one attribute has no mean, with the reason, in each of them.
    reason = "no mean for rare: accuracy is valid on only 1 of 4 attributes"
    assert terminal["rare"][0] == html["rare"][0] == "–" and np.isnan(means.loc["rare", "accuracy"])
    assert reason in text and reason in page.replace("No mean for rare", "no mean for rare")
    assert reason in (folder / "latex" / "accuracy.tex").read_text()
    assert reason in (folder / "table.md").read_text().replace("No mean", "no mean")


def test_floors_have_no_say_and_stand_last(numbers: Numbers, root: Path) -> None:
    assert numbers.order[:2] == ["good", "fair"] and numbers.order[-2:] == ["searched", "random"]
    assert numbers.ranked.table["rank"].tolist() == ["1", "2", "floor", "floor"]
    theme = theme_of(numbers.results.runs)
    assert theme["random"].floor and theme["searched"].floor and not theme["good"].floor
    assert theme["random"].dash != theme["searched"].dash
    page = (root / "report" / "index.html").read_text(encoding="utf-8")
    assert "should beat: Random direction, searched." in " ".join(page.split())


def test_a_number_is_clear_of_a_floor_whose_interval_lies_below_its_own(numbers: Numbers) -> None:
    """Every cell and mean against each floor of the same column."""
    table = pd.concat([numbers.table, numbers.means.assign(attribute="", status="done")])
    seen = set()
    for _, group in table.groupby("attribute"):
        floors = group[group["floor"] & np.isfinite(group["accuracy"])]
        for _, row in group.iterrows():
            reached = [] if row["floor"] else sorted(floors["method"])
            for name in list(reached):
                floor = floors[floors["method"] == name].iloc[0]
                if not np.isfinite(row["accuracy"]) or row["accuracy_low"] > floor["accuracy_high"]:
                    reached.remove(name)
            assert row["accuracy_floor"] == FLOORS_APART.join(reached)
            seen.add(row["accuracy_floor"])
    # A number can be clear of one floor and not of the other.
    assert {"", "searched"} <= seen


def test_a_folder_of_floors_alone_is_told_as_what_it_is(tmp_path: Path) -> None:
    fake_run(tmp_path, "random", "smile", floor=True)
    (compared, _) = numbers_of("", load(tmp_path)).compared.values()
    assert compared.note(Theme({})) == "no mean accuracy: only floors were run"
    # A method that lacks most attributes is another case.
    fake_run(tmp_path, "good", "age", status="skipped", reason="needs W+")
    (compared, _) = numbers_of("", load(tmp_path)).compared.values()
    assert compared.note(Theme({})).startswith("no method has a valid accuracy on more than half")


def test_a_mean_has_the_number_of_its_starts(numbers: Numbers) -> None:
    """Of the three attributes that all compared methods have; `rare` is not compared."""
    starts = numbers.means.set_index("method")["n"]
    assert starts.drop("rare").to_dict() == dict.fromkeys(
        ("good", "fair", "random", "searched"), 3 * N
    )
    assert np.isnan(starts["rare"])


def test_a_record_says_whether_its_method_is_a_floor(tmp_path: Path) -> None:
    fake_run(tmp_path, "random", "smile")  # a record of an older version
    fake_run(tmp_path, "random", "age", floor=False)
    fake_run(tmp_path, "channel", "smile", floor=True)
    runs = load(tmp_path).runs.set_index(["method", "attribute"])["floor"]
    assert runs.to_dict() == {
        ("random", "smile"): True,
        ("random", "age"): False,
        ("channel", "smile"): True,
    }


# -- seeds ---------------------------------------------------------------------------------------
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
    console = Console(width=200, file=StringIO())
    print_table(results, console)
    out = console.file.getvalue()  # type: ignore[attr-defined]
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


# -- defects -------------------------------------------------------------------------------------
def test_no_starts_are_told_where_no_run_is_done(tmp_path: Path) -> None:
    fake_run(tmp_path, "alpha", "smile", status="skipped", reason="needs W+")
    numbers = numbers_of("", load(tmp_path))
    assert "Starts" not in dict(facts(numbers, Theme({})))


def test_the_steps_of_a_setting_are_told(tmp_path: Path) -> None:
    def told(name: str, **engine: float) -> str:
        reached = {"stride": {"reached": name != "weak"}} if engine.get("step_effect") else {}
        fake_run(tmp_path / name, name, "smile", engine=engine, made=reached)
        return dict(facts(numbers_of("", load(tmp_path / name)), Theme({})))["Steps"]

    assert told("own") == "each method's own"
    assert told("refined", refine=8) == "each method's own; the step that crosses is halved 8 times"
    assert told("equal", step_effect=0.25) == "0.25 σ (median effect)"
    assert (
        told("weak", step_effect=0.25) == "weak: its own, as 0.25 σ (median effect) is not reached"
    )


def test_runs_and_cells_are_counted_apart(tmp_path: Path) -> None:
    for seed in range(3):
        fake_run(tmp_path, "a", "smile", seed=seed)
    fake_run(tmp_path, "b", "smile", status="skipped", reason="none")
    told = dict(facts(numbers_of("", load(tmp_path, by_seed=False)), Theme({})))
    assert told["Cells (method and attribute)"] == "1 done, 1 skipped; 4 runs"


def test_the_interval_of_a_mean_of_equal_starts_is_the_bootstrap(tmp_path: Path) -> None:
    """One attribute, one seed, AD of all starts: the mean's interval is that of the starts."""
    for name in ("a", "b"):
        one_run(tmp_path, name, "smile", outcomes(0.5, 3))
    row = numbers_of("", load(tmp_path)).means.set_index("method").loc["a"]
    low, high = bootstrap_mean(0.3 + 0.01 * np.arange(float(N)))
    assert (row["ad_at_low"], row["ad_at_high"]) == pytest.approx((low, high), abs=0.01)


def test_one_start_is_no_evidence() -> None:
    table = pd.DataFrame({"a": [0.9, np.nan, np.nan], "b": [0.1, 0.2, 0.3]})
    n, difference, *tested = paired_differences(table)["a", "b"]
    assert (n, difference) == (1, pytest.approx(0.8)) and np.isnan(tested).all()


def test_nothing_is_said_of_numbers_that_no_run_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = metric_rows()
    fake_run(tmp_path, "alpha", "smile", rows[rows["metric"] == "accuracy"])
    page = report_of(tmp_path)
    print_table(load(tmp_path))
    texts = [capsys.readouterr().out, (page.parent / "table.md").read_text(), page.read_text()]
    for text in texts:
        assert "over 200 starts" in text
        assert "is valid on" not in text and "AD: over" not in text and "that crossed" not in text
    note = pd.read_csv(page.parent / "means.csv")["ad_at_note"]
    assert note.tolist() == ["no run has a metric that measures AD"]


def test_any_metric_has_a_mean_over_the_attributes_of_accuracy(tmp_path: Path) -> None:
    for k, attribute in enumerate(ATTRIBUTES[:3]):
        for method in ("alpha", "beta"):
            rows = metric_rows(0.5, n=N)
            own = rows[rows["metric"] == "accuracy"].assign(
                metric="hops", value=float(k), low=k - 0.5, high=k + 0.5
            )
            # A number that should not be read is in no mean.
            own["note"] = "few starts" if (method, attribute) == ("beta", "hat") else ""
            values = outcomes(0.5, k)
            samples = start_samples(accuracy=values)
            fake_run(tmp_path, method, attribute, pd.concat([rows, own]), samples=samples)
    found = numbers_of("", load(tmp_path, by_seed=False))
    means = found.means.set_index("method")
    assert means.loc["alpha", "hops"] == 1.0 and np.isnan(means.loc["beta", "hops"])
