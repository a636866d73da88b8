"""The projector: noise maps, recovery of what is known, images that do not mix."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from editbench.base.errors import NonFinite, Unsupported
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.inversion.noise import NoiseMaps, autocorrelation, decode_with
from editbench.inversion.projector import (
    Statistics,
    decode_inverted,
    invert,
    jitter,
    latent_statistics,
)
from editbench.inversion.spec import ProjectionSpec, Schedule
from editbench.inversion.store import psnr
from editbench.networks.generator import Generator
from editbench.networks.perceptual import FeatureDistance, PixelDistance
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.worlds.faces import load_generator, load_scorer
from tests.noise_maps import normal

torch.set_num_threads(1)


STILL = Schedule(steps=300, jitter=0.0)


SHORT = Schedule(steps=12)


class Linear(Generator):
    """image = A mean(rows of W+) + b, (N, 1, 3, 4); w = 2 z."""

    spaces = (Space.Z, Space.W, Space.W_PLUS)
    z_dim = w_dim = 5
    num_ws = 3

    def __init__(self):
        super().__init__()
        self.a, self.b = normal("a", 12, 5), normal("b", 1, 12)

    def map(self, z):
        return 2 * z

    def _decode(self, codes):
        w = self.map(codes.values) if codes.space == Space.Z else codes.values
        w = w.mean(1) if codes.space == Space.W_PLUS else w
        return (w @ self.a.T + self.b).reshape(-1, 1, 3, 4)


@pytest.fixture(scope="module")
def small():
    """A random StyleGAN2 of 8x8 pixels with strong layer noise."""
    torch.manual_seed(3)
    network = StyleGAN2(StyleGAN2Config(8, (12, 12), z_dim=10, w_dim=10, mapping_layers=2))
    for name, value in network.named_parameters():
        if name.endswith("noise_strength"):
            value.data.fill_(0.7)
    return StyleGAN2Generator(network)


# -- noise -----------------------------------------------------------------------------------------
def test_maps_are_normal_and_belong_to_their_image(small):
    maps = NoiseMaps(small, 0, np.array([2, 5, 6]))
    again = NoiseMaps(small, 0, np.array([5]))
    for name, values in maps.maps.items():
        assert torch.equal(values[1:2], again.maps[name])
        assert values.shape[2:] == dict(small.named_buffers())[name].shape
        assert not torch.equal(values[0], values[1])
        values.data.mul_(3).add_(7)
    maps.renormalise()
    for values in maps.maps.values():
        assert values.mean((2, 3)).abs().max() < 1e-5
        assert torch.allclose(values.square().mean((2, 3)), torch.ones(3, 1), atol=1e-4)


def test_optimised_noise_explains_what_the_latent_cannot_and_leaves_the_generator_alone(small):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    w = small.map(normal("own", 4, 10))
    other = NoiseMaps(small, 9, np.arange(4))
    target = decode_with(small, Codes(Space.W, w), other.maps).detach()
    spec = ProjectionSpec(
        noise="optimise", noise_weight=1.0, samples=500, schedule=Schedule(steps=50)
    )
    found = invert(small, PixelDistance(), target, spec)
    fixed = invert(
        small, PixelDistance(), target, ProjectionSpec(samples=500, schedule=Schedule(steps=50))
    )
    error = (decode_inverted(small, found) - target).square().mean()
    assert error < 0.5 * (small.decode(fixed.codes) - target).square().mean()
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert all(value.mean((2, 3)).abs().max() < 1e-5 for value in found.noise.values())
    assert not fixed.noise
    heavy = invert(
        small,
        PixelDistance(),
        target,
        ProjectionSpec(noise="optimise", samples=500, schedule=Schedule(50)),
    )
    penalty = [
        sum(float(autocorrelation(x).sum()) for x in one.noise.values()) for one in (found, heavy)
    ]
    assert penalty[1] < 0.5 * penalty[0]


def test_many_images_decode_with_their_own_maps():
    """More images than pixels from which a layer lays its noise out otherwise."""
    torch.manual_seed(5)
    generator = StyleGAN2Generator(
        StyleGAN2(StyleGAN2Config(8, (2, 2), z_dim=3, w_dim=3, mapping_layers=2))
    )
    maps = {name: x.detach() for name, x in NoiseMaps(generator, 0, np.arange(70)).maps.items()}
    codes = Codes(Space.W, generator.map(normal("many", 70, 3)))
    made = decode_with(generator, codes, maps)
    for i in (0, 31, 32, 69):
        alone = decode_with(
            generator, codes[i : i + 1], {name: x[i : i + 1] for name, x in maps.items()}
        )
        assert torch.allclose(made[i], alone[0], atol=1e-5)


# -- the projector ---------------------------------------------------------------------------------
def test_statistics_are_those_of_the_samples():
    found = latent_statistics(small_map := Linear(), ProjectionSpec(samples=1234))
    w = 2 * torch.from_numpy(normals(0, "inversion/statistics", 0, 1234, 5)).float()
    assert torch.allclose(found.mean, w.mean(0), atol=1e-5)
    assert found.spread == pytest.approx(
        float((w - w.mean(0)).square().sum(1).mean().sqrt()), rel=1e-5
    )
    assert latent_statistics(small_map, ProjectionSpec(space="z")).spread == pytest.approx(5**0.5)


@pytest.mark.parametrize("space", ["w", "w_plus", "z"])
def test_a_linear_generator_is_inverted_by_least_squares(space):
    generator = Linear()
    target = normal("images", 6, 1, 3, 4)
    found = invert(
        generator,
        PixelDistance(),
        target,
        ProjectionSpec(space=space, schedule=Schedule(steps=400)),
    )
    w = torch.linalg.lstsq(generator.a, (target.flatten(1) - generator.b).T).solution.T
    codes = (
        found.codes.values.mean(1)
        if space == "w_plus"
        else found.codes.values * (2 if space == "z" else 1)
    )
    assert torch.allclose(codes, w, atol=2e-3)
    apart = (generator.decode(found.codes) - target).square().flatten(1).sum(1)
    assert torch.allclose(found.distance, apart, rtol=1e-3)


def test_at_equal_rows_w_plus_is_w():
    """Every row has a third of w's slope, and Adam does not see the third."""
    generator, target = Linear(), normal("images", 4, 1, 3, 4)
    flat = invert(generator, PixelDistance(), target, ProjectionSpec(schedule=STILL))
    rows = invert(
        generator, PixelDistance(), target, ProjectionSpec(space="w_plus", schedule=STILL)
    )
    assert torch.allclose(
        rows.codes.values, flat.codes.values.unsqueeze(1).expand(-1, 3, -1), atol=1e-3
    )
    draws = jitter(ProjectionSpec(space="w_plus"), 0, np.arange(2), torch.zeros(2, 3, 5))
    assert not torch.equal(draws[:, 0], draws[:, 1])  # but with jitter each row has its own


