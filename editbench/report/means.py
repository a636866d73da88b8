"""Means over attributes, with the same attributes and starts for all compared methods.

All outputs use the numbers of this module, so they cannot disagree. For each number (accuracy, AD
at matched effect), the methods, attributes and starts are chosen once:

- A method is compared if its number is readable (a value without a note, and values of single
  starts) on more than half of the requested attributes. The accuracy of a method without a control is
  readable: it is 0 (`editbench.report.no_control`).
- The attributes are those on which the number is readable for all compared methods.
- The starts of an attribute are those that all compared methods have.

Floors do not influence the choice. They have a mean if they have all of these starts. If fewer than
half of the attributes are left, there is no mean, and a note gives the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from editbench.figures.theme import Theme, display_name
from editbench.report.load import Results
from editbench.report.paired import start_values
from editbench.report.tables import AT_EFFECT, floors_reached, readable, scalars_of
from editbench.stats.intervals import (
    DRAWS,
    SeedSpread,
    percentiles,
    resampled_sums,
    seed_draws,
    seed_spread,
    shared_seed_spread,
    wilson,
)
from editbench.walk.rows import KEY_COLUMNS

LEAST = 0.5  # least share of the attributes; a mean over fewer would be over a biased selection
SHARED = 10  # least starts per attribute; a bootstrap over fewer has too few different draws
MEANS = ("accuracy", AT_EFFECT)  # numbers with their own choice of attributes and starts
# Numbers that are averaged over the attributes of accuracy, with each method's own cells.
ALONGSIDE = (
    "success_rate",
    "off_target_flips",
    "path_length",
    "learned",
    "fit_seconds",
    "walk_seconds",
    "edits_per_second",
    "generator_calls",
    "labels_used",
)
TITLES = {"accuracy": "accuracy", AT_EFFECT: "AD"}


@dataclass(frozen=True)
class MeanComparison:
    """What the means of one number are over, and what is left out.

    Methods and attributes are stored by name. The functions that write sentences take a theme with
    their titles.

    Args:
        metric: the number.
        asked: number of requested attributes.
        values: attribute -> (starts, methods), without NaN. The columns are the compared methods,
            then the floors that have all starts.
        spreads: (method, attribute) -> what its seeds add to the variance.
        shared_spreads: method -> what effects of its seeds on all attributes together add to the
            variance of its mean.
        methods: the compared methods.
        floors: the floors among the columns.
        few: method that is not compared -> number of attributes on which it is readable.
        unreadable: compared method -> attributes on which its number is not readable.
        lacking: floor without a mean -> attributes of which it lacks starts.
        shared: number of attributes on which all compared methods share enough starts.
        measured: whether any run measured the number.
    """

    metric: str
    asked: int
    values: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    spreads: Mapping[tuple[str, str], SeedSpread] = field(default_factory=dict)
    shared_spreads: Mapping[str, SeedSpread] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    floors: tuple[str, ...] = ()
    few: Mapping[str, int] = field(default_factory=dict)
    unreadable: Mapping[str, Sequence[str]] = field(default_factory=dict)
    lacking: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shared: int = 0
    measured: bool = True

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that the means are over."""
        return tuple(self.values)

    @property
    def starts(self) -> int:
        """Total number of starts of all attributes, the same for every method."""
        return sum(map(len, self.values.values()))

    @property
    def over(self) -> str:
        """Text such as '3 of 4 attributes, 452 starts'."""
        return over(len(self.values), self.asked, self.starts)

    def title(self, theme: Theme) -> str:
        """The number as the theme writes it."""
        return theme.column(self.metric, TITLES.get(self.metric, display_name(self.metric)))

    def note(self, theme: Theme) -> str:
        """Why there is no mean for any method; '' if there is one.

        Args:
            theme: how methods, attributes and columns are written.
        """
        if self.values:
            return ""
        title = self.title(theme)
        if not self.measured:
            return f"no run has a metric that measures {title}"
        if not self.unreadable and not self.few:
            return f"no mean {title}: only floors were run"
        if not self.unreadable:
            return f"no method has a valid {title} on more than half of {counted(self.asked, 'attribute')}"
        least = least_shared(self.metric)
        starts = counted(least, "start")
        note = (
            f"no mean {title}: all compared methods share at least {starts} on only {self.shared} of "
            f"{counted(self.asked, 'attribute')}, fewer than half"
        )
        parts = [
            f"{theme.method(method)} on {theme.join_attributes(names)}"
            for method, names in self.unreadable.items()
            if names
        ]
        return f"{note} (not valid: {'; '.join(parts)})" if parts else note

    def left(self, theme: Theme) -> dict[str, str]:
        """Method without a mean -> the reason, if other methods have one.

        Args:
            theme: how attributes and columns are written.
        """
        title = self.title(theme)
        found = {}
        for method, count in self.few.items():
            found[method] = (
                f"{title} is valid on only {count} of {counted(self.asked, 'attribute')}"
            )
        for floor, names in self.lacking.items():
            found[floor] = (
                f"this floor has no {title} for some or all starts on {theme.join_attributes(names)}"
            )
        return found

    def averages(self) -> np.ndarray:
        """(methods and floors,) means; all attributes have the same weight."""
        return np.mean([table.to_numpy(np.float64).mean(0) for table in self.values.values()], 0)

    def draws(self, count: int = DRAWS) -> np.ndarray:
        """(count, methods and floors) bootstrap draws of the means, over starts and seeds.

        Starts are resampled within each attribute, and all methods share the drawn starts, so that
        differences of two columns are paired.
        """
        parts = []
        for attribute, table in self.values.items():
            # One random stream per attribute, so that their noise is independent.
            sums = resampled_sums(table.to_numpy(np.float64), count, f"ranking {attribute}")
            part = sums / len(table)
            for column, method in enumerate(map(str, table)):
                spread = self.spreads.get((method, attribute), SeedSpread())
                part[:, column] += seed_draws(spread, count, self.metric, attribute, method)
            parts.append(part)
        drawn = np.mean(parts, 0)
        for column, method in enumerate((*self.methods, *self.floors)):
            spread = self.shared_spreads.get(method, SeedSpread())
            drawn[:, column] += seed_draws(spread, count, self.metric, "all attributes", method)
        return drawn

    def intervals(self) -> np.ndarray:
        """(2, methods and floors) low and high ends of the means' 95 % intervals."""
        ends = percentiles(self.draws())
        # The seeds' part is symmetric, so intervals could exceed the possible range.
        if self.metric != "accuracy":
            return ends.clip(0.0)
        for column, mean in enumerate(self.averages()):
            # Resampling equal outcomes says nothing about outcomes that were not seen.
            if mean in (0.0, 1.0):
                ends[:, column] = wilson(mean * self.starts, self.starts)
        return ends.clip(0.0, 1.0)


