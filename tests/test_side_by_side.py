"""Two runs folders side by side: differences that follow from how the records were made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from editbench.base.errors import EditbenchError
from editbench.base.files import seal_folder
from editbench.cli import main
from editbench.figures.theme import Theme, make_theme
from editbench.regression import PinnedRun
from editbench.report import load
from editbench.report.caveats import caveats
from editbench.report.templates import dot
from editbench.stats.intervals import SeedSpread, crossed_means
from editbench.studies.side_by_side import side_by_side, write_side_by_side
from editbench.studies.side_by_side.differences import OPEN, unpaired_test, verdict_of
from editbench.studies.side_by_side.pairing import Pair
from editbench.studies.side_by_side.write import changes, names_of_folders
from tests.fake_records import complete, fake_run, metric_rows, report_of
from tests.latex_tables import check_structure
from tests.paired_by_hand import paired_difference

N = 120


def values_of(seed, share=0.5, n=N):
    """0 or 1 a start."""
    return (np.random.default_rng(seed).random(n) < share).astype(float)


def record(root, values, method="m", attribute="smile", first=10, edit=None, **more):
    """A run whose accuracy is the mean of its starts' values; first: number of its first start."""
    rows = metric_rows(accuracy=float(values.mean()), n=len(values))
    samples = pd.DataFrame(
        {"metric": "accuracy", "start": first + np.arange(len(values)), "value": values}
    )
    fake_run(root, method, attribute, edit(rows) if edit else rows, samples=samples, **more)


def accuracy_row(found, **where):
    """The only row of accuracy, or the only one with these values."""
    table = found.table[found.table["metric"] == "accuracy"]
    for name, value in where.items():
        table = table[table[name] == value]
    [row] = table.to_dict("records")
    return row


def test_runs_from_the_same_starts_are_paired(tmp_path):
    a = values_of(0, 0.4)
    b = np.maximum(a, values_of(1, 0.3))
    record(tmp_path / "a", a)
    record(tmp_path / "b", b, method_config={"step": 2})
    found = side_by_side(tmp_path / "a", tmp_path / "b")
    row = accuracy_row(found)
    exact = paired_difference(pd.Series(b), pd.Series(a))
    assert row["starts"] == "same" and row["n"] == N and row["verdict"] == "better"
    assert (
        row["difference"] == pytest.approx(b.mean() - a.mean()) == pytest.approx(exact.difference)
    )
    assert (row["low"], row["high"], row["p"]) == pytest.approx((exact.low, exact.high, exact.p))
    assert row["b"] - row["a"] == pytest.approx(row["difference"])


def test_the_seeds_of_both_sides_are_paired_as_well(tmp_path):
    """A change that acts alike under every seed has no variance of seeds, however these differ."""
    shares = (0.2, 0.5, 0.8)
    gaps = []
    for seed, share in enumerate(shares):
        a = values_of(seed, share)
        b = a.copy()
        b[seed :: len(shares) * 4] = 1.0
        gaps.append(b - a)
        record(tmp_path / "a", a, seed=seed)
        record(tmp_path / "b", b, seed=seed)
    row = accuracy_row(side_by_side(tmp_path / "a", tmp_path / "b"))
    low, high = crossed_means(np.array(gaps).T)
    assert row["b"] - row["a"] == pytest.approx(row["difference"])
    assert row["seeds"] == "0, 1, 2" and row["difference"] == pytest.approx(np.mean(gaps))
    # Both are bootstraps of the same means, by other draws.
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=0.006)
    apart = side_by_side(tmp_path / "a", tmp_path / "b", by_seed=True)
    for seed, gap in enumerate(gaps):
        assert accuracy_row(apart, seeds=str(seed))["difference"] == pytest.approx(gap.mean())


def test_other_starts_give_an_unpaired_interval_and_say_so(tmp_path, capfd):
    a, b = values_of(0, 0.4), values_of(1, 0.6)
    record(tmp_path / "a", a)
    record(tmp_path / "b", b, first=10_000, starts_n=1500)
    row = accuracy_row(side_by_side(tmp_path / "a", tmp_path / "b"))
    error = np.sqrt(a.var() / N + b.var() / N)
    assert row["starts"] == "different" and np.isnan(row["n"])
    assert row["difference"] == pytest.approx(b.mean() - a.mean())
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * error, rel=0.06)
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(["report", "--compare", *folders, "--table"]) == 0
    printed = capfd.readouterr().out
    assert "starts.n 1400 -> 1500" in printed and "A and B walked from different starts" in printed
    assert ", 1 cells: " in printed and "unpaired bootstrap" in printed
    assert not (tmp_path / "b" / "report").exists()


