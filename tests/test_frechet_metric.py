"""Fréchet and kernel distances over strength: against closed forms, torchmetrics, and slow obvious computations."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import norm

from editbench.base.errors import BadFile, EditbenchError, Unsupported
from editbench.base.files import digest
from editbench.base.seeding import normals
from editbench.figures.theme import make_theme
from editbench.metrics.frechet_distance import matching
from editbench.metrics.frechet_distance.blocks import jackknife, over_blocks
from editbench.metrics.frechet_distance.by_class import class_statistics
from editbench.metrics.frechet_distance.figure import draw, frechet_points
from editbench.metrics.frechet_distance.matching import ClassReference
from editbench.metrics.frechet_distance.metric import FrechetDistance
from editbench.metrics.frechet_distance.observation import FrechetDistanceObservation
from editbench.metrics.frechet_distance.reference import (
    BankImages,
    Folder,
    Reference,
    ReferenceFeatures,
    Renders,
    statistics,
)
from editbench.networks.features import FeatureNetwork, ScorerFeatures
from editbench.report.load import load
from editbench.report.text_tables import markdown
from editbench.stats.frechet import frechet_distance, gaussian_distance
from editbench.stats.moments import (
    KernelDistances,
    Moments,
    block_ends,
    covariance,
    mixture,
    squared_mmd,
)
from editbench.walk.observation import Observed
from editbench.walk.rows import key_of
from editbench.walk.strength import edited_codes
from editbench.worlds.faces import attributes, load_scorer
from editbench.worlds.faces.dial import law
from editbench.worlds.faces.dial import load_generator as load_dial
from editbench.worlds.faces.factors import FactorLaw, sample_factors
from editbench.worlds.faces.truth import exchange, margins, to_codes, to_factors
from tests.fake_records import fake_run, metric_rows
from tests.processes import forbid_locks
from tests.test_observation import DELTA, scene_of
from tests.toy_world import DIM, AlongColumn, ToyGenerator, V, toy_config

N, B = 120, 6
rng = np.random.default_rng(0)
X, Y = (
    rng.normal(size=(N, DIM)).astype(np.float32),
    (1.3 * rng.normal(size=(N, DIM)) + 0.4).astype(np.float32),
)

TOLD = {
    "network": f"pixels@{digest('pixels', 4)}",
    "resize": "none",
    "reference": f"normal@{digest(['normal', 0.0], 4)}",
    "n": 120.0,
    "effect": 1.0,
}


class Pixels(FeatureNetwork):
    """The picture itself, flattened."""

    name, dim, resize, digest = "pixels", DIM, "none", "pixels"

    def forward(self, images):
        return images.flatten(1)


class Normal(Reference):
    """Pictures of the toy world's own law, w ~ N(0, 4 I); `shift` moves all of them."""

    name = "normal"

    def __init__(self, shift: float = 0.0, count: int = 10_000) -> None:
        self.shift, self.count, self.calls = shift, count, 0

    def identity(self, context):
        return ["normal", self.shift]

    def size(self, context):
        return self.count

    def images(self, context, start, stop, resolution):
        self.calls += 1
        x = 2 * normals(1, "a reference", start, stop, DIM) + self.shift
        return torch.from_numpy(x).float().reshape(-1, 1, 2, 4)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return scene_of(toy_config(tmp_path_factory.mktemp("frechet")))


def observation(**options) -> FrechetDistanceObservation:
    given = {
        "network": Pixels(),
        "reference": Normal(),
        "n": N,
        "points": 5,
        "samples": 60,
        "blocks": B,
        "subsets": B,
    } | options
    return FrechetDistanceObservation(**given)


def rows_of(result, variant: str = "unmatched") -> pd.DataFrame:
    """The rows of one variant, and those that have none."""
    return result.rows[result.rows["variant"].isin(["", variant])]


def value(result, name: str, x: float | None = None, variant: str = "unmatched") -> float:
    rows = rows_of(result, variant)
    rows = rows[rows["metric"] == name]
    rows = rows[np.isclose(rows["x"], x)] if x is not None else rows
    assert len(rows) == 1, (name, x, len(rows))
    return float(rows["value"].iloc[0])


