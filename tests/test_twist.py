"""The twist of W: exact to invert, of constant volume and spread, and the same pictures of the same z."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from editbench.bank.build import build_bank
from editbench.bank.spec import BankSpec, StartsSpec
from editbench.bank.starts import draw_targets
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space, WeightShift
from editbench.base.validation import in_yaml
from editbench.methods.sefa import affine_weights
from editbench.networks.roles import Networks
from editbench.networks.twist import Twist
from editbench.worlds.faces import load_generator, load_scorer
from editbench.worlds.faces.dial import CURVATURES, load_curved

DIM = 12


@pytest.fixture(scope="module")
def w():
    """(n, DIM) codes of unequal, correlated coordinates."""
    mixed = torch.from_numpy(normals(1, "w", 0, 4000, DIM)).float() * torch.linspace(0.2, 3, DIM)
    return mixed @ torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.manual_seed(0)))[0] + 1


@pytest.fixture(scope="module")
def z():
    return torch.from_numpy(normals(2, "z", 0, 6, 128)).float()


@pytest.mark.parametrize("curvature", [0.3, 1.0, 4.0])
def test_it_is_undone_exactly_and_keeps_volume_and_spread(w, curvature):
    twist = Twist(w, curvature, 8).double()
    w = w.double()
    bent = twist(w)
    # Axes and directions are kept in single precision.
    torch.testing.assert_close(twist.inverse(bent), w, rtol=0, atol=5e-5)
    torch.testing.assert_close(twist(twist.inverse(w)), w, rtol=0, atol=5e-5)
    assert (bent - w).norm(dim=1).median() > 0.1 * w.std(0).norm()
    for code in w[:3]:
        # Gradients of methods go through it: its Jacobian, by autograd, is that of differences.
        jacobian = torch.autograd.functional.jacobian(twist.inverse, code)
        assert abs(torch.linalg.slogdet(jacobian).logabsdet) < 1e-5
        step = 1e-4 * torch.eye(DIM, dtype=torch.double)
        slow = (twist.inverse(code + step) - twist.inverse(code - step)) / 2e-4
        torch.testing.assert_close(jacobian.T, slow, rtol=1e-4, atol=1e-5)
    # Turns of a distribution of unit variance: its spread is what it was.
    assert float(bent.std(0).norm() / w.std(0).norm()) == pytest.approx(1, abs=0.02)


def test_pairs_turn_by_the_angle_that_the_other_half_gives(w):
    """Against the definition, a pair at a time."""
    curvature = 0.7
    twist = Twist(w, curvature, 4).double()
    code = w[5].double()
    x = (code - twist.mean) @ twist.into
    a, b = x[:2].clone(), x[2:].clone()
    for moved, other, d in ((b, a, twist.along[0, 0]), (a, b, twist.along[1, 0])):
        angle = curvature * float(other @ d)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        moved.copy_(torch.from_numpy(turn) @ moved)
    expected = code + (torch.cat([a, b]) - x) @ twist.back
    torch.testing.assert_close(twist(code), expected)
    assert torch.linalg.norm(twist.along, dim=-1).flatten().tolist() == pytest.approx([1, 1])


def test_components_come_in_pairs_of_two_halves(w):
    with pytest.raises(EditbenchError, match="components=6 must be a multiple of 4"):
        Twist(w, 1.0, 6)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_pictures_styles_and_shifts_are_those_of_the_plain_generator(z, curvature):
    plain, bent = load_generator(), load_curved(curvature)
    w, twisted = plain.map(z), bent.map(z)
    picture = plain.decode(Codes(Space.W, w))
    assert torch.equal(bent.decode(Codes(Space.Z, z)), plain.decode(Codes(Space.Z, z)))
    near = {"rtol": 0, "atol": 2e-3}
    torch.testing.assert_close(bent.decode(Codes(Space.W, twisted)), picture, **near)
    # Each row of W+ by itself: rows of two samples.
    rows, twisted_rows = plain.w_plus(w).clone(), bent.w_plus(twisted).clone()
    rows[:, :3] = w[0]
    twisted_rows[:, :3] = twisted[0]
    torch.testing.assert_close(
        bent.decode(Codes(Space.W_PLUS, twisted_rows)),
        plain.decode(Codes(Space.W_PLUS, rows)),
        **near,
    )
    styles = bent.styles(bent.w_plus(twisted))
    torch.testing.assert_close(styles, plain.styles(plain.w_plus(w)), rtol=0, atol=1e-4)
    torch.testing.assert_close(bent.decode(Codes(Space.S, styles)), picture, **near)
    layer = plain.layer_names[2]
    kernel = torch.randn(1, *plain.kernels()[layer].shape, generator=torch.manual_seed(0))
    shift = WeightShift(
        layer, 0.1 * kernel, torch.zeros(len(z), dtype=torch.long), torch.ones(len(z))
    )
    torch.testing.assert_close(
        bent.decode(Codes(Space.W, twisted, shift)), plain.decode(Codes(Space.W, w, shift)), **near
    )
    if curvature == 0:
        assert torch.equal(twisted, w)
    else:
        assert not torch.allclose(twisted, w, atol=0.1)


def test_starts_are_those_of_the_plain_generator(tmp_path):
    """Banks of any setting draw alike: the same pictures, in the same order but for ties."""
    judge = load_scorer("judge")
    drawn = []
    for name, generator in (("plain", load_generator()), ("bent", load_curved(1.0))):
        models = partial(Networks, generator, judge, judge)
        bank = build_bank(tmp_path / name, name, BankSpec(120, fit=0.2, tune=0.1), models)
        drawn.append(draw_targets(StartsSpec(n=28, pool=0.4), bank))
    for attribute, starts in drawn[0].items():
        np.testing.assert_array_equal(starts.index, drawn[1][attribute].index)
        np.testing.assert_array_equal(starts.target, drawn[1][attribute].target)


def test_settings_have_identities_of_their_own():
    assert len({load_curved(curvature).digest for curvature in CURVATURES}) == len(CURVATURES)
    assert load_curved(0.3).digest == load_curved(0.3).digest
    bent = load_curved(0.3)
    # A run in another precision adds it to the digest, and then draws starts of its own.
    bent.digest += "-bf16"
    assert bent.samples_digest == f"{load_generator().digest}-bf16"


@pytest.mark.parametrize(
    ("curvature", "wanted"),
    [
        (-1.0, "at least 0"),
        (float("nan"), "at least 0"),
        (float("inf"), "finite"),
        ("much", "a number"),
        (True, "a number"),
    ],
)
def test_a_wrong_curvature_is_named(curvature, wanted):
    with pytest.raises(
        EditbenchError, match=f"generator.curvature={in_yaml(curvature)} must be {wanted}"
    ):
        load_curved(curvature)


def test_sefa_says_that_the_styles_are_not_affine(z):
    assert len(affine_weights(load_generator(), z)) == load_generator().num_ws
    with pytest.raises(Unsupported, match="no affine function of w"):
        affine_weights(load_curved(0.6), z)
