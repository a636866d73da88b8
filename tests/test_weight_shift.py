"""Per-sample weight shifts against a network that is copied and changed for every sample, and against autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from editbench.base.errors import EditbenchError, SpaceMismatch, UnknownName
from editbench.base.spaces import Codes, Space, WeightShift
from editbench.networks.module_generator import ModuleGenerator
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.layers import StyledConv, own_kernels, own_kernels_are_faster
from editbench.networks.stylegan2.network import StyleGAN2Config
from tests.small_stylegan2 import random_stylegan2

CONFIG = StyleGAN2Config(16, (7, 6, 5), z_dim=8, w_dim=9, mapping_layers=2)
LAYERS = ("conv4", "rgb4", "conv8_up", "conv8", "rgb8", "conv16_up", "conv16", "rgb16")
N = 6


def make_generator() -> StyleGAN2Generator:
    """In double precision, with noise and biases switched on."""
    return StyleGAN2Generator(random_stylegan2(CONFIG).double())


@pytest.fixture(scope="module")
def generator() -> StyleGAN2Generator:
    return make_generator()


def make_shift(weight: Tensor, layer: str, directions: int = 4) -> WeightShift:
    """Unordered, repeated and unused directions, steps of both signs and one of zero."""
    torch.manual_seed(1)
    kernels = torch.randn(directions, *weight.shape, dtype=weight.dtype)
    t = torch.tensor([0.7, -1.3, 0.0, 2.0, -0.2, 0.4], dtype=weight.dtype)
    return WeightShift(layer, kernels, torch.tensor([3, 0, 3, 1, 0, 3]) % directions, t)


def make_own_shift(weight: Tensor, layer: str) -> WeightShift:
    """So many directions, and no step of zero, that a StyledConv computes a kernel per sample."""
    torch.manual_seed(1)
    kernels = torch.randn(6, *weight.shape, dtype=weight.dtype)
    t = torch.tensor([0.7, -1.3, 0.3, 2.0, -0.2, 0.4], dtype=weight.dtype)
    return WeightShift(layer, kernels, torch.tensor([3, 0, 5, 1, 0, 4]), t)


def make_codes(
    space: Space, generator: StyleGAN2Generator, shift: WeightShift | None = None
) -> Codes:
    torch.manual_seed(2)
    w = generator.map(torch.randn(N, CONFIG.z_dim, dtype=torch.float64))
    return Codes(space, generator.lift(w, space), shift)


def slowly(generator: StyleGAN2Generator, codes: Codes) -> Tensor:
    """A copy of the network, one added kernel and a batch of one, for every sample."""
    images, shift = [], codes.shift
    for n in range(len(codes)):
        own = copy.deepcopy(generator)
        with torch.no_grad():
            weight = own.get_parameter(f"network.synthesis.layers.{shift.layer}.weight")
            weight += shift.magnitude[n] * shift.kernels[shift.index[n]]
        images.append(own.decode(Codes(codes.space, codes.values[n : n + 1])))
    return torch.cat(images)


# -- StyleGAN2 -------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [make_shift, make_own_shift])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_shift_equals_a_changed_network_for_every_sample(
    generator: StyleGAN2Generator, layer: str, make: Callable[[Tensor, str], WeightShift]
) -> None:
    assert set(LAYERS) == set(generator.layer_names)
    shift = make(generator.kernels()[layer], layer)
    codes = make_codes(Space.W, generator, shift)
    got, expected = generator.decode(codes), slowly(generator, codes)
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)
    moved = (got - generator.decode(Codes(Space.W, codes.values))).abs().amax((1, 2, 3)) > 1e-4
    assert moved.tolist() == [True, True, make is make_own_shift, True, True, True]


@pytest.mark.parametrize("space", [Space.W_PLUS, Space.S])
def test_a_shift_works_on_codes_of_other_spaces(
    generator: StyleGAN2Generator, space: Space
) -> None:
    codes = make_codes(space, generator, make_shift(generator.kernels()["conv8"], "conv8"))
    torch.testing.assert_close(
        generator.decode(codes), slowly(generator, codes), atol=1e-10, rtol=1e-10
    )


@pytest.mark.parametrize("directions", [1, 4])
@pytest.mark.parametrize("layer", ["conv4", "conv16_up", "rgb8"])
def test_no_step_is_no_change_to_the_last_bit(layer: str, directions: int) -> None:
    generator = StyleGAN2Generator(make_generator().network.float())
    shift = make_shift(generator.kernels()[layer], layer, directions)
    still = WeightShift(layer, shift.kernels, shift.index, torch.zeros(N))
    w = torch.randn(N, CONFIG.w_dim)
    assert torch.equal(
        generator.decode(Codes(Space.W, w, still)), generator.decode(Codes(Space.W, w))
    )


@pytest.mark.parametrize("make", [make_shift, make_own_shift])
@pytest.mark.parametrize("layer", ["conv4", "conv8_up", "conv8", "rgb16"])
def test_gradients_equal_autograd_through_changed_networks(
    generator: StyleGAN2Generator, layer: str, make: Callable[[Tensor, str], WeightShift]
) -> None:
    shift = make(generator.kernels()[layer], layer)
    codes = make_codes(Space.W, generator)
    probe, name = (
        torch.randn(N, 3, 16, 16, dtype=torch.float64),
        f"network.synthesis.layers.{layer}.weight",
    )
    weight = generator.kernels()[layer]

    def gradients(decode) -> tuple[Tensor, ...]:
        t, kernels = (
            shift.magnitude.clone().requires_grad_(),
            shift.kernels.clone().requires_grad_(),
        )
        return torch.autograd.grad((decode(t, kernels) * probe).sum(), (t, kernels))

    def slow(t: Tensor, kernels: Tensor) -> Tensor:
        return torch.cat(
            [
                torch.func.functional_call(
                    generator, {name: weight + t[n] * kernels[shift.index[n]]}, (codes[n : n + 1],)
                )
                for n in range(N)
            ]
        )

    fast = gradients(
        lambda t, kernels: generator.decode(
            Codes(Space.W, codes.values, WeightShift(layer, kernels, shift.index, t))
        )
    )
    for got, expected in zip(fast, gradients(slow), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)
    assert fast[1][2].abs().max() == 0 and fast[1][1].abs().max() > 0  # direction 2 is not used


def test_demodulation_of_a_shifted_kernel_is_its_norm() -> None:
    torch.manual_seed(3)
    layer = StyledConv(5, 7, 4, 8, up=False).double()
    style, shift = torch.randn(N, 5).double(), make_shift(layer.weight, "conv")
    got = layer.demodulation(style, shift)
    own = layer.demodulation(style, kernels=own_kernels(layer.weight, shift))
    torch.testing.assert_close(own, got)
    for n in range(N):
        kernel = (layer.weight + shift.magnitude[n] * shift.kernels[shift.index[n]]) * style[n][
            None, :, None, None
        ]
        torch.testing.assert_close(got[n], 1 / (kernel.square().sum((1, 2, 3)) + 1e-8).sqrt())


def test_a_kernel_per_sample_needs_many_directions_and_no_step_of_zero() -> None:
    x = torch.zeros(6, 5, 4, 4)
    kernels = torch.zeros(6, 7, 5, 3, 3)

    def own(index: list[int], t: float = 1.0, x: Tensor = x) -> bool:
        magnitude = torch.ones(len(index))
        magnitude[-1:] = t
        shift = WeightShift("conv", kernels, torch.tensor(index, dtype=torch.long), magnitude)
        return own_kernels_are_faster(x[: len(index)], shift)

    assert own([0, 1, 2, 3, 4, 5]) and own([2, 1, 0, 0, 3, 0]) and own([4, 1])
    assert not own([0, 0, 0, 0, 0, 0]) and not own([2, 1, 0, 0, 0, 0])
    assert not own([3]) and not own([])
    assert not own([0, 1, 2, 3, 4, 5], t=0.0)
    # On other devices its speed was not measured.
    assert not own([0, 1, 2, 3, 4, 5], x=x.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not own([0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("layer", ["conv4", "conv16_up", "conv16"])
def test_a_sample_without_a_step_keeps_its_bits_among_many_directions(layer: str) -> None:
    generator = StyleGAN2Generator(make_generator().network.float())
    shift = make_own_shift(generator.kernels()[layer], layer)
    shift.magnitude[2] = 0
    w = torch.randn(N, CONFIG.w_dim)
    plain = generator.decode(Codes(Space.W, w))
    got = generator.decode(Codes(Space.W, w, shift))
    assert torch.equal(got[2], plain[2]) and not torch.equal(got[1], plain[1])


@pytest.mark.parametrize("up", [False, True])
def test_a_kernel_per_sample_has_derivatives_under_torch_func(up: bool) -> None:
    torch.manual_seed(5)
    layer = StyledConv(5, 7, 4, 8, up=up).double().requires_grad_(False)
    side = 4 if up else 8
    x, style = torch.randn(N, 5, side, side).double(), torch.randn(N, 5).double()
    shift = make_own_shift(layer.weight, "conv")
    assert own_kernels_are_faster(x, shift)

    def run(kernels: Tensor, t: Tensor) -> Tensor:
        return layer(x, style, True, WeightShift("conv", kernels, shift.index, t))

    both = torch.randn(2, *shift.kernels.shape).double()
    mapped = torch.func.vmap(lambda kernels: run(kernels, shift.magnitude))(both)
    each = torch.stack([run(kernels, shift.magnitude) for kernels in both])
    torch.testing.assert_close(mapped, each)
    steps = torch.stack([shift.magnitude, 2 * shift.magnitude])
    mapped = torch.func.vmap(lambda t: run(shift.kernels, t))(steps)
    each = torch.stack([run(shift.kernels, t) for t in steps])
    torch.testing.assert_close(mapped, each)
    # The slope along a direction, against central differences.
    at, along = (shift.kernels, shift.magnitude), (both[0], steps[1])
    _, slope = torch.func.jvp(run, at, along)
    h = 1e-6
    ahead = run(at[0] + h * along[0], at[1] + h * along[1])
    behind = run(at[0] - h * along[0], at[1] - h * along[1])
    torch.testing.assert_close(slope, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-6)
    # The pull-back is the transpose of the push-forward.
    out, pull = torch.func.vjp(run, *at)
    probe = torch.randn_like(out)
    pulled = sum((part * tangent).sum() for part, tangent in zip(pull(probe), along, strict=True))
    torch.testing.assert_close(pulled, (probe * slope).sum())


@pytest.mark.parametrize("layer", ["conv8_up", "conv16", "rgb8"])
def test_a_sample_is_untouched_by_its_neighbours(generator: StyleGAN2Generator, layer: str) -> None:
    codes = make_codes(Space.W, generator, make_shift(generator.kernels()[layer], layer))
    whole, rows = generator.decode(codes), torch.tensor([4, 1])
    torch.testing.assert_close(generator.decode(codes[rows]), whole[rows], atol=1e-12, rtol=1e-12)
    assert len(generator.decode(codes[:0])) == 0
    codes.shift.magnitude[3] = torch.nan
    sick, others = generator.decode(codes), torch.arange(N) != 3
    assert torch.equal(sick[others], whole[others]) and torch.isnan(sick[3]).all()


def test_a_shift_that_does_not_fit_is_refused(generator: StyleGAN2Generator) -> None:
    shift = make_shift(generator.kernels()["conv8"], "conv8")
    with pytest.raises(UnknownName, match="Did you mean 'conv8'"):
        generator.decode(make_codes(Space.W, generator, WeightShift("convv8", *_rest(shift))))
    with pytest.raises(SpaceMismatch, match="takes kernels"):
        generator.decode(make_codes(Space.W, generator, WeightShift("conv16", *_rest(shift))))
    with pytest.raises(SpaceMismatch, match="takes kernels"):
        generator.decode(make_codes(Space.W, generator, shift[:2]))


def _rest(shift: WeightShift) -> tuple[Tensor, Tensor, Tensor]:
    return shift.kernels, shift.index, shift.magnitude


# -- any module ------------------------------------------------------------------------------------
class Halved(nn.Conv2d):
    """A convolution that is not linear in its weight as stored."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight.square(), self.bias)


