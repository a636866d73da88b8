"""The style of a report: what it contains, in which order, with which titles, at which size.

The choices are in the file report.yaml, and the most common ones are also options of the command.
They do not change numbers, except for `methods` and `attributes`: means, ranks and tests are only
over the chosen ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from editbench.base.conf import read_yaml
from editbench.base.errors import EditbenchError, UnknownName
from editbench.figures.panels import FONTS
from editbench.figures.theme import Theme, theme_of
from editbench.report.cells import Column, columns_of
from editbench.report.costs import COSTS
from editbench.report.load import Results, require_readable
from editbench.report.numbers import Numbers
from editbench.report.paper import WIDTHS
from editbench.report.tables import main_table, quantities
from editbench.report.titles import Wording

FILE = "report.yaml"  # in the folder of the records
LATEX_TABLES = ("accuracy", "ad", "learned", "means", "cost", "ranking")
MOST_DIGITS = 6


@dataclass(frozen=True)
class Style:
    """The choices of a report, named as the keys of report.yaml.

    Attributes:
        methods: names or labels of the methods to report, in this order; empty for all, with the
            best first in means and ranking.
        attributes: names of the attributes to report, in this order; empty for all, by name.
        columns: of the tables of numbers, by their names in table.csv; empty for all.
        titles: method, attribute, generator or column -> its title.
        captions: LaTeX table -> its caption, in LaTeX.
        labels: LaTeX table -> its label.
        digits: number of decimals of numbers with fixed decimals; None for the column's default.
        font: of figures: sans or serif.
        column: width of figures and LaTeX tables in a paper: 'one' or 'two' columns; '' for figures
            of the width that they need, and tables of two columns.
        folders: a user's own configuration folders, whose YAMLs have titles.
        places: key -> where it was chosen, for messages.
    """

    methods: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    titles: Mapping[str, str] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    digits: int | None = None
    font: str = "sans"
    column: str = ""
    folders: tuple[Path, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Style:
        """The choices in a file.

        Raises:
            BadFile: the file cannot be read.
            EditbenchError: a key or value is wrong; the message has the file, the key and the
                remedy.
        """
        return cls().with_values(read_yaml(file), f"{file}: ")

    @classmethod
    def of_runs(cls, root: Path) -> Style:
        """The choices in the report.yaml of a folder of records; the defaults if it has none."""
        file = Path(root) / FILE
        return cls.read(file) if file.is_file() else cls()

    def with_values(self, values: Mapping[str, Any], where: str) -> Style:
        """A copy with some choices changed.

        Args:
            values: key -> value.
            where: prefix of the key in messages: 'report.yaml: ', or '--'.

        Raises:
            EditbenchError: a key is unknown, or a value is of the wrong kind.
        """
        known = [item.name for item in fields(self) if item.name not in ("folders", "places")]
        checked = {}
        for key, value in values.items():
            if key not in known:
                raise EditbenchError(f"{where}{UnknownName('key', str(key), known)}")
            checked[key] = _checked(key, value, f"{where}{key}")
        places = {**self.places, **{key: f"{where}{key}" for key in checked}}
        return replace(self, **checked, places=places)

    def choose(self, results: Results) -> Results:
        """The records of the chosen methods and attributes.

        Raises:
            EditbenchError: the name of a method, attribute, column or title is not in the records.
        """
        runs = results.runs
        self._check_names(results)
        keep = runs["attribute"].notna()
        if self.methods:
            keep &= runs["label"].isin(self.methods) | runs["method"].isin(self.methods)
        if self.attributes:
            keep &= runs["attribute"].isin(self.attributes)
        if keep.all():
            return results
        if not keep.any():
            chosen = "methods" if self.methods else "attributes"
            raise EditbenchError(
                f"{self.places.get(chosen, chosen)}: no run is of one of "
                "these methods on one of these attributes; choose others"
            )
        return results.kept(keep)

    def _check_names(self, results: Results) -> None:
        runs = results.runs
        methods = {*runs["method"], *runs["label"]}
        attributes = set(runs["attribute"])
        # Columns are determined only if one is named, since their table takes time.
        columns: set[str] = set()
        if self.columns or self.titles:
            table = main_table(results)
            columns = {column.key for column in columns_of(table, quantities(results))}
            columns |= {column.key for column in COSTS}
        everything = methods | attributes | columns | set(runs["generator"])
        for key, kind, known in (
            ("methods", "method", methods),
            ("attributes", "attribute", attributes),
            ("columns", "column", columns),
            ("titles", "name", everything),
        ):
            for name in getattr(self, key):
                if name not in known:
                    # A name may be unknown only because its records are damaged.
                    require_readable(results)
                    broken = ", ".join(problem.name for problem in results.problems)
                    hint = f" Damaged and left out: {broken}." if broken else ""
                    # A Style that was made in Python has no places.
                    place = self.places.get(key, key)
                    raise EditbenchError(f"{place}: {UnknownName(kind, name, known)}{hint}")

    def theme(self, results: Results) -> Theme:
        """How methods, attributes and worlds are shown, in their order."""
        wording = Wording(results, self.folders)
        runs = results.runs
        names = dict(zip(runs["label"], runs["method"]))
        titles = wording.methods()
        for label, method in names.items():
            if label in self.titles:
                titles[label] = self.titles[label]
            elif method in self.titles:
                titles[label] = f"{self.titles[method]}{label.removeprefix(method)}"
        found = theme_of(runs, titles)
        if self.methods:
            order = _ordered(found, self.methods, names)
            found = Theme({label: found[label] for label in order})
        attribute_titles = {**wording.attributes(), **self.titles}
        attributes = {
            name: attribute_titles.get(name, "")
            for name in _ordered(sorted(set(runs["attribute"])), self.attributes)
        }
        # Attributes that are measured but not edited have titles too, after the edited ones.
        attributes |= {
            name: attribute_titles[name]
            for name in sorted(attribute_titles)
            if name not in attributes
        }
        worlds = {**wording.worlds(), **self.titles}
        return Theme(found, attributes, worlds, columns=self.titles)

    def ordered(self, numbers: Numbers, theme: Theme) -> Numbers:
        """The same numbers with rows in the chosen order.

        Args:
            numbers: of one setting.
            theme: of `theme`, whose order of methods and attributes is taken. Tables of means and
                costs keep their own order if no methods were chosen.
        """
        methods = {name: k for k, name in enumerate(theme)}
        attributes = {name: k for k, name in enumerate(theme.order(numbers.table["attribute"]))}
        places = {"attribute": attributes, "method": methods}
        table = numbers.table.sort_values(
            # pandas calls the key once for each of the two columns.
            ["attribute", "method"],
            key=lambda values: values.map(places[str(values.name)]),
        )
        numbers = replace(numbers, table=table.reset_index(drop=True))
        if not self.methods:
            return numbers

        def by_method(frame: pd.DataFrame) -> pd.DataFrame:
            order = frame["method"].map(methods).sort_values().index
            return frame.loc[order].reset_index(drop=True)

        return replace(numbers, means=by_method(numbers.means), costs=by_method(numbers.costs))

    def columns_of(self, numbers: Numbers) -> list[Column]:
        """The columns of a table of numbers: the chosen ones, or all that have numbers."""
        return self.written(columns_of(numbers.table, quantities(numbers.results)))

    def costs_of(self, numbers: Numbers) -> list[Column]:
        """The columns of the table of costs: the chosen ones, or all."""
        return self.written(column for column in COSTS if numbers.costs[column.key].notna().any())

    def written(self, columns: Iterable[Column]) -> list[Column]:
        """Columns in the chosen order, with their titles and digits."""
        found = {column.key: column for column in columns}
        if self.columns:
            found = {key: found[key] for key in self.columns if key in found}
        return [self.column_of(column) for column in found.values()]

    def shows(self, key: str) -> bool:
        """Whether the tables, and the notes below them, include a column."""
        return not self.columns or key in self.columns

    def column_of(self, column: Column) -> Column:
        """One column with its title and digits."""
        digits = column.digits
        # Counts have no decimals, and costs three significant digits.
        if digits and self.digits is not None:
            digits = self.digits
        return replace(column, title=self.titles.get(column.key, column.title), digits=digits)


def _ordered(
    names: Iterable[str], first: Sequence[str], other: Mapping[str, str] | None = None
) -> list[str]:
    """Sort names: those in `first` come first, in that order.

    Args:
        names: the names; those not in `first` keep this order.
        first: names, or their alternative names.
        other: name -> its alternative name.
    """

    def place(name: str) -> int:
        for known in (name, (other or {}).get(name, name)):
            if known in first:
                return first.index(known)
        return len(first)

    return sorted(names, key=place)


def _checked(key: str, value: Any, where: str) -> Any:
    """The value of a key, converted and checked. Raises EditbenchError if it is of a wrong kind."""
    if key in ("methods", "attributes", "columns"):
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise EditbenchError(f"{where}: must be a list of names, [a, b]; it is {value!r}")
        if twice := [one for one in value if value.count(one) > 1]:
            raise EditbenchError(f"{where}: '{twice[0]}' is listed twice; list it once")
        return tuple(value)
    if key in ("titles", "captions", "labels"):
        if not isinstance(value, dict):
            raise EditbenchError(f"{where}: must be a mapping, name: text; it is {value!r}")
        if key != "titles":
            _check_tables(value, where)
        return {str(name): str(text) for name, text in value.items()}
    if key == "digits":
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 0 < value <= MOST_DIGITS:
            raise EditbenchError(
                f"{where}: must be a whole number from 1 to {MOST_DIGITS}; it is {value!r}"
            )
        return value
    choices: Collection[str] = tuple(FONTS) if key == "font" else tuple(WIDTHS)
    if value not in choices:
        raise EditbenchError(f"{where}: must be {' or '.join(choices)}; it is {value!r}")
    return value


def _check_tables(value: Mapping[str, Any], where: str) -> None:
    for name in value:
        if name not in LATEX_TABLES:
            raise EditbenchError(f"{where}: {UnknownName('LaTeX table', str(name), LATEX_TABLES)}")
