"""A report says so if the numbers of one table were computed with different options or sources."""

import sys
from pathlib import Path

import pandas as pd
import pytest

import editbench as eb
from editbench.cli import main
from editbench.report.load import load
from editbench.report.mixed import mixed_parts
from editbench.run.record import Record

TOYS = Path(__file__).parent / "conf"

SOURCE = """
import numpy as np
from editbench.walk.metric import Metric, ResultBuilder
from editbench.walk.observation import DuringWalk

class Level(DuringWalk):
    def __init__(self, scale=1.0):
        self.scale = scale

    def measure(self, walk, codes, decoded, reference):
        return {"level": self.scale * decoded.flatten(1).mean(1)}

class MeanLevel(Metric):
    name = "mean_level"
    produces = {"mean_level": None}
    reads = ("level",)

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor
        self.add_columns("start", "level")

    def update(self, trajectories):
        rows = trajectories.table[trajectories.table["step"] == 0]
        self.append(start=rows["start"].to_numpy(), level=rows["level"].to_numpy(float))

    def compute(self):
        level = self.sorted_columns("level")["level"]
        out = ResultBuilder()
        out.add("mean_level", FACTOR * self.factor * level.mean(), len(level))
        return out.result()
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Runs methods of the toy world with a metric and an observation of a user's own."""
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path, 1)
    conf = tmp_path / "conf"
    for group, target, key in (
        ("metric", "MeanLevel", "factor"),
        ("observation", "Level", "scale"),
    ):
        name = target.lower()
        (conf / group).mkdir(parents=True)
        (conf / group / f"{name}.yaml").write_text(
            f"# @package {group}.{name}\n_target_: levels_{tmp_path.name}.{target}\n{key}: 1.0\n"
        )

    def run(method, words=""):
        code = main(
            f"run --config-dir {conf} --config-dir {TOYS} generator=toy "
            f"scorer=toy budget=toy method={method} attribute=a metric=[meanlevel] "
            f"observation=[level] {words}".split()
        )
        assert code == 0, capfd.readouterr().err

    return run


def write_source(folder, factor):
    # Each test has a module of its own, since the folders of all tests are searched.
    name = f"levels_{folder.name}"
    # As in a new process: Python keeps what it has imported.
    sys.modules.pop(name, None)
    (folder / f"{name}.py").write_text(SOURCE + f"\nFACTOR = {factor}\n")


def problems():
    return [(problem.name, problem.reason) for problem in load("runs").problems]


def test_another_option_of_a_metric_is_told_until_all_runs_have_it(run):
    run("along")
    run("random")
    assert problems() == []
    run("random", "metric.meanlevel.factor=10")
    ((name, reason),) = problems()
    assert name == "metric.meanlevel"
    assert "options or source differ" in reason and "out=FOLDER" in reason
    assert all(one.folder.name in reason for one in eb.load())
    run("along", "metric.meanlevel.factor=10")
    assert problems() == []


def test_another_option_of_an_observation_is_told(run):
    run("along")
    run("random", "observation.level.scale=3")
    assert [name for name, _ in problems()] == ["observation.level"]


def test_another_source_of_ones_own_metric_is_told(run, tmp_path):
    run("along")
    write_source(tmp_path, 20)  # of another length: Python compares time and size
    run("random")
    # The file has the observation too.
    assert [name for name, _ in problems()] == ["metric.meanlevel, observation.level"]


def test_numbers_that_no_two_runs_share_are_not_compared(run, tmp_path):
    run("along")
    run("random", "metric=[crossing_accuracy]")
    assert problems() == []


@pytest.mark.parametrize("n, told", [((2000, 2000), True), ((2000, 500), False)])
def test_numbers_of_another_n_are_other_numbers(n, told):
    runs = pd.DataFrame({"run_id": ["one", "two"], "setting": "", "attribute": "a"})
    key = {"group": "distance", "metric": "fd", "variant": "", "network": "", "resize": ""}
    key |= {"reference": "", "effect": float("nan")}
    numbers = pd.DataFrame([key | {"run_id": run, "n": of} for run, of in zip(runs["run_id"], n)])
    hashes = {"one": {"metric.distance": "1"}, "two": {"metric.distance": "2"}}
    found = mixed_parts(runs, hashes, numbers)
    assert [problem.name for problem in found] == (["metric.distance"] if told else [])


def test_records_without_these_hashes_are_not_compared(run, tmp_path):
    run("along")
    run("random", "metric.meanlevel.factor=10")
    for one in eb.load():
        record = Record.read(one.folder)
        with record.updating() as place:
            (place / Record.METRICS).write_text('{"key": ""}')
    assert problems() == []
