"""StyleGAN3: against what the official code computed, a slow network, closed forms, and its equivariance."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

from editbench.base.errors import Unsupported
from editbench.base.spaces import Codes, Space, WeightShift
from editbench.inversion.noise import NoiseMaps
from editbench.networks.checkpoints import assemble
from editbench.networks.checkpoints.parity import BOUND, not_compared, parity, read_golden
from editbench.networks.stylegan3 import activation
from editbench.networks.stylegan3.activation import (
    Resampling,
    filtered_leaky_relu,
    gather,
    gathered_rows,
    spread,
)
from editbench.networks.stylegan3.config import StyleGAN3Config
from editbench.networks.stylegan3.filters import jinc, low_pass
from editbench.networks.stylegan3.generator import StyleGAN3Generator
from editbench.networks.stylegan3.network import StyleGAN3
from tests.checkpoint_files import read_source, stylegan3_state
from tests.data_folder import DATA, needs_data
from tests.slow_stylegan3 import activated, slow_images, slow_w
from tests.small_stylegan3 import ODD, SMALL, TURNING, network

FILES = {"t32": 11, "r64": 11}  # rows of the parity table: w, pictures, a style a layer


@cache
def official(name: str) -> StyleGAN3:
    """The network of a file that the official code wrote; nobody changes it."""
    return assemble(read_source(DATA / f"stylegan3/stylegan3_{name}.pkl"))


def golden_of(name: str) -> dict[str, Tensor]:
    return read_golden(DATA / f"stylegan3/stylegan3_{name}.golden.npz")


# -- the official code -----------------------------------------------------------------------------
@needs_data
@pytest.mark.parametrize("name", FILES)
def test_w_styles_and_pictures_are_those_of_the_official_code(name: str) -> None:
    found, golden = official(name), golden_of(name)
    rows = parity(found, golden)
    assert len(rows) == FILES[name] and not not_compared(rows, golden)
    assert {row.name: row.error for row in rows if not row.error <= BOUND} == {}


@needs_data
def test_the_harness_gives_the_same_numbers() -> None:
    """Through the generator's own spaces: Z with truncation, W, W+ and S."""
    found, golden = official("r64"), golden_of("r64")
    truncated, full = StyleGAN3Generator(found, truncation_psi=0.7), StyleGAN3Generator(found)

    def close(codes: Codes, generator: StyleGAN3Generator, image: Tensor) -> None:
        assert (generator.decode(codes) - image).abs().max() <= BOUND * image.std()

    w = full.map(golden["z"])
    close(Codes(Space.Z, golden["z"]), truncated, golden["img_trunc07"])
    for space in (Space.W, Space.W_PLUS, Space.S):
        close(Codes(space, full.lift(w, space)), full, golden["img"])
    assert full.layer_names == (
        "input",
        "L0_24_24",
        "L1_24_24",
        "L2_40_24",
        "L3_72_24",
        "L4_72_12",
        "L5_64_12",
        "rgb64",
    )
    assert full.style_sizes == (4, 24, 24, 24, 24, 24, 12, 12)


@needs_data
@pytest.mark.parametrize("name", FILES)
def test_the_design_gives_the_filters_of_the_file(name: str) -> None:
    found = official(name)
    made = StyleGAN3(found.config).state_dict()
    for key, value in found.state_dict().items():
        if key.endswith("_filter"):
            torch.testing.assert_close(made[key], value, atol=1e-8, rtol=0)


@needs_data
def test_filters_and_magnitudes_are_those_of_the_file(tmp_path: Path) -> None:
    """What the design would give is not put in their place."""
    found = official("t32")
    layer = found.synthesis.layers["L2_40_23"]
    assert layer.magnitude_ema == pytest.approx(0.8294044733)
    before = found(golden_of("t32")["z"])
    for name in ("up_filter", "down_filter", "magnitude_ema"):
        state = stylegan3_state(found)
        state[f"synthesis.L2_40_23.{name}"] = state[f"synthesis.L2_40_23.{name}"] * 1.1
        torch.save(state, tmp_path / "changed.pt")
        changed = assemble(read_source(tmp_path / "changed.pt"))
        assert (changed(golden_of("t32")["z"]) - before).abs().max() > 1e-3 * before.std()


