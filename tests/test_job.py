"""Jobs: records that are whole or absent, found instead of repeated; a failure stays a failure of its own job."""

import copy
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file
from torch import Tensor

import editbench as eb
from editbench.bank.importing import import_bank
from editbench.base import identity
from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import BadFile, EditbenchError, NoControl, Unsupported
from editbench.base.files import file_state, unsealed_folder, write_json
from editbench.base.identity import content
from editbench.base.spaces import Codes, Space
from editbench.metrics.crossing_accuracy import CrossingAccuracy
from editbench.report import load
from editbench.report.caveats import foreign_logits
from editbench.report.drawings import metric_figures
from editbench.report.html import method_notes
from editbench.report.style import Style
from editbench.report.text_tables import by_name
from editbench.run import environment, job, loading, stages
from editbench.run.caveats import remarks
from editbench.run.loading import load_bank
from editbench.run.outcome import describe_outcome
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.walk.editor import FitReport, unit_rows
from editbench.walk.metric import Metric
from editbench.walk.trajectory import Trajectories
from tests.by_config import make_run_id, networks_code, run_job
from tests.processes import forbid_locks
from tests.toy_world import (
    ATTRIBUTES,
    DIM,
    AlongColumn,
    ToyGenerator,
    ToyScorer,
    V,
    toy_config,
)


def folder_of(cfg, outcome):
    return Path(cfg.out) / outcome.run_id


def refusal(config: DictConfig) -> str:
    """Why a job cannot begin."""
    with pytest.raises(EditbenchError) as caught:
        run_job(config)
    return str(caught.value)


def test_a_job_leaves_a_whole_record(tmp_path):
    cfg = toy_config(tmp_path)
    outcome = run_job(cfg)
    assert (outcome.status, outcome.reason, outcome.reused) == ("done", "", False)
    folder = folder_of(cfg, outcome)
    files = {
        "status.json",
        "config.yaml",
        "provenance.json",
        "trajectory.parquet",
        "codes.parquet",
        "rows.parquet",
        "samples.parquet",
        "strips.safetensors",
        "metrics.json",
        "checksums.json",
    }
    assert {path.name for path in folder.iterdir()} == files
    rows = pd.read_parquet(folder / "rows.parquet").set_index("metric")
    assert (
        rows.loc["success_rate", "value"] == 1.0
    )  # the exact direction crosses from everywhere within the cap
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["labels_used"] == 600 and provenance["bank_n"] == 1000
    table = Record.open(folder).trajectories().table
    assert provenance["walk_generator_calls"] == (table["step"] > 0).sum() + min(
        2, table["start"].nunique()
    )
    strips = load_file(folder / "strips.safetensors")
    assert strips["images"].shape[:2] == (2, 8) and strips["steps"][:, 0].tolist() == [0, 0]


def test_a_finished_job_is_found_and_its_content_decides(tmp_path):
    first = run_job(toy_config(tmp_path))
    again = run_job(toy_config(tmp_path))
    assert again.reused and again.run_id == first.run_id
    others = [
        toy_config(tmp_path, delta=0.25),
        toy_config(tmp_path, "seed=1"),
        toy_config(tmp_path, "attribute=b"),
        toy_config(tmp_path, "engine.max_steps=19"),
    ]
    others[3].engine.max_steps = 19
    assert len({run_job(cfg).run_id for cfg in others} | {first.run_id}) == 5
    batch = toy_config(tmp_path)
    batch.method.about = "labels for people do not count"
    assert run_job(batch).run_id == first.run_id


class Brighter(ToyGenerator):
    """Its digest leaves the option out."""

    def __init__(self, gain: float = 1.0, weights: str = "") -> None:
        super().__init__()
        self.gain = gain

    def _decode(self, codes: Codes) -> Tensor:
        return self.gain * super()._decode(codes)


@pytest.mark.parametrize("role", ["generator", "teacher", "judge"])
def test_options_of_a_users_network_count_whatever_its_digest_says(tmp_path, role):
    outcomes = []
    for value in (1.0, 2.0):
        cfg = toy_config(tmp_path)
        if role == "generator":
            cfg.generator = {"name": "b", "_target_": "tests.test_job.Brighter", "gain": value}
        else:
            scorer = {"_target_": "tests.toy_world.ToyScorer", "digest": role, "scale": value}
            cfg.scorer[role] = scorer
        outcomes.append(run_job(cfg))
    first, second = outcomes
    assert first.run_id != second.run_id and not second.reused


