"""Records with chosen numbers, their pins and the check against them."""

import json

import numpy as np
import pandas as pd

from editbench.base.files import seal_folder
from editbench.cli import main
from editbench.regression import compare, measure_tolerances, pin_runs
from editbench.report.load import load
from editbench.walk.rows import key_of
from tests.fake_records import fake_run, metric_rows

N = 200


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
