"""Progress on long work: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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

PLAIN_FIRST, PLAIN_EVERY = 2.0, 10.0  # seconds until the first plain line, and between them
_hushed = False


def hush() -> None:
    """No more progress from this process: it is one of several workers, whose lines would mix."""
    global _hushed
    _hushed = True


class Advance(Protocol):
    def __call__(self, amount: int = 1) -> None: ...


def console() -> Console:
    """Progress and messages go to standard error; standard output is for results."""
    return Console(stderr=True)


@contextmanager
def status(what: str) -> Iterator[None]:
    """Say what is being worked on: a spinner on a terminal, one line elsewhere."""
    if _hushed:
        yield
    elif sys.stderr.isatty():
        with console().status(what):
            yield
    else:
        print(f"{what} ...", file=sys.stderr, flush=True)
        yield


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """Yield a function to call with the number of items just done."""
    if _hushed:
        yield lambda amount=1: None
        return
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console(), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda amount=1: bar.advance(task, amount)
        return
    done, began = 0, time.monotonic()
    due = began + PLAIN_FIRST

    def advance(amount: int = 1) -> None:
        nonlocal done, due
        done += amount
        now = time.monotonic()
        left = (now - began) / done * (total - done)
        if now >= due and left >= 1:
            due = now + PLAIN_EVERY
            print(
                f"{what}: {done} of {total}, about {left:.0f} s left", file=sys.stderr, flush=True
            )

    yield advance
