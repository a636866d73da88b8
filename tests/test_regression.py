"""The check of a baseline: verdicts that follow from how the runs were constructed, and planted bugs."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional as F

from editbench.base.files import seal_folder
from editbench.regression import compare, measure_tolerances, pin_runs
from editbench.regression.compare import paired_interval
from editbench.report.load import load
from editbench.walk.editor import Editor, FitReport
from tests.by_config import run_job
from tests.paired_by_hand import paired_difference
from tests.pinned_records import (
    N,
    change_hash,
    check,
    findings,
    key,
    outcome,
    pin,
    record,
    setting,
    verdicts,
)
from tests.toy_world import ToyScorer, V, toy_config


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
    for root, changed in changes.items():
        folder = record(tmp_path / root)
        config = OmegaConf.load(folder / "config.yaml")
        for name, value in changed.items():
            OmegaConf.update(config, name, value)
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


# -- real jobs -------------------------------------------------------------------------------------
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
        return F.normalize(V[:, 0] * kept, dim=-1) * (2.0 * walk.target - 1)[:, None]

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
