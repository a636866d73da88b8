"""Criteria that a world must meet before editors are compared on it, checked on its card.

They concern the measurement and not any editor: latent classifiers must be able to learn the
attributes, starts near a boundary must exist, and the judge must be right.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from editbench.base.errors import BadFile
from editbench.base.files import read_json

# Cards of the worlds in the package.
CARDS = Path(__file__).parent / "faces" / "weights"

LINEAR_AUC = 0.95
FEW_SHOT_AUC = 0.85
FEW_SHOT_AUC_OF = {"age": 0.80}  # many small cues and no large one: harder to learn from 30 faces
NEAR_BOUNDARY = 0.15
JUDGE_ACCURACY = 0.97
AGREEMENT = 0.93
MARGINAL_GAP = 0.10
# Largest Fréchet distance at n = 10,000, as a share of the variance of the judge's features, so that
# it does not depend on their scale.
FRECHET_SHARE = 0.0074


@dataclass(frozen=True)
class Criterion:
    """One number of a card, and the threshold that it must meet.

    Attributes:
        what: description of the number.
        attribute: that it belongs to; '' if it belongs to the whole world.
        value: the number; None if it could not be measured, which counts as missed.
        asked: the threshold.
        at_least: whether the number must be at least the threshold; otherwise at most.
    """

    what: str
    attribute: str
    value: float | None
    asked: float
    at_least: bool = True

    @property
    def passed(self) -> bool:
        if self.value is None:
            return False
        return self.value >= self.asked if self.at_least else self.value <= self.asked

    def as_dict(self) -> dict:
        return asdict(self) | {"passed": self.passed}

    def __str__(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.3f}"
        sense = "at least" if self.at_least else "at most"
        verdict = "" if self.passed else "   MISSED"
        return (
            f"{self.what:<44} {self.attribute:<12} {value:>12}   {sense} {self.asked:.3f}{verdict}"
        )


def criteria(card: dict) -> list[Criterion]:
    """The criteria of a card; those on numbers that it lacks are left out."""
    found = _separability_criteria(card.get("separability", {}).get("W", {}))
    for name, value in card.get("accuracy", {}).get("judge", {}).get("undisputed", {}).items():
        found.append(Criterion("judge right, undisputed label", name, value, JUDGE_ACCURACY))
    for name, value in card["agreement"]["generated"].items():
        found.append(
            Criterion("agreement of teacher and judge on generated images", name, value, AGREEMENT)
        )
    if "marginal_gap" in card:
        found.append(
            Criterion(
                "largest gap of a class share",
                "",
                card["marginal_gap"],
                MARGINAL_GAP,
                at_least=False,
            )
        )
    if "frechet" in card:
        share = card["frechet"]["generated"] / card["frechet"]["variance"]
        found.append(
            Criterion(
                "Fréchet distance, share of the variance", "", share, FRECHET_SHARE, at_least=False
            )
        )
    return found


def _separability_criteria(figures: dict[str, dict]) -> list[Criterion]:
    found = []
    for name, figure in figures.items():
        if name not in FEW_SHOT_AUC_OF:
            found.append(Criterion("AUC in W, all codes", name, figure["linear"], LINEAR_AUC))
        asked = FEW_SHOT_AUC_OF.get(name, FEW_SHOT_AUC)
        found.append(Criterion("AUC in W, 30 examples a class", name, figure["few"], asked))
        found.append(
            Criterion("share within .25 sd of the boundary", name, figure["near"], NEAR_BOUNDARY)
        )
    return found


# -- criteria in the record of a run --------------------------------------------------------------
def card_verdict(generator: str, judge: str, file: str | Path | None = None) -> dict[str, Any]:
    """How many criteria a world has and which ones it misses, for the record of a run.

    Args:
        generator: digest of the generator.
        judge: digest of the judge.
        file: card.json of `editbench world card`, from `card:` in the generator's YAML; None searches
            the worlds of the package.

    Returns:
        `bars`, the number of criteria, and `missed`, one text per missed criterion. Empty if the
        world has no card, as with most networks of others.

    Raises:
        BadFile: the file does not exist, is no card, or is the card of other networks.
    """
    if file is None:
        for path in sorted(CARDS.glob("card*.json")):
            card = _read_card(path)
            if (card["generator"], card["judge"]) == (generator, judge):
                return _verdict(card)
        return {}
    card = _read_card(Path(file))
    if (card["generator"], card["judge"]) != (generator, judge):
        raise BadFile(
            f"{file}: the card of another generator or judge; write one with `editbench world card "
            "--out FOLDER generator=NAME scorer=NAME` and set generator.card=FOLDER/card.json, or "
            "generator.card=null for none"
        )
    return _verdict(card)


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = read_json(path)
        _ = card["generator"], card["judge"], _verdict(card)
    except (BadFile, ValueError, KeyError, TypeError) as error:
        raise BadFile(
            f"{path} is not the card of a world ({error}): it is the card.json that "
            "`editbench world card --out FOLDER` writes"
        ) from error
    return card


def _verdict(card: dict[str, Any]) -> dict[str, Any]:
    missed = []
    for criterion in card["bars"]:
        if not criterion["passed"]:
            value = "not measured" if criterion["value"] is None else f"{criterion['value']:.3g}"
            sense = "below" if criterion["at_least"] else "above"
            whose = f" ({criterion['attribute']})" if criterion["attribute"] else ""
            missed.append(f"{criterion['what']}{whose}: {value}, {sense} {criterion['asked']:.3g}")
    return {"bars": len(card["bars"]), "missed": missed}
