"""The spectrum of a perceptual Hessian against closed form, a dense Hessian by autograd, and a planted direction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from editbench.base.errors import EditbenchError, NonFinite, UnknownName, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.methods.navigan import curvature as curvature_module
from editbench.methods.navigan.curvature import Curvature
from editbench.methods.navigan.spectrum import Spectrum, SpectrumOptions
from editbench.methods.navigan.spectrum import spectrum as spectrum_with
from editbench.networks.generator import Generator
from editbench.networks.module_generator import ModuleGenerator
from editbench.networks.perceptual import FeatureDistance, Perceptual, PixelDistance
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2Config
from tests.small_stylegan2 import random_stylegan2
from tests.toy import ToyGenerator

DIM = 10


def spectrum(
    generator: Generator,
    latents: Codes | Tensor,
    layer: str,
    perceptual: Perceptual,
    count: int,
    seed: int = 0,
    **options: Any,
) -> Spectrum:
    """The spectrum with options by keyword."""
    chosen = SpectrumOptions(**options)
    return spectrum_with(generator, latents, layer, perceptual, count, chosen, seed)


def tiny(resolution: int = 8) -> StyleGAN2Generator:
    channels = (4, 3, 2)[: resolution.bit_length() - 2]
    config = StyleGAN2Config(resolution, channels, z_dim=6, w_dim=5, mapping_layers=2)
    return StyleGAN2Generator(random_stylegan2(config).double())


class Bends(Perceptual):
    """Smooth and not linear, so that no product is exact by accident."""

    def residual(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        return torch.cat([x.sin(), 0.3 * x[:, 1:] * x[:, :-1]], 1)


def latents(generator: StyleGAN2Generator, n: int = 5) -> Tensor:
    return generator.map(
        torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    )


def dense(
    generator: StyleGAN2Generator, w: Tensor, layer: str, perceptual: Perceptual
) -> np.ndarray:
    """The whole Hessian by autograd, twice, through a network with changed weights: (D, D)."""
    name = f"network.synthesis.layers.{layer}.weight"
    weight, codes = generator.kernels()[layer], Codes(Space.W, w)
    still = generator.decode(codes)

    def mean_distance(xi: Tensor) -> Tensor:
        moved = torch.func.functional_call(generator, {name: weight + xi}, (codes,))
        return perceptual(moved, still).mean()

    hessian = torch.autograd.functional.hessian(mean_distance, torch.zeros_like(weight))
    return hessian.reshape(weight.numel(), -1).numpy()


def toy(n: int = 40) -> tuple[ToyGenerator, Tensor, np.ndarray]:
    """decode = (I + X) w with pixels: H = 2 E[w w'] for each row of X, here with eigenvalues that differ."""
    generator = ToyGenerator(DIM).double()
    rng = np.random.default_rng(0)
    w = rng.standard_normal((n, DIM)) * np.linspace(0.5, 2.5, DIM)
    return generator, torch.from_numpy(w), np.kron(np.eye(DIM), 2 * w.T @ w / n)


def true_residuals(found: Spectrum, hessian: np.ndarray) -> np.ndarray:
    vectors = found.vectors.flatten(1).double().numpy()
    gaps = vectors @ hessian - found.values.numpy()[:, None] * vectors
    return np.linalg.norm(gaps, axis=1) / found.values.numpy()


def assert_orthonormal(found: Spectrum) -> None:
    vectors = found.vectors.flatten(1).double()
    torch.testing.assert_close(
        vectors @ vectors.T, torch.eye(len(vectors), dtype=torch.float64), atol=1e-5, rtol=0
    )


# -- the eigenpairs --------------------------------------------------------------------------------
def test_toy_world_has_the_spectrum_of_its_closed_form() -> None:
    generator, w, hessian = toy()
    expected = np.linalg.eigvalsh(hessian)[::-1]  # each eigenvalue DIM times
    found = spectrum(
        generator, w, "conv", PixelDistance(), 25, block=DIM, tolerance=1e-6, minibatch=40
    )
    np.testing.assert_allclose(found.values, expected[:25], rtol=1e-9)
    assert found.converged and true_residuals(found, hessian).max() < 1e-5
    assert found.vectors.shape == (25, DIM, DIM, 1, 1) and found.vectors.dtype == torch.float32
    assert_orthonormal(found)
    top = np.linalg.eigh(2 * (w.T @ w / len(w)).numpy())[1][:, -1]  # every row of X along the top w
    rows = found.vectors[:DIM].reshape(-1, DIM).double().numpy()
    np.testing.assert_allclose(np.abs(rows @ top), np.linalg.norm(rows, axis=1), atol=1e-4)


@pytest.mark.parametrize("layer", ["conv4", "rgb4", "conv8_up", "conv8", "rgb8"])
def test_all_eigenpairs_equal_those_of_the_dense_hessian(layer: str) -> None:
    generator = tiny()
    w, perceptual = latents(generator), Bends()
    hessian = dense(generator, w, layer, perceptual)
    found = spectrum(generator, w, layer, perceptual, len(hessian), tolerance=1e-30, minibatch=2)
    expected, scale = np.linalg.eigvalsh(hessian)[::-1], np.abs(hessian).max()
    np.testing.assert_allclose(found.values, expected, atol=1e-9 * scale)
    assert_orthonormal(found)
    vectors = found.vectors.flatten(1).double().numpy()
    np.testing.assert_allclose(vectors @ hessian, expected[:, None] * vectors, atol=1e-5 * scale)


@pytest.mark.parametrize("latent", [Space.Z, Space.W_PLUS, Space.S])
def test_latents_of_any_space(latent: Space) -> None:
    generator = tiny()
    z = torch.randn(4, 6, dtype=torch.float64)
    w = generator.map(z)
    codes = Codes(latent, z if latent == Space.Z else generator.lift(w, latent))
    got, expected = (
        spectrum(generator, x, "conv8_up", Bends(), 3, tolerance=1e-5) for x in (codes, w)
    )
    torch.testing.assert_close(got.values, expected.values)


def test_reported_residuals_are_the_true_ones_and_within_the_tolerance() -> None:
    generator = tiny(16)
    w, perceptual = latents(generator, 8), Bends()
    hessian = dense(generator, w, "conv8", perceptual)
    for tolerance in (0.3, 0.05, 1e-3):
        found = spectrum(generator, w, "conv8", perceptual, 6, block=2, tolerance=tolerance)
        np.testing.assert_allclose(
            found.residuals, true_residuals(found, hessian), rtol=1e-2, atol=1e-5
        )
        assert found.converged and found.residuals.max() <= tolerance
    short = spectrum(generator, w, "conv8", perceptual, 6, block=2, iterations=3, tolerance=1e-3)
    assert not short.converged and short.products == 6
    np.testing.assert_allclose(
        short.residuals, true_residuals(short, hessian), rtol=1e-2, atol=1e-5
    )


def test_a_planted_direction_is_found() -> None:
    class OneChannel(Perceptual):
        """Sees nothing but 100 times the third coordinate, and faintly the rest."""

        def residual(self, images: Tensor) -> Tensor:
            return images * torch.where(torch.arange(DIM) == 3, 100.0, 0.01)

    w = torch.zeros(6, DIM, dtype=torch.float64)
    w[:, 7] = 5 + torch.arange(6)
    for method in ("block", "power"):
        found = spectrum(
            ToyGenerator(DIM).double(), w, "conv", OneChannel(), 1, method=method, iterations=20
        )
        assert found.vectors[0, 3, 7].abs() > 0.999
        torch.testing.assert_close(found.values[0], 2e4 * w.square().sum(1).mean())


# -- products --------------------------------------------------------------------------------------
@pytest.mark.parametrize("layer", ["conv8_up", "rgb8"])
def test_products_agree_with_one_another_and_with_the_dense_hessian(layer: str) -> None:
    generator = tiny()
    w, perceptual = latents(generator), Bends()
    v = torch.randn(3, generator.kernels()[layer].numel(), dtype=torch.float64)
    expected = v @ torch.from_numpy(dense(generator, w, layer, perceptual))

    def product(kind: str, **options: object) -> Tensor:
        return Curvature(generator, w, layer, perceptual, kind, **options)(v)

    torch.testing.assert_close(product("gauss_newton"), expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(product("hessian"), expected, rtol=1e-9, atol=1e-11)
    for unit in (True, False):
        near = product("finite_difference", radius=1e-5, unit=unit) - expected
        assert near.norm() < 1e-6 * expected.norm()
        if (
            layer == "rgb8"
        ):  # no kink of a leaky ReLU comes after it: a central difference is of second order
            one, two = (
                product("finite_difference", radius=r, unit=unit) - expected for r in (1e-3, 2e-3)
            )
            assert 3.9 < two.norm() / one.norm() < 4.1


def test_a_minibatch_does_not_change_the_result() -> None:
    generator = tiny()
    w = latents(generator, 4)
    a, b = (
        spectrum(generator, w, "conv8", Bends(), 3, minibatch=size, tolerance=1e-3)
        for size in (2, 3)
    )
    torch.testing.assert_close(a.vectors, b.vectors, atol=1e-6, rtol=0)
    torch.testing.assert_close(a.values, b.values)
    again, other = (
        spectrum(generator, w, "conv8", Bends(), 3, minibatch=2, tolerance=1e-3, seed=s)
        for s in (0, 1)
    )
    assert torch.equal(again.vectors, a.vectors) and not torch.equal(other.vectors, a.vectors)


def test_passes_are_counted() -> None:
    generator, n = tiny(), 5
    w = latents(generator, n)
    rows = torch.randn(3, generator.kernels()["conv8"].numel(), dtype=torch.float64)
    for kind, passes in (
        ("gauss_newton", 2 + 2 * 3),
        ("hessian", 3 + 2 * 3),
        ("finite_difference", 6 * 3),
    ):
        curvature, before = (
            Curvature(generator, w, "conv8", Bends(), kind, minibatch=2),
            generator.decoded,
        )
        curvature(rows)
        assert (curvature.passes, curvature.products) == (n * passes, 3)
        assert generator.decoded - before == n * passes
    paper = spectrum(
        generator,
        w,
        "conv8",
        Bends(),
        2,
        method="power",
        products="finite_difference",
        iterations=10,
    )
    assert paper.passes == 6 * 10 * 2 * n and paper.products == 20


def test_what_precedes_the_layer_runs_once_where_it_fits_into_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator, calls = tiny(), []
    hook = generator.inner("conv4").register_forward_hook(lambda *_: calls.append(1))
    kept = spectrum(generator, latents(generator), "conv8", Bends(), 4, block=2, minibatch=5)
    assert len(calls) == 1
    monkeypatch.setattr(curvature_module, "CACHE", 1000)
    anew = spectrum(generator, latents(generator), "conv8", Bends(), 4, block=2, minibatch=5)
    assert len(calls) > 2 and torch.equal(kept.vectors, anew.vectors)
    hook.remove()


# -- the paper's iteration -------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"products": "finite_difference", "radius": 1e-3},
        {"products": "finite_difference", "radius": 1e-4, "unit": False},
    ],
    ids=["exact", "unit", "as published"],
)
def test_power_iteration_converges_to_the_dense_spectrum(options: dict) -> None:
    generator, w, hessian = toy()
    w[:, 1:] *= 0.05  # one row of X after the other, each with one eigenvalue that counts
    hessian = np.kron(np.diag(np.linspace(1, 4, DIM)), 2 * (w.T @ w / len(w)).numpy())

    class Graded(Perceptual):
        def residual(self, images: Tensor) -> Tensor:
            return images * torch.linspace(1, 4, DIM, dtype=torch.float64).sqrt()

    found = spectrum(
        generator, w, "conv", Graded(), 3, method="power", iterations=80, minibatch=40, **options
    )
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(hessian)[::-1][:3], rtol=1e-4)
    assert found.converged and true_residuals(found, hessian).max() < 0.01
    assert_orthonormal(found)
    few = spectrum(
        generator, w, "conv", Graded(), 3, method="power", iterations=3, minibatch=40, **options
    )
    assert not few.converged and (few.values.diff() <= 0).all()
    np.testing.assert_allclose(few.residuals, true_residuals(few, hessian), rtol=1e-3)


