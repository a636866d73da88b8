"""Logit scatter: slopes by hand, least squares in a linear world, failures that stay in the denominator."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, iqr

from editbench.base.errors import EditbenchError
from editbench.figures.theme import make_theme
from editbench.metrics.logit_scatter.figure import scatter_figure, scatter_points
from editbench.metrics.logit_scatter.metric import LogitScatter
from editbench.report import load
from editbench.walk.trajectory import Trajectories
from tests.fake_records import fake_run, metric_rows, report_of
from tests.made_walks import TOY, check_rows, straight_walks, walks_of
from tests.toy import BINARY, check_splits

HAND = walks_of(
    {
        1: [(-1, -2, 0), (0, -1.5, 0), (1, -1, 0), (5, 9, 0)],  # stops at (1, -1): slope 1 / 2
        2: [(-1, -1, 0), (-0.5, -2, 0)],  # never crosses: slope -1 / 0.5, the right way
        3: [(-1, -1, 0), (-2, -1.5, 0)],  # the wrong way: slope -0.5 / -1
        4: [(2, -1, 0), (-2, 1, 0)],  # towards class 0
        5: [(-1, -3, 0), (-0.5, 0, 0), None],  # diverges before it crosses
        6: [(-1, -1, 0), (1, 0, 0), None],  # crosses, diverges after
        7: [(-1, 2, 0), (1, 7, 0)],  # another class of b
        8: [(-1, -1, 0), (-1, -4, 0)],  # x never moves: no slope
    },
    targets={4: 0},
    sigma=(1.0, 1.0, 1.0),
)


def value(result, name: str) -> float:
    return result.rows.set_index("metric").loc[name, "value"]


def test_by_hand():
    result = LogitScatter("b", other_class="no", min_points=1)(HAND)
    slopes = {1: 0.5, 2: -2.0, 3: 0.5, 4: -0.5, 6: 0.5}
    found = result.samples[result.samples["metric"] == "scatter_slope"].set_index("start")["value"]
    assert found.to_dict() == pytest.approx(slopes)
    assert value(result, "scatter_slope") == 0.5
    assert value(result, "scatter_slope_iqr") == pytest.approx(iqr(list(slopes.values())))
    assert value(result, "scatter_ratio") == pytest.approx(np.mean([0.5, 2.0, 0.5, 0.5, 0.5]))
    shares = result.rows.set_index("metric").loc[["scatter_crossed", "scatter_right_way"]]
    assert shares["value"].tolist() == [3 / 7, 4 / 7] and shares["count"].tolist() == [7, 7]
    interval = binomtest(3, 7).proportion_ci(method="wilson")
    assert tuple(shares.iloc[0][["low", "high"]]) == pytest.approx((interval.low, interval.high))
    ends = result.samples.pivot(index="start", columns="metric", values="value")
    assert ends.loc[4, ["scatter_x0", "scatter_y0", "scatter_x1", "scatter_y1"]].tolist() == [
        2,
        -1,
        -2,
        1,
    ]
    assert ends.loc[1, ["scatter_x1", "scatter_y1"]].tolist() == [1, -1]
    assert np.isnan(ends.loc[5, "scatter_x1"])
    assert ends.loc[5, "scatter_x0"] == -1
    assert 7 not in ends.index


def test_a_walk_whose_codes_diverged_has_no_slope_whatever_its_picture_shows():
    """Start 2 ends in a step that is not finite, although the judge gave it logits."""
    table = HAND.table
    last = (table["start"] == 2) & (table["step"] == 1)
    broken = Trajectories(table.assign(finite=table["finite"] & ~last), BINARY, "a", np.ones(3))
    found = LogitScatter("b", other_class="no", min_points=1)(broken)
    slopes = found.samples[found.samples["metric"] == "scatter_slope"]
    assert sorted(slopes["start"]) == [1, 3, 4, 6]
    # It stays in the denominator, as one that did not go the right way.
    right = found.rows.set_index("metric").loc["scatter_right_way"]
    assert (right["value"], right["count"]) == (3 / 7, 7)


def test_the_class_combination_chooses_the_starts():
    only = LogitScatter("b", source="yes", other_class=0, min_points=1)(HAND)
    assert only.samples["start"].unique().tolist() == [4]
    assert (
        value(
            LogitScatter("b", source="no", other_class="yes", min_points=1)(HAND), "scatter_slope"
        )
        == 2.5
    )
    nobody = LogitScatter("b", source="yes", other_class="yes")(HAND)
    assert nobody.rows["note"].eq("no start has these classes").all()
    assert nobody.rows["count"].eq(0).all()
    assert len(LogitScatter("b")(HAND).samples.query("metric == 'scatter_x0'")) == 8


def test_a_straight_walk_in_a_linear_world_has_the_slope_of_the_normals():
    walks, slopes = straight_walks(overlap=0.7, n=40, steps=60)
    found = LogitScatter("b")(walks)
    samples = found.samples[found.samples["metric"] == "scatter_slope"].set_index("start")["value"]
    expected = slopes[1] / slopes[0]
    np.testing.assert_allclose(samples, expected, rtol=1e-4)  # the same both ways
    assert value(found, "scatter_slope") == pytest.approx(expected, rel=1e-4)
    assert value(found, "scatter_ratio") == pytest.approx(abs(expected), rel=1e-4)
    assert value(found, "scatter_right_way") == 1.0


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(1, 39), max_size=4), seed=st.integers(0, 2**20))
def test_any_split_and_permutation_gives_the_same_number(cuts, seed):
    metric = LogitScatter("a", draws=50)
    check_splits(metric, TOY, cuts, seed)


def test_many_classes_are_read_as_log_odds_towards_the_asked_class():
    result = LogitScatter("a", min_points=1)(TOY)
    ends = result.samples.pivot(index="start", columns="metric", values="value")
    first = TOY.table.drop_duplicates("start").set_index("start")
    for start, row in first[first["finite"]].iterrows():
        logits = row[[c for c in first if c.startswith("logit:kind")]].to_numpy(float)
        odds = logits[row["target"]] - np.log(np.exp(np.delete(logits, row["target"])).sum())
        assert ends.loc[start, "scatter_x0"] == pytest.approx(odds, abs=1e-5)
        assert ends.loc[start, "scatter_y0"] == pytest.approx(row["logit:a"], abs=1e-6)


def test_rows_keep_the_contract_and_a_nan_walk_is_a_failure():
    metric = LogitScatter("a", draws=200, min_points=1)
    result = check_rows(metric, TOY)
    assert set(result.rows["metric"]) | set(result.samples["metric"]) == set(metric.produces)
    assert len(result.rows.dropna(subset=["value", "low"])) == 5
    assert result.rows.set_index("metric").loc["scatter_crossed", "count"] == 40


def test_a_pair_that_is_none_says_so():
    for other, note in (
        ("kind", "the target itself"),
        ("beard", "metric.logit_scatter.other='beard' is none of"),
    ):
        result = LogitScatter(other)(TOY)
        assert result.rows["note"].str.contains(note).all() and result.rows["value"].isna().all()
        assert result.rows["count"].eq(0).all() and not len(result.samples)
    empty = LogitScatter("a")(dataclasses.replace(TOY, table=TOY.table.iloc[:0]))
    assert empty.rows["count"].eq(0).all() and not len(empty.samples)
    assert LogitScatter("b")(HAND).rows["note"].str.contains("fewer than 30").sum() == 3


def test_the_other_attribute_is_the_first_evaluated_one_where_none_is_named():
    found = LogitScatter(min_points=1)(HAND)
    named = LogitScatter("b", min_points=1)(HAND)
    pd.testing.assert_frame_equal(found.rows, named.rows)
    pd.testing.assert_frame_equal(found.samples, named.samples)
    # Of another target it is the first of all.
    walks = dataclasses.replace(HAND, attribute="b")
    metric = LogitScatter(other_class="yess")
    with pytest.raises(EditbenchError, match="class of attribute 'a' 'yess'"):
        metric.check(BINARY, "b")
    ends = LogitScatter(min_points=1)(walks).samples.query("metric == 'scatter_y0'")
    assert set(ends["variant"]) == {"a"}
    LogitScatter().check(BINARY.select(["b"]), "b")
    alone = dataclasses.replace(HAND, attributes=BINARY.select(["a"]), sigma=np.ones(1))
    assert LogitScatter()(alone).rows["note"].eq("no other attribute is evaluated").all()


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"other": "bb"}, "attribute in metric.logit_scatter.other 'bb'. Did you mean 'b'"),
        ({"other": "b", "target": "aa"}, "metric.logit_scatter.target 'aa'. Did you mean 'a'"),
        ({"other": "b", "source": "yess"}, "class of attribute 'a' 'yess'. Did you mean 'yes'"),
        ({"other": "b", "source": True}, "metric.logit_scatter.source=true must be a whole number"),
        ({"other": "b", "other_class": 2}, "other_class=2 is no class of the attribute 'b'"),
    ],
)
def test_what_there_is_not_is_refused_before_the_work(options, reason):
    with pytest.raises(EditbenchError, match=reason):
        LogitScatter(**options).check(BINARY, "a")


def test_what_is_not_drawn_of_a_job_is_not_refused():
    # A sweep over attributes draws the edits of one of them.
    LogitScatter("b", source="yess", target="b").check(BINARY, "a")
    LogitScatter("b").check(BINARY.select(["a", "c"]), "a")


def test_the_figure_draws_every_start_from_its_cross_to_its_dot(tmp_path):
    result = LogitScatter("b", other_class="no", min_points=1)(HAND)
    rows = pd.concat(
        [metric_rows(), result.rows.assign(version=1, higher_is_better=None)], ignore_index=True
    )
    figure = "editbench.metrics.logit_scatter.figure.draw"
    metrics = {"logit_scatter": {"other": "b", "figure": figure}}
    fake_run(tmp_path, "alpha", "a", rows, samples=result.samples, metrics=metrics)
    results = load(tmp_path)
    points = scatter_points(results)
    older = dataclasses.replace(results, samples=results.samples.assign(variant=""))
    pd.testing.assert_frame_equal(scatter_points(older), points)
    assert points["start"].tolist() == [1, 2, 3, 4, 6, 8] and set(points["other"]) == {
        "b"
    }  # 5 failed: it has no end
    figure = scatter_figure(points, results, make_theme(results.runs["label"]))
    crosses, dots = (line.get_xydata() for line in figure.axes[0].lines[:2])
    np.testing.assert_allclose(crosses, points[["scatter_x0", "scatter_y0"]])
    np.testing.assert_allclose(dots, points[["scatter_x1", "scatter_y1"]])
    assert "crossed 43 %, right way 57 %" in figure.axes[0].get_title()
    page = report_of(tmp_path, draws=["scatter_a_b"])
    assert (page.parent / "figures" / "scatter_a_b.png").exists()
    assert "Logits before and after: a against b" in page.read_text()