def curve(result, name: str, variant: str = "unmatched") -> tuple[np.ndarray, np.ndarray]:
    rows = rows_of(result, variant)
    rows = rows[rows["metric"] == name]
    return rows["x"].to_numpy(), rows["value"].to_numpy()


@pytest.fixture(scope="module")
def found(context):
    return observation().look(context)


# -- statistics --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("batch", [1, 7, 20, 120])
def test_streamed_moments_are_numpys_in_any_batches(batch):
    moments = Moments(N, B, DIM)
    for first in range(0, N, batch):
        moments.update(X[first : first + batch], first)
    mean, cov = moments.compute()
    np.testing.assert_allclose(mean, X.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(
        cov, np.cov(X.astype(np.float64), rowvar=False), rtol=1e-10, atol=1e-12
    )
    assert moments.count.tolist() == [N // B] * B
    np.testing.assert_allclose(moments.sum[2], X[40:60].astype(np.float64).sum(0), rtol=1e-12)


def test_blocks_of_a_number_that_does_not_divide():
    ends = block_ends(23, 5)
    assert [i * 5 // 23 for i in range(23)] == [
        b for b in range(5) for _ in range(ends[b + 1] - ends[b])
    ]
    assert len(ends) == 6 and ends[-1] == 23


@pytest.mark.parametrize("batch", [3, 16, 120])
def test_block_kernel_distances_are_those_of_the_slow_formula(batch):
    kernel = KernelDistances(N, B, 15, 2, Y[:30])
    for first in range(0, N, batch):
        for place, x in enumerate((X, X + 1)):
            kernel.add(place, x[first : first + batch], first)
    for b in range(B):
        x, y = X[20 * b : 20 * b + 15].astype(np.float64), Y[:30].astype(np.float64)
        k = lambda u, v: (sum(p * q for p, q in zip(u, v)) / DIM + 1) ** 3  # noqa: E731
        slow = (
            np.mean([k(u, v) for i, u in enumerate(x) for j, v in enumerate(x) if i != j])
            + np.mean([k(u, v) for i, u in enumerate(y) for j, v in enumerate(y) if i != j])
            - 2 * np.mean([k(u, v) for u in x for v in y])
        )
        assert kernel.value[0, b] == pytest.approx(slow, rel=1e-9)
    assert not kernel._open and np.isfinite(kernel.value).all()


def test_torchmetrics_gives_the_same_distances_of_the_same_features():
    fid = pytest.importorskip("torchmetrics.image.fid")
    kid = pytest.importorskip("torchmetrics.image.kid")

    class Features(torch.nn.Module):
        num_features = DIM

        def forward(self, x):
            return x.flatten(1)

    def fed(metric):
        for real, x in ((True, Y), (False, X)):
            metric.update(torch.tensor(x.astype(np.float64)).reshape(N, 1, 2, 4), real=real)
        return metric

    whole = fed(fid.FrechetInceptionDistance(Features(), normalize=True).set_dtype(torch.float64))
    assert frechet_distance(X, Y) == pytest.approx(float(whole.compute()), rel=1e-8)
    moments, other = Moments(N, B, DIM), Moments(N, 1, DIM)
    moments.update(X, 0)
    other.update(Y, 0)
    arrays = {
        "count": moments.arrays()["count"][None],
        "sum": moments.arrays()["sum"][None],
        "outer": moments.arrays()["outer"][None],
        "reference_count": other.arrays()["count"],
        "reference_sum": other.arrays()["sum"][0],
        "reference_outer": other.arrays()["outer"][0],
    }
    assert jackknife(arrays, np.array([True])).value[0] == pytest.approx(
        float(whole.compute()), rel=1e-8
    )
    mean, _ = fed(
        kid.KernelInceptionDistance(Features(), subsets=1, subset_size=N, normalize=True)
    ).compute()
    assert squared_mmd(X.astype(np.float64), Y.astype(np.float64)) == pytest.approx(
        float(mean), rel=1e-5
    )


def test_a_set_is_at_no_distance_from_itself():
    moments = Moments(N, 2, DIM)
    moments.update(X, 0)
    one = [part.numpy() for part in moments.compute()]
    assert gaussian_distance(*one, *one) == pytest.approx(0, abs=1e-9)
    halves = np.stack([X, rng.normal(size=X.shape)]).astype(np.float64)
    assert (
        abs(squared_mmd(*halves)) < 0.3 < squared_mmd(halves[0], halves[1] + 1)
    )  # no bias away from 0


def test_the_jackknife_is_that_of_leaving_blocks_out_and_covers():
    hits, spread = 0, []
    for trial in range(60):
        x = np.random.default_rng(trial).normal(size=(N, 3)) + 0.5
        moments, other = Moments(N, B, 3), Moments(N, 1, 3)
        moments.update(x, 0)
        other.update(Y[:, :3], 0)
        arrays = {
            "count": moments.arrays()["count"][None],
            "sum": moments.arrays()["sum"][None],
            "outer": moments.arrays()["outer"][None],
            "reference_count": other.arrays()["count"],
            "reference_sum": other.arrays()["sum"][0],
            "reference_outer": other.arrays()["outer"][0],
        }
        made = jackknife(arrays, np.array([True]))
        if not trial:
            left = [
                frechet_distance(np.delete(x, slice(20 * b, 20 * b + 20), 0), Y[:, :3])
                for b in range(B)
            ]
            slow = [B * frechet_distance(x, Y[:, :3]) - (B - 1) * one for one in left]
            np.testing.assert_allclose(made.blocks[0], slow, rtol=1e-7)
        low, high = made.interval(0)
        spread.append(made.value[0])
        hits += low <= 0.5276 <= high  # the mean of 4,000 trials
    assert hits >= 51 and np.mean(spread) == pytest.approx(0.5276, abs=0.05)


# -- the observation and the metric ------------------------------------------------------------------------------------------
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


def test_over_blocks_is_their_mean_and_a_broken_block_takes_the_strength_out():
    made = over_blocks(
        np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 1.0], [0, 0, 0]]), np.array([True, True, False])
    )
    assert made.value[0] == 2 and np.isnan(made.value[1:]).all()
    assert made.interval(0) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), rel=1e-4)
    assert np.isnan(made.interval(1)[0])