def test_the_jitter_is_a_share_of_the_latents_spread():
    generator, target = Linear(), normal("images", 200, 1, 3, 4)
    spec = ProjectionSpec(schedule=replace(SHORT, steps=1))
    known = latent_statistics(generator, spec)
    found = invert(generator, PixelDistance(), target, spec)
    draws = torch.from_numpy(
        normals(0, "inversion/jitter/0", 0, 200, 5)
    ).float()  # no code has moved yet
    image = generator.decode(Codes(Space.W, known.mean + 0.05 * known.spread * draws))
    assert torch.allclose(found.distance, (image - target).square().flatten(1).sum(1), rtol=1e-4)


@pytest.mark.parametrize("space", ["w", "w_plus"])
def test_from_the_known_code_nothing_is_lost_and_nothing_moves(space):
    generator, distance = load_generator(), FeatureDistance(load_scorer("teacher"))
    w = generator.map(normal("known", 1, generator.z_dim)).expand(3, -1)
    codes = w if space == "w" else generator.w_plus(w).contiguous()
    target = generator.decode(Codes(Space(space), codes))
    for steps in (1, 4):
        found = invert(
            generator,
            distance,
            target,
            ProjectionSpec(space=space, schedule=Schedule(steps=steps, jitter=0.0)),
            statistics=Statistics(w[0], 1.0),
        )
        assert found.distance.tolist() == [0.0] * 3
        assert torch.equal(found.codes.values, codes)


