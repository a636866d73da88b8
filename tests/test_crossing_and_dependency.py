"""Crossing accuracy and dependency: tables by hand, closed forms of a linear world, splits and permutations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError
from editbench.metrics.attribute_dependency.metric import AttributeDependency
from editbench.metrics.crossing_accuracy.metric import CrossingAccuracy
from editbench.walk.trajectory import Trajectories
from tests.made_walks import HAND, TOY, check_rows, straight_walks, toy_walks, walks_of
from tests.toy import check_splits

METRICS = [
    CrossingAccuracy(),
    AttributeDependency(draws=100),
    AttributeDependency(draws=100, pooling="rows"),
]


def rows_of(result, name: str) -> pd.DataFrame:
    return result.rows[result.rows["metric"] == name]


def test_crossing_by_hand():
    result = CrossingAccuracy()(HAND)
    value = result.rows.set_index("metric")["value"]
    assert value.to_dict() == {
        "accuracy": 0.25,
        "success_rate": 0.5,
        "off_target_flips": 0.5,
        "path_length": 0.75,
    }
    assert result.rows.set_index("metric")["count"].to_dict() == {
        "accuracy": 4,
        "success_rate": 4,
        "off_target_flips": 2,
        "path_length": 2,
    }
    low, high = rows_of(result, "accuracy")[["low", "high"]].to_numpy()[0]
    expected = binomtest(1, 4).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high))
    samples = result.samples.pivot(index="start", columns="metric", values="value")
    assert samples["accuracy"].to_dict() == {1: 1, 4: 0, 6: 0, 9: 0}
    assert samples["success_rate"].to_dict() == {1: 1, 4: 1, 6: 0, 9: 0}


def test_dependency_by_hand():
    result = AttributeDependency(min_points=1)(HAND)
    ad = rows_of(result, "ad").set_index("x")
    assert len(ad) == 12 and ad.index[0] == 0.125
    # Start 1 goes 0, 0.8, 1.5, 3.0; b changes by 0.5 / 2 each, c by 1 / 4, on the straight lines
    # between. Start 4 goes 0, 1.5 in one step, and b changes by 2 / 2. Start 9 gets to 0.5.
    assert ad["count"].tolist() == [3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]
    share = 0.625 / 1.5
    assert ad.loc[0.625, "value"] == pytest.approx((0 + share * 0.5) / 2)
    assert rows_of(result, "ad_max").set_index("x").loc[0.625, "value"] == pytest.approx(share / 2)
    assert rows_of(result, "ad_signed").set_index("x").loc[0.625, "value"] == pytest.approx(
        -share * 0.5 / 2
    )
    assert rows_of(result, "wrong_direction")[["value", "count"]].to_numpy()[0].tolist() == [2, 7]
    at = rows_of(result, "ad_at")
    # start 1 passes x = 1 at 2/7 of its second step, start 4 at 2/3 of its first
    expected = {1: 2 / 7 * 0.25, 4: 2 / 3 * 0.5}
    assert at["value"].item() == pytest.approx(np.mean(list(expected.values())))
    assert at["count"].item() == 2
    assert result.samples.set_index("start")["value"].to_dict() == pytest.approx(expected)


def test_dependency_of_a_linear_world_is_the_ratio_of_the_slopes():
    found, slopes = straight_walks(overlap=0.8, n=30, steps=80)
    slopes = slopes / found.sigma
    ratio = np.abs(slopes[1:] / slopes[0])
    result = AttributeDependency()(found)
    at = rows_of(result, "ad_at")
    assert at["value"].item() == pytest.approx(ratio.mean(), rel=1e-4) and at["count"].item() == 30
    np.testing.assert_allclose(result.samples["value"], ratio.mean(), rtol=1e-3)
    np.testing.assert_allclose([at["low"].item(), at["high"].item()], ratio.mean(), rtol=1e-3)
    for _, row in rows_of(result, "ad").iterrows():
        reach = found.table.assign(x=found.effect).groupby("start")["x"].max() >= row["x"]
        assert row["count"] == reach.sum() and row["note"] == ""
        # The world is linear: at effect x every start depends by ratio * x, and none is in between.
        for name in ("value", "low", "high"):
            assert row[name] == pytest.approx(ratio.mean() * row["x"], rel=1e-3)


def slow_passages(found: Trajectories, centre: float) -> dict[int, float]:
    """Start -> AD where its walk first passes an effect: one step after the other."""
    changes = found.dependency(signed=True)
    out = {}
    for start in sorted(set(found.table["start"])):
        before = None
        for place in np.flatnonzero(found.table["start"] == start):
            x = found.effect[place]
            if not (found.table["finite"].iloc[place] and np.isfinite(changes[place]).all()):
                continue
            if before is not None and x >= centre:
                share = (centre - found.effect[before]) / (x - found.effect[before])
                read = (1 - share) * changes[before] + share * changes[place]
                out[start] = float(np.abs(read).mean())
                break
            before = place
    return out


def test_a_start_counts_once_in_a_bin_as_a_slow_loop_has_it():
    found = AttributeDependency(min_points=1)(TOY)
    for _, row in rows_of(found, "ad").iterrows():
        values = slow_passages(TOY, row["x"])
        assert row["count"] == len(values)
        if values:
            assert row["value"] == pytest.approx(np.mean(list(values.values())), rel=1e-12)
    assert rows_of(found, "ad")["count"].max() > 5
    level = rows_of(AttributeDependency(at=0.625)(TOY), "ad_at").iloc[0]
    bin_ = rows_of(found, "ad").set_index("x").loc[0.625]
    assert (level["value"], level["count"]) == pytest.approx((bin_["value"], bin_["count"]))


def test_rows_that_linger_weigh_nothing_unless_rows_are_pooled():
    """A walk that repeats its last step 30 times: the papers' pooling counts it 31 times."""
    quick = {k: [(-1, 1, 1), (0.5, -1, 1)] for k in range(5)}
    slow = {9: [(-1, 1, 1), *[(0.5, 1, 1)] * 31]}
    found = walks_of(quick | slow)
    once = rows_of(AttributeDependency(min_points=1)(found), "ad").set_index("x").loc[1.375]
    assert once["count"] == 6 and once["value"] == pytest.approx(5 / 6 * 0.5 * 1.375 / 1.5)
    pooled = AttributeDependency(min_points=1, pooling="rows")(found)
    row = rows_of(pooled, "ad").set_index("x").loc[1.625]
    assert row["count"] == 36 and row["value"] == pytest.approx(5 * 0.5 / 36)
    with pytest.raises(EditbenchError, match="pooling=mean must be one of passage, rows"):
        AttributeDependency(pooling="mean")


