"""Starts: near the boundary, drawn once, shared by every method; against a slow, obvious selection."""

from functools import partial

import numpy as np
import pytest
import torch

from editbench.bank.bank import BankSpec
from editbench.bank.build import build_bank
from editbench.bank.starts import StartsSpec, boundary_distance, draw_targets
from editbench.base.errors import EditbenchError
from tests.toy_world import ATTRIBUTES, ToyGenerator, ToyScorer

NAMES = ["a", "b", "c"]


def models():
    return ToyGenerator(), ToyScorer("teacher", 2.0), ToyScorer("judge")


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return build_bank(
        tmp_path_factory.mktemp("bank") / "b",
        "id",
        BankSpec(2000, block=50, shard=500),
        partial(models),
    )


def test_the_pool_is_the_jointly_nearest_of_the_test_split(bank):
    first, last = bank.spec.split("test")
    logits, sigma = bank.array("judge").range(0, 2000), bank.sigma["judge"]
    q = []
    for i in range(first, last):  # slow and obvious
        a, b = abs(logits[i, 0]) / sigma[0], abs(logits[i, 1]) / sigma[1]
        c = logits[i, 2:].astype(np.float64)
        k = int(c.argmax())
        rest = np.log(np.exp(np.delete(c, k)).sum())
        q.append(max(a, b, abs(c[k] - rest) / sigma[2 + k]))
    nearest = set((np.argsort(q)[:100] + first).tolist())
    starts = draw_targets(StartsSpec(100, pool=0.05), bank, NAMES)
    assert set(np.concatenate([s.index for s in starts.values()]).tolist()) == nearest
    assert starts["a"].threshold == pytest.approx(np.sort(q)[99], rel=1e-5)


def test_targets_are_other_classes_and_neighbours_where_ordered(bank):
    starts = draw_targets(StartsSpec(200, pool=0.2), bank, NAMES)
    labels = ATTRIBUTES.labels(torch.from_numpy(bank.array("judge").range(0, 2000))).numpy()
    for k, name in enumerate(NAMES):
        s = starts[name]
        assert np.array_equal(s.source, labels[s.index, k])
        assert (s.source != s.target).all()
        if ATTRIBUTES[name].ordered:
            assert (abs(s.source - s.target) == 1).all()


def test_a_draw_is_repeatable_disjoint_and_even(bank):
    spec = StartsSpec(200, pool=0.2)
    one, two = draw_targets(spec, bank, NAMES), draw_targets(spec, bank, NAMES)
    every = np.concatenate([one[name].index for name in NAMES])
    assert len(set(every.tolist())) == 200
    for name in NAMES:
        assert np.array_equal(one[name].index, two[name].index) and np.array_equal(
            one[name].target, two[name].target
        )
        assert 40 < len(one[name]) < 95
    other = draw_targets(StartsSpec(200, pool=0.2, seed=1), bank, NAMES)
    assert not np.array_equal(one["a"].index, other["a"].index)


def test_near_target_looks_at_the_asked_attribute_alone(bank):
    joint = draw_targets(StartsSpec(60, pool=0.05), bank, NAMES)
    single = draw_targets(StartsSpec(60, pool=0.05, near="target"), bank, NAMES)
    logits = bank.array("judge").range(0, 2000)
    distance = boundary_distance(logits, bank.sigma["judge"], ATTRIBUTES)
    for k, name in enumerate(NAMES):
        assert distance[single[name].index, k].max() < distance[joint[name].index, k].max()


def test_near_any_draws_from_the_whole_test_split_alike(bank):
    first, last = bank.spec.split("test")
    logits = bank.array("judge").range(0, 2000)
    whole = draw_targets(
        StartsSpec(last - first, near="any"), bank, NAMES
    )  # no pool: every test sample can be a start
    assert sorted(np.concatenate([s.index for s in whole.values()]).tolist()) == list(
        range(first, last)
    )
    labels = ATTRIBUTES.labels(torch.from_numpy(logits)).numpy()
    for k, name in enumerate(NAMES):
        assert np.array_equal(whole[name].source, labels[whole[name].index, k]) and np.isnan(
            whole[name].threshold
        )
        assert (whole[name].source != whole[name].target).all()
    # over many draws every quarter of the split, ordered by its distance from the boundaries, is drawn equally often
    distance = boundary_distance(logits, bank.sigma["judge"], ATTRIBUTES).max(1)[first:last]
    quarter = np.argsort(np.argsort(distance)) * 4 // (last - first)
    counts = np.zeros(4)
    for seed in range(40):
        found = draw_targets(StartsSpec(50, seed=seed, near="any"), bank, NAMES)
        counts += np.bincount(
            quarter[np.concatenate([s.index for s in found.values()]) - first], minlength=4
        )
    assert counts.sum() == 2000 and (abs(counts - 500) < 4 * np.sqrt(2000 * 0.25 * 0.75)).all()


def test_too_many_starts_and_a_wrong_rule_say_what_to_change(bank):
    with pytest.raises(
        EditbenchError, match=r"starts\.n=500 exceeds the pool of 60.*raise bank\.n or starts\.pool"
    ):
        draw_targets(StartsSpec(500, pool=0.03), bank, NAMES)
    with pytest.raises(
        EditbenchError,
        match=r"starts\.n=5000 exceeds the \d+ samples of the test split.*raise bank",
    ):
        draw_targets(StartsSpec(5000, near="any"), bank, NAMES)
    with pytest.raises(EditbenchError, match=r"starts\.near=far must be"):
        draw_targets(StartsSpec(10, pool=0.1, near="far"), bank, NAMES)