def test_an_image_that_the_generator_made_is_recovered():
    generator, distance = load_generator(), FeatureDistance(load_scorer("teacher"))
    target = generator.decode(Codes(Space.W, generator.map(normal("made", 2, generator.z_dim))))
    before = psnr(
        (
            generator.decode(
                Codes(Space.W, latent_statistics(generator, ProjectionSpec()).mean.expand(2, -1))
            )
            - target
        )
        .square()
        .flatten(1)
        .mean(1)
    )
    found = invert(generator, distance, target, ProjectionSpec(schedule=Schedule(steps=120)))
    after = psnr((generator.decode(found.codes) - target).square().flatten(1).mean(1))
    assert before.max() < 20 < 25 < after.min()


@pytest.mark.parametrize("noise", ["const", "optimise"])
def test_an_images_neighbours_do_not_matter(small, noise):
    target = normal("pictures", 5, 3, 8, 8).clamp(-1, 1)
    spec = ProjectionSpec(noise=noise, samples=200, schedule=SHORT)
    whole = invert(small, PixelDistance(), target, spec, np.array([0, 1, 4, 7, 9]))
    parts = [
        invert(small, PixelDistance(), target[rows], spec, np.array(index))
        for rows, index in ((slice(0, 2), [0, 1]), (slice(2, 5), [4, 7, 9]))
    ]
    assert torch.allclose(
        torch.cat([part.codes.values for part in parts]), whole.codes.values, atol=2e-4
    )
    for name, values in whole.noise.items():
        assert torch.allclose(torch.cat([part.noise[name] for part in parts]), values, atol=5e-3)
    again = invert(small, PixelDistance(), target, spec, np.array([0, 1, 4, 7, 9]))
    assert torch.equal(again.codes.values, whole.codes.values)
    other = invert(
        small, PixelDistance(), target, spec, np.array([0, 1, 4, 7, 8])
    )  # another number, other draws
    moved = (other.codes.values - whole.codes.values).abs().amax(1)
    assert moved[4] > 1e-3 > moved[:4].max()


def test_the_pixel_term_and_the_seed_are_used(small):
    target = normal("pictures", 2, 3, 8, 8).clamp(-1, 1)
    base = {"samples": 200, "schedule": SHORT}

    class Blind(PixelDistance):
        def residual(self, images):
            return 0 * images.flatten(1)

    still = invert(small, Blind(), target, ProjectionSpec(**base))
    assert torch.allclose(
        still.codes.values, latent_statistics(small, ProjectionSpec(**base)).mean.expand(2, -1)
    )
    moved = invert(small, Blind(), target, ProjectionSpec(pixel_weight=1.0, **base))
    assert not torch.allclose(moved.codes.values, still.codes.values, atol=1e-2)
    other = invert(small, Blind(), target, ProjectionSpec(pixel_weight=1.0, seed=1, **base))
    assert not torch.equal(moved.codes.values, other.codes.values)


def test_what_cannot_be_inverted_is_said(small):
    target = normal("images", 2, 1, 3, 4)
    with pytest.raises(Unsupported, match="no layer noise"):
        invert(Linear(), PixelDistance(), target, ProjectionSpec(noise="optimise"))

    class OnlyZ(Linear):
        spaces = (Space.Z,)

    with pytest.raises(Unsupported, match="set inversion"):
        invert(OnlyZ(), PixelDistance(), target, ProjectionSpec())

    class NoPictures(Linear):
        output = "w"

    with pytest.raises(Unsupported, match="no pictures"):
        invert(NoPictures(), PixelDistance(), target, ProjectionSpec())
    target[1] = torch.nan
    with pytest.raises(NonFinite, match="image 7"):
        invert(Linear(), PixelDistance(), target, ProjectionSpec(schedule=SHORT), np.array([3, 7]))
