"""Limits of memory, time and nesting for reading a file."""

from __future__ import annotations

from dataclasses import dataclass

FLOOR = 16 << 20  # bytes of memory allowed for any file, however small
RATIO = 128  # bytes of memory per byte of file; a tuple of one number has 3 bytes there, 64 here
SECONDS = 10  # of CPU time allowed for any file
BYTES_A_SECOND = 4 << 20  # of the file; a list of small objects is read at 8 MiB per second


@dataclass(frozen=True)
class Limits:
    """Limits for reading one file.

    The trial process may use 16 MiB + min(bytes, 128 x the size of the file) of memory, in addition
    to its interpreter. The caller then reads the file again and uses at most twice as much: once
    for the content of the file, and once for the objects built from it, including storages.

    Args:
        bytes: maximum size of the file, and of the result, where shared parts count each time.
        objects: maximum number of values in the result, where shared parts count each time.
        depth: maximum nesting of containers.
        seconds: CPU time of the trial process, in addition to one second per 4 MiB of file. The
            caller needs the same time again, plus about 10 us per container.
    """

    bytes: int = 8 << 30
    objects: int = 10_000_000
    depth: int = 300
    seconds: int = SECONDS

    def memory(self, size: int) -> int:
        """Bytes of memory allowed for reading a file of `size` bytes."""
        return FLOOR + min(self.bytes, RATIO * size)

    def time(self, size: int) -> int:
        """Seconds of CPU time allowed for reading a file of `size` bytes."""
        return self.seconds + size // BYTES_A_SECOND