# -- the same share of the attribute -----------------------------------------------------------------------------------
GROUPS = (13, 40, 67)  # pictures of three classes


def moments_of(features: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, ...]:
    """Count, sum and second moments by class."""
    parts = []
    for c in range(label.max() + 1):
        one = Moments(len(features), 1, features.shape[1])
        one.update(features[label == c], 0)
        parts.append(one.arrays())
    return tuple(np.stack([part[name][0] for part in parts]) for name in ("count", "sum", "outer"))


@pytest.mark.parametrize("share", [(0.2, 0.3, 0.5), (0.0, 0.9, 0.1), (13, 40, 67)])
def test_moments_of_a_mixture_are_numpys_with_weights(share):
    label = np.repeat([0, 1, 2], GROUPS)
    mean, cov, effective = mixture(*moments_of(X, label), np.array(share, float))
    weight = (np.array(share) / np.array(GROUPS))[label]
    np.testing.assert_allclose(mean, np.average(X.astype(float), 0, weight), rtol=1e-10)
    slow = np.cov(X.astype(float), rowvar=False, aweights=weight)
    np.testing.assert_allclose(cov, slow, rtol=1e-9, atol=1e-12)
    assert effective == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    if share == GROUPS:
        np.testing.assert_allclose(
            cov, np.cov(X.astype(float), rowvar=False), rtol=1e-9, atol=1e-12
        )
        assert effective == pytest.approx(N)


def test_a_mixture_of_an_empty_group_has_no_moments():
    count, total, outer = moments_of(X, np.repeat([0, 1, 2], GROUPS))
    for empty in (0, 1):
        mean, cov, effective = mixture(count * (np.arange(3) != empty), total, outer, np.ones(3))
        assert np.isnan(mean).all() and np.isnan(cov).all() and np.isnan(effective)