def test_pooled_rows_are_those_of_a_slow_loop():
    found = rows_of(AttributeDependency(min_points=1, pooling="rows")(TOY), "ad")
    x, dependency = TOY.effect, TOY.dependency().mean(1)
    sound = TOY.table["finite"].to_numpy(bool) & (TOY.table["step"].to_numpy() > 0)
    for b, row in found.reset_index(drop=True).iterrows():
        inside = sound & (x >= 0.25 * b) & (x < 0.25 * (b + 1))
        assert row["count"] == inside.sum()
        if inside.any():
            assert row["value"] == pytest.approx(dependency[inside].mean(), rel=1e-9)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(1, 39), max_size=4), seed=st.integers(0, 2**20))
def test_any_split_and_permutation_gives_the_same_number(metric, cuts, seed):
    check_splits(metric, TOY, cuts, seed)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_rows_keep_the_contract(metric):
    result = check_rows(metric, TOY)
    assert set(result.rows["metric"]) == set(metric.produces)
    for name, state in metric.metric_state.items():
        assert all(part.dtype in (torch.float64, torch.int64) for part in state), name


def test_a_walk_of_nan_is_a_failure_and_gives_no_points():
    first = TOY.table["start"].unique()[7]
    crossing = CrossingAccuracy()(TOY)
    assert rows_of(crossing, "accuracy")["count"].item() == 40
    assert crossing.samples[crossing.samples["start"] == first]["value"].tolist() == [0, 0]
    dependency = AttributeDependency()
    dependency.update(TOY)
    names = ("success", "points", "wrong", "in_bin", "ad", "ad_signed", "ad_max")
    stats = dependency.sorted_columns("at", *names)
    place = np.flatnonzero(stats["start"] == first).item()
    assert stats["points"][place] == 0 and np.isnan(stats["at"][place])
    assert all(np.isfinite(stats[name][place]).all() for name in names)


def test_notes_say_why_a_number_should_not_be_read():
    few = AttributeDependency()(HAND)
    assert rows_of(few, "ad")["note"].str.contains("starts are fewer than 30").all()
    pooled = AttributeDependency(pooling="rows")(HAND)
    assert rows_of(pooled, "ad")["note"].str.contains("points are fewer than 30").all()
    never = walks_of(
        {k: [(-1, 1, 1), (-0.9, 1, 1)] for k in range(12)} | {20: [(-1, 1, 1), (1.5, 1, 1)]}
    )
    rare = AttributeDependency(min_points=1)(never)
    assert rows_of(rare, "ad")["note"].str.contains("success rate 7.7 % is below 10 %").all()
    assert np.isfinite(rows_of(rare, "ad_at")["value"].item())
    nobody = AttributeDependency(at=2.9)(HAND)
    assert "no start" not in rows_of(nobody, "ad_at")["note"].item()
    assert (
        "no start reaches x = 9" in rows_of(AttributeDependency(at=9)(HAND), "ad_at")["note"].item()
    )


def test_one_attribute_has_nothing_to_depend_on():
    alone = Attributes([Attribute("a", ("no", "yes"))])
    result = AttributeDependency()(toy_walks(alone, "a"))
    values = result.rows[result.rows["metric"] != "wrong_direction"]
    assert values["value"].isna().all() and values["low"].isna().all()
    assert values["note"].str.contains("one attribute only").all() and len(result.samples) == 0
    assert (
        rows_of(CrossingAccuracy()(toy_walks(alone, "a")), "off_target_flips")["value"].item() == 0
    )


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_no_starts_is_a_note_not_a_crash(metric):
    result = metric(dataclasses.replace(TOY, table=TOY.table.iloc[:0]))
    assert (result.rows["count"] == 0).all() and len(result.samples) == 0
