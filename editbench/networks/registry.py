"""Published metric networks: where their files lie, and whether they are the right ones.

A network's file is looked for at its `path`, then in the folder of networks ($EDITBENCH_NETWORKS,
else the user's cache, else runs/cache/networks). editbench.networks.fetch downloads it there once, unless `offline` (or
$EDITBENCH_OFFLINE) forbids it. Whatever was found must have the pinned sha256. A file of one's own
without a pinned one is pinned when it is first fetched: its hash goes to checksums.json in that
folder, and another content is an error from then on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from editbench.base.conf import group_options
from editbench.base.errors import BadFile, EditbenchError, UnknownName, no_such
from editbench.base.files import file_sha256, read_json, user_cache

FOLDER = "EDITBENCH_NETWORKS"
OFFLINE = "EDITBENCH_OFFLINE"
MIRROR = "EDITBENCH_MIRROR"
HOMELESS = Path("runs/cache/networks")  # where no home folder can hold them: beside the banks
LOCK = "checksums.json"  # file name -> sha256 of what was pinned at its first fetch
# Set by `require_files`; downloads happen deep within constructors, which have no configuration.
_offline = False  # of the run that this process works on


@dataclass(frozen=True)
class Published:
    """A file that others publish.

    Args:
        name: of the file, without folders.
        url: where it is.
        sha256: of its content, 64 hexadecimal digits; None pins it at the first fetch.
        size: bytes, which a listing shows.
        licence: its terms, which a listing shows.
    """

    name: str
    url: str
    sha256: str | None = None
    size: int | None = None
    licence: str = ""

    def __post_init__(self) -> None:
        # The name becomes part of a path: a folder in it would leave the folder of networks.
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
        """Its address: on the mirror of $EDITBENCH_MIRROR where there is one."""
        # For sites whose machines reach one server of their own alone; the checksum stays the same.
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
class Found:
    """A file that is there and is the right one."""

    file: Published
    path: Path
    sha256: str


def folder() -> Path:
    """Where fetched networks lie: $EDITBENCH_NETWORKS, the user's cache, or HOMELESS."""
    named = os.environ.get(FOLDER)
    if named:
        return Path(named)
    return user_cache("networks") or HOMELESS


def make_folder() -> Path:
    """The folder of networks, made if need be.

    Raises:
        EditbenchError: it cannot be made or written; the message names the variable to set.
    """
    place = folder()
    remedy = f"set ${FOLDER} to a folder you may write to"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EditbenchError(f"cannot make {place} ({error.strerror}): {remedy}") from error
    if not os.access(place, os.W_OK):
        raise EditbenchError(f"cannot write {place}: {remedy}")
    return place


def is_offline() -> bool:
    """Whether nothing may be fetched: `offline` of the run, or $EDITBENCH_OFFLINE."""
    return _offline or os.environ.get(OFFLINE, "").lower() in ("1", "true", "yes", "on")


def published() -> dict[str, Published]:
    """Option of the group `network` -> its file, for those that have one."""
    return {
        name: Published.from_config(config["file"])
        for name, config in group_options("network").items()
        if config.get("file")
    }


def find_file(file: Published, path: Path | str | None = None) -> Found | None:
    """The file at `path` or in the folder of networks; None where it is not there.

    Raises:
        BadFile: nothing at `path`, or another content than the pinned one.
    """
    place = folder() / file.name if path is None else Path(path)
    if not place.is_file():
        if path is None:
            return None
        raise BadFile(f"{place}: {no_such('file', place)} (network.path); {file.remedy()}")
    return Found(file, place, check(file, place))


def check(file: Published, place: Path) -> str:
    """The sha256 of a file; BadFile where it is not the pinned one."""
    found = file_sha256(place)
    pinned = pin(file)
    if pinned is not None and found != pinned:
        # A size tells a broken download from another version.
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
    # A hash in the configuration counts more than one of a first fetch.
    pins = folder() / LOCK
    found = file.sha256 or (read_json(pins).get(file.name) if pins.is_file() else None)
    if found is None:
        return None
    return str(found).lower()


def missing_text(files: list[Published]) -> str:
    listing = "\n".join(f"  {folder() / file.name}    from {file.source}" for file in files)
    return (
        f"offline=true, but these files of networks are missing:\n{listing}\nput them there (or "
        f"point ${FOLDER} to "
        "their folder, or set the network's path), or run `editbench fetch` where there is a "
        "connection"
    )


def files_in(config: object) -> Iterator[tuple[Published, str | None]]:
    """(file, path) of every network that a resolved configuration names, wherever it stands."""
    # A network may stand anywhere: in a metric, an observation, a scorer.
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
    """Take `offline` of a run, and name every file that the run lacks and may not fetch.

    This comes before anything is built or fitted, so that a long run does not fail in its middle.

    Args:
        plain: the resolved configuration of the run, as plain values.

    Raises:
        EditbenchError: `offline` is set and files are missing.
        BadFile: one is there with other content.
    """
    global _offline
    _offline = bool(plain.get("offline", False))
    # By name, since several metrics share a network.
    missing = {}
    for key, value in plain.items():
        # The group `network` is a choice for others; only those who use one need its file.
        if key == "network" or not isinstance(value, dict):
            continue
        for file, path in files_in(value):
            if find_file(file, path) is None:
                missing[file.name] = file
    if missing and is_offline():
        raise EditbenchError(missing_text(list(missing.values())))
