"""Reads pickles and torch.save files: first on trial in a limited process, then here.

Neither reading executes anything in the file (unpickle.py). The first one (child.py) limits memory
and time. The result of the second is checked here and rebuilt with NumPy and torch.
"""

from __future__ import annotations

import itertools
import operator
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from editbench.base.errors import BadFile, no_such
from editbench.networks.pickles import unpickle
from editbench.networks.pickles.limits import Limits
from editbench.networks.pickles.rebuild import REBUILT, read_storage
from editbench.networks.pickles.unpickle import Global, Opaque, Refused, Storage, damaged

CHILD = Path(__file__).with_name("child.py")
WAIT = 20  # allowed wall-clock seconds per second of CPU time, for busy machines
COST = 200  # bytes of a container while it waits for its parts, and when it is done
SHORT = 5  # maximum length of a short state; that of a NumPy array has this length
DEEPEST_KEY = 8  # maximum nesting of tuples in keys of a dict
SAME_HASH = 100  # maximum keys with NumPy numbers in a dict; 34 floats have the hash of 1, 2 or 4
LEAVES = {type(None), bool, int, float, complex, str, bytes, bytearray}
SIZED = {str, bytes, bytearray}
CONTAINERS = {dict, list, tuple, set, frozenset}


def read_pickle(path: Path | str, limits: Limits | None = None) -> Any:
    """Read a pickle (protocols 0 to 5) or a torch.save file without running or importing anything.

    The result has no cycles, and as a tree it is within the limits, so it is safe to traverse and
    compare. It consists of dict (also for OrderedDict, EasyDict and similar types), list, tuple,
    set, str, bytes, numbers, None, NumPy arrays and scalars, torch tensors on the host (parameters
    become plain tensors), and `Opaque` for everything else.

    Args:
        path: of the file.
        limits: of memory, time and nesting.

    Raises:
        BadFile: the file is missing, damaged, of another kind, exceeds the limits, or uses
            features that data do not need.
    """
    return _read(Path(path), "pickle", limits or Limits())


def read_torch(path: Path | str, limits: Limits | None = None) -> Any:
    """Read a torch.save file (zip, or the format before PyTorch 1.6); see `read_pickle`.

    Args:
        path: of the file.
        limits: of memory, time and nesting.

    Raises:
        BadFile: as `read_pickle`; also for other pickles.
    """
    return _read(Path(path), "torch", limits or Limits())


def _read(path: Path, kind: str, limits: Limits) -> Any:
    try:
        if not path.is_file():
            raise Refused(f"{no_such('file', path)}; check the path")
        with path.open("rb") as stream:
            found = os.fstat(stream.fileno())
            size = found.st_size
            if size > limits.bytes:
                raise Refused(
                    f"it has {size:,} bytes, more than the {limits.bytes:,} allowed; raise "
                    "Limits(bytes=...)"
                )
            _try_in_child(stream, kind, limits, size)
            now = os.fstat(stream.fileno())
            if (now.st_size, now.st_mtime_ns) != (size, found.st_mtime_ns):
                raise Refused("it changed while it was read; read it once it is complete")
            os.lseek(stream.fileno(), 0, os.SEEK_SET)  # the child has moved the shared position
            root = unpickle.read_file(stream, size, kind)
            return Rebuilder(limits, limits.memory(size)).rebuild(root)
    except Exception as error:
        raise BadFile(f"{path}: {unpickle.reason(error)}") from error


