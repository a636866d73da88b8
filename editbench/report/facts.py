"""What was compared in a setting, as terms with a text, for the page and the comments of LaTeX."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from editbench.figures.theme import Theme
from editbench.report.cells import spread
from editbench.report.load import Results
from editbench.report.notes import some, world_of
from editbench.report.numbers import Numbers


def facts(numbers: Numbers, theme: Theme) -> list[tuple[str, str]]:
    """What was compared: (term, text).

    Args:
        numbers: of one setting.
        theme: how attributes and worlds are written.
    """
    table = numbers.table
    # Without the seeds of a row that failed, which a setting that is alone in its folder still has.
    results = numbers.results.kept(pd.Series(True, numbers.results.runs.index))
    made = list(results.provenance.values())
    seeds = sorted({seed for several in results.runs["seeds"] for seed in several})
    found = [
        ("Generator", world_of(numbers, theme)),
        ("Card", _cards(made)),
        ("Judge", _judges(table)),
        ("Teacher and judge", _agreement(made, theme)),
        ("Bank", _banks(table, made)),
        ("Starts", _starts(table, results)),
        ("Steps", _steps(results, theme)),
        ("Seeds", ", ".join(map(str, seeds))),
        ("Methods", str(table["method"].nunique())),
        ("Attributes", str(table["attribute"].nunique())),
        ("Cells (method and attribute)", _cells(table, results)),
    ]
    # Terms without text are left out.
    return [(term, text) for term, text in found if text.strip()]


def _judges(table: pd.DataFrame) -> str:
    """The judges by name, and whether each scores images or codes."""
    # A set, since the runs of a sweep usually have the same judge.
    found = set()
    for run in table.to_dict("records"):
        what = "latent codes" if run["judged_in"] == "w" else "images"
        found.add(f"{run['scorer'] or 'unnamed'}, scores {what}")
    return "; ".join(sorted(found))


def _banks(table: pd.DataFrame, made: list[dict]) -> str:
    """The banks by name, and their numbers of samples."""
    names = ", ".join(sorted(set(table["bank"]) - {""}))
    # Runs that were skipped or failed have no provenance but that of their fit.
    sizes = spread({one["bank_n"] for one in made if one.get("bank_n")})
    return f"{names} ({sizes} samples)" if sizes else names


def _starts(table: pd.DataFrame, results: Results) -> str:
    """How many starts each attribute has, and how far they are from the boundaries."""
    starts = spread(set(table["n"].dropna()))
    # Without a finished run there are no starts.
    if not starts:
        return ""
    text = f"{starts} per attribute"
    made = results.provenance.values()
    pools = spread({one["pool_threshold"] for one in made if one.get("pool_threshold") is not None})
    if pools:
        text += f"; within {pools} σ of the boundaries"
    if own := _start_distances(results, "target"):
        text += f"; median distance {own} σ from the target's boundary"
    if other := _start_distances(results, "nearest_other"):
        text += f", {other} σ from the nearest other one"
    return text


def _cells(table: pd.DataFrame, results: Results) -> str:
    """How many cells of the main table were done, skipped and failed."""
    counts = table["status"].value_counts()
    # Always in this order, not by frequency.
    states = [state for state in ("done", "skipped", "failed") if state in counts]
    text = ", ".join(f"{counts[state]} {state}" for state in states)
    # Seeds of a method on an attribute are pooled into one cell.
    runs = sum(map(len, results.runs["run_ids"]))
    return f"{text}; {runs} runs" if runs > len(table) else text


def _steps(results: Results, theme: Theme) -> str:
    """Whether methods walked in their own steps or in steps of equal effect."""
    intended = set()
    # Why own steps were walked -> the cells with such runs.
    unreached: dict[str, list[str]] = {}
    for cell in results.run_records:
        own: Counter[str] = Counter()
        # A step is fitted for each run, so one run of a cell may reach the effect and another not.
        for run_id in cell["run_ids"]:
            stride = results.provenance[run_id].get("stride", {"reached": True})
            text = _step_of(results.configs[run_id].get("engine", {}), stride["reached"])
            if stride["reached"]:
                intended.add(text)
            else:
                own[text] += 1
        for text, count in own.items():
            name = f"{theme.method(cell['label'])} on {theme.attribute(cell['attribute'])}"
            runs = len(cell["run_ids"])
            with_seeds = f" with {count} of {runs} seeds" if count < runs else ""
            unreached.setdefault(text, []).append(name + with_seeds)
    exceptions = [f"{some(sorted(names))}: {text}" for text, names in sorted(unreached.items())]
    return "; ".join([*sorted(intended), *exceptions])


def _step_of(engine: Mapping[str, Any], reached: bool) -> str:
    """What a step of a run is.

    Args:
        engine: of the configuration.
        reached: whether the method reaches the effect of a step, if one is set.
    """
    text = "each method's own"
    if engine.get("step_effect"):
        text = f"{engine['step_effect']:g} σ (median effect)"
        if not reached:
            text = f"own steps, as {text} is not reached"
    if engine.get("refine"):
        text += f"; the step that crosses is halved {engine['refine']} times"
    return text


def _cards(made: list[dict]) -> str:
    """How many quality criteria the cards of the worlds meet; '' if no world has a card."""
    found = set()
    for one in made:
        card = one.get("world_card") or {}
        if card:
            reached = card["bars"] - len(card["missed"])
            found.add(f"{reached} of {card['bars']} quality criteria met")
    return "; ".join(sorted(found))


def _agreement(made: list[dict], theme: Theme) -> str:
    """How often teacher and judge predict the same classes over the bank, by attribute."""
    found: dict[str, str] = {}
    for one in made:
        for name, values in (one.get("agreement") or {}).items():
            text = f"{theme.attribute(name)} {values['agreement']:.0%}"
            # Kappa is undefined if both predict the same single class everywhere.
            if values["kappa"] is not None:
                text += f" (κ {values['kappa']:.2f})"
            # All runs of a setting have the same text.
            found.setdefault(name, text)
    if not found:
        return ""
    return f"share of samples with the same class: {', '.join(found.values())}"


def _start_distances(results: Results, key: str) -> str:
    """Range, over the runs, of a median distance of their starts; '' if no run has it.

    Args:
        results: of all runs.
        key: 'target' or 'nearest_other', see editbench.bank.starts.
    """
    found: set[float] = set()
    for made in results.provenance.values():
        value = (made.get("start_distance") or {}).get(key)
        if isinstance(value, int | float):
            found.add(float(value))
    return spread(found)
