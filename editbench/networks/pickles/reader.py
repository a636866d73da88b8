"""Reads pickles and torch.save files: first on trial in a limited process, then here.

Neither reading runs anything of the file (unpickle.py). The first (child.py) bounds memory and
time; what the second then gives is checked here and rebuilt with NumPy and torch.
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
WAIT = 20  # wall-clock seconds for one second of processor time, on a machine with much to do
COST = 200  # bytes that a container takes while it waits for its parts, and when it is done
SHORT = 5  # values of a state; NumPy's of an array
DEEPEST_KEY = 8  # tuples within tuples as keys of a dict
SAME_HASH = 100  # keys with NumPy numbers in one dict; 34 floats have the hash of 1, 2 or 4
LEAVES = {type(None), bool, int, float, complex, str, bytes, bytearray}
SIZED = {str, bytes, bytearray}
CONTAINERS = {dict, list, tuple, set, frozenset}


def read_pickle(path: Path | str, limits: Limits | None = None) -> Any:
    """What a pickle (protocols 0 to 5) or a torch.save file holds. Nothing in it is run or
    imported.

    The result has no cycles, and is no larger as a tree than the limits say, so it can be walked
    and compared freely. It consists of dict (also for OrderedDict, EasyDict and the like), list,
    tuple, set, str, bytes, numbers, None, NumPy arrays and scalars, torch tensors on the host
    (parameters as plain tensors), and `Opaque` for the rest.

    Args:
        path: the file.
        limits: bounds of memory, time and nesting.

    Raises:
        BadFile: the file is missing, damaged, of another kind, beyond the limits, or does what data
            never need.
    """
    return _read(Path(path), "pickle", limits or Limits())


def read_torch(path: Path | str, limits: Limits | None = None) -> Any:
    """What a torch.save file (zip, or the format before PyTorch 1.6) holds; else as `read_pickle`.

    Args:
        path: the file.
        limits: bounds of memory, time and nesting.

    Raises:
        BadFile: as `read_pickle`; also for a pickle of another program.
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
            os.lseek(stream.fileno(), 0, os.SEEK_SET)  # the child has moved the common position
            root = unpickle.read_file(stream, size, kind)
            return Rebuilder(limits, limits.memory(size)).rebuild(root)
    except Exception as error:
        raise BadFile(f"{path}: {unpickle.reason(error)}") from error


def _try_in_child(stream: BinaryIO, kind: str, limits: Limits, size: int) -> None:
    """Have child.py read the very file that is open here."""
    seconds = limits.time(size)
    # -I and -S: no site-packages and no variables of the environment, so nothing else is imported.
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
        # Python itself can fail: a key of 20,000 tuples within one another overflows its C stack.
        raise damaged(f"the reading process ended with code {done.returncode}")


class Rebuilder:
    """Plain values, arrays and tensors from a tree of inert values.

    Args:
        limits: of the number of values and of nesting.
        most_bytes: of what is made here, and of arrays and text of the result, where shared parts
            count each time.
    """

    def __init__(self, limits: Limits, most_bytes: int) -> None:
        self.limits = limits
        self.most_bytes = most_bytes
        self.made_bytes = 0
        # By id of a value of the file: what became of it; nodes, levels of containers and bytes of
        # leaves, written out as a tree. A value stays alive until the last container that refers
        # to it is done, so no other can have its id where it is looked up.
        self.done: dict[int, tuple[Any, int, int, int]] = {}

    def rebuild(self, root: Any) -> Any:
        """What becomes of a whole tree; parts before what they are in, each once."""
        within: set[int] = set()  # containers of which parts are missing; meeting one is a cycle
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
        """What became of a value, and its extent."""
        if type(value) in LEAVES:
            return value, 1, 0, len(value) if type(value) in SIZED else 0
        return self.done[id(value)]

    def part(self, value: Any) -> Any:
        return self.outcome(value)[0]

    def finish(self, value: Any) -> tuple[Any, int, int, int]:
        """What becomes of a value whose parts are done, and its extent, if within the limits.

        Shared references can make a small file stand for a tree of 2^50 nodes, or for one array a
        million times. Only who walks or stacks the result would notice.
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
        # Checked at every container, so sums stay small integers.
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
        """A plain container of what became of the parts; the same one where nothing changes."""
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
        # A state counts as a last argument.
        state = () if value.state is None else (value.state,)
        made = REBUILT[value.name](*value.args, *state)
        # What an array was copied from is not needed any more.
        value.args = ()
        value.state = None
        if isinstance(made, np.ndarray):
            self.check_bytes(made.nbytes)  # tensors are views of their storages
        return made

    def check_bytes(self, number: int) -> None:
        """Count what is made here."""
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
    """The state; in parts where it is a short tuple, which `Rebuilder.done` would keep, and with it
    the bytes of an array that is made already."""
    return value.state if is_short(value.state) else (value.state,)


def is_short(state: Any) -> bool:
    # Many objects can share a long one: it is looked through once.
    return type(state) is tuple and len(state) <= SHORT


def as_keys(parts: list[Any]) -> list[Any]:
    """Keys of a dict or members of a set.

    The trial bounds how long it takes to hash them, for it has hashed the same, but for NumPy's
    numbers, which were objects to it. Many tuples of these can have one hash when they are plain.
    """
    keys = [as_key(part) for part in parts]
    hashes = [hash(key) for key, part in zip(keys, parts) if key is not part]
    if hashes and max(Counter(hashes).values()) > SAME_HASH:
        raise Refused("keys of a dict or set have the same hash; do not trust the file")
    return keys


def as_key(key: Any, depth: int = 0) -> Any:
    """A key of a dict or a member of a set; a NumPy scalar becomes Python's own."""
    if isinstance(key, np.generic) and key.dtype.kind in "biufSU":
        return key.item()
    if isinstance(key, tuple) and depth < DEEPEST_KEY:
        plain = tuple([as_key(part, depth + 1) for part in key])
        # The same tuple where nothing in it has changed.
        return key if all(map(operator.is_, plain, key)) else plain
    if key is None or isinstance(key, (str, bytes, int, float)):
        return key
    raise Refused(
        f"a key of a dict or set is a {type(key).__name__}; only text, bytes, numbers and tuples "
        "of them are read: save the data in plain containers"
    )
