"""Fetches the file of a published network, whole or not at all, with the pinned content."""

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
    Found,
    Published,
    find_file,
    is_offline,
    make_folder,
    missing_text,
    pin,
)

TIMEOUT = 30.0  # seconds without an answer
CHUNK = 1 << 16  # bytes written at once; what is kept of a broken download is a multiple
SIGNS = {
    "NameResolution": "no such host, or no connection",
    "refused": "the connection was refused",
    "unreachable": "the network is unreachable",
    "timed out": "no answer in time",
    "IncompleteRead": "the connection broke off",
    "Connection broken": "the connection broke off",
}


def fetch_file(file: Published, again: bool = False) -> Found:
    """Fetch a file into the folder of networks, or find it there. Processes wait for each other.

    A download that broke off goes on where it stopped, if the server can do that.

    Args:
        file: what to fetch.
        again: fetch anew what is there.

    Raises:
        EditbenchError: there is no connection, no such address, or the disk is full.
        BadFile: what came is not the pinned content.
    """
    place = make_folder() / file.name
    # Two jobs of a sweep would write into one file.
    with lock(place), explain_disk_errors(place):
        if not again and (found := find_file(file)) is not None:
            return found
        # The file has its name when its content is right, never before.
        part = place.with_name(f".partial-{file.name}")
        begun = 0
        if part.is_file():
            begun = part.stat().st_size
        size = ""
        if file.size:
            size = f", {file.size / 1e6:.0f} MB"
        with status(f"fetching {file.source}{size}"):
            try:
                if not (begun and _resume(file, part, begun)):
                    _download(file, part)
            except Interrupted as error:
                kept = 0
                if part.is_file():
                    kept = part.stat().st_size
                more = ""
                if kept:
                    more = f"{kept} bytes are kept: `editbench fetch` goes on from there. "
                raise EditbenchError(
                    f"could not fetch {file.name} from {file.source} ({error}). {more}Or get it "
                    f"elsewhere and put it at {place}"
                ) from error
        return _accept(file, part, place)


def locate_file(file: Published | Mapping[str, Any], path: Path | str | None = None) -> Found:
    """The file of a network, fetched if need be.

    Args:
        file: what is looked for, or its configuration.
        path: where it must be; by default the folder of networks.

    Raises:
        BadFile: the content is wrong, or there is nothing at `path`.
        EditbenchError: it is missing and may not be fetched, or the download failed.
    """
    if not isinstance(file, Published):
        file = Published.from_config(file)
    found = find_file(file, path)
    if found is not None:
        return found
    if is_offline():
        raise EditbenchError(missing_text([file]))
    return fetch_file(file)


class Interrupted(Exception):
    """A download that did not end."""


def _download(file: Published, part: Path, begun: int = 0) -> None:
    """Write the file, or its rest from byte `begun` on, to `part`."""
    headers = {"Range": f"bytes={begun}-"} if begun else {}
    # Sent as stored: a compressed stream could not be resumed, nor its length be compared.
    get = pooch.HTTPDownloader(
        chunk_size=CHUNK, timeout=TIMEOUT, headers=headers | {"Accept-Encoding": "identity"}
    )
    import requests  # by pooch

    try:
        with part.open("ab" if begun else "wb") as stream:
            get(file.source, stream, None)
    except (requests.RequestException, ValueError) as error:
        raise Interrupted(_short(error)) from error


def _resume(file: Published, part: Path, begun: int) -> bool:
    """Go on with a download that broke off.

    Whether the result is the pinned content. If not, nothing is left of it.
    """
    if pin(file) is not None:
        try:
            _download(file, part, begun)
        except Interrupted as error:
            answer = getattr(error.__cause__, "response", None)
            if answer is None or answer.status_code != 416:
                raise  # else the server has no more: all is there, or the rest is of something else
        if file_sha256(part) == pin(file):
            return True
    part.unlink()
    return False


def _accept(file: Published, part: Path, place: Path) -> Found:
    """Move a finished download to its place if its content is the pinned one, and pin it if none
    was.
    """
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
        with lock(pins):
            write_json(pins, (read_json(pins) if pins.is_file() else {}) | {file.name: found})
    return Found(file, place, found)


def _short(error: Exception) -> str:
    """An error of requests without its nested representations."""
    text = str(error)
    known = next((what for sign, what in SIGNS.items() if sign in text), None)
    return known or (text.splitlines()[0] if text else type(error).__name__)
