"""Launchers: how many workers there are, and what each gets of the machine, and plugins that are missing."""

import os
from multiprocessing import forkserver

import pytest
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend.context import get_start_method
from omegaconf import OmegaConf

from editbench.cli import main
from editbench.run import launch
from tests.processes import ROOT


# -- shares of the machine -------------------------------------------------------------------------
def config(target, **hydra):
    return OmegaConf.create(
        {
            "hydra": {
                "launcher": {"_target_": f"x.{target}", "n_jobs": hydra.pop("n_jobs", None)},
                "sweeper": hydra,
            }
        }
    )


@pytest.mark.parametrize(
    ("target", "options", "jobs", "workers"),
    [
        ("BasicLauncher", {}, 20, 1),
        ("JoblibLauncher", {"n_jobs": 3}, 20, 3),
        ("JoblibLauncher", {"n_jobs": 3}, 2, 2),
        ("JoblibLauncher", {"n_jobs": -1}, 20, 8),
        ("JoblibLauncher", {"n_jobs": -2}, 20, 7),
        ("LocalLauncher", {}, 20, 20),
        ("LocalLauncher", {"max_batch_size": 4}, 20, 4),
        ("SlurmLauncher", {}, 20, None),
    ],
)
def test_workers_on_this_machine(target, options, jobs, workers):
    assert launch.local_workers(config(target, **options), jobs, cores=8) == workers


def test_threads_share_the_cores_unless_the_user_said_how_many():
    assert [launch.worker_threads(workers, 8, {}) for workers in (None, 1, 2, 3, 8, 20)] == [
        None,
        None,
        4,
        2,
        1,
        1,
    ]
    assert launch.worker_threads(2, 8, {"OMP_NUM_THREADS": "3"}) is None


def test_gpus_are_dealt_in_turn():
    assert [launch.dealt_device("cuda", k, 3) for k in range(5)] == [
        "cuda:0",
        "cuda:1",
        "cuda:2",
        "cuda:0",
        "cuda:1",
    ]
    assert [launch.dealt_device(name, 4, 3) for name in ("cpu", "cuda:2")] == ["cpu", "cuda:2"]
    assert launch.dealt_device("cuda", 1, 0) == "cuda"  # no GPU: the job says so itself


# -- launchers that are not there ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "extra"),
    [("joblib", "launch"), ("submitit_local", "slurm"), ("submitit_slurm", "slurm")],
)
def test_a_missing_plugin_is_named_with_its_extra(name, extra, monkeypatch, capsys):
    monkeypatch.setattr(launch, "installed", lambda plugin: False)
    assert main(["run", "-m", f"hydra/launcher={name}", "seed=0,1"]) == 1
    assert f"pip install 'editbench[{extra}]'" in capsys.readouterr().err
    assert f'\n{extra} = ["' in (ROOT / "pyproject.toml").read_text()


def test_workers_of_joblib_are_forks_of_the_server_with_the_imports():
    before = get_start_method()
    with launch.forked_joblib_workers():
        parents = Parallel(n_jobs=2)(delayed(os.getppid)() for _ in range(4))
    get_reusable_executor().shutdown()
    assert set(parents) == {forkserver._forkserver._forkserver_pid}
    assert get_start_method() == before


def test_an_unknown_launcher_gets_the_nearest(capsys):
    assert not launch.installed("no_such_plugin")
    assert main(["run", "-m", "hydra/launcher=jobli", "seed=0,1"]) == 2
    assert (
        "unknown launcher 'jobli'. Did you mean 'joblib'? Available: basic, joblib"
        in capsys.readouterr().err
    )


def test_an_unknown_key_of_a_launcher_gets_the_nearest(capsys):
    assert main(["run", "-m", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.njobs=2"]) == 2
    error = capsys.readouterr().err
    assert "unknown option of 'hydra.launcher' 'njobs'. Did you mean 'n_jobs'?" in error
    # Joblib has no other key of this name: Hydra's advice to add it would be wrong.
    assert "+hydra" not in error
