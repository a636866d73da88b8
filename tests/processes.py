"""Processes for the tests that kill, interrupt or race them; they do not import torch anew.

An interpreter that is started afresh spends seconds of CPU on imports. Here a server of
`multiprocessing` imports once, `tests.warm` included, and each process is a fork of it, with
memory, locks and signals of its own. What happens at the start or the exit of an interpreter needs
`subprocess`.
"""

from __future__ import annotations

import atexit
import faulthandler
import multiprocessing
import multiprocessing.forkserver
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from editbench.base.workers import worker_context

ROOT = Path(__file__).parents[1]
# The server that the product's own workers come from: it is started once, and warmed by conftest.
_SERVER = worker_context()
# Its CPU time is counted as the tests' own only after it has been waited for.
atexit.register(multiprocessing.forkserver._forkserver._stop)


def forbid_locks(folder: Path) -> None:
    """Let nothing be locked below a folder, as in one that is read-only; also for root.

    Args:
        folder: a file takes the place of every folder of locks.
    """
    for place in [folder, *folder.rglob("*")]:
        if place.is_dir() and place.name != ".locks":
            shutil.rmtree(place / ".locks", ignore_errors=True)
            (place / ".locks").write_text("in the way")


class Started:
    """A running function, with the methods of `subprocess.Popen` that the tests use.

    Args:
        function: of a module; what it returns is the exit code.
        words: its arguments.
    """

    def __init__(self, function: Callable[..., object], *words: object) -> None:
        file, self._errors = tempfile.mkstemp(prefix="stderr-")
        os.close(file)
        values = (function, words, dict(os.environ), self._errors)
        self._process = _SERVER.Process(target=_work, args=values)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, -k after signal k, None while the process runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float) -> int | None:
        """Seconds until `subprocess.TimeoutExpired`, which says where the process stands."""
        self._process.join(timeout)
        if self.returncode is None:
            self.send_signal(signal.SIGUSR1)
            time.sleep(1)  # for the stacks of its threads to be written
            self.kill()
            text = Path(self._errors).read_text()
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout, stderr=text)
        return self.returncode

    def communicate(self, timeout: float) -> tuple[None, str]:
        """Wait for the end; None, and what the process wrote to its standard error."""
        self.wait(timeout)
        errors = Path(self._errors)
        text = errors.read_text()
        errors.unlink()
        return None, text


def _work(
    function: Callable[..., object], words: tuple, environment: dict[str, str], errors: str
) -> None:
    os.setsid()  # Ctrl-C goes to a whole group and must not reach the tests
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(errors, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, sys.stderr.fileno())
    os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.register(signal.SIGUSR1, file=sys.__stderr__, all_threads=True)
    try:
        sys.exit(function(*words))
    finally:
        # As an interpreter does at its end. multiprocessing first joins the children, which wait
        # for the threads of their pool to end them.
        threading._shutdown()


def wait_until(there, *processes):
    """Until what the processes should bring about is there."""
    deadline = time.monotonic() + 120
    while not there():
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
        time.sleep(0.01)
