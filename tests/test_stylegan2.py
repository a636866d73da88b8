"""StyleGAN2 against an obvious implementation, finite differences, and the published layout."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.base.errors import BadFile, EditbenchError, SpaceMismatch
from editbench.base.spaces import Codes, Space
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.layers import StyledConv
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.networks.stylegan2.ops import fir_kernel, fir_upsample
from tests.small_stylegan2 import random_stylegan2

CONFIG = StyleGAN2Config(16, (12, 8, 6), z_dim=10, w_dim=9, mapping_layers=2)


def network() -> StyleGAN2:
    """A network with everything switched on: noise, biases and a mean w."""
    net = random_stylegan2(CONFIG)
    net.mapping.w_avg.data.normal_(0, 0.5)
    return net


@pytest.fixture(scope="module")
def generator() -> StyleGAN2Generator:
    return StyleGAN2Generator(network())


def up_firdn(x: Tensor, gain: float = 4.0) -> Tensor:
    """Insert zeros, pad, filter with [1, 3, 3, 1]: the definition of up-sampling, one channel at a time."""
    n, c, h, w = x.shape
    spread = torch.zeros(n, c, 2 * h, 2 * w, dtype=x.dtype)
    spread[:, :, ::2, ::2] = x
    kernel = fir_kernel(gain).to(x.dtype)[None, None]
    padded = F.pad(spread, (2, 1, 2, 1))
    return torch.cat([F.conv2d(padded[:, i : i + 1], kernel) for i in range(c)], 1)


def slow_styled_conv(layer: StyledConv, x: Tensor, style: Tensor) -> Tensor:
    """Karras et al. 2020, eq. 1 to 3, one sample at a time with its own kernel (a grouped convolution of one group)."""
    out = []
    for image, s in zip(x, style):
        kernel = layer.weight * s[None, :, None, None]
        kernel = kernel / kernel.square().sum((1, 2, 3), keepdim=True).add(1e-8).sqrt()
        if layer.up:  # zeros between pixels, a full true convolution, then the low-pass filter
            spread = torch.zeros(
                1, len(s), 2 * image.shape[1] - 1, 2 * image.shape[2] - 1, dtype=x.dtype
            )
            spread[0, :, ::2, ::2] = image
            y = F.conv2d(F.pad(spread, (2, 2, 2, 2)), kernel.flip((2, 3)))
            fir = fir_kernel(4.0).to(x.dtype)[None, None].repeat(y.shape[1], 1, 1, 1)
            y = F.conv2d(F.pad(y, (1, 1, 1, 1)), fir, groups=y.shape[1])
        else:
            y = F.conv2d(image[None], kernel, padding=1)
        y = y + layer.noise * layer.noise_strength + layer.bias[:, None, None]
        out.append(F.leaky_relu(y, 0.2) * 2**0.5)
    return torch.cat(out)


# -- layers ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("up", [False, True])
def test_styled_conv_equals_modulating_each_kernel(up: bool) -> None:
    torch.manual_seed(1)
    layer = StyledConv(5, 7, 4, 12 if up else 6, up).double()
    torch.nn.init.normal_(layer.bias)
    torch.nn.init.constant_(layer.noise_strength, 0.4)
    x, style = torch.randn(3, 5, 6, 6).double(), torch.randn(3, 5).double()
    torch.testing.assert_close(
        layer(x, style), slow_styled_conv(layer, x, style), atol=1e-10, rtol=1e-10
    )


@pytest.mark.parametrize("shape", [(8, 8), (2, 1, 8, 8)])
def test_noise_is_added_in_the_memory_layout_of_the_features(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adding tensors of different layouts takes ten times as long."""
    layer = StyledConv(6, 5, 9, 8, up=False)
    layer.noise = torch.randn(shape)
    layer.noise_strength.data.fill_(0.3)
    layer.bias.data.normal_()
    offsets = []

    def activate(x: Tensor, demodulation: Tensor, offset: Tensor) -> Tensor:
        assert x.is_contiguous(memory_format=torch.channels_last)
        offsets.append(offset)
        return x

    monkeypatch.setattr(layer, "activate", activate)
    features = torch.randn(2, 6, 8, 8).contiguous(memory_format=torch.channels_last)
    layer(features, torch.randn(2, 6))
    (offset,) = offsets
    assert offset.movedim(-3, -1).is_contiguous()
    expected = layer.bias[:, None, None] + layer.noise * layer.noise_strength
    torch.testing.assert_close(offset, expected * 2**0.5)