def test_the_published_layouts() -> None:
    """The names of the layers of the published files of 1024 x 1024."""
    t = [design.published for design in StyleGAN3Config.published(1024).layers()]
    assert " ".join(t) == (
        "L0_36_512 L1_36_512 L2_52_512 L3_52_512 L4_84_512 L5_148_512 L6_148_512 L7_276_323 "
        "L8_276_203 L9_532_128 L10_1044_81 L11_1044_51 L12_1044_32 L13_1024_32 L14_1024_3"
    )
    r = StyleGAN3Config.published(1024, "r")
    assert [d.published for d in r.layers()][-5:-1] == [
        "L10_1044_161",
        "L11_1044_102",
        "L12_1044_64",
        "L13_1024_64",
    ]
    assert r.num_ws == 16 and [d.radial for d in r.layers()] == [True] * 12 + [False] * 3
    with pytest.raises(ValueError, match="'t' or 'r'"):
        StyleGAN3Config.published(256, "s")


@pytest.mark.parametrize("config", [SMALL, TURNING, ODD], ids=["t", "r", "odd"])
def test_pictures_are_those_of_the_slow_network(config: StyleGAN3Config) -> None:
    made = network(config).double()
    made.synthesis.layers["input"].transform.copy_(
        torch.tensor([[0.8, -0.6, 0.1], [0.6, 0.8, -0.2], [0, 0, 1]])
    )
    z = torch.randn(2, config.z_dim, dtype=torch.float64)
    label = torch.eye(config.c_dim, dtype=torch.float64)[[1, 0]] if config.c_dim else None
    state = stylegan3_state(made)
    w = slow_w(state, z, label, config.mapping_lr)
    torch.testing.assert_close(made.mapping(z, label), w)
    slow = slow_images(state, config, w)
    assert slow.std() > 0.03
    torch.testing.assert_close(made(z, label=label), slow, atol=1e-7 * slow.std().item(), rtol=0)


