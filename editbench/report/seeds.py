"""Pooling the seeds of a method on an attribute into one cell: a mean over starts and seeds.

All seeds walk from the same starts. If the values of single starts are known, a start that has a
value for every seed gets the mean over the seeds, and the interval is over starts and seeds
(`editbench.stats.intervals.crossed_means`, and `crossed_share` for values of 0 and 1). A start
without a value for some seed, such as one that does not reach an effect, is left out. A mean over
the other seeds would be over other seeds than at the next start, and a seed that reaches the effect
more often would have more weight.

If the values of single starts are not known, or the samples are blocks of images (as of a Fréchet
or kernel distance), there are only the seeds' own numbers and intervals. The cell is then their
mean, and the variance over starts is not reduced, since the seeds share the starts. Notes of all
seeds are kept. If seeds have a number at different x, such as a strength that each seed calibrates,
the number is that of the first seed.

Seeds that found no control are failures on every start (`editbench.report.no_control`): accuracy and
success are over them too, and other numbers over the seeds with a control.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from editbench.report.no_control import SHARES, failures, joined
from editbench.stats.intervals import (
    LEVEL,
    NO_INTERVAL,
    Interval,
    SeedSpread,
    above_zero,
    crossed_means,
    crossed_share,
    seed_spread,
)
from editbench.walk.rows import KEY_COLUMNS, join_notes, key_of

CELL = ["setting", "label", "attribute"]  # runs that agree in these differ only in the seed
# Run ids of finished runs -> their rows and samples.
ReadTables = Callable[[list[str]], tuple[pd.DataFrame, pd.DataFrame]]
# Numbers that are compared on the starts that methods share, where the seeds may differ by more or
# less than on all starts.
COMPARED = ("accuracy", "ad_at")
LARGEST = ("peak_memory_mb",)  # the maximum over seeds, since a machine must have that much
ROUNDING = 1e-6  # relative tolerance for whether a row is the mean of its samples


class Pooled(NamedTuple):
    """Cells in place of runs.

    Attributes:
        runs: one row per cell, with the run id of its first finished seed.
        rows: of cells, with `seeds` and `seed_variance`, what the choice of seeds adds to the
            variance of the value.
        samples: of cells, one per start.
        by_seed: see `editbench.report.load.Results`.
    """

    runs: pd.DataFrame
    rows: pd.DataFrame
    samples: pd.DataFrame
    by_seed: dict[tuple[str, tuple], pd.DataFrame]


def pool_seeds(runs: pd.DataFrame, read_tables: ReadTables, costs: tuple[str, ...]) -> Pooled:
    """Pool the runs that differ only in the seed.

    Only the tables of one cell are in memory at a time.

    Args:
        runs: one row per run, as in `editbench.report.load.Results`.
        read_tables: reads the rows and the samples of finished runs, by their run ids.
        costs: columns of `runs` that are averaged over seeds, including `learned`.
    """
    by_seed: dict[tuple[str, tuple], pd.DataFrame] = {}
    cells = []
    pooled_rows = []
    pooled_samples = []
    for _, group in runs.groupby(CELL, sort=False):
        group = group.sort_values(["seed", "run_id"])
        cell = _joined_runs(group, costs)
        cells.append(cell)
        done = group.loc[group["status"] == "done", "run_id"].tolist()
        rows, samples = read_tables(done)
        without = group.loc[group["no_control"] > 0, "run_id"].tolist()
        if done and without:
            failed_rows, failed_samples = failures(rows, samples, without)
            rows = joined(rows, [failed_rows])
            samples = joined(samples, [failed_samples])
        if done and len(done) + len(without) > 1:
            by_start = _by_start(samples, done, without)
            rows = _joined_rows(rows, by_start, done, without, group)
            samples = _joined_samples(by_start, samples)
            rows["run_id"] = samples["run_id"] = cell["run_id"]
            seed_of = dict(zip(group["run_id"], group["seed"]))
            for key, table in by_start.items():
                if key[0] in COMPARED:
                    by_seed[str(cell["run_id"]), key] = table.dropna().rename(columns=seed_of)
        pooled_rows.append(rows)
        pooled_samples.append(samples)
    none_rows, none_samples = read_tables([])
    return Pooled(
        pd.DataFrame(cells, columns=runs.columns).reset_index(drop=True),
        joined(none_rows, pooled_rows),
        joined(none_samples, pooled_samples),
        by_seed,
    )


def _joined_runs(group: pd.DataFrame, costs: tuple[str, ...]) -> dict[Any, Any]:
    """The row of a cell.

    Args:
        group: its runs, sorted by seed.
        costs: see `pool_seeds`.
    """
    done = group[group["status"] == "done"]
    without = group["no_control"] > 0
    counted = group[(group["status"] == "done") | without]
    if not len(counted):
        counted = group
    kept = done if len(done) else counted
    cell = dict(kept.iloc[0])
    if len(group) == 1:
        return cell
    cell["run_ids"] = tuple(kept["run_id"])
    cell["seeds"] = tuple(counted["seed"])
    cell["seeds_asked"] = len(group)
    cell["no_control"] = int(without.sum())
    cell["leaking"] = bool(group["leaking"].any())
    cell["fit_cached"] = bool(kept["fit_cached"].all())
    # A search without a control has costs too; what it lacks, such as walks, is NaN and left out.
    for name in costs:
        cell[name] = counted[name].max() if name in LARGEST else counted[name].mean()
    cell["seconds"] = kept["seconds"].mean()
    missing = group[group["status"] != "done"]
    if len(done):
        # A mean over only some of the seeds must say so.
        cell["reason"] = join_notes(
            *(
                f"seed {seed} {status}: {reason}"
                for seed, status, reason in zip(
                    missing["seed"], missing["status"], missing["reason"]
                )
            )
        )
    return cell


def _by_start(
    samples: pd.DataFrame, done: list[str], without: list[str]
) -> dict[tuple, pd.DataFrame]:
    """Key of the samples -> (starts, seeds), NaN if a seed has no value for a start.

    Args:
        samples: of all runs of a cell.
        done: run ids of the finished runs.
        without: run ids of the runs without a control.
    """
    found = {}
    for _, part in samples.groupby(list(KEY_COLUMNS), dropna=False, sort=False):
        first = part.drop_duplicates(["run_id", "start"])
        wide = first.pivot(index="start", columns="run_id", values="value")
        run_ids = _seeds_of(part["metric"].iloc[0], done, without)
        found[key_of(part.iloc[0].to_dict())] = wide.reindex(columns=run_ids).sort_index()
    return found


def _seeds_of(metric: str, done: list[str], without: list[str]) -> list[str]:
    """The runs that a number of a cell is over."""
    return [*done, *without] if metric in SHARES else done


def _joined_rows(
    rows: pd.DataFrame,
    tables: dict[tuple, pd.DataFrame],
    done: list[str],
    without: list[str],
    runs: pd.DataFrame,
) -> pd.DataFrame:
    """One row per number.

    Args:
        rows: of all runs of a cell.
        tables: see `_by_start`.
        done: run ids of the finished runs.
        without: run ids of the runs without a control.
        runs: all runs of the cell.
    """
    seed_of = dict(zip(runs["run_id"], runs["seed"]))
    place = {run: position for position, run in enumerate([*done, *without])}
    # In the order of the first seed, so that tables with one and several seeds look the same.
    records = sorted(rows.to_dict("records"), key=lambda row: place[row["run_id"]])
    # Dictionaries, since grouping by ten columns with pandas would take most of the time.
    parts: dict[tuple, dict[str, dict[Any, Any]]] = {}
    for row in records:
        parts.setdefault((key_of(row), row["group"]), {}).setdefault(row["run_id"], row)
    found = []
    for (key, _), by_run in parts.items():
        part = list(by_run.values())
        row = part[0]
        if len(part) == 1 or len(part) < len(_seeds_of(row["metric"], done, without)):
            # Only one seed has a control, or each seed has its own x, such as a calibrated strength.
            if row["run_id"] == done[0]:
                found.append(row)
            continue
        values = np.array([one["value"] for one in part], np.float64)
        counts = np.array([one["count"] for one in part], np.float64)
        table = tables.get(key)
        if table is not None and _is_mean(table[list(by_run)], values, counts):
            pooled = _of_starts(table[list(by_run)].to_numpy(np.float64))
        else:
            pooled = _of_numbers(part)
        found.append(row | pooled | {"note": _joined_note(part, seed_of)})
    return pd.DataFrame(found)


def _is_mean(table: pd.DataFrame, values: np.ndarray, counts: np.ndarray) -> bool:
    """Whether each seed's number is the mean over its starts, and not another statistic.

    Args:
        table: (starts, seeds) samples, NaN if a seed has no value for a start.
        values: (seeds,) the numbers.
        counts: (seeds,) how many starts, points or samples they are means of.
    """
    # Samples of a distance are a few blocks of many images. Blocks are too few for a bootstrap, and
    # their number is not the count of the row; the interval of the record uses Student's t.
    if not np.array_equal(table.notna().sum().to_numpy(), counts):
        return False
    with np.errstate(invalid="ignore"):
        means = table.mean().to_numpy(np.float64)
    return bool(np.allclose(means, values, rtol=ROUNDING, atol=ROUNDING))


def _of_starts(values: np.ndarray) -> dict[str, Any]:
    """Value, interval and count of a number, from the values (starts, S) of single starts."""
    values = values[np.isfinite(values).all(1)]
    if not len(values):
        return {"value": np.nan, "low": np.nan, "high": np.nan, "count": 0.0}
    share = bool(np.isin(values, (0.0, 1.0)).all())
    low, high = crossed_share(values) if share else crossed_means(values)
    spread = seed_spread(values)
    return {
        "value": float(values.mean()),
        "low": low,
        "high": high,
        "count": float(len(values)),
        "seeds": spread.seeds,
        "seed_variance": spread.variance,
    }


def _of_numbers(part: list[dict[Any, Any]]) -> dict[str, Any]:
    """Value, interval and count of a number, from the seeds' own numbers and intervals."""
    columns = ("value", "low", "high", "count")
    numbers = np.array([[row[name] for name in columns] for row in part], np.float64)
    values, lows, highs, counts = numbers[np.isfinite(numbers[:, 0])].T
    seeds = len(values)
    if not seeds:
        return {"value": np.nan, "low": np.nan, "high": np.nan, "seeds": len(part)}
    variance = float(values.var(ddof=1)) / seeds if seeds > 1 else 0.0
    low, high = _widened(values, lows, highs, SeedSpread(variance, seeds))
    return {
        "value": float(values.mean()),
        "low": above_zero(low, values),
        "high": high,
        # The minimum, since the count shows whether there are enough.
        "count": float(np.fmin.reduce(counts)),
        "seeds": len(part),
        "seed_variance": variance,
    }


