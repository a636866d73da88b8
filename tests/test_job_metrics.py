"""Metrics of a record: added, changed and failed ones are computed on the walks that are there."""

import errno
import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

import editbench as eb
from editbench.base.errors import BadFile, EditbenchError, UnknownName
from editbench.base.files import CannotWrite, file_state, updated_folder, write_json
from editbench.metrics.crossing_accuracy import CrossingAccuracy
from editbench.report import load
from editbench.report.drawings import metric_figures
from editbench.run import stages
from editbench.run.outcome import describe_outcome
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.walk.metric import Metric, ResultBuilder
from tests.by_config import folder_of, record_of, refusal, run_job
from tests.toy_world import AlongColumn, toy_config


class NeedsFile(AlongColumn):
    """A method that reads a file, which no option names."""

    file = Path()

    def __init__(self, delta: float = 0.5) -> None:
        super().__init__(delta)
        if not self.file.is_file():
            raise BadFile(f"{self.file}: no such file")


def test_a_record_gets_a_new_metric_without_the_files_of_its_method(tmp_path, monkeypatch):
    monkeypatch.setattr(NeedsFile, "file", tmp_path / "weights")
    NeedsFile.file.touch()
    method = {"_target_": f"{__name__}.NeedsFile", "name": "needs_file"}
    config = toy_config(tmp_path, "metric=[crossing_accuracy]")
    config.method = method
    first = run_job(config)
    assert first.status == "done", first.reason
    NeedsFile.file.unlink()
    config = toy_config(tmp_path, "metric=[crossing_accuracy,dependency_matrix]")
    config.method = method
    again = run_job(config)
    assert again.reused and again.run_id == first.run_id
    assert "dependency_matrix" in metric_figures(load(tmp_path))


def test_a_metric_that_is_added_to_a_finished_run_brings_its_figure(tmp_path):
    first = run_job(toy_config(tmp_path))
    assert "dependency_matrix" not in metric_figures(load(tmp_path))
    more = toy_config(tmp_path, "metric=[crossing_accuracy,dependency_matrix]")
    again = run_job(more)
    assert again.reused and again.run_id == first.run_id
    figures = metric_figures(load(tmp_path))
    assert figures["dependency_matrix"] == more.metric.dependency_matrix.figure
    # Of the configuration nothing else has changed.
    assert Record.open(folder_of(more, again)).config() == OmegaConf.to_container(
        more, resolve=True
    )


def test_a_finished_record_is_kept_where_its_new_metrics_cannot_be_written(tmp_path, monkeypatch):
    first = run_job(toy_config(tmp_path))
    folder = folder_of(toy_config(tmp_path), first)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    more = toy_config(tmp_path, "metric=[crossing_accuracy,dependency_matrix]")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(CannotWrite, match="What was finished is kept"):
            run_job(more)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not list(tmp_path.glob(".partial-*"))
    # Its walks are still there.
    assert run_job(more).reused


class Fragile(CrossingAccuracy):
    """A metric that raises what the test asks for."""

    raises: BaseException | None = None

    def compute(self):
        if self.raises is not None:
            raise self.raises
        return super().compute()


class Half(Metric):
    """A metric that is not finished."""

    name = "half"
    citation = "a test"
    produces = {"half": None}

    def update(self, trajectories):
        pass


def test_a_metric_without_compute_is_refused_before_any_work(tmp_path):
    cfg = toy_config(tmp_path)
    cfg.metric = {"half": {"_target_": f"{__name__}.Half"}}
    with pytest.raises(EditbenchError, match=r"metric\.half.*abstract method.*compute"):
        run_job(cfg)
    assert not Path(cfg.cache).exists()


def with_fragile(tmp_path):
    cfg = toy_config(tmp_path)
    cfg.metric = {"fragile": {"_target_": f"{__name__}.Fragile"}}
    return cfg


def test_a_metric_that_gives_something_else_is_told_what_to_give(tmp_path, monkeypatch):
    monkeypatch.setattr(Fragile, "compute", lambda self: {"accuracy": 1.0})
    failed = run_job(with_fragile(tmp_path))
    assert failed.reason.startswith(
        "metric fragile: Fragile.compute must return a MetricResult, as returned by "
        "ResultBuilder().result(), not dict (see "
    )


def without(folder: Path, name: str, columns: list[str]) -> None:
    """Take columns from a table of a record, as if an older version had written it."""
    with updated_folder(folder) as place:
        pq.write_table(pq.read_table(folder / name).drop_columns(columns), place / name)
        # The metrics of that version had another key too.
        write_json(place / "metrics.json", {"key": "of an older version"})


def test_a_record_of_an_older_version_is_measured_again_or_named_with_the_remedy(tmp_path):
    cfg = toy_config(tmp_path)
    folder = folder_of(cfg, run_job(cfg))
    without(folder, "rows.parquet", ["count", "note"])
    (problem,) = load(tmp_path).problems
    assert f"{folder}/rows.parquet lacks the columns count, note, as" in problem.reason
    assert "the `editbench run` that made it computes them again" in problem.reason
    assert f"delete {folder}" in problem.reason
    # What a process left that was killed while it measured again.
    (tmp_path / f".partial-{folder.name}-killed").mkdir()
    # As the message says.
    assert run_job(cfg).reused
    assert not list(tmp_path.glob(".partial-*"))
    assert load(tmp_path).problems == ()
    # Nothing can compute the walks from the rest of the record.
    without(folder, "trajectory.parquet", ["crossed", "stopped"])
    assert refusal(cfg) == (
        f"{folder}/trajectory.parquet lacks the columns crossed, stopped, as records of older "
        "versions do; delete its folder and run the job again"
    )


