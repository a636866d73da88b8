"""Everything at matched effect: a linear world in closed form, interpolation against numpy, and the report's tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from editbench.base.errors import EditbenchError
from editbench.metrics.attribute_dependency.metric import AttributeDependency
from editbench.metrics.matched_effect.metric import MatchedEffect
from editbench.report.load import load
from editbench.report.matched import matched_differences, matched_table
from editbench.walk.editor import Editor, FitReport
from editbench.walk.trajectory import Trajectories
from tests.fake_records import fake_run, metric_rows, report_of
from tests.made_walks import walks_of
from tests.toy import MIXED, check_splits, fit_data, make_walk, trajectories

EFFECTS = (0.5, 1.0, 1.5, 2.0)


class Along(Editor):
    """A fixed direction of W, towards the target's side."""

    def __init__(self, direction, delta):
        super().__init__()
        self.direction, self.delta = direction / direction.norm(), delta

    def fit(self, data):
        return FitReport()

    def step(self, walk):
        return walk.codes + self.delta * (2 * walk.target[:, None] - 1) * self.direction


@pytest.fixture(scope="module")
def linear():
    data = fit_data(overlap=0.5)
    direction = (
        0.2 * torch.randn(24, generator=torch.Generator().manual_seed(4)) + data.teacher.normals[0]
    )
    editor = Along(direction, 0.37)
    walk = make_walk(data, editor, "a", n=60)
    return data, editor, walk.target.numpy(), trajectories(data, editor, walk, 40)


def curve(result, name: str, network: str = "") -> pd.Series:
    rows = result.rows[(result.rows["metric"] == name) & (result.rows["network"] == network)]
    return rows.set_index("x")["value"]


def test_a_linear_world_in_closed_form(linear):
    data, editor, _, found = linear
    result = MatchedEffect(EFFECTS, draws=50)(found)
    slope = (
        data.teacher.normals @ editor.direction
    ).double().numpy() / data.sigma.double().numpy()  # sigmas a unit
    for effect in EFFECTS:
        path = (
            effect / slope[0]
        )  # the same for every start: only then does the target have the effect
        change = np.abs(slope[1:]) * path
        assert curve(result, "matched_path")[effect] == pytest.approx(path, rel=1e-4)
        assert curve(result, "matched_ad")[effect] == pytest.approx(change.mean(), rel=1e-4)
        assert curve(result, "matched_ad_max")[effect] == pytest.approx(change.max(), rel=1e-4)
        assert curve(result, "matched_reached")[effect] == 1


def test_flips_are_those_of_the_sample_at_that_effect(linear):
    data, editor, target, found = linear
    first = found.table[found.table["step"] == 0]
    slope = (data.teacher.normals @ editor.direction).double().numpy()
    result = MatchedEffect(EFFECTS, draws=50)(found)
    for effect in EFFECTS:
        path = effect * float(data.sigma[0]) / slope[0]
        flips = []
        for row, aim in zip(first.to_dict("records"), target):
            ends = [
                row[f"logit:{name}"] + (2 * aim - 1) * path * slope[k]
                for k, name in ((1, "b"), (2, "c"))
            ]
            flips.append(
                np.mean([(end > 0) != (row[f"logit:{name}"] > 0) for end, name in zip(ends, "bc")])
            )
        assert curve(result, "matched_flips")[effect] == pytest.approx(np.mean(flips), abs=1e-9)
        samples = result.samples[result.samples["metric"] == "matched_flips"]
        samples = samples[samples["x"] == effect]
        assert samples["value"].tolist() == pytest.approx(flips)
        assert samples["start"].is_monotonic_increasing


def test_it_agrees_with_dependency_at_its_effect(linear):
    *_, found = linear
    at = AttributeDependency(at=1.0, draws=50)(found).rows.set_index("metric").loc["ad_at", "value"]
    assert curve(MatchedEffect(EFFECTS, draws=50)(found), "matched_ad")[1.0] == pytest.approx(at)


def test_a_change_that_turns_between_two_steps_is_interpolated_with_its_sign():
    # b is 1 sigma up at the effect 0.5 and 1 sigma down at 1.5, so it is unchanged at 1.
    found = walks_of({1: [(-1.0, 0.0, 0.0), (-0.5, 2.0, 0.0), (0.5, -2.0, 0.0)]})
    ad = curve(MatchedEffect((0.5, 1.0), min_starts=1, draws=20)(found), "matched_ad")
    assert ad.to_dict() == pytest.approx({0.5: 0.5, 1.0: 0.0})


def test_observed_columns_are_read_where_the_effect_is_passed(linear):
    *_, found = linear
    x, start = found.effect, found.table["start"].to_numpy()
    table = found.table.assign(**{"similarity:judge_features": 1 - x / 10, "pixel_distance": x**2})
    table.loc[x > 0.9, "similarity:judge_features"] = np.nan  # not measured beyond
    result = MatchedEffect((0.5, 1.0), draws=50)(
        Trajectories(table, found.attributes, "a", found.sigma)
    )
    for effect in (0.5, 1.0):
        expected = [np.interp(effect, x[start == s], x[start == s] ** 2) for s in np.unique(start)]
        assert curve(result, "matched_pixel_distance")[effect] == pytest.approx(
            np.mean(expected), rel=1e-6
        )
    assert curve(result, "matched_similarity", "judge_features").to_dict() == pytest.approx(
        {0.5: 0.95}
    )
    assert (
        not MatchedEffect((1.0,), draws=20)(found).rows["metric"].str.contains("similarity").any()
    )


