"""Published numbers next to measured ones, from the `published` block of an experiment's YAML.

The worlds differ, so the two numbers of a row can be read side by side but should not be
subtracted. The block says on what the paper's number was measured. A figure whose numbers are not
in the paper's text is listed without numbers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from editbench.figures.theme import Theme
from editbench.report.cells import COLUMNS, MISSING, Column, cell
from editbench.report.distance import explain, is_far
from editbench.report.load import Results
from editbench.report.notes import state_of
from editbench.report.tables import main_table

ALL = "all"  # in place of an attribute, for one number per method
# Heading of the sentences of `reasons`.
WHY = "Known differences where the paper's number lies outside the interval measured here"
SERVED = "served"  # metric: attributes on which a control was found


@dataclass(frozen=True)
class PublishedNumbers:
    """The numbers of one source.

    Attributes:
        source: name of the paper.
        setting: what its numbers were measured on.
        title: of the metric.
        rows: one per number, setting and variant of the method, with setting, method, attribute,
            paper and ours (as text), value, low, high and n of ours (NaN if there is none), and
            why: a sentence if the paper's number is outside our interval.
    """

    source: str
    setting: str
    title: str
    rows: list[dict] = field(default_factory=list)

    @property
    def has_settings(self) -> bool:
        """Whether the rows are of several settings."""
        return len({row["setting"] for row in self.rows}) > 1


def published(results: Results, theme: Theme) -> list[PublishedNumbers]:
    """The sources in the configurations of the runs, sorted by name.

    Args:
        results: of all settings.
        theme: how methods and attributes are written.
    """
    given = [results.configs.get(run, {}).get("published") for run in results.runs["run_id"]]
    # All runs of a sweep have the same block, so equal blocks are merged by their text.
    blocks = {
        json.dumps(block, sort_keys=True): block for block in given if isinstance(block, dict)
    }
    titles = {column.key: column.title for column in COLUMNS} | {
        SERVED: "attributes with a control"
    }
    found: list[PublishedNumbers] = []
    if not blocks:
        return found
    tables = {name: main_table(part) for name, part in results.by_setting()}
    for _, block in sorted(blocks.items()):
        metric = str(block.get("metric", ""))
        # A source without numbers is listed without a table.
        values = block.get("values") or {}
        rows = []
        for method, per in values.items():
            for attribute, value in per.items():
                for setting, table in tables.items():
                    for label in _variants(table, method):
                        row = _row(results, table, block, label, attribute, value)
                        row["setting"] = setting
                        row["method"] = theme.method(label)
                        row["attribute"] = theme.attribute(attribute)
                        rows.append(row)
        found.append(
            PublishedNumbers(
                str(block.get("source", "")),
                str(block.get("setting", "")),
                titles.get(metric, metric.replace("_", " ")),
                rows,
            )
        )
    return found


def reasons(one: PublishedNumbers) -> list[str]:
    """'method on attribute: why' for every number that is far from its paper's."""
    reasons_found = []
    for row in one.rows:
        if row["why"]:
            where = f" ({row['setting']})" if one.has_settings else ""
            reasons_found.append(f"{row['method']} on {row['attribute']}{where}: {row['why']}")
    return reasons_found


def _variants(table: pd.DataFrame, method: str) -> list[str]:
    """Labels of a method's variants in one setting; its name if none was run."""
    mine = table[(table["method"] == method) | (table["variant_of"] == method)]
    return sorted(set(mine["method"])) or [method]


def _row(
    results: Results,
    table: pd.DataFrame,
    block: dict,
    method: str,
    attribute: str,
    value: object,
) -> dict:
    metric = str(block.get("metric", ""))
    mine = table[table["method"] == method]
    paper = f"{value:g}" if isinstance(value, (int, float)) else str(value)
    row = {
        # In the papers, a cross means that no control was found.
        "paper": "no control" if paper == "x" else paper,
        "ours": MISSING,
        "value": np.nan,
        "low": np.nan,
        "high": np.nan,
        "n": np.nan,
        "why": "",
    }
    # The number of attributes is of no single run and has no interval.
    if metric == SERVED and attribute == ALL and len(mine):
        served = int((mine["status"] == "done").sum())
        return row | {
            "value": float(served),
            "ours": f"{served} of {table['attribute'].nunique()}",
        }
    # The paper's number is shown even if this world lacks its attribute.
    if attribute not in (ALL, *table["attribute"]):
        return row | {"ours": "attribute not in these runs"}
    mine = mine[mine["attribute"] == attribute]
    if not len(mine):
        return row | {"ours": "not run"}
    record = mine.iloc[0].to_dict()
    if record["status"] != "done" or metric not in record or not np.isfinite(record[metric]):
        return row | {"ours": state_of(record) if record["status"] != "done" else MISSING}
    # The interval is that of the measured number. Costs and `learned` have none.
    low = record.get(f"{metric}_low", np.nan)
    high = record.get(f"{metric}_high", np.nan)
    why = ""
    if is_far(value, record[metric], low, high):
        # The provenance is that of the first seed; what was learned is a mean over the seeds.
        made = results.provenance.get(record["run_id"], {}) | {"learned": record["learned"]}
        why = explain(made, attribute, block)
    ours = cell(record, Column(metric, metric, interval=True))
    text = ours.text + ("†" if ours.mark else "")
    if ours.interval:
        text += f" ({ours.interval})"
    return row | {
        "value": record[metric],
        "low": low,
        "high": high,
        "n": record["n"],
        "why": why,
        "ours": text,
    }
