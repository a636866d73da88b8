"""Baselines and their check: numbers, tolerances and verdicts that follow from how the runs were constructed."""

import json
import os
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from editbench import regression
from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import seal_folder
from editbench.cli import main
from editbench.regression import (
    Finding,
    RegressionResult,
    compare,
    measure_tolerances,
    pin_runs,
    read_baseline,
    summary,
)
from editbench.regression.compare import paired_interval
from editbench.regression.tolerance import default
from editbench.report.load import SAMPLE_TYPES, load
from editbench.walk.editor import Editor, FitReport, unit_rows
from editbench.walk.rows import key_of
from tests.by_config import run_job
from tests.fake_records import complete, fake_run, metric_rows
from tests.paired_by_hand import paired_difference
from tests.toy_world import ToyScorer, V, toy_config

N = 200


# -- records with chosen numbers ---------------------------------------------------------------------------------------
def outcome(hits=100, lost=0, won=0):
    """0/1 a start: the first `hits` succeed, but `lost` of them do not and `won` of the others do."""
    value = (np.arange(N) < hits).astype(float)
    value[:lost] = 0
    value[N - won :] = 1
    return value


def record(root, values=None, method="m", attribute="smile", edit=None, **more):
    """A run whose accuracy row is the mean of its samples."""
    values = outcome() if values is None else values
    rows = metric_rows(accuracy=values.mean(), n=N)
    samples = pd.DataFrame({"metric": "accuracy", "start": 7 + 3 * np.arange(N), "value": values})
    return fake_run(
        root, method, attribute, rows if edit is None else edit(rows), samples=samples, **more
    )


def setting(**changes):
    """Edit of rows: setting(path_length=6.0)."""

    def edit(rows):
        for metric, value in changes.items():
            rows.loc[rows["metric"] == metric, "value"] = value
        return rows

    return edit


def key(metric: str, **fields) -> tuple:
    return key_of({"metric": metric, **fields})


def change_hash(folder, **hashes):
    made = json.loads((folder / "provenance.json").read_text())
    made["hashes"] |= hashes
    (folder / "provenance.json").write_text(json.dumps(made))
    seal_folder(folder)


def pin(root, path, *words):
    return main(
        ["baseline", str(root), "--out", str(path), "--reason", "for the test", *map(str, words)]
    )


def check(root, path, *words):
    return main(["check", str(root), "--baseline", str(path), *map(str, words)])


def findings(old, new):
    """(run, row) -> finding, of two runs folders with default tolerances."""
    found = compare(measure_tolerances(pin_runs(load(old))[0], {})[0], pin_runs(load(new))[0])
    return {(f.run, f.row): f for f in found.findings}


def verdicts(old, new):
    return {row: f.verdict for (_, row), f in findings(old, new).items()}


@pytest.mark.parametrize(
    ("values", "verdict", "holds_zero"),
    [
        (outcome(), "same", None),
        (outcome(lost=40, won=38), "within", True),
        (
            outcome(lost=6),
            "within",
            False,
        ),  # 0.03; the tolerance is a quarter of the interval's width, 0.035
        (
            outcome(lost=70, won=60),
            "noise",
            True,
        ),  # a net ten of 130 that changed: chance does that
        (outcome(lost=10), "moved", False),  # the same net ten, one way
        (outcome(won=10), "moved", False),
    ],
)
def test_a_row_moves_where_tolerance_and_paired_interval_both_say_so(
    tmp_path, values, verdict, holds_zero
):
    record(tmp_path / "old")
    record(tmp_path / "new", values)
    finding = findings(tmp_path / "old", tmp_path / "new")["m x smile, seed 0", "accuracy"]
    assert finding.verdict == verdict
    assert finding.difference == pytest.approx(values.mean() - 0.5)
    assert finding.tolerance == pytest.approx(0.0346, abs=1e-3)
    if holds_zero is not None:
        assert finding.pairs == N and (finding.low <= 0 <= finding.high) == holds_zero
    if verdict == "moved":
        assert finding.text == ("better" if finding.difference > 0 else "worse")
    pin(tmp_path / "old", tmp_path / "b.json")
    assert check(tmp_path / "new", tmp_path / "b.json") == (verdict == "moved")