def test_what_is_in_doubt_of_a_folder_is_told_everywhere(tmp_path, capfd):
    """In the words of the report of that folder."""
    both = {"starts": 100, "walks_not_finite": 7}
    for root, leaking, share in (("a", False, 1.0), ("b", True, 0.5)):
        made = {**both, "imported_agreement": {"judge": {"smile": share}}}
        record(tmp_path / root, values_of(0, 0.4), leaking=leaking, made=made)
    found = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(["report", "--compare", *found, "--out", str(tmp_path / "out")]) == 0
    printed = " ".join(capfd.readouterr().out.split())
    told = caveats(load(tmp_path / "b"), Theme({}, {"smile": "smile"}))
    assert len(told) == 2 and "NaN" in told[0] and "imported bank" in told[1]
    latex = (tmp_path / "out" / "compare.tex").read_text()
    page = (tmp_path / "out" / "index.html").read_text()
    for text in (printed, page):
        assert told[0] in text and f"A: {told[0]}" not in text
        assert f"B: {told[1]}" in text and "B: leaking: the judge is the teacher" in text
    assert "B: The logits of an imported bank" in latex and "B: leaking: the judge" in latex
    # In a narrow window the verdicts are beyond the right edge, which a shadow shows.
    assert ".scroll { overflow-x: auto" in page and "var(--shade), transparent) right" in page


def test_starts_with_the_same_numbers_in_another_bank_are_not_paired(tmp_path):
    """Start 10 of a bank with another seed is another picture."""
    for root, bank in (("a", 0), ("b", 1)):
        record(tmp_path / root, values_of(bank))
        [folder] = (tmp_path / root).iterdir()
        config = (folder / "config.yaml").read_text()
        config = config.replace("name: standard", f"name: standard\n  seed: {bank}")
        (folder / "config.yaml").write_text(config)
        seal_folder(folder)
    row = accuracy_row(side_by_side(tmp_path / "a", tmp_path / "b"))
    assert row["starts"] == "different"


def test_holm_is_over_the_cells_of_a_number(tmp_path):
    """A cell that is separated by itself is not any more beside two without a difference."""
    base = values_of(0, 0.5)
    small = base.copy()
    small[np.flatnonzero(base == 0)[:5]] = 1.0
    for k in range(3):
        record(tmp_path / "a", base, method=f"m{k}")
        record(tmp_path / "b", small if k == 0 else base, method=f"m{k}")
    found = side_by_side(tmp_path / "a", tmp_path / "b")
    row = accuracy_row(found, method="m0")
    assert 0 < row["p"] < 0.05 < row["p_holm"] == pytest.approx(3 * row["p"])
    assert row["low"] > 0 and row["verdict"] == "not significant"
    same = accuracy_row(found, method="m1")
    assert same["difference"] == 0 and same["p"] == 1 and same["verdict"] == "not significant"


def test_a_number_without_values_of_starts_has_a_difference_and_no_test(tmp_path):
    def edit(rows):
        rows.loc[rows["metric"] == "path_length", "value"] = 6.25
        return rows

    record(tmp_path / "a", values_of(0))
    record(tmp_path / "b", values_of(0), edit=edit)
    found = side_by_side(tmp_path / "a", tmp_path / "b")
    [row] = found.table[found.table["metric"] == "path_length"].to_dict("records")
    assert row["difference"] == pytest.approx(1.0) and row["verdict"] == "not tested"
    assert np.isnan(row["low"]) and np.isnan(row["p"])


def test_a_number_that_some_starts_lack_is_compared_on_those_that_both_have(tmp_path, capfd):
    """B reaches the effect from twenty further starts, and its mean is larger for them alone."""
    base = np.random.default_rng(3).random(N)
    for root, has in (("a", 80), ("b", 100)):
        values = np.where(np.arange(N) < 80, base, base + 5)[:has]
        frame = pd.concat(
            [
                pd.DataFrame(
                    {"metric": "ad_at", "x": 1.0, "start": np.arange(has), "value": values}
                ),
                pd.DataFrame({"metric": "accuracy", "start": np.arange(N), "value": 1.0}),
            ]
        )
        rows = metric_rows(accuracy=1.0, ad=float(values.mean()), n=N)
        fake_run(tmp_path / root, "m", "smile", rows, samples=frame)
    found = side_by_side(tmp_path / "a", tmp_path / "b")
    [row] = found.table[found.table["metric"] == "ad_at"].to_dict("records")
    assert row["starts"] == "same" and row["n"] == 80 and row["difference"] == 0
    # The three numbers are over the same starts, with the interval of A for both.
    assert row["a"] == row["b"] == pytest.approx(base[:80].mean()) and row["b_n"] == 80
    assert row["b_low"] < row["b"] < row["b_high"] < row["b"] + 0.15
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(["report", "--compare", *folders, "--table"]) == 0
    assert "A, B and B − A are means over the n starts that both have" in capfd.readouterr().out


