"""Waiting for jobs of submitit: what the queue says, jobs that are lost, and where there is no SLURM."""

import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from editbench.base.errors import EditbenchError
from editbench.cli import main
from editbench.run import job as jobs
from editbench.run import sweep
from editbench.run.compose import compose_settings
from tests.sweep_editors import toy_words

submitit = pytest.importorskip("submitit")
pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
from editbench.run import cluster  # noqa: E402

OPTIONS = {"timeout_min": 60, "signal_delay_s": 120}
SLURM = "hydra/launcher=submitit_slurm"


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The one folder on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "cat"):  # what the commands below are made of
        (folder / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(folder))
    return folder


def command(folder, name, text):
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


class FakeSlurm:
    """A cluster whose time runs while somebody sleeps.

    Args:
        folder: of the jobs.
        states: job -> (seconds from which on, state) in order; no state: SLURM does not know the job.
        results: job -> second at which its result is there.
    """

    def __init__(self, folder, states, results):
        self.states = states
        self.results = results
        self.now = 0.0
        self.queue = folder / "queue"
        folder.mkdir()
        self.jobs = [submitit.SlurmJob(folder / "%j", name) for name in states]
        for job in self.jobs:
            job.paths.folder.mkdir()
        self.sleep(0)

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        assert self.now < 1000, "waits for ever"
        lines = []
        for job in self.jobs:
            state = [state for begin, state in self.states[job.job_id] if begin <= self.now][-1]
            if state:
                lines.append(f"{job.job_id} {state}\n")
            if self.results.get(job.job_id, float("inf")) <= self.now:
                job.paths.result_pickle.touch()
        self.queue.write_text("".join(lines))


@pytest.fixture
def slurm(tmp_path, path, monkeypatch):
    def make(states, results):
        made = FakeSlurm(tmp_path / "jobs", states, results)
        monkeypatch.setattr(cluster, "time", made)
        command(path, "squeue", f"echo x >> {tmp_path}/asked; cat {made.queue}")
        return made

    return make


def test_a_cancelled_job_is_lost_and_the_others_are_waited_for(slurm, capfd, tmp_path):
    made = slurm(
        {
            "12_0": [(0, "RUNNING"), (200, "COMPLETED")],
            "12_1": [(0, "RUNNING"), (5, "CANCELLED"), (300, "")],
            "12_2": [(0, "PENDING"), (100, "RUNNING"), (400, "COMPLETED")],
            "12_3": [(0, "RUNNING"), (350, "")],  # was forgotten between two looks
        },
        {"12_0": 200, "12_2": 400},
    )
    made.jobs[1].paths.stderr.write_text("at work\nslurmstepd: error: *** CANCELLED ***\nsrun: x\n")
    submitted = cluster.SubmittedJobs("slurm")
    assert submitted.run(lambda: made.jobs) == 4
    assert 400 <= made.now < 430
    err = capfd.readouterr().err
    assert "submitted to SLURM as job 12;" in err
    assert [line for line in err.splitlines() if line.startswith("lost")] == [
        "lost: job 12_1 CANCELLED",
        "lost: job 12_3 no longer there",
    ]
    log = made.jobs[1].paths.stderr
    assert (
        submitted.describe(1)
        == f"job 12_1 CANCELLED; slurmstepd: error: *** CANCELLED ***; log {log}"
    )
    assert submitted.describe(3) == "job 12_3 no longer there; it did not start: there is no log"
    assert submitted.describe(4) == "not submitted"
    made.jobs[0].paths.stderr.write_text("Traceback\nModuleNotFoundError: No module named 'x'\n")
    assert submitted.describe(0).startswith("job 12_0 ended with an error; ModuleNotFoundError: No")
    # The controller is asked seldom, and less and less often.
    assert len((tmp_path / "asked").read_text().split()) < 30


def test_a_job_that_is_queued_anew_is_no_lost_one(slurm, capfd):
    made = slurm(
        {
            "7": [
                (0, "RUNNING"),
                (3, "COMPLETING"),
                (6, "NODE_FAIL"),
                (9, "PENDING"),
                (130, "RUNNING"),
                (140, "COMPLETED"),
            ]
        },
        {"7": 139},
    )
    submitted = cluster.SubmittedJobs("slurm")
    assert submitted.run(lambda: made.jobs) == 1 and made.now < 150
    assert "lost" not in capfd.readouterr().err


def test_a_controller_that_is_silent_for_a_while_is_asked_again(slurm, path, capfd):
    made = slurm({"7": [(0, "RUNNING")]}, {"7": 30})
    command(path, "squeue", "echo squeue: error: cannot contact the controller >&2; exit 1")
    submitted = cluster.SubmittedJobs("slurm")
    submitted.run(lambda: made.jobs)
    err = capfd.readouterr().err
    assert "SLURM does not answer and is asked again: squeue: error: cannot contact" in err
    assert "lost" not in err


