"""Steering of class shares: its gradient against the closed form, and that it moves shares where they should be."""

import pytest
import torch

from editbench.worlds.steering import ShareSteering, class_probabilities, joint_shares
from tests.toy_world import ATTRIBUTES, ToyScorer

BLOCKS = {"a": slice(0, 2), "b": slice(2, 4), "c": slice(4, 7)}


def images(n, seed=0):
    return torch.randn(n, 1, 2, 4, generator=torch.Generator().manual_seed(seed))


def labels(n=4000):
    rng = torch.Generator().manual_seed(1)
    a = (torch.rand(n, generator=rng) < 0.3).long()
    b = torch.where(torch.rand(n, generator=rng) < 0.8, a, 1 - a)  # goes with a
    return torch.stack([a, b, torch.randint(3, (n,), generator=rng)], 1)


def shares(x):
    return joint_shares(class_probabilities(ToyScorer()(x), ATTRIBUTES))


def test_joint_shares_count_pairs_of_labels():
    y = labels(500)
    one_hot = torch.cat(
        [torch.nn.functional.one_hot(y[:, k], n) for k, n in enumerate((2, 2, 3))], 1
    ).float()
    joint = joint_shares(one_hot)
    assert joint[1, 3].item() == pytest.approx(
        ((y[:, 0] == 1) & (y[:, 1] == 1)).float().mean().item()
    )
    assert joint[4, 4].item() == pytest.approx((y[:, 2] == 0).float().mean().item())


def test_with_no_memory_the_gradient_is_that_of_the_divergence():
    x, y = images(50).requires_grad_(True), labels()
    steering = ShareSteering(ATTRIBUTES, y, memory=1)
    (got,) = torch.autograd.grad(steering.loss(ToyScorer()(x)), x)
    p, q = shares(x), steering.data
    parts = [(p.diagonal(), q.diagonal())]
    parts += [(p[BLOCKS[i], BLOCKS[j]], q[BLOCKS[i], BLOCKS[j]]) for i, j in ("ab", "ac", "bc")]
    total = sum((mine * torch.log(mine / theirs)).sum() for mine, theirs in parts)
    (expected,) = torch.autograd.grad(
        total, x
    )  # the + 1 of d(p ln p) drops out, as shares sum to one
    assert torch.allclose(got, expected, atol=1e-6)


def test_descending_it_brings_shares_and_pairs_to_the_data():
    x, y = images(400).requires_grad_(True), labels()
    steering = ShareSteering(ATTRIBUTES, y, memory=400)
    optimiser = torch.optim.Adam([x], 0.05)
    for _ in range(200):
        optimiser.zero_grad()
        steering.loss(ToyScorer()(x)).backward()
        optimiser.step()
    off = torch.ones_like(steering.data, dtype=torch.bool)
    for block in BLOCKS.values():
        off[block, block] = False
    gap = (shares(x) - steering.data).abs()
    assert gap[off].max() < 0.03 and gap.diagonal().max() < 0.03


def test_at_the_data_it_is_silent_and_its_state_survives():
    steering = ShareSteering(ATTRIBUTES, labels(), memory=10**9)
    assert steering.loss(ToyScorer()(images(20))).abs().item() < 1e-5
    moved = ShareSteering(ATTRIBUTES, labels(), memory=100)
    moved.loss(ToyScorer()(images(80)))
    other = ShareSteering(ATTRIBUTES, labels(), memory=100)
    other.load_state_dict(moved.state_dict())
    x = images(30, seed=1)
    logits = ToyScorer()(x)
    assert other.loss(logits).item() == pytest.approx(moved.loss(logits).item())
