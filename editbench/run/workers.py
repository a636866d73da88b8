"""Jobs on a few processes of this machine: they share banks and fits through locks, and each has its share of cores."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import torch
from omegaconf import DictConfig

from editbench.base.errors import EditbenchError
from editbench.base.progress import hush
from editbench.run.job import Outcome, run_job
from editbench.run.launch import available_cores
from editbench.run.sweep import describe, failure, say

MOST = 4  # processes by default: each holds its networks and a split of the bank


def default_workers(device: str) -> int:
    """One process a core, at most MOST; a GPU has one process."""
    return 1 if device != "cpu" else min(available_cores(), MOST)


def run_jobs(configs: Sequence[DictConfig], workers: int) -> Iterator[tuple[DictConfig, Outcome]]:
    """Run jobs, on `workers` processes if there are more than one; outcomes come as jobs end, each with a line."""
    ended = (
        map(_job, range(len(configs)), configs) if workers == 1 else _in_parallel(configs, workers)
    )
    for number, (place, outcome) in enumerate(ended, 1):
        say(describe(configs[place], outcome, f"[{number}/{len(configs)}]"))
        yield configs[place], outcome


def _in_parallel(configs: Sequence[DictConfig], workers: int) -> Iterator[tuple[int, Outcome]]:
    threads = max(1, available_cores() // workers)
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start_worker, (threads,)
    )
    try:
        for done in as_completed(
            [pool.submit(_job, place, cfg) for place, cfg in enumerate(configs)]
        ):
            yield done.result()
    except BrokenProcessPool as error:
        raise EditbenchError(
            "a worker was killed, perhaps for want of memory: what was finished is kept; start again "
            "with fewer --workers"
        ) from error
    finally:  # after an error or Ctrl-C nothing is waited for: the next run begins the jobs under way anew
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()


def _start_worker(threads: int) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a terminal sends Ctrl-C to all; the first process ends the others
    hush()
    torch.set_num_threads(threads)


def _job(place: int, cfg: DictConfig) -> tuple[int, Outcome]:
    try:
        return place, run_job(cfg)
    except Exception as error:  # one job's trouble is not the others'
        return place, failure(error)
