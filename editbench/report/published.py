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
from editbench.report.cells import COLUMNS, MISSING, Column, cell, markdown_safe
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
    """The numbers of one source: its name, what they were measured on, the metric and its title.

    The table has one row per number, setting and variant of the method. Its columns are setting,
    method, attribute, paper and ours (as text), value, low, high and n of ours (NaN if there is
    none), and why: a sentence if the paper's number is outside our interval.
    """

    source: str
    setting: str
    metric: str
    title: str
    rows: list[dict] = field(default_factory=list)


def published(results: Results, theme: Theme | None = None) -> list[PublishedNumbers]:
    """The sources in the configurations of the runs, sorted by name.

    Args:
        results: of all settings.
        theme: how methods and attributes are written; None for their names.
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
                        if theme is not None:
                            row["method"] = theme.method(label)
                            row["attribute"] = theme.attribute(attribute)
                        rows.append(row)
        found.append(
            PublishedNumbers(
                str(block.get("source", "")),
                str(block.get("setting", "")),
                metric,
                titles.get(metric, metric.replace("_", " ")),
                rows,
            )
        )
    return found


def published_markdown(results: Results, theme: Theme | None = None) -> list[str]:
    """The sources in Markdown, each with a heading and its table.

    Args:
        results: of all settings.
        theme: how methods and attributes are written; None for their names.
    """
    out = []
    for one in published(results, theme):
        out.append(
            markdown_safe(f"Published: {one.source} ({one.setting}), {one.title}")
            + ("" if one.rows else ": the numbers are not in the paper's text")
        )
        if one.rows:
            # There is a column of settings only if there are several.
            names = ["method", "attribute", "paper", "ours"]
            if len({row["setting"] for row in one.rows}) > 1:
                names = ["setting", *names]
            heads = ["here" if name == "ours" else name for name in names]
            rules = ["---:" if name in ("paper", "ours") else "---" for name in names]
            table = [heads, rules, *([str(row[name]) for name in names] for row in one.rows)]
            out.append("\n".join(f"| {' | '.join(map(markdown_safe, line))} |" for line in table))
            reasons_found = reasons(one)
            if reasons_found:
                out.append(
                    "\n".join(
                        [f"{WHY}:", "", *(f"- {markdown_safe(line)}" for line in reasons_found)]
                    )
                )
    return out


def reasons(one: PublishedNumbers) -> list[str]:
    """'method on attribute: why' for every number that is far from its paper's."""
    several = len({row["setting"] for row in one.rows}) > 1
    reasons_found = []
    for row in one.rows:
        if row["why"]:
            where = f" ({row['setting']})" if several else ""
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
    row = {
        "method": method,
        "attribute": attribute,
        "paper": "no control"
        if value == "x"
        else f"{value:g}"
        if isinstance(value, (int, float))
        else str(value),
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
    low, high = record.get(f"{metric}_low", np.nan), record.get(f"{metric}_high", np.nan)
    why = ""
    if is_far(value, record[metric], low, high):
        why = explain(results.provenance.get(record["run_id"], {}), attribute, block)
    ours = cell(record, Column(metric, metric, interval=True))
    text = ours.text
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
