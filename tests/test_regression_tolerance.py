"""Tolerances of a baseline: the documented default, and those that other runs or machines measured."""

import json
from dataclasses import replace

import numpy as np
import pytest

from editbench import regression
from editbench.base.errors import EditbenchError
from editbench.regression import measure_tolerances, pin_runs, read_baseline
from editbench.regression.tolerance import default
from editbench.report.load import load
from tests.pinned_records import change_hash, check, key, outcome, pin, record


def test_default_tolerances_are_the_documented_function_of_the_row():
    row = regression.Pin(0.5, 0.4, 0.64, 100, 1)
    assert default(row, paired=True) == pytest.approx(0.06)  # a quarter of the interval's width
    assert default(row, paired=False) == pytest.approx(0.12)
    assert default(replace(row, low=0.49, high=0.51), paired=True) == pytest.approx(
        0.025
    )  # 5 % of the value
    assert default(replace(row, value=3.0, low=np.nan, high=np.nan), paired=False) == 1  # a count
    assert default(replace(row, value=400.0, low=np.nan, high=np.nan), paired=False) == 20
    assert np.isnan(default(replace(row, value=np.nan), paired=False))


def test_measured_tolerances_are_twice_the_largest_deviation_with_a_floor(tmp_path):
    record(tmp_path / "runs")
    record(tmp_path / "one", outcome(won=30), seed=1)
    record(tmp_path / "one", outcome(lost=20), seed=2)
    record(tmp_path / "two", edit=lambda rows: rows[rows["metric"] != "ad_at"])
    path = tmp_path / "b.json"
    assert pin(tmp_path / "runs", path, "--spread", tmp_path / "one", tmp_path / "two") == 0
    rows = read_baseline(path).runs[0].rows
    assert (rows[key("accuracy")].tolerance, rows[key("accuracy")].origin) == (
        pytest.approx(2 * 0.15),
        "spread",
    )
    usual = measure_tolerances(pin_runs(load(tmp_path / "runs"))[0], {})[0][0].rows
    assert rows[key("path_length")].origin == "floor"
    assert rows[key("path_length")].tolerance == pytest.approx(
        0.2 * usual[key("path_length")].tolerance, rel=1e-3
    )
    spread = json.loads(path.read_text())["tolerance"]["spread"]
    assert spread == {
        "one": {"runs": 2, "varied": {"seed": ["0 -> 1", "0 -> 2"]}},
        "two": {"runs": 1, "varied": {}},
    }
    assert usual[key("accuracy")].origin == "default"


def run_of_rows(values):
    """A run of one method with rows without samples, whose default tolerance is 0.1."""
    rows = {
        key("ad", x=float(k)): regression.Pin(value, value - 0.1, value + 0.1, 100, 1)
        for k, value in enumerate(values)
    }
    return regression.PinnedRun("m x a", "m", "a", 0, "done", "", "id", {}, {}, rows=rows)


def test_a_row_that_agrees_by_chance_has_the_tolerance_of_its_metrics_rows():
    pinned = run_of_rows(np.ones(40))
    other = run_of_rows(1 + 0.05 * np.arange(40) / 40)
    (found,), _ = measure_tolerances([pinned], {"other": [other]})
    rows = list(found.rows.values())
    # The 95 % quantile of 0, 1, ..., 39 is 37.05.
    scale = 0.05 * 37.05 / 40
    assert (rows[0].origin, rows[39].origin) == ("scale", "spread")
    assert rows[0].tolerance == pytest.approx(2 * scale, rel=1e-3)
    assert rows[39].tolerance == pytest.approx(2 * 0.05 * 39 / 40, rel=1e-3)
    # Fewer than 20 rows have no such quantile.
    few_rows = [run_of_rows(np.ones(19)), run_of_rows([1.0] * 10 + [2.0] * 9)]
    (few,), _ = measure_tolerances(few_rows[:1], {"other": few_rows[1:]})
    assert [pin.origin for pin in few.rows.values()] == ["floor"] * 10 + ["spread"] * 9