def module_generator() -> ModuleGenerator:
    torch.manual_seed(4)
    network = nn.Sequential(
        nn.Linear(8, 6 * 4 * 4),
        nn.LeakyReLU(0.2),
        nn.Unflatten(1, (6, 4, 4)),
        nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2, padding_mode="reflect"),
        nn.SiLU(),
        nn.Sequential(nn.Conv2d(6, 3, 1, bias=False), Halved(3, 3, 1)),
        nn.Sigmoid(),
    )
    return ModuleGenerator(network, 8, (3, 8, 8), image_range=(0.0, 1.0), check_range=False)


@pytest.mark.parametrize("layer", ["0", "3", "6", "8.0"])
def test_a_shift_of_a_plain_layer_equals_a_changed_module(layer: str) -> None:
    generator = module_generator()
    generator.double()
    assert set(generator.kernels()) == {"0", "3", "6", "8.0"}  # plain layers alone
    z = torch.randn(N, 8, dtype=torch.float64)
    shift = make_shift(generator.kernels()[layer], layer)
    got, still = generator.decode(Codes(Space.Z, z, shift)), generator.decode(Codes(Space.Z, z))
    for n in range(N):
        own = copy.deepcopy(generator)
        with torch.no_grad():
            own.kernels()[layer].add_(shift.magnitude[n] * shift.kernels[shift.index[n]])
        torch.testing.assert_close(
            got[n : n + 1], own.decode(Codes(Space.Z, z[n : n + 1])), atol=1e-6, rtol=1e-5
        )
        assert torch.equal(got[n], still[n]) == (shift.magnitude[n] == 0)
    assert not any(module._forward_hooks for module in generator.modules())


