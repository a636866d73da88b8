"""Searches that found no control count as failures on every start.

A method whose search finds no control for an attribute, or finds none with some of its seeds, edits
nothing there. If such jobs were left out, a method would look the better, the more often its search
fails. Accuracy and success are therefore 0 on all their starts, as for walks that never cross.
Without an edit there is nothing else to measure, so that other numbers, such as AD, are over the
jobs that have a control.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from editbench.stats.intervals import wilson
from editbench.walk.rows import key_of

SHARES = ("accuracy", "success_rate")  # metrics that are shares of all starts


def count_failures(
    runs: pd.DataFrame, rows: pd.DataFrame, samples: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add the rows and samples of runs that were skipped since they found no control.

    Args:
        runs: see `editbench.report.load.Results`, with or without pooled seeds.
        rows: of these runs.
        samples: of these runs.

    Returns:
        Rows and samples in which such runs have those of SHARES, all 0. Their starts are those of
        another run of the setting and attribute; if there is none, they get no rows.
    """
    more_rows = []
    more_samples = []
    for run in runs[(runs["status"] == "skipped") & (runs["no_control"] > 0)].to_dict("records"):
        # All runs of a setting and attribute walk from the same starts.
        same = (runs["setting"] == run["setting"]) & (runs["attribute"] == run["attribute"])
        others = runs.loc[same, "run_id"]
        zeros, starts = failures(
            rows[rows["run_id"].isin(others)],
            samples[samples["run_id"].isin(others)],
            [run["run_id"]],
        )
        more_rows.append(zeros.assign(seeds=len(run["seeds"]), seed_variance=0.0))
        more_samples.append(starts)
    return joined(rows, more_rows), joined(samples, more_samples)


def failures_by_seed(
    runs: pd.DataFrame, samples: pd.DataFrame
) -> dict[tuple[str, tuple], pd.DataFrame]:
    """Accuracy of the starts and seeds of cells without any control, which is 0.

    Args:
        runs: see `editbench.report.load.Results`, with pooled seeds.
        samples: of `count_failures`.

    Returns:
        As `by_seed` of `Results`.
    """
    found = {}
    accuracy = samples[samples["metric"] == "accuracy"]
    for run in runs[(runs["status"] == "skipped") & (runs["no_control"] > 0)].to_dict("records"):
        own = accuracy[accuracy["run_id"] == run["run_id"]]
        if len(own) and len(run["seeds"]) > 1:
            key = key_of(own.iloc[0].to_dict())
            zeros = pd.DataFrame(0.0, index=own["start"].to_numpy(), columns=list(run["seeds"]))
            found[str(run["run_id"]), key] = zeros
    return found


def failures(
    rows: pd.DataFrame, samples: pd.DataFrame, run_ids: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows and samples of runs in which every edit failed.

    Args:
        rows: of other runs with the same starts.
        samples: of these runs.
        run_ids: of the runs in which every edit failed.

    Returns:
        The rows of SHARES with their intervals, and one sample per start, for each of `run_ids`;
        empty if no other run has numbers of SHARES.
    """
    shares = rows[rows["metric"].isin(SHARES)]
    like = shares["run_id"].iloc[0] if len(shares) else ""
    shares = shares[shares["run_id"] == like]
    ends = [wilson(0, count) for count in shares["count"]]
    shares = shares.assign(
        value=0.0, low=[low for low, _ in ends], high=[high for _, high in ends], note=""
    )
    starts = samples[(samples["run_id"] == like) & samples["metric"].isin(SHARES)]
    starts = starts.assign(value=0.0)
    return (
        pd.concat([shares.assign(run_id=run_id) for run_id in run_ids]),
        pd.concat([starts.assign(run_id=run_id) for run_id in run_ids]),
    )


def joined(table: pd.DataFrame, more: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """A table with further rows, with its own columns and types."""
    # pandas cannot join tables without rows to others without losing the types.
    filled = [part for part in (table, *more) if len(part)]
    if not filled:
        return table
    whole = pd.concat(filled, ignore_index=True)
    return whole[list(table.columns)].astype(table.dtypes.to_dict())
