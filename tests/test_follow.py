"""The lines of a sweep: a count, the time left, and the command that runs the failed jobs again."""

from __future__ import annotations

import io
import itertools
import re
import sys

import numpy as np
import pytest

from editbench.base import progress
from editbench.base.files import write_json
from editbench.commands.command_line import CommandLine
from editbench.run import follow, job
from editbench.run.follow import Follower, Pace
from editbench.run.loading import load_bank
from editbench.run.outcome import headline
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.run.stages import fit_and_walk
from editbench.run.sweep_summary import again_command
from tests.fake_records import fake_run, metric_rows
from tests.toy_world import toy_config


def leave(folder, number, reused=False, seconds=0.0):
    outcome = {
        "status": "done",
        "reused": reused,
        "job": f"job {number}",
        "told": "done",
        "seconds": seconds,
    }
    write_json(folder / f"{number}.json", outcome)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(follow.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.4, "about 4 s left"),
        (99, "about 99 s left"),
        (150, "about 2 min left"),
        (9000, "about 2.5 h left"),
    ],
)
def test_time_in_words(seconds, text):
    assert progress.time_left(seconds) == text


def test_the_pace_is_that_of_jobs_that_took_time():
    pace = Pace(5)
    assert pace.mark("done", True, 0.0) == "[1/5]" and pace.left() == ""
    # One job in 30 s, and three are left.
    assert pace.mark("done", False, 30.0) == "[2/5]" and pace.left() == " (about 90 s left)"
    assert pace.mark("done", False, 10.0) == "[3/5]" and pace.left() == " (about 40 s left)"
    pace.mark("done", False, 10.0)
    assert pace.mark("done", False, 10.0) == "[5/5]" and pace.left() == ""


def test_the_first_jobs_of_a_long_sweep_say_nothing_of_its_pace():
    """They compute the fits that later jobs find."""
    pace = Pace(100)
    for _ in range(4):
        pace.mark("done", False, 12.0)
        assert pace.left() == ""
    pace.mark("done", False, 12.0)
    assert pace.left() == " (about 19 min left)"


@pytest.mark.parametrize("at_once", [1, 4, None])
def test_a_job_that_fails_at_once_says_nothing_of_the_pace(clock, at_once):
    pace = Pace(9, at_once)
    clock[0] += 1
    for status in ("failed", "skipped"):
        pace.mark(status, False, 0.1)
        assert pace.left() == ""
    clock[0] += 60
    pace.mark("done", False, 60.0)
    # Six jobs of a minute each, one after the other or four at a time.
    seconds = {1: 360, 4: 90, None: 360}[at_once]
    assert pace.left() == f" ({progress.time_left(seconds)})"


def test_a_bank_that_is_built_first_is_no_part_of_the_pace(clock):
    pace = Pace(4, at_once=None)
    clock[0] += 3600
    pace.mark("done", False, 20.0)
    assert pace.left() == " (about 60 s left)"


def test_on_other_machines_the_pace_shows_how_many_jobs_ran_at_once(clock):
    pace = Pace(12, at_once=None)
    clock[0] += 20
    for _ in range(4):
        pace.mark("done", False, 20.0)
    # Four jobs took 20 s together, and eight are left.
    assert pace.left() == " (about 40 s left)"
    # Three of them then wait for a free machine.
    clock[0] += 80
    pace.mark("done", False, 20.0)
    assert pace.left() == f" ({progress.time_left(7 * 100 / 5)})"


def test_a_job_measures_itself_without_its_bank(tmp_path, monkeypatch):
    class Clock:
        now = 0.0

        def time(self):
            return self.now

    clock = Clock()

    def slow_bank(settings):
        clock.now += 3600
        return load_bank(settings)

    def slow_walk(*args):
        clock.now += 5
        return fit_and_walk(*args)

    monkeypatch.setattr(job, "time", clock)
    monkeypatch.setattr(job, "load_bank", slow_bank)
    monkeypatch.setattr(job, "fit_and_walk", slow_walk)
    settings = Settings.from_config(toy_config(tmp_path))
    assert job.run_job(settings).seconds == 5.0
    assert job.run_job(settings).seconds == 0.0  # found


