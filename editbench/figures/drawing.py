"""The contract of a metric's figure: what it reads, and what it returns.

A metric may have a figure: `figure` in its YAML names a function that takes `Records` and a `Theme`
and returns a list of `Drawing`, which is empty if the records have none of its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from matplotlib.figure import Figure

from editbench.figures.theme import Theme
from editbench.walk.observed import Observed


class Records(Protocol):
    """The records of one setting, which a figure reads.

    Attributes:
        root: folder of the runs.
        runs: one row per run, or per method and attribute if seeds are pooled: run_id, method,
            label (the method and its variant), floor (whether the method is one), attribute,
            status, run_ids (of all seeds).
        rows: rows of the metrics, with the columns ROW_TYPES of editbench.report.load and run_id.
        samples: values of single starts, with the columns SAMPLE_TYPES of editbench.walk.rows and
            run_id.
        configs: run_id -> operative configuration.
    """

    @property
    def root(self) -> Path: ...
    @property
    def runs(self) -> pd.DataFrame: ...
    @property
    def rows(self) -> pd.DataFrame: ...
    @property
    def samples(self) -> pd.DataFrame: ...
    @property
    def configs(self) -> Mapping[str, Mapping[str, Any]]: ...

    def observation(self, run_id: str, name: str) -> Observed | None:
        """The data of an observation in a run; None if the run had no such observation.

        Args:
            run_id: of a row of `runs`.
            name: of the observation.
        """
        ...

    def strips(self, run_id: str) -> dict[str, Any] | None:
        """The images that a run stored of its walks; None if it has none.

        Returns:
            images (k, c, C, H, W) uint8 of k starts at c steps; steps, crossed and effect (in σ)
            (k, c); starts (k,), their ids. A short walk repeats its last step.

        Raises:
            EditbenchError: the file is unreadable.
        """
        ...


def with_methods(rows: pd.DataFrame, runs: pd.DataFrame, *more: str) -> pd.DataFrame:
    """Rows with the method and the attribute of their run; rows of other runs are left out.

    Args:
        rows: with a column run_id, such as `Records.rows`.
        runs: `Records.runs`.
        more: further columns of `runs` to add.

    Returns:
        The rows with the columns method (the label of the run), attribute and `more`.
    """
    named = runs[["run_id", "label", "attribute", *more]].rename(columns={"label": "method"})
    return rows.merge(named, on="run_id")


@dataclass(frozen=True)
class Drawing:
    """One figure of a report.

    Attributes:
        file: name of its files, without the ending; unique in a setting.
        title: heading.
        caption: what it shows, and how to read it.
        draw: makes the figure with a theme: that of the page, or one with the width of a paper's
            column. An error in it costs this figure alone.
        first: whether the page shows it at once; the others are collapsed.
    """

    file: str
    title: str
    caption: str
    draw: Callable[[Theme], Figure]
    first: bool = False