@pytest.mark.parametrize("up, down", [(2, 2), (4, 2), (2, 4), (1, 1), (3, 2)])
@pytest.mark.parametrize("radial", [False, True])
def test_the_activation_is_zeros_filters_and_dropped_samples(
    up: int, down: int, radial: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    side, out = 11, 11 * up // down - 3
    up_taps = torch.randn(5 * up, dtype=torch.float64) / up
    down_taps = torch.randn(*[4 * down] * (1 + radial), dtype=torch.float64) / down
    needed = (out - 1) * down + len(down_taps)
    total = needed - side * up + len(up_taps) - 1
    before = (total + up) // 2
    x = torch.randn(2, 3, side, side, dtype=torch.float64, requires_grad=True)
    slow = torch.stack(
        [activated(one, up_taps, down_taps, up, down, (before, total - before), 0.9) for one in x]
    )
    how = Resampling(up, down, len(up_taps) - 1 - before, out, 0.9)
    taps = up_taps * up * 2**0.25, down_taps.flip(list(range(down_taps.dim())))
    torch.testing.assert_close(filtered_leaky_relu(x, *taps, how), slow)
    # Some channels of a sample in several bands, and the gradient.
    monkeypatch.setattr(activation, "BAND", 1)
    monkeypatch.setattr(activation, "FEWEST_ROWS", 2)
    monkeypatch.setattr(activation, "CHANNELS", 2)
    banded = filtered_leaky_relu(x, *taps, how)
    torch.testing.assert_close(banded, slow)
    probe = torch.randn_like(slow)
    (expected,) = torch.autograd.grad((slow * probe).sum(), x)
    (found,) = torch.autograd.grad((banded * probe).sum(), x)
    torch.testing.assert_close(found, expected)


def small_activation(dtype: torch.dtype = torch.float64):
    """x -> the activation of a layer, and such an x."""
    layer = (
        network(dataclasses.replace(SMALL, conv_clamp=0.8)).to(dtype).synthesis.layers["L1_20_8"]
    )
    x = torch.randn(2, 3, 22, 22, dtype=dtype)
    return lambda x: filtered_leaky_relu(x, *layer.taps(), layer.how), x


def test_derivatives_of_the_activation_of_every_kind() -> None:
    function, x = small_activation()
    step = torch.randn_like(x)
    value, moved = jvp(function, (x,), (step,))
    slope = (function(x + 1e-7 * step) - function(x - 1e-7 * step)) / 2e-7
    assert (moved - slope).abs().max() < 1e-5 * slope.std()
    # Forward and backward derivatives are adjoint, also when many are taken at once.
    probes = torch.randn(3, *value.shape, dtype=x.dtype)
    pulled = vmap(vjp(function, x)[1])(probes)[0]
    torch.testing.assert_close(
        (pulled * step).sum((1, 2, 3, 4)), (probes * moved).sum((1, 2, 3, 4))
    )
    steps = torch.stack([step, -2 * step])
    torch.testing.assert_close(vmap(lambda t: jvp(function, (x,), (t,))[1])(steps)[1], -2 * moved)

    # The second derivative of sum(f^2) along a step is 2 |Jf step|^2, as f is linear between kinks.
    def length(x: Tensor) -> Tensor:
        return function(x).square().sum()

    curvature = (jvp(grad(length), (x,), (step,))[1] * step).sum()
    torch.testing.assert_close(curvature, 2 * moved.square().sum())
    asked = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(length(asked), asked, create_graph=True)
    (second,) = torch.autograd.grad((first * step).sum(), asked)
    torch.testing.assert_close((second * step).sum(), curvature)


def test_the_gradient_keeps_nothing_of_the_higher_rate() -> None:
    function, x = small_activation(torch.float32)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        function(x.requires_grad_())
    assert max(kept) == x.numel() and sum(kept) < 1.01 * x.numel() + 100


@pytest.mark.parametrize("lead, size", [(2, 12), (0, 15), (6, 5), (1, 20)])
@pytest.mark.parametrize("shape", [(7,), (6, 6)])
def test_spread_and_gather_are_their_sums(lead: int, size: int, shape: tuple[int, ...]) -> None:
    """out[t] = sum over i of x[i] taps[t + lead - 2 i], and its adjoint, as matrices."""
    torch.manual_seed(0)
    taps = torch.randn(shape, dtype=torch.float64)
    x = torch.randn(1, 1, 5, 5, dtype=torch.float64)
    y = torch.randn(1, 1, size, size, dtype=torch.float64)
    matrix = torch.zeros(size, size, 5, 5, dtype=torch.float64)
    kernel = torch.outer(taps, taps) if taps.dim() == 1 else taps
    reach = range(len(taps))
    for t in range(size):
        for u in range(size):
            for i in range(5):
                for j in range(5):
                    k, m = t + lead - 2 * i, u + lead - 2 * j
                    if k in reach and m in reach:
                        matrix[t, u, i, j] = kernel[k, m]
    found = spread(x, taps, 2, lead, (0, size), size)[0, 0]
    torch.testing.assert_close(found, torch.einsum("tuij,ij->tu", matrix, x[0, 0]))
    part = spread(x, taps, 2, lead, (2, 5), size)[0, 0]
    torch.testing.assert_close(part, found[2:5])
    begin, end = gathered_rows(0, 5, len(taps), 2, lead)
    # Rows that are read outside of the picture are zeros.
    padded = torch.nn.functional.pad(y, (0, 0, -begin, end - size))
    gathered = gather(padded, taps, 2, lead, 5)[0, 0]
    torch.testing.assert_close(gathered, torch.einsum("tuij,tu->ij", matrix, y[0, 0]))


# -- filters ---------------------------------------------------------------------------------------
def test_a_low_pass_has_its_cutoff_and_its_stop_band() -> None:
    """|H| is 1 at 0, 1/2 at the cut-off, and small beyond the transition band."""
    place = torch.arange(48, dtype=torch.float64) - 23.5
    frequencies = torch.tensor([0, 5, *np.linspace(8, 16, 9)])
    waves = torch.cos(2 * math.pi * frequencies[:, None] * place / 32)
    for radial in (False, True):
        taps = low_pass(48, 5.0, 3.0, 32.0, radial).double()
        # Along an axis; the frequency along the other is 0.
        response = waves @ (taps.sum(0) if radial else taps)
        assert response[0] == pytest.approx(1, abs=1e-6)
        assert response[1] == pytest.approx(0.5, abs=0.05 if radial else 0.01)
        assert response[2:].abs().max() < 2e-3
        torch.testing.assert_close(taps, taps.flip(0))


def test_a_radial_filter_is_symmetric_under_rotation() -> None:
    taps = low_pass(12, 4.0, 4.0, 32.0, radial=True)
    torch.testing.assert_close(taps, taps.T)
    torch.testing.assert_close(taps, taps.rot90())
    # The jinc of the paper, J1(2 pi f r) / (pi r), up to the factor 2 pi f^2 / 2, and its limit.
    r = torch.tensor([0.0, 1e-6, 0.3])
    found = jinc(r, 2.0)
    assert found[0] == 0.5 and found[1] == pytest.approx(0.5)
    expected = torch.special.bessel_j1(torch.tensor(4 * math.pi * 0.3)) / (math.pi * 0.3)
    assert found[2] * 4 == pytest.approx(expected.item(), rel=1e-5)


# -- equivariance ----------------------------------------------------------------------------------
def pictures_of(made: StyleGAN3, motion: list[float]) -> Tensor:
    """The picture of one w whose input is turned and moved."""
    styles = made.synthesis.styles(
        torch.zeros(1, made.config.num_ws, made.config.w_dim).double() + 0.3
    )
    styles[0] = torch.tensor([motion], dtype=torch.float64)
    return made.synthesis(styles)[0]


def decibels(found: Tensor, expected: Tensor) -> float:
    """Peak signal-to-noise ratio of pictures whose range is 2, as the paper measures equivariance."""
    return 10 * math.log10(4 / (found - expected).square().mean().item())


@pytest.mark.parametrize("config", [SMALL, TURNING], ids=["t", "r"])
def test_a_translation_of_the_input_moves_the_picture(config: StyleGAN3Config) -> None:
    config = dataclasses.replace(config, resolution=32, margin=8)
    made = network(config).double()
    still = pictures_of(made, [1, 0, 0, 0])
    # A pixel at the lowest rate is a whole number of pixels of every layer: right and down.
    pixels = 32 // config.rates[0]
    share = 1 / config.rates[0]
    moved = pictures_of(made, [1, 0, share, 2 * share])
    torch.testing.assert_close(
        moved[:, 2 * pixels :, pixels:], still[:, : -2 * pixels, :-pixels], atol=1e-3, rtol=0
    )
    # The length of the rotation is a unit of the translation as well.
    torch.testing.assert_close(pictures_of(made, [2, 0, 2 * share, 4 * share]), moved)
    # By less than a pixel of the first layers nothing is exact; filters keep it close.
    least = pictures_of(made, [1, 0, 1 / 32, 0])
    assert decibels(least[:, :, 1:], still[:, :, :-1]) > decibels(least, still) + 6


def test_configuration_r_turns_with_its_input() -> None:
    made = network(dataclasses.replace(TURNING, resolution=32)).double()
    still = pictures_of(made, [1, 0, 0, 0])
    for sin, turns in ((1, 1), (-1, -1)):
        turned = pictures_of(made, [0, sin, 0, 0])
        # The input's map goes from the picture to the plane, with y downwards: cos 0, sin 1 shows
        # at (x, y) what was at (-y, x), a quarter turn against the clock.
        torch.testing.assert_close(turned, still.rot90(turns, (1, 2)), atol=1e-10, rtol=0)
    plain = network(dataclasses.replace(SMALL, resolution=32)).double()
    gap = pictures_of(plain, [0, 1, 0, 0]) - pictures_of(plain, [1, 0, 0, 0]).rot90(1, (1, 2))
    assert gap.abs().max() > 0.1 * still.std()  # configuration t does not


# -- the generator ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def generator() -> StyleGAN3Generator:
    return StyleGAN3Generator(network())


def test_a_picture_does_not_depend_on_its_batch(generator: StyleGAN3Generator) -> None:
    z = torch.randn(5, 12)
    together = generator.decode(Codes(Space.Z, z))
    alone = torch.cat([generator.decode(Codes(Space.Z, one[None])) for one in z])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_a_shift_of_a_weight_is_another_network(generator: StyleGAN3Generator) -> None:
    z = torch.randn(3, 12)
    assert set(generator.kernels()) == set(generator.layer_names)
    for layer, weight in generator.kernels().items():
        kernels = torch.randn(2, *weight.shape)
        shift = WeightShift(layer, kernels, torch.tensor([1, 0, 1]), torch.tensor([0.2, -0.3, 0.0]))
        found = generator.decode(Codes(Space.Z, z, shift))
        for n in range(3):
            other = network()
            moved = other.synthesis.layers[layer].weight
            moved += shift.magnitude[n] * kernels[shift.index[n]]
            expected = StyleGAN3Generator(other).decode(Codes(Space.Z, z[n : n + 1]))
            torch.testing.assert_close(found[n : n + 1], expected, atol=2e-5, rtol=0)


def test_it_has_no_noise_and_can_be_cut_at_a_layer(generator: StyleGAN3Generator) -> None:
    with pytest.raises(Unsupported, match=r"inversion\.noise=const"):
        NoiseMaps(generator, 0, np.arange(2))
    codes = Codes(Space.Z, torch.randn(2, 12))
    assert generator.activation(codes, "input").shape == (2, 8, 20, 20)
    assert generator.activation(codes, "L3_16_6").shape == (2, 6, 16, 16)


def test_bfloat16_is_close(generator: StyleGAN3Generator) -> None:
    codes = Codes(Space.Z, torch.randn(4, 12))
    exact = generator.decode(codes)
    generator.precision = "bf16"
    try:
        low = generator.decode(codes)
    finally:
        generator.precision = "fp32"
    assert low.dtype == torch.float32 and (low - exact).abs().max() < 0.2 * exact.std()
    assert not torch.equal(low, exact)