def test_a_reference_is_reweighted_or_edited_to_the_share_that_is_asked_for():
    label = np.repeat([0, 1, 2], GROUPS)
    arrays = dict(zip(("class_count", "class_sum", "class_outer"), moments_of(X, label)))
    plain = ClassReference(arrays)
    asked = np.array([30.0, 50.0, 20.0])
    np.testing.assert_allclose(plain.shares(asked), asked / 100)
    # Edited pictures of each class: all N faces.
    names = ("class_edited_count", "class_edited_sum", "class_edited_outer")
    every = [moments_of(X + c, np.zeros(N, int)) for c in range(3)]
    arrays |= {name: np.concatenate(part) for name, part in zip(names, zip(*every))}
    edits = ClassReference(arrays)
    share = edits.shares(asked)
    assert (share >= 0).all() and share.sum() == pytest.approx(1)
    np.testing.assert_allclose(share[:3] + share[3:], asked / 100)
    # As many pictures as possible stay as they are: the class with the largest surplus has no edit.
    np.testing.assert_allclose(share[:3], edits.natural * (0.2 / edits.natural[2]))
    assert share[5] == 0 and (share[3:5] > 0).all()
    np.testing.assert_allclose(edits.natural, np.array(GROUPS) / N)
    # Rounding makes no edited picture of the class that is complete.
    for asked in np.random.default_rng(0).dirichlet(np.ones(3), 100):
        complete = np.argmin(asked / edits.natural)
        assert edits.shares(asked)[3 + complete] == 0
    # At its own share the reference is itself.
    for reference in (plain, edits):
        mean, covariance, _ = reference.at(reference.natural)
        np.testing.assert_allclose(mean, X.astype(float).mean(0), rtol=1e-9)
        np.testing.assert_allclose(covariance, np.cov(X.astype(float), rowvar=False), rtol=1e-8)


def test_few_pictures_of_a_class_and_few_effective_ones_are_told():
    label = np.repeat([0, 1], (5, 115))
    reference = ClassReference(
        dict(zip(("class_count", "class_sum", "class_outer"), moments_of(X, label)))
    )
    note = reference.doubt(np.array([9, 1]), ["no", "yes"])
    assert "5 reference pictures of class 'no'" in note and "6 effective of 120" in note
    assert reference.doubt(np.array([0, 1]), ["no", "yes"]) == ""
    assert np.isnan(
        ClassReference(
            {
                "class_count": np.array([0.0, 5.0]),
                "class_sum": np.zeros((2, 1)),
                "class_outer": np.zeros((2, 1)),
            }
        ).at(np.array([1, 1]))[0]
    ).all()


def test_matched_rows_alone_doubt_a_class_of_few_pictures(found, monkeypatch):
    monkeypatch.setattr(matching, "FEW", 1000)
    rows = FrechetDistance()(found).rows
    rows = rows[rows["metric"] == "frechet_distance"]
    doubted = rows["note"].str.contains("reference pictures of class 'yes'")
    assert (doubted == (rows["variant"] == "matched")).all() and doubted.any()


def test_perfect_renders_with_more_glasses_stay_flat_when_the_share_is_matched(tmp_path):
    """Only more faces wear glasses: the unmatched distance grows many times over, the matched one
    stays that of other renders."""
    network = ScorerFeatures(load_scorer("judge"))
    n = 150
    bare = SimpleNamespace(
        cache=tmp_path,
        batch=100,
        device="cpu",
        generator=None,
        judge=network.scorer,
        attribute="eyeglasses",
    )
    # Clear faces: glasses that are hardly there would hardly move it.
    reference = Renders(margin=1.0)
    arrays = class_statistics(ReferenceFeatures(bare, reference, network, n, 32))
    own, other = ClassReference(arrays), ClassReference(arrays, "other")
    fresh = Renders(seed=1, margin=1.0)
    features = []
    labels = []
    with torch.no_grad():
        for images in (fresh.images(bare, 0, n, 32), fresh.edited(bare, 0, n, 32, 1)):
            features.append(network(images).numpy())
            labels.append(network.scorer.attributes.labels(network.scorer(images), "eyeglasses"))
    matched, unmatched, perfect = [], [], []
    for more in (0.0, 0.3, 0.6, 1.0):
        # The same faces, the last of them with glasses.
        cut = round(n * (1 - more))
        moments = Moments(n, B, network.dim)
        moments.update(np.concatenate([features[0][:cut], features[1][cut:]]), 0)
        label = np.bincount(torch.cat([labels[0][:cut], labels[1][cut:]]), minlength=2)
        mean, cov = (part.numpy() for part in moments.compute())
        at = own.at(label)[:2]
        matched.append(gaussian_distance(mean, cov, *at))
        unmatched.append(gaussian_distance(mean, cov, *own.at(own.natural)[:2]))
        perfect.append(gaussian_distance(*other.at(label)[:2], *at))
    assert unmatched[-1] > 4 * unmatched[0] and (np.diff(unmatched) > 0).all()
    # It may fall: the bias of 150 renders depends on how many of them have either class.
    assert max(matched) < 1.25 * matched[0]
    np.testing.assert_allclose(matched, perfect, rtol=0.25)


