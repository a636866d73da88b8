"""Standard output and standard error that never stop a command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from editbench.base.text import printable


class Output:
    """A stream that takes every letter and outlives its reader.

    What the stream's encoding lacks is written as \\xNN or \\uNNNN. When the reader of a pipe has
    gone, or the disk of a file is full, the rest goes nowhere and the command goes on with its work:
    a report is written whole although `head` has read its fill.

    Args:
        stream: where text goes.

    Attributes:
        lost: why text was lost; None where none was.
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
        """Send what was written on its way."""
        try:
            self._stream.flush()
        except OSError as error:
            self._go_nowhere(error)

    def _go_nowhere(self, error: OSError) -> None:
        """Lead the stream's descriptor into something that takes all, until the process ends."""
        self.lost = error
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())

    # isatty, fileno, encoding and whatever else a library asks a stream for.
    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def steady_output() -> Iterator[Output]:
    """Make standard output and standard error of this process an `Output` each, for a while.

    Yields:
        Standard output.
    """
    before = (sys.stdout, sys.stderr)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        # A process that was started without one of them has None for it.
        out, err = (Output(stream or nowhere) for stream in before)
        sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
        try:
            yield out
        finally:
            # A reader that has gone is met quietly here; at Python's exit it would be a traceback.
            out.flush()
            err.flush()
            sys.stdout, sys.stderr = before
