"""What a report reads from YAML files: titles of methods, attributes and worlds, papers, figures.

Names are used as keys of files, CSV columns and colours. A title is read from the current YAML if
the option still exists, so that a changed title needs no new run, and otherwise from the record.
Without a title, the name is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from editbench.base.conf import WORDING, option_file, read_yaml
from editbench.base.errors import BadFile, UnknownName
from editbench.report.load import Results

# Keys that may change without a new run.
READ = (*WORDING, "figure")


class Wording:
    """The keys READ of the options in some records.

    Args:
        results: the records.
        folders: a user's own configuration folders.
    """

    def __init__(self, results: Results, folders: Sequence[Path] = ()) -> None:
        self.results = results
        # Converted once, for all groups of options.
        self._runs = results.run_records
        self.folders = folders
        self._files: dict[tuple[str, str], dict[str, Any]] = {}

    def by_run(self, group: str) -> Iterator[tuple[dict[Any, Any], dict[str, Any]]]:
        """Each row of `runs`, with the wording of its option.

        Args:
            group: of the option: 'method', 'scorer' or 'generator'.
        """
        for run in self._runs:
            recorded = self.results.configs.get(run["run_id"], {}).get(group)
            # The row has the option's name too, for records without a configuration.
            yield run, self.of(group, recorded, run[group])

    def metrics(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each metric in the records' configurations, with the wording of its option."""
        for run in self._runs:
            own = self.results.configs.get(run["run_id"], {}).get("metric")
            # Other programs' records may contain anything here.
            if isinstance(own, dict):
                for name, recorded in own.items():
                    yield str(name), self.of("metric", recorded, str(name))

    def of(self, group: str, recorded: object, name: str) -> dict[str, Any]:
        """The wording of one option.

        Args:
            group: of the option, such as 'method'.
            recorded: the option in a record, if it is there.
            name: of the option, if it is not in `recorded`.
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
            return {}  # an unknown option, or a damaged file, which `run` rejects

    def methods(self) -> dict[str, str]:
        """Label -> title. If two labels have the same title, the label is added."""
        found: dict[str, str] = {}
        for run, wording in self.by_run("method"):
            title = wording.get("title")
            if title:
                # A label is the name, and the options of a variant: 'gradctrl (n_per_class=50)'.
                found[run["label"]] = f"{title}{run['label'].removeprefix(run['method'])}"
        count = Counter(found.values())
        return {
            label: title if count[title] == 1 else f"{title} [{label}]"
            for label, title in found.items()
        }

    def attributes(self) -> dict[str, str]:
        """Attribute -> title, for attributes that have one."""
        found: dict[str, str] = {}
        for _, wording in self.by_run("scorer"):
            titles = wording.get("titles")
            if isinstance(titles, Mapping):
                found |= {str(name): str(title) for name, title in titles.items()}
        return found

    def worlds(self) -> dict[str, str]:
        """Name of a generator -> title, for generators that have one."""
        found: dict[str, str] = {}
        for run, wording in self.by_run("generator"):
            title = wording.get("title")
            if title:
                found[run["generator"]] = str(title)
        return found
