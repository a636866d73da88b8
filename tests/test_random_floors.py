"""The floors of searched and of channel methods: draws of (seed, start) alone, and the search they share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from editbench.methods.ganspace import GANSpace
from editbench.methods.random_searched import RandomSearched
from editbench.methods.stylespace import RandomChannel
from editbench.methods.stylespace.channels import channel_moments, movable

from editbench.base.errors import EditbenchError
from editbench.base.seeding import normals, uniforms
from editbench.walk.editor import Walk
from tests.toy import check_editor, fit_data, make_walk

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


def test_each_start_moves_one_channel_that_varies():
    data = fit_data(dim=24)
    editor = RandomChannel(step=2.0)
    editor.fit(data)
    check_editor(editor, data, "a", RandomChannel(step=2.0))
    walk = make_walk(data, editor, "a")
    change = editor.step(walk) - walk.codes
    moved = change.abs() > 0
    assert (moved.sum(1) == 1).all()
    assert not moved[:, ~movable(data.generator)].any()
    sigma = channel_moments(data.generator, data.latents(data.fit)).std
    channel = moved.int().argmax(1)
    own = change[torch.arange(len(change)), channel]
    torch.testing.assert_close(own.abs(), 2 * sigma[channel].to(own), rtol=1e-4, atol=1e-5)
    assert len(channel.unique()) > 3 and (own > 0).any() and (own < 0).any()


def test_the_channel_of_a_start_follows_from_seed_and_index():
    data = fit_data(dim=24)
    editor = RandomChannel()
    editor.fit(data)
    codes = torch.zeros(3, 24)
    zeros = torch.zeros(3, dtype=torch.long)
    start = torch.tensor([41, 7, 3000])
    moved = editor.step(Walk("a", start, codes, codes, zeros, zeros))
    for row, index in enumerate(start.tolist()):
        own, sign = uniforms(data.seed, "random_channel", index, index + 1, 2)[0]
        channel = editor.channels[int(own * len(editor.channels))]
        expected = torch.zeros(24)
        expected[channel] = (-1 if sign < 0.5 else 1) * editor.sigma[channel]
        torch.testing.assert_close(moved[row], expected)


def test_wrong_options_are_named():
    with pytest.raises(EditbenchError, match=r"method\.components=0"):
        RandomSearched(components=0)
    with pytest.raises(EditbenchError, match="step"):
        RandomChannel(step=0)
