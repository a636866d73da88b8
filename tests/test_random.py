"""The random floor: directions of (seed, start) alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from editbench.base.errors import EditbenchError
from editbench.base.seeding import normals
from editbench.methods.random_direction import RandomDirection
from editbench.walk.editor import Walk
from tests.toy import check_editor, fit_data, make_walk


@pytest.mark.parametrize("space", ["w", "z"])
def test_contract(space):
    data, editor = fit_data(), RandomDirection(space=space)
    assert editor.fit(data).labels == 0
    check_editor(editor, data, "a", RandomDirection(space=space))


def test_each_start_has_its_own_draw_whatever_came_before():
    data, editor, other = (
        fit_data(dim=8),
        RandomDirection(scale_step=False),
        RandomDirection(scale_step=False),
    )
    editor.fit(data)
    other.fit(data)
    codes = torch.zeros(4, 8)
    start, zeros = torch.tensor([900_001, 3, 4, 77]), torch.zeros(4, dtype=torch.long)
    walk = Walk("a", start, codes, codes, zeros, zeros)
    moved = editor.step(walk)
    for row in range(4):
        drawn = normals(data.seed, "random_direction", int(start[row]), int(start[row]) + 1, 8)[0]
        np.testing.assert_allclose(moved[row], 0.6 * drawn / np.linalg.norm(drawn), rtol=1e-6)
        assert torch.equal(other.step(walk[torch.tensor([row])])[0], moved[row])
    double = editor.step(Walk("a", start, codes.double(), codes.double(), zeros, zeros))
    np.testing.assert_allclose(double.norm(dim=1), 0.6, rtol=1e-14)


def test_directions_stay_along_the_walk_and_differ_by_seed():
    data, editor = fit_data(), RandomDirection()
    editor.fit(data)
    walk = make_walk(data, editor, "b")
    first = editor.step(walk) - walk.codes
    walk.codes = walk.codes + first
    torch.testing.assert_close(editor.step(walk) - walk.codes, first)
    data.seed = 1
    editor.fit(data)
    assert (
        torch.nn.functional.cosine_similarity(editor.step(walk) - walk.codes, first).abs().max()
        < 0.9
    )


def test_bad_space():
    with pytest.raises(EditbenchError, match="space=s must be one of w, z"):
        RandomDirection(space="s")