@pytest.mark.parametrize(
    "key, target", [("generator", "ToyGenerator"), ("scorer.judge", "ToyScorer")]
)
def test_a_network_without_a_digest_is_refused(tmp_path, key, target):
    cfg = toy_config(tmp_path)
    OmegaConf.update(cfg, key, {"_target_": f"tests.toy_world.{target}", "digest": ""})
    assert refusal(cfg).startswith(f"{key}._target_=tests.toy_world.{target} has no digest: set")


def test_the_code_that_finds_a_stride_counts_where_there_is_one(tmp_path, monkeypatch):
    digest = identity.modules_digest
    ids = []
    for code in ("now", "later"):

        def changed(modules, code=code):
            return code if modules == identity.STRIDE_CODE else digest(modules)

        monkeypatch.setattr(identity, "modules_digest", changed)
        for effect in ("null", "0.5"):
            config = toy_config(tmp_path, f"engine.step_effect={effect}")
            ids.append(make_run_id(config, "bank", ["a", "b"]))
    assert ids[0] == ids[2]
    assert ids[1] != ids[3]


def test_all_methods_get_the_same_starts_and_targets(tmp_path):
    tables = []
    for cfg in (
        toy_config(tmp_path),
        toy_config(tmp_path, delta=0.2),
        toy_config(tmp_path, "seed=3"),
    ):
        outcome = run_job(cfg)
        table = Record.open(folder_of(cfg, outcome)).trajectories().table
        tables.append(table[table["step"] == 0].drop(columns="path").reset_index(drop=True))
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])


def test_fits_are_reused_across_attributes_and_say_so(tmp_path):
    one, two = toy_config(tmp_path), toy_config(tmp_path, "attribute=b")
    notes = [
        json.loads((folder_of(cfg, run_job(cfg)) / "provenance.json").read_text())
        for cfg in (one, two)
    ]
    assert [note["fit_cached"] for note in notes] == [False, True]
    assert notes[0]["fit_seconds"] == notes[1]["fit_seconds"] and notes[1]["labels_used"] == 600


