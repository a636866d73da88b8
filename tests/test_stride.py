"""The search for the number of own steps that has a wanted effect, on effects of known form."""

from __future__ import annotations

import math

import pytest

from editbench.walk.stride import interpolate_stride

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
