"""Files that are either complete or absent, and that are not used after any change to their bytes.

- Writing is atomic: a file or folder is written under another name, flushed to disk and renamed.
- The project's own files have checksums: a folder has a `checksums.json`, a JSON file has a key
  `checksum`, and a cached file has a `.sha256` file next to it.
- Reading verifies them. A mismatch raises BadFile, which names the file and the remedy.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import platformdirs
from filelock import FileLock

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.text import printable

SEAL = "checksums.json"  # of a sealed folder
CHECKSUM = "checksum"  # the key of a sealed JSON file
OF_CACHE = "cache=DIR"  # chooses the folder of a cache, in every command that has one
T = TypeVar("T")
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
TOO_LARGE = errno.EFBIG  # a limit of the process, or of the file system
# Numpy drops the errno of a file that it could not write to its end.
CUT_SHORT = 0
OF_NUMPY = re.compile(r"\d+ requested and \d+ written")
# ENOTDIR and EEXIST: a file has the name of a folder that is needed.
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


# -- hashes ----------------------------------------------------------------------------------------
def digest(value: object, length: int = 12) -> str:
    """Hash of a JSON-like value (SHA-256); independent of the order of keys.

    Args:
        value: of mappings, lists, text, numbers and None; anything else counts by its `str`.
        length: hexadecimal digits to keep, at most 64.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read as a stream. Raises BadFile if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise cannot_read(path, error) from error


def cannot_read(path: Path, error: OSError) -> BadFile:
    """The error for a file that exists but cannot be read.

    Args:
        path: of the file.
        error: of the system.
    """
    return BadFile(f"{path} cannot be read ({error.strerror or error}); check its permissions")


# -- errors of the disk ----------------------------------------------------------------------------
class CannotWrite(EditbenchError):
    """A file cannot be written, since it is too large, the disk is full or a permission is missing.

    Args:
        path: of the file or folder.
        number: errno of the error; CUT_SHORT if it is unknown which of the first two it is.
        keys: words of the command that choose the folder, such as 'out=DIR'; '' if unknown.
    """

    def __init__(self, path: Path, number: int, keys: str = "") -> None:
        # An error is pickled with these arguments, as by a worker process.
        super().__init__(path, number, keys)
        self.path = path
        self.number = number
        self.keys = keys

    def __str__(self) -> str:
        choice = f"set {self.keys} to" if self.keys else "choose"
        if self.number in FULL_DISK:
            return (
                f"the disk is full: could not write {self.path}. What was finished is kept; free "
                f"some space, or {choice} a folder on another disk, and start again"
            )
        if self.number in (TOO_LARGE, CUT_SHORT):
            reason = "the file would be larger than allowed"
            if self.number == CUT_SHORT:
                reason = "the disk is full, or the file would be larger than allowed"
            return (
                f"{reason}: could not write {self.path}. What was finished is kept; raise the "
                f"limit of file sizes (`ulimit -f`), or {choice} a folder on another disk, and "
                "start again"
            )
        reason = os.strerror(self.number)
        return f"cannot write {self.path} ({reason}): {choice} a folder you may write to"


@contextmanager
def explain_disk_errors(path: Path, keys: str = "") -> Iterator[None]:
    """Turn a full disk, a file too large or a missing permission into a message with the remedy.

    What writes a file seldom knows by which key a user chose its folder. A caller that knows it
    adds it to the error.

    Args:
        path: of the file or folder.
        keys: words of the command that choose the folder, such as 'out=DIR'; '' if unknown.

    Raises:
        CannotWrite: for these errors; others are raised as they are.
    """
    try:
        yield
    except CannotWrite as error:
        if error.keys or not keys:
            raise
        raise CannotWrite(error.path, error.number, keys) from error
    except EditbenchError:
        raise
    except Exception as error:  # safetensors raises its own type for a full disk
        number = _error_number(error)
        is_forbidden = number in NO_PERMISSION and isinstance(error, OSError)
        has_no_room = number in (*FULL_DISK, TOO_LARGE, CUT_SHORT)
        if number is not None and (has_no_room or is_forbidden):
            raise CannotWrite(path, number, keys) from error
        raise


