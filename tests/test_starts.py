"""Starts: near the boundary, drawn once, shared by every method; against a slow, obvious selection."""

from functools import partial

import numpy as np
import pytest
import torch

from editbench.bank.build import build_bank
from editbench.bank.spec import BankSpec, StartsSpec, far_starts
from editbench.bank.starts import boundary_distance, draw_targets, set_target
from editbench.base.errors import EditbenchError, UnknownName
from editbench.networks.roles import Networks
from tests.toy_world import ATTRIBUTES, ToyGenerator, ToyScorer

NAMES = ["a", "b", "c"]


def models():
    return Networks(ToyGenerator(), ToyScorer("teacher", 2.0), ToyScorer("judge"))


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
        second = np.delete(c, k).max()
        q.append(max(a, b, (c[k] - second) / sigma[2 + k]))
    nearest = set((np.argsort(q)[:100] + first).tolist())
    starts = draw_targets(StartsSpec(100, pool=1 / 6), bank)  # of 600 candidates
    assert set(np.concatenate([s.index for s in starts.values()]).tolist()) == nearest
    assert starts["a"].threshold == pytest.approx(np.sort(q)[99], rel=1e-5)


def test_targets_are_other_classes_and_neighbours_where_ordered(bank):
    starts = draw_targets(StartsSpec(200, pool=0.6), bank)
    labels = ATTRIBUTES.labels(torch.from_numpy(bank.array("judge").range(0, 2000))).numpy()
    for k, name in enumerate(NAMES):
        s = starts[name]
        assert np.array_equal(s.source, labels[s.index, k])
        assert (s.source != s.target).all()
        if ATTRIBUTES[name].ordered:
            assert (abs(s.source - s.target) == 1).all()


def test_a_common_target_leaves_out_the_starts_that_have_it(bank):
    drawn = draw_targets(StartsSpec(90, pool=0.6), bank)["c"]
    for target in range(len(ATTRIBUTES["c"].classes)):
        found = set_target(drawn, target)
        kept = [place for place, label in enumerate(drawn.source) if label != target]
        assert found.index.tolist() == drawn.index[kept].tolist()
        assert found.source.tolist() == drawn.source[kept].tolist()
        assert found.target.tolist() == [target] * len(kept)
        assert found.target.dtype == drawn.target.dtype
    assert set_target(drawn, None) is drawn


def test_a_pool_has_a_sample_at_least_and_no_more_than_there_are():
    assert StartsSpec(1, pool=0.001).pool_size(100) == 1
    assert StartsSpec(1, pool=0.25).pool_size(100) == 25
    assert StartsSpec(1, pool=1).pool_size(100) == 100
    assert StartsSpec(1, pool=0.25, near="any").pool_size(100) == 100


def test_a_draw_is_repeatable_disjoint_and_even(bank):
    spec = StartsSpec(200, pool=0.6)
    one, two = draw_targets(spec, bank), draw_targets(spec, bank)
    every = np.concatenate([one[name].index for name in NAMES])
    assert len(set(every.tolist())) == 200
    for name in NAMES:
        assert np.array_equal(one[name].index, two[name].index)
        assert np.array_equal(one[name].target, two[name].target)
    assert [len(one[name]) for name in NAMES] == [67, 67, 66]
    other = draw_targets(StartsSpec(200, pool=0.6, seed=1), bank)
    assert not np.array_equal(one["a"].index, other["a"].index)


def test_near_target_looks_at_the_asked_attribute_alone(bank):
    joint = draw_targets(StartsSpec(60, pool=0.15), bank)
    single = draw_targets(StartsSpec(60, pool=0.15, near="target"), bank)
    logits = bank.array("judge").range(0, 2000)
    distance = boundary_distance(logits, bank.sigma["judge"], ATTRIBUTES)
    for k, name in enumerate(NAMES):
        assert distance[single[name].index, k].max() < distance[joint[name].index, k].max()


def test_near_any_draws_from_the_whole_test_split_alike(bank):
    first, last = bank.spec.split("test")
    logits = bank.array("judge").range(0, 2000)
    whole = draw_targets(
        StartsSpec(last - first, near="any"), bank
    )  # no pool: every test sample can be a start
    assert sorted(np.concatenate([s.index for s in whole.values()]).tolist()) == list(
        range(first, last)
    )
    labels = ATTRIBUTES.labels(torch.from_numpy(logits)).numpy()
    for k, name in enumerate(NAMES):
        assert np.array_equal(whole[name].source, labels[whole[name].index, k])
        assert np.isnan(whole[name].threshold)
        assert (whole[name].source != whole[name].target).all()
    # over many draws every quarter of the split, ordered by its distance from the boundaries, is drawn equally often
    distance = boundary_distance(logits, bank.sigma["judge"], ATTRIBUTES).max(1)[first:last]
    quarter = np.argsort(np.argsort(distance)) * 4 // (last - first)
    counts = np.zeros(4)
    for seed in range(40):
        found = draw_targets(StartsSpec(50, seed=seed, near="any"), bank)
        counts += np.bincount(
            quarter[np.concatenate([s.index for s in found.values()]) - first], minlength=4
        )
    assert counts.sum() == 2000 and (abs(counts - 500) < 4 * np.sqrt(2000 * 0.25 * 0.75)).all()


def test_a_larger_draw_begins_with_the_smaller_one(bank):
    for near in ("joint", "target", "any"):
        few = draw_targets(StartsSpec(31, pool=0.3, near=near), bank)
        many = draw_targets(StartsSpec(90, pool=0.3, near=near), bank)
        for name in NAMES:
            targets = dict(zip(many[name].index.tolist(), many[name].target.tolist()))
            for start, target in zip(few[name].index.tolist(), few[name].target.tolist()):
                assert targets[start] == target


