"""The linear term: its loss by hand, what its descent does, and what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError
from editbench.worlds.linearity import LinearTerm, binary_columns
from tests.toy_world import ATTRIBUTES

MIXED = Attributes(
    [
        Attribute("pose", ("l", "m", "r")),
        Attribute("a", ("no", "yes")),
        Attribute("b", ("no", "yes")),
    ]
)


def test_columns_are_those_of_the_binary_attributes() -> None:
    assert binary_columns(ATTRIBUTES) == [0, 1] and binary_columns(MIXED) == [3, 4]
    with pytest.raises(EditbenchError, match="pose: train with --linearity 0"):
        binary_columns(Attributes(MIXED.items[:1]))


def test_the_loss_by_hand() -> None:
    term = LinearTerm(MIXED, 2, 0.3)
    with torch.no_grad():
        term.regressor.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        term.regressor.bias.copy_(torch.tensor([0.5, 0.0]))
    w = torch.tensor([[1.0, 1.0]])
    logits = torch.tensor([[9.0, 9.0, 9.0, 1.5, 100.0]])
    # Predicted 1.5 and 2; the traits are 1.5 / 3 and, clamped, 6 / 3.
    assert term.loss(w, logits).item() == pytest.approx(((1.5 - 0.5) ** 2 + 0.0) / 2)


def test_descending_makes_the_trait_linear_in_w() -> None:
    torch.manual_seed(0)
    term = LinearTerm(ATTRIBUTES, 2, 1.0)
    w = torch.randn(400, 2)
    curved = (w[:, :1].square() - 1).clamp(-5.5, 5.5)
    logits = curved.repeat(1, ATTRIBUTES.width).requires_grad_(True)
    optimiser = torch.optim.Adam([logits], 0.1)
    first = last = 0.0
    for _ in range(300):
        optimiser.zero_grad()
        term.zero_grad()
        loss = term.loss(w, logits)
        loss.backward()
        optimiser.step()
        term.step()
        last = loss.item()
        first = first or last
    assert last < 0.05 * first
    columns = logits.detach()[:, :2]
    design = torch.cat([w, torch.ones(400, 1)], 1)
    rest = columns - design @ torch.linalg.lstsq(design, columns).solution
    assert rest.var() < 0.05 * curved.var()


def test_its_state_survives() -> None:
    torch.manual_seed(0)
    w = torch.randn(8, 3)
    logits = torch.randn(8, ATTRIBUTES.width)
    one, two = LinearTerm(ATTRIBUTES, 3, 1.0), LinearTerm(ATTRIBUTES, 3, 1.0)

    def descend(term: LinearTerm) -> float:
        term.zero_grad()
        loss = term.loss(w, logits)
        loss.backward()
        term.step()
        return loss.item()

    descend(one)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    assert descend(one) == descend(two) and descend(one) == descend(two)
