"""Why a number is far from its paper's: a sentence based on the provenance of the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from editbench.report.cells import capitalised


def explain(made: Mapping[str, Any], attribute: str, paper: Mapping[str, Any]) -> str:
    """A sentence about how a run differs from the paper's setting; '' if nothing is known.

    Args:
        made: provenance of the run. The keys used are `learned` (AUC of what the method learnt),
            the note `examples.ATTRIBUTE` of the fit (examples of each class), `start_distance`
            (`target` and `nearest_other`: medians over the starts, in σ) and `resolution` (pixels).
        attribute: the edited attribute.
        paper: the `published` block of the experiment; its `resolution` (pixels) is used.
    """
    facts = [
        _learned(made.get("learned"), _examples(made, attribute)),
        _starts(made.get("start_distance")),
        _resolution(made.get("resolution"), paper.get("resolution")),
    ]
    text = "; ".join(fact for fact in facts if fact)
    return f"{capitalised(text)}." if text else ""


def is_far(published: object, value: float, low: float, high: float) -> bool:
    """Whether a paper's number is outside the interval of the measured one.

    Args:
        published: the paper's number; a word such as 'x' is never far.
        value: the measured number.
        low: lower end of its interval; without an interval, any different number is far.
        high: upper end.
    """
    if isinstance(published, bool) or not isinstance(published, int | float):
        return False
    if not math.isfinite(value):
        return False
    if math.isfinite(low) and math.isfinite(high):
        return not low <= published <= high
    return published != value


def _examples(made: Mapping[str, Any], attribute: str) -> list[int]:
    """Numbers of examples of each class, from the notes of the fit; [] if unknown."""
    notes = made.get("method_notes")
    found = notes.get(f"examples.{attribute}") if isinstance(notes, Mapping) else None
    # For other methods, the note may be anything.
    if not isinstance(found, Sequence) or isinstance(found, str):
        return []
    return [size for size in found if isinstance(size, int)]


def _learned(given: object, examples: Sequence[int]) -> str:
    auc = _number(given)
    if auc is None:
        return ""
    text = ""
    if examples:
        few = min(examples)
        many = max(examples)
        count = f"{few}" if few == many else f"{few} to {many}"
        text = f" ({count} examples per class)"
    return f"what it learned ranks held-out samples with an AUC of {auc:.2f}{text}"


def _starts(distance: object) -> str:
    """A phrase about the distance of the starts from the boundaries, if the record has it."""
    if not isinstance(distance, Mapping):
        return ""
    target = _number(distance.get("target"))
    if target is None:
        return ""
    text = f"the median distance of the starts is {target:.2f} σ from the boundary"
    other = _number(distance.get("nearest_other"))
    if other is not None:
        text += f" and {other:.2f} σ from the nearest other boundary"
    return text


def _resolution(given: object, paper: object) -> str:
    here = _number(given)
    there = _number(paper)
    if here is None or there is None or here == there:
        return ""
    return f"its images have {here:g}×{here:g} pixels, those of the paper {there:g}×{there:g}"


def _number(value: object) -> float | None:
    """The value if it is a finite number, else None. Records may be written by other programs."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
