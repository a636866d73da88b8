"""What a check writes: JUnit, annotations and the summary of GitHub, the table of the terminal."""

from xml.etree import ElementTree

import pytest
from rich.console import Console

from editbench.regression import Finding, RegressionResult, summary
from editbench.regression.show import LONGEST, print_comparison
from tests.pinned_records import check, outcome, pin, record


def test_junit_and_annotations_name_what_failed(tmp_path, capsys):
    for root in ("old", "new"):
        record(tmp_path / root, outcome(20 if root == "new" else 100))
        record(
            tmp_path / root,
            method="n",
            status="failed" if root == "new" else "done",
            reason="50 % of\n\x1b[1mit",
        )
        record(tmp_path / root, method=f"only_{root}")
    pin(tmp_path / "old", tmp_path / "b.json")
    capsys.readouterr()
    assert (
        check(
            tmp_path / "new",
            tmp_path / "b.json",
            "--junit",
            tmp_path / "x" / "check.xml",
            "--github",
        )
        == 1
    )
    suite = ElementTree.parse(tmp_path / "x" / "check.xml").getroot().find("testsuite")
    cases = {(case.get("classname"), case.get("name")): case for case in suite}
    failed = {key for key, case in cases.items() if case.find("failure") is not None}
    assert failed == {
        ("m x smile, seed 0", "accuracy"),
        ("m x smile, seed 0", "success_rate"),
        ("n x smile, seed 0", "run"),
        ("only_old x smile, seed 0", "run"),
    }
    assert (int(suite.get("tests")), int(suite.get("failures"))) == (len(cases), len(failed))
    assert int(suite.get("skipped")) == sum(
        case.find("skipped") is not None for case in cases.values()
    )
    assert "0.5 -> 0.1, difference -0.4 [" in cases["m x smile, seed 0", "accuracy"].find(
        "failure"
    ).get("message")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("::")]
    assert [line.split("::")[1] for line in lines] == [
        "error title=editbench%3A m x smile%2C seed 0",
        "error title=editbench%3A n x smile%2C seed 0",
        "error title=editbench%3A only_old x smile%2C seed 0",
        "notice title=editbench%3A only_new x smile%2C seed 0",
    ]
    assert "accuracy: moved, worse: 0.5 -> 0.1" in lines[0] and "%0Asuccess_rate" in lines[0]
    assert "50 %25 of%0A" in lines[1]


def test_junit_counts_rows_that_are_not_to_be_read_in_one_case(tmp_path):
    """Twelve points of a curve have a note on both sides, and a new version has all rows of a metric."""

    def noted(rows):
        rows.loc[rows["metric"] == "ad", "note"] = "too few"
        return rows

    def newer(rows):
        rows = noted(rows)
        rows["version"] = rows["version"].where(rows["metric"] != "path_length", 2)
        return rows

    record(tmp_path / "old", edit=noted)
    record(tmp_path / "new", edit=newer)
    pin(tmp_path / "old", tmp_path / "b.json")
    assert check(tmp_path / "new", tmp_path / "b.json", "--junit", tmp_path / "c.xml") == 0
    suite = ElementTree.parse(tmp_path / "c.xml").getroot().find("testsuite")
    skips = {case.get("name"): case.find("skipped") for case in suite}
    skips = {name: one.get("message") for name, one in skips.items() if one is not None}
    assert set(skips) == {"path_length", "unread rows"}
    assert skips["unread rows"].startswith("12 rows have no value")
    assert (suite.get("skipped"), suite.get("tests")) == ("2", str(len(suite)))


# -- the summary of a page of GitHub Actions -------------------------------------------------------
def test_the_summary_is_appended_where_github_asks_for_one(tmp_path, monkeypatch, capsys):
    record(tmp_path / "old")
    record(tmp_path / "old", method="n")
    record(tmp_path / "new", outcome(20))
    record(tmp_path / "new", method="n")
    pin(tmp_path / "old", tmp_path / "b.json")
    file = tmp_path / "summary.md"
    file.write_text("before\n")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert check(tmp_path / "new", tmp_path / "b.json", "--github") == 1
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    assert check(tmp_path / "new", tmp_path / "b.json") == 1
    assert file.read_text() == "before\n"  # without --github nothing is written
    assert check(tmp_path / "new", tmp_path / "b.json", "--github") == 1
    text = file.read_text()
    assert text.startswith("before\n## ❌ editbench check: 2 rows fail\n")
    [row] = [line for line in text.splitlines() if "| accuracy |" in line]
    cells = [cell.strip() for cell in row.split(" | ")]
    assert cells[0] == "| moved"
    assert cells[1] == "m x smile, seed 0"
    assert cells[3:5] == ["0.5", "0.1"]
    assert cells[5].startswith("-0.4 \\[-0.47") and cells[7].startswith("worse")
    assert "| method | moved | same |" in text
    [counted] = [line for line in text.splitlines() if line.startswith("| m |")]
    assert counted.split("|")[2].strip() == "2"
    assert check(tmp_path / "old", tmp_path / "b.json", "--github") == 0
    assert "## ✅ editbench check: agrees" in file.read_text()


def test_the_summary_stays_within_what_github_shows():
    findings = [
        Finding(f"m{k} x smile, seed 0", "accuracy", "moved", "é|<b>\n" * 5000, 0.5, 0.1, -0.4)
        for k in range(3000)
    ]
    text = summary.markdown(
        "title", RegressionResult(findings, ["note " * 99] * 400, True), findings
    )
    assert "2800 more rows failed" in text and "<b>" not in text
    assert max(map(len, text.splitlines())) < 2000
    cut = summary.shortened("é" * summary.LARGEST, summary.LARGEST)
    assert len(cut) <= summary.LARGEST and cut.decode().endswith("that GitHub shows)\n")
    assert summary.shortened("text", 0) == b"" and summary.shortened("text", 4) == b"text"


@pytest.mark.parametrize(("failed", "hidden"), [(LONGEST - 1, False), (LONGEST, True)])
def test_the_table_says_that_rows_are_hidden_only_if_some_are(failed, hidden, capsys):
    """Two new rows of a run are one row of the table, which ends after LONGEST rows."""
    findings = [Finding("m", f"row {k}", "moved", "worse", 0.5, 0.1, -0.4) for k in range(failed)]
    findings += [Finding("m", f"curve {k}", "new", "not pinned") for k in range(2)]
    print_comparison(RegressionResult(findings, [], True), Console(width=200))
    printed = capsys.readouterr().out
    assert ("curve 0 and 1 more" in printed) is not hidden
    assert ("further rows are not shown" in printed) is hidden


def test_the_table_has_what_failed_first(tmp_path, capsys):
    record(tmp_path / "old")
    record(tmp_path / "new", outcome(lost=70, won=40))
    record(tmp_path / "new", method="a_new_one")
    pin(tmp_path / "old", tmp_path / "b.json")
    capsys.readouterr()
    assert check(tmp_path / "new", tmp_path / "b.json", "--all") == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "seed 0" in line]
    kinds = [line.split()[0] for line in lines]
    assert kinds[:2] == ["moved", "moved"] and kinds.index("new") == 2 and "same" in kinds
    assert all(word in lines[0] for word in ("accuracy", "0.5", "0.35", "-0.15 [-0.2", "worse"))