def test_fir_upsample_equals_its_definition() -> None:
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(fir_upsample(x, fir_kernel(4.0)), up_firdn(x), atol=1e-12, rtol=0)
    flat = fir_upsample(torch.ones(1, 1, 8, 8), fir_kernel(4.0))
    torch.testing.assert_close(
        flat[..., 2:-2, 2:-2], torch.ones(1, 1, 12, 12)
    )  # a constant stays one


def test_demodulation_keeps_the_picture_whatever_the_scale_of_a_style() -> None:
    layer = StyledConv(4, 6, 4, 8, up=False)
    x, style = torch.randn(2, 4, 8, 8), torch.randn(2, 4)
    torch.testing.assert_close(layer(x, style), layer(x, 7 * style), atol=1e-5, rtol=1e-5)


# -- spaces ----------------------------------------------------------------------------------------
def test_all_spaces_decode_to_the_same_picture(generator: StyleGAN2Generator) -> None:
    z = torch.randn(4, CONFIG.z_dim)
    w = generator.map(z)
    w_plus = generator.w_plus(w)
    s = generator.styles(w_plus)
    assert s.shape == (4, generator.code_dim(Space.S))
    assert w_plus.shape == (
        4,
        generator.num_ws,
        CONFIG.w_dim,
    )
    assert [part.shape[1] for part in generator.split_styles(s)] == list(generator.style_sizes)
    expected = generator.network(z)
    for space, values in ((Space.Z, z), (Space.W, w), (Space.W_PLUS, w_plus), (Space.S, s)):
        torch.testing.assert_close(
            generator.decode(Codes(space, values)), expected, atol=1e-4, rtol=0
        )


def test_pictures_do_not_depend_on_the_batch(generator: StyleGAN2Generator) -> None:
    w = torch.randn(5, CONFIG.w_dim)
    whole = generator.decode(Codes(Space.W, w))
    assert whole.shape == (5, 3, 16, 16) and whole.dtype == torch.float32
    for i in range(5):
        torch.testing.assert_close(
            generator.decode(Codes(Space.W, w[i : i + 1]))[0], whole[i], atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("space", [Space.Z, Space.W, Space.W_PLUS, Space.S])
def test_gradients_match_finite_differences(space: Space) -> None:
    generator = StyleGAN2Generator(network().double())
    torch.manual_seed(2)
    w_plus = torch.randn(2, generator.num_ws, CONFIG.w_dim).double()
    x = (
        {
            Space.Z: torch.randn(2, CONFIG.z_dim).double(),
            Space.W: w_plus[:, 0],
            Space.W_PLUS: w_plus,
            Space.S: generator.styles(w_plus),
        }[space]
        .clone()
        .requires_grad_(True)
    )
    probe = torch.randn(2, 3, 16, 16).double()

    def value(x: Tensor) -> Tensor:
        return (generator.decode(Codes(space, x)) * probe).sum()

    (gradient,) = torch.autograd.grad(value(x), x)
    direction = torch.randn_like(x)
    step = 1e-6
    with torch.no_grad():
        slope = (value(x + step * direction) - value(x - step * direction)) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-6)


def test_weights_can_be_edited_functionally(generator: StyleGAN2Generator) -> None:
    name = "network.synthesis.layers.conv8.weight"
    weight = generator.get_parameter(name).clone().requires_grad_(True)
    codes = Codes(Space.W, torch.randn(2, CONFIG.w_dim))
    image = torch.func.functional_call(generator, {name: weight}, (codes,))
    torch.testing.assert_close(image, generator.decode(codes))
    (gradient,) = torch.autograd.grad(image.square().sum(), weight)
    assert gradient.abs().max() > 0


def test_truncation_moves_w_towards_the_mean() -> None:
    z = torch.randn(3, CONFIG.z_dim)
    full, half, none = (StyleGAN2Generator(network(), psi) for psi in (1.0, 0.5, 0.0))
    mean = full.network.mapping.w_avg
    torch.testing.assert_close(none.map(z), mean.expand(3, -1))
    torch.testing.assert_close(half.map(z), (full.map(z) + mean) / 2)
    assert len({full.digest, half.digest, none.digest}) == 3
    with pytest.raises(EditbenchError, match="between 0 and 1"):
        StyleGAN2Generator(network(), 1.5)


@pytest.mark.parametrize(
    "space, shape",
    [
        (Space.Z, (2, 9)),
        (Space.W, (2, 10)),
        (Space.W_PLUS, (2, 9)),
        (Space.W_PLUS, (2, 5, 9)),
        (Space.S, (2, 9)),
        (Space.W, (9,)),
        (Space.THETA, (2, 9)),
    ],
)
def test_codes_of_a_wrong_shape_or_space_are_refused(
    generator: StyleGAN2Generator, space: Space, shape: tuple[int, ...]
) -> None:
    with pytest.raises(SpaceMismatch, match=space.name):
        generator.decode(Codes(space, torch.zeros(shape)))


