"""mean_difference keeps the contract of an editor, and moves towards the target class."""

import torch
from mean_difference import MeanDifference

from editbench.conformance import conform
from editbench.conformance.toy import fit_data, make_walk


def test_the_contract():
    failed = [found.message for found in conform(MeanDifference) if found.status == "failed"]
    assert not failed, "\n".join(failed)


def test_most_samples_come_nearer_to_their_target():
    data = fit_data()  # a small world with linear attributes a, b and c
    editor = MeanDifference()
    editor.bind(data.generator, data.teacher)  # as a job does, for a step that asks them
    editor.fit(data)
    walk = make_walk(data, editor.space, "a")
    before = data.score(editor.codes(walk))[:, 0]
    walk.codes = editor.step(walk)
    after = data.score(editor.codes(walk))[:, 0]
    towards = torch.where(walk.target == 1, after - before, before - after)
    assert (towards > 0).float().mean() > 0.9
