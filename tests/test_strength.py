"""Strengths after the walk: every sample moves by its strength, and a calibration finds the asked effect."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from editbench.base.errors import EditbenchError
from editbench.base.spaces import Codes, Space, WeightShift
from editbench.walk.editor import Editor, FitReport
from editbench.walk.observation import ObservationContext
from editbench.walk.strength import (
    StrengthPath,
    aim_walk,
    calibrate,
    edited_codes,
    measure_effect,
    sides,
    start_logits,
    start_walks,
)
from tests.scenes import DELTA, scene_of
from tests.toy_world import ATTRIBUTES, AlongColumn, V, toy_config


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return scene_of(toy_config(tmp_path_factory.mktemp("observation")))


# -- strengths -------------------------------------------------------------------------------------
def moves(context: ObservationContext, strengths, n: int) -> dict[float, torch.Tensor]:
    """strength -> decoded samples as (n, 8), from the stream."""
    parts: dict[float, list] = {}
    for t, rows, codes in edited_codes(context, strengths, n):
        parts.setdefault(t, []).append((rows.start, context.generator.decode(codes).flatten(1)))
    assert all(
        [start for start, _ in each] == sorted(start for start, _ in each)
        for each in parts.values()
    )
    return {t: torch.cat([x for _, x in each]) for t, each in parts.items()}


@settings(max_examples=20, deadline=None)
@given(
    strengths=st.lists(st.floats(-6, 6, width=16), min_size=1, max_size=5, unique=True),
    batch=st.sampled_from([7, 64]),
)
def test_every_sample_moves_by_its_strength_to_either_side(context, strengths, batch):
    found = moves(replace(context, batch=batch), strengths, 30)
    first = context.bank.spec.split("test")[0]
    start = torch.tensor(context.bank.array("w").range(first, first + 30))
    line = (V.T / V.T.norm(dim=1, keepdim=True))[0]
    assert set(found) == set(strengths)
    for t, x in found.items():
        torch.testing.assert_close(x, start + t * DELTA * line, atol=1e-4, rtol=1e-4)
        assert t != 0 or torch.equal(x, start)


def test_every_step_is_made_once_and_nothing_is_decoded_twice(context):
    steps = []

    class Counted(AlongColumn):
        def step(self, walk):
            steps.append(walk.steps)
            return super().step(walk)

    counted = replace(context, editor=Counted(DELTA))
    before = context.generator.decoded
    moves(counted, [-2.5, -1.0, 0.0, 0.25, 0.5, 3.0], 20)
    assert steps == [0, 1, 2, 0, 1, 2] and context.generator.decoded - before == 6 * 20


def test_strengths_of_an_editor_of_the_weights(context):
    kernels = torch.zeros(2, 4, 4, 1, 1)

    class Weights(Editor):
        space = Space.THETA

        def fit(self, data):
            return FitReport()

        def step(self, walk):
            return walk.codes + 3.0

        def codes(self, walk):
            return Codes(
                Space.W, walk.latent, WeightShift("conv", kernels, walk.target, walk.codes[:, 0])
            )

    found = {
        t: (codes.shift.magnitude.unique().tolist(), codes.shift.index.unique().tolist())
        for t, _, codes in edited_codes(
            replace(context, editor=Weights()), [-1.5, 0.0, 0.5, 2.0], 5
        )
    }
    assert found == {0.0: ([0.0], [1]), 0.5: ([1.5], [1]), 2.0: ([6.0], [1]), -1.5: ([4.5], [0])}


def test_a_sample_that_has_the_class_counts_as_one_of_the_other_side(context):
    ((_, walk, logits),) = start_walks(context, 50)
    assert torch.equal(walk.source, ATTRIBUTES.labels(logits, "a"))
    ahead = aim_walk(walk, 1, 0)
    assert (ahead.target == 1).all() and (ahead.source == 0).all()
    kinds = next(start_walks(replace(context, attribute="c"), 50))[1]
    there = aim_walk(kinds, 2, 0)
    assert torch.equal(there.source, torch.where(kinds.source == 2, 0, kinds.source))


@pytest.mark.parametrize(
    "name, target, expected",
    [
        ("a", None, (0, 1)),
        ("a", 0, (1, 0)),
        ("c", None, (0, 2)),
        ("c", 1, (0, 1)),
        ("c", 0, (1, 0)),
    ],
)
def test_the_two_sides_of_an_attribute(name, target, expected):
    assert sides(ATTRIBUTES[name], target) == expected


def test_too_few_samples_name_the_bank(context):
    with pytest.raises(EditbenchError, match=r"n=10000: the test split .*: raise bank.n, or set"):
        list(edited_codes(context, [0.0], 10_000))


def test_going_back_starts_from_the_mark_and_gives_the_same(context):
    ((_, walk, _),) = start_walks(context, 6)
    way, fresh = (
        StrengthPath(context.editor, aim_walk(walk, 1, 0)),
        StrengthPath(context.editor, aim_walk(walk, 1, 0)),
    )
    way.at(2.0)
    way.mark()
    way.at(7.3)
    assert torch.equal(way.at(3.6).values, fresh.at(3.6).values)
    assert torch.equal(
        way.at(1.2).values, StrengthPath(context.editor, aim_walk(walk, 1, 0)).at(1.2).values
    )


# -- calibration -----------------------------------------------------------------------------------
def test_effect_and_calibration_on_a_linear_world_are_those_of_the_closed_form(context):
    sigma = float(context.bank.sigma["judge"][0])
    exact = sigma / (DELTA * float(V[:, 0].norm()))  # steps a sigma
    for sign in (1, -1):
        for wanted in (0.3, 1.0, 2.0):
            found = calibrate(context, sign, wanted, 64)
            assert found.reached and found.effect == pytest.approx(wanted, rel=0.02)
            assert found.strength == pytest.approx(sign * wanted * exact, rel=0.021)
    for t, rows, codes in edited_codes(context, [2.0], 30):
        change = measure_effect(
            context, context.judge(context.generator.decode(codes)), start_logits(context, rows), 1
        )
        torch.testing.assert_close(change, torch.full_like(change, t / exact), rtol=1e-4, atol=1e-4)


def test_the_batch_does_not_change_a_calibration(context):
    assert calibrate(replace(context, batch=5), 1, 1.0, 33).strength == pytest.approx(
        calibrate(context, 1, 1.0, 33).strength, rel=1e-6
    )


def test_an_effect_out_of_reach_is_a_result_with_the_largest_one(context):
    found = calibrate(context, 1, 50.0, 20, cap=9)
    assert not found.reached and found.strength == 9.0 and found.effect > 1

    class Turning(AlongColumn):  # three steps forth, and then back
        def step(self, walk):
            moved = super().step(walk)
            return moved if walk.steps < 3 else 2 * walk.codes - moved

    found = calibrate(replace(context, editor=Turning(DELTA)), 1, 50.0, 20)
    assert not found.reached and 2 < found.strength < 4.5
    found = calibrate(replace(context, editor=AlongColumn(DELTA, fail="frozen")), 1, 1.0, 20)
    assert (found.strength, found.effect, found.reached) == (0.0, 0.0, False)
    found = calibrate(replace(context, editor=AlongColumn(DELTA, fail="nan")), 1, 1.0, 20)
    assert (found.strength, found.reached) == (0.0, False)
