"""Running one or many jobs under Hydra: a line as each job ends, and a summary with reasons.

With any launcher and on any machine, every job of a sweep writes its outcome as a small file to the
sweep's folder. The summary is made from these files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from editbench.base import user_code
from editbench.base.compute_options import is_gpu
from editbench.base.conf import MAIN, quoted
from editbench.base.errors import BadFile, EditbenchError, one_line
from editbench.base.files import (
    claim_folder,
    explain_disk_errors,
    read_json,
)
from editbench.base.progress import print_message
from editbench.base.workers import prepare_workers
from editbench.run.callbacks import Callbacks
from editbench.run.compose import (
    JobComposer,
    check_sweep,
    compose_master,
)
from editbench.run.follow import Follower, outcome_numbers
from editbench.run.job_names import full_title, own_words
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
from editbench.run.overrides import (
    NUMBER,
    check_single,
    check_words_have_effect,
    hydra_application,
)
from editbench.run.settings import Settings
from editbench.run.task import STARTER, job_task

if TYPE_CHECKING:
    from editbench.run.cluster import SubmittedJobs

# It and STARTER reach the workers through the environment, which every launcher hands on.
THREADS = "OMP_NUM_THREADS"
FULL_ERROR = "HYDRA_FULL_ERROR"  # 1: show tracebacks of Hydra and its launchers
LISTED = 20  # jobs that a line of the summary names
SILENT = (
    "workers start, and show no progress: a line follows when a job ends. A bank or a fit that "
    "is not in the cache is computed first"
)
STOPPED = "stopped: finished jobs and bank shards are kept; run the same command to resume"
INTERRUPTED = 130  # exit code after Ctrl-C, as shells give it

Task = Callable[[DictConfig], Outcome]
# Words of the failed jobs and of all jobs of a sweep -> the command that runs the failed ones again.
Again = Callable[[Sequence[Sequence[str]], Sequence[Sequence[str]]], str]


@dataclass(frozen=True)
class Sweep:
    """A sweep under way.

    Args:
        folder: where its jobs leave their outcomes, as NUMBER.json.
        jobs: the overrides of each job, in order.
    """

    folder: Path
    jobs: list[list[str]]

    @property
    def own(self) -> list[list[str]]:
        """Of each job, the words that its title lacks."""
        return own_words(self.jobs)


# -- running -------------------------------------------------------------------------------------
def run_single(task: Task, overrides: Sequence[str], more: Sequence[Path] = ()) -> int:
    """Run a task once, under Hydra.

    Args:
        task: takes the composed configuration.
        overrides: words of the command line, which `check_overrides` has seen.
        more: a user's own configuration folders.

    Returns:
        The exit code: 0, 1 where the job failed, 130 after Ctrl-C.

    Raises:
        EditbenchError: the configuration is wrong.
    """
    check_single(overrides)

    def guarded(config: DictConfig) -> Outcome | EditbenchError:
        try:
            return task(config)
        except EditbenchError as error:
            return error  # Hydra would print its own lines about an exception

    with hydra_application(more, overrides) as hydra, _explained_disk():
        try:
            done = hydra.run(MAIN, guarded, list(overrides))
        except KeyboardInterrupt:
            print_message(STOPPED)
            return INTERRUPTED
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
        again: gives the command that the summary names where jobs failed.

    Returns:
        The exit code, as of `run_single`.

    Raises:
        EditbenchError: the configuration is wrong.
    """
    # The environment is put back at the end: this process may start another sweep.
    with hydra_application(more, overrides) as hydra, _explained_disk(), _own_environment():
        master, jobs = compose_master(hydra.config_loader, overrides)
        launcher = str(master.hydra.launcher["_target_"])
        if ends_with_its_sweep(launcher):
            # Now, so that the imports for the workers run beside the checks of this process.
            with _own_environment():
                share_environment(master, len(jobs))
                prepare_workers()
        # Before the folder is claimed: a sweep with a wrong value leaves nothing behind.
        composer = JobComposer(hydra.config_loader, master, more)
        composed = check_sweep(composer, jobs)
        if task is job_task:  # a task of another command draws no starts
            from editbench.run.protocol import check_protocols  # torch, so after the settings

            check_words_have_effect(composed, overrides)
            check_protocols(composed)
        # Jobs that are sent to other machines find the devices there.
        if local_workers(master, len(jobs), available_cores()) is not None:
            check_devices_here(task, composer, jobs, composed)
        submitted = _submitted_jobs(master.hydra.launcher)
        sweep = Sweep(claim_folder(Path(master.hydra.sweep.dir).absolute()), jobs)
        share_sweep_settings(master, sweep.folder)
        share_environment(master, len(jobs))
        interrupted = False
        follower = Follower(sweep.folder, sweep.own)
        numbers = list(range(len(jobs)))  # of the jobs that the launcher gets
        try:
            if task is job_task:
                numbers = finish_found_jobs(sweep, composer, follower)
            if numbers:
                with _followed(task, follower, launcher, submitted) as followed:
                    launch_jobs(sweep, numbers, hydra.config_loader, master, followed)
        except KeyboardInterrupt:
            interrupted = True
        except Exception as error:
            if _is_explained(error) or os.environ.get(FULL_ERROR) == "1":
                raise
            print_message(f"the launcher stopped: {one_line(error)} ({FULL_ERROR}=1 shows where)")
    going_on = submitted.release() if submitted else ""
    if going_on:
        keep_copies()
    code = finish_sweep(sweep, interrupted, again, partial(_describe_end, submitted, numbers))
    if going_on or interrupted:
        print_message(going_on or STOPPED)
    return INTERRUPTED if interrupted else code