@pytest.mark.parametrize("raised", [KeyError("effect"), SystemExit(2), KeyboardInterrupt()])
def test_a_metric_that_fails_on_a_finished_run_leaves_it_as_it_was(tmp_path, monkeypatch, raised):
    first = toy_config(tmp_path)
    folder = folder_of(first, run_job(first))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(Fragile, "raises", raised)
    stopped = isinstance(raised, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt if stopped else EditbenchError) as error:
        run_job(with_fragile(tmp_path))
    if not stopped:
        told = {KeyError: "KeyError: 'effect'", SystemExit: "SystemExit: 2"}[type(raised)]
        assert re.match(rf"metric fragile: {told} \(.*test_job_metrics\.py:\d+\)", str(error.value))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert run_job(first).reused


def test_a_metric_of_ones_own_is_computed_again_where_its_source_changed(tmp_path, monkeypatch):
    cfg = with_fragile(tmp_path)
    folder = folder_of(cfg, run_job(cfg))
    rows = file_state(folder / "rows.parquet")
    assert run_job(cfg).reused and file_state(folder / "rows.parquet") == rows
    monkeypatch.setattr("editbench.run.measure.code_of", lambda config: "another")
    assert run_job(cfg).reused and file_state(folder / "rows.parquet") != rows
    shipped = toy_config(tmp_path)
    run_job(shipped)
    rows = file_state(folder / "rows.parquet")
    monkeypatch.undo()
    assert run_job(shipped).reused and file_state(folder / "rows.parquet") == rows


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (KeyError("effect"), "metric fragile: KeyError: 'effect'"),
        (KeyboardInterrupt(), "stopped while its metrics were computed"),
    ],
)
def test_walks_are_kept_where_a_metric_alone_failed(tmp_path, monkeypatch, raised, reason):
    monkeypatch.setattr(Fragile, "raises", raised)
    stopped = isinstance(raised, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt) if stopped else nullcontext():
        run_job(with_fragile(tmp_path))
    (folder,) = (path.parent for path in tmp_path.glob("along*/status.json"))
    walks = file_state(folder / "trajectory.parquet")
    assert stopped or "Traceback" in (folder / "log.txt").read_text()
    status = Record.read(folder).status
    assert status["status"] == "failed" and reason in status["reason"]
    kept = eb.Run(folder)
    assert len(kept.trajectory()) == len(Record.read(folder).trajectories().table)
    with pytest.raises(EditbenchError, match=f"has no numbers: {reason}"):
        kept.rows()
    monkeypatch.undo()
    again = run_job(with_fragile(tmp_path))
    assert (again.status, again.reused, again.reason) == ("done", True, "")
    assert file_state(folder / "trajectory.parquet") == walks
    assert not (folder / "log.txt").exists() and not again.removed
    # The same numbers as where nothing failed.
    other = toy_config(tmp_path / "other", "metric=[crossing_accuracy]")
    expected = record_of(other).rows().drop(columns="group")
    found = Record.open(folder).rows().drop(columns="group")
    pd.testing.assert_frame_equal(found, expected)


def test_the_line_of_a_run_names_the_metrics_whose_rows_it_removed(tmp_path):
    cfg = toy_config(tmp_path)
    folder = folder_of(cfg, run_job(cfg))
    before = set(Record.read(folder).rows()["group"])
    fewer = toy_config(tmp_path, "metric=[crossing_accuracy]")
    outcome = run_job(fewer)
    left = set(Record.read(folder).rows()["group"])
    assert left == {"crossing_accuracy"} and set(outcome.removed) == before - left != set()
    told = describe_outcome(Settings.from_config(fewer), outcome)
    assert f"removed rows of {', '.join(outcome.removed)}, " in told
    # Found as it is, nothing more is taken.
    assert not run_job(fewer).removed and not run_job(cfg).removed


def test_a_changed_metric_is_recomputed_without_walking(tmp_path, monkeypatch):
    cfg = toy_config(tmp_path)
    first = run_job(cfg)
    monkeypatch.setattr(stages, "walk_starts", None)
    cfg.metric.attribute_dependency.at = 0.5
    again = run_job(cfg)
    assert again.reused and again.run_id == first.run_id
    rows = pd.read_parquet(folder_of(cfg, again) / "rows.parquet")
    assert (rows.loc[rows["metric"] == "ad_at", "x"] == 0.5).all()


def test_a_field_that_a_number_does_not_have_is_named():
    out = ResultBuilder()
    told = "unknown field of a number 'varient'. Did you mean 'variant'"
    with pytest.raises(UnknownName, match=told):
        out.add("bright", 1.0, 3, varient="a")
    with pytest.raises(UnknownName, match=told):
        out.add_samples("bright", np.arange(3), np.ones(3), varient="a")
