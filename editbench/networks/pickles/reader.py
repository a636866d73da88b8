"""Reads pickles and torch.save files without executing anything in them.

A child process reads the file with limits of memory and time (child.py), and answers with a pickle
of plain containers and of stand-ins for everything else. The calling process reads this answer, and
builds arrays and tensors from some of the stand-ins (arrays.py).
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from torch import Tensor

from editbench.base.errors import BadFile, no_such
from editbench.networks.pickles.arrays import BUILDERS, storage
from editbench.networks.pickles.refused import REFUSED, Refused, reason

CHILD = Path(__file__).with_name("child.py")
FLOOR = 16 << 20  # bytes of memory allowed for any file, however small
RATIO = 128  # bytes of memory per byte of file; a tuple of one number has 3 bytes there, 64 here
BYTES_A_SECOND = 4 << 20  # of the file; a list of small objects is read at 8 MiB per second
# First bytes of files that result from a failed download or copy.
NOT_PICKLES = {
    b"\x1f\x8b": "it is compressed with gzip; unpack it with gunzip first",
    b"<!": "it is a web page, so the download failed; fetch the file itself",
    b"<h": "it is a web page, so the download failed; fetch the file itself",
    b"ve": "it is a pointer of git-lfs; fetch the file itself with git lfs pull",
    b"": "it is empty; copy it again from where it came",
}


@dataclass(frozen=True)
class Limits:
    """Limits for reading one file.

    The child process may use 16 MiB + min(bytes, 128 x the size of the file) of memory, in addition
    to its interpreter. The result takes at most as much again.

    Args:
        bytes: maximum size of the file, and of the result, where shared parts count each time.
        objects: maximum number of values in the result, where shared parts count each time.
        depth: maximum nesting of containers.
        seconds: CPU time of the child process, in addition to one second per 4 MiB of file.
    """

    bytes: int = 8 << 30
    objects: int = 10_000_000
    depth: int = 300
    seconds: int = 10

    def memory(self, size: int) -> int:
        """Bytes of memory allowed for reading a file of `size` bytes."""
        return FLOOR + min(self.bytes, RATIO * size)

    def time(self, size: int) -> int:
        """Seconds of CPU time allowed for reading a file of `size` bytes."""
        return self.seconds + size // BYTES_A_SECOND


@dataclass
class Opaque:
    """An object of a class that was not imported, a function's result, or a name by itself.

    Args:
        name: 'module.qualname' in the file.
        args: positional arguments of the call, where bytes become a bytearray.
        kwargs: named arguments of the call.
        state: the argument of __setstate__; None without one.
        items: the appended items; for a mapping, (key, value) pairs.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    state: Any
    items: list[Any]

    def __repr__(self) -> str:
        # Short, since the parts can be large. ASCII, since the file may contain any name.
        return f"Opaque({self.name[:120]!a})"


class AnswerReader(pickle.Unpickler):
    """Reads a child's answer. It calls only the functions that are named here.

    Args:
        stream: of the answer.
        most_bytes: maximum bytes of the arrays and tensors.
    """

    def __init__(self, stream: IO[bytes], most_bytes: int) -> None:
        super().__init__(stream)
        self.functions: dict[str, Callable[..., Any]] = {
            "opaque": Builder(most_bytes).opaque,
            "storage": storage,
            "dict": dict,
            "complex": complex,
        }

    def find_class(self, module: str, name: str) -> Any:
        return self.functions[name]


class Builder:
    """Builds the arrays and tensors of one answer.

    This is not part of AnswerReader, which holds all that it has read: if it referred to itself, it
    would keep the content until the next garbage collection.

    Args:
        most_bytes: maximum bytes of the arrays and tensors.
    """

    def __init__(self, most_bytes: int) -> None:
        self.left_bytes = most_bytes

    def opaque(self, name: str, args: Any, kwargs: Any, state: Any, items: Any) -> Any:
        """An array or a tensor if the name is one of BUILDERS, otherwise a stand-in.

        Args:
            name: see `Opaque`, as are the other arguments.
            args: positional arguments of the call.
            kwargs: named arguments of the call.
            state: the argument of __setstate__; None without one.
            items: the appended items.

        Raises:
            Refused: the array is not supported, or all arrays together have too many bytes.
            ValueError: the arguments of an array are inconsistent.
        """
        if name not in BUILDERS or not args or kwargs or items:
            return Opaque(name, args, kwargs, state, items)
        if state is not None:
            args = (*args, state)
        made: np.ndarray | np.generic | Tensor = BUILDERS[name](*args)
        # An expanded tensor has more bytes than its storage.
        self.left_bytes -= made.nbytes
        if self.left_bytes < 0:
            raise Refused(
                "written out its arrays would have more bytes than a file of its size may "
                "(Limits(bytes=...)); do not trust the file"
            )
        return made


def read_pickle(path: Path | str, limits: Limits | None = None) -> Any:
    """Read a pickle (protocols 0 to 5) or a torch.save file without running or importing anything.

    The result has no cycles, and as a tree it is within the limits, so it is safe to traverse and
    compare. It consists of dict (also for OrderedDict, EasyDict and similar types), list, tuple,
    set, frozenset, str, bytes, bytearray, numbers, None, NumPy arrays and scalars, torch tensors on
    the host (parameters become plain tensors), and `Opaque` for everything else.

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
            # pread does not move the position in the file, from which the child reads it.
            head = os.pread(stream.fileno(), 2, 0)
            if head in NOT_PICKLES:
                raise Refused(NOT_PICKLES[head])
            size = os.fstat(stream.fileno()).st_size
            if size > limits.bytes:
                raise Refused(
                    f"it has {size:,} bytes, more than the {limits.bytes:,} allowed; raise "
                    "Limits(bytes=...)"
                )
            return _ask_child(stream, kind, limits, size)
    except OSError as error:
        words = f"cannot be read ({error.strerror or error}); check the path and its permissions"
        raise BadFile(f"{path}: {words}") from error
    except Exception as error:
        raise BadFile(f"{path}: {reason(error)}") from error


def _ask_child(stream: BinaryIO, kind: str, limits: Limits, size: int) -> Any:
    """The content of the file that is open here."""
    memory = limits.memory(size)
    seconds = limits.time(size)
    # -I and -S: without site-packages and environment variables, so nothing else is imported.
    command = [sys.executable, "-I", "-S", str(CHILD), kind]
    command += map(str, (memory, seconds, limits.objects, limits.depth))
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=stream, stdout=pipe, stderr=pipe)
    except OSError as error:
        raise Refused(f"no process to read it could be started ({error.strerror})") from error
    with process as child:
        assert child.stdout is not None
        assert child.stderr is not None
        content = None
        try:
            content = AnswerReader(child.stdout, memory).load()
        except (EOFError, pickle.UnpicklingError):
            pass  # the answer is incomplete, and the exit code says why
        except BaseException:
            child.kill()
            raise
        words = child.stderr.read().decode("utf-8", "replace")
    if child.returncode == REFUSED:
        # Python may print an error of its own before, such as of a bytearray that is too large.
        raise Refused(words.splitlines()[-1])
    if child.returncode == -signal.SIGKILL:
        raise Refused(
            "the system killed the process that reads it, for lack of memory or by a limit of CPU "
            "time; allow more"
        )
    if child.returncode == -signal.SIGXCPU:
        raise Refused(
            f"reading it takes more than {seconds} s; if you trust it, raise Limits(seconds=...)"
        )
    if child.returncode:
        # Python itself may crash: a key of 20,000 nested tuples overflows its C stack.
        raise ValueError(f"the reading process ended with code {child.returncode}")
    return content