def _widened(
    values: np.ndarray, lows: np.ndarray, highs: np.ndarray, spread: SeedSpread
) -> Interval:
    """The interval of a mean over seeds.

    Each half is the mean of the seeds' own halves and the seeds' part, added in quadrature.
    """
    if not (np.isfinite(lows).all() and np.isfinite(highs).all()):
        return NO_INTERVAL
    value = float(values.mean())
    below = float((values - lows).mean())
    above = float((highs - values).mean())
    part = 0.0
    if spread.seeds > 1:
        part = float(stdtrit(spread.seeds - 1, 0.5 + LEVEL / 2)) * spread.variance**0.5
    return value - float(np.hypot(below, part)), value + float(np.hypot(above, part))


def _joined_note(part: list[dict[Any, Any]], seed_of: dict[str, int]) -> str:
    """The notes of all seeds; seeds are named if a note is not of all of them."""
    noted: dict[str, list[str]] = {}
    for row in part:
        if row["note"] != "":
            noted.setdefault(str(row["note"]), []).append(str(seed_of[row["run_id"]]))
    found = []
    for note, seeds in noted.items():
        found.append(note if len(seeds) == len(part) else f"seed {', '.join(seeds)}: {note}")
    return join_notes(*found)


def _joined_samples(tables: dict[tuple, pd.DataFrame], samples: pd.DataFrame) -> pd.DataFrame:
    """One value per start that has a value for every seed: the mean over the seeds."""
    found = []
    for key, table in tables.items():
        means = table.dropna().mean(axis=1)
        fields = dict(zip(KEY_COLUMNS, key))
        fields = {name: np.nan if value is None else value for name, value in fields.items()}
        found.append(pd.DataFrame(fields | {"start": means.index, "value": means.to_numpy()}))
    if not found:
        return samples.iloc[:0].copy()
    return pd.concat(found, ignore_index=True)
