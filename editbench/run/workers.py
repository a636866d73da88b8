"""Jobs on a few processes of this machine.

They share banks and fits through locks, and each has its share of the cores.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from editbench.base import user_code
from editbench.base.errors import EditbenchError
from editbench.base.progress import disable_progress, print_message
from editbench.base.workers import prepare_workers, start_worker
from editbench.run.follow import Pace
from editbench.run.job import find_job, run_job
from editbench.run.job_names import full_title, own_words
from editbench.run.launch import available_cores
from editbench.run.outcome import Outcome, describe_outcome, failed_outcome
from editbench.run.settings import Settings

MOST = 4  # processes by default, since each has its networks and a split of the bank in memory


class WorkerKilled(EditbenchError):
    """A worker process ended before its job, so the other jobs did not run either."""


def default_workers(device: str) -> int:
    """Number of processes by default: one per core, at most MOST; one for a GPU."""
    if device != "cpu":  # several processes would need the memory of the GPU several times
        return 1
    return min(available_cores(), MOST)


def run_jobs(
    jobs: Sequence[Settings], workers: int, words: Sequence[Sequence[str]] = ()
) -> Iterator[tuple[Settings, Outcome]]:
    """Run jobs, and print a line as each ends. Jobs whose records exist come first.

    Args:
        jobs: the settings of each.
        workers: number of processes; with 1, the jobs run in this process, in order.
        words: the overrides of each job, if known. The lines show those in which jobs differ.

    Yields:
        The settings and the outcome of a job, in the order in which jobs end.

    Raises:
        WorkerKilled: a worker ended before its job.
    """
    pace = Pace(len(jobs), min(workers, len(jobs)))
    own = own_words(words) or [[] for _ in jobs]
    for place, outcome in _outcomes(jobs, workers):
        settings = jobs[place]
        mark = pace.mark(outcome.status, outcome.reused, outcome.seconds)
        title = full_title(settings.title, own[place])
        print_message(f"{mark} {title}: {describe_outcome(settings, outcome)}{pace.left()}")
        yield settings, outcome


def _outcomes(jobs: Sequence[Settings], workers: int) -> Iterator[tuple[int, Outcome]]:
    """The position of each job and its outcome, as they end."""
    missing: dict[int, Settings] = {}
    for place, settings in enumerate(jobs):
        # Without a folder of records, no record can exist.
        outcome = find_job(settings) if settings.out.is_dir() else None
        if outcome is None:
            missing[place] = settings
        else:
            yield place, outcome
    # With one worker, jobs run in this process, so that a debugger and Ctrl-C reach them.
    yield from _in_turn(missing) if workers == 1 else _in_parallel(missing, workers)


def _in_turn(jobs: Mapping[int, Settings]) -> Iterator[tuple[int, Outcome]]:
    for place, settings in jobs.items():
        yield _job(place, settings)


def _in_parallel(jobs: Mapping[int, Settings], workers: int) -> Iterator[tuple[int, Outcome]]:
    threads = max(1, available_cores() // workers)
    folders = user_code.searched_folders()
    others = set(multiprocessing.active_children())  # started by the caller
    pool = ProcessPoolExecutor(workers, prepare_workers(), _start_worker, (threads, folders))
    try:
        waiting = [pool.submit(_job, place, settings) for place, settings in jobs.items()]
        for done in as_completed(waiting):
            yield done.result()
    except BrokenProcessPool as error:
        raise WorkerKilled(
            "a worker was killed, perhaps because memory ran out: finished work is kept; start "
            "again with fewer --workers"
        ) from error
    finally:
        # After an error or Ctrl-C, jobs are not awaited: the next run starts them again.
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()


def _start_worker(threads: int, folders: Sequence[Path]) -> None:
    start_worker(*folders)
    # A terminal sends Ctrl-C to all processes; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    disable_progress()
    torch.set_num_threads(threads)


def _job(place: int, settings: Settings) -> tuple[int, Outcome]:
    try:
        return place, run_job(settings)
    except Exception as error:  # one job's error must not end the others
        return place, failed_outcome(error)
