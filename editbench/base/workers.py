"""How worker processes are started."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing.context import BaseContext
from pathlib import Path

from editbench.base import user_code

# Modules that a worker needs. Given by name, since this room may not import `run`.
PRELOADED = ["editbench.run.workers", "editbench.walk.metric"]


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


def prepare_workers() -> BaseContext:
    """Start the server process now, so that its imports run beside the work of this process.

    Returns:
        The context of `worker_context`.
    """
    context = worker_context()
    if context.get_start_method() == "forkserver":
        # Imported here, since Windows has no such server.
        from multiprocessing import forkserver

        try:
            with _ignored_interrupts():
                forkserver.ensure_running()
        except RuntimeError:
            # A worker imports the script that asked for workers, and the script asks for them once
            # more, which Python refuses. The worker ends without a traceback of its own, since the
            # first process says what to do.
            if "__mp_main__" not in sys.modules:  # what a worker calls this script
                raise
            raise SystemExit(1) from None
    return context


@contextmanager
def _ignored_interrupts() -> Iterator[None]:
    """Processes that are started within it ignore Ctrl-C, which a terminal sends to all processes.

    The server ignores it only after its imports, and would print a traceback before.
    """
    # Other threads can neither set handlers nor get the signal.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def start_worker(*folders: Path) -> None:
    """Prepare a worker process of a pool; its initializer.

    The worker ends with its starter, and Ctrl-C interrupts it.

    Args:
        folders: where modules of the user are searched, as in the process that started the pool.
    """
    user_code.search_folders(*folders)
    # The server that was forked ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end_with_starter()


@cache  # one watcher per process is enough
def end_with_starter() -> None:
    """End this process when the process that started it has ended.

    A killed process cannot end its workers. They would wait for ever, with their memory and the
    locks that they hold.
    """
    # Not os.getppid(), which is the server that was forked.
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            # sys.exit would end only this thread.
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
