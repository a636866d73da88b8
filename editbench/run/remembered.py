"""What follows from the words of a command line, kept between processes.

To name the jobs of a sweep, networks are loaded and classes are imported: seconds of torch for names
that follow from the words, from the files that the words name, and from the installed sources. An
answer is kept with the state of all of these and taken again only while none has changed. What may
change without them, such as which records are there, is never part of an answer.
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
# Folders that a configuration names and whose files it names one by one, or not at all.
FOLDERS = ("out", "cache", "data")
MOST = 100  # answers that are kept; the ones that were written first go first


def recall_answer(question: Sequence[str]) -> Any:
    """The kept answer, or None where there is none or where something that it follows from changed.

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
    """Keep an answer for later processes, where all that it follows from can be watched.

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
    # A person's own code and interpolations of the environment could answer otherwise tomorrow.
    if any("$" in word or word.startswith("hydra") for word in question):
        return
    file = _file(question)
    if file is None:
        return
    files = {name: _state(name) for name in sorted(names)}
    # A home folder that cannot be written costs the next process some seconds and nothing else.
    with suppress(EditbenchError, OSError):
        write_json(file, {"sources": _installed(), "files": files, "answer": answer})
        written = sorted(file.parent.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for old in written[:-MOST]:
            old.unlink(missing_ok=True)


def _file(question: Sequence[str]) -> Path | None:
    """Where an answer is kept; None for a user without a folder for it."""
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
    """Whether a configuration names our own classes alone, and no folder whose content counts."""
    for key, value in _items(config):
        if key == "_target_" and not is_ours(value):
            return False
        # A published network, which may lie in a folder of the user that is not named here.
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