def test_the_interval_is_the_paired_bootstrap_and_follows_starts_that_only_one_side_has():
    rng = np.random.default_rng(0)
    old = pd.Series(rng.gamma(2.0, 0.2, 150), index=np.arange(150))
    new = old + rng.normal(0.02, 0.1, 150)
    low, high, pairs = paired_interval(new.sample(frac=1, random_state=1), old)
    known = paired_difference(new, old)
    assert (low, high, pairs) == (pytest.approx(known.low), pytest.approx(known.high), 150)
    few = old[old < old.median()]  # values did not change, but the upper half of the starts is gone
    low, high, pairs = paired_interval(few, old)
    assert low < few.mean() - old.mean() < high < 0 and pairs == 75


def test_rows_without_samples_are_judged_by_the_tolerance_alone_and_say_so(tmp_path):
    record(tmp_path / "old")
    tolerance = findings(tmp_path / "old", tmp_path / "old")[
        "m x smile, seed 0", "path_length"
    ].tolerance
    record(tmp_path / "in", edit=setting(path_length=5.25 + 0.99 * tolerance))
    record(tmp_path / "out", edit=setting(path_length=5.25 + 1.01 * tolerance))
    assert verdicts(tmp_path / "old", tmp_path / "in")["path_length"] == "within"
    moved = findings(tmp_path / "old", tmp_path / "out")["m x smile, seed 0", "path_length"]
    assert (moved.verdict, moved.pairs) == (
        "moved",
        0,
    )
    assert "no samples, judged by tolerance alone" in moved.text


def test_samples_that_are_not_what_the_row_averages_are_not_paired(tmp_path):
    record(tmp_path / "old", edit=setting(accuracy=0.7))
    (run,), _ = pin_runs(load(tmp_path / "old"))
    assert run.series(key("accuracy")) is None and run.series(key("success_rate")) is None
    record(tmp_path / "fits")
    assert (
        pin_runs(load(tmp_path / "fits"))[0][0].series(key("accuracy")).tolist()
        == outcome().tolist()
    )


def test_another_metric_version_is_told_apart_from_a_number_that_moved(tmp_path, capsys):
    def bump(rows):
        rows.loc[rows["metric"] == "accuracy", ["version", "value"]] = (2, 0.1)
        return rows

    record(tmp_path / "old")
    record(tmp_path / "new", edit=bump)
    found = findings(tmp_path / "old", tmp_path / "new")["m x smile, seed 0", "accuracy"]
    assert (found.verdict, found.text) == (
        "not comparable",
        "metric version 1 -> 2; pin again",
    )
    assert verdicts(tmp_path / "old", tmp_path / "new")["success_rate"] == "same"
    pin(tmp_path / "old", tmp_path / "b.json")
    assert check(tmp_path / "new", tmp_path / "b.json") == 0
    assert "metric version 1 -> 2" in capsys.readouterr().out
    assert check(tmp_path / "new", tmp_path / "b.json", "--strict") == 1


def test_a_value_outside_its_own_interval_is_told_although_it_is_the_pinned_one(tmp_path, capsys):
    record(tmp_path / "sound")
    record(tmp_path / "wrong", edit=setting(success_rate=0.1))
    for root, told in (("sound", False), ("wrong", True)):
        pin(tmp_path / root, tmp_path / f"{root}.json")
        capsys.readouterr()
        assert check(tmp_path / root, tmp_path / f"{root}.json") == 0
        out = " ".join(capsys.readouterr().out.split())
        assert ("values outside their own interval: 1 of " in out) == told
        assert ("success_rate of m-smile-s0-abcdef0123, 0.1 with [" in out) == told


