"""Sweeps on several workers: the same results, and nothing lost or done twice."""

import json
import os
import re
import shlex
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from editbench.api import run
from editbench.bank.build import BankBuild, build_bank, build_shard
from editbench.bank.layout import shard_folder
from editbench.bank.spec import BankSpec
from editbench.base.files import claim_folder, lock
from editbench.cli import main
from editbench.networks.roles import Networks
from editbench.run import launch
from editbench.run.compose import compose_settings
from editbench.run.job import find_job
from editbench.run.sweep_summary import print_summary
from tests.processes import Started, wait_until
from tests.sweep_editors import JOBLIB, notes, outcomes, records
from tests.toy_world import ToyGenerator, ToyScorer

# -- a user's callbacks ----------------------------------------------------------------------------
CALLBACK = """
from pathlib import Path
from types import SimpleNamespace

from hydra.experimental.callback import Callback


class Noted(Callback):
    def __init__(self, name, file):
        self.name, self.file = name, Path(file)

    def note(self, event):
        with self.file.open("a") as file:
            file.write(f"{self.name} {event}\\n")

    def on_multirun_start(self, config, **kwargs):
        self.note("multirun_start")

    def on_multirun_end(self, config, **kwargs):
        self.note("multirun_end")

    def on_job_start(self, config, *, task_function, **kwargs):
        self.note(f"job_start {config.attribute}")

    def on_job_end(self, config, job_return, **kwargs):
        self.note(f"job_end {job_return.return_value.status}")
        raise RuntimeError("this is a warning and no failure of the job")
"""


def test_callbacks_of_a_user_are_called_as_hydra_calls_them(tmp_path, words, monkeypatch, capfd):
    (tmp_path / "noted.py").write_text(CALLBACK)
    monkeypatch.syspath_prepend(str(tmp_path))
    calls = tmp_path / "calls"
    callbacks = []
    for name in ("first", "second"):
        callbacks += [
            f"+hydra.callbacks.{name}._target_=noted.Noted",
            f"+hydra.callbacks.{name}.name={name}",
            f"+hydra.callbacks.{name}.file={calls}",
        ]
    with pytest.warns(UserWarning, match=r"Noted.on_job_end: RuntimeError: this is a warning"):
        jobs = ["-m", "method=along", "attribute=a,b", f"out={tmp_path}/out"]
        code = main(["run", *words, *jobs, *callbacks])
    assert code == 0, capfd.readouterr().err
    assert calls.read_text().splitlines() == [
        "first multirun_start",
        "second multirun_start",
        "first job_start a",
        "second job_start a",
        "second job_end done",
        "first job_end done",
        "first job_start b",
        "second job_start b",
        "second job_end done",
        "first job_end done",
        "second multirun_end",
        "first multirun_end",
    ]


