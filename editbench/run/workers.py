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
from editbench.base.workers import start_worker, worker_context
from editbench.run.follow import Pace
from editbench.run.job import find_job, run_job
from editbench.run.job_names import full_title, own_words
from editbench.run.launch import available_cores
from editbench.run.outcome import Outcome, describe_outcome, failed_outcome
from editbench.run.settings import Settings

MOST = 4  # processes by default: each holds its networks and a split of the bank


def default_workers(device: str) -> int:
    """One process a core, at most MOST; a GPU has one process."""
    if device != "cpu":  # several processes would each hold the networks in the GPU's memory
        return 1
    return min(available_cores(), MOST)


def run_jobs(
    jobs: Sequence[Settings], workers: int, words: Sequence[Sequence[str]] = ()
) -> Iterator[tuple[Settings, Outcome]]:
    """Run jobs; a line is printed as each ends. Those whose records are there come first.

    Args:
        jobs: the settings of each.
        workers: processes; with 1 the jobs run in this one, in their order.
        words: the overrides of each, where they were made from some; the lines tell which differ.

    Yields:
        The settings and the outcome of a job, in the order in which jobs end.

    Raises:
        EditbenchError: a worker was killed.
    """
    pace = Pace(len(jobs))
    own = own_words(words) or [[] for _ in jobs]
    for place, outcome in _outcomes(jobs, workers):
        settings = jobs[place]
        mark = pace.mark(outcome.reused)
        title = full_title(settings.title, own[place])
        print_message(f"{mark} {title}: {describe_outcome(settings, outcome)}{pace.left()}")
        yield settings, outcome


def _outcomes(jobs: Sequence[Settings], workers: int) -> Iterator[tuple[int, Outcome]]:
    """The place of each job and its outcome, as they end."""
    missing: dict[int, Settings] = {}
    for place, settings in enumerate(jobs):
        # Without a folder of records there is nothing to find.
        outcome = find_job(settings) if settings.out.is_dir() else None
        if outcome is None:
            missing[place] = settings
        else:
            yield place, outcome
    # A single worker is this process itself, so that a debugger and Ctrl-C reach the job.
    yield from _in_turn(missing) if workers == 1 else _in_parallel(missing, workers)


def _in_turn(jobs: Mapping[int, Settings]) -> Iterator[tuple[int, Outcome]]:
    for place, settings in jobs.items():
        yield _job(place, settings)


def _in_parallel(jobs: Mapping[int, Settings], workers: int) -> Iterator[tuple[int, Outcome]]:
    threads = max(1, available_cores() // workers)
    folders = user_code.searched_folders()
    others = set(multiprocessing.active_children())  # of whoever called this
    pool = ProcessPoolExecutor(workers, worker_context(), _start_worker, (threads, folders))
    try:
        waiting = [pool.submit(_job, place, settings) for place, settings in jobs.items()]
        for done in as_completed(waiting):
            yield done.result()
    except BrokenProcessPool as error:
        raise EditbenchError(
            "a worker was killed, perhaps because memory ran out: finished work is kept; start "
            "again with fewer --workers"
        ) from error
    finally:
        # After an error or Ctrl-C there is no waiting: the next run starts these jobs again.
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