def test_a_draw_without_starts_is_told_before_the_bank(tmp_path):
    with pytest.raises(EditbenchError, match=r"no start was drawn for b: raise starts\.n=1"):
        run_job(toy_config(tmp_path, "attribute=b", "starts.n=1"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["vgg", "linear"])
def test_a_missing_file_of_a_method_is_told_before_the_bank(tmp_path, missing):
    files = {name: tmp_path / f"{name}.pth" for name in ("vgg", "linear")}
    for name, file in files.items():
        if name != missing:
            file.touch()
    config = toy_config(tmp_path)
    config.method = {
        "_target_": "editbench.methods.navigan.NaviGAN",
        "name": "navigan",
        "variant": "spectrum",
        "spectrum": {"perceptual": "lpips"} | {name: str(file) for name, file in files.items()},
    }
    with pytest.raises(BadFile, match=rf"{missing}\.pth: no such file"):
        run_job(config)
    assert not (tmp_path / "cache").exists()


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
    method = {"_target_": "tests.test_job.NeedsFile", "name": "needs_file"}
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


def test_a_target_that_leaves_no_start_is_told_before_the_fit(tmp_path, monkeypatch):
    """The only start of the draw has one of the two classes already."""
    monkeypatch.setattr(stages, "fit_editor", None)  # would fail with another message
    outcomes = [run_job(toy_config(tmp_path, f"target={k}", "starts.n=1")) for k in range(2)]
    assert "no start was drawn for a: raise starts.n=1" in [one.reason for one in outcomes]


def test_a_broken_fit_cache_is_fitted_again(tmp_path):
    cfg = toy_config(tmp_path)
    run_job(cfg)
    (cache,) = (tmp_path / "cache" / "fits").glob("*.safetensors")
    cache.write_bytes(cache.read_bytes()[:20])
    other = toy_config(tmp_path, "attribute=b")
    provenance = json.loads((folder_of(other, run_job(other)) / "provenance.json").read_text())
    assert provenance["fit_cached"] is False


def test_a_folder_without_a_whole_record_says_so(tmp_path):
    with pytest.raises(BadFile, match="nowhere does not exist; give the folder of a record"):
        Record.read(tmp_path / "nowhere")
    with pytest.raises(BadFile, match=r"checksums\.json is missing: not a complete record; "):
        Record.read(tmp_path)


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
    cfg.metric = {"half": {"_target_": "tests.test_job.Half"}}
    with pytest.raises(EditbenchError, match=r"metric\.half.*abstract method.*compute"):
        run_job(cfg)
    assert not Path(cfg.cache).exists()


def with_fragile(tmp_path):
    cfg = toy_config(tmp_path)
    cfg.metric = {"fragile": {"_target_": "tests.test_job.Fragile"}}
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
    with unsealed_folder(folder):
        pq.write_table(pq.read_table(folder / name).drop_columns(columns), folder / name)
        # The metrics of that version had another key too.
        write_json(folder / "metrics.json", {"key": "of an older version"})


def test_a_record_of_an_older_version_is_measured_again_or_named_with_the_remedy(tmp_path):
    cfg = toy_config(tmp_path)
    folder = folder_of(cfg, run_job(cfg))
    without(folder, "rows.parquet", ["count", "note"])
    (problem,) = load(tmp_path).problems
    assert f"{folder}/rows.parquet lacks the columns count, note, as" in problem.reason
    assert "the `editbench run` that made it computes them again" in problem.reason
    assert f"delete {folder}" in problem.reason
    # As the message says.
    assert run_job(cfg).reused
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
        assert re.match(rf"metric fragile: {told} \(.*test_job\.py:\d+\)", str(error.value))
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
    expected = Record.read(folder_of(other, run_job(other))).rows().drop(columns="group")
    found = Record.open(folder).rows().drop(columns="group")
    pd.testing.assert_frame_equal(found, expected)


def test_trajectories_of_another_format_are_refused(tmp_path, monkeypatch):
    cfg = toy_config(tmp_path)
    walks = Record.open(folder_of(cfg, run_job(cfg))).trajectories()
    walks.save(tmp_path / "same.parquet")
    pd.testing.assert_frame_equal(Trajectories.load(tmp_path / "same.parquet").table, walks.table)
    monkeypatch.setattr("editbench.walk.trajectory.VERSION", 7)
    walks.save(tmp_path / "other.parquet")
    monkeypatch.undo()
    with pytest.raises(BadFile, match="has format 7, but this version of editbench reads"):
        Trajectories.load(tmp_path / "other.parquet")


def test_a_skip_is_a_result(tmp_path):
    outcome = run_job(toy_config(tmp_path, fail="skip"))
    assert (outcome.status, outcome.reason) == ("skipped", "no control found")
    assert run_job(toy_config(tmp_path, fail="skip")).reused
    assert load(tmp_path).runs["no_control"].tolist() == [1]


class Powerless(AlongColumn):
    """Its fit finds no control, with notes that say so, or controls that fail in the walk."""

    def fit(self, data):
        super().fit(data)
        return FitReport(labels=7, notes={"reconstructor": {"accuracy": 0.25}})

    def check(self, generator, attributes, attribute):
        if self.fail == "late skip" and self.fits:
            raise NoControl("nothing changes it")

    def step(self, walk):
        raise RuntimeError("a defect of the method")


@pytest.mark.parametrize("fail, status", [("late skip", "skipped"), ("", "failed")])
def test_a_job_that_ends_after_its_fit_keeps_its_costs_and_notes(tmp_path, fail, status):
    options = {"_target_": "tests.test_job.Powerless", "fail": fail}
    assert run_job(toy_config(tmp_path, **options)).status == status
    again = run_job(toy_config(tmp_path, "attribute=b", **options))
    results = load(tmp_path)
    assert results.runs["no_control"].tolist() == [int(status == "skipped")] * 2
    # The second job loads the fit, and is charged for it all the same.
    assert results.runs["fit_cached"].tolist() == [False, True]
    assert results.runs["labels_used"].tolist() == [7, 7]
    seconds = results.runs["fit_seconds"]
    assert seconds[0] == seconds[1] > 0 and again.status == status
    for _, _, notes, _ in method_notes(results):
        assert notes == 'reconstructor: {"accuracy": 0.25}'


class Searching(AlongColumn):
    """Looks at 3 samples in the fit and at 5 in the tuning; one of both then finds too few examples."""

    def fit(self, data):
        self.look(data, 3, "the fit")
        return FitReport(labels=7, notes={"looked": 3})

    def tune(self, data, attribute):
        self.look(data, 5, "the tuning")
        return FitReport()

    def look(self, data, count, name):
        data.score(Codes(Space.W, data.fit.codes(Space.W)[:count]))
        if self.fail == name:
            raise Unsupported(f"too few examples for {name}")

    def class_scores(self, data, attribute):
        return along(data, attribute)


def along(data, name):
    """Scores of the classes that rank the samples as the teacher does; None for more than two."""
    logit = ATTRIBUTES.logits(data.tune.codes(Space.W) @ V, name)
    return torch.cat([-logit, logit], 1) if logit.shape[1] == 1 else None


@pytest.mark.parametrize(
    ("fail", "decoded", "labels", "notes"),
    [("the fit", 3, 3, {}), ("the tuning", 8, 15, {"looked": 3})],
)
def test_a_job_that_its_fit_itself_skips_keeps_what_was_spent(
    tmp_path, fail, decoded, labels, notes
):
    options = {"_target_": "tests.test_job.Searching", "fail": fail}
    for attribute in ("a", "b"):
        cfg = toy_config(tmp_path, f"attribute={attribute}", **options)
        outcome = run_job(cfg)
        assert (outcome.status, outcome.reason) == ("skipped", f"too few examples for {fail}")
        made = Record.read(folder_of(cfg, outcome)).provenance()
        # What the teacher scored counts as labels too; a fit that is cached costs the same.
        assert (made["fit_generator_calls"], made["labels_used"]) == (decoded, labels)
        assert made["fit_seconds"] > 0 and made["method_notes"] == notes
        assert made["fit_cached"] is False
        # The AUC of a fit that ended, before the tuning that did not.
        assert made["learned"] == (None if fail == "the fit" else 1.0)
        # With too few examples nothing was searched, so it is no failure of a search.
        assert not Record.read(folder_of(cfg, outcome)).status[Record.NO_CONTROL]


@pytest.mark.parametrize("fail, status", [("late skip", "skipped"), ("", "failed")])
def test_a_job_that_ends_after_its_fit_keeps_what_was_learned(tmp_path, monkeypatch, fail, status):
    monkeypatch.setattr(Powerless, "class_scores", lambda self, data, name: along(data, name))
    cfg = toy_config(tmp_path, _target_="tests.test_job.Powerless", fail=fail)
    outcome = run_job(cfg)
    assert outcome.status == status
    assert Record.read(folder_of(cfg, outcome)).provenance()["learned"] == 1.0


def test_a_failure_is_kept_for_reading_and_never_taken_for_a_result(tmp_path):
    cfg = toy_config(tmp_path, fail="crash")
    outcome = run_job(cfg)
    assert outcome.status == "failed" and "RuntimeError: a defect of the method" in outcome.reason
    assert "Traceback" in (folder_of(cfg, outcome) / "log.txt").read_text()
    assert not run_job(cfg).reused


def test_a_method_that_ends_the_program_fails_alone_and_in_one_line(tmp_path):
    """As a parser of arguments does, in whose message there may be several lines."""
    outcome = run_job(toy_config(tmp_path, _target_="tests.test_job.Ending"))
    assert outcome.status == "failed"
    assert re.match(
        r"SystemExit: usage \(.*test_job\.py:\d+\) \(see .*; `editbench conform` checks the method\)",
        outcome.reason,
    )


def test_a_fit_without_a_report_says_what_to_return(tmp_path):
    outcome = run_job(toy_config(tmp_path, _target_="tests.test_job.Silent"))
    assert outcome.reason == (
        "Silent returned NoneType after fitting along: end `fit` and `tune` with "
        "`return FitReport(labels=...)`"
    )


def test_ctrl_c_leaves_no_record_and_the_next_start_goes_on(tmp_path):
    cfg = toy_config(tmp_path, fail="interrupt")
    with pytest.raises(KeyboardInterrupt):
        run_job(cfg)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".partial", "along"))]
    assert run_job(toy_config(tmp_path)).status == "done"


