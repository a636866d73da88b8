"""Where a user's own modules are found: the current folder, and the folders of their configuration.

The installed command has no such folder on its path. The folders are searched after everything that
is installed, so that a file of theirs never takes the place of a module of this or another package.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Sequence
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


def is_ours(target: object) -> bool:
    """Whether the dotted name of a class or function is one of editbench, and none of a user's."""
    return str(target).startswith("editbench.")


def is_users_file(file: str) -> bool:
    """Whether a file of source is neither Python's, nor installed, nor editbench's own."""
    if file.startswith("<"):  # code without a file
        return False
    libraries = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    ours = Path(__file__).parents[1]
    return not any(Path(file).is_relative_to(folder) for folder in (ours, *libraries))


class UserCode(MetaPathFinder):
    """Finds top-level modules in a user's folders. What lies below a package, the package finds.

    A finder and no entries of `sys.path`: an editable install is found by a finder of its own,
    which comes after the path, so that a folder `editbench` beside the user would be taken for it.

    Attributes:
        folders: absolute, in the order in which they are searched.
    """

    def __init__(self) -> None:
        self.folders: list[Path] = []

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Where a top-level module lies, or None."""
        if path is not None:
            return None
        for folder in self.folders:
            # A new finder: one that is kept would miss a file that was written a moment ago.
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
    """Whether a module is more than a folder of results.

    Libraries try to import what need not be there. A folder `wandb` or `data` beside the user must
    not be the answer, though Python would take it for a package.
    """
    if spec.loader is not None:
        return True
    return any(list(Path(place).glob("*.py")) for place in spec.submodule_search_locations or ())


def search_folders(*folders: Path) -> None:
    """Let modules be imported from these folders too, for the rest of this process.

    Args:
        folders: in the order in which they are searched, after those that were given before.
    """
    finder = _finder()
    if finder is None:
        finder = UserCode()
        # At the end: whatever is installed goes before, so that a user's file never shadows it.
        sys.meta_path.append(finder)
    for folder in folders:
        place = folder.absolute()
        if place not in finder.folders:
            finder.folders.append(place)


def search_configuration(folders: Sequence[Path]) -> None:
    """Let modules be imported from the current folder, and from configuration folders and beside
    them.
    """
    search_folders(Path.cwd())
    for folder in folders:
        search_folders(folder.absolute().parent, folder)


def searched_folders() -> list[Path]:
    """The folders, for a process that is to find the same modules."""
    finder = _finder()
    return list(finder.folders) if finder is not None else []


def hint(target: str) -> str:
    """What a user can do about a dotted name that could not be imported.

    Args:
        target: such as 'my_module.MyClass'.
    """
    # The first part decides: it is what Python looks for in a folder.
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
