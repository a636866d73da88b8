"""How methods, attributes and worlds are written, which papers they are of, and what draws a
metric: what the report reads of their YAML files.

A name is the key everywhere: of files, of columns in CSV, of colours. Its title is read from the
YAML of today where the option is still there, so that a changed word needs no new run, and else
from the record. What has neither is written by its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from editbench.base.conf import WORDING, option_file, read_yaml
from editbench.base.errors import BadFile, UnknownName
from editbench.report.load import Results

# Of these a changed word needs no new run.
READ = (*WORDING, "figure")


class Wording:
    """The keys READ of the options that stand in some records.

    Args:
        results: the records.
        folders: a user's own configuration folders.
    """

    def __init__(self, results: Results, folders: Sequence[Path] = ()) -> None:
        self.results = results
        # Once for all groups of options.
        self._runs = results.runs.to_dict("records")
        self.folders = folders
        self._files: dict[tuple[str, str], dict[str, Any]] = {}

    def by_run(self, group: str) -> Iterator[tuple[dict[Any, Any], dict[str, Any]]]:
        """Every row of the records' `runs`, with the wording of its option.

        Args:
            group: of the option: 'method', 'scorer' or 'generator'.
        """
        for run in self._runs:
            recorded = self.results.configs.get(run["run_id"], {}).get(group)
            # The row has the option's name as well, for records without a configuration.
            yield run, self.of(group, recorded, run[group])

    def metrics(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every metric of the records' configurations, with the wording of its option."""
        for run in self._runs:
            own = self.results.configs.get(run["run_id"], {}).get("metric")
            # A record of somebody else's harness may hold anything here.
            if isinstance(own, dict):
                for name, recorded in own.items():
                    yield str(name), self.of("metric", recorded, str(name))

    def of(self, group: str, recorded: object, name: str) -> dict[str, Any]:
        """The wording of one option.

        Args:
            group: of the option, such as 'method'.
            recorded: the option as a record has it, if it has it.
            name: of the option, where `recorded` does not tell it.
        """
        own = recorded if isinstance(recorded, dict) else {}
        name = str(own.get("name") or name)
        if (group, name) not in self._files:
            self._files[group, name] = self._read(group, name)
        both = {**own, **self._files[group, name]}
        return {key: both[key] for key in READ if both.get(key)}

    def _read(self, group: str, name: str) -> dict[str, Any]:
        try:
            return read_yaml(option_file(group, name, self.folders))
        except (UnknownName, BadFile):
            return {}  # somebody else's option, or a broken file, which `run` refuses

    def methods(self) -> dict[str, str]:
        """Label -> title. A title that two labels share is told apart by the label."""
        found: dict[str, str] = {}
        for run, wording in self.by_run("method"):
            title = wording.get("title")
            if title:
                # A label is the name, and what a variant differs in: 'gradctrl (n_per_class=50)'.
                found[run["label"]] = f"{title}{run['label'].removeprefix(run['method'])}"
        count = Counter(found.values())
        return {
            label: title if count[title] == 1 else f"{title} [{label}]"
            for label, title in found.items()
        }

    def attributes(self) -> dict[str, str]:
        """Attribute -> title, of those that have one."""
        found: dict[str, str] = {}
        for _, wording in self.by_run("scorer"):
            titles = wording.get("titles")
            if isinstance(titles, Mapping):
                found |= {str(name): str(title) for name, title in titles.items()}
        return found

    def worlds(self) -> dict[str, str]:
        """Name of a generator -> title, of those that have one."""
        found: dict[str, str] = {}
        for run, wording in self.by_run("generator"):
            title = wording.get("title")
            if title:
                found[run["generator"]] = str(title)
        return found