# -- layout and files ------------------------------------------------------------------------------
def test_config_f_has_the_published_layout() -> None:
    config = StyleGAN2Config.config_f(1024)
    with torch.device("meta"):
        net = StyleGAN2(config)
        styles = net.synthesis.styles(torch.zeros(1, config.num_ws, 512))
    assert config.num_ws == 18 and config.channels == (512, 512, 512, 512, 512, 256, 128, 64, 32)
    assert len(styles) == 26 and sum(style.shape[1] for style in styles) == 9088
    assert net.synthesis.rows[:8] == [0, 1, 1, 2, 3, 3, 4, 5] and net.synthesis.rows[-1] == 17
    rgb = sum(
        style.shape[1]
        for name, style in zip(net.synthesis.layers, styles)
        if name.startswith("rgb")
    )
    assert 9088 - rgb == 6048  # the style channels of StyleSpace (Wu et al. 2021) without ToRGB


@pytest.mark.parametrize("resolution, channels", [(24, (8, 8)), (2, ()), (16, (8, 8))])
def test_an_impossible_architecture_is_refused(resolution: int, channels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=str(resolution)):
        StyleGAN2Config(resolution, channels)


def test_file_round_trip(generator: StyleGAN2Generator, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    generator.save(path)
    again = StyleGAN2Generator.from_file(path)
    assert again.digest == generator.digest and again.config == CONFIG
    assert StyleGAN2Generator.from_file(path, truncation_psi=0.5).digest != generator.digest
    codes = Codes(Space.Z, torch.randn(2, CONFIG.z_dim))
    assert torch.equal(again.decode(codes), generator.decode(codes))
    assert not any(p.requires_grad for p in again.parameters())


def test_a_file_of_another_architecture_is_refused(
    generator: StyleGAN2Generator, tmp_path: Path
) -> None:
    from editbench.networks.weights import save_tensors

    wrong = dataclasses.asdict(CONFIG) | {"w_dim": 11}
    save_tensors(tmp_path / "a", generator.network.state_dict(), "stylegan2", wrong)
    with pytest.raises(BadFile, match="of another shape"):
        StyleGAN2Generator.from_file(tmp_path / "a")
    save_tensors(tmp_path / "b", generator.network.state_dict(), "stylegan2", {"colour": "red"})
    with pytest.raises(BadFile, match="configuration"):
        StyleGAN2Generator.from_file(tmp_path / "b")


def test_the_norms_that_are_kept_follow_every_change_of_a_weight():
    layer = StyledConv(3, 5, 4, 8, up=False).requires_grad_(False)
    style = torch.randn(2, 3)

    def expected(weight: torch.Tensor) -> torch.Tensor:
        modulated = weight * style[:, None, :, None, None]
        return torch.rsqrt(modulated.square().sum((2, 3, 4)) + 1e-8)

    def check() -> None:
        torch.testing.assert_close(layer.demodulation(style), expected(layer.weight))

    with torch.inference_mode():
        check()
    check()
    layer.weight.mul_(2)  # in place, as an optimiser does
    check()
    layer.load_state_dict({**layer.state_dict(), "weight": torch.randn(5, 3, 3, 3)})
    check()
    layer.double()  # the same parameter with other memory
    style = style.double()
    check()
    layer.weight.data = torch.randn(5, 3, 3, 3).double()
    check()
    edited = torch.randn(5, 3, 3, 3).double()
    with torch.no_grad():
        found = torch.func.functional_call(Demodulation(layer), {"layer.weight": edited}, (style,))
    torch.testing.assert_close(found, expected(edited))
    check()

    def of_weight(weight: Tensor) -> Tensor:
        return torch.func.functional_call(Demodulation(layer), {"layer.weight": weight}, (style,))

    several = torch.stack([edited, 2 * edited])
    torch.testing.assert_close(
        torch.func.vmap(of_weight)(several), torch.stack([expected(one) for one in several])
    )
    _, slope = torch.func.jvp(of_weight, (edited,), (edited,))
    # A norm is homogeneous, so its reciprocal falls by itself (the epsilon aside).
    torch.testing.assert_close(slope, -expected(edited), rtol=1e-6, atol=1e-6)


class Demodulation(torch.nn.Module):
    """Calls the demodulation, for edited weights."""

    def __init__(self, layer: StyledConv) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, style: torch.Tensor) -> torch.Tensor:
        return self.layer.demodulation(style)
