"""The example of docs/metrics.md: a metric from outside, from its run to the report."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from editbench.cli import main
from editbench.walk.trajectory import Trajectories
from tests.toy import check_splits

ROOT = Path(__file__).parents[1]


def written_example(folder: Path) -> None:
    """Write the files of the example: each block of the page that begins with a file's name."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    for name, body in re.findall(
        r"```(?:python|yaml)\n# (\S+\.(?:py|yaml))\n(.*?)```", text, re.DOTALL
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body)


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Iterator[tuple[Path, tuple[int, str]]]:
    """The folder of the example, and the exit code and the lines of its run."""
    folder = tmp_path_factory.mktemp("own")
    written_example(folder)
    shutil.copytree(ROOT / "tests" / "conf", folder / "my_conf", dirs_exist_ok=True)
    words = ["generator=toy", "scorer=toy", "budget=toy", "method=along", "attribute=a"]
    places = [f"out={folder}/runs", f"cache={folder}/cache"]
    metrics = "metric=[crossing_accuracy,my_steps]"
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(StringIO()) as lines:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        code = main(["run", "--config-dir", "my_conf", *words, metrics, *places])
        yield folder, (code, lines.getvalue())
    sys.modules.pop("my_steps", None)


def test_the_runs_line_has_the_number(ran):
    folder, (code, lines) = ran
    assert code == 0, lines
    assert "accuracy" in lines and re.search(r"steps_to_crossing \d+\.\d+ \[", lines)
    (record,) = folder.glob("runs/along-*")
    walks = pd.read_parquet(record / "trajectory.parquet")
    rows = pd.read_parquet(record / "rows.parquet").set_index("metric")
    expected = walks.loc[walks["stopped"], "step"].mean()
    assert rows.loc["steps_to_crossing", "value"] == pytest.approx(expected)
    assert rows.loc["steps_to_crossing", "group"] == "my_steps"


def test_the_report_has_the_column_and_the_figure(ran, capfd):
    folder, _ = ran
    assert main(["report", "runs"]) == 0
    assert "steps to crossing" in "".join(capfd.readouterr())
    out = folder / "runs" / "report"
    assert pd.read_csv(out / "table.csv")["steps_to_crossing"].notna().all()
    page = (out / "index.html").read_text()
    assert "Steps to the crossing" in page and "figure my_steps" not in page
    assert (out / "figures" / "my_steps.png").exists()


def test_without_the_module_the_report_names_the_figure_and_goes_on(ran, monkeypatch):
    folder, _ = ran
    monkeypatch.chdir(folder.parent)
    monkeypatch.delitem(sys.modules, "my_steps")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])
    assert main(["report", str(folder / "runs"), "--out", str(folder / "bare")]) == 0
    page = (folder / "bare" / "index.html").read_text()
    assert "figure of my_steps" in page and "steps to crossing" in page


def test_the_metric_of_the_example_can_be_batched_and_merged(ran):
    folder, _ = ran
    metric = importlib.import_module("my_steps").StepsToCrossing()
    (record,) = folder.glob("runs/along-*")
    found = Trajectories.load(record / "trajectory.parquet")
    check_splits(metric, found, [3, 9], 0)
