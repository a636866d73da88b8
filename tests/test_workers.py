"""Jobs on several processes: the same records as on one, and a worker that dies is not the end of the others' work."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver
from pathlib import Path

import pandas as pd
import pytest

from editbench.base.errors import EditbenchError
from editbench.base.workers import prepare_workers, start_worker, worker_context
from editbench.walk.editor import FitReport
from tests.by_config import run_jobs
from tests.processes import Started, wait_until
from tests.toy_world import AlongColumn, toy_config


class Killed(AlongColumn):
    """A method that the system kills, as it does when memory runs out."""

    def fit(self, data) -> FitReport:
        os.kill(os.getpid(), signal.SIGKILL)
        return FitReport()


class Interrupted(AlongColumn):
    """A method that Ctrl-C reaches in its worker, as a terminal sends it to all processes."""

    def fit(self, data) -> FitReport:
        os.kill(os.getpid(), signal.SIGINT)
        return super().fit(data)


def jobs(out):
    names = [("along", "a"), ("along", "b"), ("along", "c"), ("crash", "a"), ("skip", "b")]
    return [
        toy_config(out, f"method={method}", f"attribute={attribute}") for method, attribute in names
    ]


def test_two_workers_leave_the_records_of_one(tmp_path):
    found = {}
    for workers in (1, 2):
        ended = list(run_jobs(jobs(tmp_path / str(workers)), workers))
        found[workers] = {(cfg.method.name, cfg.attribute): outcome for cfg, outcome in ended}
    assert {key: o.status for key, o in found[1].items()} == {
        key: o.status for key, o in found[2].items()
    }
    assert sorted(o.status for o in found[2].values()) == ["done"] * 3 + ["failed", "skipped"]
    for key, outcome in found[1].items():
        assert outcome.run_id == found[2][key].run_id
        if outcome.status == "done":
            tables = [
                pd.read_parquet(tmp_path / n / outcome.run_id / "trajectory.parquet") for n in "12"
            ]
            pd.testing.assert_frame_equal(*tables)


def test_processes_of_whoever_calls_are_left_alone(tmp_path):
    other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    other.start()
    list(run_jobs(jobs(tmp_path)[-2:], 2))
    assert other.is_alive()
    other.kill()
    other.join()


def test_a_worker_that_is_killed_is_told_and_nothing_finished_is_lost(tmp_path):
    configs = jobs(tmp_path)[:2]
    list(run_jobs(configs, 1))
    configs.append(toy_config(tmp_path, "attribute=a", _target_="tests.test_workers.Killed"))
    with pytest.raises(EditbenchError, match="start again with fewer --workers"):
        list(run_jobs(configs, 2))
    assert all(outcome.reused for _, outcome in run_jobs(configs[:2], 1))


def test_ctrl_c_is_the_starters_alone_who_ends_the_workers(tmp_path):
    job = toy_config(tmp_path, "attribute=a", _target_="tests.test_workers.Interrupted")
    try:
        ((_, outcome),) = run_jobs([job], 2)
    except KeyboardInterrupt:  # it would end the tests
        pytest.fail("Ctrl-C stopped a job in a worker")
    assert outcome.status == "done"


def test_what_is_there_comes_first_so_that_the_time_left_is_that_of_the_rest(tmp_path, capsys):
    first, *others = jobs(tmp_path)[:3]
    list(run_jobs(others, 1))
    capsys.readouterr()
    ended = list(run_jobs([first, *others], 1))
    assert [outcome.reused for _, outcome in ended] == [True, True, False]
    assert "left)" not in capsys.readouterr().err


def hold_workers(folder: Path) -> None:
    """Write the ids of idle workers, and wait."""
    pool = ProcessPoolExecutor(2, worker_context(), start_worker)
    ids = pool.map(_slow_id, range(2))
    (folder / "partial").write_text(" ".join(map(str, ids)))
    (folder / "partial").rename(folder / "ids")
    time.sleep(600)


def _slow_id(_: int) -> int:
    time.sleep(0.2)  # the other worker takes the other job
    return os.getpid()


def lives(process: int) -> bool:
    """Whether a process runs; one that ended and was not waited for has no command any more."""
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_idle_workers_end_with_the_process_that_started_them(tmp_path):
    """Also if it is killed, so that it cannot tell them."""
    starter = Started(hold_workers, tmp_path)
    wait_until((tmp_path / "ids").is_file, starter)
    ids = [int(word) for word in (tmp_path / "ids").read_text().split()]
    assert all(map(lives, ids))
    starter.kill()
    starter.wait(timeout=60)
    wait_until(lambda: not any(map(lives, ids)))


def start_server(file: Path) -> None:
    prepare_workers()
    file.with_suffix(".part").write_text(str(forkserver._forkserver._forkserver_pid))
    file.with_suffix(".part").rename(file)
    time.sleep(60)


def test_an_interrupt_while_the_server_imports_prints_nothing_of_it(tmp_path):
    starter = Started(start_server, tmp_path / "server")
    wait_until((tmp_path / "server").is_file, starter)
    server = int((tmp_path / "server").read_text())
    # Torch's libraries are loaded at the beginning of imports that take seconds.
    wait_until(lambda: "libtorch" in Path(f"/proc/{server}/maps").read_text(), starter)
    os.killpg(starter.pid, signal.SIGINT)  # as a terminal does
    # The server ends after its starter, and may write until then.
    wait_until(lambda: not lives(server))
    _, err = starter.communicate(timeout=60)
    assert "KeyboardInterrupt" in err and "multiprocessing/forkserver" not in err
