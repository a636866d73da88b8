"""Lower precision moves logits by less than a stated share of their spread; fp32 moves nothing and keeps identities."""

from __future__ import annotations

import pytest
import torch

from editbench.base import identity
from editbench.base.errors import EditbenchError
from editbench.base.precision import casting, lowered
from editbench.base.spaces import Codes, Space
from editbench.inversion.walks import LayeredStarts
from editbench.networks.generator import Generator
from editbench.networks.roles import Networks
from editbench.run.compose import compose_config, compose_settings
from tests.by_config import load_networks, locate_bank, make_run_id, networks_code

MEAN, MOST = 0.02, 0.25  # of a logit's standard deviation, over 96 pictures


def networks(*words: str) -> Networks:
    return load_networks(compose_config(list(words)))


def scored(networks: Networks, codes: Codes) -> torch.Tensor:
    with torch.inference_mode():
        return networks.judge(networks.generator.decode(codes))


@pytest.fixture(scope="module")
def z() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(96, networks().generator.z_dim)


def test_bf16_stays_within_its_bound(z: torch.Tensor) -> None:
    expected, got = (
        scored(networks(f"precision={name}"), Codes(Space.Z, z)) for name in ("fp32", "bf16")
    )
    gap = (got - expected).abs() / expected.std(0)
    assert got.dtype == torch.float32 and 0 < gap.mean() < MEAN and gap.max() < MOST


def test_the_spaces_agree_in_bf16(z: torch.Tensor) -> None:
    """Mapping and styles stay float32, so that a start is the same picture in every space."""
    generator = networks("precision=bf16").generator
    w = generator.map(z[:8])
    assert torch.equal(w, networks().generator.map(z[:8]))
    picture = generator.decode(Codes(Space.Z, z[:8]))
    assert picture.dtype == torch.float32
    assert not torch.equal(picture, networks().generator.decode(Codes(Space.Z, z[:8])))
    for space in (Space.W, Space.W_PLUS, Space.S):
        torch.testing.assert_close(
            generator.decode(Codes(space, generator.lift(w, space))), picture, atol=1e-5, rtol=0
        )


def test_fp32_is_the_plain_network_to_the_last_bit(z: torch.Tensor) -> None:
    plain, codes = networks().generator, Codes(Space.Z, z[:8])
    assert torch.equal(plain.decode(codes), plain._decode(codes)) and not lowered(z.device)
    with casting("fp32", z.device):
        assert torch.equal(plain.decode(codes), plain._decode(codes))


def test_gradients_reach_the_codes_in_bf16(z: torch.Tensor) -> None:
    gradients = []
    for name in ("fp32", "bf16"):
        part, w = (
            networks(f"precision={name}"),
            networks().generator.map(z[:4]).requires_grad_(True),
        )
        (gradient,) = torch.autograd.grad(
            part.judge(part.generator.decode(Codes(Space.W, w))).sum(), w
        )
        gradients.append(gradient)
    assert gradients[1].dtype == torch.float32
    assert torch.cosine_similarity(*gradients, dim=1).min() > 0.95


def test_precision_is_part_of_a_bank_s_identity_but_for_fp32() -> None:
    names = {
        name: locate_bank(compose_config([f"precision={name}"])).id for name in ("fp32", "bf16")
    }
    spec, plain = compose_settings([]).bank.spec, networks()
    digests = {role: network.digest for role, network in vars(plain).items()}
    code = networks_code(compose_config([]))
    assert names["fp32"] == identity.bank_id(vars(spec), digests, code)
    assert len(set(names.values())) == 2
    assert not any(
        "fp32" in network.digest for network in (plain.generator, plain.teacher, plain.judge)
    )


@pytest.mark.parametrize(
    "name, error, message",
    [
        ("fp8", EditbenchError, "precision=fp8 must be one of fp32, tf32, bf16, fp16"),
        ("tf32", EditbenchError, "needs an NVIDIA GPU"),
        ("fp16", EditbenchError, "for GPUs"),
    ],
)
def test_what_a_device_lacks_is_said(name: str, error: type[EditbenchError], message: str) -> None:
    with pytest.raises(error, match=message):
        networks(f"precision={name}", "device=cpu")


def test_half_precision_does_not_overflow_in_a_wide_network() -> None:
    """Sums over 512 inputs of large styles leave the range of float16 unless they are scaled."""
    from editbench.networks.stylegan2.layers import StyledConv

    torch.manual_seed(0)
    layer = StyledConv(512, 64, 8, 8, up=False).requires_grad_(False)
    x, style = 3 * torch.randn(2, 512, 8, 8), 300 * torch.randn(2, 512)
    expected = layer(x, style)
    with casting("fp16", x.device):
        got = layer(x, style)
    assert torch.isfinite(got).all() and (got - expected).abs().max() < 0.02 * expected.std()


def test_a_generator_says_its_precision() -> None:
    assert Generator.precision == "fp32" and networks("precision=bf16").judge.precision == "bf16"
    assert (
        LayeredStarts(networks("precision=bf16").generator).precision == "bf16"
    )  # the bound of a walk's start asks it


def test_an_unset_precision_is_fp32() -> None:
    ids = {
        name: make_run_id(compose_config([f"precision={name}"]), "bank", [])
        for name in ("fp32", "null", "bf16")
    }
    assert ids["fp32"] == ids["null"] != ids["bf16"] and networks("precision=null") is networks()