def check_devices_here(
    task: Task, composer: JobComposer, jobs: Sequence[list[str]], composed: Sequence[Settings]
) -> None:
    """Check, once a sweep, that this machine has the devices of its jobs.

    Args:
        task: of the sweep.
        composer: of its jobs.
        jobs: the words of each.
        composed: settings that cover every swept value.

    Raises:
        EditbenchError: a device is missing.
    """
    if not any(is_gpu(settings.device) for settings in composed):
        return
    from editbench.run.job import check_devices  # torch, so after the settings
    from editbench.run.loading import check_device, is_device_missing

    missing = [settings.device for settings in composed if is_device_missing(settings.device)]
    # Composing every job of a large sweep takes long, and is needed only to look for their records.
    if missing and task is job_task:
        check_devices(_valid_settings(composer, jobs))
    elif missing:
        check_device(missing[0])


def _valid_settings(composer: JobComposer, jobs: Iterable[list[str]]) -> Iterator[Settings]:
    """The settings of jobs; without those with a wrong value, which is their own outcome."""
    for words in jobs:
        try:
            settings = composer.settings(words)
        except EditbenchError:
            continue
        yield settings


def _describe_end(submitted: SubmittedJobs | None, numbers: Sequence[int], number: int) -> str:
    """How job `number` came to leave no outcome; '' where its launcher does not know."""
    if submitted is None or number not in numbers:
        return ""
    return submitted.describe(numbers.index(number))


def _submitted_jobs(options: DictConfig) -> SubmittedJobs | None:
    """What waits for the jobs of a launcher of submitit; None for another launcher.

    Args:
        options: of the launcher.

    Raises:
        EditbenchError: there is no SLURM to send jobs to.
    """
    place = submitit_cluster(str(options["_target_"]))
    if place is None:
        return None
    from editbench.run import cluster  # submitit is no dependency of the package

    if place == cluster.SLURM:
        cluster.check_slurm(options)
    return cluster.SubmittedJobs(place)


@contextmanager
def _followed(
    task: Task, follower: Follower, launcher: str, submitted: SubmittedJobs | None
) -> Iterator[Task]:
    """A task for Hydra's launcher, with a line as each job ends.

    Jobs of this process print between their own bars; those of others are looked for.
    """
    if many_processes(launcher):
        # submitit tells where its jobs are and log; workers of joblib are silent, and a bank may
        # take them minutes before the first job ends.
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


