"""Jobs on a few processes of this machine: they share banks and fits through locks, and each has its share of cores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import torch
from joblib import Parallel, delayed
from omegaconf import DictConfig

from editbench.job import Outcome, run_job
from editbench.progress import hush
from editbench.sweep import describe, failure, say

MOST = 4  # processes by default: each holds its networks and a split of the bank


def default_workers(device: str) -> int:
    """One process a core, at most MOST; a GPU has one process."""
    return 1 if device != "cpu" else min(len(os.sched_getaffinity(0)), MOST)


def run_jobs(configs: Sequence[DictConfig], workers: int) -> Iterator[tuple[DictConfig, Outcome]]:
    """Run jobs, on `workers` processes if there are more than one; outcomes come as jobs end, each with a line."""
    if workers == 1:
        ended = (_job(place, cfg) for place, cfg in enumerate(configs))
    else:
        threads = max(1, len(os.sched_getaffinity(0)) // workers)
        pool = Parallel(n_jobs=workers, return_as="generator_unordered", pre_dispatch=workers)
        ended = pool(delayed(_in_worker)(place, cfg, threads) for place, cfg in enumerate(configs))
    for number, (place, outcome) in enumerate(ended, 1):
        say(describe(configs[place], outcome, f"[{number}/{len(configs)}]"))
        yield configs[place], outcome


def _in_worker(place: int, cfg: DictConfig, threads: int) -> tuple[int, Outcome]:
    hush()
    torch.set_num_threads(threads)
    return _job(place, cfg)


def _job(place: int, cfg: DictConfig) -> tuple[int, Outcome]:
    try:
        return place, run_job(cfg)
    except Exception as error:  # one job's trouble is not the others'
        return place, failure(error)