def test_numbers_of_two_versions_of_the_code_are_compared(tmp_path):
    """The id of a bank follows the code, which is what a check is run for."""
    record(tmp_path / "old")
    change_hash(record(tmp_path / "new"), bank="bank-ffff")
    assert verdicts(tmp_path / "old", tmp_path / "new")["accuracy"] == "same"


def test_another_setting_is_named_by_its_hashes_and_never_compared(tmp_path, capsys):
    for root in ("old", "new"):
        record(tmp_path / root)
        folder = record(tmp_path / root, outcome(30 if root == "new" else 100), "n")
    change_hash(folder, generator="f" * 64)
    found = findings(tmp_path / "old", tmp_path / "new")["n x smile, seed 0", ""]
    assert (found.verdict, found.text) == (
        "not comparable",
        "different setting: generator 11aa22bb33cc -> ffffffffffff",
    )
    pin(tmp_path / "old", tmp_path / "b.json")
    assert check(tmp_path / "new", tmp_path / "b.json") == 0  # m was compared
    assert check(tmp_path / "new", tmp_path / "b.json", "--strict") == 1
    shutil.rmtree(tmp_path / "new" / "m-smile-s0-abcdef0123")
    assert check(tmp_path / "new", tmp_path / "b.json", "--allow-missing") == 1
    assert "failed: no number of" in capsys.readouterr().err


def test_networks_are_told_by_hashes_and_the_scorer_also_by_its_name(tmp_path):
    """The same weights may lie elsewhere; another scorer's name means another judge."""
    changes = {"old": {}, "moved": {"generator.path": "there"}, "judged": {"scorer.name": "x"}}
    for name, changed in changes.items():
        folder = record(tmp_path / name)
        config = OmegaConf.load(folder / "config.yaml")
        for key, value in changed.items():
            OmegaConf.update(config, key, value)
        OmegaConf.save(config, folder / "config.yaml")
        seal_folder(folder)
    assert verdicts(tmp_path / "old", tmp_path / "moved")["accuracy"] == "same"
    found = findings(tmp_path / "old", tmp_path / "judged")["m x smile, seed 0", ""]
    assert found.text == "different setting: scorer.name faces -> x"


def test_another_precision_is_another_setting_by_name(tmp_path):
    record(tmp_path / "old")
    folder = record(tmp_path / "new")
    made = json.loads((folder / "provenance.json").read_text())
    change_hash(folder, generator=made["hashes"]["generator"] + "-bf16")
    found = findings(tmp_path / "old", tmp_path / "new")["m x smile, seed 0", ""]
    assert found.text == "different setting: generator 11aa22bb33cc -> 11aa22bb33cc-bf16"


def test_other_start_numbers_and_other_starts_are_other_settings(tmp_path):
    record(tmp_path / "old")
    record(tmp_path / "more", starts_n=77)
    assert (
        "starts.n 1400 -> 77"
        in findings(tmp_path / "old", tmp_path / "more")["m x smile, seed 0", ""].text
    )
    folder = record(tmp_path / "others")
    samples = pd.read_parquet(folder / "samples.parquet")
    samples.assign(start=samples["start"] + 3 * 100).to_parquet(folder / "samples.parquet")
    seal_folder(folder)
    assert (
        "only 100 starts in common, of 200 pinned and 200 new ones"
        in findings(tmp_path / "old", tmp_path / "others")["m x smile, seed 0", ""].text
    )
    samples.assign(start=samples["start"] + 3).to_parquet(
        folder / "samples.parquet"
    )  # one start was swapped
    seal_folder(folder)
    assert (
        findings(tmp_path / "old", tmp_path / "others")["m x smile, seed 0", "accuracy"].verdict
        == "same"
    )


