"""What a paper printed, beside what was measured here: from the `published` block of an
experiment's configuration.

The worlds differ, so the two numbers of a row are to be read side by side and not subtracted; the
block says on what the paper's was measured. A figure whose numbers are not in the paper's text is
named without one.
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
from editbench.report.tables import main_table

ALL = "all"  # in place of an attribute: one number a method
# Above the sentences of `reasons`.
WHY = "Known differences where the paper's number lies outside the interval measured here"
SERVED = "served"  # metric: attributes on which a control was found


@dataclass(frozen=True)
class PublishedNumbers:
    """One source: what it is, what it was measured on, the metric's key and title, and a row for
    each number, setting and variant of the method, with setting, method, attribute, paper and ours as
    text, value, low, high, n of ours (NaN where there is none), and why: a sentence where the paper's
    number lies outside our interval."""

    source: str
    setting: str
    metric: str
    title: str
    rows: list[dict] = field(default_factory=list)


def published(results: Results, theme: Theme | None = None) -> list[PublishedNumbers]:
    """The sources that the runs name, each once, in the order of their names.

    Args:
        results: of all settings.
        theme: how methods and attributes are written; None: by their names.
    """
    given = [results.configs.get(run, {}).get("published") for run in results.runs["run_id"]]
    # All runs of a sweep carry the same block, and the text of it tells the same from another.
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
        # A source whose numbers are not in the text has none, and is named without a table.
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


def lines(results: Results, theme: Theme | None = None) -> list[str]:
    """The same as Markdown: a heading line a source and its table.

    Args:
        results: of all settings.
        theme: how methods and attributes are written; None: by their names.
    """
    out = []
    for one in published(results, theme):
        out.append(
            markdown_safe(f"Published: {one.source} ({one.setting}), {one.title}")
            + ("" if one.rows else ": the numbers are not in the paper's text")
        )
        if one.rows:
            # The column of settings only where there are several.
            names = ["method", "attribute", "paper", "ours"]
            if len({row["setting"] for row in one.rows}) > 1:
                names = ["setting", *names]
            heads = ["here" if name == "ours" else name for name in names]
            rules = ["---:" if name in ("paper", "ours") else "---" for name in names]
            table = [heads, rules, *([str(row[name]) for name in names] for row in one.rows)]
            out.append("\n".join(f"| {' | '.join(map(markdown_safe, line))} |" for line in table))
            told = reasons(one)
            if told:
                out.append(
                    "\n".join([f"{WHY}:", "", *(f"- {markdown_safe(line)}" for line in told)])
                )
    return out


def reasons(one: PublishedNumbers) -> list[str]:
    """'method on attribute: why' of every number that is far from its paper's."""
    several = len({row["setting"] for row in one.rows}) > 1
    told = []
    for row in one.rows:
        if row["why"]:
            where = f" ({row['setting']})" if several else ""
            told.append(f"{row['method']} on {row['attribute']}{where}: {row['why']}")
    return told


def _variants(table: pd.DataFrame, method: str) -> list[str]:
    """Labels of a method's variants that were run in one setting; its name where none was."""
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
    # A count of attributes has neither an interval nor a run of its own.
    if metric == SERVED and attribute == ALL and len(mine):
        served = int((mine["status"] == "done").sum())
        return row | {
            "value": float(served),
            "ours": f"{served} of {table['attribute'].nunique()}",
        }
    # A paper may have attributes that this world lacks; its number is still shown.
    if attribute not in (ALL, *table["attribute"]):
        return row | {"ours": "attribute not in these runs"}
    mine = mine[mine["attribute"] == attribute]
    if not len(mine):
        return row | {"ours": "not run"}
    record = mine.iloc[0].to_dict()
    if record["status"] != "done" or metric not in record or not np.isfinite(record[metric]):
        return row | {"ours": str(record["status"]) if record["status"] != "done" else MISSING}
    # The interval is of the number measured here; the paper's stands as it was printed.
    # Costs, and what was learnt, have none.
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
