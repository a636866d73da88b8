"""The example of docs/metrics.md: a metric from outside, from its run to the report."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

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


def editbench(folder: Path, *words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, "-m", "editbench", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=300,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """The folder of the example, and what its run printed."""
    folder = tmp_path_factory.mktemp("own")
    written_example(folder)
    shutil.copytree(ROOT / "tests" / "conf", folder / "my_conf", dirs_exist_ok=True)
    words = ["generator=toy", "scorer=toy", "budget=toy", "method=along", "attribute=a"]
    places = [f"out={folder}/runs", f"cache={folder}/cache"]
    metrics = "metric=[crossing_accuracy,my_steps]"
    done = editbench(folder, "run", "--config-dir", "my_conf", *words, metrics, *places)
    return folder, done


def test_the_runs_line_has_the_number(ran):
    folder, done = ran
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stderr and re.search(r"steps_to_crossing \d+\.\d+ \[", done.stderr)
    (record,) = folder.glob("runs/along-*")
    walks = pd.read_parquet(record / "trajectory.parquet")
    rows = pd.read_parquet(record / "rows.parquet").set_index("metric")
    expected = walks.loc[walks["stopped"], "step"].mean()
    assert rows.loc["steps_to_crossing", "value"] == pytest.approx(expected)
    assert rows.loc["steps_to_crossing", "group"] == "my_steps"


def test_the_report_has_the_column_and_the_figure(ran):
    folder, _ = ran
    done = editbench(folder, "report", "runs", "--figures")
    assert done.returncode == 0, done.stderr
    assert "steps to crossing" in done.stdout + done.stderr
    out = folder / "runs" / "report"
    assert pd.read_csv(out / "table.csv")["steps_to_crossing"].notna().all()
    page = (out / "index.html").read_text()
    assert "Steps to the crossing" in page and "figure my_steps" not in page
    assert (out / "figures" / "my_steps.png").exists()


def test_without_the_module_the_report_names_the_figure_and_goes_on(ran):
    folder, _ = ran
    done = editbench(folder.parent, "report", str(folder / "runs"), "--out", str(folder / "bare"))
    assert done.returncode == 0, done.stderr
    page = (folder / "bare" / "index.html").read_text()
    assert "figure of my_steps" in page and "steps to crossing" in page


def test_the_metric_of_the_example_can_be_batched_and_merged(ran):
    folder, _ = ran
    code = (
        "from pathlib import Path\n"
        "from my_steps import StepsToCrossing\n"
        "from editbench.walk.trajectory import Trajectories\n"
        "found = Trajectories.load(next(Path('runs').glob('along-*/trajectory.parquet')))\n"
        "from tests.toy import check_splits\n"
        "check_splits(StepsToCrossing(), found, [3, 9], 0)\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
