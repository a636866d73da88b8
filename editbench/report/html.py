"""The page: one HTML file that needs no network. The template escapes all text from records."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pandas as pd

from editbench.figures.drawing import Drawing
from editbench.figures.theme import Theme
from editbench.report import dial
from editbench.report.caveats import caveats
from editbench.report.cells import (
    COLUMNS,
    MISSING,
    NOT_LEARNED,
    Cell,
    Column,
    capitalised,
    cell,
    floor_marks,
    is_bold,
    marks,
    not_learned,
    number,
)
from editbench.report.costs import COSTS, describe_costs
from editbench.report.explorer import FIRST, SpriteSheet, css, explorer, gallery, sheets
from editbench.report.facts import facts
from editbench.report.load import Results
from editbench.report.notes import (
    NEVER_BOLD,
    floor_legend,
    floors_of,
    legend,
    means_notes,
    missed_cards,
    over_starts,
    setting_title,
    state_of,
    title_of,
    world_of,
)
from editbench.report.numbers import Numbers
from editbench.report.paired import SIGNIFICANCE, find_leaders
from editbench.report.problem import Problem
from editbench.report.published import WHY, published, reasons
from editbench.report.ranking import describe_ranking
from editbench.report.strips import Strip
from editbench.report.style import Style
from editbench.report.tables import main_table
from editbench.report.templates import OUTLINES, page_environment

# Keys of the provenance that the page shows; costs and notes have their own tables.
PROVENANCE = ("hashes", "packages", "python", "processor", "cuda", "device", "threads", "git")
BOLD = (
    "Bold: the best value of a column and all values that are not significantly worse. A value is "
    "significantly worse if its paired bootstrap test against the best has an adjusted p below "
    f"{SIGNIFICANCE:g} (Holm), or if the two intervals do not overlap. If no other method is worse, "
    "nothing is bold."
)


@dataclass
class Section:
    """The section of the page for one setting.

    Args:
        numbers: of the setting.
        figures: each with its SVG for the page.
        strips: attribute -> start -> strips by method.
    """

    numbers: Numbers
    figures: list[tuple[Drawing, str]] = field(default_factory=list)
    strips: dict[str, dict[int, list[Strip]]] = field(default_factory=dict)


def page(
    sections: list[Section],
    whole: Results,
    theme: Theme,
    problems: list[Problem],
    style: Style,
    across: list[tuple[Drawing, str]],
) -> str:
    """The HTML of the page.

    Args:
        sections: one per setting.
        whole: the records of all settings.
        theme: how methods, attributes and worlds are shown.
        problems: what could not be read or drawn.
        style: columns and digits.
        across: figures over several settings, each with its SVG for the page.
    """
    environment = page_environment()
    environment.filters["number"] = number
    environment.filters["method"] = theme.method
    environment.filters["attribute"] = theme.attribute
    environment.filters["column"] = partial(title_of, theme=theme)
    environment.filters["capitalised"] = capitalised
    environment.filters["reasons"] = reasons
    table = main_table(whole)
    # All settings together, so that missing results are listed in one place.
    undone = [
        row | {"status": state_of(row)} for row in table[table["reason"] != ""].to_dict("records")
    ]
    marked = floor_marks(set(table.loc[table["floor"], "method"]))
    # All sections together, since the budget of bytes is for the whole page.
    first = "" if style.attributes else FIRST
    pictures = sheets([section.strips for section in sections], first=first)
    return environment.get_template("template.html").render(
        sections=[
            _section(section, found, theme, style) for section, found in zip(sections, pictures)
        ],
        theme=theme,
        across=across,
        dial=dial.table(whole),
        dial_note=dial.SLOPE,
        why=WHY,
        sprites=css(pictures),
        undone=undone,
        problems=problems,
        warnings=[
            *warnings(table),
            *caveats(whole, theme),
            *whole.notes,
        ],
        missed=missed_cards(whole),
        provenance=provenance(whole),
        notes=method_notes(whole),
        title=" and ".join(dict.fromkeys(world_of(one.numbers, theme) for one in sections)),
        floors=floors_of(table, theme),
        rules=(BOLD, NEVER_BOLD, floor_legend(marked, theme)) if marked else (BOLD,),
        floor_marks=marked,
        significance=SIGNIFICANCE,
    )


def warnings(table: pd.DataFrame) -> list[str]:
    """Warnings about numbers that are less reliable than they seem."""
    found = []
    # If the editor was fitted to the judge, the judge overestimates its success.
    if table["leaking"].any():
        found.append(
            f"{_share(table['leaking'])} judged by the teacher that the methods learn from. This "
            "flatters every method that uses the teacher; such numbers are marked ‘leaking’."
        )
    latent = table["judged_in"] == "w"
    if latent.any():
        found.append(
            f"{_share(latent)} judged on latent codes, not on images, so nothing is known about "
            "what the images show. These are marked ‘latent’."
        )
    return found


def provenance(results: Results) -> list[tuple[str, list[tuple[str, int]]]]:
    """How runs were made: (key, [(value, number of runs with this value)])."""
    found: dict[str, dict[str, int]] = {}
    for made in results.provenance.values():
        for key in PROVENANCE:
            nested = made.get(key)
            if nested is None:
                continue
            # Hashes and packages are mappings, python and device are plain values.
            values = {key: nested}
            if isinstance(nested, dict):
                values = {f"{key}: {name}": value for name, value in nested.items()}
            for title, value in values.items():
                counts = found.setdefault(title, {})
                # Converted to text, so that values of all types can be counted and sorted.
                counts[str(value)] = counts.get(str(value), 0) + 1
    return [(title, sorted(counts.items())) for title, counts in sorted(found.items())]


def method_notes(results: Results) -> list[tuple[str, str, str, str]]:
    """(method, attribute, notes of the fit, run_id)."""
    found = []
    for run in results.run_records:
        # A row of several seeds has one fit per seed.
        for run_id in run["run_ids"]:
            # A run that was skipped before its fit has no notes; its row stays, with empty text.
            notes = results.provenance.get(run_id, {}).get("method_notes") or {}
            found.append((run["label"], run["attribute"], _note_text(notes), run_id))
    return found


def _note_text(notes: object) -> str:
    if not isinstance(notes, dict):
        return str(notes)
    parts = []
    for key, value in notes.items():
        plain = isinstance(value, str | int | float)
        parts.append(f"{key}: {value if plain else json.dumps(value, default=str)}")
    return ", ".join(parts)


def _section(
    section: Section, pictures: dict[str, list[SpriteSheet]], theme: Theme, style: Style
) -> dict[str, Any]:
    numbers = section.numbers
    table = numbers.table
    results = numbers.results
    columns = style.columns_of(numbers)
    records = table.to_dict("records")
    # In the table's order.
    attributes = list(dict.fromkeys(table["attribute"]))
    accuracy = style.column_of(COLUMNS[0])
    grid = _accuracy_grid(numbers, records, attributes, accuracy)
    priced = style.costs_of(numbers)
    return {
        "title": setting_title(numbers, theme) if numbers.name else "",
        "facts": facts(numbers, theme),
        "columns": columns,
        "rows": [_row(record, columns) | {"state": state_of(record)} for record in records],
        "rows_over": over_starts(table, theme, style),
        "means": [
            _mean_row(record, columns, accuracy, numbers.ranked.leaders)
            for record in numbers.means.to_dict("records")
        ],
        "means_notes": means_notes(numbers, theme, style),
        "legend": legend(table, results, theme, style),
        "attributes": attributes,
        "conclusion": accuracy_conclusion(grid, attributes, theme),
        "grid": grid,
        "figures": section.figures,
        "published": published(results, theme),
        "strips": gallery(pictures),
        "explorer": explorer(pictures, results.runs, theme, OUTLINES, numbers.floors),
        "ranked": [
            # A floor has no numerical rank.
            row
            | {
                "best_rank": "" if pd.isna(row["best_rank"]) else row["best_rank"],
                "tied_with": ", ".join(map(theme.method, numbers.ranked.ties[row["method"]])),
                "cell": cell(row, accuracy),
            }
            for row in numbers.ranked.table.to_dict("records")
        ],
        "accuracy": accuracy.title,
        "ranked_notes": describe_ranking(numbers.ranked, theme),
        "costs": [
            _row(record, priced) | {"on_front": _fronts(record, theme)}
            for record in numbers.costs.to_dict("records")
        ],
        "priced": priced,
        "costs_note": describe_costs(priced),
        "paired": numbers.paired.to_dict("records"),
    }


def _accuracy_grid(
    numbers: Numbers, records: list[dict], attributes: list[str], accuracy: Column
) -> list[tuple[str, list[dict[str, Any]]]]:
    """The accuracy of every method on every attribute: (method, a cell for each attribute).

    Args:
        numbers: of the section.
        records: rows of its main table.
        attributes: in the order of the columns.
        accuracy: how accuracies are written.
    """
    # The grid shows only accuracy, so its leaders depend on the tests of accuracy.
    pairs = numbers.paired[numbers.paired["metric"] == "accuracy"]
    leaders = {
        attribute: find_leaders(
            pairs[pairs["attribute"] == attribute],
            [record for record in records if record["attribute"] == attribute],
            "accuracy",
            True,
            numbers.floors,
        )
        for attribute in attributes
    }
    by_cell = {(record["method"], record["attribute"]): record for record in records}
    return [
        (
            method,
            [
                _grid_cell(by_cell.get((method, attribute)), method in leaders[attribute], accuracy)
                for attribute in attributes
            ],
        )
        for method in numbers.order
    ]


def _fronts(record: dict, theme: Theme) -> str:
    """The titles of the costs for which a method is on the Pareto front."""
    titles = {column.title: theme.column(column.key, column.title) for column in COSTS}
    return ", ".join(titles.get(one, one) for one in record["on_front"].split(", "))


def accuracy_conclusion(
    grid: list[tuple[str, list[dict[str, Any]]]], attributes: list[str], theme: Theme
) -> str:
    """One or two sentences that interpret the table of accuracies.

    Args:
        grid: (method, cells), with one cell per attribute, as the page shows them.
        attributes: of the cells.
        theme: how methods and attributes are written.
    """
    found = []
    for place, attribute in enumerate(attributes):
        leaders = [method for method, cells in grid if cells[place]["leads"]]
        best = [theme.method(method) for method, cells in grid if cells[place]["best"]]
        if best:
            text = ", ".join(best)
        elif leaders:
            names = ", ".join(map(theme.method, leaders))
            text = f"none, as {names} {'is' if len(leaders) == 1 else 'are'} not clear of a floor"
        else:
            text = "none, as no method is worse"
        found.append(f"{theme.attribute(attribute)}: {text}")
    conclusion = f"Best methods, with those not significantly worse (bold): {'; '.join(found)}."
    rivals = [cells for method, cells in grid if not theme[method].floor]
    done = [cell for cells in rivals for cell in cells if cell["status"] == "done"]
    # Without floors, or with only floors, there is no comparison.
    if len(rivals) == len(grid) or not done:
        return conclusion
    floors = [method for method, _ in grid if theme[method].floor]
    counts = []
    for floor in sorted(floors):
        reached = sum(floor in cell["cell"].floors for cell in done)
        counts.append(f"{reached} not clear of {theme.method(floor)}")
    return f"{conclusion} Of {len(done)} numbers, {', '.join(counts)}."


def _row(record: dict, columns: list[Column]) -> dict[str, Any]:
    return {**record, "cells": [cell(record, column) for column in columns], "marks": marks(record)}


def _mean_row(
    record: dict,
    columns: list[Column],
    accuracy: Column,
    leaders: Collection[str],
) -> dict[str, Any]:
    """A row of means. What they are over, and why one is missing, is below the table."""
    accuracy_cell = replace(cell(record, accuracy), mark="")
    return {
        **record,
        "cells": [replace(cell(record, column), mark="") for column in columns],
        "accuracy_cell": accuracy_cell,
        "accuracy_best": is_bold(accuracy_cell, record["method"] in leaders),
        "marks": marks(record),
    }


def _grid_cell(record: dict | None, leads: bool, accuracy: Column) -> dict[str, Any]:
    if record is None:
        return {
            "cell": Cell(MISSING),
            "leads": False,
            "best": False,
            "status": "",
            "state": MISSING,
            "reason": "not run",
        }
    value = cell(record, accuracy)
    if not_learned(record):
        value = replace(value, tag=NOT_LEARNED)
    elif record["no_control"]:
        value = replace(value, tag=state_of(record))
    return {
        "cell": value,
        "leads": leads,
        "best": is_bold(value, leads),
        "status": record["status"],
        "state": state_of(record),
        "reason": record["reason"],
    }


def _share(which: pd.Series) -> str:
    if which.all():
        return "All runs were"
    # A row may pool several runs, so rows are counted.
    count = int(which.sum())
    return f"{count} of {len(which)} rows of the tables {'was' if count == 1 else 'were'}"