# -- other generators and errors -------------------------------------------------------------------
def two_layer_eigenvalues(network: torch.nn.Sequential, z: Tensor) -> Tensor:
    """Of the Hessian for the first weight of Linear, Tanh, Linear: its Jacobian, one output after the other."""
    inner = torch.tanh(network[0](z))
    rows = [
        torch.einsum("o,i->oi", network[2].weight[m] * (1 - inner[n] ** 2), z[n]).flatten()
        for n in range(len(z))
        for m in range(len(network[2].weight))
    ]
    jacobian = torch.stack(rows).detach().double()
    return torch.linalg.eigvalsh(2 * jacobian.T @ jacobian / len(z)).flip(0)


def test_any_module_and_the_features_of_a_scorer() -> None:
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 12))
    generator = ModuleGenerator(network, 6, (3, 2, 2), check_range=False)
    z, weight = torch.randn(9, 6), network[0].weight
    found = spectrum(generator, z, "0", PixelDistance(), 4, tolerance=1e-3)
    expected = two_layer_eigenvalues(network, z)[:4]
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=1e-6)
    assert found.vectors.shape == (4, *weight.shape)


def test_what_cannot_be_computed_is_said() -> None:
    generator, w, _ = toy()
    with pytest.raises(UnknownName, match="Did you mean 'conv'"):
        spectrum(generator, w, "convv", PixelDistance(), 2)
    for count in (0, DIM * DIM + 1):
        with pytest.raises(EditbenchError, match=f"count={count} must be from 1 to 100"):
            spectrum(generator, w, "conv", PixelDistance(), count)
    with pytest.raises(
        EditbenchError, match=r"iterations=2 blocks of 8 cannot hold 20 .* set it to 3 or more"
    ):
        spectrum(generator, w, "conv", PixelDistance(), 20, iterations=2)
    with pytest.raises(EditbenchError, match=r"spectrum\.tolerance=0 must"):
        SpectrumOptions(tolerance=0)
    for key in ("method", "products"):
        with pytest.raises(EditbenchError, match=f"{key}=other must be one of"):
            spectrum(generator, w, "conv", PixelDistance(), 2, **{key: "other"})
    w[3, 3] = torch.nan
    with pytest.raises(NonFinite, match="spectrum of 'conv'"):
        spectrum(generator, w, "conv", PixelDistance(), 2)


