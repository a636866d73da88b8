"""LaTeX tables: a parser of what they are made of, an engine where there is one; figures of a
paper's size.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from editbench.figures.theme import make_theme
from editbench.report import Style, every_setting, figures, latex, load, report, typeset
from editbench.report.cells import Column
from editbench.report.costs import COSTS, front
from editbench.report.figure_trade import trade_figure
from editbench.report.numbers import numbers_of
from editbench.report.paper import DOUBLE, SINGLE, to_paper
from editbench.report.references import cited_in
from tests.fake_records import fake_run, metric_rows, report_of, start_samples
from tests.latex_tables import check_structure

HOSTILE = r"100 % of_x & y # $5 ~ ^ {a} \input{/etc/passwd} [b] <c> | “q” é σ 中" + "\nline"


ENGINE = next(
    (name for name in ("tectonic", "pdflatex", "lualatex", "xelatex") if shutil.which(name)), None
)


def accuracy(share: float, n: int = 200, seed: int = 0) -> pd.DataFrame:
    draws = np.random.default_rng(seed).permutation(n) < round(share * n)
    return pd.DataFrame({"metric": "accuracy", "start": np.arange(n), "value": draws.astype(float)})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    shares = (("good_one", 0.8), ("close", 0.76), ("weak", 0.12), ("random", 0.1))
    for k, attribute in enumerate(("smile", "long_hair")):
        for m, (name, share) in enumerate(shares):
            fake_run(
                folder, name, attribute, metric_rows(share), samples=accuracy(share, seed=4 * k + m)
            )
    fake_run(folder, "close", "age", metric_rows(0.5, note="fewer than 30"), samples=accuracy(0.5))
    fake_run(folder, "good_one", "age", status="skipped", reason=HOSTILE)
    report_of(folder)
    return folder


def test_tables_are_well_formed(root: Path) -> None:
    made = {path.stem: path.read_text() for path in (root / "report" / "latex").glob("*.tex")}
    names = {"accuracy", "ad", "means", "cost", "ranking"}
    assert set(made) == names | {f"{name}_standalone" for name in names} | {"tables"}
    for name in names:
        assert len(check_structure(made[name])) == 1
        assert re.findall(r"\\input\{(.*)\}", made[f"{name}_standalone"]) == [name]
    assert set(re.findall(r"\\input\{(.*)\}", made["tables"])) == names
    assert check_structure(made["accuracy"])[0][0] == 1 + 3 + 1  # method, attributes, mean
    assert made["tables"].startswith(r"\documentclass")
    assert made["tables"].rstrip().endswith(r"\end{document}")


def test_the_ranking_numbers_the_methods_that_are_tied(root: Path) -> None:
    text = (root / "report" / "latex" / "ranking.tex").read_text()
    ((_, rows),) = check_structure(text)
    # Every second row has the intervals, and the first the headings.
    ties = [(row[0].strip(), row[-1].strip()) for row in rows[1:] if row[0].strip()]
    names = [name.rpartition("}")[2].strip() for name, _ in ties]
    assert names == [r"1. good\_one", "2. close", "3. weak", "4. Random direction"]
    assert [tied for _, tied in ties] == ["2", "1", "4", "3"]


def test_caption_says_what_was_measured(root: Path) -> None:
    text = (root / "report" / "latex" / "accuracy.tex").read_text()
    caption = text[text.index(r"\caption") : text.index(r"\label")]
    for part in (
        "share of starts that reach the target class",
        "over 200 starts per attribute, one seed, with the 95 \\% interval below",
        "Mean: over 2 of 3 attributes, 400 starts (long hair, smile)",
        "Bold: the best value of a column",
    ):
        assert part in caption, part
    # What was run is for whoever makes the paper, not for its reader.
    comments = " ".join(re.findall(r"^% (.*)$", text, re.M))
    for part in (
        "Starts: 200 per attribute",
        "Judge: faces, scores images",
        "Bank: standard (50,000 samples)",
        "Generator: Cartoon faces",
        "Seeds: 0",
    ):
        assert part in comments and part not in caption, part
    assert r"\emph{skipped}" in text and "skipped: good\\_one on age" in text


def test_a_caption_does_not_say_that_all_numbers_are_over_all_starts(tmp_path: Path) -> None:
    """AD is over the starts that reach the effect, and an AUC is of the tune split."""
    samples = start_samples(accuracy=np.ones(200), ad_at=np.linspace(0.0, 1.0, 200))
    samples["x"] = np.where(samples["metric"] == "ad_at", 1.0, np.nan)
    for attribute in ("smile", "age"):
        for method in ("alpha", "beta"):
            fake_run(tmp_path, method, attribute, samples=samples, made={"learned": 0.9})
    folder = report_of(tmp_path).parent / "latex"
    said = {
        path.stem: re.findall(r"\\caption\{.*", path.read_text(encoding="utf-8"))
        for path in folder.glob("*.tex")
    }
    (ad,) = said["ad"]
    assert "; out of 200 starts per attribute, one seed" in ad and "over 200 starts" not in ad
    (auc,) = said["learned"]
    assert "0.5 is chance; one seed. Mean: over 2 of 2 attributes (age, smile), the same" in auc
    (means,) = said["means"]
    assert r"at equal achieved effect on the target (1 $\sigma$)." in means


def test_settings_are_named_and_apart(tmp_path: Path) -> None:
    for seed in (0, 1):
        fake_run(tmp_path, "alpha", "smile", seed=seed)
    report_of(tmp_path, by_seed=True)
    made = sorted(path.name for path in (tmp_path / "report" / "latex").glob("accuracy*[01].tex"))
    assert made == ["accuracy_seed-0.tex", "accuracy_seed-1.tex"]
    labels = []
    for path in (tmp_path / "report" / "latex").glob("*.tex"):
        labels += re.findall(r"\\label\{([^}]*)\}", path.read_text())
    assert len(labels) == len(set(labels)) >= 4
    assert "Setting: seed 1." in (tmp_path / "report" / "latex" / made[-1]).read_text()


def test_bold_is_what_the_paired_test_leaves(root: Path) -> None:
    rows = check_structure((root / "report" / "latex" / "accuracy.tex").read_text())[0][1]
    bold = {
        row[0].strip(): [r"\textbf" in value for value in row[1:]] for row in rows if row[0].strip()
    }
    # 0.80 and 0.76 of 200 starts drawn apart are not separated, weak is. age: one method alone
    assert bold == {
        r"good\_one": [False, True, True, True],
        "close": [False, True, True, True],
        "weak": [False] * 4,
        "Random direction": [False] * 4,
        "method": [False] * 4,
    }
    # The best is separated from the floor alone: there is nothing to show in bold.
    text = (root / "report" / "latex" / "accuracy.tex").read_text()
    marks = {row[0].strip(): [r"\textsuperscript{a}" in value for value in row] for row in rows}
    assert marks["weak"] == [False, False, True, True, True]
    assert not any(marks["close"])
    assert r"\textsuperscript{a}: not clear of Random direction (" in text


def test_nothing_is_bold_where_only_the_floor_is_separated(tmp_path: Path) -> None:
    for m, (name, share) in enumerate((("good_one", 0.8), ("close", 0.76), ("random", 0.1))):
        fake_run(tmp_path, name, "smile", metric_rows(share), samples=accuracy(share, seed=m))
    page = report_of(tmp_path).read_text()
    assert "textbf" not in (tmp_path / "report" / "latex" / "accuracy.tex").read_text()
    grid = page[page.index("Accuracy by method") : page.index("<h3>Ranking")]
    assert 'class="best"' not in grid


def bold_of(file: Path) -> list[str]:
    """The numbers in bold of a table."""
    return re.findall(r"\\textbf\{([0-9.]+)", file.read_text())


def grid_of(page: str) -> str:
    """The table of accuracies on a page, with the sentences below it."""
    return page[page.index("Accuracy by method") : page.index("<h3>Ranking")]


def test_a_number_that_a_floor_may_reach_is_not_bold(tmp_path: Path) -> None:
    """0.30 is far above 0.02, but random edits reach 0.25 of 200 starts."""
    for m, (name, share) in enumerate((("leader", 0.3), ("poor", 0.02), ("random", 0.25))):
        samples = accuracy(share, seed=m)
        # AD is lower for the leader than for `poor`, and within the interval of the floor.
        ad = samples.assign(metric="ad_at", x=1.0, value=samples["value"] * 0.1 + 0.3 - share)
        rows = metric_rows(share, ad=ad["value"].mean())
        samples = pd.concat([samples.assign(x=np.nan), ad])
        fake_run(tmp_path, name, "smile", rows, samples=samples)
    grid = grid_of(report_of(tmp_path).read_text(encoding="utf-8"))
    folder = tmp_path / "report" / "latex"
    for name in ("accuracy", "ad", "means"):
        assert bold_of(folder / f"{name}.tex") == [], name
        assert r"\textsuperscript{a}" in (folder / f"{name}.tex").read_text(), name
    assert 'class="best"' not in grid
    assert "smile: none, as leader is not clear of a floor." in grid
    assert "values that are not clear of a floor, are never bold" in grid


def test_what_is_clear_of_the_floor_stays_bold(tmp_path: Path) -> None:
    shares = (("sure", 0.92), ("poor", 0.3), ("random", 0.25), ("lucky", 0.95))
    for m, (name, share) in enumerate(shares):
        rows = metric_rows(share)
        if name == "lucky":
            # As of few seeds: the interval of the highest number reaches down to the floor's.
            rows.loc[rows["metric"] == "accuracy", "low"] = 0.2
        fake_run(tmp_path, name, "smile", rows, samples=accuracy(share, seed=m))
    grid = grid_of(report_of(tmp_path).read_text(encoding="utf-8"))
    text = (tmp_path / "report" / "latex" / "accuracy.tex").read_text()
    numbers = dict(re.findall(r"^(\w+|Random direction) & ([^&]+) &", text, re.M))
    assert numbers["lucky"].strip() == r"0.950\textsuperscript{a}"
    assert numbers["sure"].strip() == r"\textbf{0.920}"
    assert "not clear of a floor, are never bold" in text
    assert "smile: sure." in grid


def test_costs_of_latex_are_those_of_the_page(tmp_path: Path) -> None:
    """A method that serves fewer attributes changes what the costs of the others are over."""
    for attribute, seconds in (("smile", 2.0), ("age", 4.0), ("beard", 300.0)):
        fake_run(tmp_path, "a", attribute, samples=accuracy(0.5), fit_seconds=seconds)
    for attribute in ("smile", "age"):
        fake_run(tmp_path, "b", attribute, samples=accuracy(0.5), fit_seconds=1.0)
    report_of(tmp_path)
    rows = check_structure((tmp_path / "report" / "latex" / "cost.tex").read_text())[0][1]
    place = [head.strip() for head in rows[0]].index(r"fit s $\downarrow$")
    assert {row[0].strip(): row[place].strip() for row in rows[1:]} == {"a": "3", "b": "1"}
    costs = pd.read_csv(tmp_path / "report" / "costs.csv").set_index("method")
    assert costs["fit_seconds"].to_dict() == {"a": 3.0, "b": 1.0}
    assert (costs["accuracy_attributes"] == 2).all() and (costs["asked"] == 3).all()


def test_a_clear_winner_alone_is_bold(tmp_path: Path) -> None:
    for name, share in (("clear", 0.9), ("weak", 0.3)):
        fake_run(tmp_path, name, "smile", metric_rows(share), samples=accuracy(share))
    report_of(tmp_path)
    text = (tmp_path / "report" / "latex" / "accuracy.tex").read_text()
    assert re.findall(r"\\textbf\{([0-9.]+)\}", text) == [
        "0.900",
        "0.900",
    ]  # the attribute and the mean


def test_daggers_mark_values_with_a_note(root: Path) -> None:
    text = (root / "report" / "latex" / "ad.tex").read_text()
    assert r"0.400\textsuperscript{\dag}" in text
    assert r"\textsuperscript{\dag}fewer than 30 (close/age)" in text


def test_many_attributes_go_below_each_other(tmp_path: Path) -> None:
    for k in range(11):
        fake_run(tmp_path, "alpha", f"a{k:02d}")
    report_of(tmp_path)
    found = check_structure((tmp_path / "report" / "latex" / "accuracy.tex").read_text())
    # The name stands in front of each part, and the mean at the end of the last.
    assert len(found) == 2 and sum(columns - 1 for columns, _ in found) == 11 + 1
    assert [rows[0][-1].strip() == "mean" for _, rows in found] == [False, True]


def test_escapes() -> None:
    text = typeset.escape(HOSTILE)
    check_structure(text)
    assert r"\textbackslash{}input\{/etc/passwd\}" in text
    assert "{[}U+4E2D{]}" in text
    assert "\n" not in text
    assert "é" in text and r"$\sigma$" in text


def test_the_second_line_of_a_name_keeps_its_first_letter(tmp_path: Path) -> None:
    """A star, or a bracket, behind the end of a line is an argument of it."""
    for name, title in (("a", "A method of thirty letters now *best"), ("b", "x" * 30 + " [b]")):
        fake_run(tmp_path, name, "smile", method_config={"title": title})
    report_of(tmp_path)
    text = (tmp_path / "report" / "latex" / "accuracy.tex").read_text()
    assert "\n{*}best &" in text and "\n{[}b{]} &" in text


def test_what_is_in_doubt_is_told_below_the_first_table(tmp_path: Path) -> None:
    made = {
        "agreement": {"smile": {"agreement": 0.31, "kappa": -0.38}},
        "start_warning": "far",
        "start_distance": {"target": 0.9},
        "walks_not_finite": 7,
    }
    for name in ("alpha", "beta"):
        for attribute in ("smile", "hat"):
            fake_run(tmp_path, name, attribute, leaking=True, made=made)
    fake_run(tmp_path, "alpha", "age", status="skipped", reason="no control", leaking=True)
    results = load(tmp_path)
    (numbers,) = every_setting(results)
    # The main number has the first table; where it is not asked for, another one has.
    for columns, first in (((), "accuracy"), (("path_length",), "means")):
        style = Style(columns=columns)
        made_tables = latex.tables(numbers, style.theme(results), style)
        assert next(iter(made_tables)) == first
        for said in (
            r"smile in Cartoon faces ($\kappa$ $-$0.38)",
            r"distance is 0.9 $\sigma$ (hat), 0.9 $\sigma$ (smile), and",
            "alpha on smile 7 of 200; beta on smile 7 of 200",
            "skipped: alpha on age: no control",
            "leaking: the judge is the teacher",
        ):
            assert [name for name, text in made_tables.items() if said in text] == [first], said
        check_structure(made_tables[first])


def test_marks_stand_where_they_are_explained(tmp_path: Path) -> None:
    for name in ("alpha", "beta"):
        fake_run(tmp_path, name, "smile", samples=accuracy(0.5), made={"learned": 0.5})
    results = load(tmp_path)
    (numbers,) = every_setting(results)
    for columns, marked in (
        ((), True),
        (("accuracy",), True),
        (("success_rate", "path_length"), False),
    ):
        style = Style(columns=columns)
        made = latex.tables(numbers, style.theme(results), style)
        texts = [text for text in made.values() if r"\ddag" in text]
        assert bool(texts) == marked == any("not learned" in text for text in made.values())
        assert all("not learned" in text for text in texts)


def compiled(folder: Path, name: str) -> str:
    """What the engine said of a file that it could make a PDF of."""
    options = [] if ENGINE == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error"]
    run = subprocess.run(
        [str(ENGINE), *options, f"{name}.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=180,
    )
    assert run.returncode == 0, run.stdout[-2000:]
    assert (folder / f"{name}.pdf").stat().st_size > 1000
    return run.stdout + run.stderr


@pytest.mark.skipif(ENGINE is None, reason="no TeX engine")
@pytest.mark.parametrize("column", ["one", "two"])
def test_tables_compile_within_their_lines(root: Path, tmp_path: Path, column: str) -> None:
    """All of them, and one alone, in a paper of two columns; the wide ones in narrower lines too."""
    style = Style(column=column)
    results = load(root)
    (numbers,) = every_setting(results, style)
    made = latex.tables(numbers, style.theme(results), style, cited_in(results))
    assert set(made) == {"accuracy", "ad", "means", "cost", "ranking"}
    for name, text in made.items():
        (tmp_path / f"{name}.tex").write_text(text, encoding="utf-8")
    inputs = list(map(typeset.input_of, made))
    (tmp_path / "all.tex").write_text(typeset.document(inputs, column), encoding="utf-8")
    (tmp_path / "alone.tex").write_text(typeset.document(inputs[:1], column), encoding="utf-8")
    # 3 inches: less than any table was made for.
    narrow = typeset.document(inputs, column).replace("textwidth=6.9in", "textwidth=3in")
    (tmp_path / "narrow.tex").write_text(narrow.replace(",twocolumn", ""), encoding="utf-8")
    for name in ("all", "alone", "narrow"):
        assert "Overfull" not in compiled(tmp_path, name), name


def test_broken_tables_keep_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> dict:
        raise RuntimeError("no type")

    fake_run(tmp_path, "alpha", "smile")
    monkeypatch.setattr(latex, "tables", broken)
    assert "no type" in report_of(tmp_path).read_text()
    assert (tmp_path / "report" / "table.csv").exists()


@pytest.mark.parametrize("better", [False, True])
def test_front_is_what_nothing_beats(better: bool) -> None:
    rng = np.random.default_rng(int(better))
    means = pd.DataFrame(
        {
            "method": [f"m{k}" for k in range(40)],
            "accuracy": rng.integers(0, 12, 40) / 12,
            "cost": rng.integers(1, 12, 40).astype(float),
        }
    )
    means.loc[3, "accuracy"] = np.nan
    cost = -means["cost"] if better else means["cost"]
    slow = {
        row.method
        for k, row in means.iterrows()
        if np.isfinite(row.accuracy)
        and not any(
            means.accuracy[j] >= row.accuracy
            and cost[j] <= cost[k]
            and (means.accuracy[j], cost[j]) != (row.accuracy, cost[k])
            for j in range(40)
            if np.isfinite(means.accuracy[j])
        )
    }
    assert set(front(means, Column("cost", "cost", better=better))) == slow


def test_costs_are_means_over_the_attributes_of_accuracy(tmp_path: Path) -> None:
    gpu = {"device": "cuda:0"}
    for attribute, seconds in (("smile", 2.0), ("age", 4.0)):
        fake_run(tmp_path, "a", attribute, samples=accuracy(0.5), fit_seconds=seconds, made=gpu)
        fake_run(tmp_path, "b", attribute, samples=accuracy(0.5), fit_seconds=1.0)
    fake_run(tmp_path, "a", "beard", fit_seconds=300.0)
    fake_run(tmp_path, "b", "beard", status="skipped", reason="no control found")
    for attribute in ("smile", "age"):
        fake_run(tmp_path, "random", attribute, samples=accuracy(0.1), fit_seconds=0.0)
    table = numbers_of("", load(tmp_path)).costs.set_index("method")
    assert table.loc["a", "fit_seconds"] == 3.0 and table.loc["b", "fit_seconds"] == 1.0
    assert table.loc["b", "on_front"].split(", ")[0] == "fit s"
    assert "fit s" not in table.loc["a", "on_front"]
    assert {column.key for column in COSTS} <= set(table.columns)
    # On the CPU, b's peak is that of a process which ran other jobs before.
    assert table.loc["a", "peak_memory_mb"] == 900.0 and np.isnan(table.loc["b", "peak_memory_mb"])
    # The floor is cheaper than both, and no competitor.
    assert table.loc["random", "on_front"] == "" and list(table.index)[-1] == "random"


def test_sixteen_methods_fit_a_paper(tmp_path: Path) -> None:
    names = [f"a_method_of_some_length_{k}" for k in range(15)] + ["random"]
    means = pd.DataFrame(
        {
            "method": names,
            "accuracy": np.linspace(0.1, 0.9, 16),
            "accuracy_low": np.nan,
            "accuracy_high": np.nan,
            "ad_at": np.linspace(0.2, 0.5, 16),
            "floor": [name == "random" for name in names],
            "asked": 4,
            "accuracy_attributes": 4,
            "accuracy_starts": 600,
            "ad_at_attributes": 3,
            "ad_at_starts": 210,
        }
    )
    for k, column in enumerate(COSTS):
        means[column.key] = np.geomspace(1, 1000, 16) * (k + 1)
    figure = to_paper(trade_figure(means, make_theme(names)))
    assert figure.get_figwidth() == DOUBLE
    check_layout(figure)
    means = means.assign(**{column.key: 1.0 for column in COSTS[1:]}, ad_at=1.0)
    figure = to_paper(trade_figure(means, make_theme(names)))
    assert figure.get_figwidth() == DOUBLE  # 16 names do not fit one column
    check_layout(figure)
    figure = to_paper(trade_figure(means[:7], make_theme(names)))
    assert figure.get_figwidth() == SINGLE
    check_layout(figure)


def check_layout(figure: Figure) -> None:
    """The legend is on the figure and above every panel; type is 6 points or more."""
    figures.render(figure, "png")
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    box, page = figure.legends[0].get_window_extent(renderer), figure.bbox
    assert box.x0 >= page.x0 - 1 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1
    for axes in figure.axes:
        if axes.get_visible():
            assert axes.get_tightbbox(renderer).y1 <= box.y0 + 1
            assert axes.get_window_extent(renderer).width > 60
    assert min(float(text.get_fontsize()) for text in figure.legends[0].get_texts()) >= 6


def test_files_have_the_size_of_a_column(tmp_path: Path) -> None:
    fake_run(tmp_path, "alpha", "smile")
    folder = report(tmp_path, files=True).parent / "figures"
    for name in ("accuracy", "ad", "trade"):
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.size[0] / figures.DPI in (
                pytest.approx(SINGLE, abs=0.01),
                pytest.approx(DOUBLE, abs=0.01),
            )
        pdf = (folder / f"{name}.pdf").read_bytes()
        assert (
            b"/Type3" not in pdf and b"/FontFile2" in pdf
        )  # TrueType: publishers refuse the other
        box = re.search(rb"/MediaBox \[ ?0 0 ([0-9.]+) ", pdf)
        assert box
        assert float(box[1]) / 72 in (
            pytest.approx(SINGLE, abs=0.01),
            pytest.approx(DOUBLE, abs=0.01),
        )
