"""The floor of searched methods: its draws, and the search that it shares with GANSpace."""

from __future__ import annotations

import numpy as np
import pytest

from editbench.base.errors import EditbenchError
from editbench.base.seeding import normals
from editbench.methods.ganspace import GANSpace
from editbench.methods.random_searched import RandomSearched
from tests.toy import check_editor, fit_data

SMALL = {"components": 6, "search_samples": 20}


def test_random_directions_go_through_the_search_of_ganspace():
    data = fit_data(dim=8)
    editor = RandomSearched(**SMALL)
    report = editor.fit(data)
    drawn = normals(data.seed, "random_searched", 0, 6, 8)
    units = np.stack([row / np.sqrt((row**2).sum()) for row in drawn])
    spread = np.stack([(data.fit.w.double().numpy() @ unit).std() for unit in units])
    for name, move in editor.moves.items():
        notes = report.notes[f"control.{name}"]
        for row, note in zip(move.numpy(), notes.values()):
            place = note["component"]
            np.testing.assert_allclose(row, note["sign"] * spread[place] * units[place], rtol=1e-5)
    # The same options as GANSpace's, but for what its components need.
    own = {"samples", "layer", "centre"}
    assert set(GANSpace.__init__.__annotations__) - own == set(
        RandomSearched.__init__.__annotations__
    )
    check_editor(editor, data, "a", RandomSearched(**SMALL))


def test_the_floor_has_a_direction_where_ganspace_has_no_control():
    """Strengths of a thousandth of a standard deviation move no attribute by 0.5 sigma."""
    data = fit_data(dim=8)
    weak = {"components": 4, "search_samples": 20, "strength": 1e-3}
    ganspace = GANSpace(**weak, samples=200)
    floor = RandomSearched(**weak)
    ganspace.fit(data)
    floor.fit(data)
    assert set(ganspace.reasons) == set(floor.moves) and ganspace.moves == floor.reasons == {}


def test_another_seed_draws_other_directions():
    data = fit_data(dim=8)
    found = RandomSearched(**SMALL).find_directions(data)
    np.testing.assert_allclose(found.mean, data.fit.w.double().mean(0))
    one = found.vectors
    again = RandomSearched(**SMALL).find_directions(data).vectors
    data.seed += 1
    other = RandomSearched(**SMALL).find_directions(data).vectors
    np.testing.assert_array_equal(one, again)
    np.testing.assert_allclose(np.sqrt((one**2).sum(1)), 1)
    # Independent unit vectors: no direction of one draw is near one of the other.
    assert np.abs(one @ other.T).max() < 0.99


def test_wrong_options_are_named():
    with pytest.raises(EditbenchError, match=r"method\.components=0"):
        RandomSearched(components=0)
    with pytest.raises(EditbenchError, match="step"):
        RandomSearched(step=0)