# -- workers ---------------------------------------------------------------------------------------
def test_two_workers_leave_what_one_leaves(tmp_path, words, in_root, capfd, monkeypatch):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    jobs = ["-m", "method=along,skip,crash", "attribute=a,b"]
    summaries = []
    for name, launcher in (("one", []), ("two", JOBLIB)):
        code = main(
            [
                "run",
                *words[:-1],
                f"out={tmp_path}/{name}",
                f"cache={tmp_path}/cache-{name}",
                *jobs,
                *launcher,
            ]
        )
        err = capfd.readouterr().err
        # Workers are silent, so the minutes in which they build a bank are announced.
        announced = err.find("workers start, and show no progress")
        assert 0 <= announced < err.index("[1/6]") if launcher else announced == -1
        ended = re.findall(r"^\[(\d)/6\] (\w+ x \w), seed 0: ", err, re.M)
        assert [place for place, _ in ended] == list("123456") and len(set(ended)) == 6
        summary, _, again = err[err.index("6 jobs:") :].partition("run them again: ")
        # The sweep without the methods that are done or skipped.
        assert {"method=crash", "attribute=a,b", *launcher} < set(shlex.split(again))
        summaries.append((code, summary.replace(f"{tmp_path}/{name}", "OUT")))
    assert summaries[0] == summaries[1] and summaries[0][0] == 1
    assert "6 jobs: 2 done, 2 skipped, 2 failed\n" in summaries[0][1]
    alone, both = records(tmp_path / "one"), records(tmp_path / "two")
    assert alone.keys() == both.keys() and len(alone) == 6
    for name, status in alone.items():
        assert both[name]["status"] == status["status"]
        if status["status"] == "done":
            for table in ("rows", "trajectory"):
                pd.testing.assert_frame_equal(
                    *(
                        pd.read_parquet(tmp_path / run / name / f"{table}.parquet")
                        for run in ("one", "two")
                    )
                )
            made = json.loads((tmp_path / "two" / name / "provenance.json").read_text())
            assert made["threads"] == max(1, launch.available_cores() // 2)
    assert "OMP_NUM_THREADS" not in os.environ
    described = [
        {
            k: v for k, v in found.items() if k not in ("reason", "told", "checksum", "seconds")
        }  # they name folders, or were measured
        for run in ("one", "two")
        for _, found in sorted(outcomes(tmp_path / run).items())
    ]
    assert described[:6] == described[6:]


def test_a_killed_worker_loses_and_repeats_nothing(tmp_path, words, in_root, capfd):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "DIE").touch()
    sweep = [
        "run",
        *words,
        *shlex.split(f"out={tmp_path}/runs -m method=one attribute=a seed=0,1,2"),
        *JOBLIB,
    ]
    process = Started(main, sweep)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    finished = records(tmp_path / "runs")
    assert "the launcher stopped: TerminatedWorkerError" in err and "Traceback" not in err
    done, missing = re.findall(r"3 jobs: (\d) done, 0 skipped, 0 failed, (\d) not finished", err)[0]
    assert int(done) + int(missing) == 3
    # A worker can be ended between its record and its word of it.
    assert len(finished) - 1 <= int(done) <= len(finished)
    assert "  not finished  #" in err and "run the same command to complete the rest" in err
    stamps = {
        name: (tmp_path / "runs" / name / "status.json").stat().st_mtime_ns for name in finished
    }
    fits = tmp_path / "cache" / "fits"
    # The checksum is written last: without it a fit counts as missing.
    kept = len(list(fits.glob("[!.]*.safetensors.sha256")))
    # With the killed worker joblib ends the others, wherever they are: a fit may be cut off.
    begun = notes(tmp_path)["one fitted"]
    assert main(sweep[:-2]) == 0  # in this process: workers would only be started anew
    assert (
        f"3 jobs: 3 done, 0 skipped, 0 failed{f' ({len(finished)} reused)' if finished else ''}"
        in capfd.readouterr().err
    )
    assert all(
        (tmp_path / "runs" / name / "status.json").stat().st_mtime_ns == at
        for name, at in stamps.items()
    )
    assert notes(tmp_path)["one fitted"] - begun == 3 - kept
    assert len(list(fits.glob("[!.]*.safetensors"))) == 3
    assert not list((tmp_path / "runs").glob(".partial-*"))


