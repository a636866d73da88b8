"""Importing a user's own modules from the current folder and from configuration folders.

The installed command does not have these folders on its path. They are searched after all installed
packages, so that a user's file never shadows an installed module.
"""

from __future__ import annotations

import site
import sys
import sysconfig
from collections.abc import Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from pathlib import Path
from types import ModuleType

# Folders of installed packages. An environment may see further ones than its own: those of the
# system (Debian names them dist-packages), of a cluster's modules, of another environment.
PACKAGE_FOLDERS = ("site-packages", "dist-packages")


def is_ours(target: object) -> bool:
    """Whether the dotted name of a class or function belongs to editbench."""
    return str(target).startswith("editbench.")


def is_users_file(file: str) -> bool:
    """Whether a source file belongs to neither Python, nor an installed package, nor editbench."""
    if file.startswith("<"):  # code without a file
        return False
    ours = Path(__file__).parents[1]
    return not Path(file).is_relative_to(ours) and not is_library(file)


@cache
def is_library(place: str) -> bool:
    """Whether a file or folder belongs to Python or to an installed package.

    Args:
        place: its path. The files of an editable install lie elsewhere and are the user's own.
    """
    # Both paths, since an installed package may be a link to a folder elsewhere, and a user's
    # working folder may have a link among its parents.
    for path in (Path(place), Path(place).resolve()):
        if any(name in path.parts for name in PACKAGE_FOLDERS):
            return True
    return any(Path(place).resolve().is_relative_to(folder) for folder in _library_folders())


@cache
def _library_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {paths[name] for name in names if name in paths}
    folders.add(site.getusersitepackages())
    return tuple(Path(folder).resolve() for folder in folders)


class UserCode(MetaPathFinder):
    """Finds top-level modules in a user's folders. Submodules are found by their package.

    Adding the folders to `sys.path` would not work with an editable install. Its own finder comes
    after the path, so a folder named `editbench` in the current folder would shadow it.

    Attributes:
        folders: absolute paths, in the order in which they are searched.
    """

    def __init__(self) -> None:
        self.folders: list[Path] = []

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The spec of a top-level module, or None, by which Python asks the next finder.

        Args:
            fullname: dotted name of the module.
            path: where a package looks for its submodules; None for a top-level module.
            target: of a reload; not used.
        """
        # Python gives a path only for submodules.
        if path is not None:
            return None
        for folder in self.folders:
            # A FileFinder caches the folder's entries, so an old one could miss a new file.
            finder = FileFinder(
                str(folder),
                (ExtensionFileLoader, EXTENSION_SUFFIXES),
                (SourceFileLoader, SOURCE_SUFFIXES),
            )
            spec = finder.find_spec(fullname)
            if spec is not None and _holds_code(spec):
                return spec
        return None


def _holds_code(spec: ModuleSpec) -> bool:
    """Whether a module contains code, unlike a folder of results.

    Libraries try optional imports. Python would accept a folder `wandb` or `data` in the current
    folder as a namespace package.
    """
    if spec.loader is not None:
        return True
    return any(list(Path(place).glob("*.py")) for place in spec.submodule_search_locations or ())


def search_folders(*folders: Path) -> None:
    """Also import modules from these folders, for the rest of this process.

    Args:
        folders: in search order; they are searched after the folders given earlier.
    """
    finder = _finder()
    if finder is None:
        finder = UserCode()
        # Appended, so that a user's file never shadows an installed module.
        sys.meta_path.append(finder)
    for folder in folders:
        place = folder.absolute()
        if place not in finder.folders:
            finder.folders.append(place)


def search_configuration(folders: Sequence[Path]) -> None:
    """Also import modules from the current folder, configuration folders and their parents."""
    search_folders(Path.cwd())
    for folder in folders:
        search_folders(folder.absolute().parent, folder)


def searched_folders() -> list[Path]:
    """The searched folders, to pass them to another process."""
    finder = _finder()
    return list(finder.folders) if finder is not None else []


def hint(target: str) -> str:
    """The remedy for a dotted name that could not be imported, for an error message.

    Args:
        target: such as 'my_module.MyClass'.
    """
    # Python searches the folders only for the first part of the name.
    root = target.partition(".")[0]
    finder = _finder()
    own = finder.find_spec(root, None) if finder is not None else None
    loaded = sys.modules.get(root)
    if own is None:
        if loaded is not None:
            return ""
        return f"; put {root}.py into the current folder or beside --config-dir"
    origin = getattr(loaded, "__file__", None)
    if loaded is not None and origin != own.origin:
        return f"; the name is taken by {origin or 'Python itself'}: rename {own.origin}"
    return ""


def _finder() -> UserCode | None:
    for finder in sys.meta_path:
        if isinstance(finder, UserCode):
            return finder
    return None
