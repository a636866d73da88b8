"""Progress of long work: a live bar on a terminal, otherwise a plain line from time to time."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from editbench.base.output import Output

NO_TERMINAL = 240  # width of a table without a terminal, in characters; avoids wrapped lines
PLAIN_FIRST = 2.0  # seconds until the first plain line
PLAIN_EVERY = 10.0  # seconds between two plain lines
# An environment variable, so that child processes of a worker inherit it.
PROGRESS = "EDITBENCH_PROGRESS"


def disable_progress() -> None:
    """Show no progress in this worker and its children: lines of several workers would mix."""
    os.environ[PROGRESS] = "off"


def progress_is_off() -> bool:
    """Whether this process shows no progress."""
    return os.environ.get(PROGRESS, "") == "off"


def time_left(seconds: float) -> str:
    """Text such as 'about 40 s left', in seconds, minutes or hours."""
    if seconds < 100:
        return f"about {seconds:.0f} s left"
    if seconds < 100 * 60:
        return f"about {seconds / 60:.0f} min left"
    return f"about {seconds / 3600:.1f} h left"


class Advance(Protocol):
    """A function to call with the number of items completed since its last call."""

    def __call__(self, amount: int = 1) -> None: ...


def console() -> Console:
    """Standard error, for progress and messages; standard output is for results."""
    return Console(stderr=True, emoji=False)


def results_console() -> Console:
    """Standard output, for tables. Lines in a pipe or a log are not wrapped."""
    width = None if sys.stdout.isatty() else NO_TERMINAL
    # Names may contain codes such as :smile:, which rich would replace by a picture.
    return Console(width=width, emoji=False)


def print_message(text: str) -> None:
    """Print a line of a run or a sweep on standard error."""
    # A worker may have no standard error, and this must not make its job fail.
    if sys.stderr is not None:
        print(text, file=Output(sys.stderr), flush=True)


@contextmanager
def status(what: str) -> Iterator[None]:
    """Show what is being worked on: a spinner on a terminal, otherwise one line."""
    if progress_is_off():
        yield
    elif sys.stderr.isatty():
        with _alone() as free, console().status(what) if free else nullcontext():
            yield
    else:
        print_message(f"{what} ...")
        yield


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """Show the progress of some work.

    Args:
        what: name of the work.
        total: number of items.

    Yields:
        A function to call with the number of items just done.
    """
    if progress_is_off():
        yield _advance_nothing
    elif sys.stderr.isatty():  # in a log, each update of a bar would be a new line
        with _alone() as free:
            if not free:
                yield _advance_nothing
                return
            with _bar() as bar:
                task = bar.add_task(what, total=total)

                def advance_bar(amount: int = 1) -> None:
                    bar.advance(task, amount)

                yield advance_bar
    else:
        yield _PlainProgress(what, total)


# Held while something is drawn on the terminal.
_TERMINAL = threading.Lock()


@contextmanager
def _alone() -> Iterator[bool]:
    """Whether nothing else is drawn on the terminal.

    Two bars or spinners would overwrite each other, so the inner one is not shown.
    """
    free = _TERMINAL.acquire(blocking=False)
    try:
        yield free
    finally:
        if free:
            _TERMINAL.release()


def _advance_nothing(amount: int = 1) -> None:
    return None


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Transient: a finished bar is removed.
    return Progress(*columns, console=console(), transient=True)


class _PlainProgress:
    """Progress lines in a log: the first after PLAIN_FIRST seconds, none in the last second."""

    def __init__(self, what: str, total: int) -> None:
        self.what = what
        self.total = total
        self.done = 0
        self.began = time.monotonic()  # unlike the wall clock, it is never set back
        self.due = self.began + PLAIN_FIRST

    def __call__(self, amount: int = 1) -> None:
        self.done += amount
        now = time.monotonic()
        left = (now - self.began) / self.done * (self.total - self.done)
        if now >= self.due and left >= 1:
            self.due = now + PLAIN_EVERY
            print_message(f"{self.what}: {self.done} of {self.total}, {time_left(left)}")
