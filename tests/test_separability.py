"""What linear classifiers read from codes, against spaces whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch.autograd.functional import jacobian

from editbench.base.seeding import normals
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.worlds.separability import (
    few_shot_auc,
    fitted_auc,
    path_lengths,
    scored_codes,
    separability,
    watch,
)
from tests.toy_world import ATTRIBUTES, DIM, ToyScorer, V

N = 3000
NETWORK = StyleGAN2Config(4, (4,), z_dim=5, w_dim=5, mapping_layers=1)


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    return normals(3, "codes", 0, N, DIM)


def test_a_straight_trait_is_read_by_all_codes_and_by_thirty(codes: np.ndarray) -> None:
    logits = torch.from_numpy(codes).float() @ V
    found = separability(codes, logits, logits, ATTRIBUTES)
    assert list(found) == ["a", "b"]  # the attribute with three classes has no such figure
    for figures in found.values():
        assert figures["linear"] > 0.999 and 0.9 < figures["few"] < 0.999
        assert figures["few_range"][0] <= figures["few"] <= figures["few_range"][1]
        assert figures["share"] == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(N))
        inside = 2 * norm.cdf(0.25) - 1  # of a Gaussian logit
        assert figures["near"] == pytest.approx(inside, abs=4 * math.sqrt(inside / N))


def test_a_curved_trait_is_a_coin_toss(codes: np.ndarray) -> None:
    logits = torch.from_numpy(np.abs(codes[:, :1]) - 0.67).float().expand(-1, ATTRIBUTES.width)
    figures = separability(codes, logits, logits, ATTRIBUTES)["a"]
    assert figures["linear"] == pytest.approx(0.5, abs=0.06)
    assert figures["few"] == pytest.approx(0.5, abs=0.06)


def test_it_learns_the_teachers_labels_and_is_tested_by_the_judges(codes: np.ndarray) -> None:
    taught = torch.from_numpy(codes[:, :1]).float().expand(-1, ATTRIBUTES.width)
    assert separability(codes, taught, -taught, ATTRIBUTES, few=False)["a"]["linear"] < 0.001


def test_a_class_that_is_missing_or_too_rare_has_no_figure(codes: np.ndarray) -> None:
    never = torch.full((N, ATTRIBUTES.width), -1.0)
    never[:, 1] = torch.from_numpy(codes[:, 0]).float()
    figures = separability(codes, never, never, ATTRIBUTES)
    assert figures["a"]["linear"] is None
    assert figures["a"]["few"] is None
    assert figures["b"]["few"] > 0.9
    labels = (np.arange(100) < 10).astype(int)
    assert few_shot_auc(codes[:100], labels, codes[:100], labels, "rare") is None
    assert fitted_auc(codes[:100], labels * 0, codes[:100], labels) is None


def test_draws_are_of_random_examples_and_repeat(codes: np.ndarray) -> None:
    labels = (codes[:, 0] > 0).astype(int)
    draws = few_shot_auc(codes, labels, codes, labels, "a")
    assert draws == few_shot_auc(codes, labels, codes, labels, "a") and len(set(draws)) == 20
    assert draws != few_shot_auc(codes, labels, codes, labels, "another")


def test_the_length_of_a_path_is_the_norm_of_the_gradient() -> None:
    torch.manual_seed(0)
    network = StyleGAN2(NETWORK).eval()
    found = path_lengths(StyleGAN2Generator(network), 3, seed=1)
    z = torch.from_numpy(normals(1, "path/z", 0, 3, 5)).float()
    noise = torch.from_numpy(normals(1, "path/noise", 0, 3, 48)).float()
    for i in range(3):
        w = network.mapping(z[i : i + 1]).detach()
        matrix = jacobian(
            lambda w: network.synthesis(network.synthesis.styles(w.expand(1, 2, 5))).flatten(), w
        )
        expected = (noise[i] @ matrix[:, 0] / 4).norm()
        assert found[i] == pytest.approx(expected.item(), rel=1e-4)


def test_what_the_log_of_a_training_says() -> None:
    class Bright(ToyScorer):
        def forward(self, decoded):
            return decoded.mean((1, 2, 3))[:, None].expand(-1, ATTRIBUTES.width)

    torch.manual_seed(0)
    network = StyleGAN2(NETWORK).eval()
    generator = StyleGAN2Generator(network)
    row = watch(Bright(), n=600)(generator)
    assert set(row) == {"auc", "share"} and set(row["auc"]) == {"a", "b"}
    assert all(0 <= value <= 1 for part in row.values() for value in part.values())
    w, logits = scored_codes(generator, Bright(), 600, 5_006)
    assert w.shape == (600, 5) and logits.shape == (600, ATTRIBUTES.width)
    assert row["share"]["a"] == pytest.approx((logits[:, 0] > 0).float().mean().item(), abs=1e-3)
