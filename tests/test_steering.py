"""Steering of class shares: its gradient against the closed form, and that it moves shares where they should be."""

import pytest
import torch

from editbench.worlds.steering import MarginalSteering
from tests.toy_world import ToyScorer

PRIORS = {"a": (0.5, 0.5), "b": (0.8, 0.2), "c": (0.2, 0.5, 0.3)}


def images(n, seed=0):
    return torch.randn(n, 1, 2, 4, generator=torch.Generator().manual_seed(seed))


def shares(x):
    logits = ToyScorer()(x)
    a, b = (torch.sigmoid(logits[:, k]).mean() for k in (0, 1))
    return torch.stack([1 - a, a]), torch.stack([1 - b, b]), logits[:, 2:].softmax(1).mean(0)


def test_with_no_memory_the_gradient_is_that_of_the_divergence():
    x = images(50).requires_grad_(True)
    steering = MarginalSteering(ToyScorer(), PRIORS, weight=1.0, memory=1)
    (got,) = torch.autograd.grad(steering.loss(x), x)
    kl = sum((p * torch.log(p / torch.tensor(q))).sum() for p, q in zip(shares(x), PRIORS.values()))
    (expected,) = torch.autograd.grad(kl, x)  # the + 1 of d(p ln p) drops out, as shares sum to one
    assert torch.allclose(got, expected, atol=1e-6)


def test_descending_it_brings_the_shares_to_the_priors():
    x = images(400).requires_grad_(True)
    steering = MarginalSteering(ToyScorer(), PRIORS, memory=400)
    optimiser = torch.optim.Adam([x], 0.05)
    for _ in range(150):
        optimiser.zero_grad()
        steering.loss(x).backward()
        optimiser.step()
    for p, q in zip(shares(x), PRIORS.values()):
        assert torch.allclose(p, torch.tensor(q), atol=0.02)


def test_at_the_priors_it_is_silent_and_its_state_survives():
    steering = MarginalSteering(ToyScorer(), PRIORS, memory=10**9)
    assert steering.loss(images(20)).abs().item() < 1e-5
    moved = MarginalSteering(ToyScorer(), PRIORS, memory=100)
    moved.loss(images(80))
    other = MarginalSteering(ToyScorer(), PRIORS, memory=100)
    other.load_state_dict(moved.state_dict())
    x = images(30, seed=1)
    assert other.loss(x).item() == pytest.approx(moved.loss(x).item())
