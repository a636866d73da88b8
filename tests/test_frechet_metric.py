"""Fréchet and kernel distances over strength: a planted shift in closed form, and their place in a report."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.files import digest
from editbench.figures.theme import make_theme
from editbench.metrics.frechet_distance.figure import draw, frechet_points
from editbench.metrics.frechet_distance.metric import FrechetDistance
from editbench.metrics.frechet_distance.observation import FrechetDistanceObservation
from editbench.report.load import load
from editbench.report.text_tables import markdown
from editbench.stats.frechet import frechet_distance
from editbench.walk.observation import Observed
from editbench.walk.rows import key_of
from editbench.walk.strength import edited_codes
from tests.fake_records import fake_run, metric_rows
from tests.frechet_scene import TOLD, B, N, Normal, Pixels, curve, observation, rows_of, value
from tests.scenes import DELTA, scene_of
from tests.toy_world import AlongColumn, V, toy_config


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return scene_of(toy_config(tmp_path_factory.mktemp("frechet")))


@pytest.fixture(scope="module")
def found(context):
    return observation().look(context)


# -- the observation and the metric ----------------------------------------------------------------
def test_a_planted_shift_adds_its_square_and_the_ends_have_the_common_effect(context, found):
    result = FrechetDistance()(found)
    t, distance = curve(result, "frechet_distance")
    line = (V.T / V.T.norm(dim=1, keepdim=True))[0].double().numpy()
    start = (
        torch.cat(
            [context.generator.decode(c).flatten(1) for _, _, c in edited_codes(context, [0.0], N)]
        )
        .double()
        .numpy()
    )
    real = Normal().images(context, 0, N, 4).flatten(1).double().numpy()
    own = frechet_distance(start, real)
    expected = own + (DELTA * t) ** 2 + 2 * DELTA * t * ((start - real).mean(0) @ line)
    np.testing.assert_allclose(distance, expected, rtol=1e-6)
    assert len(t) == 5
    assert t[2] == 0
    assert value(result, "frechet_distance_zero") == pytest.approx(own, rel=1e-9)
    assert (np.diff(distance[2:]) > 0).all() and (np.diff(distance[:3]) < 0).all()
    _, effect = curve(result, "achieved_effect")
    np.testing.assert_allclose(effect[[0, 2, 4]], [-1, 0, 1], atol=0.025)
    np.testing.assert_allclose(curve(result, "frechet_distance_by_effect")[0], effect)
    up, down = (value(result, f"frechet_distance_{side}") for side in ("up", "down"))
    assert (down, up) == (distance[0], distance[4])
    assert value(result, "frechet_distance_asymmetry") == pytest.approx(up - down)
    floor = frechet_distance(Normal().images(context, N, 2 * N, 4).flatten(1), real)
    assert value(result, "frechet_distance_floor") == pytest.approx(floor, rel=1e-9)
    assert set(result.rows["metric"]) <= set(FrechetDistance.produces)


def test_the_achieved_effect_is_the_mean_change_of_the_judges_log_odds(context, found):
    rows = rows_of(FrechetDistance()(found))
    rows = rows[rows["metric"] == "achieved_effect"]

    def odds(strength: float) -> np.ndarray:
        codes = [codes for _, _, codes in edited_codes(context, [strength], N)]
        images = torch.cat([context.generator.decode(each) for each in codes])
        return context.judge(images)[:, 0].double().numpy()

    for row in rows.to_dict("records"):
        change = (odds(row["x"]) - odds(0.0)) / float(context.bank.sigma["judge"][0])
        assert row["value"] == pytest.approx(change.mean(), abs=1e-6) and row["count"] == N
        half = norm.ppf(0.975) * change.std() / np.sqrt(N)
        assert row["high"] - row["value"] == pytest.approx(half, abs=1e-4)
        assert row["value"] - row["low"] == pytest.approx(half, abs=1e-4)


def test_columns_say_network_size_and_reference_and_only_inception_makes_a_fid(found):
    rows = rows_of(FrechetDistance()(found)).set_index("metric")
    (key,) = rows.loc[["frechet_distance"], list(TOLD)].drop_duplicates().to_dict("records")
    assert key == TOLD and found.meta["network"] == f"pixels@{digest('pixels', 4)}"
    assert not any(name.startswith(("fid", "kid")) for name in rows.index)
    changed = {
        "network": "inception-2015-12-05@12ab",
        "resize": "299 bilinear inside the network (TF 1.x style)",
        "inception": True,
    }
    other = FrechetDistance()(Observed(found.arrays, found.meta | changed)).rows
    other = other.set_index("metric")
    assert other.loc[["fid"], list(TOLD)].iloc[0].to_dict() == TOLD | {
        "network": "inception-2015-12-05@12ab",
        "resize": "299 bilinear",
    }
    assert "kid_up" in other.index and not any("distance" in name for name in other.index)
    assert set(other.index) <= set(FrechetDistance.produces)


def test_columns_distinguish_what_does_not_compare(context):
    class Mine(Pixels):
        name, digest = "inception-of-mine", "other weights"

    def keys(**options) -> set[tuple]:
        rows = rows_of(FrechetDistance()(observation(**options).look(context)))
        rows = rows[rows["metric"].isin(["frechet_distance_up", "fid_up"])]
        return {key_of(row) for row in rows.to_dict("records")}

    alike = keys(n=60, points=3)
    assert keys(n=60, points=5, samples=50) == alike
    others = [
        keys(n=60, points=3, **changed)
        for changed in ({"network": Mine()}, {"reference": Normal(shift=0.2)}, {"effect": 0.5})
    ]
    every = set.union(alike, *others)
    assert len(every) == 4 and {key[0] for key in every} == {"frechet_distance_up"}


def test_blocks_and_subsets_are_of_their_own_distance(context):
    result = FrechetDistance()(observation(blocks=1, subsets=7, kernel=15).look(context))
    rows = rows_of(result).set_index("metric")
    assert np.isnan(rows.loc["frechet_distance_up", "low"])
    assert rows.loc["frechet_distance_up", "count"] == N
    up = rows.loc["kernel_distance_up"]
    assert up["low"] < up["value"] < up["high"] and up["count"] == up["n"] == 7 * 15


def test_any_batch_leaves_the_same_statistics(context, found):
    again = observation(reference=Normal()).look(replace(context, batch=13))
    assert set(again.arrays) == set(found.arrays)
    for name, array in found.arrays.items():
        np.testing.assert_allclose(again.arrays[name], array, rtol=1e-4, atol=1e-3, err_msg=name)


def test_samples_are_pseudo_values_with_the_interval_of_the_number(found):
    result = FrechetDistance()(found)
    name = "frechet_distance_up"
    mine = result.samples[result.samples["metric"] == name]
    mine = mine[mine["variant"] == "unmatched"]
    row = rows_of(result)[rows_of(result)["metric"] == name].iloc[0]
    half = 2.5706 * mine["value"].std(ddof=1) / np.sqrt(B)  # t of 5 degrees of freedom
    assert mine["start"].tolist() == list(range(B))
    assert row["high"] - row["value"] == pytest.approx(half, rel=1e-4)


def test_an_effect_that_is_not_reached_has_a_curve_but_no_number_at_the_end(context):
    result = FrechetDistance()(observation(effect=40.0, cap=3).look(context))
    rows = rows_of(result).set_index("metric")
    assert np.isnan(rows.loc["frechet_distance_up", "value"])
    assert (
        "40 sigma towards 'yes' was not reached: at most" in rows.loc["frechet_distance_up", "note"]
    )
    assert "towards 'no'" in rows.loc["frechet_distance_asymmetry", "note"]
    assert rows.loc["frechet_distance", "value"].notna().all()
    assert curve(result, "frechet_distance")[0][-1] == 3


def test_an_end_whose_effect_is_another_over_all_samples_says_so(found):
    gained = found.arrays["effect"] * [1, 1, 1, 1, 0.5]
    rows = rows_of(FrechetDistance()(Observed(found.arrays | {"effect": gained}, found.meta)))
    notes = rows.set_index("metric")["note"]
    assert "over all 120 the mean effect is 0.5" in notes["frechet_distance_up"]
    assert not notes["frechet_distance_down"]
    # The difference of the ends is no better than they are.
    assert notes["frechet_distance_asymmetry"] == f"up: {notes['frechet_distance_up']}"
    sound = rows_of(FrechetDistance()(found)).set_index("metric")["note"]
    assert not sound["frechet_distance_asymmetry"]


def test_pictures_that_are_not_finite_have_no_number_at_that_strength(context):
    first = context.bank.spec.split("test")[0]
    most = float(
        context.bank.array("w").range(first, first + N)[:, 0].max()
    )  # the calibration's 3 samples lie below
    sick = replace(context, generator=type(context.generator)(poison=most + 0.01))
    result = FrechetDistance()(observation(samples=3).look(sick))
    rows = rows_of(result)
    rows = rows[rows["metric"] == "frechet_distance"]
    lost = rows[rows["note"] != ""]
    assert 0 < len(lost) < len(rows)
    assert lost["value"].isna().all()
    assert "not finite" in lost["note"].iloc[0]
    assert rows.loc[rows["x"] == 0, "value"].notna().all()


def test_an_editor_that_goes_nowhere_leaves_the_start_alone(context):
    result = FrechetDistance()(
        observation().look(replace(context, editor=AlongColumn(DELTA, fail="frozen")))
    )
    t, _ = curve(result, "frechet_distance")
    assert t.tolist() == [0.0] and np.isnan(value(result, "frechet_distance_up"))


# -- what it refuses -------------------------------------------------------------------------------
def test_codes_without_pictures_are_not_served(context):
    latent = type(context.generator)()
    latent.output = "w"
    with pytest.raises(Unsupported, match="no pictures"):
        observation().check(replace(context, generator=latent))


def test_too_few_samples_and_pictures_are_told_before_anything_is_computed(context):
    reference = Normal()
    asked = r"observation.frechet_distance.n=5000: "
    with pytest.raises(EditbenchError, match=asked + "the test split .*: raise bank.n, or set"):
        observation(n=5_000, reference=reference).check(context)
    reference = Normal(count=20)
    with pytest.raises(EditbenchError, match=r"n=40: reference 'normal' has 20 pictures: set it"):
        observation(n=40, reference=reference).check(context)
    assert not reference.calls


def test_moments_that_would_fill_the_disk_are_refused():
    class Wide(Pixels):
        dim = 2048

    with pytest.raises(
        EditbenchError, match=r"1\.7 GiB: set observation.frechet_distance.blocks=1"
    ):
        observation(network=Wide(), points=11, blocks=10)
    observation(network=Wide(), points=11, blocks=1)


@pytest.mark.parametrize(
    "options",
    [
        {"points": 4},
        {"n": 5, "blocks": 4},
        {"n": 20, "subsets": 11},
        {"effect": 0},
        {"network": "generator"},
        {"tolerance": 1.0},
        {"n": 2.5},
    ],
)
def test_wrong_options_are_named(options):
    with pytest.raises(EditbenchError):
        FrechetDistanceObservation(**options)


# -- in the report ---------------------------------------------------------------------------------
GROUP = "frechet_distance"


METRICS = {GROUP: {"figure": "editbench.metrics.frechet_distance.figure.draw"}}


def fake_frechet_run(root, method: str, found: Observed, **changes) -> None:
    result = FrechetDistance()(Observed(found.arrays, found.meta | changes))
    better = result.rows["metric"].map(FrechetDistance.produces).astype(object)
    rows = pd.concat(
        [metric_rows(0.5), result.rows.assign(version=1, higher_is_better=better, group=GROUP)],
        ignore_index=True,
    )
    fake_run(root, method, "smile", rows=rows, method_config={"pace": len(method)}, metrics=METRICS)


def test_curves_of_one_name_make_a_figure_and_the_ends_a_column(tmp_path, found):
    fake_frechet_run(tmp_path, "alpha", found)
    missed = {"up": {"strength": 3.0, "effect": 0.4, "reached": False}}
    fake_frechet_run(tmp_path, "beta", found, **missed)
    fake_run(tmp_path, "gamma", "smile")
    results = load(tmp_path)
    theme = make_theme(["alpha", "beta", "gamma"])
    figures = draw(results, theme)
    drawn = {one.file: one.draw for one in figures}
    assert set(drawn) == {
        "frechet_distance_strength",
        "frechet_distance_effect",
        "frechet_distance_strength_unmatched",
        "frechet_distance_effect_unmatched",
        "kernel_distance_effect",
    }
    assert [one.file for one in figures if not one.first] == [
        "frechet_distance_strength_unmatched",
        "frechet_distance_effect_unmatched",
    ]
    points = frechet_points(results)
    mine = points[(points["method"] == "beta") & (points["kind"] == "frechet_distance")]
    mine = mine[mine["variant"] == "matched"]
    assert mine["open"].tolist() == [False] * 4 + [True]
    assert mine["share"].tolist() == [
        -1,
        -0.5,
        0,
        0.5,
        1,
    ]
    assert not points.loc[points["method"] == "alpha", "open"].any()
    axes = drawn["frechet_distance_strength"](theme).axes[0]
    lines = [line.get_ydata() for line in axes.get_lines()]
    value = mine["value"].to_numpy()
    assert any(np.array_equal(each, value) for each in lines) and axes.get_ylim()[0] == 0
    text = markdown(results)
    for variant in ("matched", "unmatched"):
        assert re.search(rf"frechet distance up \({variant}\b.*?\) ↓", text), text
    assert "biased upwards" in text
    assert "asymmetry" not in text and "not reached: at most 0.4" in text


def test_other_sizes_are_other_figures_and_columns(tmp_path, found):
    fake_frechet_run(tmp_path, "alpha", found)
    fake_frechet_run(tmp_path, "beta", found, n=240, kernel_n=240)
    results = load(tmp_path)
    names = [one.file for one in draw(results, make_theme(["alpha", "beta"]))]
    assert len(names) == len(set(names)) == 10
    text = markdown(results)
    for n in ("n = 120", "n = 240"):
        assert re.search(rf"frechet distance up \(.*{n}, effect = 1\) ↓", text)
