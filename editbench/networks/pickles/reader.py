"""Reads pickles and torch.save files through a limited process, and rebuilds their arrays and
tensors.

The process (child.py) never runs anything of the file, and its limits bound memory and time. What
it sends is plain: text, numbers, bytes, and names of what was to be made of them.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from editbench.base.errors import BadFile
from editbench.networks.pickles import child
from editbench.networks.pickles.limits import Limits, Refused
from editbench.networks.pickles.rebuild import REBUILT, rebuild_storage, rebuild_view
from editbench.networks.pickles.standins import Global, Opaque

WAIT = 20  # wall-clock seconds for one second of processor time, on a machine with much to do
DAMAGED = child.DAMAGED
RECORD_COST = 200  # bytes that remembering a value and its extent takes
DEEPEST_KEY = 8  # tuples within tuples as keys of a dict


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
            raise Refused("no such file; check the path")
        size = path.stat().st_size
        if size > limits.bytes:
            raise Refused(
                f"it has {size:,} bytes, more than the {limits.bytes:,} allowed; raise "
                "Limits(bytes=...)"
            )
        # A file, as a pipe would have to be emptied while the process runs.
        with tempfile.TemporaryFile() as records:
            _run_child(path, kind, limits, size, records)
            records.seek(0)
            return RecordReader(records, limits, limits.memory(size)).read()
    except Refused as error:
        raise BadFile(f"{path}: {error}") from error
    except OSError as error:
        raise BadFile(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    except Exception as error:  # whatever content can make NumPy and torch do is the file's fault
        reason = DAMAGED.format(f"{type(error).__name__} while reading")
        raise BadFile(f"{path}: {reason}") from error


def _run_child(path: Path, kind: str, limits: Limits, size: int, out: IO[bytes]) -> None:
    """Have child.py write the records of a file to `out`."""
    seconds = limits.time(size)
    # -I and -S: no site-packages and no variables of the environment, so nothing else is imported.
    command = [sys.executable, "-I", "-S", child.__file__, str(path), kind]
    command += [str(limits.memory(size)), str(seconds)]
    slow = f"reading it takes more than {seconds} s; if you trust it, raise Limits(seconds=...)"
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=WAIT * seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Refused(slow) from error
    if done.returncode == child.REFUSED:
        raise Refused(done.stderr.decode("utf-8", "replace"))
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise Refused(slow)
    if done.returncode:
        # Python itself can fail: a key of 20,000 tuples within one another overflows its C stack.
        raise Refused(DAMAGED.format(f"the reading process ended with code {done.returncode}"))


class RecordReader:
    """Values from the records of child.py.

    Args:
        stream: at the first record.
        limits: of the number of values and of nesting.
        most_bytes: of arrays and text, where shared parts count each time.
    """

    def __init__(self, stream: IO[bytes], limits: Limits, most_bytes: int) -> None:
        self.stream = stream
        self.limits = limits
        self.most_bytes = most_bytes
        self.made_bytes = 0
        # By number of record: the same number is the same object.
        self.values: list[Any] = []
        # Of each value, written out as a tree: nodes, levels of containers, bytes of its leaves.
        self.extents: list[tuple[int, int, int]] = []

    def read(self) -> Any:
        """The root, which is the last record."""
        while True:
            # Each record is one line, so that only one is held as text.
            line = self.stream.readline()
            length, kind, *fields = json.loads(line)
            self.check_bytes(length)
            raw = bytearray(length)
            if self.stream.readinto(raw) != length:  # type: ignore[attr-defined]
                raise EOFError
            if kind == "root":
                return self.part(fields[0][0])
            value = self.build(kind, fields, raw)
            self.check_bytes(RECORD_COST + sys.getsizeof(value))
            self.extents.append(self.extent(value, kind, fields))
            self.values.append(value)

    def part(self, field: Any) -> Any:
        """A field of a record: the value itself, or a list with the number of a record."""
        if type(field) is list:
            return self.values[field[0]]
        return field

    def parts(self, fields: list[Any]) -> list[Any]:
        return [self.part(field) for field in fields]

    def build(self, kind: str, fields: list[Any], raw: bytearray) -> Any:
        """The value of a record."""
        if kind in SIMPLE:
            return SIMPLE[kind](self.parts(fields[0]))
        if kind == "dict":
            items = self.parts(fields[0])
            return {as_key(key): value for key, value in zip(items[::2], items[1::2])}
        if kind == "opaque":
            name, args, kwargs, state, found = fields[0], *self.parts(fields[1:])
            made = Opaque(name, args, state, found or [], kwargs or {})
            if name not in REBUILT or kwargs or found:
                return made
            value = REBUILT[name](made)
            if isinstance(value, np.ndarray):  # a copy; tensors are views of their storages
                self.check_bytes(value.nbytes)
            return value
        if kind == "storage":
            return rebuild_storage(fields[0], raw)
        if kind == "view":
            return rebuild_view(self.part(fields[0]), *fields[1:])
        return LEAVES[kind](fields, raw)

    def check_bytes(self, number: int) -> None:
        """Count the bytes of a value or of raw data before more are read."""
        self.made_bytes += number
        if self.made_bytes > self.most_bytes:
            raise Refused(
                f"its values would take more than {self.most_bytes:,} bytes (Limits(bytes=...)); "
                "do not trust the file"
            )

    def extent(self, value: Any, kind: str, fields: list[Any]) -> tuple[int, int, int]:
        """Nodes, levels and bytes of a value, if they are within the limits.

        Shared references can make a small file stand for a tree of 2^50 nodes, or for one array a
        million times. Only who walks or stacks the result would notice.
        """
        if kind == "opaque" and not isinstance(value, Opaque):
            nodes = 1
            levels = 0
            size = value.nbytes
        elif kind in SIMPLE or kind in ("dict", "opaque"):
            inner = fields[1:] if kind == "opaque" else fields[0]
            nodes = 1
            levels = 0
            size = 0
            for field in inner:
                more = self.extents[field[0]] if type(field) is list else (1, 0, 0)
                nodes += more[0]
                levels = max(levels, more[1])
                size += more[2]
            levels += bool(inner)
        else:
            nodes = 1
            levels = 0
            size = 0
            if isinstance(value, (str, bytes, bytearray)):
                size = len(value)
        most = ""
        # Checked at every container, so sums stay small integers.
        if nodes > self.limits.objects:
            most = f"{self.limits.objects:,} objects (Limits(objects=...))"
        if size > self.most_bytes:
            most = f"{self.most_bytes:,} bytes (Limits(bytes=...))"
        if most:
            raise Refused(
                f"written out it would have more than {most}, by references to the same parts; do "
                "not trust the file"
            )
        if levels > self.limits.depth:
            raise Refused(
                f"its containers are nested more than {self.limits.depth} deep; save flatter data"
            )
        return nodes, levels, size


def as_key(key: Any, depth: int = 0) -> Any:
    """A key of a dict or a member of a set; a NumPy scalar becomes Python's own.

    The process that reads has hashed the same keys already, so its time limit bounds how many of
    one hash there can be.
    """
    if isinstance(key, np.generic) and key.dtype.kind in "biufSU":
        return key.item()
    if isinstance(key, tuple) and depth < DEEPEST_KEY:
        return tuple([as_key(part, depth + 1) for part in key])
    if key is None or isinstance(key, (str, bytes, int, float)):
        return key
    raise Refused(
        f"a key of a dict or set is a {type(key).__name__}; only text, bytes, numbers and tuples "
        "of them are read: save the data in plain containers"
    )


SIMPLE: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": lambda parts: set(map(as_key, parts)),
    "frozenset": lambda parts: frozenset(map(as_key, parts)),
}
LEAVES: dict[str, Callable[[list[Any], bytearray], Any]] = {
    "bytes": lambda fields, raw: bytes(raw),
    "bytearray": lambda fields, raw: raw,
    "text": lambda fields, raw: raw.decode("utf-8", "surrogatepass"),
    "complex": lambda fields, raw: complex(*fields),
    "global": lambda fields, raw: Global(fields[0]),
}