def test_of_two_sweeps_at_once_one_dies_and_the_other_does_the_rest_once(tmp_path, words):
    (tmp_path / "DIE").touch()
    sweep = ["run", *words, f"out={tmp_path}/runs", "-m", "attribute=a,b", "method=one,two"]
    both = [Started(main, sweep) for _ in range(2)]
    errors = [process.communicate(timeout=300)[1] for process in both]
    assert sorted(process.returncode for process in both) == [-signal.SIGKILL, 0]
    survivor = next(error for process, error in zip(both, errors) if process.returncode == 0)
    assert "4 jobs: 4 done, 0 skipped, 0 failed" in survivor
    found = notes(tmp_path)
    assert found["one fitted"] == found["two fitted"] == 1
    assert found["one fit"] + found["two fit"] == 3
    # A job checks its attribute twice, before and after the fit; the killed one came as far as its first.
    assert sum(n for text, n in found.items() if " check " in text) == 4 * 2 + 1
    assert len(list((tmp_path / "runs" / ".sweeps").iterdir())) == 2
    assert not list((tmp_path / "runs").glob(".partial-*")) and len(records(tmp_path / "runs")) == 4


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_workers_stop_with_the_sweep_and_hold_nothing(tmp_path, words, kill):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "HANG").touch()
    sweep = [
        "run",
        *words,
        *shlex.split(f"out={tmp_path}/runs -m method=one attribute=a seed=0,1"),
        *JOBLIB,
    ]
    process = Started(main, sweep)
    # The other job has left its outcome: stopped between its fit and its record, it would fit again.
    outcomes = tmp_path / "runs" / ".sweeps"
    wait_until(
        lambda: notes(tmp_path)["one hangs"] and list(outcomes.glob("*/[!.]*.json")), process
    )
    if kill == signal.SIGINT:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=120)
        assert process.returncode == 130 and "what was finished is kept" in err
        assert "Traceback" not in err and "not finished" in err
        # The signal went to the whole group. A worker that it stops while it hands over its result
        # leaves the starter waiting: the starter alone ends the jobs.
        assert not notes(tmp_path)["one interrupted"]
    else:
        process.kill()
        process.wait(timeout=120)
    again = Started(main, sweep[:-2])  # would wait for ever for a job that a worker still held
    assert "2 jobs: 2 done" in again.communicate(timeout=120)[1]
    assert notes(tmp_path)["one fitted"] == 2 and not list((tmp_path / "runs").glob(".partial-*"))


def test_what_several_need_at_once_is_made_once(tmp_path, words):
    (tmp_path / "HOLD").touch()
    assert main(["bank", *words]) == 0
    jobs = [
        Started(main, ["run", *words, f"out={tmp_path}/runs", "method=one", f"attribute={name}"])
        for name in "aab"
    ]
    wait_until(lambda: notes(tmp_path)["one check a"] and notes(tmp_path)["one check b"], *jobs)
    time.sleep(1.5)  # for those that should wait, to show whether they do
    (tmp_path / "HOLD").unlink()
    errors = [job.communicate(timeout=120)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0], errors
    assert notes(tmp_path) == {"one check a": 2, "one check b": 2, "one fit": 1, "one fitted": 1}
    assert sum("done (reused)" in error for error in errors) == 1


def test_of_the_jobs_of_submitit_one_is_killed_and_the_others_are_waited_for(
    tmp_path, words, in_root, capfd, monkeypatch
):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    from editbench.run import cluster

    monkeypatch.setattr(cluster, "GRACE", 0.0)
    (tmp_path / "DIE").touch()
    sweep = ["run", *words, f"out={tmp_path}/runs", "-m", "method=one", "attribute=a,c"]
    assert main([*sweep, "hydra/launcher=submitit_local"]) == 1
    err = capfd.readouterr().err
    assert "2 jobs: 1 done, 0 skipped, 0 failed, 1 not finished\n" in err
    ((number, name, job),) = re.findall(
        r"^  not finished  #(\d) attribute=(\w): job (\d+) no longer there; .*log ", err, re.M
    )
    assert name == "ac"[int(number)] and f"lost: job {job} no longer there\n" in err
    assert f"attribute={name} hydra/launcher=submitit_local\n" in err  # the command for the rest
    assert notes(tmp_path)["one fitted"] == 1 and len(records(tmp_path / "runs")) == 1
    assert main(sweep) == 0  # in this process
    assert "2 jobs: 2 done, 0 skipped, 0 failed (1 reused)" in capfd.readouterr().err


# -- the sweep's own folder ------------------------------------------------------------------------
def test_folders_are_claimed_once(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(claim_folder, [tmp_path / "sweeps" / "now"] * 64))
    assert len(set(found)) == 64 and tmp_path / "sweeps" / "now" in found


