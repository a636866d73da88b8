"""Processes that work for this one."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext

# What a worker needs. Named, not imported: this room may not import `run`.
PRELOADED = ["editbench.run.workers"]


def worker_context() -> BaseContext:
    """How worker processes are started: as forks of a process that has only imported this package.

    A copy of this process itself could hang, since torch's threads and CUDA do not survive a fork.
    A worker that is started from nothing ("spawn") spends seconds on imports, so it is what is left
    where there is no fork (Windows).
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