def test_likeness_is_told_by_its_network(linear):
    *_, found = linear
    table = found.table.assign(**{"similarity:judge_features": 0.9, "similarity:facenet": 0.4})
    result = MatchedEffect((1.0,), draws=20)(
        Trajectories(table, found.attributes, "a", found.sigma)
    )
    assert curve(result, "matched_similarity", "judge_features")[1.0] == pytest.approx(0.9)
    assert curve(result, "matched_similarity", "facenet")[1.0] == pytest.approx(0.4)
    assert set(result.rows["metric"]) <= set(MatchedEffect.produces)
    samples = result.samples.set_index(["metric", "network", "x"])["value"]
    assert (samples["matched_similarity", "facenet", 1.0] == 0.4).all()


def test_who_does_not_get_there_is_counted_and_left_out():
    rows = []
    for start, xs in {1: (0, 0.7, 1.2), 2: (0, 0.4, 0.3), 3: (0, -0.5, 0.6)}.items():
        rows += [
            {
                "start": start,
                "source": 0,
                "target": 1,
                "step": k,
                "path": float(k),
                "crossed": False,
                "stopped": False,
                "finite": True,
                "logit:a": x - 3,
                "logit:kind:x": 1.0,
                "logit:kind:y": 0.0,
                "logit:kind:z": 0.0,
                **{f"logit:angle:{c}": 0.1 * x for c in ("left", "half", "front", "right")},
            }
            for k, x in enumerate(xs)
        ]
    found = Trajectories(pd.DataFrame(rows), MIXED, "a", np.ones(MIXED.width))
    result = MatchedEffect((0.5, 1.0), min_starts=2, draws=50)(found)
    assert curve(result, "matched_reached").tolist() == pytest.approx([2 / 3, 1 / 3])
    reached = result.samples[result.samples["metric"] == "matched_reached"]
    reached = reached.pivot(index="x", columns="start", values="value")
    assert reached.loc[0.5].to_dict() == {1: 1, 2: 0, 3: 1}
    assert reached.loc[1.0].to_dict() == {1: 1, 2: 0, 3: 0}
    assert curve(result, "matched_path")[0.5] == pytest.approx((0.5 / 0.7 + 1 + 1 / 1.1) / 2)
    notes = result.rows[result.rows["metric"] == "matched_path"].set_index("x")["note"]
    assert notes[0.5] == "" and notes[1.0].startswith("hidden: 1 starts")
    assert curve(MatchedEffect((5.0,), draws=20)(found), "matched_reached")[5.0] == 0
    assert (
        MatchedEffect((5.0,), draws=20)(found).rows["note"].str.contains("no start reaches").any()
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_splits_and_permutations(linear, seed):
    check_splits(MatchedEffect(EFFECTS, draws=50), linear[-1], [3, 20, 41], seed)


def test_effects_must_differ_and_be_positive():
    for effects in ((), (0.0, 1.0), (1.0, 1.0), (float("nan"),), (1.0, float("inf"))):
        with pytest.raises(EditbenchError, match=r"effects=.*(all different|positive|finite)"):
            MatchedEffect(effects)
    with pytest.raises(EditbenchError, match="min_success=nan must be at least 0"):
        AttributeDependency(min_success=float("nan"))


def matched_run(root, method: str, path: float, starts: range) -> None:
    rows = [
        {
            "metric": name,
            "x": x,
            "value": value,
            "low": value - 0.1,
            "high": value + 0.1,
            "count": len(starts),
            "note": "" if x < 2 else "hidden: few",
            "version": 1,
            "higher_is_better": None,
        }
        for x in (1.0, 2.0)
        for name, value in (("matched_reached", 0.9), ("matched_path", path * x))
    ]
    samples = pd.DataFrame(
        {
            "metric": "matched_path",
            "x": 1.0,
            "start": list(starts),
            "value": path + 0.01 * np.sin(np.array(starts)),
        }
    )
    # Its paired differences belong to another table.
    accuracy = samples.assign(metric="accuracy", x=np.nan, value=1.0)
    fake_run(
        root,
        method,
        "smile",
        rows=pd.concat([metric_rows(), pd.DataFrame(rows)]),
        samples=pd.concat([samples, accuracy]),
    )


def test_the_report_has_the_table_and_the_paired_differences(tmp_path):
    matched_run(tmp_path, "alpha", 2.0, range(40))
    matched_run(tmp_path, "beta", 3.0, range(10, 60))
    results = load(tmp_path)
    table = matched_table(results)
    assert table["effect"].tolist() == [1.0, 1.0]  # what carries a note stays out
    assert table.set_index("method")["path"].to_dict() == {"alpha": 2.0, "beta": 3.0}
    assert table["n"].tolist() == [40, 50]
    (row,) = matched_differences(results).to_dict("records")
    assert (row["metric"], row["x"], row["n"]) == ("matched_path", 1.0, 30)
    assert row["difference"] == pytest.approx(-1.0, abs=0.01) and row["p_holm"] < 0.05
    out = report_of(tmp_path).parent
    assert len(pd.read_csv(out / "matched.csv")) == 2
    assert len(pd.read_csv(out / "matched_paired.csv")) == 1
    fake_run(tmp_path / "other", "alpha", "smile")
    assert matched_table(load(tmp_path / "other")).empty
    assert matched_differences(load(tmp_path / "other")).empty