def _try_in_child(stream: BinaryIO, kind: str, limits: Limits, size: int) -> None:
    """Let child.py read the file that is open here."""
    seconds = limits.time(size)
    # -I and -S: without site-packages and environment variables, so nothing else is imported.
    command = [sys.executable, "-I", "-S", str(CHILD), kind]
    command += [str(limits.memory(size)), str(seconds)]
    slow = f"reading it takes more than {seconds} s; if you trust it, raise Limits(seconds=...)"
    try:
        done = subprocess.run(
            command, stdin=stream, capture_output=True, timeout=WAIT * seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Refused(slow) from error
    if done.returncode == unpickle.REFUSED:
        raise Refused(done.stderr.decode("utf-8", "replace"))
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise Refused(slow)
    if done.returncode:
        # Python itself may crash: a key of 20,000 nested tuples overflows its C stack.
        raise damaged(f"the reading process ended with code {done.returncode}")


class Rebuilder:
    """Converts a tree of inert values to plain values, arrays and tensors.

    Args:
        limits: of the number of values and of nesting.
        most_bytes: maximum bytes of objects created here, and of arrays and text in the result,
            where shared parts count each time.
    """

    def __init__(self, limits: Limits, most_bytes: int) -> None:
        self.limits = limits
        self.most_bytes = most_bytes
        self.made_bytes = 0
        # Id of a value of the file -> its result, and as a tree the numbers of nodes, levels of
        # containers and bytes of leaves. A value is alive until the last container that refers to
        # it is done, so its id is unique until then.
        self.done: dict[int, tuple[Any, int, int, int]] = {}

    def rebuild(self, root: Any) -> Any:
        """Convert a whole tree: parts before their containers, each only once."""
        within: set[int] = set()  # unfinished containers; a reference to one is a cycle
        path: list[tuple[Any, Any]] = [([root], iter([root]))]  # recursion would limit the depth
        while True:
            value, parts = path[-1]
            for part in parts:
                if type(part) not in LEAVES and id(part) not in self.done:
                    if id(part) in within:
                        raise Refused("its objects contain themselves; save data without cycles")
                    self.check_bytes(COST)
                    within.add(id(part))
                    path.append((part, iter(parts_of(part))))
                    break
            else:
                path.pop()
                if not path:
                    return self.part(root)
                within.discard(id(value))
                self.done[id(value)] = self.finish(value)

    def outcome(self, value: Any) -> tuple[Any, int, int, int]:
        """The result for a value, and its size as a tree."""
        if type(value) in LEAVES:
            return value, 1, 0, len(value) if type(value) in SIZED else 0
        return self.done[id(value)]

    def part(self, value: Any) -> Any:
        return self.outcome(value)[0]

    def finish(self, value: Any) -> tuple[Any, int, int, int]:
        """The result for a value whose parts are done, and its size, checked against the limits.

        By shared references, a small file can represent a tree of 2^50 nodes, or a million
        copies of one array. This would become apparent only when the result is traversed.
        """
        made: Any = []
        nodes = 1
        levels = 0
        size = 0
        for part, more_nodes, more_levels, more_size in map(self.outcome, parts_of(value)):
            made.append(part)
            nodes += more_nodes
            levels = max(levels, more_levels + 1)
            size += more_size
        if isinstance(value, Opaque):
            made = self.made_from_opaque(value)
        elif isinstance(value, type):
            made = Global()
            made.name = getattr(value, "full_name", "")
        else:
            made = self.made_from_container(value, made)
        if isinstance(made, (np.ndarray, np.generic, Tensor)):
            nodes = 1
            levels = 0
            size = made.nbytes
        # Checked at every container, so that the sums remain small integers.
        most = ""
        if nodes > self.limits.objects:
            most = f"{self.limits.objects:,} objects (Limits(objects=...))"
        if size > self.most_bytes:
            most = f"{self.most_bytes:,} bytes (Limits(bytes=...))"
        if most:
            raise Refused(f"written out it would have more than {most}; do not trust the file")
        if levels > self.limits.depth:
            raise Refused(f"its containers are nested more than {self.limits.depth} deep")
        return made, nodes, levels, size

    def made_from_container(self, value: Any, made: list[Any]) -> Any:
        """A plain container with the results of the parts; the same object if nothing changes."""
        if isinstance(value, dict):
            made[::2] = as_keys(made[::2])
        if isinstance(value, (set, frozenset)):
            made = as_keys(made)
        if type(value) in CONTAINERS and all(map(operator.is_, parts_of(value), made)):
            return value
        self.check_bytes(sys.getsizeof(value))
        if isinstance(value, dict):
            return dict(zip(made[::2], made[1::2]))
        if type(value) in CONTAINERS:
            return type(value)(made)
        raise damaged(f"a {type(value).__name__}")

    def made_from_opaque(self, value: Opaque) -> Any:
        """An array or a tensor, or the stand-in itself."""
        value.args = tuple(map(self.part, value.args))
        value.kwargs = {name: self.part(part) for name, part in value.kwargs.items()}
        states = tuple(map(self.part, states_of(value)))
        value.state = states if is_short(value.state) else states[0]
        value.items = list(map(self.part, value.items))
        if isinstance(value, Storage):
            self.check_bytes(value.size)
            read_storage(value)
        if value.name not in REBUILT or value.kwargs or value.items:
            return value
        # The state is passed as the last argument.
        state = () if value.state is None else (value.state,)
        made = REBUILT[value.name](*value.args, *state)
        # The source of an array's copy is no longer needed.
        value.args = ()
        value.state = None
        if isinstance(made, np.ndarray):
            self.check_bytes(made.nbytes)  # tensors are views of their storages
        return made

    def check_bytes(self, number: int) -> None:
        """Count bytes of new objects, and raise Refused if there are too many."""
        self.made_bytes += number
        if self.made_bytes > self.most_bytes:
            raise Refused(unpickle.TOO_LARGE)


def parts_of(value: Any) -> Iterable[Any]:
    """The values that a value refers to."""
    if isinstance(value, dict):
        return itertools.chain.from_iterable(value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    if isinstance(value, Opaque):
        names = value.kwargs
        return itertools.chain(value.args, names, names.values(), states_of(value), value.items)
    return ()


def states_of(value: Opaque) -> tuple[Any, ...]:
    """The state, as separate parts if it is a short tuple.

    `Rebuilder.done` would otherwise keep the tuple, and with it the bytes of an array that has
    already been built.
    """
    return value.state if is_short(value.state) else (value.state,)


def is_short(state: Any) -> bool:
    # Many objects may share a long state, which should be converted only once.
    return type(state) is tuple and len(state) <= SHORT


def as_keys(parts: list[Any]) -> list[Any]:
    """Convert keys of a dict or members of a set.

    The trial has limited the time to hash them, except for NumPy's numbers, which were objects
    there. When these become plain numbers, many tuples of them can have the same hash.
    """
    keys = [as_key(part) for part in parts]
    hashes = [hash(key) for key, part in zip(keys, parts) if key is not part]
    if hashes and max(Counter(hashes).values()) > SAME_HASH:
        raise Refused("keys of a dict or set have the same hash; do not trust the file")
    return keys


def as_key(key: Any, depth: int = 0) -> Any:
    """Convert a key of a dict or a member of a set; NumPy scalars become Python numbers."""
    if isinstance(key, np.generic) and key.dtype.kind in "biufSU":
        return key.item()
    if isinstance(key, tuple) and depth < DEEPEST_KEY:
        plain = tuple([as_key(part, depth + 1) for part in key])
        # The same tuple if nothing in it has changed.
        return key if all(map(operator.is_, plain, key)) else plain
    if key is None or isinstance(key, (str, bytes, int, float)):
        return key
    raise Refused(
        f"a key of a dict or set is a {type(key).__name__}; only text, bytes, numbers and tuples "
        "of them are read: save the data in plain containers"
    )
