"""The README's example method works as it stands there."""

import json
import re
import sys
from pathlib import Path

import pandas as pd

from editbench.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(language, containing):
    return next(
        text for text in re.findall(rf"```{language}\n(.*?)```", README, re.S) if containing in text
    )


def test_the_example_method_runs_and_beats_the_floor(tmp_path, monkeypatch, capfd):
    (tmp_path / "mean_difference.py").write_text(block("python", "class MeanDifference"))
    conf = tmp_path / "my_conf"
    for group in ("generator", "scorer", "budget"):
        (conf / group).mkdir(parents=True)
        (conf / group / "toy.yaml").write_text(
            (ROOT / "tests" / "conf" / group / "toy.yaml").read_text()
        )
    (conf / "method").mkdir()
    (conf / "method" / "mean_difference.yaml").write_text(
        block("yaml", "mean_difference.MeanDifference")
    )
    words = [
        "run",
        "--config-dir",
        str(conf),
        "generator=toy",
        "scorer=toy",
        "budget=toy",
        f"out={tmp_path}/runs",
        f"cache={tmp_path}/cache",
        "-m",
        "method=mean_difference,random",
        "attribute=a,c",
    ]
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(words) == 0
    assert "4 jobs: 4 done" in capfd.readouterr().err
    del sys.modules["mean_difference"]
    success = {}
    for folder in (tmp_path / "runs").glob("*-*"):
        rows = pd.read_parquet(folder / "rows.parquet").set_index("metric")
        success[folder.name.rsplit("-s0", 1)[0]] = rows.loc["success_rate", "value"]
    assert (
        success["mean_difference-a"] > success["random-a"]
        and success["mean_difference-c"] > success["random-c"]
    )


def test_the_example_method_conforms(tmp_path, capsys):
    (tmp_path / "mean_difference.py").write_text(block("python", "class MeanDifference"))
    assert "editbench conform mean_difference.py" in README
    assert main(["conform", str(tmp_path / "mean_difference.py"), "--json"]) == 0
    results = {result["name"]: result for result in json.loads(capsys.readouterr().out)}
    assert {result["status"] for result in results.values()} == {"passed"}, results


def test_every_picture_and_page_that_it_shows_exists():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_every_command_that_it_shows_exists():
    assert set(re.findall(r"^editbench (\w+)", README, re.M)) <= set(COMMANDS)