def test_what_a_killed_job_left_is_swept_and_not_believed(tmp_path):
    cfg = toy_config(tmp_path)
    outcome = run_job(cfg)
    folder = folder_of(cfg, outcome)
    half = folder.parent / f".partial-{folder.name}-99999"
    shutil.copytree(folder, half)
    (folder / "status.json").write_text('{"status": "do')  # cut in the middle
    again = run_job(cfg)
    assert (again.status, again.reused) == ("done", False)
    assert not half.exists() and Record.open(folder).final


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


class Turned(ToyScorer):
    attributes = Attributes(
        [*ATTRIBUTES.items[:1], Attribute("b", ("yes", "no")), *ATTRIBUTES.items[2:]]
    )


def test_scorers_with_classes_in_another_order_are_told_apart(tmp_path):
    cfg = toy_config(tmp_path)
    assert run_job(cfg).status == "done"
    (folder,) = (tmp_path / "cache" / "banks").glob("*/bank.json")
    cfg.scorer.judge._target_ = "tests.test_job.Turned"
    assert refusal(cfg).endswith("in the same order: 'b' with the classes no, yes and yes, no")
    cfg.scorer.teacher._target_ = "tests.test_job.Turned"
    cfg.bank.path = str(folder.parent)
    assert refusal(cfg).endswith(": 'b' with the classes no, yes and yes, no")


