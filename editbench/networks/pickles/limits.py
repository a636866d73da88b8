"""What a file may make its reader spend: memory, time and nesting."""

from __future__ import annotations

from dataclasses import dataclass

FLOOR = 16 << 20  # bytes that the reading of even a tiny file may take
RATIO = 128  # bytes for one byte of file: a tuple of one number is 3 bytes there and 64 in memory
SECONDS = 10  # of processor time for even a tiny file
BYTES_A_SECOND = 4 << 20  # of file; measured: a list of small objects takes 8 MiB a second


@dataclass(frozen=True)
class Limits:
    """Bounds of one read.

    The process that tries the file takes at most 16 MiB + min(bytes, 128 x the size of the file)
    beyond what its interpreter takes. The caller then reads it again and takes at most twice that:
    the same for what the file holds, and as much for what is made of it, storages included.

    Args:
        bytes: the largest file; the largest result, where a part counts each time it is referred
            to.
        objects: the most values of the result, counted in the same way.
        depth: the most containers within containers.
        seconds: processor time of the process that tries, beyond one second for 4 MiB of file. The
            caller takes as long once more, and some 10 us for each container.
    """

    bytes: int = 8 << 30
    objects: int = 10_000_000
    depth: int = 300
    seconds: int = SECONDS

    def memory(self, size: int) -> int:
        """Bytes that reading a file of `size` bytes may take."""
        return FLOOR + min(self.bytes, RATIO * size)

    def time(self, size: int) -> int:
        """Seconds of processor time that reading a file of `size` bytes may take."""
        return self.seconds + size // BYTES_A_SECOND