def test_an_exchanged_class_is_as_clear_as_the_old_one_and_nothing_else_moves():
    codes = to_codes(sample_factors(FactorLaw(), 3, 0, 200))
    names = attributes().names
    before = to_factors(codes).labels()
    for place, name in enumerate(names):
        for target in range(len(attributes()[name].classes)):
            moved = exchange(codes, name, target)
            label = to_factors(moved).labels()
            assert (label[:, place] == target).all()
            rest = [k for k in range(len(names)) if k != place]
            assert torch.equal(label[:, rest], before[:, rest])
            there = before[:, place] == target
            assert torch.equal(moved[there], codes[there])
            # As far inside the class as before, but where a pose at the end has no outer bound.
            if name != "yaw":
                torch.testing.assert_close(
                    margins(moved, name, label[:, place]),
                    margins(codes, name, before[:, place]),
                )


def test_matched_rows_are_those_of_pictures_of_that_share(context, found):
    result = FrechetDistance()(found)
    t, distance = curve(result, "frechet_distance", "matched")
    real = Normal().images(context, 0, N, 4)
    label = context.judge.attributes.labels(context.judge(real), "a").numpy()
    real = real.flatten(1).double().numpy()
    perfect = curve(result, "frechet_distance_perfect", "matched")[1]
    alone = curve(result, "frechet_distance_perfect", "unmatched")[1]
    other = Normal().images(context, N, 2 * N, 4)
    second = context.judge.attributes.labels(context.judge(other), "a").numpy()
    other = other.flatten(1).double().numpy()
    for place, strength in enumerate(t):
        edited = [
            context.generator.decode(c) for _, _, c in edited_codes(context, [float(strength)], N)
        ]
        images = torch.cat(edited)
        share = context.judge.attributes.labels(context.judge(images), "a").double().mean().item()
        weights = []
        for classes in (label, second):
            part = classes.mean()
            weights.append(np.where(classes == 1, share / part, (1 - share) / (1 - part)))
        moved = images.flatten(1).double().numpy()
        own = np.average(real, 0, weights[0]), np.cov(real, rowvar=False, aweights=weights[0])
        theirs = np.average(other, 0, weights[1]), np.cov(other, rowvar=False, aweights=weights[1])
        slow = gaussian_distance(moved.mean(0), np.cov(moved, rowvar=False), *own)
        assert distance[place] == pytest.approx(slow, rel=1e-5)
        assert perfect[place] == pytest.approx(gaussian_distance(*theirs, *own), rel=1e-6)
        plain = gaussian_distance(*theirs, real.mean(0), np.cov(real, rowvar=False))
        assert alone[place] == pytest.approx(plain, rel=1e-6)
    low = rows_of(result, "matched").set_index("metric").loc["frechet_distance_up", "low"]
    assert low < value(result, "frechet_distance_up", variant="matched")


def test_without_matching_there_are_the_papers_numbers_alone(context, found):
    plain = observation(matched=False).look(context)
    assert not any(name.startswith(("class_", "other_")) for name in plain.arrays)
    rows = FrechetDistance()(plain).rows
    assert set(rows["variant"]) == {"", "unmatched"}
    same = rows_of(FrechetDistance()(found))
    same = same[same["metric"] != "frechet_distance_perfect"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, same)