@pytest.mark.parametrize(
    ("was", "now", "verdict", "code"),
    [
        ("done", "failed", "broke", 1),
        ("done", "skipped", "broke", 1),
        ("skipped", "failed", "broke", 1),
        ("skipped", "skipped", "same", 0),
        ("failed", "failed", "same", 0),
        ("skipped", "done", "new", 0),
    ],
)
def test_a_run_that_is_no_longer_done_is_a_regression_and_a_skip_that_stays_is_none(
    tmp_path, was, now, verdict, code, capsys
):
    for root, status in (("old", was), ("new", now)):
        record(tmp_path / root, attribute="age")
        record(
            tmp_path / root, status=status, reason="" if status == "done" else "no control found"
        )
    pin(tmp_path / "old", tmp_path / "b.json")
    assert check(tmp_path / "new", tmp_path / "b.json") == code
    assert findings(tmp_path / "old", tmp_path / "new")["m x smile, seed 0", ""].verdict == verdict
    if verdict == "broke":
        assert f"{was} -> {now}: no control found" in capsys.readouterr().out


def test_missing_runs_fail_unless_allowed_and_new_ones_are_listed(tmp_path, capsys):
    record(tmp_path / "old")
    record(tmp_path / "old", method="gone")
    record(tmp_path / "new")
    record(tmp_path / "new", method="fresh")
    pin(tmp_path / "old", tmp_path / "b.json")
    capsys.readouterr()
    assert check(tmp_path / "new", tmp_path / "b.json") == 1
    assert "accept that they are missing with --allow-missing" in capsys.readouterr().err
    assert check(tmp_path / "new", tmp_path / "b.json", "--allow-missing") == 0
    assert check(tmp_path / "old", tmp_path / "b.json") == 0
    captured = capsys.readouterr()
    assert "missing with" not in captured.err
    lines = captured.out.splitlines()
    assert any(line.startswith("missing") and "gone x smile" in line for line in lines)
    assert any(line.startswith("new") and "fresh x smile" in line for line in lines)


def test_a_row_that_lost_its_value_is_reported_and_a_note_hides_a_row(tmp_path):
    record(tmp_path / "old")
    record(tmp_path / "lost", edit=setting(ad_at=np.nan))
    record(tmp_path / "gone", edit=lambda rows: rows[rows["metric"] != "ad_at"])
    record(tmp_path / "noted", edit=lambda rows: rows.assign(note="excluded", value=9.0))
    assert verdicts(tmp_path / "old", tmp_path / "lost")["ad_at at x = 1"] == "lost"
    assert verdicts(tmp_path / "old", tmp_path / "gone")["ad_at at x = 1"] == "lost"
    assert set(verdicts(tmp_path / "old", tmp_path / "noted").values()) == {"unread"}
    assert (
        verdicts(tmp_path / "old", tmp_path / "old")["ad at x = 2.875"] == "unread"
    )  # hidden: too few points
    assert verdicts(tmp_path / "lost", tmp_path / "old")["ad_at at x = 1"] == "new"


def test_variants_are_matched_by_their_options_and_a_changed_option_is_named(tmp_path):
    for root, steps in (("old", (0.3, 0.6)), ("new", (0.6, 0.3))):
        for step in steps:
            record(
                tmp_path / root,
                outcome(round(100 * step)),
                tag=f"{root}{step}",
                method_config={"delta": step},
            )
    found = findings(tmp_path / "old", tmp_path / "new")
    assert found["m x smile, seed 0 (delta=0.3)", "accuracy"].verdict == "same"
    assert found["m x smile, seed 0 (delta=0.6)", "accuracy"].verdict == "same"
    record(tmp_path / "one", method_config={"delta": 0.3})
    record(tmp_path / "two", outcome(20), method_config={"delta": 0.9})
    one, two = (pin_runs(load(tmp_path / root))[0] for root in ("one", "two"))
    found = compare(measure_tolerances(one, {})[0], two)
    assert found.count("moved")
    assert found.notes == ["m: options of 1 run differ from the pinned ones: delta 0.3 -> 0.9"]