def test_names_that_do_not_exist_get_the_nearest_and_the_list(tmp_path):
    cfg = toy_config(tmp_path)
    cfg.attribute = "aa"
    assert "unknown attribute 'aa'. Did you mean 'a'? Available: a, b, c." in refusal(cfg)
    cfg = toy_config(tmp_path)
    cfg.evaluated = ["b", "c"]
    assert "attribute=a is not evaluated, evaluated=[b,c]" in refusal(cfg)
    cfg.evaluated = ["a", "bb"]
    assert "unknown attribute in 'evaluated' 'bb'. Did you mean 'b'?" in refusal(cfg)
    # all of it is known from the options and the scorer: nothing was built
    assert not (tmp_path / "cache" / "banks").exists()


@pytest.mark.parametrize("name", ["rows", "samples", "trajectory"])
def test_a_damaged_record_is_not_believed(tmp_path, name):
    cfg = toy_config(tmp_path)
    folder = folder_of(cfg, run_job(cfg))
    file = folder / f"{name}.parquet"
    file.write_bytes(file.read_bytes()[:50])
    assert Record.open(folder) is None
    again = run_job(cfg)
    assert (again.status, again.reused) == ("done", False) and Record.open(folder) is not None


def test_costs_are_those_up_to_the_crossing(tmp_path):
    short, long = toy_config(tmp_path), toy_config(tmp_path, "engine.sweep_steps=15")
    costs = [
        json.loads((folder_of(cfg, run_job(cfg)) / "provenance.json").read_text())
        for cfg in (short, long)
    ]
    assert costs[0]["generator_calls"] == costs[1]["generator_calls"]
    assert costs[0]["walk_generator_calls"] < costs[1]["walk_generator_calls"]
    table = Record.open(folder_of(short, run_job(short))).trajectories().table
    stops = (
        table[table["stopped"]]["step"].sum()
        + 20 * (~table.groupby("start")["crossed"].any()).sum()
    )
    assert costs[0]["generator_calls"] == stops


def test_a_target_class_by_name_or_index_and_one_out_of_range(tmp_path):
    by_name, by_index = (
        run_job(toy_config(tmp_path, "attribute=c", f"target={t}")) for t in ("z", 2)
    )
    record = Record.open(tmp_path / by_name.run_id)
    table = record.trajectories().table
    assert (table["target"] == 2).all() and (table["source"] != 2).all()
    # One job, and so one record.
    assert by_index.run_id == by_name.run_id and by_index.reused
    by_index_alone = run_job(toy_config(tmp_path / "other", "attribute=c", "target=2"))
    other = Record.open(tmp_path / "other" / by_index_alone.run_id)
    assert other.trajectories().table.equals(table)
    assert by_index_alone.run_id == by_name.run_id
    assert other.config()["target"] == "z"
    reason = refusal(toy_config(tmp_path, "attribute=c", "target=3"))
    assert "target=3 is no class of the attribute 'c', which has 0 (x), 1 (y), 2 (z)" in reason


def test_what_changes_no_number_makes_no_record_of_its_own(tmp_path):
    def ask(*words):
        config = toy_config(tmp_path, *words)
        outcome = run_job(config)
        assert job.find_job(Settings.from_config(config)) is not None
        assert outcome.status == "done"
        return outcome

    first = ask("engine.pictures=2", "save_codes=false")
    for words in (["engine.pictures=1"], ["engine.pictures=2", "engine.batch=7"]):
        assert ask(*words, "save_codes=false") == replace(first, reused=True)
    # What was not kept is made: the same numbers under the same name, with more beside them.
    before = Record.open(tmp_path / first.run_id)
    table = before.trajectories().table
    assert not before.has(Record.CODES)
    for words in (["engine.pictures=3", "save_codes=false"], ["engine.pictures=2"]):
        assert ask(*words) == first
        assert Record.open(tmp_path / first.run_id).trajectories().table.equals(table)
    assert Record.open(tmp_path / first.run_id).has(Record.CODES)


