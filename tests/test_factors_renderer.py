"""The law of the factors against closed forms, and the renderer against what the factors promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import ndtr, ndtri
from scipy.stats import multivariate_normal

from editbench.worlds.faces import attributes
from editbench.worlds.faces.factors import (
    BINARY,
    HAIR_COLORS,
    TRAITS,
    YAW_STEP,
    FactorLaw,
    Factors,
    sample_factors,
)
from editbench.worlds.faces.regions import REGIONS, regions
from editbench.worlds.faces.renderer import render
from tests.one_face import face

N = 20_000


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return sample_factors(FactorLaw(), 7, 0, N).labels().numpy()


# -- the law ---------------------------------------------------------------------------------------
def test_marginals_are_the_priors(labels: np.ndarray) -> None:
    for column, trait in enumerate(TRAITS):
        prior = np.array(FactorLaw().priors[trait])
        share = np.bincount(labels[:, column], minlength=len(prior)) / N
        assert np.all(np.abs(share - prior) < 4.5 * np.sqrt(prior * (1 - prior) / N)), trait


@pytest.mark.parametrize("a, b", itertools.combinations(BINARY, 2))
def test_phi_of_the_copula_matches_the_bivariate_normal(labels: np.ndarray, a: str, b: str) -> None:
    law = FactorLaw()
    i, j = TRAITS.index(a), TRAITS.index(b)
    rho, pa, pb = law.correlation_matrix()[i, j], law.priors[a][1], law.priors[b][1]
    # P(both) = P(x > -z_a, y > -z_b) = Phi2(z_a, z_b; rho).
    both = multivariate_normal.cdf([ndtri(pa), ndtri(pb)], mean=[0, 0], cov=[[1, rho], [rho, 1]])
    phi = (both - pa * pb) / np.sqrt(pa * (1 - pa) * pb * (1 - pb))
    assert np.corrcoef(labels[:, i], labels[:, j])[0, 1] == pytest.approx(phi, abs=4.5 / np.sqrt(N))


@pytest.mark.parametrize("cuts", [(1,), (3, 4, 11), (8, 16), (5, 10, 15, 20)])
def test_any_split_of_the_indices_draws_the_same_bits(cuts: tuple[int, ...]) -> None:
    whole = vars(sample_factors(FactorLaw(), 3, 0, 23))
    ends = (0, *cuts, 23)
    parts = [vars(sample_factors(FactorLaw(), 3, a, b)) for a, b in itertools.pairwise(ends)]
    for name, value in whole.items():
        assert torch.equal(value, torch.cat([part[name] for part in parts])), name


def test_margin_keeps_its_distance_from_every_threshold() -> None:
    spaced, dense = (sample_factors(FactorLaw(margin=m), 5, 0, 4000) for m in (0.7, 0.0))
    assert (spaced.amounts - 0.5).abs().min() >= 0.35 - 1e-6
    assert spaced.hair.max(1).values.min() >= 0.85 - 1e-6
    offset = (spaced.yaw / YAW_STEP) - (spaced.yaw / YAW_STEP).round()
    assert offset.abs().max() <= 0.15 + 1e-5
    assert (dense.amounts - 0.5).abs().min() < 0.01
    assert torch.equal(spaced.labels(), dense.labels())  # the margin moves faces inside their class


def test_amounts_are_normal_about_their_threshold_up_to_the_clearest() -> None:
    law = FactorLaw(reach=1.5)
    factors = sample_factors(law, 5, 0, 20_000)
    for column in range(len(BINARY)):
        amounts = factors.amounts[:, column]
        for label in (0, 1):
            distance = (amounts[factors.labels()[:, column] == label] - 0.5).abs() * 2 * law.reach
            assert distance.max() <= law.reach + 1e-6
            for z in (0.25, 0.5, 1.0, 1.4):
                assert (distance < z).float().mean().item() == pytest.approx(
                    2 * ndtr(z) - 1, abs=0.02
                )
            assert (distance > law.reach - 1e-6).float().mean().item() == pytest.approx(
                2 * ndtr(-law.reach), abs=0.02
            )


def test_labels_fit_the_attributes(labels: np.ndarray) -> None:
    world = attributes()
    assert world.names == TRAITS and world["yaw"].ordered and not world["hair_color"].ordered
    assert labels.min(0).tolist() == [0] * 7
    assert (labels.max(0) + 1).tolist() == [len(item.classes) for item in world]


@pytest.mark.parametrize(
    "correlations, word",
    [
        ({"smile,nose": 0.1}, "smile,nose"),
        ({"smile": 0.1}, "expected"),
        ({"smile,age": 0.9, "age,beard": 0.9, "smile,beard": -0.9}, "positive"),
    ],
)
def test_a_bad_correlation_is_named(correlations: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        FactorLaw(correlations=correlations).correlation_matrix()


# -- the renderer ----------------------------------------------------------------------------------
def test_a_face_does_not_depend_on_its_batch() -> None:
    whole = render(sample_factors(FactorLaw(), 1, 0, 9), 32)
    assert whole.shape == (9, 3, 32, 32) and whole.abs().max() <= 1
    for i in range(9):
        torch.testing.assert_close(
            render(sample_factors(FactorLaw(), 1, i, i + 1), 32)[0], whole[i], atol=1e-5, rtol=0
        )


@pytest.mark.parametrize(
    "factor, value, low, high",
    [
        ("smile", 1.0, 0.20, 0.55),
        ("eyeglasses", 1.0, -0.25, 0.15),
        ("beard", 1.0, 0.10, 0.75),
        ("long_hair", 1.0, -0.40, 0.95),
        ("age", 1.0, -0.85, 0.75),
        ("hair_color", 4, -0.80, 0.30),
    ],
)
def test_a_trait_changes_the_picture_where_it_should(
    factor: str, value: float, low: float, high: float
) -> None:
    change = (render(face(**{factor: value}), 64) - render(face(), 64)).abs().sum((0, 1, 3))
    height = (torch.arange(64) + 0.5) / 32 - 1
    inside = change[(height > low) & (height < high)].sum()
    assert change.sum() > 20 and inside / change.sum() > 0.97


def test_an_amount_moves_the_picture_steadily() -> None:
    for trait in BINARY:
        steps = torch.cat(
            [render(face(**{trait: a}), 32) for a in torch.linspace(0, 1, 6).tolist()]
        )
        away = (steps - steps[:1]).abs().mean((1, 2, 3))
        assert (away.diff() > 0).all(), trait


def hair_of(factors: Factors) -> torch.Tensor:
    """Mean colour of the pixels that show hair, (3,)."""
    mask = regions(factors, 32)[0] == REGIONS.index("hair")
    return render(factors, 32)[0][:, mask].mean(1)


@pytest.mark.parametrize("long_hair", [0.0, 1.0])
def test_an_old_face_keeps_the_colour_of_its_hair(long_hair: float) -> None:
    young = torch.stack([hair_of(face(hair_color=k, long_hair=long_hair)) for k in range(5)])
    for k in range(5):
        away = (young - hair_of(face(hair_color=k, long_hair=long_hair, age=1.0))).norm(dim=1)
        assert away.argmin() == k, HAIR_COLORS[k]


@pytest.mark.parametrize("covered", [{}, {"beard": 1.0, "eyeglasses": 1.0, "long_hair": 1.0}])
@pytest.mark.parametrize("yaw", [0.0, 32.0])
def test_age_is_seen_in_the_face_not_in_the_hair_alone(
    covered: dict[str, float], yaw: float
) -> None:
    young, old = face(yaw=yaw, **covered), face(yaw=yaw, age=1.0, **covered)
    change = (render(old, 32) - render(young, 32))[0].abs().sum(0)
    hair = regions(young, 32)[0] == REGIONS.index("hair")
    assert (change[~hair] > 0.3).sum() >= 25  # pixels of 1024


@pytest.mark.parametrize("yaw", [5.0, 16.0, 32.0])
def test_turning_the_other_way_is_the_mirror_image(yaw: float) -> None:
    traits = {"eyeglasses": 1.0, "smile": 1.0, "beard": 0.5, "age": 0.7, "long_hair": 0.4}
    left, right = (render(face(yaw=sign * yaw, **traits), 32) for sign in (-1, 1))
    torch.testing.assert_close(left, right.flip(3), atol=2e-3, rtol=0)


def test_yaw_moves_the_features_to_its_side() -> None:
    column = (torch.arange(64) + 0.5) / 32 - 1
    centres = []
    for yaw in (-32.0, -16.0, 0.0, 16.0, 32.0):
        mouth = (
            (render(face(yaw=yaw, smile=1.0), 64) - render(face(yaw=yaw), 64)).abs().sum((0, 1, 2))
        )
        centres.append(float((mouth * column).sum() / mouth.sum()))
    assert centres == sorted(centres)
    assert centres[2] == pytest.approx(0, abs=0.01)
    assert centres[4] > 0.15


def test_resolutions_show_the_same_face() -> None:
    factors = sample_factors(FactorLaw(), 2, 0, 8)
    fine, coarse = F.avg_pool2d(render(factors, 64), 2), render(factors, 32)
    assert (fine - coarse).abs().mean() < 0.02
