"""Fits of a job: found in the cache, charged, kept where the job ends after them, and held to their contract."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from editbench.base.errors import BadFile, NoControl, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.report import load
from editbench.report.html import method_notes
from editbench.run import stages
from editbench.run.loading import load_bank
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.walk.editor import FitData, FitReport
from tests.by_config import folder_of, record_of, refusal, run_job
from tests.toy_world import ATTRIBUTES, AlongColumn, V, toy_config


def test_fits_are_reused_across_attributes_and_say_so(tmp_path):
    one, two = toy_config(tmp_path), toy_config(tmp_path, "attribute=b")
    notes = [record_of(cfg).provenance() for cfg in (one, two)]
    assert [note["fit_cached"] for note in notes] == [False, True]
    assert notes[0]["fit_seconds"] == notes[1]["fit_seconds"] and notes[1]["labels_used"] == 600


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
    provenance = record_of(other).provenance()
    assert provenance["fit_cached"] is False


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
    options = {"_target_": f"{__name__}.Powerless", "fail": fail}
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
    options = {"_target_": f"{__name__}.Searching", "fail": fail}
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
    cfg = toy_config(tmp_path, _target_=f"{__name__}.Powerless", fail=fail)
    outcome = run_job(cfg)
    assert outcome.status == status
    assert Record.read(folder_of(cfg, outcome)).provenance()["learned"] == 1.0


def test_a_fit_without_a_report_says_what_to_return(tmp_path):
    outcome = run_job(toy_config(tmp_path, _target_=f"{__name__}.Silent"))
    assert outcome.reason == (
        "Silent returned NoneType after fitting along: end `fit` and `tune` with "
        "`return FitReport(labels=...)`"
    )


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
    for target in ("tests.toy_world.AlongColumn", f"{__name__}.Diligent"):
        outcome = run_job(toy_config(tmp_path, _target_=target))
        made[target] = json.loads((tmp_path / outcome.run_id / "provenance.json").read_text())
    plain, diligent = made.values()
    steps = (pd.read_parquet(tmp_path / outcome.run_id / "trajectory.parquet")["step"] > 0).sum()
    assert diligent["labels_used"] == plain["labels_used"] + 30 + steps
    assert diligent["generator_calls"] == plain["generator_calls"] + 30 + steps


class Meeting(AlongColumn):
    """Decodes three samples in its fit, at the same time as another job if there can be one."""

    barrier = threading.Barrier(2, timeout=2)

    def fit(self, data: FitData) -> FitReport:
        space = data.generator.latent_space
        # If nobody comes, the barrier is broken, and nobody waits at it again.
        with suppress(threading.BrokenBarrierError):
            self.barrier.wait()
        data.generator.decode(Codes(space, data.fit.codes(space)[:3]))
        with suppress(threading.BrokenBarrierError):
            self.barrier.wait()
        return FitReport(labels=0)


def test_jobs_in_two_threads_are_charged_for_their_own_samples_alone(tmp_path):
    """As when a notebook runs two sweeps in the background."""
    run_job(toy_config(tmp_path))  # makes the bank
    target = f"{__name__}.Meeting"
    configs = [toy_config(tmp_path, f"seed={seed}", _target_=target) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(run_job, configs))
    for config, outcome in zip(configs, outcomes):
        assert outcome.status == "done", outcome.reason
        made = Record.read(folder_of(config, outcome)).provenance()
        assert made["fit_generator_calls"] == 3


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
        cfg = toy_config(tmp_path, f"attribute={attribute}", _target_=f"{__name__}.Sharing")
        made = record_of(cfg).provenance()
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
        target = f"{__name__}.{name}"
        cfg = toy_config(tmp_path, f"out={tmp_path / out}", _target_=target)
        made = record_of(cfg)
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
        ("Stateless", "Stateless.state() is NoneType: return a mapping of tensors"),
    ],
)
def test_a_fit_that_breaks_its_contract_fails_alone(tmp_path, name, reason):
    outcome = run_job(toy_config(tmp_path, _target_=f"{__name__}.{name}"))
    assert outcome.status == "failed" and reason in outcome.reason
    assert not list(tmp_path.rglob("fits/*.safetensors"))  # nothing that a later job would load
    # The next editor of the process learns from the samples of the bank.
    bank = load_bank(Settings.from_config(toy_config(tmp_path)))
    fit = bank.split("fit")
    np.testing.assert_array_equal(fit.codes(Space.W), bank.array("w").take(fit.index.numpy()))


class Stateless(AlongColumn):
    def state(self):
        return None


class Spaceless(AlongColumn):
    space = "W"


def test_a_space_that_is_text_is_refused_before_the_fit(tmp_path):
    reason = refusal(toy_config(tmp_path, _target_=f"{__name__}.Spaceless"))
    assert "Spaceless has space='W': set it to a member of" in reason


class Silent(AlongColumn):
    def fit(self, data):
        super().fit(data)