def test_layers_outside_the_generator_and_a_missing_device_name_the_key(tmp_path):
    outcome = run_job(toy_config(tmp_path, layers=[1, 5]))
    assert outcome.status == "failed"
    assert "layers [1, 5) lie outside the generator's rows [0, 2)" in outcome.reason
    if not torch.cuda.is_available():
        cfg = toy_config(tmp_path)
        cfg.device = "cuda:7"
        assert "no CUDA device" in refusal(cfg)


class AwayFromTheBatch(AlongColumn):
    def step(self, walk):
        return walk.codes + unit_rows(walk.codes - walk.codes.mean(0))


def test_a_method_whose_step_depends_on_its_batch_fails_before_it_walks(tmp_path):
    cfg = toy_config(tmp_path)
    cfg.method._target_ = f"{__name__}.AwayFromTheBatch"
    outcome = run_job(cfg)
    assert outcome.status == "failed"
    assert "`step` gives a sample other codes alone than in a batch" in outcome.reason
    assert not list(tmp_path.glob("*/trajectory.parquet"))


def test_an_unwritable_place_is_explained(tmp_path):
    cfg = toy_config(tmp_path / "file")
    cfg.cache = str(tmp_path / "cache")
    settings = Settings.from_config(cfg)
    (tmp_path / "file").write_text("in the way since then")
    with pytest.raises(EditbenchError, match=r"cannot write .*set out=DIR"):
        run_job(settings)
    # It is noticed before the bank is built.
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("number", "words", "remedy"),
    [
        (errno.ENOSPC, "the disk is full", "free some space, or set out=DIR"),
        (errno.EFBIG, "the file would be larger than allowed", "(`ulimit -f`), or set out=DIR"),
    ],
)
def test_a_disk_without_room_is_explained_and_the_job_is_done_later(
    number, words, remedy, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(number, os.strerror(number))

    cfg = toy_config(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Trajectories, "save", full)
        outcome = run_job(cfg)
    assert outcome.status == "failed" and words in outcome.reason and remedy in outcome.reason
    assert run_job(cfg).status == "done"


def test_a_bank_of_another_generator_is_refused(tmp_path):
    cfg = toy_config(tmp_path)
    run_job(cfg)
    (bank,) = (tmp_path / "cache" / "banks").glob("[!.]*")
    other = toy_config(tmp_path)
    other.bank.path = str(bank)
    assert run_job(other).reused
    other.generator.digest = "another"
    assert "was built with another generator (toy) than this run's" in refusal(other)


def with_imported_bank(tmp_path: Path, mistake: str = "", wrong: int = 100) -> DictConfig:
    """A job on an imported bank.

    Args:
        tmp_path: folder of the bank.
        mistake: role whose logits of the first samples are not those of the scorer.
        wrong: number of these samples.
    """
    w = torch.randn(1000, DIM, generator=torch.Generator().manual_seed(0))
    own = ToyScorer()(w)
    other = own.clone()
    other[:wrong, 0] *= -1
    np.save(tmp_path / "w.npy", w.numpy())
    for role in ("teacher", "judge"):
        np.save(tmp_path / f"{role}.npy", (other if role == mistake else own).numpy())
    (tmp_path / "attributes.yaml").write_text(yaml.safe_dump(ATTRIBUTES.as_config()))
    files = [tmp_path / name for name in ("w.npy", "teacher.npy", "attributes.yaml", "judge.npy")]
    import_bank(tmp_path / "bank", *files)
    cfg = toy_config(tmp_path)
    cfg.bank.path = str(tmp_path / "bank")
    return cfg


def test_runs_and_fits_on_an_imported_bank_follow_the_networks(tmp_path, monkeypatch):
    cfg = with_imported_bank(tmp_path)
    first = run_job(cfg)
    assert run_job(cfg).reused
    other = copy.deepcopy(cfg)
    other.scorer.judge.digest = "another"
    second = run_job(other)
    assert not second.reused and second.run_id != first.run_id
    # Code of one's own may change without any weights.
    monkeypatch.setattr(loading, "networks_code", lambda settings: "another")
    third = run_job(cfg)
    assert third.run_id not in (first.run_id, second.run_id)
    made = json.loads((folder_of(cfg, third) / "provenance.json").read_text())
    assert not made["fit_cached"]


@pytest.mark.parametrize("mistake", ["", "teacher", "judge"])
def test_an_imported_bank_of_another_scorer_is_told(mistake, tmp_path, monkeypatch):
    cfg = with_imported_bank(tmp_path, mistake)
    cfg.engine.batch = 7
    sizes = []
    forward = ToyScorer.forward

    def counted(self, decoded):
        sizes.append(len(decoded))
        return forward(self, decoded)

    monkeypatch.setattr(ToyScorer, "forward", counted)
    outcome = run_job(cfg)
    # Pictures of another size of batch might not fit the memory.
    assert max(sizes) <= 7
    made = json.loads((folder_of(cfg, outcome) / "provenance.json").read_text())
    # 100 of the 256 samples that are scored again.
    told = (
        [f"logits of a in the bank are from another {mistake}: 61% same class"] if mistake else []
    )
    assert [word for word in remarks(made) if "another" in word] == told
    results = load(Path(cfg.out))
    (said,) = foreign_logits(results, by_name(results, Style())) or [""]
    assert (f"a of the {mistake} (61% same class)" in said) == bool(mistake)
    assert bool(said) == bool(mistake)
    # Another job of the sweep takes the answer, though it may not lock; one with another scorer
    # does not.
    monkeypatch.setattr("editbench.bank.agreement._score_again", None)
    kept_in = Path(cfg.cache) / "agreement"
    forbid_locks(kept_in)
    cfg.seed = 1
    again = run_job(cfg)
    kept = json.loads((folder_of(cfg, again) / "provenance.json").read_text())
    assert kept["imported_agreement"] == made["imported_agreement"]
    (kept_in / ".locks").unlink()
    cfg.scorer.judge.digest = "another"
    assert "'NoneType' object is not callable" in run_job(cfg).reason


def test_the_attribute_whose_sign_an_imported_bank_has_wrong_is_named(tmp_path):
    outcome = run_job(with_imported_bank(tmp_path, "judge", wrong=1000))
    assert outcome.status == "failed"
    assert f"bank.path={tmp_path / 'bank'}" in outcome.reason
    assert "a (0% equal). Check the sign (positive_is_low)" in outcome.reason


class Diligent(AlongColumn):
    """Asks the teacher in its fit and in its steps."""

    def fit(self, data):
        report = super().fit(data)
        data.score(Codes(Space.W, data.tune.w[:30]))
        return report

    def step(self, walk):
        self.need_teacher()(self.need_generator().decode(Codes(Space.W, walk.codes)))
        return super().step(walk)


def test_what_an_editor_asks_of_teacher_and_generator_is_charged(tmp_path):
    made = {}
    for name in ("toy_world.AlongColumn", "test_job.Diligent"):
        outcome = run_job(toy_config(tmp_path, _target_=f"tests.{name}"))
        made[name] = json.loads((tmp_path / outcome.run_id / "provenance.json").read_text())
    plain, diligent = made.values()
    steps = (pd.read_parquet(tmp_path / outcome.run_id / "trajectory.parquet")["step"] > 0).sum()
    assert diligent["labels_used"] == plain["labels_used"] + 30 + steps
    assert diligent["generator_calls"] == plain["generator_calls"] + 30 + steps


class Changing(AlongColumn):
    def fit(self, data):
        data.fit.codes(Space.W).mul_(0)
        return super().fit(data)


class Counting(AlongColumn):
    def fit(self, data):
        return FitReport(labels=-5)


class Listing(AlongColumn):
    def state(self):
        return {"rows": [1, 2]}


class Tupled(AlongColumn):
    def fit(self, data):
        return replace(super().fit(data), notes={("a", 1): 2})


class Sharing(AlongColumn):
    """A part of a tensor beside the whole, and one that is not contiguous."""

    def state(self):
        whole = torch.arange(6.0).reshape(2, 3)
        return {**super().state(), "whole": whole, "part": whole[:1], "turned": whole.T}

    def load_state(self, state):
        assert torch.equal(state["part"], torch.tensor([[0.0, 1.0, 2.0]]))
        assert torch.equal(state["turned"], state["whole"].T)
        names = ("whole", "part", "turned")
        super().load_state({name: value for name, value in state.items() if name not in names})


def test_a_state_whose_tensors_share_memory_is_stored(tmp_path):
    for attribute, cached in (("a", False), ("b", True)):
        cfg = toy_config(tmp_path, f"attribute={attribute}", _target_="tests.test_job.Sharing")
        made = Record.read(folder_of(cfg, run_job(cfg))).provenance()
        assert made["fit_cached"] == cached


class Forgetful(AlongColumn):
    """Its fit finds the length of a step, which `state` forgets."""

    def fit(self, data):
        self.delta = 0.0
        return super().fit(data)


class ForgetfulTuning(Forgetful):
    """The same of what is found for an attribute."""

    def fit(self, data):
        return AlongColumn.fit(self, data)

    def tune(self, data, attribute):
        self.delta = 0.0
        return FitReport()


@pytest.mark.parametrize("name", ["Forgetful", "ForgetfulTuning"])
def test_a_job_that_fits_gives_the_numbers_of_a_job_that_loads_the_fit(tmp_path, name):
    """An incomplete state must not show only in the jobs that find the fit in the cache."""
    values = []
    for out in ("first", "second"):
        target = f"tests.test_job.{name}"
        cfg = toy_config(tmp_path, f"out={tmp_path / out}", _target_=target)
        made = Record.read(folder_of(cfg, run_job(cfg)))
        rows = made.rows()
        values.append(rows.loc[rows["metric"] == "success_rate", "value"].item())
    assert values[0] == values[1] > 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Tupled", "returned notes after fitting along that JSON cannot hold (keys must be str"),
        ("Changing", "changes its samples in place, but other methods share them"),
        ("Counting", "Counting returned FitReport(labels=-5)"),
        ("Listing", "Listing.state()['rows'] is list: return tensors"),
    ],
)
def test_a_fit_that_breaks_its_contract_fails_alone(tmp_path, name, reason):
    outcome = run_job(toy_config(tmp_path, _target_=f"tests.test_job.{name}"))
    assert outcome.status == "failed" and reason in outcome.reason
    assert not list(tmp_path.rglob("fits/*.safetensors"))  # nothing that a later job would load
    # The next editor of the process learns from the samples of the bank.
    bank = load_bank(Settings.from_config(toy_config(tmp_path)))
    fit = bank.split("fit")
    np.testing.assert_array_equal(fit.codes(Space.W), bank.array("w").take(fit.index.numpy()))


class Ending(AlongColumn):
    def fit(self, data):
        raise SystemExit("\n  usage\n  more")


class Silent(AlongColumn):
    def fit(self, data):
        super().fit(data)


class Shifted(AlongColumn):
    def codes(self, walk):
        moved = walk.codes.clone()
        moved[-1] += 0.1
        return Codes(Space.W, moved)


def test_an_editor_that_moves_any_start_at_step_0_fails(tmp_path):
    outcome = run_job(toy_config(tmp_path, _target_="tests.test_job.Shifted"))
    assert outcome.status == "failed" and "changes the starts at step 0" in outcome.reason


def test_a_package_in_a_checkout_of_something_else_has_no_commit(tmp_path, monkeypatch):
    """As in an environment that lies within a user's own project."""
    place = tmp_path / "environment.py"
    place.touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    monkeypatch.setattr(environment, "__file__", str(place))
    assert environment.git_commit() is None
    subprocess.run([*git, "add", "."], check=True)
    assert environment.git_commit().endswith("+")


def test_text_that_names_no_file_is_itself_and_a_file_its_bytes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    long = "a." * 200  # longer than the system takes for a name
    assert content({"text": long, "zero": "a.\0"}) == {"text": long, "zero": "a.\0"}
    (tmp_path / "part").mkdir()
    for name in ("one.npy", "part/one", "one"):
        (tmp_path / name).write_bytes(b"1")
    found = content(["one.npy", "part/one", "one"])
    # A word alone is the name of something else, whatever lies beside the user.
    assert found == [f"sha256:{hashlib.sha256(b'1').hexdigest()}"] * 2 + ["one"]


def test_the_files_of_a_users_network_are_hashed_once_until_they_change(tmp_path, monkeypatch):
    reads = []
    hashed = identity.file_sha256
    monkeypatch.setattr(identity, "file_sha256", lambda path: reads.append(path) or hashed(path))
    file = tmp_path / "weights.npy"
    cfg = toy_config(tmp_path)
    cfg.generator = {"name": "b", "_target_": "tests.test_job.Brighter", "weights": str(file)}
    found = []
    for text in ("old", "other"):
        file.write_text(text)
        found += [networks_code(cfg) for _ in range(3)]
    assert found[0] == found[2] != found[3] == found[5]
    assert reads.count(file) == 2


def test_weights_behind_a_part_of_the_configuration_are_its_content():
    part = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1}
    torch.manual_seed(0)
    first = content({"embedding": part, "depth": 2})
    identity._weights_digest.cache_clear()
    assert content({"embedding": part, "depth": 2}) != first  # drawn anew: other weights
    assert content({"embedding": {"_target_": "no.such"}})["embedding"]["network"] == ""
    assert content({"_target_": "torch.nn.Linear"}) == {"_target_": "torch.nn.Linear"}
