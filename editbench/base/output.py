"""Standard output and standard error whose write errors do not stop a command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from editbench.base.text import printable


class Output:
    """A stream that accepts every character and ignores write errors.

    Characters that the encoding lacks are written as \\xNN or \\uNNNN. If the reader of a pipe has
    closed it, or the disk is full, the remaining text is discarded and the command continues: a
    report is complete even if its output is piped into `head`.

    Args:
        stream: the stream to write to.

    Attributes:
        lost: the error for which text was discarded; None if none was.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Write text; returns its length."""
        encoding = self._stream.encoding or "utf-8"
        shown = printable(text).encode(encoding, "backslashreplace").decode(encoding)
        try:
            self._stream.write(shown)
        except OSError as error:
            self._go_nowhere(error)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except OSError as error:
            self._go_nowhere(error)

    def _go_nowhere(self, error: OSError) -> None:
        """Redirect the stream's file descriptor to the null device until the process ends."""
        self.lost = error
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())

    # isatty, fileno, encoding and other attributes that libraries use.
    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _open_missing_streams() -> None:
    """Open the null device in place of every standard stream that the process was started without.

    Otherwise the next file or pipe gets the number of that stream, and a worker process takes it for
    its own standard error.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The system gives the lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


@contextmanager
def steady_output() -> Iterator[Output]:
    """Replace standard output and standard error by an `Output` within the block.

    Yields:
        Standard output.
    """
    _open_missing_streams()
    before = (sys.stdout, sys.stderr)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        # A stream is None if the process was started without it.
        out, err = (Output(stream or nowhere) for stream in before)
        sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
        try:
            yield out
        finally:
            # A closed pipe is ignored here. At Python's exit it would print a traceback.
            out.flush()
            err.flush()
            sys.stdout, sys.stderr = before
