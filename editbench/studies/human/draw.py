"""Which pairs are shown, on which side and in which order: all drawn from the seed, nothing from
the methods' names.
"""

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
    """Two methods (a before b in the alphabet) on one start, each at its own first crossing."""

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

    Only starts that both methods brought to the target, and whose pictures can be had, are drawn,
    without replacement. A pair with too few of them gives what it has: its count says so.

    Args:
        edits: of the runs, with their usable starts.
        pairs: comparisons an attribute.
        seed: of the draws.

    Returns:
        The comparisons, and the counts behind every pair of methods: starts that both have, that
        both crossed, with pictures, asked for and drawn.

    Raises:
        EditbenchError: nothing can be compared, or two methods walk a start to different classes.
    """
    drawn: list[MethodComparison] = []
    counts: list[dict] = []
    # Sorted, since a set has no order and comparisons are numbered.
    for attribute in sorted({one.attribute for one in edits}):
        runs = {one.label: one for one in edits if one.attribute == attribute}
        couples = list(combinations(sorted(runs), 2))
        # What is left after an even share goes to pairs by lot, not to the first in the alphabet.
        extra = seeding.rng(seed, "human spread", attribute).permutation(len(couples))
        for k, (a, b) in enumerate(couples):
            quota = pairs // len(couples) + int(extra[k] < pairs % len(couples))
            one = runs[a]
            two = runs[b]
            usable = sorted(one.usable & two.usable)
            # A stream of its own, so that other pairs do not change the order of this one's starts.
            rng = seeding.rng(seed, "human starts", attribute, a, b)
            # No start twice: that would be a repeat which is not counted as one.
            picked = sorted(rng.permutation(usable)[:quota].tolist()) if usable else []
            counts.append(
                {
                    "attribute": attribute,
                    "a": a,
                    "b": b,
                    "shared_starts": len(set(one.walks.index) & set(two.walks.index)),
                    "both_crossed": len(one.crossed & two.crossed),
                    "with_pictures": len(usable),
                    "asked": quota,
                    "drawn": len(picked),
                }
            )
            for start in picked:
                drawn.append(_comparison(f"c{len(drawn):05d}", int(start), one, two))
    if not drawn:
        raise EditbenchError(
            "nothing can be compared: there is no start that two methods bring to the target and "
            "that has images. "
            + " ".join(
                f"{one.label} on {one.attribute}: {len(one.crossed)} of "
                f"{len(one.walks)} crossed, images: {one.pictures}."
                for one in edits
            )
        )
    return drawn, counts


def _comparison(name: str, start: int, one: Edits, two: Edits) -> MethodComparison:
    way, other = (tuple(run.walks.loc[start, ["source", "target"]]) for run in (one, two))
    # Opposite directions of a binary attribute are different tasks.
    if way != other:
        raise EditbenchError(
            f"{one.label} and {two.label} walk start {start} of {one.attribute} towards different "
            "classes, so they cannot be compared"
        )
    return MethodComparison(
        name,
        one.attribute,
        start,
        one.classes[way[0]],
        one.classes[way[1]],
        one.label,
        two.label,
    )


def questions(drawn: list[MethodComparison], name: str, share: float, seed: int) -> list[Question]:
    """One page's questions in their order.

    Every pair of methods on an attribute stands on either side equally often (give or take one). A
    share of the comparisons, rounded up, comes twice, with swapped sides and at least half a page
    apart.

    Args:
        drawn: the comparisons of the page.
        name: of the page.
        share: of the comparisons that come twice, at most 0.5.
        seed: of order and sides.
    """
    n = len(drawn)
    # The name of the page is in the stream, so that each has an order and sides of its own.
    rng = seeding.rng(seed, "human page", name)
    swapped = _sides(drawn, rng)
    order = rng.permutation(n)
    # 1e-9 less, as 0.07 * 100 is 7.000000000000001 in floating point.
    repeats = math.ceil(share * n - 1e-9)
    ids = _ids(n + repeats, rng)
    first = []
    for place, row in enumerate(order.tolist()):
        one = drawn[row]
        left, right = (one.b, one.a) if swapped[row] else (one.a, one.b)
        first.append(Question(ids[place], one, left, right))
    # Repeats that come before place k of the first showings.
    slots: list[list[Question]] = [[] for _ in range(n + 1)]
    # Only the first half of a page is repeated: of what comes later no place is half a page away.
    for number, place in enumerate(sorted(rng.permutation((n + 1) // 2)[:repeats].tolist())):
        shown = first[place]
        # At least half a page after the first showing, so that a rater cannot answer from memory.
        slots[int(rng.integers(place + n // 2 + 1, n + 1))].append(
            Question(ids[n + number], shown.comparison, shown.right, shown.left, shown.id)
        )
    return [one for place in range(n + 1) for one in slots[place] + first[place : place + 1]]


def _sides(drawn: list[MethodComparison], rng: np.random.Generator) -> np.ndarray:
    """(n,) whether a comparison's methods change sides: half of each pair on each attribute."""
    swapped = np.zeros(len(drawn), bool)
    groups: dict[tuple[str, str, str], list[int]] = {}
    for row, one in enumerate(drawn):
        groups.setdefault((one.attribute, one.a, one.b), []).append(row)
    for rows in groups.values():
        # With an odd number the side that gets one more is drawn too.
        half = np.arange(len(rows)) % 2 == int(rng.integers(2))
        swapped[rows] = rng.permutation(half)
    return swapped


def _ids(count: int, rng: np.random.Generator) -> list[str]:
    """Names that say nothing: drawn, different, in no order."""
    # A dictionary keeps the order of the draws, which a set would not.
    found: dict[str, None] = {}
    while len(found) < count:
        found[f"q{rng.integers(16**10):010x}"] = None
    return list(found)
