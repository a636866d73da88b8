"""Downloads files of published networks, atomically and with a check of the pinned content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pooch

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import explain_disk_errors, file_sha256, lock, read_json, write_json
from editbench.base.progress import status
from editbench.networks.registry import (
    LOCK,
    OF_NETWORKS,
    NetworkFile,
    Published,
    find_file,
    is_offline,
    make_folder,
    missing_text,
    pin,
)

TIMEOUT = 30.0  # seconds without an answer
CHUNK = 1 << 16  # bytes written at once; the size of an interrupted download is a multiple
SIGNS = {
    "NameResolution": "no such host, or no connection",
    "refused": "the connection was refused",
    "unreachable": "the network is unreachable",
    "timed out": "no answer in time",
    "IncompleteRead": "the connection broke off",
    "Connection broken": "the connection broke off",
}


def fetch_file(file: Published, again: bool = False) -> NetworkFile:
    """Fetch a file to the folder of networks, unless it is already there.

    An interrupted download is resumed if the server supports it. Concurrent processes wait for each
    other.

    Args:
        file: the file to fetch.
        again: whether to fetch it even if it is there.

    Raises:
        EditbenchError: there is no connection, no such address, or the disk is full.
        BadFile: the downloaded content is not the pinned one.
    """
    place = make_folder() / file.name
    # Otherwise two jobs of a sweep would write to the same file.
    with explain_disk_errors(place, OF_NETWORKS), lock(place):
        if not again and (found := find_file(file)) is not None:
            return found
        # The file gets its name only after a check of its content.
        part = place.with_name(f".partial-{file.name}")
        begun = _size_of(part)
        size = f", {file.size / 1e6:.0f} MB" if file.size else ""
        with status(f"fetching {file.source}{size}"):
            try:
                if not (begun and _resume(file, part, begun)):
                    _download(file, part)
            except _Interrupted as error:
                kept = _size_of(part)
                more = ""
                if kept:
                    more = f"{kept} bytes are kept: `editbench fetch` goes on from there. "
                raise EditbenchError(
                    f"could not fetch {file.name} from {file.source} ({error}). {more}Or get it "
                    f"elsewhere and put it at {place}"
                ) from error
        return _accept(file, part, place)


def locate_file(file: Published | Mapping[str, Any], path: Path | str | None = None) -> NetworkFile:
    """The file of a network, fetched if necessary.

    Args:
        file: the file, or its configuration.
        path: where it must be; None for the folder of networks.

    Raises:
        BadFile: the content is wrong, or there is no file at `path`.
        EditbenchError: the file is missing and may not be fetched, or the download failed.
    """
    if not isinstance(file, Published):
        file = Published.from_config(file)
    found = find_file(file, path)
    if found is not None:
        return found
    if is_offline():
        raise EditbenchError(missing_text([file]))
    return fetch_file(file)


def _size_of(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


class _Interrupted(Exception):
    """A download was interrupted."""


def _download(file: Published, part: Path, begun: int = 0) -> None:
    """Download the file, or the rest of it from byte `begun` on, to `part`."""
    headers = {"Range": f"bytes={begun}-"} if begun else {}
    # Not compressed, since a compressed stream could not be resumed, nor its length compared.
    get = pooch.HTTPDownloader(
        chunk_size=CHUNK, timeout=TIMEOUT, headers=headers | {"Accept-Encoding": "identity"}
    )
    import requests  # a dependency of pooch

    try:
        with part.open("ab" if begun else "wb") as stream:
            get(file.source, stream, None)
    except (requests.RequestException, ValueError) as error:
        raise _Interrupted(_short(error)) from error


def _resume(file: Published, part: Path, begun: int) -> bool:
    """Resume an interrupted download.

    Returns:
        Whether the result has the pinned content. If not, it is deleted.
    """
    if pin(file) is not None:
        try:
            _download(file, part, begun)
        except _Interrupted as error:
            answer = getattr(error.__cause__, "response", None)
            if answer is None or answer.status_code != 416:
                raise  # otherwise the server has no more bytes; the content is checked below
        if file_sha256(part) == pin(file):
            return True
    part.unlink()
    return False


def _accept(file: Published, part: Path, place: Path) -> NetworkFile:
    """Check a finished download, pin its hash if there is none, and move it to its place."""
    found = file_sha256(part)
    pinned = pin(file)
    if pinned is not None and found != pinned:
        size = part.stat().st_size
        part.unlink()
        raise BadFile(
            f"what {file.source} returned is not {file.name}: {size} bytes with sha256 {found}, "
            f"expected {pinned}. Nothing was kept. A proxy's page, or another version? Get it "
            f"elsewhere and put it at {place}"
        )
    part.replace(place)
    if file.sha256 is None:
        pins = place.with_name(LOCK)
        # Another process may be adding the pin of another file.
        with lock(pins):
            write_json(pins, (read_json(pins) if pins.is_file() else {}) | {file.name: found})
    return NetworkFile(file, place, found)


def _short(error: Exception) -> str:
    """The message of an error of requests, without nested representations of objects."""
    text = str(error)
    known = next((what for sign, what in SIGNS.items() if sign in text), None)
    return known or (text.splitlines()[0] if text else type(error).__name__)
