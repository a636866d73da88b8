"""Published metric networks: the location of their files, and checks of their content.

A network's file is searched at its `path`, otherwise in the folder of networks
($EDITBENCH_NETWORKS, else the user's cache, else runs/cache/networks). editbench.networks.fetch
downloads it there once, unless `offline` (or $EDITBENCH_OFFLINE) forbids it. A file must have the
pinned sha256. If a user's own network has none, its hash is pinned when it is first fetched: it is
written to checksums.json in that folder, and different content is an error from then on.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from editbench.base.conf import group_options
from editbench.base.errors import BadFile, EditbenchError, UnknownName, no_such
from editbench.base.files import CannotWrite, create_folder, file_sha256, read_json, user_cache
from editbench.base.validation import check_fields

FOLDER = "EDITBENCH_NETWORKS"
OF_NETWORKS = f"${FOLDER}"  # chooses the folder of networks, for messages
OFFLINE = "EDITBENCH_OFFLINE"
MIRROR = "EDITBENCH_MIRROR"
HOMELESS = Path("runs/cache/networks")  # used if there is no home folder; next to the banks
LOCK = "checksums.json"  # file name -> sha256 that was pinned when first fetched
# The option `offline` of the current run, set by `require_files`. It is global since downloads
# happen in constructors, which do not have the configuration.
_offline = False


@dataclass(frozen=True)
class Published:
    """A file published by a third party.

    Args:
        name: of the file, without folders.
        url: its address.
        sha256: of its content, 64 hexadecimal digits; None to pin it when first fetched.
        size: in bytes, for listings.
        licence: its terms, for listings.
    """

    name: str
    url: str
    sha256: str | None = None
    size: int | None = None
    licence: str = ""

    def __post_init__(self) -> None:
        check_fields("file", self)
        # The name becomes part of a path. With a folder in it, the file could be elsewhere.
        if not self.name or Path(self.name).name != self.name or self.name.startswith("."):
            raise EditbenchError(
                f"file.name must be the name of a file without folders, got '{self.name}'"
            )
        if self.sha256 is not None and (
            len(self.sha256) != 64 or set(self.sha256.lower()) - set("0123456789abcdef")
        ):
            raise EditbenchError(
                f"file.sha256 of {self.name} must be 64 hexadecimal digits or null"
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Published:
        known = [field.name for field in fields(cls)]
        for key in config:
            if key not in known:
                raise UnknownName("key of a network's file", str(key), known)
        for key in ("name", "url"):
            if not config.get(key):
                raise EditbenchError(f"the file of a network needs '{key}': {dict(config)}")
        return cls(**config)

    @property
    def source(self) -> str:
        """Its address, on the mirror $EDITBENCH_MIRROR if that is set."""
        # For sites whose machines can reach only their own server. The checksum is the same.
        mirror = os.environ.get(MIRROR)
        if mirror:
            return f"{mirror.rstrip('/')}/{self.name}"
        return self.url

    def remedy(self) -> str:
        return (
            f"`editbench fetch {Path(self.name).stem}` gets it from {self.source}; or put a copy "
            f"at {folder() / self.name}"
        )


@dataclass(frozen=True)
class NetworkFile:
    """A file that exists and has the right content."""

    file: Published
    path: Path
    sha256: str


def folder() -> Path:
    """The folder of fetched networks: $EDITBENCH_NETWORKS, the user's cache, or HOMELESS."""
    named = os.environ.get(FOLDER)
    if named:
        return Path(named)
    return user_cache("networks") or HOMELESS


def make_folder() -> Path:
    """The folder of networks, created if necessary.

    Raises:
        CannotWrite: it cannot be created or written; the message names the variable to set.
    """
    place = folder()
    create_folder(place, OF_NETWORKS)
    # A folder that exists may be read-only.
    if not os.access(place, os.W_OK):
        raise CannotWrite(place, errno.EACCES, OF_NETWORKS)
    return place


def is_offline() -> bool:
    """Whether nothing may be fetched: `offline` of the run, or $EDITBENCH_OFFLINE."""
    return _offline or os.environ.get(OFFLINE, "").lower() in ("1", "true", "yes", "on")


def published() -> dict[str, Published]:
    """Option of the group `network` -> its file, for options that have one."""
    return {
        name: Published.from_config(config["file"])
        for name, config in group_options("network").items()
        if config.get("file")
    }


def find_file(file: Published, path: Path | str | None = None) -> NetworkFile | None:
    """The file of a network at `path` or in the folder of networks; None if it is not there.

    Args:
        file: its published name, address and hash.
        path: of a copy; None for the folder of networks.

    Raises:
        BadFile: there is no file at `path`, or its content is not the pinned one.
    """
    place = folder() / file.name if path is None else Path(path)
    if not place.is_file():
        if path is None:
            return None
        raise BadFile(f"{place}: {no_such('file', place)} (network.path); {file.remedy()}")
    return NetworkFile(file, place, check(file, place))


def check(file: Published, place: Path) -> str:
    """The sha256 of a file, after a comparison with the pinned one, if there is one.

    Args:
        file: what it should be.
        place: its path.

    Raises:
        BadFile: its content is not the pinned one.
    """
    found = file_sha256(place)
    pinned = pin(file)
    if pinned is not None and found != pinned:
        # The size shows whether it is an incomplete download or another version.
        size = place.stat().st_size
        short = ""
        if file.size and size != file.size:
            short = f"; it has {size} bytes of {file.size}"
        raise BadFile(
            f"{place}: not the published {file.name}: sha256 {found}, expected {pinned}{short}. "
            f"Delete it; {file.remedy()}. For a network of your own set its file.sha256"
        )
    return found


def pin(file: Published) -> str | None:
    """The sha256 that its content must have: the configured one, or that of its first fetch."""
    # A hash in the configuration takes precedence.
    pins = folder() / LOCK
    found = file.sha256 or (read_json(pins).get(file.name) if pins.is_file() else None)
    if found is None:
        return None
    return str(found).lower()


def missing_text(files: list[Published]) -> str:
    listing = "\n".join(f"  {folder() / file.name}    from {file.source}" for file in files)
    return (
        f"offline=true, but these files of networks are missing:\n{listing}\nput them there (or "
        f"point ${FOLDER} to their folder, or set the network's path), or run `editbench fetch` "
        "where there is a connection"
    )


def _files_in(config: object) -> Iterator[tuple[Published, str | None]]:
    """(file, path) of all networks in a resolved configuration, at any depth."""
    # Metrics, observations and scorers may have networks.
    waiting = [config]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "_target_" in node and isinstance(node.get("file"), dict) and "url" in node["file"]:
                yield Published.from_config(node["file"]), node.get("path")
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def require_files(plain: Mapping[str, Any]) -> None:
    """Apply the option `offline` of a run, and check that no file is missing if it is set.

    Call this before anything is built or fitted, so that a long run does not fail later.

    Args:
        plain: the resolved configuration of the run, as plain values.

    Raises:
        EditbenchError: `offline` is set and files are missing; the message names them all.
        BadFile: a file does not have the pinned content.
    """
    global _offline
    _offline = bool(plain.get("offline", False))
    # By name, since several metrics may share a network.
    missing = {}
    for key, value in plain.items():
        # Networks of the group `network` are needed only by components that refer to them.
        if key == "network" or not isinstance(value, dict):
            continue
        for file, path in _files_in(value):
            if find_file(file, path) is None:
                missing[file.name] = file
    if missing and is_offline():
        raise EditbenchError(missing_text(list(missing.values())))