def test_notes_and_other_versions_are_not_tested(tmp_path):
    def noted(rows):
        rows.loc[rows["metric"] == "accuracy", "note"] = "too few"
        return rows

    record(tmp_path / "a", values_of(0))
    record(tmp_path / "b", values_of(1), edit=noted)
    row = accuracy_row(side_by_side(tmp_path / "a", tmp_path / "b"))
    assert row["verdict"] == "not interpretable" and row["note"] == "B: too few"
    record(tmp_path / "c", values_of(1), edit=lambda rows: rows.assign(version=2))
    row = accuracy_row(side_by_side(tmp_path / "a", tmp_path / "c"))
    assert row["verdict"] == "not comparable" and np.isnan(row["difference"])
    assert "version 1 in A, 2 in B" in row["note"]


def test_rows_of_an_imported_bank_are_no_starts_of_another_bank():
    """Only the imported bank is known by its hash; the other one by its seed and size."""

    def run(**setting):
        return PinnedRun("m", "m", "smile", 0, "done", "", "id", {}, {"bank.seed": 0} | setting)

    built = run(**{"hash.judge": "j"})
    imported = run(**{"hash.judge": "j", "hash.bank": "b"})
    skipped = run()
    assert Pair(built, built).refers_to_same_starts()
    assert Pair(imported, imported).refers_to_same_starts()
    assert not Pair(built, imported).refers_to_same_starts()
    assert not Pair(imported, built).refers_to_same_starts()
    assert Pair(imported, skipped).refers_to_same_starts()  # failed on all starts, whichever


def test_what_one_folder_has_alone_is_listed(tmp_path, capfd):
    for root in ("a", "b"):
        record(tmp_path / root, values_of(0), method="both")
    record(tmp_path / "a", values_of(0), method="first")
    record(tmp_path / "b", values_of(0), method="second", seed=1)
    record(tmp_path / "b", values_of(0), method="both", seed=3)
    record(tmp_path / "a", values_of(0), method="broken")
    fake_run(tmp_path / "b", "broken", "smile", status="skipped", reason="no W")
    record(tmp_path / "a", values_of(0), attribute="age", method="both")
    found = side_by_side(tmp_path / "a", tmp_path / "b")
    alone = {(one.side, one.run): one.reason for one in found.pairing.alone}
    assert alone == {
        ("A", "first x smile, seed 0"): "not in B",
        ("B", "second x smile, seed 1"): "not in A",
        ("B", "both x smile, seed 3"): "A has only other seeds: 0",
        ("both", "broken x smile, seed 0"): "A: done; B: skipped: no W",
        ("A", "both x age, seed 0"): "not in B",
    }
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(["report", "--compare", *folders, "--out", str(tmp_path / "out")]) == 0
    printed = capfd.readouterr().out
    written = (tmp_path / "out" / "not_compared.csv").read_text()
    shown = (tmp_path / "out" / "index.html").read_text()
    for _, run in alone:
        assert run in printed and run in written and run in shown


def test_a_metric_that_a_cell_has_on_one_side_is_named_with_the_cell(tmp_path):
    def without(rows):
        return rows[rows["metric"] != "path_length"]

    record(tmp_path / "a", values_of(0), method="first")
    record(tmp_path / "a", values_of(0), method="second")
    record(tmp_path / "b", values_of(0), method="first", edit=without)
    record(tmp_path / "b", values_of(0), method="second")
    found = side_by_side(tmp_path / "a", tmp_path / "b")
    assert found.left_out == ["only in A: path_length (first on smile)"]
    record(tmp_path / "c", values_of(0), method="first", edit=without)
    found = side_by_side(tmp_path / "a", tmp_path / "c")
    assert found.left_out == ["only in A: path_length"]


