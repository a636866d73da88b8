"""NaviGAN: closed forms of a linear world, networks whose weights were edited one sample at a time, and eq. (1)."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from editbench.bank.bank import Split
from editbench.base import seeding
from editbench.base.errors import EditbenchError, NoControl, NonFinite, UnknownName, Unsupported
from editbench.base.spaces import Codes, Space, WeightShift
from editbench.methods.navigan.editor import NaviGAN
from editbench.methods.navigan.reconstructor import small
from editbench.methods.navigan.spectrum import SpectrumOptions, spectrum
from editbench.methods.navigan.training import Pairs, Training, decode_pair, learn, losses, push_out
from editbench.methods.navigan.weight_bases import PAPER_NORM, SVDBasis, VectorBasis
from editbench.networks.perceptual import PixelDistance
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2Config
from editbench.walk.editor import FitData, Walk
from editbench.worlds.faces import load_generator
from tests.small_stylegan2 import random_stylegan2
from tests.toy import (
    BINARY,
    MIXED,
    LinearScorer,
    ToyGenerator,
    check_editor,
    fit_data,
    fitted_and_restored,
    make_walk,
    normals_for,
)

DIM = 24
SMALL = {"iterations": 8, "batch": 8, "reconstructor": "small", "resolution": 0, "fresh": 16}
SHORT = {"latents": 16, "size": 4, "block": 4}


def toy_editor(**options) -> NaviGAN:
    return NaviGAN(
        **(
            {
                "layer": "conv",
                "count": DIM,
                "samples": 30,
                "limit": 200 * PAPER_NORM / DIM,
                "max_off_target": None,
                "max_distance": None,
            }
            | options
        )
    )


class PictureScorer(LinearScorer):
    input = "image"

    def forward(self, decoded):
        return super().forward(decoded.flatten(1))


def picture_data(generator, attributes=BINARY, n=24) -> FitData:
    """A tiny bank of a generator of pictures under a linear teacher."""
    z = torch.randn(n, generator.z_dim, generator=torch.Generator().manual_seed(3))
    w = generator.map(z)
    pictures = generator.decode(Codes(Space.W, w))
    teacher = PictureScorer(attributes, normals_for(attributes, pictures[0].numel()))
    split = Split(torch.arange(n), z, w, teacher(pictures))
    return FitData(generator, teacher, split, split, attributes.log_odds(split.logits).std(0), 0)


def picture_walk(generator, attributes, name, n) -> Walk:
    """n new samples, asked for one class after the other."""
    w = generator.map(torch.randn(n, generator.z_dim, generator=torch.Generator().manual_seed(5)))
    target = torch.arange(n) % len(attributes[name].classes)
    return Walk(
        name, torch.arange(n), torch.zeros(n, 1), torch.zeros(n, 1), target, target, latent=w
    )


@pytest.fixture(scope="module")
def network() -> StyleGAN2Generator:
    config = StyleGAN2Config(16, (8, 6, 6), z_dim=10, w_dim=9, mapping_layers=2)
    return StyleGAN2Generator(random_stylegan2(config))


class PictureToy(ToyGenerator):
    """The linear world as pictures (3, 4, 4) of which the first `seen` numbers show."""

    output = "image"

    def __init__(self, seen: int = 48) -> None:
        super().__init__(48)
        self.seen = (torch.arange(48) < seen).float()

    def _decode(self, codes):
        return (self.seen * super()._decode(codes)).reshape(-1, 3, 4, 4)


# -- the editor in closed form ---------------------------------------------------------------------
@pytest.mark.parametrize("variant", ["svd", "spectrum"])
def test_effects_and_walks_of_the_linear_world(variant):
    data = fit_data(MIXED, DIM)
    editor = toy_editor(variant=variant, count=6, spectrum=SHORT if variant == "spectrum" else None)
    report = editor.fit(data)
    assert editor.largest_shift == pytest.approx(
        200 / DIM * data.generator.weight.norm().item(), rel=1e-6
    )
    w, effects = data.tune.w[:30], editor.effects
    strengths = torch.tensor([-1, -0.5, 0.5, 1]) * editor.largest_shift
    torch.testing.assert_close(torch.tensor(effects.strengths), strengths)
    assert report.labels == 30 and effects.decoded == 30 * 4 * 6
    control, walk = report.notes["control.kind"], make_walk(data, editor, "kind")
    assert editor.kernels.flatten(1).norm(dim=1) == pytest.approx(1.0, abs=1e-5)
    base = data.teacher(walk.latent)
    for steps in range(1, 4):
        walk.codes = editor.step(walk)
        assert walk.codes == pytest.approx(steps * editor.largest_shift / 20)
        shift = editor.codes(walk).shift
        assert len(shift.kernels) <= 3
        logits = data.score(editor.codes(walk))
        for n, target in enumerate(walk.target.tolist()):
            named = control[MIXED["kind"].classes[target]]
            sign = np.sign(named["t"])
            matrix = shift.kernels[shift.index[n]][:, :, 0, 0]
            delta = sign * walk.codes[n] * (data.teacher.normals @ matrix @ walk.latent[n])
            torch.testing.assert_close(logits[n], base[n] + delta, atol=1e-3, rtol=1e-4)
            moved = effects.change[named["candidate"], 3 if sign > 0 else 0]
            odds = MIXED.log_odds(
                data.teacher(w + sign * editor.largest_shift * w @ matrix.T)
            ) - MIXED.log_odds(data.teacher(w))
            torch.testing.assert_close(moved, odds / data.sigma, atol=1e-3, rtol=1e-3)


def test_the_step_does_not_depend_on_the_size_of_the_weight_but_with_it():
    data = fit_data()
    editor = toy_editor(steps_to_t=10)
    notes = editor.fit(data).notes
    data.generator.weight.data *= 3
    larger = toy_editor(steps_to_t=10).fit(data).notes
    assert larger["T"] == pytest.approx(3 * notes["T"])
    assert larger["step"] == pytest.approx(larger["T"] / 10)


@pytest.mark.parametrize("attribute", ["a", "kind", "angle"])
def test_contract(attribute):
    data = fit_data(MIXED, DIM)
    editor, fresh = toy_editor(), toy_editor()
    editor.fit(data)
    check_editor(editor, data, attribute, fresh)
    fresh.check(data.generator, MIXED, attribute)
    walk = make_walk(data, editor, attribute)
    walk.codes = editor.step(walk)
    ours, theirs = editor.codes(walk).shift, fresh.codes(walk).shift
    assert torch.equal(ours.kernels, theirs.kernels) and torch.equal(ours.index, theirs.index)
    assert torch.equal(ours.magnitude, theirs.magnitude) and ours.layer == theirs.layer == "conv"


# -- against networks whose weight was edited ------------------------------------------------------
def edited_alone(generator, layer, kernel, t, codes: Codes):
    """The picture of one sample by a copy of the whole network with another weight."""
    other = copy.deepcopy(generator)
    weight = other.kernels()[layer]
    weight.data += t * kernel
    return other.decode(codes)[0]


@pytest.mark.parametrize(
    "variant, layer",
    [
        ("svd", "conv8_up"),
        ("svd", 1),
        ("svd", "rgb16"),
        ("optimisation", 0),
        ("spectrum", "conv4"),
        ("hybrid", 3),
    ],
)
def test_a_walk_decodes_as_copies_of_the_network_do(network, variant, layer):
    data = picture_data(network, MIXED)
    editor = NaviGAN(
        variant,
        layer,
        3,
        300.0 if variant in ("svd", "optimisation") else 80.0,
        4,
        6,
        0.0,
        SMALL | {"min_shift": 15} if variant in ("optimisation", "hybrid") else None,
        SHORT if variant in ("spectrum", "hybrid") else None,
    )
    editor.fit(data)
    norms = editor.kernels.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    walk = picture_walk(network, MIXED, "angle", 6)
    walk.codes = 2 * editor.step(walk)
    codes = editor.codes(walk)
    pictures, shift = network.decode(codes), codes.shift
    assert (pictures - network.decode(Codes(Space.W, walk.latent))).abs().max() > 1e-2
    for n in range(6):
        alone = edited_alone(
            network,
            editor.layer_name,
            shift.kernels[shift.index[n]],
            shift.magnitude[n],
            Codes(Space.W, walk.latent[n : n + 1]),
        )
        torch.testing.assert_close(pictures[n], alone, atol=1e-4, rtol=1e-4)
    walk.latent = network.w_plus(walk.latent).clone()
    torch.testing.assert_close(network.decode(editor.codes(walk)), pictures, atol=1e-5, rtol=1e-5)


def test_the_same_on_the_embedded_world():
    world = load_generator()
    data = picture_data(world, n=8)
    editor = NaviGAN("svd", 3, 2, samples=8, min_effect=0.0, max_off_target=None)
    editor.fit(data)
    walk = picture_walk(world, BINARY, "b", 3)
    walk.codes = 3 * editor.step(walk)
    codes = editor.codes(walk)
    pictures = world.decode(codes)
    for n in range(3):
        alone = edited_alone(
            world,
            "conv16",
            codes.shift.kernels[codes.shift.index[n]],
            codes.shift.magnitude[n],
            Codes(Space.W, walk.latent[n : n + 1]),
        )
        torch.testing.assert_close(pictures[n], alone, atol=1e-4, rtol=1e-4)


# -- planted directions ----------------------------------------------------------------------------
def test_svd_finds_a_dominating_direction_first():
    rng = torch.Generator().manual_seed(0)
    u, v = (torch.randn(8, generator=rng) for _ in range(2))
    planted = torch.outer(u, v) / u.norm() / v.norm()
    weight = (5 * planted + 0.1 * torch.randn(8, 8, generator=rng)).reshape(8, 8, 1, 1)
    assert (SVDBasis(weight).direction(0)[:, :, 0, 0] * planted).sum().abs() > 0.99


class OneChannel(LinearScorer):
    def features(self, decoded):
        return decoded[:, 5:6]


def test_spectrum_sees_the_one_channel_that_its_distance_sees():
    """Of |X w|_5^2 the Hessian is 2 E[w w^T] in the row of channel 5 and zero elsewhere."""
    data = fit_data(scorer=OneChannel(BINARY, normals_for(BINARY, DIM)))
    editor = toy_editor(
        variant="spectrum",
        count=3,
        spectrum=SHORT | {"tolerance": 1e-3, "latents": 40, "perceptual": "teacher"},
    )
    editor.layer_name = "conv"
    direction, notes = editor._find_directions(data)
    basis, _ = editor._find_spectrum(data, editor.spectrum)
    assert notes["spectrum"]["converged"]
    assert notes["spectrum"]["perceptual"] == "features of OneChannel"
    assert notes["spectrum"]["supervision"] == "teacher's features"
    for k in range(3):
        xi = direction(k)[:, :, 0, 0]
        assert torch.equal(xi, basis.direction(k)[:, :, 0, 0])
        assert xi[5].norm() == pytest.approx(1.0, abs=1e-4)


def test_finite_differences_have_the_radius_and_the_unit_that_were_asked_for(network):
    """Of a network that is not linear they depend on both; the paper's and the code's numbers are at hand."""
    data, found = picture_data(network), {}
    z = torch.from_numpy(
        seeding.rng(data.seed, "navigan/spectrum").standard_normal((6, 10))
    ).float()
    paper = {"method": "power", "products": "finite_difference", "iterations": 2}
    for radius, unit in ((0.1, True), (0.1, False), (3.0, True)):
        options = paper | {"radius": radius, "unit": unit}
        editor = NaviGAN(
            "spectrum", "conv8", 2, spectrum=options | {"latents": 6, "perceptual": "pixels"}
        )
        editor.layer_name = "conv8"
        basis, _ = editor._find_spectrum(data, editor.spectrum)
        expected = spectrum(
            network, Codes(Space.Z, z), "conv8", PixelDistance(), 2, SpectrumOptions(**options)
        )
        found[radius, unit] = torch.stack([basis.direction(k) for k in range(2)])
        torch.testing.assert_close(found[radius, unit], expected.vectors, atol=1e-5, rtol=0)
    assert (found[0.1, True] - found[0.1, False]).abs().max() > 1e-3
    assert (found[0.1, True] - found[3.0, True]).abs().max() > 1e-3
    for given in (paper, {}):
        defaults = NaviGAN("spectrum", spectrum=given).spectrum
        assert (defaults.radius, defaults.unit) == (0.1, True)


def test_eq_1_turns_its_directions_to_what_shows():
    """Of 6 basis vectors 2 change the picture; directions that a network can tell apart must use them."""
    generator = PictureToy(seen=24)
    vectors = torch.zeros(6, 48, 48, 1, 1)
    for j in range(
        6
    ):  # the vectors move output 4 j (of the numbers that show) or 24 + 4 j (of those that do not)
        vectors[j, 4 * j if j < 2 else 24 + 4 * (j - 2), :, 0, 0] = 48**-0.5
    scale = generator.weight.norm().item() / PAPER_NORM
    options = Training(150, 16, 5e-3, 0.1, 2e-4, 2 / scale, "small", 0, "limit", 128)
    found = learn(generator, "conv", VectorBasis(vectors), 2, 8 / scale, options, small, 0)
    seen = found.coefficients[:, :2].square().sum(1)
    assert seen.min() > 0.95 and found.coefficients.norm(dim=1) == pytest.approx(1.0, abs=1e-5)


# -- eq. (1) ---------------------------------------------------------------------------------------
def test_losses_are_those_of_eq_1():
    rng = np.random.default_rng(0)
    logits, k = rng.normal(size=(5, 4)), rng.integers(4, size=5)
    t, t_hat = rng.normal(size=5) * 100, rng.normal(size=5) * 100
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.log(softmax[np.arange(5), k]).mean() + 2.5e-3 * np.abs(t - t_hat).mean()
    found = losses(*map(torch.from_numpy, (logits, t_hat, k, t)), 2.5e-3)
    assert found.item() == pytest.approx(expected)


def test_small_shifts_are_pushed_out_on_their_side():
    t = torch.tensor([-500.0, -300, -10, 10, 299, 300, 2000])
    assert push_out(t, 300.0).tolist() == [-500, -300, -300, 300, 300, 300, 2000]
    assert torch.equal(push_out(t, 0.0), t)


def test_pairs_share_z_and_obey_the_law_of_k_and_t(network):
    weight = network.kernels()["conv8"]
    pairs = Pairs(network, "conv8", SVDBasis(weight), 4, 3500.0, 300.0, np.random.default_rng(0))
    before, after, k, t = pairs(torch.randn(4, 6), 400)
    assert before.shape == after.shape == (400, 3, 16, 16)
    assert t.abs().min() == 300 and 3300 < t.abs().max() <= 3500 and abs(t.mean()) < 300
    assert torch.bincount(k, minlength=4).min() > 70
    assert abs((t.abs() == 300).float().mean() - 0.086) < 0.04


@pytest.mark.parametrize("layer", ["conv4", "rgb4", "conv8_up", "conv16", "rgb16"])
def test_a_pair_is_two_decodes_and_asks_for_gradients_of_the_directions_alone(network, layer):
    z, weight = torch.randn(5, 10), network.kernels()[layer]
    kernels = torch.randn(2, *weight.shape, requires_grad=True)
    shift = WeightShift(layer, kernels, torch.tensor([0, 1, 1, 0, 1]), torch.linspace(-1, 2, 5))
    count = network.decoded
    before, after = decode_pair(network, z, shift)
    assert network.decoded == count + 10 and not before.requires_grad and after.requires_grad
    torch.testing.assert_close(before, network.decode(Codes(Space.Z, z)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        after, network.decode(Codes(Space.Z, z, shift)), atol=1e-5, rtol=1e-5
    )
    (slope,) = torch.autograd.grad(after.square().sum(), kernels)
    (direct,) = torch.autograd.grad(
        network.decode(Codes(Space.Z, z, shift)).square().sum(), kernels
    )
    torch.testing.assert_close(slope, direct, atol=1e-3, rtol=1e-3)


def test_training_lowers_the_loss_tells_directions_apart_and_repeats():
    generator = PictureToy()
    basis = SVDBasis(generator.weight)
    scale = generator.weight.norm().item() / PAPER_NORM
    options = Training(120, 16, 5e-3, 1e-2, 2e-4, 4 / scale, "small", 0, "limit", 128)
    found, again = (
        learn(generator, "conv", basis, 3, 12 / scale, options, small, 0) for _ in range(2)
    )
    assert found.last_loss < 0.6 * found.first_loss and found.accuracy > 0.75
    assert torch.equal(found.coefficients, again.coefficients) and found.accuracy == again.accuracy
    short = Training(**(vars(options) | {"iterations": 2}))
    before = generator.decoded
    one, other = (
        learn(generator, "conv", basis, 3, 12 / scale, short, small, seed) for seed in (0, 1)
    )
    # One pair for the channels, 2 steps on 16 pairs and back through the edited ones, 128 fresh.
    assert generator.decoded - before == 2 * (2 + 2 * (2 * 16 + 16) + 2 * 128)
    assert not torch.allclose(one.coefficients, other.coefficients)


class Blind(nn.Module):
    """Says direction 1 and shift 0, whatever it is shown."""

    def __init__(self, channels, directions, unit, resolution):
        super().__init__()
        self.logits = nn.Parameter(torch.eye(directions)[1])

    def forward(self, before, after):
        return self.logits.expand(len(before), -1), 0 * before.flatten(1).sum(1) * self.logits.sum()


def test_the_judgement_of_a_blind_reconstructor():
    options = Training(1, 16, 1e-12, 1e-12, 2.5e-3, 4.0, "small", 0, "raw", 3000)
    found = learn(
        PictureToy(),
        "conv",
        SVDBasis(torch.eye(48).reshape(48, 48, 1, 1)),
        4,
        12.0,
        options,
        Blind,
        0,
    )
    assert found.accuracy == pytest.approx(0.25, abs=0.03)
    assert found.shift_mae == pytest.approx(
        4 * 4 / 12 + 8 * 8 / 12, abs=0.15
    )  # |t| is 4, or uniform from 4 to 12


def test_divergence_is_an_error():
    generator = PictureToy()
    options = Training(**(SMALL | {"lr": 1e30, "min_shift": 1}))
    with pytest.raises(NonFinite, match=r"eq. \(1\) diverged within 8 iterations"):
        learn(generator, "conv", SVDBasis(generator.weight), 3, 80.0, options, small, 0)


# -- what cannot be served -------------------------------------------------------------------------
def test_no_control_is_a_reason_also_after_loading():
    data = fit_data()
    editor, fresh = fitted_and_restored(lambda: toy_editor(min_effect=1e3), data)
    walk = make_walk(data, editor, "a", 3)
    for one in (editor, fresh):
        with pytest.raises(NoControl, match="no control found for 'a': the best of 24 candidates"):
            one.check(data.generator, BINARY, "a")
        with pytest.raises(Unsupported, match="no control found"):
            one.step(walk)
    toy_editor().check(data.generator, BINARY, "a")  # before the fit nothing is known


def test_generators_and_layers_that_do_not_fit():
    data = fit_data()
    latent_only = ToyGenerator(DIM)
    latent_only.spaces = (Space.Z, Space.W)
    with pytest.raises(Unsupported, match="needs THETA"):
        toy_editor().check(latent_only, BINARY, "a")
    with pytest.raises(UnknownName, match=r"unknown method\.layer 'conv9'.*Available: conv"):
        toy_editor(layer="conv9").check(data.generator, BINARY, "a")
    # Before the fit, which would spend its time first.
    with pytest.raises(EditbenchError, match=r"method\.count=25: .* has only 24 singular"):
        toy_editor(count=25).check(data.generator, BINARY, "a")
    with pytest.raises(EditbenchError, match=r"from 1 to 576, since the weight of 'conv"):
        toy_editor(variant="spectrum", count=577).check(data.generator, BINARY, "a")
    few = {"size": 9, "iterations": 2, "block": 4}
    with pytest.raises(EditbenchError, match="2 blocks of 4 cannot hold 9 eigenvectors"):
        toy_editor(variant="hybrid", spectrum=few).check(data.generator, BINARY, "a")
    with pytest.raises(EditbenchError, match="LPIPS needs"):
        toy_editor(
            variant="spectrum", count=2, spectrum={"perceptual": "lpips", "vgg": "missing.pth"}
        ).fit(data)
    with pytest.raises(Unsupported, match="compares pictures"):
        toy_editor(variant="optimisation").fit(data)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"variant": "x"}, "variant=x"),
        ({"max_distance": 0.0}, "max_distance=0.0 must be positive, or null"),
        ({"max_off_target": -1.0}, "max_off_target"),
        ({"count": 0}, "count=0"),
        ({"limit": -1.0}, "limit"),
        ({"training": {}}, "training: variant 'svd' has no such part"),
        ({"variant": "hybrid", "spectrum": {"latent": 3}}, "'latent'. Did you mean 'latents'"),
        ({"variant": "spectrum", "spectrum": {"perceptual": "vgg"}}, "spectrum.perceptual"),
        (
            {"variant": "hybrid", "spectrum": {"linear": "vgg.pth"}},
            "^spectrum.linear is only used with perceptual: lpips, but perceptual is pixels$",
        ),
        (
            {"variant": "spectrum", "spectrum": {"method": "lanczos"}},
            "spectrum.method=lanczos must be one of block",
        ),
        (
            {"variant": "spectrum", "spectrum": {"radius": 0.0}},
            "^spectrum.radius=0.0 must be positive$",
        ),
        (
            {"variant": "spectrum", "spectrum": {"block": 0}},
            "^spectrum.block=0 must be at least 1$",
        ),
        ({"variant": "spectrum", "spectrum": 5}, "spectrum=5 must be null or a mapping"),
        ({"variant": "hybrid", "spectrum": {"unit": 1}}, "spectrum.unit=1 must be true or false"),
        (
            {"variant": "optimisation", "training": {"reconstructor": "big"}},
            "training.reconstructor",
        ),
        (
            {"variant": "optimisation", "training": {"lr": 0.0}},
            "^training.lr=0.0 must be positive$",
        ),
        ({"variant": "optimisation", "training": {"iterations": 1.5}}, "whole number"),
        (
            {"variant": "optimisation", "training": {"batch": 1}},
            "^training.batch=1 must be at least",
        ),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(EditbenchError, match=message):
        NaviGAN(**options)


def test_shifts_pushed_beyond_the_limit_are_refused():
    with pytest.raises(EditbenchError, match=r"^training\.min_shift=300 exceeds limit=80: lower"):
        NaviGAN("optimisation", limit=80)