def create_folder(path: Path, keys: str = "") -> None:
    """Make a folder and those above it, unless it exists.

    Args:
        path: of the folder.
        keys: as of `explain_disk_errors`.

    Raises:
        CannotWrite: it cannot be made, for whatever reason. A file system that is not a disk has
            reasons of its own: in /proc the system says that there is no such file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(path, error.errno or errno.EIO, keys) from error


def usable_folder(path: str | Path) -> Path:
    """Check that a path can be a folder of parquet and safetensors files.

    Args:
        path: of the folder, which need not exist.

    Returns:
        The path.

    Raises:
        EditbenchError: it, or a folder above it, is a file; the system refuses it, as for a name that
            is too long or a folder that may not be entered; or its name is not UTF-8, which the
            libraries of these formats cannot open.
    """
    path = Path(path)
    for place in (path, *path.parents):
        try:
            # Missing folders are made below the nearest one that exists.
            if place.is_dir():
                break
            is_file = place.exists()
        except OSError as error:
            raise EditbenchError(f"{path}: {error.strerror}; give another folder") from error
        if is_file:
            where = "" if place == path else f"{path}: "
            raise EditbenchError(f"{where}{place} is a file; give a folder")
    if str(path) != printable(str(path)):
        raise EditbenchError(
            f"{path}: its name has bytes that are not UTF-8, so parquet and safetensors files "
            "cannot be opened there: choose another folder"
        )
    return path


def _error_number(error: Exception) -> int | None:
    """The errno of an error, or CUT_SHORT; None if it has none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if isinstance(error, OSError) and OF_NUMPY.fullmatch(text):
        return CUT_SHORT
    for number in (*FULL_DISK, TOO_LARGE):
        if os.strerror(number) in text or f"os error {number}" in text:
            return number
    return None


