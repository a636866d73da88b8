"""Reads a pickle or a torch.save file in a limited process, and writes its content to stdout.

reader.py runs this file as a script, without site-packages, so that it starts in about 30 ms:

    python -I -S child.py KIND MEMORY SECONDS OBJECTS DEPTH < FILE     KIND: pickle or torch

The content is written as a pickle of plain containers and of calls of `opaque` and `storage`, which
reader.py defines. The exit code is 0, or REFUSED with the reason on standard error.
"""

from __future__ import annotations

import gc
import os
import pickle
import resource
import sys
from typing import Any

# -I excludes the script's folder; importing the package would import NumPy and torch.
sys.path.append(os.path.dirname(__file__))

from formats import Storage, read_pickle, read_torch
from refused import REFUSED, Refused, reason
from unpickle import PlainDict, StandIn

RECURSION = 10_000  # nested calls; writing a container takes several
# Of an integer. Python does not print one of more than 4,300 digits, and a pickle contains a shared
# integer again each time.
MOST_BITS = 1024
PLAIN_KEYS = (str, bytes, int, float, type(None))


class TreeSize:
    """Checks the size of a content as a tree, where shared parts count each time.

    By shared references, a small file can represent a tree of 2^50 nodes, or a million copies of
    one array. This would become apparent only when the content is used.

    Args:
        most_bytes: maximum bytes of text and of data.
        most_objects: maximum number of values.
        most_depth: maximum nesting of containers.
    """

    def __init__(self, most_bytes: int, most_objects: int, most_depth: int) -> None:
        self.most_bytes = most_bytes
        self.most_objects = most_objects
        self.most_depth = most_depth
        # Id of a container -> its bytes, values and levels.
        self.known: dict[int, tuple[int, int, int]] = {}

    def measure(self, value: Any, depth: int = 0) -> tuple[int, int, int]:
        """The bytes, values and levels of a value.

        Args:
            value: of the content.
            depth: number of containers that the value is nested in.

        Returns:
            (bytes of text and data, number of values, levels of containers).

        Raises:
            Refused: a limit is exceeded.
        """
        if isinstance(value, (str, bytes, bytearray)):
            return len(value), 1, 0
        if isinstance(value, Storage):
            return value.size, 1, 0
        if isinstance(value, int):
            if value.bit_length() > MOST_BITS:
                raise Refused(f"an integer has more than {MOST_BITS:,} bits; save it as text")
            return 0, 1, 0
        parts = parts_of(value)
        if parts is None:
            return 0, 1, 0
        if id(value) in self.known:
            return self.known[id(value)]
        # A container that contains itself is also found here.
        check(depth, self.most_depth, "levels of containers (Limits(depth=...))")
        size = 0
        objects = 1
        levels = 0
        for part in parts:
            more_size, more_objects, more_levels = self.measure(part, depth + 1)
            size += more_size
            objects += more_objects
            levels = max(levels, more_levels)
        # Checked at every container, so that the sums remain small integers.
        check(size, self.most_bytes, "bytes (Limits(bytes=...))")
        check(objects, self.most_objects, "objects (Limits(objects=...))")
        check(levels + 1, self.most_depth, "levels of containers (Limits(depth=...))")
        self.known[id(value)] = size, objects, levels + 1
        return size, objects, levels + 1


def check(number: int, most: int, what: str) -> None:
    """Refuse a content that exceeds a limit.

    Args:
        number: of the content, written out as a tree.
        most: the limit.
        what: the unit, for the message.

    Raises:
        Refused: the number is above the limit.
    """
    if number > most:
        raise Refused(f"written out it would have more than {most:,} {what}; do not trust the file")


def parts_of(value: Any) -> Any:
    """The values that a container refers to; None if it is no container."""
    if isinstance(value, dict):
        check_keys(value)
        return [*value, *value.values()]
    if isinstance(value, (set, frozenset)):
        check_keys(value)
        return value
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, StandIn):
        return [*value.args, *value.kwargs.values(), value.state, *value.items]
    return None


def check_keys(keys: Any) -> None:
    """Reject objects as keys, since their hash values are others in the calling process."""
    for key in keys:
        if isinstance(key, tuple):
            check_keys(key)
        elif not isinstance(key, PLAIN_KEYS):
            raise Refused(
                "a key of a dict or set is an object; only text, bytes, numbers and tuples of them "
                "are read: save the data in plain containers"
            )


def opaque(*_: Any) -> None:
    """A name that the answer calls; reader.py has the function."""


def storage(*_: Any) -> None:
    """Likewise."""


class AnswerWriter(pickle.Pickler):
    """Writes the content as a pickle of plain containers and of calls of `opaque` and `storage`."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Storage):
            return storage, (value.dtype, value.data)
        if isinstance(value, PlainDict):
            return dict, (), None, None, iter(value.items())
        if isinstance(value, StandIn):
            return opaque, (value.name, value.args, value.kwargs, value.state, value.items)
        if isinstance(value, type) and hasattr(value, "name"):  # of a stand-in
            return opaque, (value.name, (), {}, None, [])
        return NotImplemented  # complex numbers, and the functions that are called here


def limit(memory: int, seconds: int) -> None:
    """Limit what this process may use from now on; it cannot write files.

    Args:
        memory: bytes in addition to what the process has now.
        seconds: CPU time of the whole process.
    """
    limits = {resource.RLIMIT_CPU: seconds, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_CORE: 0}
    if os.path.exists("/proc/self/statm"):  # Linux; memory is not limited on other systems
        with open("/proc/self/statm", encoding="utf-8") as statm:
            # The current address space of the interpreter does not count.
            pages = int(statm.read().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory
    for which, most in limits.items():
        soft, hard = resource.getrlimit(which)
        if soft != resource.RLIM_INFINITY:
            most = min(most, soft)  # an existing limit of the caller applies too
        resource.setrlimit(which, (most, hard))


def main(kind: str, *numbers: str) -> None:
    memory, seconds, objects, depth = map(int, numbers)
    gc.disable()  # the search for cycles would take most of the time, and the process ends soon
    sys.setrecursionlimit(RECURSION)
    limit(memory, seconds)
    read = {"pickle": read_pickle, "torch": read_torch}[kind]
    try:
        content = read(sys.stdin.buffer)
        TreeSize(memory, objects, depth).measure(content)
        # Protocol 5 has an opcode for a bytearray, which the reader then owns without a copy.
        AnswerWriter(sys.stdout.buffer, protocol=5).dump(content)
        sys.stdout.flush()
    except Exception as error:
        os.write(2, reason(error).encode("utf-8", "replace"))
        os._exit(REFUSED)
    os._exit(0)  # freeing a deeply nested content would take long


if __name__ == "__main__":
    main(*sys.argv[1:])
