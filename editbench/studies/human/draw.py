"""The random draw of comparisons, of their sides, and of their order on a page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from editbench.base import seeding
from editbench.base.errors import EditbenchError
from editbench.studies.human.edits import Edits


@dataclass(frozen=True)
class MethodComparison:
    """Two methods (a before b in the alphabet) on one start, each at its first crossing."""

    id: str
    attribute: str
    start: int
    source: str
    target: str
    a: str
    b: str


@dataclass(frozen=True)
class Question:
    """A comparison as one page shows it."""

    id: str
    comparison: MethodComparison
    left: str  # method
    right: str
    duplicate_of: str | None = None  # the question that it repeats with swapped sides


def comparisons(
    edits: list[Edits], pairs: int, seed: int
) -> tuple[list[MethodComparison], list[dict]]:
    """Draw the comparisons of every attribute, spread evenly over its pairs of methods.

    Starts are drawn without replacement from those that cross under both methods and have pictures.
    If a pair has too few of them, it gets fewer comparisons, which its counts show.

    Args:
        edits: of the runs, with their usable starts.
        pairs: number of comparisons per attribute.
        seed: of the draws.

    Returns:
        The comparisons, and for every pair of methods the numbers of starts that both have, that
        cross under both, that have pictures, that were requested, and that were drawn.

    Raises:
        EditbenchError: nothing can be compared, or two methods walk a start to different classes.
    """
    drawn: list[MethodComparison] = []
    counts: list[dict] = []
    # Sorted, since comparisons are numbered and a set has no order.
    for attribute in sorted({run.attribute for run in edits}):
        runs = {run.label: run for run in edits if run.attribute == attribute}
        couples = list(combinations(sorted(runs), 2))
        # The remainder after an even distribution goes to randomly chosen pairs.
        extra = seeding.rng(seed, "human spread", attribute).permutation(len(couples))
        for k, (a, b) in enumerate(couples):
            quota = pairs // len(couples) + int(extra[k] < pairs % len(couples))
            first = runs[a]
            second = runs[b]
            usable = sorted(first.usable & second.usable)
            # A separate random stream, so that the draw does not depend on other pairs.
            rng = seeding.rng(seed, "human starts", attribute, a, b)
            # Without replacement: a start that is drawn twice would be an uncounted repeat.
            picked = sorted(rng.permutation(usable)[:quota].tolist()) if usable else []
            counts.append(
                {
                    "attribute": attribute,
                    "a": a,
                    "b": b,
                    "shared_starts": len(set(first.walks.index) & set(second.walks.index)),
                    "both_crossed": len(first.crossed & second.crossed),
                    "with_pictures": len(usable),
                    "asked": quota,
                    "drawn": len(picked),
                }
            )
            for start in picked:
                drawn.append(_comparison(f"c{len(drawn):05d}", int(start), first, second))
    if not drawn:
        raise EditbenchError(
            "nothing can be compared: there is no start that two methods bring to the target and "
            "that has images. "
            + " ".join(
                f"{run.label} on {run.attribute}: {len(run.crossed)} of "
                f"{len(run.walks)} crossed, images: {run.pictures}."
                for run in edits
            )
        )
    return drawn, counts


def _comparison(name: str, start: int, first: Edits, second: Edits) -> MethodComparison:
    """Compare the edits of two runs of one attribute on one start.

    Args:
        name: id of the comparison.
        start: bank index.
        first: run of the method that comes first in the alphabet.
        second: the other run.

    Raises:
        EditbenchError: the two methods walk the start to different classes.
    """
    source, target = _source_and_target(first, start)
    # Opposite directions of a binary attribute are different tasks.
    if (source, target) != _source_and_target(second, start):
        raise EditbenchError(
            f"{first.label} and {second.label} walk start {start} of {first.attribute} towards different "
            "classes, so they cannot be compared"
        )
    return MethodComparison(
        name,
        first.attribute,
        start,
        first.classes[source],
        first.classes[target],
        first.label,
        second.label,
    )


def _source_and_target(run: Edits, start: int) -> tuple[int, int]:
    """The classes that a start has and is walked to."""
    (walk,) = run.walks.loc[[start]].to_dict("records")
    return walk["source"], walk["target"]


def questions(drawn: list[MethodComparison], name: str, share: float, seed: int) -> list[Question]:
    """One page's questions in their order.

    For every pair of methods on an attribute, each method is on the left equally often, up to one.
    A share of the comparisons, rounded up, is shown twice, with swapped sides and at least half a
    page apart.

    Args:
        drawn: the comparisons of the page.
        name: of the page.
        share: of the comparisons that are shown twice, at most 0.5.
        seed: of order and sides.
    """
    n = len(drawn)
    # The stream depends on the page, so that each page has another order and other sides.
    rng = seeding.rng(seed, "human page", name)
    swapped = _sides(drawn, rng)
    order = rng.permutation(n)
    # Minus 1e-9, since 0.07 * 100 is 7.000000000000001 in floating point.
    repeats = math.ceil(share * n - 1e-9)
    ids = _ids(n + repeats, rng)
    first = []
    for place, row in enumerate(order.tolist()):
        one = drawn[row]
        left, right = (one.b, one.a) if swapped[row] else (one.a, one.b)
        first.append(Question(ids[place], one, left, right))
    # slots[k] has the repeats that come before position k of the first showings.
    slots: list[list[Question]] = [[] for _ in range(n + 1)]
    # Only the first half is repeated, since later positions have no room half a page after them.
    for number, place in enumerate(sorted(rng.permutation((n + 1) // 2)[:repeats].tolist())):
        shown = first[place]
        # At least half a page later, so that a rater does not answer from memory.
        slots[int(rng.integers(place + n // 2 + 1, n + 1))].append(
            Question(ids[n + number], shown.comparison, shown.right, shown.left, shown.id)
        )
    return [one for place in range(n + 1) for one in slots[place] + first[place : place + 1]]


def _sides(drawn: list[MethodComparison], rng: np.random.Generator) -> np.ndarray:
    """(n,) bool, whether the methods swap sides: for half of each pair on each attribute."""
    swapped = np.zeros(len(drawn), bool)
    groups: dict[tuple[str, str, str], list[int]] = {}
    for row, one in enumerate(drawn):
        groups.setdefault((one.attribute, one.a, one.b), []).append(row)
    for rows in groups.values():
        # With an odd number, it is random which side gets one more.
        half = np.arange(len(rows)) % 2 == int(rng.integers(2))
        swapped[rows] = rng.permutation(half)
    return swapped


def _ids(count: int, rng: np.random.Generator) -> list[str]:
    """Random, distinct ids that reveal nothing about the questions."""
    # A dictionary, since it keeps the order of the draws.
    found: dict[str, None] = {}
    while len(found) < count:
        found[f"q{rng.integers(16**10):010x}"] = None
    return list(found)