def test_of_two_records_of_one_job_the_newest_is_taken_and_the_other_named(tmp_path, monkeypatch):
    for tag, hits, age in (("aaaaaaaaaa", 50, 0), ("bbbbbbbbbb", 90, 100)):
        folder = record(tmp_path / "runs", outcome(hits), tag=tag)
        stamp = os.stat(folder / "status.json").st_mtime - age
        os.utime(folder / "status.json", (stamp, stamp))
    (run,), notes = pin_runs(load(tmp_path / "runs"))
    assert run.rows[key("accuracy")].value == 0.25
    assert "made with other code or weights, are left out: m-smile-s0-bbbbbbbbbb" in notes[0]
    change_hash(
        folder, method_source="as it is now"
    )  # an older record of the present code: it was found, not repeated
    monkeypatch.setattr("editbench.report.newest.source_digest", lambda target: "as it is now")
    (run,), notes = pin_runs(load(tmp_path / "runs"))
    assert run.rows[key("accuracy")].value == 0.45
    assert "made with other code or weights, are left out: m-smile-s0-aaaaaaaaaa" in notes[0]


# -- tolerances --------------------------------------------------------------------------------------------------------
def test_changed_code_is_told_of_the_records_that_it_is_true_of(tmp_path, monkeypatch, capsys):
    for root in ("old", "new"):
        for method in ("m", "n"):
            for attribute in ("smile", "age"):
                folder = record(tmp_path / root, method=method, attribute=attribute)
                is_other = root == "new" and (method, attribute) != ("m", "age")
                change_hash(folder, method_source="other" if is_other else "first")
    pin(tmp_path / "old", tmp_path / "b.json")
    monkeypatch.setattr("editbench.commands.check.present_source", lambda target: "other")
    check(tmp_path / "new", tmp_path / "b.json")
    said = capsys.readouterr().out
    assert "code changed since the pins: m (1 of 2 records), n\n" in said
    assert "code changed since the records were made: m (1 of 2 records); this check" in said


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


