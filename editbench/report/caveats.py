"""Warnings about runs whose numbers are less reliable than they seem, from their provenance.

The terminal, Markdown, LaTeX, the page and `editbench check` print the same sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from editbench.bank.spec import NEARBY
from editbench.figures.theme import Theme
from editbench.report.cells import number, spread
from editbench.report.load import Results
from editbench.run.caveats import Caveats, caveats_of
from editbench.stats.agreement import SLIGHT

# Naming every run of a sweep would fill the screen.
NAMED = 6  # number of runs that a note names


def caveats(results: Results, theme: Theme) -> list[str]:
    """The sentences of the functions below.

    Args:
        results: of any settings.
        theme: how methods and attributes are written.

    Returns:
        Plain text, one sentence an element; empty if nothing is doubtful.
    """
    return [
        *far_starts(results, theme),
        *not_finite(results, theme),
        *contradictions(results, theme),
        *single_classes(results, theme),
        *foreign_logits(results, theme),
    ]


def far_starts(results: Results, theme: Theme) -> list[str]:
    """At most one sentence, about runs whose starts should be near a boundary but are far from it.

    Args:
        results: of any settings.
        theme: how attributes are written.
    """
    far: dict[str, set[float]] = {}
    for run, every in _by_run(results):
        for one in every:
            # Without a second class no bank brings the starts closer: see `single_classes`.
            if one.far is not None and run["attribute"] not in one.single_class:
                far.setdefault(str(run["attribute"]), set()).add(one.far)
    if not far:
        return []
    # Methods share their starts, but two settings may differ.
    distances = ", ".join(
        f"{spread(far[name])} σ ({theme.attribute(name)})" for name in sorted(far)
    )
    return [
        f"Starts are far from the target's boundary: their median distance is {distances}, and more "
        f"than {NEARBY:g} σ counts as far. A larger bank, a smaller starts.pool or starts.near=target "
        "brings them closer."
    ]


def not_finite(results: Results, theme: Theme) -> list[str]:
    """At most one sentence, about runs in which walks became NaN or infinite.

    Args:
        results: of any settings; records of earlier versions lack this information.
        theme: how methods and attributes are written.
    """
    found = []
    several = results.runs["setting"].nunique() > 1
    for run, every in _by_run(results):
        count = sum(one.not_finite for one in every)
        if count:
            walks = sum(one.walks for one in every)
            name = f"{theme.method(run['label'])} on {theme.attribute(run['attribute'])}"
            if several:
                name += f" ({run['setting']})"
            found.append(f"{name} {count:,} of {walks:,}")
    if not found:
        return []
    return [
        "Some walks became NaN or infinite; those that had not crossed before count as failures: "
        f"{listed(found)}."
    ]


def contradictions(results: Results, theme: Theme) -> list[str]:
    """At most one sentence, about attributes on which teacher and judge contradict each other.

    Args:
        results: of any settings.
        theme: how attributes and worlds are written.
    """
    found: dict[str, None] = {}
    for world, one in _with_worlds(results, theme):
        for name, kappa in one.contradicted.items():
            # All runs of a world have the same value.
            found[f"{theme.attribute(name)} in {world} (κ {number(kappa, 2)})"] = None
    if not found:
        return []
    return [
        f"Teacher and judge agree hardly more than by chance (Cohen's κ of {SLIGHT:g} or less): "
        f"{listed(list(found))}. On such an attribute, what a method learns from the teacher is not "
        "what the judge measures."
    ]


def single_classes(results: Results, theme: Theme) -> list[str]:
    """At most one sentence, about attributes of which the bank shows a single class.

    Args:
        results: of any settings.
        theme: how attributes and worlds are written.
    """
    found: dict[str, None] = {}
    for world, one in _with_worlds(results, theme):
        for name in one.single_class:
            found[f"{theme.attribute(name)} in {world}"] = None
    if not found:
        return []
    return [
        "Teacher and judge give all samples of the bank one and the same class: "
        f"{listed(list(found))}. Nothing can be learned about such an attribute, and no start is "
        "near its boundary: look at the classifiers with `editbench scorer check`."
    ]


def foreign_logits(results: Results, theme: Theme) -> list[str]:
    """At most one sentence, about imported logits that are not those of the runs' scorers.

    Args:
        results: of any settings.
        theme: how attributes are written.
    """
    found: dict[str, None] = {}
    for _, every in _by_run(results):
        for one in every:
            for (role, name), share in one.foreign.items():
                found[f"{theme.attribute(name)} of the {role} ({share:.0%} same class)"] = None
    if not found:
        return []
    return [
        f"The logits of an imported bank are not those of the scorer: {listed(list(found))}. Starts "
        "and labels then refer to a different boundary than the one that edits are judged by."
    ]


def listed(items: Sequence[str]) -> str:
    """The first NAMED items, and the number of others."""
    more = f"; and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return "; ".join(items[:NAMED]) + more


def _by_run(results: Results) -> Iterator[tuple[Mapping[Any, Any], list[Caveats]]]:
    """Each row of `results.runs`, with the caveats of its records (one per pooled seed)."""
    for run in results.run_records:
        made = [results.provenance[one] for one in run["run_ids"] if one in results.provenance]
        yield run, [caveats_of(one) for one in made]


def _with_worlds(results: Results, theme: Theme) -> Iterator[tuple[str, Caveats]]:
    """The title of the world of each record, and the caveats of the record."""
    for run, every in _by_run(results):
        world = theme.world(str(run["generator"]))
        for one in every:
            yield world, one