def test_who_stops_waiting_is_told_what_goes_on(slurm):
    made = slurm({name: [(0, "RUNNING")] for name in ("12_0", "12_1", "13")}, {"12_0": 1})

    def interrupt(seconds, sleep=made.sleep):
        sleep(seconds)
        if made.now > 4:
            raise KeyboardInterrupt

    made.sleep = interrupt
    submitted = cluster.SubmittedJobs("slurm")
    with pytest.raises(KeyboardInterrupt):
        submitted.run(lambda: made.jobs)
    assert submitted.release() == (
        "2 jobs continue in SLURM: `scancel 12 13` stops them, and the same command picks up what they "
        "finish"
    )
    assert cluster.SubmittedJobs("slurm").release() == ""


# -- without SLURM ---------------------------------------------------------------------------------
def test_slurm_that_is_not_there_is_refused_with_the_reason(path):
    with pytest.raises(EditbenchError, match="needs sbatch, srun, squeue, not found on PATH"):
        cluster.check_slurm(OPTIONS)
    for name in cluster.TOOLS:
        command(path, name, "echo squeue: error: no controller >&2; exit 1")
    with pytest.raises(EditbenchError, match="cannot be read: squeue: error: no controller"):
        cluster.check_slurm(OPTIONS)
    command(path, "squeue", "exit 0")
    cluster.check_slurm(OPTIONS)
    with pytest.raises(EditbenchError, match="timeout_min=2 leaves a job no time"):
        cluster.check_slurm({**OPTIONS, "timeout_min": 2})


def test_a_sweep_without_slurm_leaves_nothing(path, tmp_path, capfd):
    assert (
        main(["run", *toy_words(tmp_path), f"out={tmp_path}/runs", "-m", "attribute=a,b", SLURM])
        == 1
    )
    assert "hydra/launcher=submitit_slurm needs sbatch" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_jobs_that_sbatch_refuses_say_why():
    def submit():
        raise submitit.core.utils.FailedJobError(
            "sbatch: error: x\nsbatch: error: no partition gpu"
        )

    with pytest.raises(EditbenchError, match="SLURM refused the jobs: sbatch: error: no partition"):
        cluster.SubmittedJobs("slurm").run(submit)


def test_every_job_may_be_lost(path, tmp_path, capfd, monkeypatch):
    """A cluster that takes jobs, in batches, and forgets them; it has no accounts, so no `sacct`."""
    monkeypatch.setattr(cluster, "GRACE", 0.0)
    monkeypatch.setattr(cluster, "ASK_FIRST", 0.0)
    monkeypatch.setattr(cluster, "LOOK_EVERY", 0.0)
    for name in ("srun", "squeue"):
        command(path, name, "exit 0")
    command(path, "sbatch", f"echo $1 >> {tmp_path}/given; echo Submitted batch job 5")
    submitted = "hydra.sweeper.max_batch_size=2"
    words = [*toy_words(tmp_path), f"out={tmp_path}/runs"]
    assert main(["run", *words, "-m", "attribute=a,b,c", SLURM, submitted]) == 1
    err = capfd.readouterr().err
    assert "3 jobs: 0 done, 0 skipped, 0 failed, 3 not finished\n" in err
    assert "  not finished  #1 attribute=b: job 5_1 no longer there; it did not start" in err
    assert "  not finished  #2 attribute=c: job 5 no longer there; it did not start" in err
    assert "run them again: editbench run" in err
    assert len((tmp_path / "given").read_text().splitlines()) == 2


def test_jobs_that_go_on_keep_the_copies_of_option_files(path, tmp_path, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    for name in ("srun", "squeue"):
        command(path, name, "exit 0")
    command(path, "sbatch", "echo Submitted batch job 5")
    # Its own `time` alone: subprocess sleeps too.
    monkeypatch.setattr(cluster, "time", SimpleNamespace(sleep=interrupt, monotonic=time.monotonic))
    kept = []
    monkeypatch.setattr(sweep, "keep_copies", lambda: kept.append(True))
    words = [*toy_words(tmp_path), f"out={tmp_path}/runs"]
    assert main(["run", *words, "-m", "attribute=a,b", SLURM]) == 130
    assert kept == [True]


# -- in a job --------------------------------------------------------------------------------------
@pytest.fixture
def user_signal():
    number = getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")
    before = signal.getsignal(number)
    yield number
    signal.signal(number, before)


def test_a_time_limit_leaves_no_record(user_signal, tmp_path, monkeypatch):
    def answer(number, frame):  # as submitit does after the last try
        raise submitit.core.utils.UncompletedJobError("timed-out too many times.")

    signal.signal(user_signal, answer)
    cluster.stop_is_no_failure()
    _, conf, *words = toy_words(tmp_path)
    settings = compose_settings(
        [*words, f"out={tmp_path}/runs", "method=one", "attribute=a"], [Path(conf)]
    )
    monkeypatch.setattr(jobs, "fit_and_walk", lambda *_: signal.raise_signal(user_signal))
    with pytest.raises(cluster.Stopped, match="For more time, raise hydra"):
        jobs.run_job(settings)
    left = [path for path in (tmp_path / "runs").glob("*") if path.name != ".locks"]
    assert left == []


def test_outside_of_a_job_the_signal_stays_what_it_is(user_signal):
    signal.signal(user_signal, signal.SIG_IGN)
    cluster.stop_is_no_failure()
    assert signal.getsignal(user_signal) == signal.SIG_IGN