# -- writing ---------------------------------------------------------------------------------------
@contextmanager
def atomic_folder(final: Path, about: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """A temporary folder that becomes `final` when the block succeeds and is removed otherwise.

    Args:
        final: final path; an existing folder is replaced.
        about: facts to write next to the checksums when sealing the folder; None leaves it
            unsealed.
    """
    partial = partial_path(final)
    old = partial_path(final)
    create_folder(final.parent)
    with explain_disk_errors(final):
        partial.mkdir()
        try:
            yield partial
            if about is not None:
                seal_folder(partial, about)
            for file in (*partial.rglob("*"), partial):
                _flush_to_disk(file)
            # A rename does not replace a folder that contains files. The old folder gets another
            # name first, since a kill during its removal would leave a part of it.
            if os.path.lexists(final):
                final.rename(old)
            partial.rename(final)
            _flush_to_disk(final.parent)
        finally:
            # The second of the two renames failed, as on a full disk.
            if os.path.lexists(old) and not os.path.lexists(final):
                old.rename(final)
            for path in (partial, old):
                _remove(path)


def claim_folder(path: Path, keys: str = "") -> Path:
    """Make a folder that no other process uses: `path`, or `path`-2, -3 and so on if it exists.

    Args:
        path: wanted for the folder.
        keys: as of `explain_disk_errors`.

    Raises:
        CannotWrite: the folder above it cannot be made.
    """
    create_folder(path.parent, keys)
    folder = path
    number = 1
    while True:
        try:
            # Of several processes that try it, the system lets only one make the folder.
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
            folder = path.with_name(f"{path.name}-{number}")


def partial_path(final: Path) -> Path:
    """A new name for the unfinished content of `final`, see `sweep_partials`.

    It is in the same folder, since a rename to another file system is not atomic.
    """
    # Random, and not the number of the process: those of two containers may be equal.
    return final.with_name(f".partial-{final.name}-{secrets.token_hex(4)}")


def sweep_partials(final: Path) -> None:
    """Remove partial files of killed writers of `final`. Hold the lock of `final` when calling."""
    # Escaped, since the name of an attribute may have brackets.
    for stale in final.parent.glob(f".partial-{glob.escape(final.name)}-*"):
        _remove(stale)


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder as far as possible; it need not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader sees either the old or the new content, never a part of it.

    Args:
        path: of the file.
        data: bytes, or text. Text is written as UTF-8, see `printable`.
    """
    partial = partial_path(path)
    raw = printable(data).encode() if isinstance(data, str) else data
    create_folder(path.parent)
    with explain_disk_errors(path):
        try:
            with partial.open("wb") as stream:
                stream.write(raw)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
            _flush_to_disk(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    """Force the system to write a file, or the entries of a folder, to disk (fsync).

    Otherwise, after a power failure, the new name may exist without the content.
    """
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- JSON ------------------------------------------------------------------------------------------
def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object with its own checksum, which `read_json` verifies and removes.

    Args:
        path: of the file; its folder is made if it is missing.
        value: JSON-like. Values that JSON does not know are written as their `str`.

    Raises:
        CannotWrite: the disk is full, the file too large, or a permission is missing.
    """
    # The checksum covers the value as it is read back, with lists for tuples and text for paths.
    sealed = json.loads(json.dumps(value, default=str))
    sealed[CHECKSUM] = digest(sealed, 64)
    write_atomic(path, json.dumps(sealed, indent=1, sort_keys=True) + "\n")


def read_json(path: Path, sealed: bool = False) -> dict:
    """Read an object and remove the key of its checksum.

    Args:
        path: of the file.
        sealed: reject a file without a checksum, such as one written by hand.

    Raises:
        BadFile: the file is missing, not a JSON object, or its checksum differs.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadFile(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise BadFile(
            f"{path} is not readable JSON ({error}); delete it and build it again"
        ) from error
    if not isinstance(value, dict):
        raise BadFile(
            f"{path} contains {type(value).__name__}, expected an object; delete it and build it "
            "again"
        )
    expected = value.pop(CHECKSUM, None)
    if expected is None and not sealed:
        return value
    if expected != digest(value, 64):
        raise BadFile(
            f"{path} is truncated or altered (its checksum differs); delete it and build it again"
        )
    return value


# -- folders with checksums ------------------------------------------------------------------------
def seal_folder(folder: Path, about: Mapping[str, Any] | None = None) -> None:
    """Write checksums.json with the checksum of every file below a folder, and facts about it.

    Args:
        folder: complete; a file that is changed later no longer fits its seal.
        about: further keys of checksums.json, JSON-like; 'files' is replaced.
    """
    files: dict[str, str] = {}
    for file in sorted(folder.rglob("*")):
        # An old seal is left out: it is replaced, and has a checksum of its own.
        if file.is_file() and file != folder / SEAL:
            files[file.relative_to(folder).as_posix()] = file_sha256(file)
    write_json(folder / SEAL, {**(about or {}), "files": files})


def read_seal(folder: Path) -> dict:
    """The checksums and facts of a sealed folder. Raises BadFile if they are missing or altered."""
    seal = read_json(folder / SEAL, sealed=True)
    if not isinstance(seal.get("files"), dict):
        raise BadFile(f"{folder / SEAL} lists no files; delete {folder} and build it again")
    return seal


# Files whose checksum this process has verified: (path, `file_state`, checksum). A shard of a bank
# can have gigabytes, and every job of a sweep opens it.
_COMPARED: set[tuple[str, tuple[int, int, int], str]] = set()


def check_file(folder: Path, name: str, remedy: str) -> Path:
    """The path of a file in a sealed folder, after a check of its checksum.

    Args:
        folder: a sealed folder.
        name: of the file, as in the seal.
        remedy: the end of the error message: what the user should do.

    Raises:
        BadFile: the seal or the file is missing, or the file was altered.
    """
    expected = read_seal(folder)["files"].get(name)
    if expected is None:
        raise BadFile(f"{folder / SEAL} does not list '{name}'; {remedy}")
    compare_checksum(folder / name, expected, remedy)
    return folder / name


def check_folder(folder: Path, remedy: str) -> dict:
    """The seal of a folder, after a check of every file in it.

    Args:
        folder: a sealed folder.
        remedy: the end of the error message: what the user should do.

    Raises:
        BadFile: the seal or a file is missing, or a file was altered.
    """
    seal = read_seal(folder)
    for name, expected in seal["files"].items():
        compare_checksum(folder / name, expected, remedy)
    return seal


def compare_checksum(path: Path, expected: str, remedy: str) -> None:
    """Check the SHA-256 of a file. A file that is unchanged since is read once per process.

    Args:
        path: of the file.
        expected: hexadecimal SHA-256.
        remedy: the end of the error message: what the user should do.

    Raises:
        BadFile: the file is missing or has another checksum.
    """
    state = file_state(path)
    if state is None:
        raise BadFile(f"{path} is missing; {remedy}")
    key = (str(path.resolve()), state, expected)
    if key in _COMPARED:
        return
    if file_sha256(path) != expected:
        raise BadFile(f"{path} is truncated or altered (its checksum differs); {remedy}")
    _COMPARED.add(key)


@contextmanager
def updated_folder(folder: Path, removed: Sequence[str] = ()) -> Iterator[Path]:
    """A place for new versions of files of a sealed folder; they replace the old ones when the block
    succeeds.

    All writing happens beside the folder, so a full disk or Ctrl-C leaves the folder as it was. Then
    files are only renamed, without the seal: a kill meanwhile leaves a folder that counts as
    unfinished. Files that the block does not write keep their checksums and are not read.

    Args:
        folder: sealed, and flat.
        removed: names of files that are deleted; they need not exist.

    Yields:
        An empty folder, to write the new files to.
    """
    seal = read_seal(folder)
    with TemporaryDirectory(prefix=f".partial-{folder.name}-", dir=folder.parent) as name:
        place = Path(name)
        yield place
        for file in removed:
            seal["files"].pop(file, None)
        for path in place.iterdir():
            seal["files"][path.name] = file_sha256(path)
        write_json(place / SEAL, seal)
        for path in place.iterdir():
            _flush_to_disk(path)
        (folder / SEAL).unlink()
        for file in removed:
            (folder / file).unlink(missing_ok=True)
        for path in place.iterdir():
            if path.name != SEAL:
                path.replace(folder / path.name)
        (place / SEAL).replace(folder / SEAL)
        _flush_to_disk(folder)


# -- single files with a checksum file -------------------------------------------------------------
def write_checked(path: Path, data: bytes) -> None:
    """Write a file of a cache, and its checksum to a file next to it; `read_checked` reads both.

    Args:
        path: of the file; the checksum's file has `.sha256` appended to this name.
        data: the content.

    Raises:
        CannotWrite: the disk is full, the file too large, or a permission is missing.
    """
    with explain_disk_errors(path, OF_CACHE):
        # Content first: after a kill between the two writes, the checksum differs or is missing.
        write_atomic(path, data)
        write_atomic(_checksum_file(path), hashlib.sha256(data).hexdigest() + "\n")


def read_checked(path: Path) -> bytes:
    """The content of a file of a cache. Raises BadFile if it is missing or altered."""
    try:
        data = path.read_bytes()
        expected = _checksum_file(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"{path} or its checksum cannot be read ({error}); delete it") from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise BadFile(f"{path} is truncated or altered (its checksum differs); delete it")
    return data


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


# -- locks -----------------------------------------------------------------------------------------
def lock(path: Path, keys: str = "") -> FileLock:
    """An inter-process lock for building `path`; the system releases it if its holder dies.

    Args:
        path: what is built.
        keys: as of `explain_disk_errors`.
    """
    folder = path.parent / ".locks"
    create_folder(folder, keys)
    # Acquiring the lock would raise the error later, without this explanation.
    if not os.access(folder, os.W_OK):
        raise CannotWrite(path, errno.EACCES, keys)
    return FileLock(folder / f"{path.name}.lock")


def find_or_make(path: Path, find: Callable[[], T | None], make: Callable[[], T]) -> T:
    """What a file of a cache holds; made first if it is absent or damaged.

    Of several processes that need it, one makes it, and the others wait and then find it.

    Args:
        path: of the file.
        find: reads it; None if it is absent or damaged.
        make: computes it, writes it to `path` and returns it.
    """
    # A finished file is read without a lock, since the cache may be read-only.
    found = find()
    if found is not None:
        return found
    with lock(path, OF_CACHE):
        # Another process may have made it while this one waited for the lock.
        found = find()
        if found is not None:
            return found
        # The lock is held, so partial files here were left by a process that was killed.
        sweep_partials(path)
        return make()


# -- files of a user -------------------------------------------------------------------------------
def user_cache(part: str) -> Path | None:
    """A folder in the user's cache, which need not exist; None if there can be none.

    In a container or batch system the user often has no home folder, or one that does not exist or
    is not writable.

    Args:
        part: name of the folder.
    """
    # Some versions of platformdirs interpret an empty HOME as the root folder.
    if os.environ.get("HOME") == "" and not os.environ.get("XDG_CACHE_HOME"):
        return None
    try:
        found = Path(platformdirs.user_cache_dir("editbench", appauthor=False)) / part
    except RuntimeError:  # neither HOME nor the user database gives a home folder
        return None
    # os.path, since pathlib raises an error in another user's home if it is not readable.
    if os.path.isdir(found):
        return found
    home = Path(os.path.expanduser("~"))
    # A missing home is not created, since its name may mean "none", as in /nonexistent.
    if not found.is_absolute() or (found.is_relative_to(home) and not os.path.isdir(home)):
        return None
    above = next(parent for parent in found.parents if os.path.exists(parent))
    if not os.path.isdir(above) or not os.access(above, os.W_OK | os.X_OK):
        return None
    return found


def could_name_file(text: str) -> bool:
    """Whether a text in a configuration may be the name of a file.

    It may not without a dot or a slash: an option keeps its meaning even if the working folder
    contains a file of the same name.
    """
    return "." in text or "/" in text


def named_files(config: object) -> Iterator[str]:
    """All texts in a nested configuration that could name a file or folder."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            # A `_target_` has dots too, but is not a file.
            if key != "_target_":
                yield from named_files(value)
    elif isinstance(config, list):
        for value in config:
            yield from named_files(value)
    elif isinstance(config, str) and could_name_file(config):
        yield config


def file_state(path: Path | str) -> tuple[int, int, int] | None:
    """Inode, size and modification time (ns) of a file, to notice that it was rewritten.

    The inode changes when a file is replaced; on some file systems the time has only seconds. None
    if the path is not a file.
    """
    # The system raises an error for a text that is too long to be a path.
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(about.st_mode):
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns
