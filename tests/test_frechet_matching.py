"""The Fréchet distance at the same share of the attribute: references that are weighted or edited."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from editbench.metrics.frechet_distance import matching
from editbench.metrics.frechet_distance.by_class import class_statistics
from editbench.metrics.frechet_distance.matching import ClassReference
from editbench.metrics.frechet_distance.metric import FrechetDistance
from editbench.metrics.frechet_distance.reference import ReferenceFeatures, Renders
from editbench.networks.features import ScorerFeatures
from editbench.stats.frechet import gaussian_distance
from editbench.stats.moments import Moments
from editbench.walk.strength import edited_codes
from editbench.worlds.faces import attributes, load_scorer
from editbench.worlds.faces.factors import FactorLaw, sample_factors
from editbench.worlds.faces.truth import exchange, margins, to_codes, to_factors
from tests.frechet_scene import (
    GROUPS,
    B,
    N,
    Normal,
    X,
    curve,
    moments_of,
    observation,
    rows_of,
    value,
)
from tests.scenes import scene_of
from tests.toy_world import toy_config


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return scene_of(toy_config(tmp_path_factory.mktemp("frechet")))


@pytest.fixture(scope="module")
def found(context):
    return observation().look(context)


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
