"""The door of the reader: a file in, plain data out, and BadFile for everything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from editbench.base.errors import BadFile
from editbench.networks.pickles.archives import MAGIC, NAMES, ZIP, read_stream, read_zip
from editbench.networks.pickles.atoms import DAMAGED, Cursor
from editbench.networks.pickles.limits import Budget, Limits, Refused
from editbench.networks.pickles.opcodes import execute
from editbench.networks.pickles.settle import settle

NOT_PICKLES = {
    b"": "it is empty; copy it again from where it came",
    b"\x1f\x8b": "it is compressed with gzip; unpack it with gunzip first",
    b"<!": "it is a web page, so the download failed; fetch the file itself",
    b"<h": "it is a web page, so the download failed; fetch the file itself",
    b"vers": "it is a pointer of git-lfs; fetch the file itself with git lfs pull",
}


def read_pickle(path: Path | str, limits: Limits | None = None) -> Any:
    """What a pickle (protocols 0 to 5) or a torch.save file holds, without running or importing anything it names.

    Comes back as dict (also for OrderedDict, EasyDict and the like), list, tuple, set, str, bytes, numbers, None,
    numpy arrays and scalars, torch tensors on the host (parameters as plain tensors), and `Opaque` for the rest. The
    result has no cycles and is no larger as a tree than the limits say, so it can be walked and compared freely.

    Raises:
        BadFile: the file is missing, damaged, of another kind, beyond the limits, or does what data never need.
    """
    return _guarded(Path(path), limits or Limits(), _pickle)


def read_torch(path: Path | str, limits: Limits | None = None) -> Any:
    """What a torch.save file (zip, or the format before PyTorch 1.6) holds; as `read_pickle` in all else."""
    return _guarded(Path(path), limits or Limits(), _torch)


def _guarded(path: Path, limits: Limits, read: Callable[[Path, int, Budget], Any]) -> Any:
    try:
        if not path.is_file():
            raise Refused("no such file; check the path")
        size = path.stat().st_size
        if size > limits.bytes:
            raise Refused(
                f"it has {size:,} bytes, more than the {limits.bytes:,} allowed; raise Limits(bytes=...)"
            )
        budget = Budget(limits, size)
        return settle(read(path, size, budget), budget)
    except Refused as error:
        raise BadFile(f"{path}: {error}") from error
    except OSError as error:
        raise BadFile(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    except (
        Exception
    ) as error:  # whatever bytes can make our own code do wrong is the file's fault to its user
        raise BadFile(
            f"{path}: " + DAMAGED.format(f"{type(error).__name__} while reading")
        ) from error


def _torch(path: Path, size: int, budget: Budget) -> Any:
    with path.open("rb") as stream:
        if stream.read(4) == ZIP:
            return read_zip(stream, size, budget)
        stream.seek(0)
        budget.take(size)
        return read_stream(stream.read(size), budget)


def _pickle(path: Path, size: int, budget: Budget) -> Any:
    with path.open("rb") as stream:
        head = stream.read(4)
        if head == ZIP:
            return read_zip(stream, size, budget)
        if head in NOT_PICKLES or head[:2] in NOT_PICKLES:
            raise Refused(NOT_PICKLES.get(head) or NOT_PICKLES[head[:2]])
        stream.seek(0)
        budget.take(size)
        data = stream.read(size)
    cursor = Cursor(data, budget)
    root = execute(cursor, budget, NAMES)
    if type(root) is int and root == MAGIC:
        return read_stream(data, budget)
    if cursor.at != len(data):
        raise Refused(
            f"{len(data) - cursor.at:,} bytes follow the end of its pickle; it is damaged, or holds several "
            "pickles: save one object"
        )
    return root
