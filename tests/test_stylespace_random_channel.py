"""The floor of channel methods: one channel a start, a draw of (seed, start) alone."""

from __future__ import annotations

import pytest
import torch

from editbench.base.errors import EditbenchError
from editbench.base.seeding import uniforms
from editbench.methods.stylespace import RandomChannel
from editbench.methods.stylespace.channels import channel_moments, movable
from editbench.walk.editor import Walk
from tests.toy import check_editor, fit_data, make_walk


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
    with pytest.raises(EditbenchError, match="step"):
        RandomChannel(step=0)
