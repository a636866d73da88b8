"""Reasons to doubt the numbers of a run, taken from its provenance.

The printed line of a run names them in a few words (`remarks`), since the same doubt may concern
every line of a sweep. The report explains them and names remedies: `editbench.report.caveats`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from editbench.stats.agreement import contradicted, foreign, single_class


class Caveats(NamedTuple):
    """Reasons to doubt the numbers of one run.

    Attributes:
        far: median distance of the starts from the target attribute's boundary, in sigmas; None if
            the starts are near enough.
        not_finite: number of walks that became NaN or infinite.
        walks: number of all walks; 0 in records of earlier versions, which do not count them.
        contradicted: attribute -> Cohen's kappa, for attributes on which teacher and judge agree
            hardly more than by chance.
        single_class: attributes of which teacher and judge see one and the same class in the whole
            bank.
        foreign: (role, attribute) -> share of equal classes, if the logits of an imported bank do
            not match those of the run's scorer.
    """

    far: float | None
    not_finite: int
    walks: int
    contradicted: dict[str, float]
    single_class: tuple[str, ...]
    foreign: dict[tuple[str, str], float]


def caveats_of(made: Mapping[str, Any]) -> Caveats:
    """The caveats of a run.

    Args:
        made: the provenance of its record; one of an earlier version lacks some keys.
    """
    far = float(made["start_distance"]["target"]) if made.get("start_warning") else None
    walks = int(made["starts"]) if "walks_not_finite" in made else 0
    return Caveats(
        far=far,
        not_finite=made.get("walks_not_finite") or 0,
        walks=walks,
        contradicted=contradicted(made.get("agreement") or {}),
        single_class=single_class(made.get("agreement") or {}),
        foreign=foreign(made.get("imported_agreement") or {}),
    )


def remarks(made: Mapping[str, Any]) -> list[str]:
    """The caveats of a run in a few words each.

    Args:
        made: the provenance of its record.
    """
    caveats = caveats_of(made)
    found = []
    if caveats.far is not None:
        found.append(f"starts {caveats.far:.2f} sigma from the boundary")
    if caveats.not_finite:
        found.append(f"{caveats.not_finite} of {caveats.walks} walks not finite")
    for name, kappa in caveats.contradicted.items():
        found.append(f"teacher and judge disagree on {name}: kappa {kappa:.2f}")
    for name in caveats.single_class:
        found.append(f"a single class of {name} in the bank")
    for (role, name), share in caveats.foreign.items():
        found.append(
            f"logits of {name} in the bank are from another {role}: {share:.0%} same class"
        )
    return found