def test_jobs_with_other_outputs_come_into_one_summary(tmp_path, words, in_root, capfd):
    (tmp_path / "conf" / "experiment").mkdir()
    for name in ("first", "it's"):
        (tmp_path / "conf" / "experiment" / f"{name[0]}.yaml").write_text(
            f'# @package _global_\nname: {name[0]}\nout: "{tmp_path}/{name}"\n'
        )
    assert (
        main(
            [
                "run",
                *words,
                *shlex.split("-m experiment=f,i method=along attribute=a"),
                f'hydra.sweep.dir="{tmp_path}/it\'s all"',
            ]
        )
        == 0
    )
    assert "2 jobs: 2 done" in capfd.readouterr().err
    assert all(len(records(tmp_path / name)) == 1 for name in ("first", "it's"))


# -- banks -----------------------------------------------------------------------------------------
def test_parts_of_a_bank_compute_every_sample_once(tmp_path, words):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    parts = ["bank", *words, f"out={tmp_path}/runs", "--parts", "4", *JOBLIB, "bank.shard=50"]
    process = Started(main, parts)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    counts = [
        int(found) for found in re.findall(r"^\[\d/4\] part \d: computed (\d+) of", err, re.M)
    ]
    assert len(counts) == 4 and sum(counts) == 1000 and "4 jobs: 4 done, 0 skipped, 0 failed" in err
    (bank,) = (tmp_path / "cache" / "banks").glob("[!.]*")
    assert (bank / "bank.json").exists() and len(list(bank.glob("shard-*"))) == 20


@pytest.mark.parametrize("number", ["", "0", "two"])
def test_parts_need_a_number(number, capsys):
    for words in (["--parts", *([number] if number else [])], [f"--parts={number}"]):
        assert main(["bank", *words]) == 1
        assert "such as --parts 8" in capsys.readouterr().err


def test_a_builder_goes_round_the_shards_that_another_holds(tmp_path):
    spec, built = BankSpec(200, block=50, shard=50), []
    models = Networks(ToyGenerator(), ToyScorer("teacher"), ToyScorer())
    folder = tmp_path / "bank"
    with ThreadPoolExecutor(1) as other:
        with lock(shard_folder(folder, 1)):
            building = other.submit(build_bank, folder, "id", spec, lambda: models)
            while (
                not shard_folder(folder, 3).exists() and not building.done()
            ):  # all but the one that is held
                time.sleep(0.001)
            assert not build_shard(BankBuild(folder, spec), models, 1, built.append, wait=False)
            assert not built
            assert [shard_folder(folder, k).exists() for k in range(4)] == [True, False, True, True]
            assert not building.done()
        bank = building.result(timeout=60)
    assert len(bank) == 200 and models.generator.decoded == 200


def test_found_jobs_are_settled_and_the_others_run_under_their_numbers(
    tmp_path, words, in_root, capfd
):
    sweep = ["run", *words, f"out={tmp_path}/runs", "-m", "method=one", "attribute=a"]
    assert main([*sweep, "seed=1"]) == 0
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").glob("*/status.json")}
    capfd.readouterr()
    # Seed 1 is there; 0 and 2, which are no product without it, are not.
    assert main([*sweep, "seed=0,1,2"]) == 0
    err = capfd.readouterr().err
    assert "3 jobs: 3 done, 0 skipped, 0 failed (1 reused)" in err
    for seed in range(3):
        found = " (reused)" if seed == 1 else ""
        assert f"/3] one x a, seed {seed}: done{found}: " in err
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in stamps.items())
    seeds = {record["seed"] for record in records(tmp_path / "runs").values()}
    assert seeds == {0, 1, 2}


def test_the_summary_says_a_reason_once_and_names_all_jobs_that_have_it(capfd):
    jobs = []
    for seed, reason in enumerate(["no control", "bad", "bad", "worse", "bad"]):
        status = "skipped" if seed == 0 else "failed"
        jobs.append(
            {"job": f"one x a, seed {seed}", "status": status, "reason": reason, "reused": False}
        )
    assert print_summary(jobs) == 1
    assert capfd.readouterr().err.splitlines()[-4:] == [
        "5 jobs: 0 done, 1 skipped, 4 failed",
        "  skipped  one x a, seed 0: no control",
        "  failed  one x a, seed 1; one x a, seed 2; one x a, seed 4: bad",
        "  failed  one x a, seed 3: worse",
    ]


def test_jobs_that_differ_in_an_option_are_told_apart(tmp_path, words, capfd):
    """When they end, in the list of failures, and where `eb.run` finds them."""
    mixed = ["method=along,crash", "attribute=a", "method.delta=0.25,0.5", f"out={tmp_path}/runs"]
    assert main(["run", *words, "-m", *mixed]) == 1
    err = capfd.readouterr().err
    for delta in ("0.25", "0.5"):
        assert f"] along x a, seed 0 (method.delta={delta}): done" in err
        assert f"] crash x a, seed 0 (method.delta={delta}): failed: " in err
        assert f"  failed  crash x a, seed 0 (method.delta={delta}): Runtime" in err
    run([*words[2:], *mixed], config_dirs=words[1])
    assert "] along x a, seed 0 (method.delta=0.5): done (reused)" in capfd.readouterr().err


def test_a_record_that_another_works_on_holds_no_sweep_up(tmp_path, words, in_root):
    sweep = ["run", *words, f"out={tmp_path}/runs", "method=one", "attribute=a"]
    assert main(sweep) == 0
    overrides = [*words[2:], *sweep[-3:]]
    settings = compose_settings(overrides, [Path(words[1])])
    found = find_job(settings)
    assert found is not None and found.reused
    # Nor a single job, which needs no bank to be found.
    shutil.rmtree(settings.cache)
    with lock(settings.out / found.run_id):
        assert find_job(settings) == found
        assert main(sweep) == 0
    assert not (settings.cache / "banks").exists()
    # A failure, and metrics of other options, are left to the job.
    other = compose_settings([*overrides, "metric.attribute_dependency.draws=10"], [Path(words[1])])
    assert find_job(other) is None


def test_what_is_left_of_a_sweep_runs_with_its_words_and_its_launcher(
    tmp_path, words, in_root, capfd
):
    conf = Path(words[1])
    (conf / "experiment").mkdir()
    for name, launcher in (("here", "basic"), ("apart", "joblib")):
        (conf / "experiment" / f"{name}.yaml").write_text(
            "# @package _global_\ndefaults:\n  - override /method: one\n"
            f"  - override /hydra/launcher: {launcher}\nname: {name}\nattribute: a\n"
            f"seed: {len(name)}\n"
        )
    run = ["run", *words, f"out={tmp_path}/runs", "-m"]
    assert main([*run, "experiment=here"]) == 0
    assert main([*run, "experiment=here,apart", "+hydra.job.env_set.MARK=kept"]) == 0
    assert "2 jobs: 2 done, 0 skipped, 0 failed (1 reused" in capfd.readouterr().err
    kept = [path.read_text() for path in (tmp_path / "runs" / ".sweeps").rglob("multirun.yaml")]
    assert any("MARK: kept" in text for text in kept)


def test_joblib_with_one_job_at_a_time_runs_it_in_this_process(tmp_path, words, in_root, capfd):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    one = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1"]
    sweep = ["run", *words, f"out={tmp_path}/runs", "-m", "method=one", "attribute=a", *one]
    process = Started(main, sweep)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0 and "1 job: 1 done" in err
    assert "[1/1] one x a" in err


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("+job_number=0,1", "job_number is set by the sweep itself"),
        ("seed=range(0,3,0)", "seed=range(0,3,0)"),
        ("hydra.sweeper._target_=some.Other", "hydra.sweeper=some.Other is not supported"),
    ],
)
def test_words_that_no_sweep_has(word, message, words, capfd):
    assert main(["run", *words, "-m", "method=one", "attribute=a", word]) == 1
    err = capfd.readouterr().err
    assert message in err and "Traceback" not in err
