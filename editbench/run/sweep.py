"""Running one job or a sweep of jobs under Hydra, with any of its launchers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from editbench.base import user_code
from editbench.base.compute_options import is_gpu
from editbench.base.conf import MAIN, quoted
from editbench.base.errors import EditbenchError, one_line
from editbench.base.files import claim_folder, explain_disk_errors
from editbench.base.progress import print_message
from editbench.base.workers import prepare_workers
from editbench.run.callbacks import Callbacks
from editbench.run.compose import JobComposer, check_sweep, compose_master
from editbench.run.follow import Follower
from editbench.run.launch import (
    CHOICE,
    available_cores,
    batch_size,
    ends_with_its_sweep,
    forked_joblib_workers,
    local_workers,
    many_processes,
    submitit_cluster,
    worker_threads,
)
from editbench.run.option_files import keep_copies
from editbench.run.outcome import Outcome, describe_outcome, write_failure, write_outcome
from editbench.run.overrides import NUMBER, check_single, check_words_have_effect, hydra_application
from editbench.run.settings import Settings
from editbench.run.sweep_summary import Again, Sweep, summarize_sweep
from editbench.run.task import STARTER, job_task

if TYPE_CHECKING:
    from editbench.run.cluster import SubmittedJobs

# This and STARTER reach the workers through the environment, which every launcher hands on.
THREADS = "OMP_NUM_THREADS"
FULL_ERROR = "HYDRA_FULL_ERROR"  # 1: show tracebacks of Hydra and its launchers
SILENT = (
    "workers start, and show no progress: a line follows when a job ends. A bank or a fit that "
    "is not in the cache is computed first"
)

Task = Callable[[DictConfig], Outcome]


def run_hydra(
    task: Task,
    overrides: Sequence[str],
    more: Sequence[Path] = (),
    sweep: bool = False,
    again: Again | None = None,
) -> int:
    """Run a task once, or for every job of a sweep.

    It is a sweep if the command line asks for one, or if the configuration sets
    hydra.mode=MULTIRUN. Only a user's own experiment or the words can set it. The mode is looked up
    only then, since this takes a composition of its own.

    Args:
        task: takes the composed configuration.
        overrides: words of the command line, which `check_overrides` has seen.
        more: a user's own configuration folders.
        sweep: whether the command line asks for a sweep.
        again: as for `run_sweep`.

    Returns:
        The exit code, see `run_single` and `run_sweep`.

    Raises:
        EditbenchError: the configuration is wrong.
    """
    may_say = bool(more) or any(word.startswith("hydra.mode") for word in overrides)
    if not sweep and may_say:
        with hydra_application(more, overrides) as hydra:
            sweep = hydra.get_mode(MAIN, list(overrides)) == RunMode.MULTIRUN
    if sweep:
        return run_sweep(task, overrides, more, again)
    return run_single(task, overrides, more)


def run_single(task: Task, overrides: Sequence[str], more: Sequence[Path] = ()) -> int:
    """Run a task once, under Hydra.

    Args:
        task: takes the composed configuration.
        overrides: words of the command line, which `check_overrides` has seen.
        more: a user's own configuration folders.

    Returns:
        The exit code: 0, 1 if the job failed.

    Raises:
        EditbenchError: the configuration is wrong.
        KeyboardInterrupt: Ctrl-C.
    """
    check_single(overrides)

    def guarded(config: DictConfig) -> Outcome | EditbenchError:
        try:
            return task(config)
        except EditbenchError as error:
            return error  # Hydra would print its own lines about an exception

    with hydra_application(more, overrides) as hydra, _explained_disk():
        done = hydra.run(MAIN, guarded, list(overrides))
    if isinstance(done.return_value, EditbenchError):
        raise done.return_value
    return int(done.return_value.status == "failed")


def run_sweep(
    task: Task,
    overrides: Sequence[str],
    more: Sequence[Path] = (),
    again: Again | None = None,
) -> int:
    """Run a task for every job of a sweep with Hydra's launcher, and print the summary.

    Args:
        task: takes the composed configuration.
        overrides: words of the command line, which `check_overrides` has seen.
        more: a user's own configuration folders.
        again: makes the command that the summary names if jobs failed.

    Returns:
        The exit code: 0, 1 if a job failed or left no outcome.

    Raises:
        EditbenchError: the configuration is wrong.
        KeyboardInterrupt: Ctrl-C, after the summary.
    """
    # The environment is put back at the end: this process may start another sweep.
    with hydra_application(more, overrides) as hydra, _explained_disk(), _own_environment():
        master, jobs = compose_master(hydra.config_loader, overrides)
        launcher = str(master.hydra.launcher["_target_"])
        at_once = local_workers(master, len(jobs), available_cores())
        # With one job at a time, joblib runs it in this process.
        if ends_with_its_sweep(launcher) and at_once != 1:
            # Now, so that the imports for the workers run beside the checks of this process, which
            # itself keeps all its threads.
            with _own_environment():
                _share_environment(at_once)
                prepare_workers()
        composer = JobComposer(hydra.config_loader, master, more)
        # Before the folder is claimed: a sweep with a wrong value leaves nothing behind.
        _check_jobs(task, composer, jobs, overrides, here=at_once is not None)
        submitted = _submitted_jobs(master.hydra.launcher)
        sweep = Sweep(claim_folder(Path(master.hydra.sweep.dir).absolute(), "out=DIR"), jobs)
        _share_sweep_settings(master, sweep.folder)
        _share_environment(at_once)
        interrupted = False
        follower = Follower(sweep.folder, sweep.own, at_once)
        numbers = list(range(len(jobs)))  # of the jobs that the launcher gets
        try:
            # Hydra's errors about a full disk do not name the file.
            with _explained_disk(sweep.folder):
                if task is job_task:
                    numbers = _finish_found_jobs(sweep, composer, follower)
                if numbers:
                    with _followed(task, follower, launcher, submitted) as followed:
                        _launch_jobs(sweep, numbers, hydra.config_loader, master, followed)
        except KeyboardInterrupt:
            interrupted = True
        except Exception as error:
            if _is_explained(error) or os.environ.get(FULL_ERROR) == "1":
                raise
            print_message(f"the launcher stopped: {one_line(error)} ({FULL_ERROR}=1 shows where)")
    going_on = submitted.release() if submitted else ""
    if going_on:
        keep_copies()
    code = summarize_sweep(sweep, interrupted, again, partial(_describe_end, submitted, numbers))
    if going_on:
        print_message(going_on)
    if interrupted:
        raise KeyboardInterrupt
    return code


def _check_jobs(
    task: Task,
    composer: JobComposer,
    jobs: Sequence[list[str]],
    overrides: Sequence[str],
    here: bool,
) -> None:
    """Check everything that can be known about the jobs of a sweep before the first one starts.

    Args:
        task: of the sweep.
        composer: of its jobs.
        jobs: the words of each.
        overrides: words of the command line.
        here: whether the jobs run on this machine.

    Raises:
        UnknownName: a key, an attribute or a class does not exist.
        EditbenchError: a value is wrong, or a device is missing.
    """
    composed = check_sweep(composer, list(jobs))
    if task is job_task:  # a task of another command draws no starts
        from editbench.run.protocol import check_protocols  # torch, so after the settings

        check_words_have_effect(composed, overrides)
        check_protocols(composed)
    # Jobs that are sent to other machines find the devices there.
    if here:
        _check_devices(task, composer, jobs, composed)


def _check_devices(
    task: Task, composer: JobComposer, jobs: Sequence[list[str]], composed: Sequence[Settings]
) -> None:
    """Check, once for the whole sweep, that this machine has the devices of its jobs, and their
    precision.

    Args:
        task: of the sweep.
        composer: of its jobs.
        jobs: the words of each.
        composed: settings that cover every swept value.

    Raises:
        EditbenchError: a device is missing, or lacks the precision.
    """
    if not any(is_gpu(settings.device) for settings in composed):
        return
    from editbench.run.job import check_devices  # torch, so after the settings
    from editbench.run.loading import device_problem

    problems = [problem for problem in map(device_problem, composed) if problem is not None]
    # Composing every job of a large sweep takes long, and is needed only to look for their records.
    if problems and task is job_task:
        check_devices(_valid_settings(composer, jobs))
    elif problems:
        raise problems[0]


def _valid_settings(composer: JobComposer, jobs: Iterable[list[str]]) -> Iterator[Settings]:
    """The settings of the jobs whose values are right; the others fail by themselves."""
    for words in jobs:
        try:
            settings = composer.settings(words)
        except EditbenchError:
            continue
        yield settings


def _submitted_jobs(options: DictConfig) -> SubmittedJobs | None:
    """The object that waits for jobs of submitit; None for another launcher.

    Args:
        options: of the launcher.

    Raises:
        EditbenchError: jobs cannot be sent to SLURM from this machine.
    """
    place = submitit_cluster(str(options["_target_"]))
    if place is None:
        return None
    from editbench.run import cluster  # submitit is no dependency of the package

    if place == cluster.SLURM:
        cluster.check_slurm(options)
    return cluster.SubmittedJobs(place)


def _share_sweep_settings(master: DictConfig, folder: Path) -> None:
    """Tell the jobs of a sweep what they share: its folder, its mode and its launcher.

    Args:
        master: configuration of the sweep as a whole, with Hydra's own node.
        folder: claimed for this sweep alone, since two sweeps may start in the same second.
    """
    of_hydra = master.hydra.overrides.hydra
    of_hydra += [f"hydra.sweep.dir={quoted(folder)}", "hydra.mode=MULTIRUN"]
    # A job may have an experiment with a launcher of its own, which is not the one that starts it.
    if not any(word.startswith(CHOICE) for word in of_hydra):
        of_hydra.append(f"{CHOICE}{master.hydra.runtime.choices[CHOICE.removesuffix('=')]}")
    master.hydra.sweep.dir = str(folder)
    master.hydra.mode = RunMode.MULTIRUN


def _share_environment(at_once: int | None) -> None:
    """Tell the processes that a launcher is about to start which process is their starter, and how
    many threads each of them may have.

    Both are set in this process, whose environment they inherit.

    Args:
        at_once: number of jobs that run at once on this machine; None if they run elsewhere.
    """
    os.environ[STARTER] = str(os.getpid())
    threads = worker_threads(at_once, available_cores(), os.environ)
    if threads is not None:
        os.environ[THREADS] = str(threads)


def _finish_found_jobs(sweep: Sweep, composer: JobComposer, follower: Follower) -> list[int]:
    """Write the outcomes of jobs that need no launcher: their records exist, or their settings are
    wrong.

    Args:
        sweep: under way.
        composer: of its jobs.
        follower: prints a line for each.

    Returns:
        The numbers of the other jobs.
    """
    from editbench.run.job import find_job  # torch, so after the settings

    waiting: list[int] = []
    for number, words in enumerate(sweep.jobs):
        try:
            settings = composer.settings(words)
        except EditbenchError as error:
            write_failure(sweep.folder, number, " ".join(words), error)
            follower.print_outcome(number)
            continue
        found = find_job(settings)
        if found is None:
            waiting.append(number)
            continue
        text = describe_outcome(settings, found)
        write_outcome(sweep.folder, number, settings.title, found, text)
        follower.print_outcome(number)
    return waiting


def _launch_jobs(
    sweep: Sweep,
    numbers: Sequence[int],
    loader: ConfigLoader,
    master: DictConfig,
    task: TaskFunction,
) -> None:
    """Hand jobs to Hydra's launcher, each with its words and its number.

    Hydra's own sweeper is not used: it makes the jobs from the words of the command line, so it
    could not leave out those whose records exist, and it composes every job a second time.

    Args:
        sweep: under way.
        numbers: of the jobs.
        loader: of Hydra.
        master: configuration of the sweep as a whole, after `_share_sweep_settings`.
        task: what each job does.
    """
    callbacks = Callbacks(master)
    # Its type in Hydra is private.
    context = HydraContext(config_loader=loader, callbacks=callbacks)  # type: ignore[arg-type]
    launcher = Plugins.instance().instantiate_launcher(context, task, master)
    # Kept where Hydra's sweeper keeps it.
    OmegaConf.save(master, sweep.folder / "multirun.yaml")
    jobs = [[*sweep.jobs[number], f"+{NUMBER}={number}"] for number in numbers]
    at_once = batch_size(master, len(jobs))
    callbacks.on_multirun_start(config=master, config_name=MAIN)
    for first in range(0, len(jobs), at_once):
        done = launcher.launch(jobs[first : first + at_once], initial_job_idx=first)
        for job in done:
            _ = job.return_value  # raises what the job raised
    callbacks.on_multirun_end(config=master, config_name=MAIN)


@contextmanager
def _followed(
    task: Task, follower: Follower, launcher: str, submitted: SubmittedJobs | None
) -> Iterator[Task]:
    """The task that Hydra's launcher runs, such that a line is printed as each job ends.

    A job in this process prints its line itself. The outcomes of jobs in other processes are looked
    for in the folder of the sweep.
    """
    if many_processes(launcher):
        # Jobs of submitit have logs, and it prints where. Workers of joblib are silent, and may
        # compute a bank for minutes before the first job ends.
        if submitted is None:
            print_message(SILENT)
        started = submitted.waiting_executor() if submitted else forked_joblib_workers()
        with follower.polling(), started:
            yield partial(_in_worker, task, user_code.searched_folders(), submitted is not None)
        return

    def run_and_report(config: DictConfig) -> Outcome:
        outcome = task(config)
        follower.print_new_outcomes()
        return outcome

    yield run_and_report


def _in_worker(
    task: Task, folders: Sequence[Path], of_submitit: bool, config: DictConfig
) -> Outcome:
    """Run a task in a process of a launcher, where the user's modules can be imported too.

    Args:
        task: to run.
        folders: of the user's modules.
        of_submitit: whether the launcher is one of submitit's.
        config: of the job.
    """
    user_code.search_folders(*folders)
    if of_submitit:
        from editbench.run.cluster import stop_is_no_failure

        stop_is_no_failure()
    return task(config)


def _describe_end(submitted: SubmittedJobs | None, numbers: Sequence[int], number: int) -> str:
    """Why job `number` left no outcome; '' if its launcher does not know."""
    if submitted is None or number not in numbers:
        return ""
    return submitted.describe(numbers.index(number))


def _is_explained(error: Exception) -> bool:
    """Whether an error has its own explanation, so that it did not come from a launcher."""
    kinds = (EditbenchError, HydraException, OmegaConfBaseException, OSError)
    return isinstance(error, kinds)


@contextmanager
def _explained_disk(folder: Path = Path(".")) -> Iterator[None]:
    """Explain errors of folders that cannot be written, which Hydra does not explain.

    Args:
        folder: named if the error itself names no file.
    """
    try:
        yield
    except OSError as error:
        # The folder of a sweep is inside `out`, unless hydra.sweep.dir is set.
        with explain_disk_errors(Path(error.filename or folder), "out=DIR"):
            raise


@contextmanager
def _own_environment() -> Iterator[None]:
    """Undo, at the end, what a sweep sets in the environment for its workers."""
    before = {name: os.environ.get(name) for name in (THREADS, STARTER)}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
