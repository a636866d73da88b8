"""SeFa: weights read off the affines against the network's own, eigenvectors against an SVD, the walk's rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.methods.sefa import RANGES, SeFa, affine_weights, eigenvectors, first_weight
from editbench.methods.shared.layer_choice import scale_ranges
from editbench.networks.generator import Generator
from editbench.worlds.faces import load_generator, load_scorer
from tests.toy import fit_data
from tests.toy_world import ToyGenerator


@pytest.fixture(scope="module")
def generator():
    return load_generator()


def slow_weights(generator) -> list[np.ndarray]:
    """The affines of each row, layer by layer, as the network holds them."""
    synthesis = generator.network.synthesis
    names = list(generator.layer_names)
    rows = [[] for _ in range(generator.num_ws)]
    for place, (affine, row) in enumerate(zip(synthesis.affines(), synthesis.rows)):
        if names[place].startswith("rgb") and place < len(names) - 1:
            continue
        rows[row].append((affine.weight * affine.weight_gain).detach().double().numpy().T)
    return [np.concatenate(part, 1) if part else np.zeros((generator.w_dim, 0)) for part in rows]


def test_affine_weights_are_those_of_the_layers(generator):
    like = torch.zeros(1, generator.w_dim)
    found = affine_weights(generator, like)
    assert len(found) == generator.num_ws
    for mine, slow in zip(found, slow_weights(generator)):
        np.testing.assert_allclose(mine, slow, atol=1e-6)


def test_styles_that_are_no_affine_function_have_no_weights(generator, monkeypatch):
    styles = generator.styles
    monkeypatch.setattr(generator, "styles", lambda codes: styles(codes).tanh())
    with pytest.raises(Unsupported, match="no affine function of w"):
        affine_weights(generator, torch.zeros(1, generator.w_dim))


@pytest.mark.parametrize("normalise", [True, False])
def test_eigenvectors_are_the_left_singular_vectors(normalise):
    weight = np.random.default_rng(0).normal(size=(7, 20))
    weight[:, 3] = 0  # a channel without weight
    columns = np.delete(weight, 3, 1)
    if normalise:
        columns = np.stack([column / np.sqrt((column**2).sum()) for column in columns.T], 1)
    left, singular, _ = np.linalg.svd(columns)
    rows, values = eigenvectors(weight, 5, normalise)
    np.testing.assert_allclose(values, singular[:5] ** 2)
    for row, expected in zip(rows, left.T):
        np.testing.assert_allclose(abs(row @ expected), 1)
        assert row[np.abs(row).argmax()] > 0


def test_directions_belong_to_the_range_they_come_from(generator):
    teacher = load_scorer("teacher")
    data = fit_data(dim=generator.z_dim, n=90)
    w = generator.map(data.fit.z)
    data.generator = generator
    editor = SeFa(semantics=2)
    found = editor.find_directions(
        type(data)(generator, teacher, _with(data.fit, w), _with(data.tune, w), data.sigma, 0)
    )
    ranges = scale_ranges(RANGES, generator.num_ws)
    assert found.row_ranges.tolist() == [list(rows) for rows in ranges for _ in range(2)]
    weights = slow_weights(generator)
    for place, (first, last) in enumerate(ranges):
        expected, _ = eigenvectors(np.concatenate(weights[first:last], 1), 2, True)
        np.testing.assert_allclose(found.vectors[2 * place : 2 * place + 2], expected, atol=1e-4)
    # One unit of strength is one of the paper's W, by the ratio of the spreads.
    spread = np.sqrt(((w - w.mean(0)) ** 2).sum(1).mean().item())
    np.testing.assert_allclose(found.stdev, spread / 9.06, rtol=1e-5)


def _with(split, w):
    return type(split)(split.index, split.z, w[: len(split.z)], split.logits)


class Small(Generator):
    """z -> tanh of a convolution, with a normalisation of z before it or without."""

    spaces = (Space.Z,)
    z_dim = 4

    def __init__(self, normalises: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.normalises = normalises
        self.first = nn.ConvTranspose2d(4, 3, 2, bias=False)

    def _decode(self, codes: Codes) -> torch.Tensor:
        z = codes.values
        if self.normalises:
            z = z / (1e-3 + z.norm(dim=1, keepdim=True))
        return torch.tanh(self.first(z[:, :, None, None]))


def test_a_generator_of_z_alone_is_factorised_at_its_first_layer():
    generator = Small(False)
    found = first_weight(generator, torch.zeros(1, 4))
    expected = generator.first.weight.detach().double().flatten(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(Unsupported, match=r"'first' is not linear in z"):
        first_weight(Small(True), torch.zeros(1, 4))
    with pytest.raises(Unsupported, match=r"method\.space=z"):
        SeFa().check(ToyGenerator(), load_scorer("teacher").attributes, "smile")


def test_of_a_generator_with_styles_nothing_is_factorised_in_z(generator):
    """Its first linear map reads z at unit length: twice as far a z is the same sample."""
    z = torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(generator.map(2 * z), generator.map(z))
    with pytest.raises(Unsupported, match=r"as in the paper: set method\.space=w"):
        SeFa(space="z").check(generator, load_scorer("teacher").attributes, "smile")


def test_more_eigenvectors_than_channels_are_refused_before_the_fit(generator):
    attributes = load_scorer("teacher").attributes
    SeFa(semantics=generator.w_dim).check(generator, attributes, "smile")
    with pytest.raises(
        EditbenchError, match=rf"semantics={generator.w_dim + 1} exceeds .*W.*128: lower"
    ):
        SeFa(semantics=generator.w_dim + 1).check(generator, attributes, "smile")
    with pytest.raises(EditbenchError, match=r"semantics=5 exceeds .*Z.*4: lower"):
        SeFa(semantics=5, space="z").check(Small(False), attributes, "smile")


def test_wrong_options_are_named():
    with pytest.raises(EditbenchError, match=r"method.semantics=0"):
        SeFa(semantics=0)
    with pytest.raises(EditbenchError, match=r"strength=-1"):
        SeFa(strength=-1)