# -- references --------------------------------------------------------------------------------------------------------
def test_statistics_of_a_reference_are_computed_once_and_a_damaged_file_again(context, tmp_path):
    here, reference = replace(context, cache=tmp_path), Normal(shift=0.5)
    real = ReferenceFeatures(here, reference, Pixels(), 50, 4)
    first = statistics(real, 10)
    calls = reference.calls
    again = statistics(real, 10)
    assert reference.calls == calls
    assert all(np.array_equal(first[name], again[name]) for name in first)
    (file,) = (tmp_path / "references").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(statistics(real, 10)["sum"], first["sum"])
    assert reference.calls == 2 * calls
    statistics(replace(real, reference=Normal(shift=0.6)), 10)
    assert len(list((tmp_path / "references").glob("*.safetensors"))) == 2


def test_statistics_that_are_kept_serve_where_nothing_may_be_locked(context, tmp_path):
    real = ReferenceFeatures(replace(context, cache=tmp_path), Normal(), Pixels(), 50, 4)
    first = statistics(real, 10)
    forbid_locks(tmp_path)
    again = statistics(real, 10)
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_a_small_reference_has_no_floor(context, tmp_path):
    here = replace(context, cache=tmp_path)
    real = ReferenceFeatures(here, Normal(count=60), Pixels(), 50, 4)
    assert "floor_sum" not in statistics(real, 10)


def test_renders_and_the_bank_and_a_folder_give_their_pictures(context, tmp_path):
    renders = Renders().images(context, 3, 7, 32)
    assert renders.shape == (4, 3, 32, 32)
    assert torch.equal(renders[2:], Renders().images(context, 5, 7, 32))
    assert Renders(margin=0.2).identity(context) != Renders().identity(context)
    tied = SimpleNamespace(generator=SimpleNamespace(law=law(0.9)))  # of the dial
    assert Renders().law(tied) == law(0.9)
    assert Renders(margin=0.2).law(tied) == replace(law(0.9), margin=0.2)
    assert load_dial(0.9).law == law(0.9) and Renders().law(context) == FactorLaw()
    made = BankImages().images(context, 2, 5, 4).flatten(1)
    torch.testing.assert_close(made, torch.tensor(context.bank.array("w").range(2, 5)))
    # The id of a bank that is given by its path may say nothing of the generator.
    one, other = (
        BankImages().identity(replace(context, generator=ToyGenerator(digest=name)))
        for name in ("one", "other")
    )
    assert one != other
    for k in range(3):
        Image.new("RGB", (8, 8), (100 * k, 255, 0)).save(tmp_path / f"{k}.png")
    found = Folder(str(tmp_path)).images(context, 1, 3, 8)
    assert found.shape == (2, 3, 8, 8)
    assert found[1, :, 0, 0].tolist() == pytest.approx([200 / 127.5 - 1, 1, -1])
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(BadFile, match=r"1\.png"):
        Folder(str(tmp_path)).images(context, 0, 3, 8)


# -- what it refuses ---------------------------------------------------------------------------------------------------
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


def test_pictures_of_another_kind_are_no_reference(context):
    class Coloured(Normal):
        def images(self, *args):
            return super().images(*args).expand(-1, 3, -1, -1)

    with pytest.raises(
        Unsupported, match=r"'normal' are \(3, 2, 4\), those of the generator \(1, 2, 4\)"
    ):
        observation(reference=Coloured()).look(context)
    with pytest.raises(Unsupported, match="faces of the embedded world, which has no a"):
        observation(reference=None).check(context)


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


def test_statistics_of_renders_in_the_judges_features_are_those_of_all_at_once(tmp_path):
    network = ScorerFeatures(load_scorer("judge"))
    bare = SimpleNamespace(
        cache=tmp_path, batch=64, device="cpu", generator=None
    )  # all that renders need of a scene
    stats = statistics(ReferenceFeatures(bare, Renders(), network, 150, 32), 100)
    features = network(Renders().images(bare, 0, 150, 32)).numpy().astype(np.float64)
    mean, cov = covariance(float(stats["count"][0]), stats["sum"], stats["outer"])
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(cov, np.cov(features, rowvar=False), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(stats["features"], features[:100], rtol=1e-4, atol=1e-4)


# -- in the report -----------------------------------------------------------------------------------------------------
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
