"""Sentences on runs whose numbers mean less than they seem to, from what their provenance says.

Terminal, Markdown, page and `editbench check` print the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from editbench.figures.theme import Theme
from editbench.report.cells import number
from editbench.report.load import Results
from editbench.stats.agreement import SLIGHT, contradicted, foreign

# A note on every run of a sweep would fill the screen.
NAMED = 6  # runs that a note names


def doubts(results: Results, theme: Theme) -> list[str]:
    """`not_finite`, `contradictions` and `foreign_logits`, those that there are."""
    return [
        *not_finite(results, theme),
        *contradictions(results, theme),
        *foreign_logits(results, theme),
    ]


def not_finite(results: Results, theme: Theme) -> list[str]:
    """One sentence on the runs in which walks became NaN or infinite, or none.

    Args:
        results: of any settings; records of earlier versions do not say it.
        theme: how methods and attributes are written.
    """
    found = []
    for run in results.runs.to_dict("records"):
        every = _provenance(results, run)
        count = sum(one.get("walks_not_finite") or 0 for one in every)
        if count:
            starts = sum(one["starts"] for one in every if "walks_not_finite" in one)
            name = f"{theme.method(run['label'])} on {theme.attribute(run['attribute'])}"
            found.append(f"{name} {count:,} of {starts:,}")
    if not found:
        return []
    return [
        "Walks became NaN or infinite, which counts as a failure where they had not crossed: "
        f"{listed(found)}."
    ]


def contradictions(results: Results, theme: Theme) -> list[str]:
    """One sentence on the attributes on which teacher and judge contradict each other, or none.

    Args:
        results: of any settings.
        theme: how attributes and worlds are written.
    """
    found: dict[str, None] = {}
    for run in results.runs.to_dict("records"):
        for made in _provenance(results, run):
            for name, kappa in contradicted(made.get("agreement") or {}).items():
                world = theme.world(str(run["generator"]))
                # The runs of a world tell the same.
                found[f"{theme.attribute(name)} in {world} (κ {number(kappa, 2)})"] = None
    if not found:
        return []
    return [
        f"Teacher and judge agree hardly more than chance, or less (Cohen's κ at most {SLIGHT:g}): "
        f"{listed(list(found))}. What a method learns of such an attribute is not what it is judged "
        "by."
    ]


def foreign_logits(results: Results, theme: Theme) -> list[str]:
    """One sentence on imported logits that are not those of the runs' scorers, or none.

    Args:
        results: of any settings.
        theme: how attributes are written.
    """
    found: dict[str, None] = {}
    for run in results.runs.to_dict("records"):
        for made in _provenance(results, run):
            for (role, name), share in foreign(made.get("imported_agreement") or {}).items():
                found[f"{theme.attribute(name)} of the {role} ({share:.0%} equal classes)"] = None
    if not found:
        return []
    return [
        f"The logits of an imported bank are not those of the scorer: {listed(list(found))}. Starts "
        "and labels are then of another boundary than the edits are judged by."
    ]


def listed(items: Sequence[str]) -> str:
    """The first NAMED items, and how many more there are."""
    more = f"; and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return "; ".join(items[:NAMED]) + more


def _provenance(results: Results, run: Mapping[Any, Any]) -> list[dict]:
    """What the records behind a row of `results.runs` say; several where seeds are pooled."""
    found = []
    for run_id in run["run_ids"]:
        if run_id in results.provenance:
            found.append(results.provenance[run_id])
    return found
