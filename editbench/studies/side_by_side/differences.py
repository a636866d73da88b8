"""The numbers of two folders and their differences, B - A.

If both runs walked from the same starts, both numbers and their difference are means over the
starts that both have, and the difference has the interval of the paired bootstrap of
`editbench.report.paired`. A cell is over the seeds that both folders have, and the interval
includes the variance of the difference over seeds. If the starts differ, the two means are
resampled independently, and the interval is unpaired. P-values are adjusted over all cells of a
number (Holm, 1979).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from editbench.regression.compare import share_starts
from editbench.report.load import COST_KEYS, Results
from editbench.report.no_control import joined
from editbench.report.paired import (
    FEWEST,
    PER_PAIR,
    SIGNIFICANCE,
    keyed_values,
    paired_differences,
)
from editbench.report.seeds import ROUNDING, ReadTables, pool_seeds
from editbench.report.tables import AT_EFFECT
from editbench.stats.intervals import (
    DRAWS,
    SeedSpread,
    holm,
    percentiles,
    resampled_sums,
    seed_draws,
    two_sided,
)
from editbench.studies.side_by_side.pairing import Pair, Pairing, pair_folders
from editbench.walk.rows import KEY_COLUMNS, join_notes, key_of, written_key

NAN = float("nan")
FIRST = ("accuracy", AT_EFFECT, "success_rate")  # these numbers come first, in this order
PAIRED = "same"  # both runs walked from the same starts
UNPAIRED = "different"
# Verdicts of a test: 'higher' or 'lower' if it is not known which direction is better.
SEPARATED = ("better", "worse", "higher", "lower")
OPEN = "not significant"
# Verdicts without a test.
NO_VALUES = "not tested"  # no values of single starts
UNREAD = "not interpretable"
OTHER_VERSION = "not comparable"
COLUMNS = (
    "number",
    "metric",
    "variant",
    "network",
    "x",
    "attribute",
    "method",
    "floor",
    "seeds",
    "a",
    "a_low",
    "a_high",
    "a_n",
    "b",
    "b_low",
    "b_high",
    "b_n",
    "higher_is_better",
    "starts",
    "n",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "verdict",
    "note",
)


@dataclass(frozen=True)
class SideBySide:
    """Two folders with the differences of their numbers.

    Args:
        first: folder A.
        second: folder B.
        table: one row per number, attribute and method, with the columns COLUMNS. If `starts` is
            PAIRED, `a`, `b` and `difference` (b - a), each with its 95 % interval, are over the `n`
            starts that both have. Otherwise `a` and `b` are over all starts of their side.
        pairing: the runs, and those that are not compared.
        left_out: sentences about numbers that a cell has in only one of the folders.
    """

    first: Path
    second: Path
    table: pd.DataFrame
    pairing: Pairing
    left_out: list[str]

    def parts(self) -> list[tuple[str, pd.DataFrame]]:
        """Each number with its rows, in the order of the table."""
        return [(str(name), part) for name, part in self.table.groupby("number", sort=False)]


@dataclass(frozen=True)
class CellPair:
    """The runs of one method and attribute in both folders.

    Args:
        method: its name, with the options that distinguish it from its variants.
        attribute: of the runs.
        pairs: one pair per seed, sorted by seed.
    """

    method: str
    attribute: str
    pairs: tuple[Pair, ...]

    @property
    def seeds(self) -> str:
        """The seeds as text, such as '0, 1, 2'."""
        return ", ".join(str(pair.a.seed) for pair in self.pairs)

    def run_ids(self, side: str) -> list[str]:
        """The run ids of one side, 'a' or 'b', in the order of the seeds."""
        return [getattr(pair, side).run_id for pair in self.pairs]


def _grouped_tables(rows: pd.DataFrame, samples: pd.DataFrame) -> ReadTables:
    """What gives the rows and the samples of some runs, from tables of all runs."""
    # Grouped once, since searching the whole tables for each cell would take quadratic time.
    rows_of = rows.groupby("run_id").indices
    samples_of = samples.groupby("run_id").indices

    def tables(run_ids: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
        return _taken(rows, rows_of, run_ids), _taken(samples, samples_of, run_ids)

    return tables


def _taken(table: pd.DataFrame, places: Mapping[Any, Any], run_ids: list[str]) -> pd.DataFrame:
    """The rows of some runs, in the order of the table.

    Args:
        table: of all runs.
        places: run_id -> the positions of its rows.
        run_ids: of the runs to take; runs without rows are not in `places`.
    """
    found = [places[run] for run in run_ids if run in places]
    return table.take(np.sort(np.concatenate([np.array([], int), *found])))


class FolderNumbers:
    """The numbers of one folder, with the seeds of each cell pooled.

    Args:
        results: all records of the folder, with seeds not pooled and failures counted.
        cells: the cells of the comparison.
        side: 'a' or 'b'.
    """

    def __init__(self, results: Results, cells: list[CellPair], side: str) -> None:
        self.side = side
        place = {run: str(k) for k, cell in enumerate(cells) for run in cell.run_ids(side)}
        runs = results.runs[results.runs["run_id"].isin(place)]
        # Seeds are pooled within the cells of the comparison, not within those of a report.
        runs = runs.assign(setting="", label=[place[run] for run in runs["run_id"]])
        samples = results.samples[results.samples["run_id"].isin(place)]
        metrics = tuple(sorted(set(samples["metric"])))
        rows = results.rows[results.rows["run_id"].isin(place)]
        # Curves without values of single starts are left out: many rows that cannot be tested.
        rows = rows[rows["x"].isna() | rows["metric"].isin([*metrics, AT_EFFECT])]
        tables = _grouped_tables(rows, samples)
        pooled_rows = pool_seeds(runs, tables, ("learned", *COST_KEYS)).rows
        self.without_control = set(runs.loc[runs["no_control"] > 0, "run_id"])
        # Cells without any control are not pooled: the failures of all seeds are the same.
        failed = self.without_control & {self.first_run(cell) for cell in cells}
        rows = joined(pooled_rows, [rows[rows["run_id"].isin(failed)]])
        self.floors = dict(zip(runs["run_id"], runs["floor"]))
        self.samples = keyed_values(replace(results, samples=samples), metrics)
        self.starts = {str(run): set(part) for run, part in samples.groupby("run_id")["start"]}
        self.rows: dict[str, dict[tuple, dict[Any, Any]]] = {}
        for row in rows.to_dict("records"):
            self.rows.setdefault(str(row["run_id"]), {})[key_of(row)] = row

    def first_run(self, cell: CellPair) -> str:
        """The run id of the rows of a cell: its first seed with a control, if there is one."""
        run_ids = cell.run_ids(self.side)
        return next((run for run in run_ids if run not in self.without_control), run_ids[0])

    def of(self, cell: CellPair) -> dict[tuple, dict[Any, Any]]:
        """Key -> row of a cell."""
        return self.rows.get(self.first_run(cell), {})

    def by_start(self, cell: CellPair, key: tuple) -> pd.DataFrame | None:
        """Values of single starts of a number.

        Args:
            cell: of the number.
            key: of the number, see `key_of`.

        Returns:
            (starts, seeds), indexed by start; None if the number is not their mean. Seeds without
            a control have a column only for shares of all starts.
        """
        columns = {}
        for seed, run in enumerate(cell.run_ids(self.side)):
            if (run, key) in self.samples:
                columns[seed] = self.samples[run, key]
            elif run not in self.without_control:
                return None
        table = pd.DataFrame(columns).dropna(how="all").sort_index()
        value = self.of(cell)[key]["value"]
        mean = table.mean(axis=1).mean()
        # A median or a ratio cannot be tested with the values of single starts.
        return table if np.isclose(mean, value, rtol=ROUNDING, atol=ROUNDING) else None

    def starts_of(self, cell: CellPair) -> set[int]:
        """All starts for which the runs of a cell have any value."""
        return set().union(*(self.starts.get(run, set()) for run in cell.run_ids(self.side)))

    def spread(self, cell: CellPair, key: tuple) -> SeedSpread:
        """What the seeds of a cell add to the variance of a number.

        Args:
            cell: of the number.
            key: of the number, see `key_of`.
        """
        row = self.of(cell)[key]
        return SeedSpread(row["seed_variance"], int(row["seeds"]))


def side_by_side(first: Path, second: Path, by_seed: bool = False) -> SideBySide:
    """Compare two runs folders.

    Args:
        first: runs folder A.
        second: runs folder B.
        by_seed: whether each seed is a separate cell. Otherwise a cell is over the seeds that both
            folders have.

    Raises:
        EditbenchError: a folder has no readable record, both are the same, or they have no run in
            common.
    """
    pairing = pair_folders(first, second)
    cells = cells_of(pairing.pairs, by_seed)
    a = FolderNumbers(pairing.a, cells, "a")
    b = FolderNumbers(pairing.b, cells, "b")
    # The smallest possible p-value, times the number of tests, must be well below SIGNIFICANCE.
    draws = max(DRAWS, PER_PAIR * len(cells))
    rows = []
    for cell in cells:
        rows += compare_cell(cell, a, b, draws)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for _, group in table.groupby("number"):
        table.loc[group.index, "p_holm"] = holm(group["p"].to_numpy(np.float64))
    table["verdict"] = [verdict_of(row) for row in table.to_dict("records")]
    place = [FIRST.index(name) if name in FIRST else len(FIRST) for name in table["metric"]]
    table = table.assign(place=place)
    table = table.sort_values(["place", "number", "attribute", "floor", "method", "seeds"])
    table = table[list(COLUMNS)].reset_index(drop=True)
    return SideBySide(first, second, table, pairing, only_in_one(cells, a, b))


def cells_of(pairs: Iterable[Pair], by_seed: bool) -> list[CellPair]:
    """Group pairs of runs by method and attribute.

    Args:
        pairs: of runs.
        by_seed: whether each seed is a separate cell.
    """
    found: dict[tuple, list[Pair]] = {}
    for pair in pairs:
        # The label in A distinguishes variants.
        key = (pair.method, pair.a.attribute, pair.a.seed if by_seed else None)
        found.setdefault(key, []).append(pair)
    return [
        CellPair(method, attribute, tuple(sorted(group, key=lambda pair: pair.a.seed)))
        for (method, attribute, _), group in found.items()
    ]


def compare_cell(
    cell: CellPair, a: FolderNumbers, b: FolderNumbers, draws: int
) -> list[dict[str, Any]]:
    """The rows of the table of one cell, for the numbers that both sides have.

    Args:
        cell: what is compared.
        a: numbers of folder A.
        b: numbers of folder B.
        draws: of the bootstrap.

    Returns:
        Values for the columns COLUMNS, without p_holm and the verdicts of tests, which need the
        rows of all cells.
    """
    same = all(pair.refers_to_same_starts() for pair in cell.pairs)
    # Compared over all numbers, since some numbers lack starts that others have.
    paired = same and share_starts(a.starts_of(cell), b.starts_of(cell))
    rows = []
    for key, left in a.of(cell).items():
        right = b.of(cell).get(key)
        if right is None:
            continue
        row = describe_number(cell, key, left, right)
        row["floor"] = bool(a.floors[a.first_run(cell)])
        rows.append(row)
        if row["verdict"] != OPEN:
            continue
        values = a.by_start(cell, key)
        others = b.by_start(cell, key)
        if values is None or others is None:
            row["verdict"] = NO_VALUES
        elif paired:
            row |= paired_test(values, others, draws)
        else:
            spreads = (a.spread(cell, key), b.spread(cell, key))
            row |= unpaired_test(values, others, spreads, draws)
    return rows


def describe_number(
    cell: CellPair, key: tuple, left: dict[Any, Any], right: dict[Any, Any]
) -> dict[str, Any]:
    """One row of the table before any test.

    Args:
        cell: of the number.
        key: of the number.
        left: the number's own row of A.
        right: that of B.

    Returns:
        Values for some of COLUMNS. The verdict is OPEN if a test is needed.
    """
    fields = dict(zip(KEY_COLUMNS, key))
    found: dict[str, Any] = {
        "number": written_key(key),
        **{name: fields[name] for name in ("metric", "variant", "network", "x")},
        "attribute": cell.attribute,
        "method": cell.method,
        "seeds": cell.seeds,
        "higher_is_better": known_better(left, right),
        "p": NAN,
        "note": note_of(left, right),
    }
    for name, row in (("a", left), ("b", right)):
        found |= {name: row["value"], f"{name}_low": row["low"]}
        found |= {f"{name}_high": row["high"], f"{name}_n": row["count"]}
    if not same_version(left, right):
        # Numbers with different definitions have no difference.
        versions = f"metric version {left['version']:g} in A, {right['version']:g} in B"
        return found | {"verdict": OTHER_VERSION, "note": join_notes(versions, found["note"])}
    found["difference"] = right["value"] - left["value"]
    if found["note"] or not np.isfinite(found["difference"]):
        return found | {"verdict": UNREAD}
    return found | {"verdict": OPEN}


def paired_test(a: pd.DataFrame, b: pd.DataFrame, draws: int) -> dict[str, Any]:
    """The paired bootstrap of the mean of b - a over the starts that both have.

    Args:
        a: (starts, seeds), NaN if a seed has no value for a start.
        b: the same for the other side, with the same seeds.
        draws: of the bootstrap.

    Returns:
        Fields of the row. If a side has further starts, they include its number over the starts
        that both have.
    """
    left, right = a.align(b, join="inner")
    both = left.notna() & right.notna()
    gaps = (right - left).dropna(how="all").sort_index()
    n, difference, low, high, p = mean_with_interval(gaps, draws)
    found = {
        "starts": PAIRED,
        "n": n,
        "difference": difference,
        "low": low,
        "high": high,
        "p": p,
    }
    for name, own, values in (("a", a, left), ("b", b, right)):
        # A side without further values keeps the mean and interval of its record.
        if n and own.notna().to_numpy().sum() > both.to_numpy().sum():
            shared = values.where(both).loc[gaps.index]
            count, mean, lower, upper, _ = mean_with_interval(shared, draws)
            found |= {name: mean, f"{name}_low": lower, f"{name}_high": upper, f"{name}_n": count}
    return found


def mean_with_interval(values: pd.DataFrame, draws: int) -> tuple[int, float, float, float, float]:
    """The mean over starts and seeds, with the bootstrap of the report.

    Args:
        values: (starts, seeds), NaN if a seed has no value for a start; every start has a value.
        draws: of the bootstrap.

    Returns:
        Number of starts, mean, low end, high end, and p-value of the mean against 0.
    """
    # The mean is the difference of a pair whose other side is zero.
    pair = pd.DataFrame({"values": values.mean(axis=1), "zero": 0.0})
    [(n, mean, low, high, p, _)] = paired_differences(pair, {"values": values}, draws).values()
    return n, mean, low, high, p


def unpaired_test(
    a: pd.DataFrame, b: pd.DataFrame, spreads: tuple[SeedSpread, SeedSpread], draws: int
) -> dict[str, Any]:
    """The bootstrap of mean(b) - mean(a), with both sides resampled independently.

    Args:
        a: (starts, seeds), NaN if a seed has no value for a start.
        b: the same with other starts.
        spreads: what the seeds add to the variance of a and of b.
        draws: of the bootstrap.
    """
    means = []
    drawn_means = []
    for name, values, spread in zip("ab", (a, b), spreads):
        by_start = values.mean(axis=1).to_numpy(np.float64)
        stream = f"unpaired {name}"
        drawn = resampled_sums(by_start[:, None], draws, stream)[:, 0] / len(by_start)
        means.append(by_start.mean())
        drawn_means.append(drawn + seed_draws(spread, draws, stream))
    difference = np.array([means[1] - means[0]])
    drawn_differences = (drawn_means[1] - drawn_means[0])[:, None]
    low, high = percentiles(drawn_differences)[:, 0]
    p = two_sided(drawn_differences, difference)[0]
    # With few starts the draws vary too little.
    if min(len(a), len(b)) < FEWEST:
        low = high = p = NAN
    return {
        "starts": UNPAIRED,
        "n": NAN,
        "difference": float(difference[0]),
        "low": float(low),
        "high": float(high),
        "p": float(p),
    }


def verdict_of(row: dict[Any, Any]) -> str:
    """The verdict of a row with its adjusted p-value; what was not tested keeps its own."""
    if row["verdict"] != OPEN or not row["p_holm"] < SIGNIFICANCE:
        return str(row["verdict"])
    higher = row["difference"] > 0
    if row["higher_is_better"] is None:
        return "higher" if higher else "lower"
    return "better" if higher == row["higher_is_better"] else "worse"


def known_better(*rows: dict[Any, Any]) -> bool | None:
    """Whether higher is better, by the first row that says it."""
    for row in rows:
        if not pd.isna(row["higher_is_better"]):
            return bool(row["higher_is_better"])
    return None


def same_version(left: dict[Any, Any], right: dict[Any, Any]) -> bool:
    """Whether two rows are of one version of their metric.

    Args:
        left: row of A. A row without a version counts as the same version.
        right: row of B, likewise.
    """
    versions = (left["version"], right["version"])
    return bool(pd.isna(versions[0]) or pd.isna(versions[1]) or versions[0] == versions[1])


def note_of(left: dict[Any, Any], right: dict[Any, Any]) -> str:
    """The notes of both sides, with the side where they differ.

    Args:
        left: row of A.
        right: row of B.
    """
    if left["note"] == right["note"]:
        return str(left["note"])
    parts = [f"{name}: {row['note']}" for name, row in (("A", left), ("B", right)) if row["note"]]
    return join_notes(*parts)


def only_in_one(cells: Sequence[CellPair], a: FolderNumbers, b: FolderNumbers) -> list[str]:
    """Metrics that a cell has on one side alone, in words: they have no row in the table.

    Args:
        cells: all that are compared.
        a: numbers of folder A.
        b: numbers of folder B.
    """
    found = []
    for side, own, other in (("A", a, b), ("B", b, a)):
        alone: dict[str, list[str]] = {}  # metric -> the cells that lack it on the other side
        for cell in cells:
            # A key begins with the name of its metric.
            metrics = {key[0] for key in own.of(cell)}
            for metric in sorted(metrics - {key[0] for key in other.of(cell)}):
                alone.setdefault(metric, []).append(f"{cell.method} on {cell.attribute}")
        for metric, names in alone.items():
            where = "" if len(names) == len(cells) else f" ({', '.join(names)})"
            found.append(f"only in {side}: {metric}{where}")
    return found
