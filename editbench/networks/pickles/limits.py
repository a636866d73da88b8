"""What a file may make its reader spend: memory, steps and nesting."""

from __future__ import annotations

from dataclasses import dataclass

FLOOR = 16 << 20  # bytes that even a tiny file may grow to
RATIO = 128  # bytes held for one byte of file: a tuple of one small number takes 4 bytes there and 400 here


@dataclass(frozen=True)
class Limits:
    """Bounds of one read. What is read takes at most min(bytes, 16 MiB + 128 x the size of the file).

    bytes: of all that is made while reading, the file and what is dropped on the way included.
    objects: opcodes carried out (keys whose hashes a file could choose count as many), and nodes of the result when it
        is written out as a tree.
    depth: containers within containers.
    """

    bytes: int = 8 << 30
    objects: int = 10_000_000
    depth: int = 300


class Refused(Exception):
    """What is wrong with the content; the reader's door turns it into BadFile with the file's name."""


class Budget:
    """What is left of the limits while a file of `size` bytes is read; nested archives share it."""

    def __init__(self, limits: Limits, size: int) -> None:
        self.limits = limits
        self.bytes = min(limits.bytes, FLOOR + RATIO * size)
        self.room = self.bytes
        self.steps = limits.objects
        self.archives = 0  # torch archives within archives, open now

    def opcode(self, number: int) -> None:
        """A step and its memory, in one call as there are many."""
        self.steps -= 1
        self.room -= number
        if self.steps < 0 or self.room < 0:
            self.step(0)
            self.take(0)

    def take(self, number: int) -> None:
        """Reserve memory before it is used."""
        self.room -= number
        if self.room < 0:
            raise Refused(
                f"its content would take more than {self.bytes:,} bytes of memory, the bound for a file of "
                "its size; if you trust it, raise Limits(bytes=...), or save the arrays with numpy.save"
            )

    def step(self, number: int = 1) -> None:
        self.steps -= number
        if self.steps < 0:
            raise Refused(
                f"it has more than {self.limits.objects:,} objects; save it as arrays with numpy.save, or "
                "raise Limits(objects=...)"
            )
