"""The file of a baseline: every pin is kept, an update gives its reason, and a damaged file is explained."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from editbench.base.errors import BadFile
from editbench.base.files import seal_folder
from editbench.cli import main
from editbench.regression import measure_tolerances, pin_runs, read_baseline
from editbench.report.load import SAMPLE_TYPES, load
from tests.fake_records import complete
from tests.pinned_records import N, check, key, outcome, pin, record


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
