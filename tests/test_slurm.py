"""Sweeps on a real SLURM cluster of one node; skipped where SLURM is not installed.

Each job is an interpreter that imports torch, so one sweep shows as much as it can.
"""

import re
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from editbench.cli import main
from tests import slurm_cluster
from tests.processes import Started, wait_until
from tests.sweep_editors import notes, toy_words

pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
if slurm_cluster.missing():
    pytest.skip(
        f"needs {', '.join(slurm_cluster.missing())}: apt-get install slurm-wlm munge",
        allow_module_level=True,
    )
SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=20"]


@pytest.fixture
def cluster(monkeypatch):
    with (
        tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as folder,
        slurm_cluster.running(Path(folder) / "c") as environment,
    ):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        yield
        subprocess.run(["scancel", "--me"], check=False)
        wait_until(lambda: not queue())


def queue(what="%i"):
    """A line for each job in the queue: its id, or what is asked for."""
    command = ["squeue", "--me", "--noheader", "--array", f"--format={what}"]
    time.sleep(0.2)  # for those who ask again and again
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()


def impatient(arguments):
    """`main`, which asks the queue often and takes a job for lost one second after its end."""
    from editbench.run import cluster

    cluster.ASK_MOST = cluster.ASK_FIRST
    cluster.GRACE = 1.0
    return main(arguments)


def test_a_sweep_outlives_a_cancelled_job_and_finds_one_that_was_queued_anew(
    cluster, tmp_path, capfd
):
    (tmp_path / "HANG").touch()
    words = [*toy_words(tmp_path), f"out={tmp_path}/runs"]
    sweep = ["run", *words, "-m", "method=one", "attribute=a", "seed=0,1"]
    process = Started(impatient, [*sweep, *SLURM])
    # One job hangs. The other is done, so that the queue has the one that hangs alone.
    outcomes = tmp_path / "runs" / ".sweeps"
    wait_until(lambda: notes(tmp_path)["one hangs"], process)
    wait_until(lambda: list(outcomes.glob("*/[!.]*.json")), process)
    wait_until(lambda: len(queue()) == 1, process)
    (hanging,) = queue()
    (tmp_path / "HANG").touch()  # for the second try as well
    subprocess.run(["scontrol", "requeue", hanging], check=True)
    wait_until(lambda: queue("%T") == ["PENDING"], process)
    subprocess.run(["scontrol", "update", f"job={hanging}", "StartTime=now"], check=True)
    wait_until(lambda: notes(tmp_path)["one hangs"] == 2, process)
    subprocess.run(["scancel", hanging], check=True)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert f"submitted to SLURM as job {hanging.partition('_')[0]}" in err
    assert f"lost: job {hanging} CANCELLED\n" in err
    assert "2 jobs: 1 done, 0 skipped, 0 failed, 1 not finished\n" in err
    seed = hanging.partition("_")[2]
    assert re.search(
        rf"  not finished  #{seed} seed={seed}: job {hanging} CANCELLED; .*CANCELLED AT", err
    )
    # The command that is named runs the lost job alone.
    again = shlex.split(re.search("^run them again: (.*)$", err, re.M)[1])
    assert f"seed={seed}" in again and set(SLURM) < set(again)
    assert main([word for word in again[1:] if word not in SLURM]) == 0
    assert "1 job: 1 done, 0 skipped, 0 failed\n" in capfd.readouterr().err
    assert notes(tmp_path)["one fitted"] == 2
