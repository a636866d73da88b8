"""The source files that a class depends on, and their hash.

The import graph is read from the text of the files, and no module is executed. Every `import`
statement counts, at the top of a module or inside a function, and so does
`importlib.import_module("name")` with the name as text. The graph covers editbench and the user's
own code. The provenance of a record has the versions of Python and of the packages that editbench
computes with.

Files other than source are counted where the configuration names them, see
`editbench.base.identity.content`. What a class opens under a name of its own is not seen.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from editbench.base import user_code
from editbench.base.errors import EditbenchError

# Modules that cannot change a number: output, error messages, progress. The root package is left
# out too: it only re-exports names, and following it would include everything.
WITHOUT_EFFECT = (
    "editbench.api",
    "editbench.cli",
    "editbench.commands",
    "editbench.report",
    "editbench.base.errors",
    "editbench.base.output",
    "editbench.base.progress",
    "editbench.base.sources",
    "editbench.base.user_code",
)
# A class of these libraries is identified by the version of the library, since reading the
# thousands of modules that torch imports would take most of a minute.
LIBRARIES = ("torch", "torchvision", "torchmetrics", "torchdiffeq", "numpy", "scipy", "sklearn")
# Functions that import the module of their first argument.
IMPORTING = ("import_module", "__import__")
LENGTH = 16  # hex digits of a digest; 64 bits


def source_digest(target: str) -> str:
    """Hash of the module that defines a class or function, and of every module that it imports.

    Args:
        target: dotted name of a class or function, as in `_target_`, or of a module.

    Returns:
        16 hex digits. Line ends are normalised, so a checkout on Windows has the same digest.

    Raises:
        EditbenchError: no part of the name is a module.
    """
    lines = [f"{name} {text_hash}" for name, text_hash in sorted(source_hashes(target).items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:LENGTH]


def source_hashes(target: str) -> dict[str, str]:
    """The modules of `source_digest`: name -> hash of the text."""
    first = _module_of(target)
    own_root = first.partition(".")[0]
    if own_root in LIBRARIES:
        return {own_root: _version(own_root)}
    found: dict[str, str] = {}
    # Most modules import the same few names, of which most are not followed.
    visited: set[str] = set()
    waiting = [first, *_parents(first)]
    while waiting:
        name = waiting.pop()
        if name in visited:
            continue
        visited.add(name)
        if not _is_followed(name, own_root):
            continue
        path = _source_file(name)
        if path is None:  # a namespace package, or no module
            continue
        seen = _read_module(name, path)
        found[name] = seen.text_hash
        waiting += seen.imported
    return found


@cache
def _version(root: str) -> str:
    """Version of the distribution that contains a top-level module."""
    # The two names may differ: sklearn is part of scikit-learn.
    names = metadata.packages_distributions().get(root, [root])
    return metadata.version(names[0])


def _module_of(target: str) -> str:
    """The longest leading part of a dotted name that is a module."""
    words = target.split(".")
    for length in range(len(words), 0, -1):
        name = ".".join(words[:length])
        if _source_file(name) is not None:
            return name
    raise EditbenchError(
        f"_target_={target} cannot be imported: there is no source file of a module '{words[0]}'"
        f"{user_code.hint(target)}"
    )


def _parents(name: str) -> list[str]:
    """The packages that contain a module; Python runs them first: 'a' and 'a.b' for 'a.b.c'."""
    words = name.split(".")
    return [".".join(words[:length]) for length in range(1, len(words))]


def _is_followed(name: str, own_root: str) -> bool:
    """Whether a module can change a result and belongs to neither Python nor a third party."""
    root = name.partition(".")[0]
    if root == "editbench":
        return _has_effect(name)
    if root == own_root:
        return True  # a user's own package counts even if it is installed
    return not _is_installed(root)


@cache
def _has_effect(name: str) -> bool:
    """Whether a module of editbench can change a result."""
    hidden = any(name == part or name.startswith(f"{part}.") for part in WITHOUT_EFFECT)
    return name != "editbench" and not hidden


def _is_installed(root: str) -> bool:
    """Whether a top-level module belongs to the standard library or an installed package."""
    if root in sys.stdlib_module_names:
        return True
    spec = _find_spec(root)
    # A builtin, or an optional import that does not exist. This is not cached: the module may be
    # found later, when the process searches more folders.
    if spec is None:
        return True
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return any(user_code.is_library(place) for place in places)


def _find_spec(name: str) -> ModuleSpec | None:
    """The spec of a module. Unlike importlib.util.find_spec, this executes no parent package."""
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__spec__", None) is not None:
        return loaded.__spec__
    parent = name.rpartition(".")[0]
    search = None
    if parent:
        around = _find_spec(parent)
        if around is None or around.submodule_search_locations is None:
            return None
        search = list(around.submodule_search_locations)
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        # Python's own finder searches for the last part alone. With the full name, it fails for a
        # folder without __init__.py whose package is not imported.
        wanted = name.rpartition(".")[2] if finder is PathFinder else name
        spec = find(wanted, search) if find else None
        if spec is not None:
            return spec
    return None


def _source_file(name: str) -> str | None:
    """The path of a module's file; None if it has none."""
    loaded = sys.modules.get(name)
    origin = getattr(loaded, "__file__", None)
    if origin is None:
        spec = _find_spec(name)
        origin = spec.origin if spec is not None and spec.has_location else None
    return origin or None