# -- the file ----------------------------------------------------------------------------------------------------------
def test_the_file_keeps_every_pin_and_is_the_same_every_time(tmp_path):
    rng = np.random.default_rng(0)
    folder = record(tmp_path / "runs")
    dense = pd.DataFrame(
        {
            "metric": "ad_at",
            "x": 1.0,
            "start": 7 + 3 * np.arange(0, N, 2),
            "value": rng.gamma(2.0, 0.2, N // 2),
        }
    )
    samples = pd.concat([pd.read_parquet(folder / "samples.parquet"), dense])
    samples = complete(samples, SAMPLE_TYPES)
    samples.sample(frac=1, random_state=0).to_parquet(folder / "samples.parquet")
    seal_folder(folder)
    record(
        tmp_path / "runs",
        status="failed",
        method="n",
        reason="RuntimeError: x (/m/own.py:3) (see log.txt)",
    )
    for name in ("a", "b"):
        pin(tmp_path / "runs", tmp_path / f"{name}.json")
    text = (tmp_path / "a.json").read_text()
    assert text == (tmp_path / "b.json").read_text()
    assert str(tmp_path) not in text
    assert "/tmp" not in text
    assert "own.py" not in text
    assert all(len(line) < 2000 for line in text.splitlines()) and len(text) < 12_000
    whole = json.loads(text, parse_constant=pytest.fail)
    assert list(whole) == sorted(whole) and whole["reason"] == "for the test"
    wanted, read = (
        measure_tolerances(pin_runs(load(tmp_path / "runs"))[0], {})[0],
        read_baseline(tmp_path / "a.json").runs,
    )
    for one, two in zip(wanted, read, strict=True):
        assert (one.label, one.status, one.reason, one.setting) == (
            two.label,
            two.status,
            two.reason,
            two.setting,
        )
        assert one.starts.tolist() == two.starts.tolist()
        for name, values in one.samples.items():
            np.testing.assert_array_equal(values, two.samples[name])
        for name, row in one.rows.items():
            np.testing.assert_equal(vars(replace(row, better=None)), vars(two.rows[name]))
    np.testing.assert_allclose(read[0].samples[key("ad_at", x=1.0)][::2], dense["value"], rtol=5e-4)
    assert (read[1].status, read[1].reason, read[1].rows) == ("failed", "RuntimeError: x", {})


def test_an_update_needs_force_shows_the_difference_and_keeps_the_reasons(tmp_path, capsys):
    path = tmp_path / "b.json"
    record(tmp_path / "old")
    record(tmp_path / "new", outcome(30))
    pin(tmp_path / "old", path)
    before = path.read_text()
    capsys.readouterr()
    assert pin(tmp_path / "new", path) == 1 and path.read_text() == before
    said = capsys.readouterr()
    assert "--force" in said.err and "moved" in said.out
    assert (
        main(
            ["baseline", str(tmp_path / "new"), "--out", str(path), "--reason", "second", "--force"]
        )
        == 0
    )
    assert "moved" in capsys.readouterr().out
    baseline = read_baseline(path)
    assert (baseline.reason, baseline.history) == ("second", ["for the test"])
    assert check(tmp_path / "new", path) == 0 and check(tmp_path / "old", path) == 1


def test_a_reason_is_mandatory(tmp_path, capsys):
    record(tmp_path / "runs")
    with pytest.raises(SystemExit):
        main(["baseline", str(tmp_path / "runs"), "--out", str(tmp_path / "b.json")])
    assert (
        main(
            ["baseline", str(tmp_path / "runs"), "--out", str(tmp_path / "b.json"), "--reason", " "]
        )
        == 1
    )
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder"),
        (lambda path: path.write_text(path.read_text()[:400]), "not a complete JSON file"),
        (lambda path: path.write_bytes(b"\x80\x00"), "not a complete JSON file"),
        (lambda path: path.write_text('{"a": 1}'), "JSON but not a baseline"),
        (lambda path: path.write_text("[1]"), "JSON but not a baseline"),
        (
            lambda path: path.write_text(path.read_text().replace('"format": 2', '"format": 9')),
            "has format 9",
        ),
        (
            lambda path: path.write_text(
                path.read_text().replace('"accuracy"}, "1', '"accuracy"}, "')
            ),
            "its checksum differs",
        ),
    ],
)
def test_a_file_that_is_no_baseline_is_explained(tmp_path, spoil, text, capsys):
    record(tmp_path / "runs")
    pin(tmp_path / "runs", tmp_path / "b.json")
    spoil(tmp_path / "b.json")
    with pytest.raises(BadFile, match=text):
        read_baseline(tmp_path / "b.json")
    assert check(tmp_path / "runs", tmp_path / "b.json") == 1
    assert "error: " in capsys.readouterr().err


def test_a_job_that_runs_now_is_of_the_same_experiment(tmp_path, capsys):
    record(tmp_path / "old", status="skipped", reason="no control")
    record(tmp_path / "new")
    pin(tmp_path / "old", tmp_path / "b.json")
    capsys.readouterr()
    assert check(tmp_path / "new", tmp_path / "b.json") == 0
    assert "skipped -> done; pin again" in capsys.readouterr().out


def test_a_baseline_of_another_experiment_and_unreadable_runs_are_named(tmp_path, capsys):
    record(tmp_path / "old")
    record(tmp_path / "new", method="other", attribute="age")
    pin(tmp_path / "old", tmp_path / "b.json")
    assert check(tmp_path / "new", tmp_path / "b.json") == 1
    assert "is for another experiment: it pins m on smile, seed 0, but" in capsys.readouterr().err
    folder = record(tmp_path / "old", method="cut")
    (folder / "rows.parquet").write_bytes(b"PAR1")
    assert pin(tmp_path / "old", tmp_path / "c.json") == 1
    assert "cut-smile-s0-abcdef0123" in capsys.readouterr().err
    assert check(tmp_path / "old", tmp_path / "b.json") == 0  # the rest is still checked
    assert "unreadable: cut-smile-s0-abcdef0123" in capsys.readouterr().out


# -- machines ----------------------------------------------------------------------------------------------------------
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


# -- the summary of a page of GitHub Actions ---------------------------------------------------------------------------
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


