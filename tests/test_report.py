"""The report against records whose numbers the test chose."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from editbench.base.errors import EditbenchError
from editbench.commands.report import main
from editbench.figures.theme import Theme
from editbench.report import figures, load, print_table, report
from editbench.report.cells import Column, cell, number, spread
from editbench.report.html import warnings
from editbench.report.means import compare_methods
from editbench.report.numbers import numbers_of
from editbench.report.paired import paired_table
from editbench.report.settings import add_settings
from editbench.report.tables import main_table
from editbench.report.text_tables import TextTable, csv, print_parts
from editbench.run.record import Record
from tests.browser import dump_page, needs_browser
from tests.fake_records import fake_run, metric_rows, printed_table, report_of, start_samples

HOSTILE = "no <script>alert('x')</script> & \"quotes\" | pipe {{ 7 * 7 }}"


VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects tags and checks that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    pictures = torch.randint(
        0, 255, (2, 5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    fake_run(folder, "alpha", "smile", metric_rows(0.7312, 0.25), pictures=pictures)
    fake_run(folder, "alpha", "age", metric_rows(0.61, 0.3), pictures=pictures[:, :, :1])
    fake_run(
        folder,
        "beta",
        "smile",
        metric_rows(0.1, 0.5, note="excluded: the success rate 3 % is below 10 %"),
    )
    fake_run(folder, "beta", "age", status="skipped", reason=HOSTILE)
    fake_run(folder, "random", "smile", metric_rows(0.05, 0.9, sharpness=3.5))
    fake_run(folder, "random", "age", status="failed", reason="NonFinite: step 3")
    half = fake_run(folder, "gamma", "smile")
    (half / "rows.parquet").write_bytes(b"PAR1 cut short")
    bad = fake_run(folder, "alpha", "hat", pictures=pictures)
    (bad / "strips.safetensors").write_bytes(b"nonsense")
    (folder / "delta-hat").mkdir()
    (folder / "delta-hat" / "status.json").write_text('{"status": "do')
    for ignored in ("cache", "banks", ".sweeps"):
        (folder / ignored).mkdir()
    report(folder)
    return folder


@pytest.fixture(scope="module")
def html(root: Path) -> str:
    return (root / "report" / "index.html").read_text(encoding="utf-8")


def test_csv_holds_the_numbers_of_the_records(root: Path) -> None:
    table = pd.read_csv(root / "report" / "table.csv").set_index(["method", "attribute"])
    assert len(table) == 7 and ("gamma", "smile") not in table.index
    first = table.loc[("alpha", "smile")]
    assert first["accuracy"] == 0.7312
    assert first["success_rate"] == 0.9312
    assert first["ad_at"] == 0.25
    assert first["accuracy_high"] - first["accuracy"] == pytest.approx(
        1.96 * np.sqrt(0.7312 * 0.2688 / 200)
    )
    assert (first["ad_at_effect"], first["n"], first["fit_seconds"], first["labels_used"]) == (
        1.0,
        200,
        1.5,
        60,
    )
    assert table.loc[("beta", "smile"), "ad_at_note"].startswith("excluded")
    assert table.loc[("random", "smile"), "sharpness"] == 3.5 and not table["leaking"].any()
    skipped = table.loc[("beta", "age")]
    assert skipped["status"] == "skipped"
    assert skipped["reason"] == HOSTILE
    assert np.isnan(skipped["accuracy"])


def test_records_share_the_equal_parts_of_their_configurations(tmp_path: Path) -> None:
    """The memory of a report must not grow by a whole configuration with every record."""
    folders = [fake_run(tmp_path, method, "smile") for method in ("alpha", "beta")]
    results = load(tmp_path)
    one, other = (results.configs[folder.name] for folder in folders)
    for folder in folders:
        assert results.configs[folder.name] == Record.read(folder).config()
    equal = [key for key in one if isinstance(one[key], dict) and one[key] == other.get(key)]
    assert equal and "method" not in equal
    assert all(one[key] is other[key] for key in equal)


def test_means_say_over_what_they_run(root: Path) -> None:
    results = load(root)
    means = numbers_of("", results).means.set_index("method")
    assert list(means.index) == ["alpha", "beta", "random"]
    assert means.loc["beta", "served"] == 1 and means.loc["beta", "asked"] == 3
    # beta serves one of three attributes: it has no mean, and shrinks no other.
    assert means.loc["alpha", "accuracy"] == pytest.approx((0.73 + 0.61 + 0.5) / 3)
    assert (means.loc["alpha", "accuracy_attributes"], means.loc["alpha", "accuracy_starts"]) == (
        3,
        600,
    )
    assert np.isnan(means.loc["beta", "accuracy"]) and np.isnan(means.loc["beta", "ad_at"])
    assert means.loc["beta", "accuracy_note"] == "accuracy is valid on only 1 of 3 attributes"
    # The floor was not asked when the set was chosen, and lacks two of its attributes.
    assert np.isnan(means.loc["random", "accuracy"])
    note = "this floor has no accuracy for some or all starts on age, hat"
    assert means.loc["random", "accuracy_note"] == note


def test_page_is_whole_and_loads_nothing(html: str) -> None:
    page = Page(html)
    for tag, attributes in page.attributes:
        for name in ("src", "href", "xlink:href", "data", "action"):
            assert not re.match(r"\s*(https?:)?//", attributes.get(name) or ""), (tag, attributes)
    assert not re.search(r"url\(\s*['\"]?https?:|@import", html)
    assert html.count("<svg") - html.count('<svg class="dot"') == 3
    assert "data:image/png;base64," in html
    assert (
        sum("crossing" in a.get("class", "").split() for _, a in page.attributes if a.get("class"))
        == 4
    )


def test_text_of_records_is_escaped(root: Path, html: str) -> None:
    assert "<script>alert" not in html and "&lt;script&gt;alert" in html and "{{ 7 * 7 }}" in html
    markdown = (root / "report" / "table.md").read_text()
    assert "<script>" not in markdown and "\\| pipe" in markdown


def test_what_was_not_done_is_listed(html: str) -> None:
    for text in (
        "gamma-smile-s0",
        "delta-hat",
        "BadFile",
        "NonFinite: step 3",
        "strips.safetensors",
        "1 skipped",
        "1 failed",
    ):
        assert text in html, text


def test_mean_dependency_is_taken_over_the_same_attributes_and_starts(tmp_path: Path) -> None:
    """x reaches the effect from all starts, y not from every third; age is not readable for y."""
    values = {"x": 0.1, "y": 0.3, "random": 0.9}
    for method, value in values.items():
        for attribute in ("smile", "age", "hat"):
            samples = start_samples(accuracy=np.zeros(60), ad_at=value + np.arange(60.0) / 100)
            if method == "y":
                samples = samples[(samples["metric"] != "ad_at") | (samples["start"] % 3 > 0)]
            note = "few" if (method, attribute) == ("y", "age") else ""
            if method == "random":
                note = "" if attribute == "age" else "few"
            fake_run(tmp_path, method, attribute, metric_rows(ad=value, note=note), samples=samples)
    results = load(tmp_path)
    means = numbers_of("", results).means.set_index("method")
    common = np.array([k for k in range(60) if k % 3])
    for method in ("x", "y"):
        assert means.loc[method, "ad_at"] == pytest.approx(values[method] + common.mean() / 100)
        assert means.loc[method, "ad_at_attributes"] == 2
        assert means.loc[method, "ad_at_starts"] == 80
    assert np.isnan(means.loc["random", "ad_at"])
    assert (
        means.loc["random", "ad_at_note"]
        == "this floor has no AD for some or all starts on hat, smile"
    )
    # On one of three attributes a mean would be that of a chosen one.
    fake_run(tmp_path, "z", "smile", metric_rows(note="few"))
    fake_run(tmp_path, "z", "age", metric_rows(), samples=start_samples(ad_at=np.ones(60)))
    fake_run(tmp_path, "z", "hat", metric_rows(), samples=start_samples(ad_at=np.ones(60)))
    results = load(tmp_path)
    note = compare_methods(results, main_table(results), "ad_at").note(Theme({}))
    assert note == (
        "no mean AD: all compared methods share at least 10 starts on only 1 of 3 attributes, fewer "
        "than half (not valid: y on age; z on smile)"
    )
    means = numbers_of("", results).means.set_index("method")
    assert means["ad_at"].isna().all() and means.loc["x", "ad_at_note"] == note


def test_weak_judges_are_marked(tmp_path: Path, html: str) -> None:
    assert 'class="warning"' not in html
    fake_run(tmp_path, "alpha", "smile", leaking=True, judged_in="w")
    page = report_of(tmp_path).read_text()
    assert "All runs were judged by the teacher" in page
    assert "All runs were judged on latent codes" in page
    fake_run(tmp_path, "beta", "smile")
    fake_run(tmp_path, "beta", "smile", seed=1)
    assert "1 of 2 rows of the tables was judged on latent codes" in " ".join(
        warnings(main_table(load(tmp_path, by_seed=False)))
    )
    assert page.count('class="mark"') == 6  # two marks in each of three tables
    assert "alpha [leaking] [latent]" in printed_table(load(tmp_path), 160)
    assert "alpha [leaking] [latent]" in (tmp_path / "report" / "table.md").read_text()


def test_numbers_carry_their_sort_key(html: str) -> None:
    main_part = html[html.index("data-main") :]
    keys = re.findall(r'data-v="([^"]*)"[^>]*>0\.\d{3}', main_part)
    assert "0.7312" in keys and re.search(r'data-v="" class="state"[^>]*>skipped', main_part)


def test_figures_and_strips_are_files(root: Path) -> None:
    made = {path.name for path in (root / "report" / "figures").iterdir()}
    assert {
        "accuracy.png",
        "accuracy.pdf",
        "accuracy.svg",
        "ad.png",
        "trade.pdf",
        "strips_smile.png",
    } <= made


def test_a_failed_figure_keeps_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no ink")

    fake_run(tmp_path, "alpha", "smile")
    monkeypatch.setattr(figures, "accuracy_figure", broken)
    page = report_of(tmp_path, tmp_path / "elsewhere", ["accuracy"])
    assert "no ink" in page.read_text() and (tmp_path / "elsewhere" / "table.csv").exists()


def test_of_one_job_the_newest_record_is_shown_and_the_older_one_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for age, tag in enumerate(("aaaaaaaaaa", "bbbbbbbbbb")):
        for attribute in ("smile", "age"):
            folder = fake_run(tmp_path, "alpha", attribute, tag=tag)
            stamp = os.stat(folder / "status.json").st_mtime - 100 * age
            os.utime(folder / "status.json", (stamp, stamp))
    results = load(tmp_path)
    assert sorted(results.runs["run_id"]) == [
        "alpha-age-s0-aaaaaaaaaa",
        "alpha-smile-s0-aaaaaaaaaa",
    ]
    assert set(results.runs["label"]) == {"alpha"}
    assert set(results.rows["run_id"]) == set(results.configs) == set(results.runs["run_id"])
    note = (
        "alpha: 2 older records of 2 jobs, made with other code or weights, are left out: "
        "alpha-age-s0-bbbbbbbbbb, alpha-smile-s0-bbbbbbbbbb"
    )
    page = report_of(tmp_path)
    print_table(results)
    assert note in capsys.readouterr().out and note in page.read_text()
    assert len(load(tmp_path, newest=False).runs) == 4


def test_an_observation_that_some_runs_lack_is_told_by_its_name() -> None:
    observed = {
        "a": {},
        "b": {"locality": {"n": 20, "points": 5}},
        "c": {"locality": {"n": 40, "points": 5}},
        "d": {"locality": {"n": 20, "points": 5}, "fid": {"n": 60}},
    }
    same = {"method": "alpha", "attribute": "smile", "seed": 0, "generator": "faces32"}
    runs = pd.DataFrame(
        [same | {"run_id": run, "judged_in": "image", "leaking": False} for run in observed]
    )
    found = add_settings(runs, {run: {"observation": seen} for run, seen in observed.items()})
    assert found.set_index("run_id")["label"].to_dict() == {
        "a": "alpha (observation=none)",
        "b": "alpha (observation=locality, observation.locality.n=20)",
        "c": "alpha (observation=locality, observation.locality.n=40)",
        "d": "alpha (observation=fid+locality, observation.locality.n=20)",
    }


def test_a_note_names_the_setting_where_there_are_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = {"walks_not_finite": 3, "starts": 40}
    for n in (40, 77):
        rows = metric_rows(note="few starts")
        own = {"starts_n": n, "tag": f"{n:010}"}
        fake_run(tmp_path, "alpha", "smile", rows, made=lost, **own)
        fake_run(tmp_path, "beta", "smile", status="skipped", reason="no control", **own)
    assert main([str(tmp_path), "--table"]) == 0
    told = capsys.readouterr().out
    for n in (40, 77):
        assert f"alpha/smile (starts.n {n})" in told
        assert f"skipped: beta on smile (starts.n {n}): no control" in told
        assert f"alpha on smile (starts.n {n}) 3 of 40" in told
    alone = tmp_path / "alone"
    fake_run(alone, "alpha", "smile", metric_rows(note="few starts"), made=lost)
    assert main([str(alone), "--table"]) == 0
    assert "few starts (alpha/smile)" in capsys.readouterr().out


def test_seeds_are_one_cell_unless_they_are_kept_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run(tmp_path, "alpha", "smile", method_config={"k": 10}, tag="aaaaaaaaaa")
    fake_run(tmp_path, "alpha", "smile", method_config={"k": 99}, tag="bbbbbbbbbb")
    fake_run(tmp_path, "alpha", "smile", method_config={"k": 10}, seed=1)
    fake_run(tmp_path, "beta", "smile", starts_n=77)
    runs = load(tmp_path).runs
    assert sorted(runs["label"]) == ["alpha", "alpha (k=10)", "alpha (k=99)", "beta"]
    assert sorted(set(runs["setting"])) == [
        "seed 0, starts.n 1400",
        "seed 0, starts.n 77",
        "seed 1, starts.n 1400",
    ]
    runs = load(tmp_path, by_seed=False).runs.set_index("label")
    assert sorted(runs.index) == ["alpha (k=10)", "alpha (k=99)", "beta"]
    assert sorted(set(runs["setting"])) == ["starts.n 1400", "starts.n 77"]
    assert runs.loc["alpha (k=10)", "seeds"] == (0, 1) and runs.loc["beta", "seeds"] == (0,)
    # The command pools seeds unless it is told not to.
    for words, apart in (([], False), (["--by-seed"], True)):
        assert main([str(tmp_path), "--table", *words]) == 0
        assert ("seed 1, starts.n 1400" in capsys.readouterr().out) == apart
    table = pd.read_csv(StringIO(csv(load(tmp_path, by_seed=False)))).set_index("method")
    assert table.loc["alpha (k=10)", ["seeds", "seed"]].tolist() == [2, "0, 1"]


def test_paired_difference_on_common_starts(tmp_path: Path) -> None:
    for name, values, first in (("alpha", [1.0] * 60, 0), ("beta", [0.0] * 60, 20)):
        samples = pd.DataFrame(
            {"metric": "accuracy", "start": np.arange(first, first + 60), "value": values}
        )
        fake_run(tmp_path, name, "smile", samples=samples)
    found = paired_table(load(tmp_path)).iloc[0]
    assert (found["a"], found["b"], found["n"], found["difference"]) == ("alpha", "beta", 40, 1.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01234, "0.0123"),
        (4.0, "4"),
        (12345, "12.3k"),
        (2.5e6, "2.5M"),
        (float("nan"), "–"),
        (789.4, "789"),
        (0.0, "0"),
        (-0.01234, "−0.0123"),
        (-12345, "−12.3k"),
        (0.0004, "<0.001"),
        (-0.0004, ">−0.001"),
        (999_499, "999k"),
        (999_600, "1M"),
        (-999_600, "−1M"),
        (1_234_567_890, "1235M"),
    ],
)
def test_numbers_as_text(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([150.5, 1500.7], "150–1,501"),
        ([99.7], "100"),
        ([0.123, 12.3], "0.12–12"),
        ([200.0, 200.0], "200"),
        ([float("nan")], ""),
    ],
)
def test_a_range_is_written_without_powers_of_ten(values: list[float], text: str) -> None:
    assert spread(values) == text


def test_an_interval_with_a_sign_has_no_dash() -> None:
    column = Column("bias", "bias", None, True, None)
    interval = {"bias": 0.2, "bias_low": -0.1, "bias_high": 0.5}
    assert cell(interval, column).interval == "−0.1 to 0.5"
    assert cell(interval | {"bias_low": 0.1}, column).interval == "0.1–0.5"


@pytest.mark.parametrize("width", [60, 140, 240])
def test_a_table_too_wide_is_printed_in_parts_and_whole(width: int) -> None:
    heads = ["attribute", "method", *(f"number {k} ↑" for k in range(16))]
    rows = [
        [attribute, method, *(f"{k}.731 0.654–0.809" for k in range(16))]
        for attribute in ("age", "smile")
        for method in ("alpha", "beta")
    ]
    console = Console(width=width, file=StringIO())
    print_parts(console, TextTable("title", heads, rows))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    for k in range(16):
        assert text.count(f"number {k} ↑") == 1
        assert len(re.findall(rf"\b{k}\.731 0\.654–0\.809", text)) == 4


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(EditbenchError, match="no run was found"):
        report(tmp_path)
    run = fake_run(tmp_path / "runs", "alpha", "smile")
    with pytest.raises(EditbenchError, match="is a single run; name the folder that holds it"):
        report(run)
    with pytest.raises(EditbenchError, match="does not exist"):
        report(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(EditbenchError, match="is a file; name the folder"):
        report(tmp_path / "file")


def test_only_skipped_runs(tmp_path: Path) -> None:
    fake_run(tmp_path, "alpha", "smile", status="skipped", reason="needs W+")
    assert "needs W+" in report_of(tmp_path).read_text()


def test_terminal_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for width in (80, 160):
        text = printed_table(load(root), width)
        assert "0.731" in text and "skipped: beta on age" in text
        assert max(map(len, text[: text.index("means over")].splitlines())) <= width
    assert main([str(root), "--table"]) == 0 and "0.731" in capsys.readouterr().out


@needs_browser
def test_page_in_a_browser(root: Path, html: str, tmp_path: Path) -> None:
    """Sort by accuracy both ways, change the tab, filter the pairs, hide a column; errors and results
    are written into the DOM.
    """
    probe = """<script>
    const table = document.querySelector("table[data-main]"), out = document.createElement("pre");
    const names = () => [...table.tBodies[0].rows].map(r => r.cells[2].dataset.v || "none").join(",");
    const button = [...table.tHead.rows[0].cells][2].firstElementChild;
    button.click(); out.append("down=" + names() + ";"); button.click(); out.append("up=" + names() + ";");
    const panels = [...document.querySelectorAll("[role=tabpanel]")];
    document.querySelectorAll("[role=tab]")[1].click();
    out.append("hidden=" + panels.map(p => p.hidden) + ";");
    for (const box of document.querySelectorAll(".filtered")) {
      const select = box.querySelector("select"); select.value = "smile";
      select.dispatchEvent(new Event("change")); }
    const rows = [...document.querySelectorAll(".filtered tbody tr")];
    out.append("filter=" + rows.every(r => r.hidden === (r.dataset.attribute !== "smile")) + ";");
    const boxes = [...document.querySelectorAll("details.columns")];
    const tables = [...document.querySelectorAll("table[data-columns]")];
    out.append("boxes=" + (boxes.length === tables.length && boxes.every(b => b.nextElementSibling
      .contains(tables[boxes.indexOf(b)]))) + ";");
    const box = boxes[tables.indexOf(table)], checks = [...box.querySelectorAll("input")];
    out.append("offered=" + [...box.querySelectorAll("label")].map(l => l.textContent).slice(0, 2) + ";");
    const shown = () => [...table.rows].map(r => [...r.cells].filter(c => c.offsetWidth).length);
    const before = shown();
    box.open = true; checks[0].focus(); out.append("focus=" + (document.activeElement === checks[0]) + ";");
    checks[0].click(); checks[1].click();
    const seen = [...table.rows].filter(r => !r.hidden);
    out.append("less=" + seen.every(r => r.cells[2].hidden && r.cells[3].hidden && !r.cells[4].hidden
      && !r.cells[0].hidden && !r.cells[2].offsetWidth) + ";");
    checks[0].click(); checks[1].click(); out.append("again=" + (String(shown()) === String(before)) + ";");
    out.append("errors=" + window.failures.length + ";"); document.body.append(out);</script>"""
    run = dump_page(html, probe, tmp_path)
    dom = run.stdout
    assert "down=0.7312,0.61,0.5,0.1,0.05,none,none;" in dom
    assert "up=0.05,0.1,0.5,0.61,0.7312,none,none;" in dom
    assert "boxes=true;" in dom and "offered=accuracy ↑,success ↑;" in dom and "focus=true;" in dom
    assert "less=true;" in dom and "again=true;" in dom
    assert "hidden=true,false;" in dom and "filter=true;" in dom and "errors=0;" in dom
    assert "CONSOLE" not in run.stderr