def test_a_follower_prints_each_job_once(tmp_path, capsys):
    follower = Follower(tmp_path, [[], [], []], at_once=1)
    leave(tmp_path, 2, reused=True)
    (tmp_path / ".partial.json").write_text("{")
    follower.print_new_outcomes()
    assert capsys.readouterr().err == "[1/3] job 2: done\n"
    leave(tmp_path, 0, seconds=7.0)
    follower.print_new_outcomes()
    follower.print_new_outcomes()
    assert capsys.readouterr().err == "[2/3] job 0: done (about 7 s left)\n"
    (tmp_path / "1.json").write_text("damaged")
    follower.print_new_outcomes()  # the summary names it
    assert capsys.readouterr().err == ""


def test_files_that_are_no_outcomes_are_passed_over(tmp_path):
    """A user's callbacks of Hydra may leave files in the folder of the sweep."""
    for name in ("3.json", "11.json", "notes.json", ".partial-4.json", "multirun.yaml"):
        (tmp_path / name).touch()
    assert follow.outcome_numbers(tmp_path) == [3, 11]


def test_a_follower_looks_while_others_work(tmp_path, capsys):
    with Follower(tmp_path, [[]]).polling():
        leave(tmp_path, 0)
    assert capsys.readouterr().err == "[1/1] job 0: done\n"


# -- the command that runs the failed jobs again ---------------------------------------------------
def product(**choices):
    return [
        [f"{key}={value}" for key, value in zip(choices, values)]
        for values in itertools.product(*choices.values())
    ]


def test_only_values_of_failed_jobs_are_swept_again():
    jobs = product(method=["a", "b", "c"], attribute=["x", "y"], seed=["1"])
    words = ["method=a,b,c", "attribute=x,y", "seed=1", "out=my runs"]
    failed = [jobs[3], jobs[5]]  # b x y, c x y
    command = again_command(["editbench", "run", "-m"], words, failed, jobs)
    assert command == "editbench run -m method=b,c attribute=y seed=1 'out=my runs'"


def test_what_an_experiment_sweeps_is_named():
    jobs = product(experiment=["paper"], method=["a", "b"], attribute=["x", "y"])
    command = again_command(["editbench", "run", "-m"], ["experiment=paper"], [jobs[0]], jobs)
    assert command == "editbench run -m experiment=paper attribute=x method=a"


def test_the_command_is_read_as_it_was_written():
    jobs = product(method=["a", "b"], seed=["0", "1"])
    command = again_command(
        ["editbench", "run", "-m"], ["method=a,b", "seed=range(2)"], jobs[:1], jobs
    )
    line = CommandLine.parse(command.split()[2:])
    assert line.sweep and line.overrides == ["method=a", "seed=0"]


# -- bars on a terminal ----------------------------------------------------------------------------
class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_of_two_bars_the_outer_one_is_drawn(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.status("outer"), progress.progress("inner", 3) as advance:
        advance()
        progress.print_message("a line")
        text = sys.stderr.getvalue() if isinstance(sys.stderr, Terminal) else ""
    written = text or sys.stderr.getvalue()
    assert "outer" in written and "inner" not in written
    with progress.progress("after", 2) as advance:
        advance()
    assert "after" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", sys.stderr.getvalue())


def test_the_line_of_a_run_shows_no_number_that_is_none(tmp_path):
    rows = metric_rows(0.5, n=60).head(2)
    rows["group"] = ["crossing", "swap"]
    rows["metric"] = ["accuracy", "swapped"]
    known = fake_run(tmp_path, "alpha", "smile", rows)
    assert re.fullmatch(
        r"accuracy 0.500 \[0\.\d+, 0\.\d+\], swapped 0.700 \[.*\]", headline(Record.read(known))
    )
    rows.loc[rows["metric"] == "accuracy", ["low", "high"]] = np.nan
    rows.loc[rows["metric"] == "swapped", ["value", "low", "high"]] = np.nan
    rows.loc[rows["metric"] == "swapped", "note"] = "needs an observation"
    lacking = fake_run(tmp_path, "beta", "smile", rows)
    assert headline(Record.read(lacking)) == "accuracy 0.500, swapped: needs an observation"