def over(attributes: int, asked: int, starts: int) -> str:
    """What a mean is over, as text.

    Args:
        attributes: number of attributes that count.
        asked: number of requested attributes.
        starts: number of starts of all attributes that count, together.
    """
    return f"{attributes} of {counted(asked, 'attribute')}, {counted(starts, 'start')}"


def counted(count: int, noun: str) -> str:
    """A number with its noun, whose plural ends with s: '1 start', '1,400 starts'."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def least_shared(metric: str) -> int:
    """Least number of starts of an attribute that all compared methods must share."""
    # Accuracy counts every start, AD only those that reach the effect under every method.
    return SHARED if metric == AT_EFFECT else 1


def comparisons(results: Results, table: pd.DataFrame) -> dict[str, MeanComparison]:
    """What the mean of each of MEANS is over.

    Args:
        results: of one setting.
        table: their `main_table`.

    Returns:
        Number of MEANS -> its comparison.
    """
    return {metric: compare_methods(results, table, metric) for metric in MEANS}


def compare_methods(results: Results, table: pd.DataFrame, metric: str) -> MeanComparison:
    """Choose the methods, attributes and starts that the means of one number are over.

    Args:
        results: of one setting.
        table: their `main_table`.
        metric: the number, a column of the table with values of single starts.
    """
    asked = sorted(set(table["attribute"]))
    # Without a finished run, it is unknown which numbers were requested.
    if len(results.rows) and metric not in set(results.rows["metric"]):
        return MeanComparison(metric, len(asked), measured=False)
    series = _readable_values(results, table, metric)
    floors = sorted(set(table.loc[table["floor"], "method"]))
    few = {}
    unreadable = {}
    for method in sorted(set(table["method"]) - set(floors)):
        missing = [attribute for attribute in asked if (method, attribute) not in series]
        count = len(asked) - len(missing)
        # Two methods that are each readable on half of the attributes may share none.
        if count <= LEAST * len(asked):
            few[method] = count
        else:
            unreadable[method] = missing
    methods = list(unreadable)
    without = MeanComparison(metric, len(asked), few=few, unreadable=unreadable)
    if not methods:
        return without
    values = {}
    for attribute in asked:
        if all((method, attribute) in series for method in methods):
            # dropna keeps the starts that all methods have. Sorted, since draws are by position.
            wide = pd.DataFrame({method: series[method, attribute] for method in methods})
            wide = wide.dropna().sort_index()
            if len(wide) >= least_shared(metric):
                values[attribute] = wide
    if len(values) < LEAST * len(asked):
        return replace(without, shared=len(values))
    kept = []
    lacking: dict[str, list[str]] = {}
    for floor in floors:
        missing = [a for a in values if not _covers(series.get((floor, a)), values[a])]
        if missing:
            lacking[floor] = missing
            continue
        kept.append(floor)
        for attribute, wide in values.items():
            values[attribute] = wide.assign(**{floor: series[floor, attribute]})
    seeds = _values_by_seed(results, table, metric, values)
    return replace(
        without,
        values=values,
        spreads={cell: seed_spread(own.to_numpy()) for cell, own in seeds.items()},
        shared_spreads=_shared_spreads(seeds, list(values)),
        methods=tuple(methods),
        floors=tuple(kept),
        lacking=lacking,
        shared=len(values),
    )


def summary(table: pd.DataFrame, found: Mapping[str, MeanComparison]) -> pd.DataFrame:
    """One row per method with its means, and what they are over. Best accuracy first, floors last.

    Args:
        table: `main_table` of one setting.
        found: number of MEANS -> its comparison, see `comparisons`.

    Returns:
        Columns setting, method, floor, seeds; served and asked (numbers of attributes); for each of
        MEANS the mean, `_low`, `_high` (95 % interval), `_note` (why there is none), `_attributes`
        and `_starts` (how many it is over) and `_floor` (floors that it is not clear of); over the
        attributes of accuracy ALONGSIDE, all other scalar metrics and the maximum of the peak
        memory; n (starts), leaking, judged_in.
    """
    # In this table, attributes have the names of the records.
    names = Theme({}, {name: name for name in table["attribute"]})
    numbers = {metric: _numbers(one, set(table["method"]), names) for metric, one in found.items()}
    accuracy = found["accuracy"]
    others = [name for name in scalars_of(table) if name not in (*MEANS, *ALONGSIDE)]
    rows = []
    for (setting, name), group in table.groupby(["setting", "method"], sort=False):
        method = str(name)
        done = group[group["status"] == "done"]
        row = {
            "setting": setting,
            "method": method,
            "floor": bool(group["floor"].any()),
            "seeds": int(group["seeds"].max()),
            # One row per method and attribute, so the number of rows is that of attributes.
            "served": len(done),
            "asked": table["attribute"].nunique(),
            "leaking": bool(group["leaking"].any()),
            "judged_in": group["judged_in"].iloc[0],
        }
        for metric in found:
            row |= {f"{metric}{end}": value for end, value in numbers[metric][method].items()}
        own = group.set_index("attribute").reindex(list(accuracy.attributes))
        compared = method in (*accuracy.methods, *accuracy.floors)
        for column in (*ALONGSIDE, *others):
            cells = own[column]
            if column in others:
                # Numbers with a note are left out.
                cells = cells.where(own[f"{column}_note"] == "")
            row[column] = float(cells.mean()) if compared and _is_complete(cells) else np.nan
        peak = own["peak_memory_mb"]
        row["peak_memory_mb"] = float(peak.max()) if compared and _is_complete(peak) else np.nan
        row["n"] = float(accuracy.starts) if compared else np.nan
        rows.append(row)
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    for metric in found:
        frame[f"{metric}_floor"] = floors_reached(frame, metric)
    return frame.sort_values(
        ["setting", "floor", "accuracy", "method"],
        ascending=[True, True, False, True],
        ignore_index=True,
    )


def describe_means(found: Iterable[MeanComparison], theme: Theme) -> list[str]:
    """The lines below a table of means: what they are over, and which methods have none.

    Args:
        found: what the means of each number are over.
        theme: how methods and attributes are written.
    """
    said = []
    for one in found:
        said.append(
            one.note(theme)
            or f"mean {one.title(theme)}: over {one.over} "
            f"({theme.join_attributes(one.attributes)}), the same for every method"
        )
        for name, why in one.left(theme).items():
            said.append(f"no mean for {theme.method(name)}: {why}")
    return said


# -- helpers ------------------------------------------------------------------------------------
def _covers(own: pd.Series | None, table: pd.DataFrame) -> bool:
    """Whether a method has a finite value for every start of a table."""
    return own is not None and bool(np.isfinite(own.reindex(table.index)).all())


def _readable_values(
    results: Results, table: pd.DataFrame, metric: str
) -> dict[tuple[str, str], pd.Series]:
    """(method, attribute) -> values indexed by start, for numbers that are readable."""
    known = readable(table, metric)
    values = start_values(results, metric, dict(zip(table["run_id"], table["ad_at_effect"])))
    shown = table.loc[known, ["method", "attribute", "run_id"]]
    return {
        (method, attribute): values[run]
        for method, attribute, run in shown.itertuples(index=False)
        if run in values
    }


def _values_by_seed(
    results: Results, table: pd.DataFrame, metric: str, values: Mapping[str, pd.DataFrame]
) -> dict[tuple[str, str], pd.DataFrame]:
    """What the seeds of a number have at the starts that its means are over.

    Args:
        results: of one setting.
        table: their `main_table`.
        metric: the number.
        values: attribute -> (starts, methods) of the means.

    Returns:
        (method, attribute) -> (starts, seeds); only for several seeds.
    """
    # AD may have been measured at several effects.
    effects = dict(zip(table["run_id"], table["ad_at_effect"]))
    cells = {run["run_id"]: (run["label"], run["attribute"]) for run in results.run_records}
    found = {}
    for (run, key), by_seed in results.by_seed.items():
        fields = dict(zip(KEY_COLUMNS, key))
        at_effect = fields["x"] is None or fields["x"] == effects.get(run)
        if run in cells and fields["metric"] == metric and at_effect:
            method, attribute = cells[run]
            if attribute in values and method in values[attribute]:
                found[method, attribute] = by_seed.loc[values[attribute].index]
    return found


def _shared_spreads(
    seeds: Mapping[tuple[str, str], pd.DataFrame], attributes: Sequence[str]
) -> dict[str, SeedSpread]:
    """Method -> what effects of its seeds on all attributes together add to the variance of its mean.

    Args:
        seeds: of `_values_by_seed`.
        attributes: that the means are over.
    """
    found = {}
    for method in {method for method, _ in seeds}:
        own = [seeds[method, name] for name in attributes if (method, name) in seeds]
        # A search may have found no control for some seeds on some attributes.
        shared = sorted(set.intersection(*(set(values.columns) for values in own)))
        if len(own) == len(attributes) and shared:
            means = np.stack([values[shared].mean().to_numpy() for values in own], 1)
            found[method] = shared_seed_spread(means)
    return found


def _numbers(
    found: MeanComparison, methods: set[str], theme: Theme
) -> dict[str, dict[str, object]]:
    """Method -> the ends of the columns of `summary` and their values."""
    absent = {"": np.nan, "_low": np.nan, "_high": np.nan, "_attributes": 0, "_starts": 0}
    numbers: dict[str, dict[str, object]] = {}
    left = found.left(theme)
    note = found.note(theme)
    for method in methods:
        numbers[method] = {**absent, "_note": left.get(method, note)}
    if not found.values:
        return numbers
    means = found.averages()
    low, high = found.intervals()
    for k, method in enumerate((*found.methods, *found.floors)):
        numbers[method] = {
            "": float(means[k]),
            "_low": float(low[k]),
            "_high": float(high[k]),
            "_attributes": len(found.values),
            "_starts": found.starts,
            "_note": "",
        }
    return numbers


def _is_complete(cells: pd.Series) -> bool:
    """Whether all attributes have the number; otherwise there is no mean."""
    return len(cells) > 0 and bool(np.isfinite(cells).all())
