"""Rank correlation of the methods between worlds: does one world predict another?

A world is a setting of a runs folder: one generator, one pair of scorers, one bank. In each world,
methods are ranked by their mean accuracy over its attributes. Two rankings are compared by
Kendall's tau-b over the methods that both have. Floors are left out, since they come last in every
world and would only increase the correlation.

For the interval, starts are resampled within each attribute of each world, for all methods
together. It covers the choice of starts, for the given generators and fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from editbench.base.errors import EditbenchError
from editbench.figures.panels import new_figure
from editbench.report.load import Results, load
from editbench.stats.intervals import DRAWS, percentiles, resampled_sums
from editbench.stats.rank_correlation import kendall

METRIC = "accuracy"
# Least share of a world's attributes on which a method must have results. With methods that have
# few, there would be few common attributes.
LEAST = 0.5
FEWEST = 3  # least number of common methods for a rank correlation
COLUMNS = ("world", "other", "tau", "low", "high", "methods")


@dataclass(frozen=True)
class World:
    """The methods of one world, on the same attributes and starts.

    Args:
        name: of the runs folder, and of the generator or setting if the folder has several. It
            differs from the names of all other worlds.
        tables: attribute -> accuracy (starts, methods), one column per method.
        left_out: method -> why it is not compared.
    """

    name: str
    tables: dict[str, pd.DataFrame]
    left_out: dict[str, str]

    @property
    def methods(self) -> list[str]:
        """The compared methods, sorted."""
        return sorted(next(iter(self.tables.values())).columns)

    def means(self, methods: Sequence[str]) -> np.ndarray:
        """(m,) mean accuracy of methods; all attributes have the same weight."""
        return np.mean([table[list(methods)].mean() for table in self.tables.values()], 0)

    def resampled(self, methods: Sequence[str], draws: int) -> np.ndarray:
        """Means of methods over resampled starts.

        Args:
            methods: m names.
            draws: of the bootstrap.

        Returns:
            (draws, m); all attributes have the same weight.
        """
        found = []
        for attribute, table in self.tables.items():
            # Whole rows are drawn, so every draw compares the methods on the same starts.
            values = table[list(methods)].to_numpy(np.float64)
            stream = f"transfer {self.name} {attribute}"
            found.append(resampled_sums(values, draws, stream) / len(values))
        return np.mean(found, 0)


def read_worlds(folders: Sequence[Path]) -> list[World]:
    """Read the worlds of several runs folders.

    Args:
        folders: runs folders, which may have several worlds each.

    Raises:
        EditbenchError: a folder has no world with FEWEST methods to compare, or is named twice.
    """
    worlds = []
    names = [folder.resolve().name for folder in folders]  # that of '.' is empty
    for place, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:place]]:
            raise EditbenchError(f"{folder} is named twice; name the runs folder of another world")
        # Seeds are pooled, so that they are not separate worlds.
        settings = load(folder, by_seed=False).with_failures().by_setting()
        generators = [part.runs["generator"].iloc[0] for _, part in settings]
        found = []
        for (setting, part), generator in zip(settings, generators):
            name = str(folder) if names.count(names[place]) > 1 else names[place]
            if len(settings) > 1:
                # The worlds of a dial have different generators; other worlds may share one.
                alone = generators.count(generator) == 1
                name += f": {generator if alone else setting}"
            world = read_world(part, name)
            if world is not None:
                found.append(world)
        if not found:
            raise EditbenchError(
                f"{folder} has no {FEWEST} methods with common starts (floors do not count); run a "
                "sweep over methods first, or name another folder"
            )
        worlds += found
    return worlds


def read_world(results: Results, name: str) -> World | None:
    """Read one setting as a world. Variants of a method count as separate methods.

    Args:
        results: of one setting.
        name: of the world.

    Returns:
        None if fewer than FEWEST methods can be compared.
    """
    several = results.runs.groupby("method")["label"].transform("nunique") > 1
    methods_of_runs = results.runs["method"].where(~several, results.runs["label"])
    results = replace(results, runs=results.runs.assign(method=methods_of_runs))
    asked = sorted(set(results.runs["attribute"]))
    values = _start_values(results)
    floors = set(results.runs.loc[results.runs["floor"].astype(bool), "method"])
    left_out = {}
    methods = []
    for method in sorted(set(results.runs["method"])):
        served = sum((method, attribute) in values for attribute in asked)
        if method in floors:
            left_out[method] = "a floor"
        elif served < LEAST * len(asked) or not served:
            left_out[method] = f"has results on only {served} of {len(asked)} attributes"
        else:
            methods.append(method)
    # Every method must be averaged over the same attributes.
    tables = {}
    for attribute in asked:
        if not all((method, attribute) in values for method in methods):
            continue
        columns = {method: values[method, attribute] for method in methods}
        # The comparison is over the starts that all methods have.
        table = pd.DataFrame(columns).dropna().sort_index()
        if len(table):
            tables[attribute] = table
    if len(methods) < FEWEST or not tables:
        return None
    return World(name, tables, left_out)


def _start_values(results: Results) -> dict[tuple[str, str], pd.Series]:
    """(method, attribute) -> accuracy by start, averaged over seeds."""
    samples = results.samples[results.samples["metric"] == METRIC]
    about = results.runs[["run_id", "method", "attribute"]]
    joined = samples.merge(about, on="run_id")
    found = {}
    for (method, attribute), part in joined.groupby(["method", "attribute"]):
        found[str(method), str(attribute)] = part.groupby("start")["value"].mean()
    return found


def transfer(worlds: Sequence[World], draws: int = DRAWS) -> pd.DataFrame:
    """Kendall's tau of all pairs of worlds.

    Args:
        worlds: two or more.
        draws: of the bootstrap.

    Returns:
        Columns COLUMNS: tau with its 95 % interval, and the number of methods that it is over; NaN
        if the two worlds have fewer than FEWEST methods in common.
    """
    rows = []
    for one, other in combinations(worlds, 2):
        methods = sorted(set(one.methods) & set(other.methods))
        row = {"world": one.name, "other": other.name, "methods": len(methods)}
        if len(methods) < FEWEST:
            rows.append(row | {"tau": np.nan, "low": np.nan, "high": np.nan})
            continue
        # The estimate uses all starts, and the draws give its interval.
        tau = kendall(one.means(methods)[None], other.means(methods)[None])[0]
        drawn = kendall(one.resampled(methods, draws), other.resampled(methods, draws))
        low, high = percentiles(drawn[:, None])[:, 0]
        rows.append(row | {"tau": tau, "low": low, "high": high})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def rank_table(worlds: Sequence[World]) -> pd.DataFrame:
    """Mean accuracy of each method (rows) in each world (columns), best mean over worlds first."""
    columns = {}
    for world in worlds:
        columns[world.name] = pd.Series(world.means(world.methods), index=world.methods)
    table = pd.DataFrame(columns)
    return table.loc[table.mean(axis=1).sort_values(ascending=False).index]


def figure(worlds: Sequence[World], found: pd.DataFrame) -> Figure:
    """Draw the mean accuracy of every method in every world, and tau of all pairs of worlds.

    Args:
        worlds: in the order of the figure.
        found: the table of `transfer`.
    """
    table = rank_table(worlds)
    count = len(worlds)
    drawing = new_figure(4.5 + 0.9 * count, 1.2 + 0.32 * max(count, len(table)))
    means, matrix = drawing.subplots(1, 2)
    numbers = [str(place + 1) for place in range(count)]
    _draw_matrix(means, table.to_numpy(np.float64), "Blues", 0.0)
    means.set_xticks(range(count), numbers)
    means.set_xlabel("world")
    means.set_yticks(range(len(table)), list(table.index))
    means.set_title("Mean accuracy")
    taus = np.full((count, count), np.nan)
    for k, (i, j) in enumerate(combinations(range(count), 2)):
        taus[i, j] = taus[j, i] = found["tau"].iloc[k]
    _draw_matrix(matrix, taus, "RdBu", -1.0)
    matrix.set_xticks(range(count), numbers)
    matrix.set_xlabel("world")
    # Names of worlds are long, so they are shown once, next to their rows.
    labels = [f"{world.name}  {number}" for world, number in zip(worlds, numbers)]
    matrix.set_yticks(range(count), labels)
    matrix.set_title("Kendall's tau between worlds")
    return drawing


def _draw_matrix(axes: Axes, values: np.ndarray, colours: str, lowest: float) -> None:
    """Draw a matrix as coloured cells with their values. Cells with NaN stay empty.

    Args:
        axes: to draw in.
        values: (rows, columns), at most 1.
        colours: name of a colour map of matplotlib.
        lowest: value at the lower end of the colour map; its upper end is 1.
    """
    axes.imshow(values, cmap=colours, vmin=lowest, vmax=1, aspect="auto")
    axes.grid(False)
    for i, j in zip(*np.nonzero(np.isfinite(values))):
        dark = abs(values[i, j]) > 0.6
        text = f"{values[i, j]:.2f}".replace("-", "−")
        axes.text(j, i, text, ha="center", va="center", color="white" if dark else "black")