def test_variants_are_paired_with_their_own(tmp_path):
    for root, better in (("a", 0.0), ("b", 1.0)):
        for step in (1, 2):
            values = np.clip(values_of(step) + better * values_of(7, 0.2), 0, 1)
            record(tmp_path / root, values, method_config={"step": step}, tag=f"v{step}")
    found = side_by_side(tmp_path / "a", tmp_path / "b")
    assert set(found.table["method"]) == {"m (step=1)", "m (step=2)"}
    assert accuracy_row(found, method="m (step=1)")["a"] == pytest.approx(values_of(1).mean())


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"batch": 8}, "A and B have the same method options, protocol and code (batch sizes,"),
        ({"max_steps": 51}, "A -> B: engine.max_steps 50 -> 51"),
    ],
)
def test_what_is_no_part_of_the_protocol_is_not_told_as_a_change(tmp_path, option, told):
    for root in ("a", "b"):
        record(tmp_path / root, values_of(0))
    (config,) = (tmp_path / "b").glob("*/config.yaml")
    changed = yaml.safe_load(config.read_text())
    changed["engine"] |= option
    config.write_text(yaml.safe_dump(changed))
    seal_folder(config.parent)
    [line] = changes(side_by_side(tmp_path / "a", tmp_path / "b"))
    assert line.startswith(told)


def test_errors_say_what_is_wrong(tmp_path):
    record(tmp_path / "a", values_of(0))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EditbenchError, match=r"no run was found in .*empty"):
        side_by_side(tmp_path / "a", tmp_path / "empty")
    with pytest.raises(EditbenchError, match="are the same folder"):
        side_by_side(tmp_path / "a", tmp_path / "empty" / ".." / "a")
    record(tmp_path / "b", values_of(0), attribute="age")
    with pytest.raises(EditbenchError, match=r"no finished run in common.*m on smile.*m on age"):
        side_by_side(tmp_path / "a", tmp_path / "b")
    made = {"hashes": {"generator": "99ff"}}
    record(tmp_path / "c", values_of(0), generator="other", made=made)
    with pytest.raises(EditbenchError, match=r"generator faces32 -> other.*11aa22bb33cc -> 99ff"):
        side_by_side(tmp_path / "a", tmp_path / "c")
    record(tmp_path / "d", values_of(0))
    [folder] = (tmp_path / "d").iterdir()
    (folder / "rows.parquet").write_bytes(b"cut")
    with pytest.raises(EditbenchError, match=r"no run in .*d' is readable"):
        side_by_side(tmp_path / "a", tmp_path / "d")


def test_a_third_folder_is_refused(tmp_path, capfd):
    with pytest.raises(SystemExit):
        main(["report", "runs", "--compare", "a", "b"])
    assert "takes exactly two folders; leave out runs" in capfd.readouterr().err


def test_the_files_hold_every_cell_and_escape_names(tmp_path, monkeypatch):
    hostile = r"m_<b>&\input{x}"
    for root, seed in (("a", 0), ("b", 1)):
        for attribute in ("age", "smile", "a_1", "a_2", "a_3"):
            record(tmp_path / root, values_of(seed), "plain", attribute)
        rows = complete(metric_rows(accuracy=0.5), {})
        folder = fake_run(tmp_path / root, "x", "age", rows)
        status = json.loads((folder / "status.json").read_text()) | {"method": hostile}
        (folder / "status.json").write_text(json.dumps(status))
        seal_folder(folder)
    monkeypatch.chdir(tmp_path / "a")
    page = write_side_by_side(side_by_side(Path(), Path("../b")), tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "compare.csv")
    assert len(table[table["metric"] == "accuracy"]) == 6
    text = (tmp_path / "out" / "compare.tex").read_text()
    assert "in A (a) and B (b)" in text
    tables = check_structure(text)
    # Two numbers of five attributes each, four beside each other.
    assert [columns for columns, _ in tables] == [5, 2, 5, 2]
    assert "<b>" not in page.read_text() and "m_&lt;b&gt;" in page.read_text()
    assert page.read_text().count('<svg class="drawn"') == 6


def test_page_and_latex_write_titles_and_the_csv_names(tmp_path):
    for root in ("a", "b"):
        record(tmp_path / root, values_of(0), "gradctrl", "smile")
    folder = tmp_path / "out"
    page = write_side_by_side(side_by_side(tmp_path / "a", tmp_path / "b"), folder)
    assert "GradCtrl" in page.read_text() and "gradctrl" not in (folder / "compare.tex").read_text()
    assert "GradCtrl" in (folder / "compare.tex").read_text()
    table = pd.read_csv(folder / "compare.csv")
    assert set(table["method"]) == {"gradctrl"} and "label" not in table
    # The sign of the report's page and figures.
    sign = str(dot(make_theme(["gradctrl"])["gradctrl"]))
    assert page.read_text().count(sign) == page.read_text().count('class="dot"') == len(table)
    report_of(tmp_path / "b")
    assert sign in (tmp_path / "b" / "report" / "index.html").read_text()


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("/x/a", "/x/b", ("a", "b")),
        ("/x/before/runs", "/y/after/runs", ("before/runs", "after/runs")),
        ("/runs", "/x/runs", ("/runs", "x/runs")),
    ],
)
def test_folders_of_one_name_are_told_apart(first, second, names):
    assert names_of_folders(Path(first), Path(second)) == names