def run_hydra(
    task: Task,
    overrides: Sequence[str],
    more: Sequence[Path] = (),
    sweep: bool = False,
    again: Again | None = None,
) -> int:
    """`run_sweep` where `sweep` is true or the configuration says so, else `run_single`.

    A user's experiment may say hydra.mode=MULTIRUN; ours never do. Looking costs a composition, so
    it is done only where a user's folder or the words could have it.

    Args:
        task: takes the composed configuration.
        overrides: words of the command line, which `check_overrides` has seen.
        more: a user's own configuration folders.
        sweep: whether the command line asks for a sweep.
        again: as for `run_sweep`.

    Returns:
        The exit code, as of `run_single`.

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


def _is_explained(error: Exception) -> bool:
    """Whether an error has its own explanation, so that it did not come from a launcher."""
    kinds = (EditbenchError, HydraException, OmegaConfBaseException, OSError)
    return isinstance(error, kinds)


def finish_found_jobs(sweep: Sweep, composer: JobComposer, follower: Follower) -> list[int]:
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


def share_sweep_settings(master: DictConfig, folder: Path) -> None:
    """Tell the jobs of a sweep what they share: its folder, its mode and its launcher.

    Args:
        master: configuration of the sweep as a whole, with Hydra's own node.
        folder: that was claimed for it. Two sweeps may start in one second: it is this one's alone.
    """
    of_hydra = master.hydra.overrides.hydra
    of_hydra += [f"hydra.sweep.dir={quoted(folder)}", "hydra.mode=MULTIRUN"]
    # A job may have an experiment with a launcher of its own, which is not the one that starts it.
    if not any(word.startswith(CHOICE) for word in of_hydra):
        of_hydra.append(f"{CHOICE}{master.hydra.runtime.choices[CHOICE.removesuffix('=')]}")
    master.hydra.sweep.dir = str(folder)
    master.hydra.mode = RunMode.MULTIRUN


def launch_jobs(
    sweep: Sweep,
    numbers: Sequence[int],
    loader: ConfigLoader,
    master: DictConfig,
    task: TaskFunction,
) -> None:
    """Hand jobs to Hydra's launcher, each with its words and its number.

    Hydra's own sweeper makes the jobs from the words of the command line, so that it cannot leave
    one out that is found, and it composes every job once more than its launcher does.

    Args:
        sweep: under way.
        numbers: of the jobs.
        loader: of Hydra.
        master: configuration of the sweep as a whole, after `share_sweep_settings`.
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
def _explained_disk() -> Iterator[None]:
    """Explain errors of folders that cannot be written, which Hydra does not explain."""
    try:
        yield
    except OSError as error:
        # The folder of a sweep lies there, unless hydra.sweep.dir is set.
        with explain_disk_errors(Path(error.filename or "."), "out=DIR"):
            raise


@contextmanager
def _own_environment() -> Iterator[None]:
    """Undo what a sweep set for its workers, for whatever this process does next."""
    before = {name: os.environ.get(name) for name in (THREADS, STARTER)}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def share_environment(master: DictConfig, jobs: int) -> None:
    """Set what the processes of a launcher inherit: the starter, and how many threads each may have.

    Args:
        master: configuration of the sweep as a whole, with Hydra's own node.
        jobs: number of jobs.
    """
    os.environ[STARTER] = str(os.getpid())
    cores = available_cores()
    threads = worker_threads(local_workers(master, jobs, cores), cores, os.environ)
    if threads is not None:
        os.environ[THREADS] = str(threads)


def _in_worker(
    task: Task, folders: Sequence[Path], of_submitit: bool, config: DictConfig
) -> Outcome:
    """A task in a process of a launcher, which finds the user's modules as the sweep's own does.

    Args:
        task: what is done.
        folders: of the user's modules.
        of_submitit: whether the launcher is one of submitit's.
        config: of the job.
    """
    user_code.search_folders(*folders)
    if of_submitit:
        from editbench.run.cluster import stop_is_no_failure

        stop_is_no_failure()
    return task(config)


