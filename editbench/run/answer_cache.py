"""A cache, shared between processes, of answers that follow from the words of a command line.

Naming the jobs of a sweep loads networks and imports classes, which takes seconds. The names depend
only on the words, on the files that the words name, and on the installed sources. An answer is
stored with the state of all of these and is used again only while none has changed. What may change
independently, such as which records exist, is never part of an answer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from editbench.base.errors import EditbenchError
from editbench.base.files import digest, file_state, named_files, read_json, user_cache, write_json
from editbench.base.user_code import is_ours

PACKAGES = ("editbench", "editbench.methods", "editbench.metrics", "editbench.conf")
# Keys of folders whose content needs no watching: their files are named one by one, or not used.
FOLDERS = ("out", "cache", "data")
MOST = 100  # number of answers that are kept; the oldest are removed first


def recall_answer(question: Sequence[str]) -> Any:
    """The stored answer; None if there is none, or if something that it depends on has changed.

    Args:
        question: the words of a command line, beginning with the command.
    """
    file = _file(question)
    if file is None:
        return None
    try:
        kept = read_json(file, sealed=True)
        is_same = kept["sources"] == _installed()
        for name, state in kept["files"].items():
            is_same = is_same and _state(name) == state
    except (EditbenchError, KeyError, AttributeError):
        return None
    if not is_same:
        return None
    return kept["answer"]


def keep_answer(question: Sequence[str], answer: Any, configs: Iterable[Mapping[str, Any]]) -> None:
    """Store an answer for later processes, if changes of all that it depends on can be detected.

    Args:
        question: the words of a command line, beginning with the command.
        answer: plain values, as JSON has them.
        configs: the resolved configurations that it was made of.
    """
    names: set[str] = set()
    for config in configs:
        if not _can_be_watched(config):
            return
        names.update(named_files(config))
    # With a user's own code or interpolations of the environment, the answer may change.
    if any("$" in word or word.startswith("hydra") for word in question):
        return
    file = _file(question)
    if file is None:
        return
    files = {name: _state(name) for name in sorted(names)}
    # If the home folder is not writable, the next process only takes some seconds longer.
    with suppress(EditbenchError, OSError):
        write_json(file, {"sources": _installed(), "files": files, "answer": answer})
        written = sorted(file.parent.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for old in written[:-MOST]:
            old.unlink(missing_ok=True)


def _file(question: Sequence[str]) -> Path | None:
    """Where an answer is stored; None if the user has no folder for it."""
    folder = user_cache("remembered")
    if folder is None:
        return None
    # Relative paths among the words mean other files in another working folder.
    name = digest([list(question), str(Path.cwd()), sys.version], 32)
    return folder / f"{name}.json"


def _installed() -> str:
    """Hash of the names, sizes and times of all files of the package, weights included."""
    stamps: list[object] = []
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            continue
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*")):
            if path.suffix in (".py", ".yaml", ".safetensors"):
                about = path.stat()
                stamps.append((str(path), about.st_size, about.st_mtime_ns))
    return digest(stamps, 32)


def _can_be_watched(config: Mapping[str, Any]) -> bool:
    """Whether a configuration names only our own classes, and no folder whose content matters."""
    for key, value in _items(config):
        # The keys that name a class, and the function of a scorer.
        if key in ("_target_", "function") and not is_ours(value):
            return False
        # A published network may be in a user's folder that is not named here.
        if key == "url":
            return False
        if key not in FOLDERS and isinstance(value, str) and os.path.isdir(value):
            return False
    return True


def _items(config: object) -> Iterator[tuple[str, object]]:
    """Every key of a nested configuration with its value."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield str(key), value
            yield from _items(value)
    elif isinstance(config, list):
        for value in config:
            yield "", value
            yield from _items(value)


def _state(name: str) -> list[int] | None:
    """`file_state`, as JSON gives it back."""
    state = file_state(name)
    return None if state is None else list(state)