# -- real jobs ---------------------------------------------------------------------------------------------------------
class Bent(ToyScorer):
    """The toy world with b's logit cubic: which channels it needs depends on where the walk is."""

    def forward(self, decoded):
        logits = super().forward(decoded)
        cubic = (decoded.flatten(1) ** 3 * V[:, 1]).sum(1) / 8
        return torch.cat([logits[:, :1], cubic[:, None] * self.scale, logits[:, 2:]], 1)


class Masked(Editor):
    """Up a's logit on the half of the channels that b's logit needs least at this point."""

    delta = 0.3

    def fit(self, data):
        return FitReport()

    def slopes(self, codes):
        return (codes**2 * V[:, 1]).abs()

    def direction(self, walk, at):
        kept = self.slopes(at).argsort(1).argsort(1) < V.shape[0] // 2
        return unit_rows(V[:, 0] * kept) * (2.0 * walk.target - 1)[:, None]

    def step(self, walk):
        return walk.codes + self.delta * self.direction(walk, walk.codes)


BUGS = {
    "wrong sign": lambda self, walk: walk.codes - self.delta * self.direction(walk, walk.codes),
    "mask computed once": lambda self, walk: (
        walk.codes + self.delta * self.direction(walk, walk.origin)
    ),
    "a step too long": lambda self, walk: (
        walk.codes + 4 * self.delta * self.direction(walk, walk.codes)
    ),
}


def bent_job(tmp_path, out, *overrides):
    cfg = toy_config(tmp_path, "starts.n=600", "bank.n=4000", "engine.max_steps=40", *overrides)
    cfg.out = str(tmp_path / out)
    cfg.scorer.judge._target_ = cfg.scorer.teacher._target_ = "tests.test_regression.Bent"
    cfg.method = {"name": "masked", "_target_": "tests.test_regression.Masked"}
    found = run_job(cfg)
    assert found.status == "done", found.reason
    return tmp_path / out


@pytest.fixture(scope="module")
def bent(tmp_path_factory):
    """(folder of its bank, baseline of the sound editor)."""
    folder = tmp_path_factory.mktemp("bent")
    assert pin(bent_job(folder, "runs"), folder / "b.json") == 0
    return folder, folder / "b.json"


def test_the_same_job_run_again_agrees_in_every_digit(bent, tmp_path, capsys):
    assert check(bent_job(bent[0], "again"), bent[1]) == 0
    assert (
        " agree (" in (text := capsys.readouterr().out)
        and "within" not in text
        and "moved" not in text
    )


def test_another_batch_size_agrees(bent, capsys):
    assert check(bent_job(bent[0], "batch", "engine.batch=7"), bent[1], "--strict") == 0
    assert pin(bent[0] / "runs", bent[0] / "measured.json", "--spread", bent[0] / "batch") == 0
    assert "varied: batch 16 -> 7" in capsys.readouterr().out
    assert check(bent[0] / "batch", bent[0] / "measured.json") == 0


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(bent, bug, monkeypatch, capsys):
    monkeypatch.setattr(Masked, "step", BUGS[bug])
    root = bent_job(bent[0], bug.replace(" ", "_"))
    capsys.readouterr()
    assert check(root, bent[1]) == 1
    moved = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith(("moved", "lost"))
    ]
    assert any("[" in line and "worse" in line for line in moved), (
        moved
    )  # at least one with a paired interval


def test_rows_without_a_version_are_of_no_other_version(tmp_path):
    """NaN differs from itself; records of other harnesses have no version at all."""
    for folder, seed in (("pins", 0), ("spread", 1)):
        record(tmp_path / folder, edit=lambda rows: rows.assign(version=np.nan), seed=seed)
    runs, _ = pin_runs(load(tmp_path / "pins"))
    measured, _ = measure_tolerances(runs, {"spread": pin_runs(load(tmp_path / "spread"))[0]})
    assert {pin.origin for pin in measured[0].rows.values()} <= {"floor", "spread"}
