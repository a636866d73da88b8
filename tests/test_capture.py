"""Captured training steps: the same training as step by step, with a stand-in for CUDA graphs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from editbench.worlds import capture, train_gan
from editbench.worlds.capture import load_optimiser, set_rate
from editbench.worlds.steering import ShareSteering
from editbench.worlds.train_gan import GANTrainer
from tests import test_world_training as training


class Replayed:
    """What a CUDA graph does, on the host: the step runs on its own memory, never on the caller's."""

    made = 0

    def __init__(self, step: capture.Step, inputs: dict[str, Tensor]) -> None:
        Replayed.made += 1
        self.step = step
        self.inputs = {name: torch.full_like(value, torch.nan) for name, value in inputs.items()}

    def __call__(self, inputs: dict[str, Tensor]) -> tuple[list[str], Tensor]:
        assert set(inputs) == set(self.inputs)
        for name, value in inputs.items():
            self.inputs[name].copy_(value)
        return self.step(self.inputs)


def trainer(captured: bool) -> GANTrainer:
    witness = training.Witness()
    steering = ShareSteering(witness.attributes, torch.zeros(10, 3, dtype=torch.int64))
    # Warm-up, steering and every lazy term begin within a few steps.
    options = replace(
        training.OPTIONS, bfloat16=False, warmup_kimg=0.02, steer_from_kimg=0.05, total_kimg=0.2
    )
    return GANTrainer(
        training.CONFIG,
        options,
        training.reals,
        steering=steering,
        witness=witness,
        capture=captured,
    )


def test_captured_steps_make_the_training_of_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = trainer(captured=False)
    expected = [plain.train_step() for _ in range(24)]

    def adam(
        network: torch.nn.Module, rate: float, betas: tuple[float, float], captured: bool
    ) -> torch.optim.Adam:
        # On the host Adam is not captured; its rate is in memory all the same.
        return torch.optim.Adam(network.parameters(), torch.tensor(rate), betas)

    monkeypatch.setattr(train_gan, "adam", adam)
    monkeypatch.setattr(capture, "CapturedStep", Replayed)
    Replayed.made = 0
    captured = trainer(captured=True)
    found = [captured.train_step() for _ in range(24)]
    assert Replayed.made >= 4  # kinds of steps
    for one, other in zip(expected, found):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)
    for one, other in zip(plain.ema.parameters(), captured.ema.parameters()):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_an_optimiser_keeps_its_own_rate_and_kind_when_it_is_loaded() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    saved = torch.optim.Adam([weight], torch.tensor(0.1), capturable=False)
    weight.grad = torch.ones(3)
    saved.step()
    state = saved.state_dict()
    state["param_groups"][0]["capturable"] = True  # written on a GPU
    fresh = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))], 0.5)
    load_optimiser(fresh, state)
    (group,) = fresh.param_groups
    assert group["lr"] == 0.5 and group["capturable"] is False
    (moments,) = fresh.state.values()
    torch.testing.assert_close(moments["exp_avg"], torch.full((3,), 0.1))


def test_a_rate_in_memory_is_set_there() -> None:
    rate = torch.tensor(0.1)
    optimiser = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], rate)
    set_rate(optimiser, 0.02)
    assert rate.item() == pytest.approx(0.02) and optimiser.param_groups[0]["lr"] is rate
