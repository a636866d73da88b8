"""Files that are whole or absent: atomic writes, content hashes, locks, and errors that name the remedy."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from editbench.base.errors import BadFile, EditbenchError


def digest(value: object, length: int = 12) -> str:
    """Hash of a JSON-like value: same content, same hash, whatever the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def explain_disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into a message with the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EditbenchError(
                f"the disk is full: could not write {path}. What was finished is kept; free some "
                "space, or set out=DIR and cache=DIR on another disk, and start again"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise EditbenchError(
                f"cannot write {path} ({os.strerror(error.errno)}): set out=DIR and cache=DIR to a "
                "folder you may write to"
            ) from error
        raise


@contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `final` when the block ends well and vanishes when it does not."""
    partial = final.parent / f".partial-{final.name}-{os.getpid()}"
    with explain_disk_errors(final):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            if final.exists():
                shutil.rmtree(final)
            partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def claim_folder(path: Path) -> Path:
    """Make a folder that no other process has: `path`, or `path`-2, -3 and so on where it is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder, number = path, 1
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
            folder = path.with_name(f"{path.name}-{number}")


def sweep_partials(final: Path) -> None:
    """Remove what killed writers of `final` left behind; call it while holding the lock of `final`."""
    for stale in final.parent.glob(f".partial-{final.name}-*"):
        if stale.is_dir():
            shutil.rmtree(stale, ignore_errors=True)
        else:
            stale.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a small file so that a reader sees the old content or the new, never half of it."""
    partial = path.with_name(f".partial-{path.name}-{os.getpid()}")
    with explain_disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data.encode() if isinstance(data, str) else data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True, default=str) + "\n")


def read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise BadFile(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise BadFile(
            f"{path} is not readable JSON ({error}); delete it and build it again"
        ) from error
    if not isinstance(value, dict):
        raise BadFile(
            f"{path} holds {type(value).__name__}, expected an object; delete it and build it again"
        )
    return value


def lock(path: Path) -> FileLock:
    """An inter-process lock for building `path`; the system frees it when its holder dies."""
    with explain_disk_errors(path):
        folder = path.parent / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{path.name}.lock")