# -- the summary ---------------------------------------------------------------------------------
def print_summary(
    outcomes: Sequence[dict[str, Any]],
    lost: Sequence[str] = (),
    stopped: bool = False,
    again: str = "",
) -> int:
    """Print how many jobs were done, skipped and failed, and why.

    Args:
        outcomes: of the jobs: the fields of Outcome and 'job', its title.
        lost: titles of jobs that left no outcome. Where the sweep was not stopped on purpose they
            make it fail.
        stopped: whether a person stopped the sweep.
        again: the command that runs what failed again.

    Returns:
        The exit code: 1 if any job failed.
    """
    by_status: dict[str, list[dict[str, Any]]] = {"done": [], "skipped": [], "failed": []}
    for outcome in outcomes:
        by_status[outcome["status"]].append(outcome)
    parts = [f"{len(jobs)} {status}" for status, jobs in by_status.items()]
    if lost:
        parts.append(f"{len(lost)} not finished")
    reused = sum(outcome["reused"] for outcome in outcomes)
    found = f" ({reused} reused)" if reused else ""
    print_message(f"\n{len(outcomes) + len(lost)} jobs: {', '.join(parts)}{found}")
    for status in ("skipped", "failed"):
        # One reason may be that of every job.
        by_reason: dict[str, list[str]] = {}
        for outcome in by_status[status]:
            by_reason.setdefault(outcome["reason"], []).append(str(outcome["job"]))
        for reason, jobs in by_reason.items():
            print_message(f"  {status}  {_listed(jobs)}: {reason}")
    # After Ctrl-C, jobs without an outcome are expected.
    are_missed = bool(lost) and not stopped
    if are_missed:
        _say_lost(lost)
    failed = [str(outcome["job"]) for outcome in by_status["failed"]]
    if failed:
        print_message(f"{len(failed)} failed: {_listed(failed)}")
    if again and (failed or are_missed):
        print_message(f"run them again: {again}")
    return int(bool(by_status["failed"]) or are_missed)


def _listed(jobs: Sequence[str]) -> str:
    """The titles of jobs in one line, the first LISTED of them."""
    named = "; ".join(jobs[:LISTED])
    if len(jobs) > LISTED:
        named += f"; and {len(jobs) - LISTED} more"
    return named


def _say_lost(lost: Sequence[str]) -> None:
    for job in lost[:LISTED]:
        print_message(f"  not finished  {job}")
    if len(lost) > LISTED:
        print_message(f"  not finished  and {len(lost) - LISTED} more")
    print_message(
        "these jobs did not report back: their workers were killed (out of memory?), cancelled or "
        "stopped. Finished jobs and bank shards are kept; run the same command to complete the rest"
    )


def finish_sweep(
    sweep: Sweep,
    stopped: bool = False,
    again: Again | None = None,
    describe_end: Callable[[int], str] = lambda _: "",
) -> int:
    """Print the summary of a sweep from the outcomes that its jobs left.

    Args:
        sweep: that has ended.
        stopped: whether a person stopped it.
        again: gives the command that runs again what failed.
        describe_end: tells of a job's number how it came to leave no outcome, or ''.

    Returns:
        The exit code, as of `print_summary`.
    """
    # The launcher's results are ignored, since a worker that was killed returns nothing.
    outcomes = read_outcomes(sweep.folder)
    for number, words in enumerate(sweep.own):
        if number in outcomes:
            outcomes[number]["job"] = full_title(outcomes[number]["job"], words)
    common: set[str] = set()  # words that all jobs share, which do not distinguish them
    if len(sweep.jobs) > 1:
        common = set.intersection(*map(set, sweep.jobs))
    lost: list[str] = []
    to_repeat: list[list[str]] = []
    for number, job in enumerate(sweep.jobs):
        if number not in outcomes or outcomes[number]["status"] == "failed":
            to_repeat.append(job)
        if number not in outcomes:
            own = " ".join(word for word in job if word not in common)
            # After Ctrl-C they are only counted.
            end = "" if stopped else describe_end(number)
            lost.append(f"#{number} {own}: {end}" if end else f"#{number} {own}")
    command = again(to_repeat, sweep.jobs) if again and to_repeat else ""
    return print_summary(list(outcomes.values()), lost, stopped, command)


def read_outcomes(folder: Path) -> dict[int, dict[str, Any]]:
    """Outcomes that the jobs of a sweep left, by their numbers. A damaged one is named."""
    outcomes: dict[int, dict[str, Any]] = {}
    for number in outcome_numbers(folder):
        try:
            outcomes[number] = read_json(folder / f"{number}.json")
        except BadFile as error:
            print_message(str(error))
    return outcomes