def test_a_layer_that_does_not_keep_samples_apart_is_refused() -> None:
    network = nn.Sequential(
        nn.Unflatten(1, (2, 4)),
        nn.Flatten(0, 1),
        nn.Linear(4, 6),
        nn.Unflatten(0, (-1, 2)),
        nn.Flatten(1),
    )
    generator = ModuleGenerator(network, 8, (3, 2, 2), check_range=False)
    shift = make_shift(generator.kernels()["2"], "2")
    with pytest.raises(EditbenchError, match="sees a batch of 12 for 6 samples"):
        generator.decode(Codes(Space.Z, torch.randn(N, 8), shift))
    assert not any(module._forward_hooks for module in generator.modules())


def test_a_module_that_is_one_layer_and_theta_codes() -> None:
    generator = ModuleGenerator(nn.Linear(8, 12), 8, (3, 2, 2), check_range=False)
    shift, z = make_shift(generator.kernels()["network"], "network"), torch.randn(N, 8)
    steps = torch.einsum("n,noi,ni->no", shift.magnitude, shift.kernels[shift.index], z).reshape(
        N, 3, 2, 2
    )
    torch.testing.assert_close(
        generator.decode(Codes(Space.Z, z, shift)), generator.decode(Codes(Space.Z, z)) + steps
    )
    with pytest.raises(SpaceMismatch, match="THETA has no codes"):
        generator.decode(Codes(Space.THETA, torch.zeros(N, 1)))
