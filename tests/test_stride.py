"""The stride, the number of own steps that has a wanted effect: on effects of known form, and in the toy world."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from editbench.walk.stride import find_stride, interpolate_stride
from tests.by_config import run_job
from tests.scenes import DELTA, scene_of
from tests.toy_world import AlongColumn, V, toy_config

CAP = 40.0


WANTED = 0.25


@pytest.mark.parametrize("per_step", [0.8, 0.3, 0.05, 0.01])
def test_a_linear_effect_is_met_exactly(per_step):
    found = interpolate_stride(lambda steps: per_step * steps, WANTED, CAP)
    assert found.reached
    assert found.steps == pytest.approx(WANTED / per_step)


@pytest.mark.parametrize("per_step", [0.8, 0.3, 0.05, 0.02])
@pytest.mark.parametrize(
    ("power", "error"),
    [(0.8, 0.03), (0.9, 0.03), (1.1, 0.03), (1.25, 0.03), (1.5, 0.05), (2, 0.05), (3, 0.05)],
)
def test_a_curved_effect_is_met_closely(per_step, power, error):
    found = interpolate_stride(lambda steps: per_step * steps**power, WANTED, CAP)
    assert found.reached
    assert per_step * found.steps**power == pytest.approx(WANTED, rel=error)


def test_an_effect_that_jumps_is_met_at_the_jump():
    found = interpolate_stride(lambda steps: 0.05 * steps if steps < 3 else 1.0, WANTED, CAP)
    assert found.reached
    assert found.steps == pytest.approx(3, rel=0.01)


def test_an_effect_that_falls_again_is_met_where_it_rises():
    found = interpolate_stride(lambda steps: math.sin(math.pi * steps / 2), WANTED, CAP)
    assert found.steps == pytest.approx(2 / math.pi * math.asin(WANTED), rel=0.1)


@pytest.mark.parametrize(
    "effect",
    [
        lambda steps: 0.0,
        lambda steps: 0.2 * (1 - math.exp(-steps)),
        lambda steps: 0.001 * steps,
        lambda steps: math.nan,
        lambda steps: 0.1 * steps if steps < 2 else math.nan,
    ],
    ids=["none", "saturated", "too slow", "NaN at once", "NaN later"],
)
def test_an_effect_that_is_not_reached_says_so(effect):
    found = interpolate_stride(effect, WANTED, CAP)
    assert not found.reached
    assert 0 <= found.steps <= CAP


def test_no_more_than_the_largest_number_of_steps_is_asked_for():
    asked = []

    def measure(steps: float) -> float:
        asked.append(steps)
        return 0.001 * steps

    interpolate_stride(measure, WANTED, 7.0)
    assert max(asked) == 7.0


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return scene_of(toy_config(tmp_path_factory.mktemp("observation")))


# -- steps of equal effect -------------------------------------------------------------------------
@pytest.mark.parametrize("effect", [0.1, 0.25, 2.0])
def test_the_stride_of_a_linear_world_is_that_of_the_closed_form(context, effect):
    """The teacher's sigma counts, and a direction away from the class has a stride too."""
    sigma = float(context.bank.sigma["teacher"][0])
    slope = context.teacher.scale * float(V[:, 0].norm())  # log-odds of the teacher a unit
    exact = effect * sigma / (DELTA * slope)
    found = find_stride(context, effect, 40)
    assert found.reached and found.steps == pytest.approx(exact, rel=1e-3)

    class Away(AlongColumn):
        def step(self, walk):
            return 2 * walk.codes - super().step(walk)

    away = find_stride(replace(context, editor=Away(DELTA)), effect, 40)
    assert away.reached and away.steps == pytest.approx(exact, rel=1e-3)
    few = find_stride(replace(context, batch=7), effect, 40)
    assert few.steps == pytest.approx(found.steps, rel=1e-6)
    assert not find_stride(context, 50.0, 9).reached


