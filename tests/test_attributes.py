"""Logit layout and log-odds, against probabilities worked out by hand."""

import pytest
import torch

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError, UnknownName

ATTRIBUTES = Attributes(
    [
        Attribute("smile", ("no", "yes")),
        Attribute("hair", ("black", "brown", "blond")),
        Attribute("age", ("young", "old")),
    ]
)


def test_layout():
    assert ATTRIBUTES.width == 5
    assert ATTRIBUTES.columns() == ["smile", "hair:black", "hair:brown", "hair:blond", "age"]
    logits = torch.tensor([[-1.0, 0.1, 3.0, 0.2, 2.0]])
    assert ATTRIBUTES.labels(logits).tolist() == [[0, 1, 1]]


def test_log_odds_are_the_odds_of_the_softmax_and_the_sigmoid():
    logits = torch.randn(50, 5, dtype=torch.float64)
    p = torch.softmax(logits[:, 1:4], 1)
    odds = ATTRIBUTES.log_odds(logits)
    assert torch.allclose(odds[:, 1:4], torch.log(p / (1 - p)))
    q = torch.sigmoid(logits[:, 0])
    assert torch.allclose(odds[:, 0], torch.log(q / (1 - q)))


def test_column_points_towards_the_target():
    assert ATTRIBUTES.column("smile", 0) == (0, -1)
    assert ATTRIBUTES.column("smile", 1) == (0, 1)
    assert ATTRIBUTES.column("hair", 2) == (3, 1)
    column, sign = ATTRIBUTES.column("age", torch.tensor([0, 1]))
    assert column.tolist() == [4, 4] and sign.tolist() == [-1, 1]


def test_errors_name_what_there_is():
    with pytest.raises(UnknownName, match=r"unknown attribute 'smlie'\. Did you mean 'smile'"):
        ATTRIBUTES["smlie"]
    assert ATTRIBUTES.class_index("hair", "blond") == ATTRIBUTES.class_index("hair", 2) == 2
    with pytest.raises(
        EditbenchError, match=r"target=3 is no class of the attribute 'hair', which has 0 \(black\)"
    ):
        ATTRIBUTES.class_index("hair", 3)
    with pytest.raises(
        UnknownName, match=r"unknown class of attribute 'hair' 'blnd'\. Did you mean 'blond'"
    ):
        ATTRIBUTES.class_index("hair", "blnd")
    with pytest.raises(EditbenchError, match="two classes"):
        Attribute("x", ("only",))
    with pytest.raises(EditbenchError, match="must differ"):
        Attributes([ATTRIBUTES[0], ATTRIBUTES[0]])


def test_config_round_trip():
    assert Attributes.from_config(ATTRIBUTES.as_config()) == ATTRIBUTES


def test_it_contains_its_attributes_and_their_names():
    assert "age" in ATTRIBUTES and ATTRIBUTES["age"] in ATTRIBUTES
    assert "ages" not in ATTRIBUTES and 0 not in ATTRIBUTES
