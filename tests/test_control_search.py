"""The labelled selection of unlabelled controls: closed form on a linear world, and the answer 'no control found'."""

import pytest
import torch
from editbench.methods.shared.control_search import Effects, choose, controls, measure

from editbench.base.errors import Unsupported
from editbench.base.spaces import Codes, Space
from tests.toy import BINARY, MIXED, fit_data


def apply_rows(data, rows):
    codes = data.tune.codes(Space.W)
    return lambda candidate, strength, at: Codes(Space.W, codes[at] + strength * rows[candidate])


def test_effects_are_those_of_the_linear_world_and_the_best_candidate_is_found():
    data = fit_data(overlap=0.0)
    normals = data.teacher.normals
    rows = torch.stack([0.2 * normals[1], normals[2], normals[0] + 0.8 * normals[2], normals[0]])
    effects = measure(data, apply_rows(data, rows), 4, (-3.0, 3.0), samples=50)
    assert effects.decoded == 4 * 2 * 50 and effects.change.shape == (4, 2, 50, 3)
    expected = (
        torch.tensor([-3.0, 3.0])[None, :, None, None]
        * (rows @ normals.T)[:, None, None, :]
        / data.sigma
    )
    torch.testing.assert_close(
        effects.change, expected.expand_as(effects.change), atol=1e-4, rtol=0
    )
    up, down = choose(effects, data.attributes, "a", 1), choose(effects, data.attributes, "a", 0)
    assert (up.candidate, up.strength, down.candidate, down.strength) == (
        3,
        3.0,
        3,
        -3.0,
    )  # as strong, and cleaner
    assert up.effect == pytest.approx(3.0 / data.sigma[0].item(), rel=1e-4) and up.off_target < 1e-4
    with pytest.raises(Unsupported, match="no control found for 'b': the best of 4 candidates"):
        controls(effects, data.attributes, "b")


def test_classes_of_many_get_their_own_controls_and_a_weak_one_is_named():
    data = fit_data(MIXED, overlap=0.0)
    normals = data.teacher.normals
    effects = measure(data, apply_rows(data, normals[1:3] - normals[3]), 2, (3.0,))
    found = controls(effects, MIXED, "kind")
    assert [c.candidate for c in found[:2]] == [0, 1] and [c.found for c in found] == [
        True,
        True,
        False,
    ]


def test_a_diverging_candidate_is_never_chosen():
    data = fit_data(overlap=0.0)
    rows = torch.stack([data.teacher.normals[0] * torch.nan, data.teacher.normals[0]])
    found = choose(measure(data, apply_rows(data, rows), 2, (3.0,)), data.attributes, "a", 1)
    assert found.candidate == 1 and found.found


@pytest.mark.parametrize("share, chosen", [(0.8, 0), (0.94, 0), (0.96, 1), (0.97, 1)])
def test_a_cleaner_candidate_is_taken_only_within_5_percent_of_the_best_effect(share, chosen):
    """Candidate 0 moves 'a' by 2 sigma and the others by 1; candidate 1 moves it by a share of that, others hardly."""
    change = torch.tensor([[2.0, 1.0, 1.0], [2 * share, 0.01, 0.01]])[:, None, None].expand(
        2, 1, 5, 3
    )
    effects = Effects(change, (3.0,), torch.zeros(5, 3, dtype=torch.long), 10)
    found = choose(effects, BINARY, "a", 1)
    assert found.candidate == chosen
    assert found.effect == pytest.approx(2 * share if chosen else 2.0)