def test_a_stride_is_that_of_the_median_of_the_first_64_tune_samples(context):
    first = int(context.bank.split("tune", "cpu").index[0])

    class Uneven(AlongColumn):
        def step(self, walk):
            # Two of three samples move at the speed of the plain editor, and one at five times it.
            # The 65th sample and all later ones move too fast to be among those that count.
            speed = torch.where(walk.start % 3 == 0, 5.0, 1.0)
            speed = torch.where(walk.start < first + 64, speed, 50.0)
            return walk.codes + speed[:, None] * (super().step(walk) - walk.codes)

    found = find_stride(replace(context, editor=Uneven(DELTA)), 0.25, 40)
    plain = find_stride(context, 0.25, 40)
    assert found.steps == pytest.approx(plain.steps, rel=1e-3)


def test_without_a_sample_that_lacks_the_class_there_is_no_stride(context):
    split = context.bank.split("tune", "cpu")
    alike = replace(split, logits=split.logits[:1].expand_as(split.logits))
    target = int(context.teacher.attributes.labels(split.logits[:1], "a"))
    bank = SimpleNamespace(split=lambda name, device: alike)
    found = find_stride(replace(context, bank=bank, target=target), 0.5, 40)
    assert (found.steps, found.reached) == (0.0, False)


@pytest.mark.parametrize("attribute", ["b", "c"])
def test_a_stride_is_measured_on_walks_to_classes_that_starts_have_as_targets(context, attribute):
    """Of an ordered attribute these are neighbours: no start walks from the last to the first."""
    seen = []

    class Notes(AlongColumn):
        def step(self, walk):
            seen.append((walk.source.numpy(), walk.target.numpy()))
            return super().step(walk)

    find_stride(replace(context, attribute=attribute, editor=Notes(DELTA)), 0.5, 3)
    source, target = seen[0]
    about = context.teacher.attributes[attribute]
    assert (source != target).all() and set(target) <= set(range(len(about.classes)))
    if about.ordered:
        assert (np.abs(target - source) == 1).all()
    else:
        # Every other class is a target of some sample.
        pairs = {(int(a), int(b)) for a, b in zip(source, target)}
        assert len(pairs) == len(about.classes) * (len(about.classes) - 1)


@pytest.mark.parametrize("good", [0, 3])
def test_a_stride_of_walks_that_become_nan_is_not_reached(context, good):
    """They have some good steps, too few for the effect."""

    class Breaks(AlongColumn):
        def step(self, walk):
            moved = super().step(walk)
            return moved if walk.steps < good else moved * float("nan")

    assert not find_stride(replace(context, editor=Breaks(DELTA)), 2.0, 40).reached


def test_a_job_with_steps_of_equal_effect_keeps_its_stride(tmp_path):
    """Of own steps that are twice as long half as many are walked."""
    lengths = []
    for delta in (0.2, 0.4):
        cfg = toy_config(tmp_path / str(delta))
        cfg.engine.step_effect = 0.5
        cfg.method.delta = delta
        folder = Path(cfg.out) / run_job(cfg).run_id
        stride = json.loads((folder / "provenance.json").read_text())["stride"]
        assert stride["reached"]
        table = pd.read_parquet(folder / "trajectory.parquet")
        lengths.append(stride["steps"] * delta)
        np.testing.assert_allclose(table["path"], lengths[-1] * table["step"], rtol=1e-4)
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-3)
    plain = toy_config(tmp_path / "plain")
    folder = Path(plain.out) / run_job(plain).run_id
    assert "stride" not in json.loads((folder / "provenance.json").read_text())
    # An effect out of reach leaves the walk as it is.
    far = toy_config(tmp_path / "far")
    far.engine.step_effect = 1e6
    other = Path(far.out) / run_job(far).run_id
    assert not json.loads((other / "provenance.json").read_text())["stride"]["reached"]
    tables = [pd.read_parquet(one / "trajectory.parquet") for one in (folder, other)]
    pd.testing.assert_frame_equal(*tables)