def test_one_start_is_no_evidence():
    one = pd.DataFrame({0: [0.9]})
    many = pd.DataFrame({0: np.linspace(0.1, 0.3, 8)})
    found = unpaired_test(one, many, (SeedSpread(), SeedSpread()), 200)
    assert found["difference"] == pytest.approx(-0.7)
    assert np.isnan([found["low"], found["high"], found["p"]]).all()
    assert verdict_of({"verdict": OPEN, "p_holm": np.nan}) == OPEN


NO_CONTROL = {"status": "skipped", "reason": "no control found", "no_control": True}


def test_a_search_without_a_control_failed_on_every_start(tmp_path, capfd):
    """By the paired difference from zeros, which is what such a search did to each start."""
    a = values_of(0, 0.4)
    other = values_of(1, 0.5)
    for folder in ("a", "b"):
        record(tmp_path / folder, other, "other")
    record(tmp_path / "a", a)
    fake_run(tmp_path / "b", "m", "smile", **NO_CONTROL)
    found = side_by_side(tmp_path / "a", tmp_path / "b")
    row = accuracy_row(found, method="m")
    exact = paired_difference(pd.Series(np.zeros(N)), pd.Series(a))
    assert row["a"] == pytest.approx(a.mean()) and row["b"] == 0
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(
        (exact.difference, exact.low, exact.high)
    )
    assert row["n"] == N and row["verdict"] == "worse" and found.pairing.alone == []
    assert main(["report", "--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    printed = " ".join(capfd.readouterr().out.split())
    written = tmp_path / "b" / "report" / "compare"
    for told in (printed, (written / "compare.tex").read_text()):
        assert "B: no control: the method's search found no edit" in told
        assert "(m x smile, seed 0)" in told and "A: no control" not in told
    assert "(m x smile, seed 0)" in (written / "index.html").read_text()
    reverse = accuracy_row(side_by_side(tmp_path / "b", tmp_path / "a"), method="m")
    assert reverse["difference"] == -row["difference"] and reverse["verdict"] == "better"


def test_seeds_without_a_control_count_in_shares_and_not_in_other_numbers(tmp_path):
    a = np.stack([values_of(seed, 0.6) for seed in range(3)])
    b = np.stack([values_of(9 + seed, 0.7) for seed in range(3)])
    ads = np.random.default_rng(5).random((2, 3, N))
    failed = {"a": (0,), "b": (0, 2)}
    for side, (folder, values) in enumerate((("a", a), ("b", b))):
        for seed in range(3):
            if seed in failed[folder]:
                fake_run(tmp_path / folder, "m", "smile", **NO_CONTROL, seed=seed)
                values[seed] = 0
                continue
            ad = ads[side, seed]
            rows = metric_rows(float(values[seed].mean()), float(ad.mean()), N)
            samples = pd.concat(
                pd.DataFrame({"metric": name, "start": np.arange(N), "value": one, "x": x})
                for name, one, x in (("accuracy", values[seed], np.nan), ("ad_at", ad, 1.0))
            )
            fake_run(tmp_path / folder, "m", "smile", rows, samples=samples, seed=seed)
    found = side_by_side(tmp_path / "a", tmp_path / "b")
    row = accuracy_row(found)
    assert row["seeds"] == "0, 1, 2" and row["n"] == N
    assert (row["a"], row["b"]) == pytest.approx((a.mean(), b.mean()))
    assert row["difference"] == pytest.approx((b - a).mean())
    # Seed 1 alone has an edit on both sides.
    [ad_row] = found.table[found.table["metric"] == "ad_at"].to_dict("records")
    assert ad_row["difference"] == pytest.approx(ads[1, 1].mean() - ads[0, 1].mean())
    assert (ad_row["a"], ad_row["b"]) == pytest.approx((ads[0, 1].mean(), ads[1, 1].mean()))


def test_without_starts_to_fail_on_there_is_nothing_to_compare(tmp_path):
    """No other run of the folder says from which starts the search should have walked."""
    record(tmp_path / "a", values_of(0))
    record(tmp_path / "a", values_of(1), attribute="age")
    record(tmp_path / "b", values_of(1), attribute="age")
    fake_run(tmp_path / "b", "m", "smile", **NO_CONTROL)
    found = side_by_side(tmp_path / "a", tmp_path / "b")
    [alone] = found.pairing.alone
    assert alone.reason == "A: done; B: skipped: no control found"
