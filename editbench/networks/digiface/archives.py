"""The three archives of digiface, and how they are fetched."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from os import environ
from pathlib import Path

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import file_sha256, lock
from editbench.base.progress import status
from editbench.networks.fetch import fetch_file
from editbench.networks.registry import (
    MIRROR,
    Published,
    find_file,
    folder,
    is_offline,
    make_folder,
)

COMMAND = "editbench fetch digiface"
TIMEOUT = 600  # seconds for a package manager


@dataclass(frozen=True)
class Archive(Published):
    """An archive of a package registry. The package manager knows its address.

    Args:
        package: its name and version, in the package manager's syntax.
        manager: 'pip' or 'npm'.
        licence_file: the member with its licence.
        converted: name of the converted file.
    """

    url: str = ""
    package: str = ""
    manager: str = ""
    licence_file: str = ""
    converted: str = ""

    @property
    def command(self) -> str:
        """A command that downloads it."""
        if self.manager == "pip":
            return f"pip download --no-deps {self.package}"
        return f"npm pack {self.package}"

    def remedy(self) -> str:
        return f"`{COMMAND}` gets it; or put what `{self.command}` gives at {folder() / self.name}"


GENERATOR = Archive(
    name="gan_face_generate-1.1.1-py3-none-any.whl",
    sha256="24102f4be41d164e44251168ede0458a45e498a888c81493e2aea48529640569",
    size=13_306_246,
    licence="MIT; trained on DigiFace-1M, which is for non-commercial research",
    package="gan-face-generate==1.1.1",
    manager="pip",
    licence_file="gan_face_generate-1.1.1.dist-info/licenses/LICENSE",
    converted="generator.safetensors",
)
FACE_API = Archive(
    name="vladmandic-face-api-1.7.15.tgz",
    sha256="0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
    size=12_677_476,
    licence="MIT",
    package="@vladmandic/face-api@1.7.15",
    manager="npm",
    licence_file="package/LICENSE",
    converted="face_api.safetensors",
)
HUMAN = Archive(
    name="vladmandic-human-3.3.6.tgz",
    sha256="425e9c51dbbca0c8934362b170cb0d54c2529c11c654b3c03092b16e9d6ad3f7",
    size=28_615_417,
    licence="MIT; upstreams oarriaga/face_classification (MIT) and mediapipe (Apache 2.0)",
    package="@vladmandic/human@3.3.6",
    manager="npm",
    licence_file="package/LICENSE",
    converted="human.safetensors",
)
ARCHIVES = (GENERATOR, FACE_API, HUMAN)


def get_archive(archive: Archive, source: Path | None = None) -> Path:
    """An archive with the pinned content, fetched to the folder of networks if necessary.

    It is fetched by the package manager, which knows the user's registry and proxy. If
    $EDITBENCH_MIRROR is set, it is downloaded from there instead, and an interrupted download is
    resumed.

    Args:
        archive: the archive.
        source: a folder that contains it; None for the folder of networks.

    Raises:
        BadFile: a file of this name has different content.
        EditbenchError: it is not in `source`, or could not be fetched.
    """
    if source is not None:
        place = source / archive.name
        if not place.is_file():
            raise EditbenchError(f"--from {source}: holds no {archive.name}; {advice()}")
        _check(archive, place)
        return place
    found = find_file(archive)
    if found is not None:
        return found.path
    if is_offline():
        raise EditbenchError(f"{archive.name} is not here and nothing may be fetched: {advice()}")
    # A mirror is a plain folder of files, which package managers cannot use.
    if environ.get(MIRROR) is not None:
        try:
            return fetch_file(archive).path
        except BadFile:
            raise
        except EditbenchError as error:
            raise EditbenchError(f"{error}. No connection? {advice()}") from error
    if not _by_manager(archive):
        raise EditbenchError(
            f"`{archive.command}` did not produce {archive.name}: {archive.manager} is missing "
            f"here, or has no connection; {advice()}"
        )
    return folder() / archive.name


def advice() -> str:
    """What to do without a network connection, in one line."""
    commands = " ; ".join(archive.command for archive in ARCHIVES)
    return (
        f"on a machine with a connection run `{commands}`, put the three files into one folder and "
        f"give it: `{COMMAND} --from FOLDER`"
    )


def _check(archive: Archive, place: Path) -> None:
    found = file_sha256(place)
    if found != archive.sha256:
        raise BadFile(
            f"{place}: not the published {archive.name}: {place.stat().st_size} bytes with sha256 "
            f"{found}, expected {archive.sha256}; {advice()}"
        )


def _by_manager(archive: Archive) -> bool:
    """Fetch with pip or npm. Returns whether the archive is now in its place."""
    place = make_folder() / archive.name
    # In a temporary folder, so that an interrupted download leaves nothing behind.
    with lock(place), tempfile.TemporaryDirectory(dir=folder(), prefix=".partial-") as temporary:
        words = _words(archive, temporary)
        if words is None:
            return False
        with status(f"{archive.command}, {(archive.size or 0) / 1e6:.0f} MB"):
            try:
                done = subprocess.run(words, capture_output=True, timeout=TIMEOUT, check=False)
            except (OSError, subprocess.TimeoutExpired):
                return False
        made = Path(temporary) / archive.name
        if done.returncode or not made.is_file():
            return False
        _check(archive, made)
        made.replace(place)
    return True


def _words(archive: Archive, place: str) -> list[str] | None:
    """The command line that downloads an archive to a folder; None if its manager is missing."""
    if archive.manager == "pip":
        # Requirements do not matter, since the package is not installed.
        options = ["--no-deps", "--ignore-requires-python", "--only-binary=:all:", "--dest", place]
        return [sys.executable, "-m", "pip", "download", "--quiet", *options, archive.package]
    npm = shutil.which("npm")
    if npm is None:
        return None
    return [
        npm,
        "pack",
        "--silent",
        "--ignore-scripts",
        # The default cache is in the home folder, which may not exist.
        "--cache",
        place,
        "--pack-destination",
        place,
        archive.package,
    ]