class Nothing(Perceptual):
    """Sees the same in every picture."""

    def residual(self, images: Tensor) -> Tensor:
        return 0 * images


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"products": "hessian"},
        {"products": "finite_difference"},
        {"method": "power"},
        {"method": "power", "products": "finite_difference"},
        {"method": "power", "products": "finite_difference", "unit": False},
    ],
)
def test_a_layer_that_changes_no_picture_is_a_reason(options: dict) -> None:
    generator, w, _ = toy()
    before = generator.decoded
    with pytest.raises(
        Unsupported, match="'conv' has no spectrum: a shift of it changes no picture"
    ):
        spectrum(generator, w, "conv", Nothing(), 2, block=4, **options)
    assert generator.decoded - before <= 6 * 4 * len(w), "one product is enough to know"


def test_what_long_displacements_alone_can_see_is_no_spectrum() -> None:
    class Bright(Perceptual):
        """Sees what is brighter than 100; the pictures are far below."""

        def residual(self, images: Tensor) -> Tensor:
            return (images - 100).relu()

    generator, w, _ = toy()
    with pytest.raises(Unsupported, match=r"changes no picture.*largest curvature 0\)"):
        spectrum(
            generator,
            w,
            "conv",
            Bright(),
            2,
            method="power",
            products="finite_difference",
            radius=1e4,
            iterations=2,
        )


