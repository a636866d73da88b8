"""The contract of a metric's figure: what it may draw from, and what it is.

A metric brings its figure: a function that is named by `figure` in the metric's YAML, takes
`Records` and a `Theme`, and gives one `Drawing` or several.
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
    """The records that a figure may draw from, of one setting.

    Attributes:
        root: folder of the runs.
        runs: one row a run, or a method and attribute where seeds are pooled: run_id, method, label
            (the method's name in tables), floor (whether it is one), attribute, status, run_ids (of
            all seeds).
        rows: metric rows, columns ROW_COLUMNS of editbench.walk.metric, with run_id and group.
        samples: values of single starts, columns SAMPLE_COLUMNS, with run_id.
        configs: run_id -> configuration.
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
        """What an observation left in a run, None where the run had no such observation.

        Args:
            run_id: of a row of `runs`.
            name: of the observation.
        """
        ...

    def strips(self, run_id: str) -> dict[str, Any] | None:
        """Pictures that a run kept of its walks, None where it kept none.

        Returns:
            images (k, c, C, H, W) uint8 of k starts at c steps; steps, crossed, effect (k, c);
            starts (k,). A short walk repeats its last step.

        Raises:
            EditbenchError: the file is unreadable.
        """
        ...


@dataclass(frozen=True)
class Drawing:
    """One figure of a report.

    Attributes:
        file: name of its files, without a suffix.
        title: heading.
        caption: what is drawn, and how to read it.
        draw: makes the figure with a theme: that of the page, or one with the width of a paper's
            column. An error in it costs this figure alone.
        first: whether it stands among the first figures of the page, or is folded away.
    """

    file: str
    title: str
    caption: str
    draw: Callable[[Theme], Figure]
    first: bool = False