@dataclass(frozen=True)
class _SeenText:
    """What is remembered of a module's text from when this process first read it."""

    text_hash: str
    imported: tuple[str, ...]
    loaded: object | None  # the load of the module that had this text, see `_load_of`
    stamp: tuple[int, int]  # size and modification time of the file


# A process keeps running the text that it loaded, even if the file is edited later. A text that was
# read before its module was loaded is assumed to be the loaded one. The file is read again if the
# module was reloaded, or if the module is still not loaded and the file has changed.
_SEEN: dict[str, _SeenText] = {}  # by the path of its file


def _load_of(name: str) -> object | None:
    """An object that differs between loads of a module; None if it is not loaded."""
    module = sys.modules.get(name)
    # `importlib.reload`, and so %autoreload in a notebook, keeps the module but makes a new spec.
    return getattr(module, "__spec__", None) or module


def _read_module(name: str, path: str) -> _SeenText:
    """The hash of a module's text, and the names that it imports."""
    loaded = _load_of(name)
    seen = _SEEN.get(path)
    # Compared with `is`, since two specs of the same file are equal.
    if seen is not None and loaded is not None and (seen.loaded is None or seen.loaded is loaded):
        if seen.loaded is None:
            _SEEN[path] = replace(seen, loaded=loaded)
        return seen
    file = Path(path)
    about = file.stat()
    stamp = (about.st_size, about.st_mtime_ns)
    if seen is not None and loaded is None and seen.loaded is None and seen.stamp == stamp:
        return seen
    raw = file.read_bytes()
    imported: tuple[str, ...] = ()
    if file.suffix == ".py":  # not an extension module
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        package = name if file.stem == "__init__" else name.rpartition(".")[0]
        imported = tuple(sorted(_imported_names(raw, package)))
    _SEEN[path] = _SeenText(hashlib.sha256(raw).hexdigest(), imported, loaded, stamp)
    return _SEEN[path]


def _imported_names(text: bytes, package: str) -> set[str]:
    """All names that the import statements of a module could load, including parent packages."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return set()  # importing the module reports the error
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(_with_parents(alias.name for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            # In `from a.b import c`, c may be a module or a value. Names of values are dropped
            # later, since no file is found for them.
            names.update(_with_parents([base]))
            names.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            names.update(_with_parents(_called_name(node, package)))
    return names


def _called_name(node: ast.Call, package: str) -> list[str]:
    """The module that a call loads, if it is `import_module` or `__import__` of a literal name."""
    function = node.func.attr if isinstance(node.func, ast.Attribute) else None
    if isinstance(node.func, ast.Name):
        function = node.func.id
    if function not in IMPORTING or not node.args:
        return []
    first = node.args[0]
    if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
        return []
    name = first.value
    level = len(name) - len(name.lstrip("."))
    if level:  # relative, as in import_module(".near", __package__)
        return [_absolute(ast.ImportFrom(name[level:], [], level), package)]
    return [name]


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The absolute name of the module in `from module import ...`, which may be relative."""
    if node.level == 0:
        return node.module or ""
    words = package.split(".")
    kept = words[: len(words) - (node.level - 1)]
    if node.module:
        kept.append(node.module)
    return ".".join(kept)


def _with_parents(names: Iterable[str]) -> set[str]:
    whole: set[str] = set()
    for name in names:
        whole.add(name)
        whole.update(_parents(name))
    return whole