@pytest.mark.parametrize("count", [1, 6])
def test_a_weight_of_fewer_numbers_than_a_block_has_rows(count: int) -> None:
    torch.manual_seed(2)
    network = torch.nn.Sequential(
        torch.nn.Linear(3, 2, bias=False), torch.nn.Tanh(), torch.nn.Linear(2, 12)
    )
    generator = ModuleGenerator(network, 3, (3, 2, 2), check_range=False).double()
    z = torch.randn(7, 3, dtype=torch.float64)
    expected = two_layer_eigenvalues(network, z)[:count]
    found = spectrum(generator, z, "0", PixelDistance(), count, block=8)
    torch.testing.assert_close(found.values, expected, rtol=1e-6, atol=1e-9)
    assert found.converged and found.products == 6
    assert_orthonormal(found)


def test_teacher_features_of_the_embedded_world() -> None:
    from editbench.worlds.faces import load_generator, load_scorer

    generator, perceptual = load_generator(), FeatureDistance(load_scorer("teacher"))
    w = generator.map(torch.randn(4, generator.z_dim, generator=torch.Generator().manual_seed(0)))
    found = spectrum(generator, w, "conv8", perceptual, 6, block=4)
    images = Curvature(generator, w, "conv8", perceptual, "hessian")(found.vectors.flatten(1))
    gaps = (images - found.values[:, None].float() * found.vectors.flatten(1)).norm(
        dim=1
    ) / found.values
    assert found.converged and gaps.max() < 0.06
    assert_orthonormal(found)
