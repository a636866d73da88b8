"""All numbers of one setting, computed once for the terminal, page, CSV, LaTeX and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from editbench.report.costs import cost_table
from editbench.report.load import Results
from editbench.report.means import MeanComparison, comparisons, summary
from editbench.report.paired import paired_table
from editbench.report.ranking import Ranking, ranking
from editbench.report.tables import main_table


@dataclass(frozen=True)
class Numbers:
    """The numbers of one setting.

    Args:
        name: of the setting; '' if there is only one.
        results: its records.
        table: one row per method and attribute.
        compared: number -> the attributes, starts and methods of its means.
        means: one row per method.
        paired: differences of all pairs of methods.
        ranked: methods by mean accuracy.
        costs: one row per method.
    """

    name: str
    results: Results
    table: pd.DataFrame
    compared: Mapping[str, MeanComparison]
    means: pd.DataFrame
    paired: pd.DataFrame
    ranked: Ranking
    costs: pd.DataFrame

    @property
    def order(self) -> list[str]:
        """The methods in the order of all tables: best mean first, floors last."""
        return self.means["method"].tolist()

    @property
    def floors(self) -> set[str]:
        """Methods that are floors."""
        return set(self.means.loc[self.means["floor"], "method"])


def numbers_of(name: str, results: Results) -> Numbers:
    """Compute the numbers of one setting.

    Args:
        name: of the setting.
        results: its records, at least one.
    """
    table = main_table(results)
    compared = comparisons(results, table)
    means = summary(table, compared)
    return Numbers(
        name,
        results,
        table,
        compared,
        means,
        paired_table(results),
        ranking(compared["accuracy"], name),
        cost_table(means),
    )