def test_a_baseline_is_widened_by_another_machine_and_keeps_its_values(tmp_path, capsys):
    path = tmp_path / "b.json"
    record(tmp_path / "pinned")
    record(tmp_path / "first", outcome(won=4))
    record(tmp_path / "second", outcome(won=30))
    record(tmp_path / "third", outcome(won=16))
    pin(tmp_path / "pinned", path, "--spread", tmp_path / "first")
    assert check(tmp_path / "second", path) == 1
    assert pin(tmp_path / "second", path, "--widen") == 0
    assert check(tmp_path / "second", path) == 0 and check(tmp_path / "pinned", path) == 0
    widened = read_baseline(path)
    row = widened.runs[0].rows[key("accuracy")]
    assert (row.value, row.tolerance) == (0.5, pytest.approx(2 * 0.15))
    assert list(widened.spread) == ["first", "second"] and widened.history == ["for the test"]
    # Tolerances do not become smaller.
    assert pin(tmp_path / "third", path, "--widen") == 0
    assert read_baseline(path).runs[0].rows[key("accuracy")].tolerance == row.tolerance
    unmeasured = tmp_path / "unmeasured.json"
    pin(tmp_path / "pinned", unmeasured)
    usual = read_baseline(unmeasured).runs[0].rows[key("path_length")]
    pin(tmp_path / "third", unmeasured, "--widen")
    assert read_baseline(unmeasured).runs[0].rows[key("path_length")] == usual
    before = path.read_text()
    for words, text in (
        ([tmp_path / "third", path, "--widen"], "rename the new one"),
        ([tmp_path / "pinned", tmp_path / "absent.json", "--widen"], "absent.json"),
    ):
        capsys.readouterr()
        assert pin(*words) == 1
        assert text in capsys.readouterr().err and path.read_text() == before
    with pytest.raises(SystemExit) as end:
        pin(tmp_path / "pinned", path, "--widen", "--force")
    assert end.value.code == 2 and path.read_text() == before
    assert "--force: not allowed with argument --widen" in capsys.readouterr().err


def test_a_failed_check_on_another_machine_names_both_remedies(tmp_path, capsys):
    path = tmp_path / "pins ä.json"
    record(tmp_path / "pinned")
    record(tmp_path / "new", outcome(won=30))
    pin(tmp_path / "pinned", path)
    assert check(tmp_path / "new", path) == 1
    err = capsys.readouterr().err
    # The command can be pasted into a shell.
    assert f"--out '{path}' --force" in err and "--widen" not in err
    old = read_baseline(path)
    elsewhere = replace(old, made_with=old.made_with | {"processor": "of another make"})
    regression.write_baseline(path, elsewhere)
    assert check(tmp_path / "new", path) == 1
    said = capsys.readouterr()
    assert "--force" in said.err and "--widen" in said.err
    assert "processor of another make -> " in " ".join(said.out.split())


def test_a_run_is_measured_by_runs_of_its_own_seed_where_there_are_any(tmp_path):
    record(tmp_path / "runs")
    record(tmp_path / "runs", outcome(won=30), seed=1)
    record(tmp_path / "other", outcome(won=30))
    record(tmp_path / "other", outcome(lost=20), seed=2)
    path = tmp_path / "b.json"
    assert pin(tmp_path / "runs", path, "--spread", tmp_path / "other") == 0
    first, second = read_baseline(path).runs
    # Seed 0 has its own run there; seed 1 has none, and takes both others.
    assert first.rows[key("accuracy")].tolerance == pytest.approx(2 * 0.15)
    assert second.rows[key("accuracy")].tolerance == pytest.approx(2 * 0.25)
    spread = json.loads(path.read_text())["tolerance"]["spread"]
    assert spread == {"other": {"runs": 3, "varied": {"seed": ["1 -> 0", "1 -> 2"]}}}


def test_a_record_is_no_spread_of_itself(tmp_path, monkeypatch, capsys):
    record(tmp_path / "runs")
    # The folder by another name of it: its own name is empty.
    monkeypatch.chdir(tmp_path / "runs")
    assert pin(tmp_path / "runs", tmp_path / "b.json", "--spread", ".") == 1
    assert "'runs' holds no finished run of a pinned job" in capsys.readouterr().err
    record(tmp_path / "runs", outcome(won=30), seed=1)
    assert pin(tmp_path / "runs", tmp_path / "b.json", "--spread", ".") == 0
    rows = read_baseline(tmp_path / "b.json").runs[0].rows
    assert rows[key("accuracy")].tolerance == pytest.approx(2 * 0.15)
    spread = json.loads((tmp_path / "b.json").read_text())["tolerance"]["spread"]
    assert spread == {"runs": {"runs": 2, "varied": {"seed": ["0 -> 1", "1 -> 0"]}}}


def test_spread_of_other_code_or_of_another_job_is_refused(tmp_path):
    record(tmp_path / "runs")
    change_hash(record(tmp_path / "code"), method_source="other")
    record(tmp_path / "job", starts_n=5)
    runs = pin_runs(load(tmp_path / "runs"))[0]
    for root, text in (("code", "other code of m"), ("job", "no finished run of a pinned job")):
        with pytest.raises(EditbenchError, match=text):
            measure_tolerances(runs, {root: pin_runs(load(tmp_path / root), every=True)[0]})


def test_rows_without_a_version_are_of_no_other_version(tmp_path):
    """NaN differs from itself; records of other harnesses have no version at all."""
    for folder, seed in (("pins", 0), ("spread", 1)):
        record(tmp_path / folder, edit=lambda rows: rows.assign(version=np.nan), seed=seed)
    runs, _ = pin_runs(load(tmp_path / "pins"))
    measured, _ = measure_tolerances(runs, {"spread": pin_runs(load(tmp_path / "spread"))[0]})
    assert {pin.origin for pin in measured[0].rows.values()} <= {"floor", "spread"}
