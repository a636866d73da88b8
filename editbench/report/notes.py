"""The sentences of a report: titles of settings, and the lines below tables.

The terminal, Markdown, the page and LaTeX share these sentences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from editbench.figures.theme import Theme
from editbench.report.caveats import NAMED
from editbench.report.cells import (
    COLUMNS,
    HIDDEN,
    LEAST_LEARNED,
    NOT_LEARNED,
    floor_marks,
    floors_of_cell,
    marks,
    not_learned,
)
from editbench.report.load import Results
from editbench.report.means import counted, describe_means
from editbench.report.numbers import Numbers
from editbench.report.style import Style
from editbench.report.tables import ABOVE_FLOOR, AT_EFFECT, quantities

# The biased metrics, about which the legend warns.
FRECHET = ("frechet_distance_up", "frechet_distance_down", "fid_up", "fid_down")
FLOOR_RULE = (
    "a number is not clear of a floor if its 95 % interval overlaps that of the floor, or lies on its "
    "wrong side"
)
# Part of the explanation of bold; FLOOR_RULE defines what is not clear.
NEVER_BOLD = "Floors, and values that are not clear of a floor, are never bold."
NOT_LEARNED_MEANS = (
    f"{NOT_LEARNED}: what the method learned ranks the tune split with an AUC below "
    f"{LEAST_LEARNED:g} (0.5 is chance), so its accuracy says little about the method"
)
NO_CONTROL = "no control"
NO_CONTROL_MEANS = (
    f"{NO_CONTROL}: the method's search found no edit that changes the attribute enough; accuracy and "
    "success count it as a failure on every start, also in the means"
)
OVER_CROSSED = ("off_target_flips", "path_length")  # columns over only the starts that crossed
TITLES = {column.key: column.title for column in COLUMNS}

# Student's t distribution with one degree of freedom has a 97.5 % quantile of 12.7; with two it is
# 4.3, and with four 2.8.
TWO_SEEDS = (
    "two seeds: the spread over them has one degree of freedom, so the intervals are wide, and the "
    "paired tests separate these methods from hardly any other; run three seeds or more"
)


def world_of(numbers: Numbers, theme: Theme) -> str:
    """The title of a setting's generator.

    Args:
        numbers: of one setting, with at least one row.
        theme: how worlds are written.
    """
    return theme.world(str(numbers.table["generator"].iloc[0]))


def setting_title(numbers: Numbers, theme: Theme) -> str:
    """'Cartoon faces: starts.n 40': the world, and how the setting differs from others in it.

    Args:
        numbers: of one setting.
        theme: how worlds are written.
    """
    world = str(numbers.table["generator"].iloc[0])
    # If there are several worlds, the name of a setting begins with its world.
    rest = numbers.name.removeprefix(world).removeprefix(", ")
    return f"{world_of(numbers, theme)}: {rest}" if rest else world_of(numbers, theme)


def floors_of(table: pd.DataFrame, theme: Theme) -> list[str]:
    """The titles of the floors in a `main_table`, sorted by the names of their methods.

    Args:
        table: `main_table`.
        theme: how methods are written.
    """
    return [theme.method(name) for name in sorted(set(table.loc[table["floor"], "method"]))]


def floor_legend(floors: Mapping[str, str], theme: Theme) -> str:
    """What the marks of floors mean: 'ᵃ: not clear of Random direction; ᵇ: ... (a number is ...)'.

    Args:
        floors: floor -> mark.
        theme: how methods are written.
    """
    meanings = [f"{mark}: not clear of {theme.method(name)}" for name, mark in floors.items()]
    return f"{'; '.join(meanings)} ({FLOOR_RULE})."


class Missed(NamedTuple):
    """The quality criteria that the card of a world misses.

    Attributes:
        summary: how many, as a sentence without a full stop.
        criteria: each missed criterion with its value.
    """

    summary: str
    criteria: tuple[str, ...]


def missed_cards(results: Results) -> list[Missed]:
    """The missed criteria of each world whose card misses any."""
    # A set, since the runs of a world usually have the same card. Two runs of the same world may
    # have different cards, if it was trained again.
    found = set()
    for run in results.run_records:
        card = results.provenance.get(run["run_id"], {}).get("world_card") or {}
        if card.get("missed"):
            summary = (
                f"The world {run['generator']} misses {len(card['missed'])} of the {card['bars']} "
                "quality criteria of its card (docs/world.md explains what this means for the "
                "numbers)"
            )
            found.add(Missed(summary, tuple(card["missed"])))
    return sorted(found)


def over_starts(table: pd.DataFrame, theme: Theme, style: Style) -> str:
    """What each row of the main table is over: its number of starts and seeds.

    Args:
        table: `main_table` of one setting.
        theme: how columns are written.
        style: which columns are shown; others are not mentioned.
    """
    counts = sorted(set(table["n"].dropna().astype(int)))
    # If nothing was done, the lines below give the reasons.
    if not counts:
        return "no run has finished"
    n = counted(counts[-1], "start")
    if len(counts) > 1:
        n = f"{counts[0]:,} to {n}"
    seeds = sorted(set(table.loc[table["status"] == "done", "seeds"]))
    *few, most = map(str, seeds)
    several = f"{', '.join(few)} or {most}" if few else most
    pooled = f" and {several} seeds (interval over both)" if seeds[-1] > 1 else ", one seed"
    # A number that no run measured has an empty column.
    known = [key for key in (*OVER_CROSSED, AT_EFFECT) if table[key].notna().any()]
    shown = [key for key in known if style.shows(key)]
    crossed = [title_of(key, theme) for key in OVER_CROSSED if key in shown]
    others = []
    if crossed:
        others.append(f"{' and '.join(crossed)}: over the starts that crossed")
    if AT_EFFECT in shown:
        each = " with every seed" if seeds[-1] > 1 else ""
        title = title_of(AT_EFFECT, theme)
        others.append(f"{title}: over the starts that reach its effect{each}")
    return "; ".join([f"each row: mean over {n}{pooled}", *others])


def title_of(key: str, theme: Theme) -> str:
    """The title of a column.

    Args:
        key: of the column. It is the title itself if the column is not one of COLUMNS.
        theme: may have another title for it.
    """
    return theme.column(key, TITLES.get(key, key))


def run_notes(numbers: Numbers, theme: Theme, style: Style) -> list[str]:
    """The lines below the main table: criteria that the world misses, what rows are over, floors.

    Args:
        numbers: of one setting.
        theme: how methods and columns are written.
        style: which columns are shown; others are not mentioned.
    """
    missed = missed_cards(numbers.results)
    notes = [f"{card.summary}: {'; '.join(card.criteria)}." for card in missed]
    notes.append(over_starts(numbers.table, theme, style))
    if floors := floors_of(numbers.table, theme):
        notes.append(f"{'floors' if len(floors) > 1 else 'floor'}: {', '.join(floors)}")
    # Only marks that are in the tables are explained.
    records = [*numbers.table.to_dict("records"), *numbers.means.to_dict("records")]
    shown = [key for key in ABOVE_FLOOR if style.shows(key)]
    reached = {name for key in shown for one in records for name in floors_of_cell(one, key)}
    marked = {name: mark for name, mark in floor_marks(numbers.floors).items() if name in reached}
    if marked:
        notes.append(floor_legend(marked, theme))
    return notes


def means_notes(numbers: Numbers, theme: Theme, style: Style) -> list[str]:
    """The lines below the table of means, about the numbers that the tables show.

    Args:
        numbers: of one setting.
        theme: how methods and attributes are written.
        style: which columns are shown. The lines about accuracy are always there.
    """
    shown = []
    for key, compared in numbers.compared.items():
        # Always for accuracy, which the ranking shows and whose attributes other means use.
        if key == "accuracy" or (compared.measured and style.shows(key)):
            shown.append(compared)
    return describe_means(shown, theme)


def legend(table: pd.DataFrame, results: Results, theme: Theme, style: Style) -> list[str]:
    """The meanings of the marks in the table.

    Args:
        table: `main_table`.
        results: the same records.
        theme: how methods and attributes are written.
        style: which columns are shown; others are not mentioned.
    """
    # A dictionary, so that each mark is explained once.
    found = dict(mark for record in table.to_dict("records") for mark in marks(record))
    lines = [f"{name}: {meaning}" for name, meaning in found.items()]
    effects = sorted(set(table["ad_at_effect"].dropna()))
    if effects and style.shows(AT_EFFECT):
        lines.append(
            f"{title_of(AT_EFFECT, theme)}: measured at an achieved effect of "
            f"{', '.join(f'{x:g}' for x in effects)} σ on the target"
        )
    several = table["setting"].nunique() > 1
    # Of accuracy, which the ranking is by. Seeds that give the same number add no variance.
    rows = results.rows[results.rows["metric"] == "accuracy"]
    spread = (rows["seeds"] == 2) & (rows["seed_variance"] > 0)
    two = table[table["run_id"].isin(rows.loc[spread, "run_id"])]
    if len(two):
        lines.append(f"{TWO_SEEDS} ({where(two, theme, several)})")
    if (table["no_control"] > 0).any():
        lines.append(NO_CONTROL_MEANS)
    # Rows of skipped and failed runs show their status in place of numbers.
    done = table[table["status"] == "done"]
    weak = any(not_learned(record) for record in done.to_dict("records"))
    if weak and style.shows("learned"):
        lines.append(NOT_LEARNED_MEANS)
    # Columns without a number need no warning.
    chosen = {key: one for key, one in quantities(results).items() if style.shows(key)}
    distances = [key for key, one in chosen.items() if one.metric in FRECHET and key in table]
    if any(table[key].notna().any() for key in distances):
        lines.append(
            "Fréchet distance, FID: computed from n images they are biased upwards, the more so the "
            "more the images vary; the kernel distance (table.csv and figures) has no such bias"
        )
    noted = [f"{key}_note" for key, one in chosen.items() if one.metric not in HIDDEN]
    # In the order of the table's columns.
    for key in (name for name in table.columns if name in noted):
        with_note = table[key] != ""
        # Most columns have no notes, and slicing such a wide table takes time.
        if not with_note.any():
            continue
        for note, group in table[with_note].groupby(key):
            name = key.removesuffix("_note")
            lines.append(f"† {title_of(name, theme)}: {note} ({where(group, theme, several)})")
    return lines


def where(group: pd.DataFrame, theme: Theme, several: bool = False) -> str:
    """'method/attribute, ...' for the first rows, and the number of others.

    Args:
        group: rows of `main_table`.
        theme: how methods and attributes are written.
        several: whether the rows are of several settings; if so, the settings are named.
    """
    found = []
    for method, attribute, setting in zip(group["method"], group["attribute"], group["setting"]):
        name = f"{theme.method(method)}/{theme.attribute(attribute)}"
        found.append(f"{name} ({setting})" if several else name)
    return some(found)


def not_done(table: pd.DataFrame, theme: Theme) -> list[str]:
    """Sentences about rows that were skipped or failed, or lack seeds.

    Args:
        table: `main_table`.
        theme: how methods and attributes are written.
    """
    found = []
    several = table["setting"].nunique() > 1
    for row in table[table["reason"] != ""].to_dict("records"):
        state = state_of(row)
        run = f"{theme.method(row['method'])} on {theme.attribute(row['attribute'])}"
        if several:
            run += f" ({row['setting']})"
        found.append(f"{state}: {run}: {row['reason']}")
    return found


def state_of(row: Mapping[Any, Any]) -> str:
    """The state of a row of `main_table` with a reason: its status, or what its seeds lack."""
    if row["status"] == "skipped" and row["no_control"]:
        return NO_CONTROL
    if row["status"] != "done":
        return str(row["status"])
    if row["no_control"]:
        return f"{NO_CONTROL} with {row['no_control']} of {row['seeds']} seeds"
    return f"only {counted(row['seeds'], 'seed')}"


def some(names: list[str]) -> str:
    """The first NAMED names, and the number of others."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
