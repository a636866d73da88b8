"""The papers of a report's methods, metrics and generators, as BibTeX.

The YAML of a method, metric or generator has the key of its entry, `cite: chen2022gradctrl`, or a
list of keys. The entries are in the references.bib of the same configuration folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from editbench.base.conf import CONF
from editbench.base.text import read_text
from editbench.report.load import Results
from editbench.report.titles import Wording

FILE = "references.bib"
# An entry begins at the start of a line with, for example, `@article{key,`.
_ENTRY = re.compile(r"^@\w+\s*\{\s*([^\s,]+)\s*,", re.MULTILINE)


@dataclass(frozen=True)
class Cited:
    """The papers of some records.

    Attributes:
        methods: label -> keys.
        metrics: name -> keys.
        worlds: name of a generator -> keys.
        missing: keys without an entry.
        bibtex: content of the file.
    """

    methods: dict[str, list[str]]
    metrics: dict[str, list[str]]
    worlds: dict[str, list[str]]
    missing: list[str]
    bibtex: str

    @property
    def problem(self) -> str:
        """Which keys have no entry, and the remedy; '' if all have one."""
        if not self.missing:
            return ""
        return (
            f"no entry for {', '.join(self.missing)}: write it into the {FILE} of a configuration "
            "folder of yours, and name the folder: editbench report --config-dir FOLDER"
        )


def cited_in(results: Results, folders: Sequence[Path] = ()) -> Cited:
    """The papers of the methods, metrics and generators in some records.

    Args:
        results: the records.
        folders: a user's own configuration folders.
    """
    wording = Wording(results, folders)
    methods: dict[str, list[str]] = {}
    metrics: dict[str, list[str]] = {}
    worlds: dict[str, list[str]] = {}
    for run, method in wording.by_run("method"):
        methods[run["label"]] = _keys(method.get("cite"))
    for run, generator in wording.by_run("generator"):
        worlds[run["generator"]] = _keys(generator.get("cite"))
    for name, metric in wording.metrics():
        metrics[name] = _keys(metric.get("cite"))
    lists = [*methods.values(), *metrics.values(), *worlds.values()]
    keys = sorted({key for keys in lists for key in keys})
    known = _known(folders)
    missing = [key for key in keys if key not in known]
    lines = ["The papers of the methods, metrics and data sets of this report."]
    # The file also names missing entries; BibTeX reads such a line as a comment.
    lines += [known.get(key, f"No entry for the key {key}.") for key in keys]
    return Cited(methods, metrics, worlds, missing, "\n\n".join(lines) + "\n")


def entries(text: str) -> dict[str, str]:
    """Key -> entry, for a text in BibTeX. Text between entries is a comment."""
    found = {}
    for begin in _ENTRY.finditer(text):
        depth = 0
        for place in range(begin.start(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if text[place] == "}" and depth == 0:
                found[begin[1]] = text[begin.start() : place + 1]
                break
    return found


def _known(folders: Sequence[Path]) -> dict[str, str]:
    """Key -> entry, for all entries of editbench and of the user."""
    known: dict[str, str] = {}
    # The user's entries come last and may replace editbench's.
    for folder in (CONF, *folders):
        if (folder / FILE).is_file():
            known |= entries(read_text(folder / FILE))
    return known


def _keys(cite: object) -> list[str]:
    if not cite:
        return []
    return [str(key) for key in cite] if isinstance(cite, list) else [str(cite)]
