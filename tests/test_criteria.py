"""The criteria of a card: which figure is held to which, and what missing one looks like."""

from __future__ import annotations

import json

import pytest

from editbench.base.errors import BadFile
from editbench.base.files import read_json, write_json
from editbench.worlds.criteria import CARDS, Criterion, card_verdict, criteria
from editbench.worlds.faces import load_generator, load_scorer


def figures(linear: float = 0.96, few: float = 0.86, near: float = 0.2) -> dict:
    return {"linear": linear, "few": few, "near": near}


def card(**changes) -> dict:
    right = {"smile": 0.98, "age": 0.98}
    return {
        "separability": {"Z": {}, "W": {"smile": figures(), "age": figures(linear=0.9, few=0.81)}},
        "accuracy": {"judge": {"undisputed": right, "world law": {"smile": 0.5, "age": 0.5}}},
        "agreement": {"generated": {"smile": 0.94, "age": 0.94}},
        "marginal_gap": 0.05,
        "frechet": {"generated": 1e-6, "floor": 0.0, "variance": 100.0},
    } | changes


def missed(card: dict) -> list[tuple[str, str]]:
    return [
        (criterion.what, criterion.attribute)
        for criterion in criteria(card)
        if not criterion.passed
    ]


def test_a_good_world_reaches_all() -> None:
    assert missed(card()) == [] and len(criteria(card())) == 11


def test_each_bar_is_missed_by_its_own_figure() -> None:
    def with_smile(**value: float | None) -> dict:
        return card(separability={"W": {"smile": figures(**value), "age": figures(few=0.79)}})

    age = ("AUC in W, 30 examples a class", "age")  # .80 is asked of it, not .85
    assert missed(with_smile(linear=0.94)) == [("AUC in W, all codes", "smile"), age]
    assert missed(with_smile(few=0.84)) == [("AUC in W, 30 examples a class", "smile"), age]
    assert missed(with_smile(few=None)) == [("AUC in W, 30 examples a class", "smile"), age]
    assert missed(with_smile(near=0.14)) == [("share within .25 sd of the boundary", "smile"), age]
    assert missed(card(accuracy={"judge": {"undisputed": {"age": 0.96}}})) == [
        ("judge right, undisputed label", "age")
    ]
    assert missed(card(agreement={"generated": {"age": 0.92}})) == [
        ("agreement of teacher and judge on generated images", "age")
    ]
    assert missed(card(marginal_gap=0.11)) == [("largest gap of a class share", "")]
    far = {"generated": 60.0, "floor": 0.0, "variance": 100.0}
    assert missed(card(frechet=far)) == [("Fréchet distance, share of the variance", "")]


def test_a_world_without_data_or_without_w_has_fewer() -> None:
    alone = {
        "agreement": {"generated": {"smile": 0.94}},
        "separability": {"Z": {"smile": figures()}},
    }
    assert [criterion.what for criterion in criteria(alone)] == [
        "agreement of teacher and judge on generated images"
    ]


def test_a_bar_in_words() -> None:
    assert "MISSED" in str(Criterion("a", "b", 0.1, 0.2))
    assert "MISSED" not in str(Criterion("a", "b", 0.1, 0.2, at_least=False))
    assert "not measured" in str(Criterion("a", "b", None, 0.2))
    assert Criterion("a", "b", 0.3, 0.2).as_dict()["passed"] is True


# -- what a run says of its world ------------------------------------------------------------------
def test_the_card_of_the_package_is_as_it_was_written() -> None:
    cards = sorted(CARDS.glob("card*.json"))
    assert cards
    for path in cards:
        # A changed card is refused.
        read_json(path, sealed=True)


def test_the_card_of_the_package_is_of_its_own_weights_and_says_what_is_missed() -> None:
    verdict = card_verdict(load_generator().digest, load_scorer("judge").digest)
    card = json.loads((CARDS / "card32.json").read_text(encoding="utf-8"))
    found = criteria(card)
    assert verdict["bars"] == len(found)
    missed = [criterion for criterion in found if not criterion.passed]
    assert len(verdict["missed"]) == len(missed)
    for criterion in missed:
        whose = f" ({criterion.attribute})" if criterion.attribute else ""
        [text] = [
            text for text in verdict["missed"] if text.startswith(f"{criterion.what}{whose}: ")
        ]
        assert f"{criterion.value:.3g}" in text and f"{criterion.asked:.3g}" in text


def test_a_card_of_other_networks_or_no_card_at_all_is_refused(tmp_path) -> None:
    file = tmp_path / "card.json"
    criterion = Criterion("largest gap of a class share", "", 0.2, 0.1, at_least=False)
    missing = Criterion("AUC in W, 30 examples a class", "age", None, 0.8)
    of = {"generator": "g", "judge": "j", "bars": [criterion.as_dict(), missing.as_dict()]}
    file.write_text(json.dumps(of), encoding="utf-8")
    assert card_verdict("g", "j", file) == {
        "bars": 2,
        "missed": [
            "largest gap of a class share: 0.2, above 0.1",
            "AUC in W, 30 examples a class (age): not measured, below 0.8",
        ],
    }
    assert card_verdict("g", "j") == {}  # no world of the package
    with pytest.raises(BadFile, match=r"card.json: the card of another generator or judge"):
        card_verdict("g", "other", file)
    # A verdict that was changed by hand no longer fits the checksum of the card.
    write_json(file, of)
    file.write_text(file.read_text(encoding="utf-8").replace("false", "true"), encoding="utf-8")
    with pytest.raises(BadFile, match=r"is not the card of a world .*checksum"):
        card_verdict("g", "j", file)
    bars = ("3", "[1]", "[{}]")
    damaged = [f'{{"generator": "g", "judge": "j", "bars": {some}}}' for some in bars]
    for content in ("{", "[]", '{"bars": []}', *damaged):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(BadFile, match="is not the card of a world"):
            card_verdict("g", "j", file)
    with pytest.raises(BadFile, match=r"missing.json is not the card"):
        card_verdict("g", "j", tmp_path / "missing.json")
