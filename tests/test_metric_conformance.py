"""The suite of metrics: every check finds what it is for, and the project's own metrics pass."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from editbench.base.conf import group_options
from editbench.base.errors import UnknownName
from editbench.cli import main
from editbench.conformance import METRIC_CHECKS, conform_metric
from editbench.conformance.load import load_factory
from editbench.conformance.toy import MIXED
from editbench.conformance.verdicts import describe_error
from editbench.conformance.walks import diverged, make_walks, of_starts
from editbench.walk.metric import ObservationMetric

BROKEN_METRICS = Path(__file__).parent / "broken_metrics"
# File -> the check that it fails, and a part of the remedy.
BROKEN = {
    "unnamed": ("constructs", "set `produces ="),
    "no_default": ("constructs", "give every argument of __init__ a default"),
    "swapped_interval": ("rows", "(low, high)"),
    "own_table": ("rows", "ResultBuilder.result()"),
    "twice_a_start": ("samples", "one value per start"),
    "binary_only": ("classes", "Trajectories.effect"),
    "needs_others": ("one_attribute", "may have no column"),
    "needs_starts": ("no_starts", "NaN with count 0 and a note"),
    "spoiled": ("diverging", "whose `finite` is false"),
    "by_position": ("order", "sorted_columns"),
    "mean_of_batches": ("batches", "one row per start"),
    "no_state": ("merge", "no state is not merged"),
    "cached": ("reset", "no result in an attribute"),
    "global_random": ("determinism", "editbench.base.seeding"),
    "spoils_the_walks": ("pure", "trajectories.table.copy()"),
    "hides_the_reason": ("reason", "compute in `measure`"),
    "draws_nothing": ("figure", "return []"),
}


def checked(target, *settings):
    """Check -> its result."""
    made = load_factory(str(target), settings)
    assert made.kind == "metric"
    return {result.name: result for result in conform_metric(made, (), made.figure)}


def of_status(results, status):
    return [name for name, result in results.items() if result.status == status]


def test_the_sound_metric_passes_everything():
    results = checked(BROKEN_METRICS / "mean_steps.py")
    assert list(results) == list(METRIC_CHECKS) == of_status(results, "passed")


def test_an_error_from_a_library_names_the_users_line(tmp_path):
    """The metric's class may call functions of other files of the user's."""
    file = tmp_path / "helper.py"
    file.write_text("import pandas\n\ndef column():\n    return pandas.DataFrame()['effect']\n")
    names = runpy.run_path(str(file))
    with pytest.raises(KeyError) as caught:
        names["column"]()
    assert describe_error(caught.value) == f"KeyError: 'effect' ({file}:4)"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_metric_fails_for_its_own_reason_alone(name):
    results = checked(BROKEN_METRICS / f"{name}.py")
    check, remedy = BROKEN[name]
    failed = {key: results[key].message for key in of_status(results, "failed")}
    assert list(failed) == [check], failed
    assert remedy in failed[check].split("Fix: ")[1]
    assert f"See editbench.walk.metric.{METRIC_CHECKS[check].member}" in failed[check]


def test_every_check_is_failed_by_one():
    assert {file.stem for file in BROKEN_METRICS.glob("*.py")} == {*BROKEN, "mean_steps"}
    assert {check for check, _ in BROKEN.values()} == set(METRIC_CHECKS)


@pytest.mark.parametrize("name", group_options("metric"))
def test_the_projects_metrics_conform(name):
    results = checked(name)
    failed = of_status(results, "failed")
    assert not failed, results[failed[0]].message
    # A metric of what a job's observations left never sees walks: three checks are for it.
    of_observations = isinstance(load_factory(name, [])(), ObservationMetric)
    expected = 3 if of_observations else len(METRIC_CHECKS)
    assert len(of_status(results, "passed")) == expected


# -- the walks -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("attributes", "attribute"), [(None, "a"), (MIXED, "kind"), (MIXED, "angle")]
)
def test_the_walks_are_those_of_a_job(attributes, attribute):
    walks = make_walks(*([attributes, attribute] if attributes else []))
    table, labels = walks.table, walks.labels[:, walks.attributes.index(attribute)]
    first = table["step"].to_numpy() == 0
    assert (labels[first] == table["source"][first]).all() and first.sum() == 24
    assert ((labels == table["target"]) | ~table["stopped"]).all()
    stops = table.groupby("start")["stopped"].sum()
    assert set(stops) == {0, 1} and (table.groupby("start")["crossed"].any() == (stops == 1)).all()
    assert table["start"].is_monotonic_increasing and np.isfinite(walks.effect).all()
    assert len(of_starts(walks, np.array([], int)).table) == 0
    lost = diverged(walks, 6)
    assert np.isnan(lost.logits).any() and not lost.table["finite"].all()


# -- the command -----------------------------------------------------------------------------------
def test_the_command_takes_metrics(capsys):
    for name, code in (("mean_steps", 0), ("cached", 1)):
        words = ["conform", f"{BROKEN_METRICS}/{name}.py", "--only", "reset,pure", "--json"]
        assert main(words) == code
        found = {one["name"]: one["status"] for one in json.loads(capsys.readouterr().out)}
        assert found == {"reset": "failed" if code else "passed", "pure": "passed"}
    assert main(["conform", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in listed if one["of"] == "metric"} == set(METRIC_CHECKS)
    with pytest.raises(UnknownName, match="Did you mean 'merge'"):
        conform_metric(lambda: None, ["merg"])


def test_one_crash_in_several_checks_is_told_once(tmp_path, capsys):
    file = tmp_path / "crashing.py"
    file.write_text(
        "from editbench.metrics.crossing_accuracy import CrossingAccuracy\n\n\n"
        "class Crashing(CrossingAccuracy):\n"
        "    def update(self, trajectories):\n"
        "        raise KeyError('effect')\n"
    )
    assert main(["conform", str(file), "--only", "samples,merge,reset"]) == 1
    told = capsys.readouterr().out
    assert told.count("KeyError: 'effect'") == 1 and "\nsamples, merge, reset failed\n" in told
    assert "3 checks: 3 failed" in told


def test_a_metric_declares_the_columns_that_an_observation_adds(tmp_path, capsys):
    """The invented walks have a column for each, also where a walk became NaN."""
    file = tmp_path / "sharpness.py"
    code = (BROKEN_METRICS / "mean_steps.py").read_text()
    code = code.replace('stops["step"].to_numpy(float)', 'stops["sharpness"].to_numpy(float)')
    file.write_text(code)
    assert main(["conform", str(file), "--only", "rows"]) == 1
    told = capsys.readouterr().out
    assert "KeyError: 'sharpness'" in told and "declared by `reads = (NAME,)`" in told
    declared = tmp_path / "declared.py"
    declared.write_text(code.replace("produces = {", "reads = ('sharpness',)\n    produces = {"))
    results = checked(declared)
    assert list(results) == of_status(results, "passed")


def test_columns_of_an_observation_change_no_other_column():
    plain = make_walks(seed=3).table
    more = make_walks(seed=3, reads=("sharpness", "hue")).table
    assert list(more.columns) == [*plain.columns, "sharpness", "hue"]
    assert more[list(plain.columns)].equals(plain)
    lost = diverged(make_walks(reads=("hue",)), 6).table
    assert lost["hue"].isna().equals(~lost["finite"])
