"""How worker processes are started."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext

# Modules that a worker needs. Given by name, since this room may not import `run`.
PRELOADED = ["editbench.run.workers"]


def worker_context() -> BaseContext:
    """The context that starts workers: forks of a server process that has only done the imports.

    A fork of this process itself could hang, since torch's threads and CUDA do not survive a fork.
    A spawned worker takes seconds for its imports, so "spawn" is used only on systems without fork
    (Windows).
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
