"""Means and floors: the same numbers in every output, against closed forms and slow loops."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from editbench.figures.theme import Theme, theme_of
from editbench.report import figure_trade, load, print_table
from editbench.report.cells import FLOOR_MARKS
from editbench.report.facts import facts
from editbench.report.numbers import Numbers, numbers_of
from editbench.report.paired import paired_differences
from editbench.report.tables import FLOORS_APART
from editbench.stats.intervals import bootstrap_mean
from tests.fake_records import fake_run, metric_rows, printed_table, report_of, start_samples
from tests.runs_of_samples import ATTRIBUTES, N, one_run, outcomes


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

    text = printed_table(load(root, by_seed=False), 400)
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


# -- defects ---------------------------------------------------------------------------------------
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
        told("weak", step_effect=0.25)
        == "weak on smile: own steps, as 0.25 σ (median effect) is not reached"
    )


def test_only_the_runs_that_walk_in_own_steps_are_told(tmp_path: Path) -> None:
    engine = {"step_effect": 0.25}
    for attribute, seed, reached in (("smile", 0, True), ("age", 0, True), ("age", 1, False)):
        made = {"stride": {"reached": reached}}
        fake_run(tmp_path, "weak", attribute, seed=seed, engine=engine, made=made)
    told = dict(facts(numbers_of("", load(tmp_path, by_seed=False)), Theme({})))["Steps"]
    assert told == (
        "0.25 σ (median effect); "
        "weak on age with 1 of 2 seeds: own steps, as 0.25 σ (median effect) is not reached"
    )


def test_one_start_and_one_attribute_are_singular(tmp_path: Path) -> None:
    one_run(tmp_path, "a", "smile", outcomes(0.8, 0, n=1))
    one_run(tmp_path, "b", "smile", outcomes(0.8, 1, n=1))
    page = report_of(tmp_path).read_text()
    tables = (tmp_path / "report" / "table.md").read_text()
    latex = "".join(path.read_text() for path in (tmp_path / "report").rglob("*.tex"))
    assert "over 1 of 1 attribute, 1 start " in tables
    assert latex
    for text in (page, tables, latex):
        assert not re.search(r"\b1 (attributes|starts|seeds|records)\b", text)
    fake_run(tmp_path / "none", "a", "smile", status="failed", reason="none")
    compared = numbers_of("", load(tmp_path / "none")).compared["accuracy"]
    assert compared.note(Theme({})).endswith("on more than half of 1 attribute")


def test_names_are_not_replaced_by_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_run(tmp_path, "a", "smile", outcomes(0.8, 0))
    fake_run(tmp_path, "b", "smile", status="failed", reason="key :smile: is missing")
    print_table(load(tmp_path))
    assert "key :smile: is missing" in capsys.readouterr().out


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