def test_near_target_has_a_pool_for_each_attribute_that_the_others_do_not_change(bank):
    logits = bank.array("judge").range(*bank.spec.split("test"))
    distance = boundary_distance(logits, bank.sigma["judge"], ATTRIBUTES)
    # 60 candidates are near each boundary: 180 starts of three attributes take all of them
    starts = draw_targets(StartsSpec(180, pool=0.1, near="target"), bank)
    first = bank.spec.split("test")[0]
    for k, name in enumerate(NAMES):
        nearest = np.argsort(distance[:, k], kind="stable")[:60] + first
        assert sorted(starts[name].index) == sorted(nearest)
        assert starts[name].threshold == pytest.approx(np.sort(distance[:, k])[59])
    two = draw_targets(StartsSpec(120, pool=0.1, near="target"), bank.select(["a", "c"]))
    assert np.array_equal(two["c"].index, starts["c"].index)
    assert np.array_equal(two["c"].target, starts["c"].target)


def test_distances_are_of_the_target_and_of_the_nearest_other(bank):
    first, last = bank.spec.split("test")
    logits = bank.array("judge").range(first, last)
    distance = boundary_distance(logits, bank.sigma["judge"], ATTRIBUTES)
    starts = draw_targets(StartsSpec(30, pool=0.3), bank)["b"]
    rows = distance[starts.index - first]
    assert np.allclose(starts.own, rows[:, 1])
    assert np.allclose(starts.other, np.minimum(rows[:, 0], rows[:, 2]))
    assert starts.distances() == pytest.approx(
        {
            "target": np.median(rows[:, 1]),
            "nearest_other": np.median(np.minimum(rows[:, 0], rows[:, 2])),
        }
    )


def test_starts_far_from_their_boundary_are_warned_of_where_near_ones_were_asked_for():
    assert far_starts({"target": 0.5}, "joint") == "" and far_starts({}, "joint") == ""
    assert "0.93 sigma from the target's boundary" in far_starts({"target": 0.93}, "joint")
    assert far_starts({"target": 0.93}, "target") and not far_starts({"target": 0.93}, "any")


def test_two_classes_that_tie_are_on_the_boundary_whatever_the_third_has():
    # three classes at a third each: the log-odds of the best one are ln(1/2), and yet it is a tie
    logits = np.array([[2.0, -3.0, 1.0, 1.0, 1.0], [2.0, -3.0, 5.0, 5.0, -9.0]])
    distance = boundary_distance(logits, np.array([2.0, 3.0, 1.0, 1.0, 1.0]), ATTRIBUTES)
    assert distance.tolist() == [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]


def test_a_selection_of_the_bank_draws_near_its_own_boundaries_alone(bank):
    part = bank.select(["c", "a"])  # in the bank's order, whatever is asked
    assert part.judge_attributes.names == ("a", "c") and part.select(["a", "c"]) is part
    logits = bank.array("judge").range(0, 2000)[:, [0, 2, 3, 4]]
    assert np.array_equal(part.array("judge").range(0, 2000), logits)
    assert np.array_equal(part.array("judge").take(np.array([7, 3])), logits[[7, 3]])
    assert np.array_equal(np.concatenate(list(part.array("judge").stream())), logits)
    assert np.array_equal(part.sigma["judge"], bank.sigma["judge"][[0, 2, 3, 4]])
    fit = part.split("fit")
    assert torch.equal(fit.logits, bank.split("fit").logits[:, [0, 2, 3, 4]])
    assert fit.w is bank.split("fit").w and bank.select(NAMES) is bank
    with pytest.raises(UnknownName, match="unknown attribute 'd'"):
        bank.select(["a", "d"])
    starts = draw_targets(StartsSpec(60, pool=0.1), part)
    first, last = bank.spec.split("test")
    distance = boundary_distance(
        bank.array("judge").range(first, last), bank.sigma["judge"], ATTRIBUTES
    )
    nearest = np.argsort(distance[:, [0, 2]].max(1), kind="stable")[:60] + first
    assert set(starts) == {"a", "c"}
    assert sorted([*starts["a"].index, *starts["c"].index]) == sorted(nearest)


def test_too_many_starts_and_a_wrong_rule_say_what_to_change(bank):
    with pytest.raises(
        EditbenchError,
        match=r"starts\.n=601 exceeds the pool of 60.*: raise bank\.n, or lower starts\.n$",
    ):
        draw_targets(StartsSpec(601, pool=0.1), bank)
    with pytest.raises(
        EditbenchError,
        match=r"pool of 60 .*: raise bank\.n, raise starts\.pool, or lower starts\.n$",
    ):
        draw_targets(StartsSpec(61, pool=0.1), bank)
    with pytest.raises(
        EditbenchError,
        match=r"starts\.n=190 over 3 attributes means 64 per attribute.*its pool of 60",
    ):
        draw_targets(StartsSpec(190, pool=0.1, near="target"), bank)
    with pytest.raises(
        EditbenchError,
        match=r"starts\.n=5000 exceeds the \d+ samples of the test split.*raise bank",
    ):
        draw_targets(StartsSpec(5000, near="any"), bank)
    with pytest.raises(EditbenchError, match=r"starts\.near=far must be"):
        draw_targets(StartsSpec(10, pool=0.1, near="far"), bank)
