"""The projector's schedule and noise regulariser in closed form and as slow loops."""

import numpy as np
import pytest
import torch

from editbench.base.errors import EditbenchError
from editbench.inversion.noise import autocorrelation
from editbench.inversion.spec import ProjectionSpec, Schedule
from tests.noise_maps import normal


# -- schedule --------------------------------------------------------------------------------------
def test_the_schedule_is_the_papers():
    default = Schedule()
    assert default.steps == 1000
    assert [
        default.learning_rate(t) for t in (0, 0.025, 0.05, 0.4, 0.75, 0.875, 1)
    ] == pytest.approx([0, 0.05, 0.1, 0.1, 0.1, 0.05, 0])
    assert [default.jitter_scale(t) for t in (0, 0.05, 0.375, 0.75, 1)] == pytest.approx(
        [0.05, 0.05 * (14 / 15) ** 2, 0.0125, 0, 0]
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"lr": 0.0},
        {"rampup": 0.0},
        {"rampdown": 2.0},
        {"jitter": -1.0},
        {"jitter_ramp": 0.0},
        {"steps": "many"},
        {"lr": float("nan")},
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(bad):
    with pytest.raises(EditbenchError, match=r"inversion\."):
        Schedule(**bad)


@pytest.mark.parametrize(
    "bad",
    [{"space": "s"}, {"noise": "random"}, {"samples": 1}, {"noise_weight": -1.0}, {"seed": 1.5}],
)
def test_a_projection_that_makes_no_sense_is_refused(bad):
    with pytest.raises(EditbenchError, match="inversion"):
        ProjectionSpec(**bad)


# -- noise -----------------------------------------------------------------------------------------
def slow_penalty(x):
    """One map (H, W), pixel by pixel."""
    total = 0.0
    while True:
        h, w = x.shape
        right = sum(x[i, j] * x[i, (j - 1) % w] for i in range(h) for j in range(w)) / (h * w)
        below = sum(x[i, j] * x[(i - 1) % h, j] for i in range(h) for j in range(w)) / (h * w)
        total += right**2 + below**2
        if h <= 8:
            return total
        x = np.array(
            [
                [x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].sum() / 2 for j in range(w // 2)]
                for i in range(h // 2)
            ]
        )


@pytest.mark.parametrize("size", [4, 8, 32])
def test_the_regulariser_is_a_slow_loop(size):
    maps = normal("maps", 3, size, size).double()
    expected = [slow_penalty(one.numpy()) for one in maps]
    assert autocorrelation(maps.unsqueeze(1)).tolist() == pytest.approx(expected, rel=1e-10)


def test_the_regulariser_of_constant_and_of_white_noise():
    flat = torch.full(
        (2, 1, 16, 16), 0.5, dtype=torch.float64
    )  # scales of 0.5 and of 1.0: 2 c^4 each
    assert autocorrelation(flat).tolist() == pytest.approx([2 * 0.5**4 + 2 * 1.0**4] * 2)
    white = autocorrelation(normal("white", 1500, 1, 32, 32))
    expected = (
        2 / 32**2 + 2 / 16**2 + 2 / 8**2
    )  # the mean of n uncorrelated products has variance 1 / n
    assert abs(white.mean() - expected) < 5 * white.std() / 1500**0.5 and expected < 0.05
